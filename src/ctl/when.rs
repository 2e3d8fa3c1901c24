//! Lengths and points of time as people write them.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// No timeout is longer: ten years is for ever, and keeps every sum far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

const DURATION_WHY: &str = "write a duration like 10s, 500ms, 2m or 1h30m, or a number of seconds";

/// `10s`, `500ms`, `2m`, `1h30m`, `1.5h`, or bare seconds: `2`, `0.5`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || DURATION_WHY.to_owned();
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return scaled(text, 1.0).ok_or_else(wrong);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        total = total.saturating_add(scaled(number, seconds).ok_or_else(wrong)?);
        rest = tail;
    }
    Ok(total.min(DURATION_MAX))
}

fn scaled(number: &str, seconds: f64) -> Option<Duration> {
    let number: f64 = number.parse().ok()?;
    let seconds = (number * seconds).min(DURATION_MAX.as_secs_f64());
    // To the microsecond: 0.001 is no exact number, and 2m must be 120 s to the last digit.
    Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).ok()
}

/// A duration as people write it: `10s`, `1m30s`, `0.5s`.
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 || seconds == 0 {
        return format!("{}s", duration.as_secs_f64());
    }
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}

/// Milliseconds for the control protocol.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A point in time as RFC 3339 in UTC: from RFC 3339, from a local date with or without a time, or
/// from how long ago it was.
pub(crate) fn since(text: &str) -> Result<String, String> {
    let now = jiff::Timestamp::now();
    let local = |time: DateTime| time.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp());
    let time = if let Ok(time) = text.parse::<jiff::Timestamp>() {
        Ok(time)
    } else if let Ok(ago) = duration(text) {
        now.checked_sub(ago)
    } else if text.contains([':', 'T']) {
        text.parse::<DateTime>().and_then(local)
    } else {
        text.parse::<Date>().and_then(|date| local(date.at(0, 0, 0, 0)))
    };
    time.map(|time| time.to_string()).map_err(|_| {
        "write a time like 2026-01-31T18:00:00Z, 2026-01-31T18:00 or 2026-01-31, \
         or how long ago, like 90s, 10m or 2h"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        for (text, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2", 2_000),
            ("0.5", 500),
            ("1.5s", 1_500),
            ("0", 0),
        ] {
            assert_eq!(duration(text).map(millis), Ok(ms), "{text}");
        }
        for text in ["", "s", "10x", "1h30", "-1", "1 s", "1..2", ".", "10ss", "inf", "NaN"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert_eq!(duration("99999999999999999999d"), Ok(DURATION_MAX));
    }

    #[test]
    fn durations_are_spoken() {
        for (ms, text) in [(10_000, "10s"), (90_000, "1m30s"), (500, "0.5s"), (0, "0s")] {
            assert_eq!(spoken(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn points_in_time_are_parsed() {
        assert_eq!(since("2026-01-31T18:00:00+02:00").as_deref(), Ok("2026-01-31T16:00:00Z"));
        let ago: jiff::Timestamp = since("10m").expect("a duration").parse().expect("RFC 3339");
        let passed = jiff::Timestamp::now().duration_since(ago).as_secs();
        assert!((600..=660).contains(&passed), "{passed} s ago");
        assert!(since("2026-01-31").is_ok());
        assert!(since("2026-01-31T18:00").is_ok());
        for text in ["", "yesterday", "2026-13-01", "10:00"] {
            assert!(since(text).is_err(), "{text:?}");
        }
    }
}
