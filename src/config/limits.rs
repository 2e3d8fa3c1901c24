//! The keys under `[limits]`: each field of [`Limits`], spans as whole seconds.

use std::ops::RangeInclusive;

use crate::model::limits::MESSAGE_BYTES_CEILING;
use crate::model::{Limits, Span};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY_SECS: u64 = 24 * 60 * 60;

/// One key: what may be written, and how it is set and read.
pub(super) struct LimitKey {
    pub(super) name: &'static str,
    /// What makes sense: less makes the node useless, more is a mistyped number.
    pub(super) range: RangeInclusive<u64>,
    pub(super) set: fn(&mut Limits, u64),
    pub(super) value: fn(&Limits) -> u64,
}

macro_rules! keys {
    ($($field:ident: $range:expr,)*; $($span:ident $name:literal: $span_range:expr,)*) => {
        /// Every key, in the order of [`Limits`].
        pub(super) const KEYS: &[LimitKey] = &[
            $(LimitKey {
                name: stringify!($field),
                range: $range,
                // A number beyond the field's type is beyond the range, which is checked before.
                set: |limits, value| limits.$field = value.try_into().unwrap_or(limits.$field),
                value: |limits| u64::try_from(limits.$field).unwrap_or(u64::MAX),
            },)*
            $(LimitKey {
                name: $name,
                range: $span_range,
                set: |limits, value| limits.$span = Span::from_secs(value),
                value: |limits| limits.$span.as_millis() / 1_000,
            },)*
        ];
    };
}

keys! {
    message_bytes_max: 1..=MESSAGE_BYTES_CEILING as u64,
    link_floods_per_second: 1..=100_000,
    link_floods_burst: 1..=1_000_000,
    origin_floods_per_second: 1..=100_000,
    origin_floods_burst: 1..=1_000_000,
    verifications_per_second: 1..=1_000_000,
    seen_entries_max: 1_000..=100_000_000,
    relay_bytes_max: MIB..=64 * GIB,
    // A link must be able to hold a few frames, or nothing gets through it.
    link_queue_bytes_max: 256 * KIB..=GIB,
    records_max: 16..=10_000_000,
    sessions_max: 16..=10_000_000,
    links_max: 1..=65_536,
    clients_max: 1..=65_536,
    inbox_bytes_max: MIB..=1024 * GIB,
    outbox_bytes_max: MIB..=1024 * GIB,
    ;
    // Shorter than a flood may be old, and a flood could be replayed.
    seen_lifetime "seen_lifetime_s": 600..=DAY_SECS,
    inbox_retention "inbox_retention_s": 0..=3650 * DAY_SECS,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_is_a_key_and_every_default_is_in_range() {
        let shown = format!("{:#?}", Limits::default());
        let fields: BTreeSet<&str> = shown
            .lines()
            .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
            .filter_map(|line| line.trim().split_once(": ").map(|(field, _)| field))
            .collect();
        let keys: BTreeSet<&str> =
            KEYS.iter().map(|key| key.name.strip_suffix("_s").unwrap_or(key.name)).collect();
        assert_eq!(keys, fields);
        for key in KEYS {
            let default = (key.value)(&Limits::default());
            assert!(key.range.contains(&default), "{}: {default}", key.name);
        }
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let mut limits = Limits::default();
        for key in KEYS {
            for value in [*key.range.start(), *key.range.end()] {
                (key.set)(&mut limits, value);
                assert_eq!((key.value)(&limits), value, "{}", key.name);
            }
        }
    }
}
