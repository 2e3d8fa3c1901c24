//! Standard output and standard error: results on one, chatter on the other.

use std::io::{self, IsTerminal as _};
use std::mem;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::exit::{Exit, Failed, Stop};

/// Collects results and writes them to standard output in as few calls as possible.
pub(crate) struct Output {
    /// Columns, where standard output is a terminal.
    pub(crate) columns: Option<usize>,
    colour: bool,
    buffer: Vec<u8>,
    /// Whether a reader that goes away is ignored.
    unread: bool,
}

/// What colours mean here. There are only these.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// Who it is about.
    Peer,
    /// Less important than the rest.
    Dim,
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns = terminal
            .then(|| rustix::termios::tcgetwinsize(stdout.as_fd()).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|&columns| columns > 0);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { columns, colour: terminal && !plain, buffer: Vec::new(), unread: false }
    }

    /// Adds a line of text, which must be safe already.
    pub(crate) fn line(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
    }

    /// Adds an object as one line of JSON.
    pub(crate) fn object<T: Serialize>(&mut self, value: &T) {
        // Writing our own types of text and numbers to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.buffer, value);
        self.buffer.push(b'\n');
    }

    /// Text in a style, if there are colours.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Peer => "36",
            Style::Dim => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The bytes collected so far, to add to.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// From now on a reader that goes away is no reason to stop: what is done matters, not what is
    /// printed of it.
    pub(crate) const fn needs_no_reader(&mut self) {
        self.unread = true;
    }

    /// Writes what was collected. For results that come one by one: nothing else runs meanwhile.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        let written = write_stdout(&self.buffer);
        self.buffer.clear();
        self.verdict(written)
    }

    /// Writes what was collected while other tasks run on, so that a reader that is slow, or a
    /// pager that waits, does not keep us from reading what the daemon sends.
    pub(crate) async fn flush_beside(&mut self) -> Result<(), Stop> {
        let buffer = mem::take(&mut self.buffer);
        let (mut buffer, written) = tokio::task::spawn_blocking(move || {
            let written = write_stdout(&buffer);
            (buffer, written)
        })
        .await
        .map_err(|_| Failed::local("the writer of standard output failed"))?;
        buffer.clear();
        self.buffer = buffer;
        self.verdict(written)
    }

    fn verdict(&self, written: io::Result<()>) -> Result<(), Stop> {
        match written {
            Err(error) if self.unread && error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(stop),
        }
    }
}

fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    write_all(stdout.as_fd(), bytes)
}

/// Writes everything, also where another process left the descriptor in non-blocking mode.
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A reader that went away has all it wanted; everything else is a failure.
fn stop(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::Quiet(Exit::Done);
    }
    Failed::local(format!("cannot write to standard output: {error}")).into()
}

/// A line on standard error, for people. If nobody can read it, nobody misses it.
pub(crate) fn say(line: &str) {
    let stderr = io::stderr();
    let _ = write_all(stderr.as_fd(), format!("{line}\n").as_bytes());
}

/// A question on standard error: the answer is typed behind it.
pub(crate) fn ask(question: &str) {
    let _ = write_all(io::stderr().as_fd(), question.as_bytes());
}

/// Explains a failure on standard error.
pub(crate) fn explain(failed: &Failed, json: bool) {
    say(&failed.line(json));
}

/// Says what was done, to somebody who watches; scripts are told by the exit code.
pub(crate) fn chat(line: &str) {
    if io::stderr().is_terminal() {
        say(&super::text::one_line(line));
    }
}
