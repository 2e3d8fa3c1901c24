//! Ways out by a thread: whoever does not read (a terminal that was stopped, a full pipe, a journal
//! that hangs) holds up nobody. What there is no room for is counted, and said later.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// What is logged and waits to be written.
pub(super) const LOGGED_WAITING_MAX: usize = 1_024;
/// How long the last of it may take at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where it goes in.
#[derive(Debug)]
pub(super) struct Outlet<T> {
    said: SyncSender<Said<T>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Said<T> {
    One(T),
    /// Everything before it was passed on: say so.
    Mark(SyncSender<()>),
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { said: self.said.clone(), lost: Arc::clone(&self.lost) }
    }
}

impl<T: Send + 'static> Outlet<T> {
    /// Starts a thread of this name that passes on what is said, each with how much was lost before
    /// it: what comes while `waiting_max` wait.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        name: &str,
        waiting_max: usize,
        mut pass_on: impl FnMut(T, u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (said, to_pass_on) = sync_channel(waiting_max);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for said in to_pass_on {
                match said {
                    Said::One(one) => pass_on(one, counted.swap(0, Ordering::Relaxed)),
                    // Whoever waited for it may have gone.
                    Said::Mark(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Self { said, lost })
    }

    /// Hands it over. Never waits.
    pub(super) fn say(&self, one: T) {
        if self.said.try_send(Said::One(one)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was said is passed on, but not for long.
    pub(super) fn finish(&self) {
        let (done, is_done) = sync_channel(1);
        if self.said.try_send(Said::Mark(done)).is_ok() {
            let _ = is_done.recv_timeout(FAREWELL);
        }
    }
}

impl Outlet<Vec<u8>> {
    /// One for lines, their ends included.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn of_lines(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start("log", LOGGED_WAITING_MAX, move |line: Vec<u8>, lost| {
            let note = match lost {
                0 => Ok(()),
                lost => writeln!(to, "({lost} lines of the log were lost: nobody read them)"),
            };
            // Where nobody can read, nobody misses it.
            let _ = note.and_then(|()| to.write_all(&line));
        })
    }
}

/// A text that is one line whatever is in it: no peer can forge another line.
pub(super) fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
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
        let outlet = Outlet::of_lines(Gate(gate, sender)).expect("a thread");
        outlet.say(b"first\n".to_vec());
        // The thread has that one in its hands at most; the rest waits or is lost.
        for _ in 0..2 * LOGGED_WAITING_MAX {
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
