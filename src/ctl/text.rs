//! Text made safe for a terminal and readable for people.

use jiff::tz::TimeZone;

use crate::model::escaped;

/// A message's body for one line: control characters and bytes that are not UTF-8 as escapes. The
/// backslash is escaped too, so that no two bodies look the same.
pub(crate) fn push_escaped_bytes(line: &mut Vec<u8>, body: &[u8]) {
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

/// Text for people kept to one line, its backslashes left alone: for explanations, where nothing
/// needs to be read back.
pub(crate) fn one_line(text: &str) -> String {
    let parts: Vec<String> = text.split('\\').map(escaped).collect();
    parts.join("\\")
}

/// Times of messages in local time, to the second.
///
/// A stream's messages mostly share their second, so the last answer is kept.
pub(crate) struct Clock {
    zone: TimeZone,
    last: Option<(Box<str>, String)>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { zone: TimeZone::system(), last: None }
    }

    /// The local form of an RFC 3339 time; the text itself, made safe, if it is none.
    pub(crate) fn local(&mut self, time: &str) -> &str {
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
pub(crate) fn peer_label(alias: Option<&str>, id: &str) -> String {
    escaped(alias.unwrap_or(id))
}

/// A peer's own name for itself, marked as such: anybody may call itself anything.
pub(crate) fn own_name(name: Option<&str>) -> String {
    name.map(|name| format!("\"{}\"", escaped(name).replace('"', "\\\""))).unwrap_or_default()
}

/// The first characters of an ID, for tables that must fit.
pub(crate) fn short_id(id: &str) -> String {
    const SHORT: usize = 11;
    match id.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", id.get(..end).unwrap_or(id)),
        None => id.to_owned(),
    }
}

/// Seconds as people say them: `42s`, `3m 5s`, `2h 7m`, `5d 3h`.
pub(crate) fn ago(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A number with its noun, in the singular or the plural.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Bytes as people say them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            // Tenths are exact enough for people, and need no floats.
            let tenths = bytes.saturating_mul(10) / unit;
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
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

    #[test]
    fn numbers_read_well() {
        assert_eq!(ago(59), "59s");
        assert_eq!(ago(3_661), "1h 1m");
        assert_eq!(ago(90_000), "1d 1h");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(count(1, "peer"), "1 peer");
    }
}
