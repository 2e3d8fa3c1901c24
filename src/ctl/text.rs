//! Text made safe for a terminal and readable for people.

pub(crate) use crate::control::plain::{Clock, peer_label, push_escaped_bytes};
use crate::model::escaped;

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
    fn numbers_read_well() {
        assert_eq!(ago(59), "59s");
        assert_eq!(ago(3_661), "1h 1m");
        assert_eq!(ago(90_000), "1d 1h");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(count(1, "peer"), "1 peer");
    }
}
