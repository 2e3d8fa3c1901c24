//! A line on the terminal that tells what is waited for, once that takes longer than a moment.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::output::{ask, say};
use super::{text, when};

/// How long nothing is said, and how often it is said anew.
const BEAT: Duration = Duration::from_secs(1);
/// Back to the beginning of the line, and away with what stands there.
const CLEAR: &str = "\r\x1b[K";

/// Does something of which a person may wonder what it is at: after a second standard error tells,
/// if that is a terminal. `what` is asked each second, `within` is how long it may take. In the end
/// the line is gone, and so it is if the future is dropped.
pub(crate) async fn shown<T>(
    json: bool,
    within: Duration,
    what: impl Fn() -> String,
    work: impl Future<Output = T>,
) -> T {
    if json || !io::stderr().is_terminal() {
        return work.await;
    }
    let started = Instant::now();
    let mut beats = interval_at(started + BEAT, BEAT);
    let mut work = pin!(work);
    let mut line = Line { begun: false, dumb: is_dumb() };
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = beats.tick() => line.show(&told(&what(), started.elapsed(), within)),
        }
    }
}

fn told(what: &str, elapsed: Duration, within: Duration) -> String {
    let elapsed = text::ago(elapsed.as_secs());
    format!("{} … {elapsed} of {}", text::one_line(what), when::spoken(within))
}

/// Whether the terminal can do no more than a printer.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// The line, removed when this is dropped.
struct Line {
    begun: bool,
    dumb: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        match (self.dumb, self.begun) {
            (true, true) => {}
            (true, false) => say(text),
            (false, _) => ask(&format!("{CLEAR}{}", text::cut(text, columns()))),
        }
        self.begun = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.begun && !self.dumb {
            ask(CLEAR);
        }
    }
}

/// Columns that can be written without the cursor wrapping.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr().as_fd());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    // A terminal that does not know its size has the usual one.
    let columns = if columns == 0 { 80 } else { columns };
    columns.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_and_how_long() {
        let line = told("looking for bob", Duration::from_millis(3_100), Duration::from_secs(90));
        assert_eq!(line, "looking for bob … 3s of 1m30s");
    }
}
