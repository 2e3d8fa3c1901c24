//! Standard error by way of a thread: whoever does not read it (a terminal that was stopped, a full
//! pipe) holds up nobody. What there is no room for is counted, and said later.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait to be written.
const LINES_MAX: usize = 1_024;
/// How long the last lines may take at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where lines go in.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    lines: SyncSender<Said>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Said {
    Line(Vec<u8>),
    /// Everything before it was written: say so.
    Mark(SyncSender<()>),
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, said) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || pass_on(to, &said, &counted))?;
        Ok(Self { lines, lost })
    }

    /// Hands over a line, its end included. Never waits.
    pub(super) fn say(&self, line: Vec<u8>) {
        if self.lines.try_send(Said::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was said is written, but not for long.
    pub(super) fn finish(&self) {
        let (done, is_done) = sync_channel(1);
        if self.lines.try_send(Said::Mark(done)).is_ok() {
            let _ = is_done.recv_timeout(FAREWELL);
        }
    }
}

fn pass_on(mut to: impl Write, said: &Receiver<Said>, lost: &AtomicU64) {
    for said in said {
        // Where nobody can read, nobody misses it.
        let _ = match said {
            Said::Line(line) => {
                let lost = lost.swap(0, Ordering::Relaxed);
                let note = match lost {
                    0 => Ok(()),
                    lost => writeln!(to, "({lost} lines of the log were lost: nobody read them)"),
                };
                note.and_then(|()| to.write_all(&line))
            }
            Said::Mark(done) => done.send(()).map_err(|_| io::ErrorKind::BrokenPipe.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes what it is given on, once it is let.
    struct Gate(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.send(bytes.to_vec()).expect("the test listens");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_is_told_what_it_missed() {
        let (open, gate) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let outlet = Outlet::start(Gate(gate, sender)).expect("a thread");
        outlet.say(b"first\n".to_vec());
        // The thread has that one in its hands at most; the rest waits or is lost.
        for _ in 0..2 * LINES_MAX {
            outlet.say(b"more\n".to_vec());
        }
        // It is full: not even the mark goes in, and nobody waits for it.
        outlet.finish();
        drop(open);
        let mut text = Vec::new();
        while !text.ends_with(b"last\n") {
            text.extend(written.recv_timeout(Duration::from_secs(20)).expect("something"));
            if text.len() == b"first\n".len() {
                continue;
            }
            // There is room again.
            outlet.say(b"last\n".to_vec());
        }
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("first\n") && text.contains("more\n"), "{text:.60}");
        assert!(text.contains("lines of the log were lost"), "it says what was lost");
    }
}
