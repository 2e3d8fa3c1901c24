//! Text made safe for a terminal and readable for people.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

pub(crate) use crate::control::plain::{Clock, peer_label, push_escaped_bytes, stdout_was_closed};
use crate::model::{PeerId, escaped};

/// Text for people kept to one line, its backslashes left alone: for explanations, where nothing
/// needs to be read back.
pub(crate) fn one_line(text: &str) -> String {
    let parts: Vec<String> = text.split('\\').map(escaped).collect();
    parts.join("\\")
}

/// A peer's own name for itself, marked as such: anybody may call itself anything.
pub(crate) fn own_name(name: Option<&str>) -> String {
    name.map(|name| format!("\"{}\"", escaped(name).replace('"', "\\\""))).unwrap_or_default()
}

/// Columns that text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Text that takes at most so many columns; what was cut ends in an ellipsis.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let next = at + c.len_utf8();
        if text.get(..next).is_none_or(|kept| width(kept) >= columns) {
            break;
        }
        end = next;
    }
    let ellipsis = if columns == 0 { "" } else { "…" };
    Cow::Owned(format!("{}{ellipsis}", text.get(..end).unwrap_or_default()))
}

/// The first characters of an ID, for tables that must fit.
pub(crate) fn short_id(id: &str) -> String {
    const SHORT: usize = 11;
    match id.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", id.get(..end).unwrap_or(id)),
        None => id.to_owned(),
    }
}

/// A peer as somebody named it, a full ID cut: for lines that tell what goes on.
pub(crate) fn named(peer: &str) -> String {
    if peer.parse::<PeerId>().is_ok() { short_id(peer) } else { peer.to_owned() }
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

/// A whole number, as an option's value.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number".to_owned())
}

/// A whole number that is not 0, as an option's value.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    let positive = text.parse().ok().filter(|number| *number > 0);
    positive.ok_or_else(|| "write a whole number from 1 on".to_owned())
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

    #[test]
    fn names_are_whole_and_ids_are_cut() {
        let id = PeerId::from_bytes([1; 32]).to_string();
        assert_eq!(named(&id), short_id(&id));
        assert_eq!(named("a-machine-with-a-long-name"), "a-machine-with-a-long-name");
    }

    #[test]
    fn what_is_cut_fits() {
        for (text, columns, expected) in [
            ("alice", 5, "alice"),
            ("alice", 4, "ali…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 1, "…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("alice", 0, ""),
        ] {
            assert_eq!(cut(text, columns), expected, "{text} {columns}");
            assert!(width(&cut(text, columns)) <= columns, "{text} {columns}");
        }
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
