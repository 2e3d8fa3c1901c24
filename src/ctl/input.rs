//! Standard input, read in a thread that can be told to stop: a prompt must get its terminal back
//! when a command that read from it is interrupted.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::mem;
use std::os::fd::AsFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// Bytes of one read.
const READ_BYTES: usize = 128 * 1024;

/// Reads that may wait to be taken.
const READS_WAITING_MAX: usize = 4;

/// A stream of bytes: standard input or a file.
pub(crate) struct Input {
    reads: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Closing it tells the thread to stop.
    _stop: PipeWriter,
}

enum Source {
    Stdin(io::Stdin),
    File(File),
}

impl Input {
    /// Standard input.
    pub(crate) fn stdin() -> io::Result<Self> {
        Self::start(Source::Stdin(io::stdin()))
    }

    /// A file, or whatever else a path names.
    pub(crate) fn file(file: File) -> io::Result<Self> {
        Self::start(Source::File(file))
    }

    fn start(source: Source) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let (sender, reads) = mpsc::channel(READS_WAITING_MAX);
        thread::Builder::new().name("input".into()).spawn(move || match source {
            Source::Stdin(stdin) => read_all(stdin.as_fd(), &stopped, &sender),
            Source::File(file) => read_all(file.as_fd(), &stopped, &sender),
        })?;
        Ok(Self { reads, _stop: stop })
    }

    /// What was read next; none at the end.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.reads.recv().await
    }

    /// One line as a person types it at a terminal; none at the end of input. A line that is not
    /// UTF-8 or longer than one read is no answer to anything.
    pub(crate) async fn answer(&mut self) -> Option<String> {
        let line = self.next().await?.ok()?;
        String::from_utf8(line).ok()
    }
}

fn read_all(
    fd: impl AsFd + Copy,
    stopped: &PipeReader,
    sender: &mpsc::Sender<io::Result<Vec<u8>>>,
) {
    loop {
        let read = match read(fd, stopped) {
            Ok(Some(bytes)) if bytes.is_empty() => return,
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => return,
            Err(error) => Err(error.into()),
        };
        let failed = read.is_err();
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// One read; none when told to stop.
fn read(fd: impl AsFd + Copy, stopped: &PipeReader) -> Result<Option<Vec<u8>>, Errno> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) if ready.iter().skip(1).any(|fd| !fd.revents().is_empty()) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if ready.iter().take(1).all(|fd| fd.revents().is_empty()) {
            continue;
        }
        match rustix::io::read(fd, &mut buffer) {
            Ok(bytes) => {
                buffer.truncate(bytes);
                return Ok(Some(buffer));
            }
            // Another process may have left it in non-blocking mode, or been faster than we.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Cuts a stream of bytes into lines, whatever the pieces it comes in, and never keeps more of a
/// line than allowed.
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// Whether the rest of that line is to be passed over.
    skipping: bool,
    bytes_max: usize,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its newline.
    Whole(Vec<u8>),
    /// A line that is longer than allowed, of which this much is known. Nothing was taken: either
    /// allow more, or skip it, and go on.
    Full(usize),
}

impl Lines {
    /// Lines of at most this many bytes, newline excluded.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { partial: Vec::new(), skipping: false, bytes_max }
    }

    /// From now on lines may have this many bytes.
    pub(crate) const fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Passes over the line that is too long.
    pub(crate) fn skip(&mut self) {
        self.partial = Vec::new();
        self.skipping = true;
    }

    /// Takes the next line off the front of `bytes`. None when they are used up: what remained is
    /// kept as the beginning of a line.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Line> {
        if self.skipping {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            self.skipping = end.is_none();
            *bytes = end.and_then(|end| bytes.get(end + 1..)).unwrap_or_default();
        }
        if bytes.is_empty() {
            return None;
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        let known = self.partial.len().saturating_add(piece.len());
        if known > self.bytes_max {
            return Some(Line::Full(known));
        }
        self.partial.extend_from_slice(piece);
        *bytes = rest.get(1..).unwrap_or_default();
        end.map(|_| Line::Whole(mem::take(&mut self.partial)))
    }

    /// The last line, if it has no newline.
    pub(crate) fn last(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| mem::take(&mut self.partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str], bytes_max: usize) -> Vec<String> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for piece in pieces {
            let mut bytes = piece.as_bytes();
            while let Some(line) = lines.next(&mut bytes) {
                match line {
                    Line::Whole(line) => found.push(String::from_utf8(line).expect("text")),
                    Line::Full(known) => {
                        found.push(format!("<{known}>"));
                        lines.skip();
                    }
                }
            }
        }
        found.extend(lines.last().map(|line| String::from_utf8(line).expect("text")));
        found
    }

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        assert_eq!(split(&["a\nb", "c\n\n", "\r\nd"], 9), ["a", "bc", "", "\r", "d"]);
        assert_eq!(split(&["", "a\n"], 9), ["a"]);
        assert_eq!(split(&[], 9), [""; 0]);
    }

    #[test]
    fn overlong_lines_are_skipped_and_the_next_one_is_found() {
        assert_eq!(split(&["abcd\nef\n"], 3), ["<4>", "ef"]);
        assert_eq!(split(&["ab", "cd", "ef", "\ngh"], 3), ["<4>", "gh"]);
        assert_eq!(split(&["abc\nabc"], 3), ["abc", "abc"]);
    }

    #[test]
    fn a_full_line_goes_on_once_more_is_allowed() {
        let mut lines = Lines::new(2);
        let mut bytes = &b"abc\n"[..];
        assert_eq!(lines.next(&mut bytes), Some(Line::Full(3)));
        lines.allow(4);
        assert_eq!(lines.next(&mut bytes), Some(Line::Whole(b"abc".to_vec())));
        assert_eq!(lines.next(&mut bytes), None);
    }
}
