//! Messages as lines for people: the same from daemon and client.

use std::io;

use jiff::tz::TimeZone;
use rustix::fs::{FileType, OFlags};

use crate::model::escaped;

/// Whether standard output was closed when this process was started, so that nobody would see what
/// is acknowledged for having been printed.
///
/// Before `main`, the standard library opens `/dev/null` in place of what is closed, for reading
/// and writing. Who wants to throw output away opens it for writing, as every shell does; where
/// that cannot be told apart, refusing to print loses nothing.
pub fn stdout_was_closed() -> bool {
    let stdout = io::stdout();
    let opened = rustix::fs::fcntl_getfl(&stdout).map(|flags| flags & OFlags::ACCMODE);
    let device = |found: rustix::fs::Stat| {
        let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        is_device.then_some(found.st_rdev)
    };
    let there = rustix::fs::fstat(&stdout).ok().and_then(device);
    let null = rustix::fs::stat("/dev/null").ok().and_then(device);
    opened == Ok(OFlags::RDWR) && there.is_some() && there == null
}

/// A message's body for one line: control characters and bytes that are not UTF-8 as escapes. The
/// backslash is escaped too, so that no two bodies look the same.
pub fn push_escaped_bytes(line: &mut Vec<u8>, body: &[u8]) {
    // Nearly every body is plain, and then it is copied once.
    if body.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
        line.extend_from_slice(body);
        return;
    }
    for chunk in body.utf8_chunks() {
        line.extend_from_slice(escaped(chunk.valid()).as_bytes());
        for byte in chunk.invalid() {
            line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
}

/// Times of messages in local time, to the second.
///
/// A stream's messages mostly share their second, so the last answer is kept.
#[derive(Debug)]
pub struct Clock {
    zone: TimeZone,
    last: Option<(Box<str>, String)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock in the system's time zone.
    pub fn new() -> Self {
        Self { zone: TimeZone::system(), last: None }
    }

    /// The local form of an RFC 3339 time; the text itself, made safe, if it is none.
    pub fn local(&mut self, time: &str) -> &str {
        // Seconds in UTC: two texts that agree this far are in the same second.
        let second = match time.get(..19) {
            Some(second) if time.ends_with('Z') => second,
            _ => time,
        };
        if self.last.as_ref().is_none_or(|(known, _)| **known != *second) {
            let local = match time.parse::<jiff::Timestamp>() {
                Ok(time) => {
                    time.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
                }
                Err(_) => escaped(time),
            };
            self.last = Some((second.into(), local));
        }
        self.last.as_ref().map_or("", |(_, local)| local)
    }
}

/// A peer for a line of text: its alias, else its full ID. An alias cannot look like an ID.
pub fn peer_label(alias: Option<&str>, id: &str) -> String {
    escaped(alias.unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped_bytes(body: &[u8]) -> String {
        let mut line = Vec::new();
        push_escaped_bytes(&mut line, body);
        String::from_utf8(line).expect("escaped text is UTF-8")
    }

    #[test]
    fn bodies_stay_on_their_line() {
        assert_eq!(escaped_bytes(b"plain text"), "plain text");
        assert_eq!(escaped_bytes(b"a\nb\\x41\xff\x00"), "a\\nb\\\\x41\\xff\\u{0}");
        assert_eq!(escaped_bytes("é\u{202e}".as_bytes()), "é\\u{202e}");
    }

    #[test]
    fn times_are_local_and_the_same_second_is_not_computed_twice() {
        let mut clock = Clock { zone: TimeZone::fixed(jiff::tz::offset(2)), last: None };
        assert_eq!(clock.local("2026-01-02T03:04:05.5Z"), "2026-01-02T05:04:05+02:00");
        assert_eq!(clock.local("2026-01-02T03:04:05.9Z"), "2026-01-02T05:04:05+02:00");
        assert_eq!(clock.local("2026-01-02T03:04:06Z"), "2026-01-02T05:04:06+02:00");
        assert_eq!(clock.local("2026-01-02T03:04:06+02:00"), "2026-01-02T03:04:06+02:00");
        assert_eq!(clock.local("soon\n"), "soon\\n");
    }
}
