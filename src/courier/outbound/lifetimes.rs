//! When messages expire, whatever the clock showed when they were queued.
//!
//! A message says in calendar time when it expires. If the clock was wrong when it was queued, that
//! is wrong too: its recipient would refuse it for as long as the clock was ahead, or it would be
//! given up as soon as a clock that was behind is set. So what is counted is time that passed. But
//! a machine that slept looks like one whose clock was set forward: nothing that may have arrived
//! gets more time by that, for its recipient may not know any more that it has it.

use std::collections::VecDeque;

use crate::model::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX};
use crate::model::{Monotonic, Now, Outgoing, Row, Timestamp};

/// Times that the clock was set which are remembered, in all and for one queue.
const SETTINGS_MAX: usize = 64;
/// What counts as setting it: less is drift.
const DRIFT_MILLIS_MAX: u64 = 60_000;

/// What the calendar clock showed when the process's own started, in milliseconds: changes when the
/// clock is set, or the machine slept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting(i64);

impl Setting {
    /// One that is not known any more.
    const LONG_AGO: Self = Self(i64::MIN);

    pub(super) fn of(now: Now) -> Self {
        Self::between(now.mono, now.wall)
    }

    fn between(mono: Monotonic, wall: Timestamp) -> Self {
        let millis = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self(millis(wall.as_millis()).saturating_sub(millis(mono.as_micros() / 1_000)))
    }

    /// Whether the clock was set between the two.
    pub(super) const fn differs(self, other: Self) -> bool {
        self.0.abs_diff(other.0) > DRIFT_MILLIS_MAX
    }

    /// Whether it was set by so much that what was sealed before is refused.
    pub(super) const fn differs_much(self, other: Self) -> bool {
        self.0.abs_diff(other.0) > CLOCK_SKEW_MAX.as_millis()
    }

    /// What was a time by another setting.
    const fn translate(self, time: Timestamp, other: Self) -> Timestamp {
        let moved = self.0.saturating_sub(other.0);
        Timestamp::from_millis(time.as_millis().saturating_add_signed(moved))
    }
}

/// By which setting rows were queued, or first sealed: each up to the next one.
#[derive(Debug, Default)]
pub(super) struct Settings(VecDeque<(Row, Setting)>);

impl Settings {
    /// Rows from this one on, which are not noted yet.
    pub(super) fn note(&mut self, row: Row, setting: Setting) {
        if self.0.back().is_none_or(|(_, last)| last.differs(setting)) {
            self.0.push_back((row, setting));
        }
        if self.0.len() > SETTINGS_MAX {
            self.0.pop_front();
        }
    }

    fn of(&self, row: Row) -> Option<Setting> {
        let before = self.0.iter().rev().find(|(first, _)| *first <= row);
        before.map(|(_, setting)| *setting)
    }
}

/// When the messages of all queues were queued.
#[derive(Debug)]
pub(super) struct Lifetimes {
    started: Monotonic,
    /// The messages of this run.
    queued: Settings,
}

impl Lifetimes {
    pub(super) fn new(now: Now) -> Self {
        Self { started: now.mono, queued: Settings::default() }
    }

    pub(super) fn on_queued(&mut self, now: Now, message: &Outgoing) {
        self.queued.note(message.row, Setting::between(now.mono, message.queued));
    }

    /// When a message expires, by the clock as it is set now. It may have been sealed before, by
    /// the setting of that time.
    pub(super) fn expires(
        &self,
        now: Now,
        message: &Outgoing,
        sealed: Option<Setting>,
    ) -> Timestamp {
        let current = Setting::of(now);
        let Some(queued) = self.queued.of(message.row) else {
            // It was queued before this run: at the latest when that began.
            let ran = now.mono.since(self.started);
            return message.expires.min(now.wall - ran + MESSAGE_LIFETIME_MAX);
        };
        // Set forward before it was sealed: its time is not over. Set back at any time: it is.
        let by = sealed.unwrap_or(current).max(queued).min(current);
        by.translate(message.expires, queued)
    }
}

/// Up to which row a queue has sealed messages, and by which setting of the clock.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    through: Row,
    settings: Settings,
}

impl Sealed {
    pub(super) fn note(&mut self, row: Row, setting: Setting) {
        if row > self.through {
            self.through = row;
            self.settings.note(row, setting);
        }
    }

    pub(super) fn of(&self, row: Row) -> Option<Setting> {
        let is_sealed = row <= self.through;
        is_sealed.then(|| self.settings.of(row).unwrap_or(Setting::LONG_AGO))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Incarnation, MessageId, PeerId, Sequence, Span};

    const DAY: Span = Span::from_secs(86_400);

    fn at(mono: Span, wall: Span) -> Now {
        Now { mono: Monotonic::START + mono, wall: Timestamp::from_millis(0) + wall }
    }

    fn message(row: u64, queued: Timestamp) -> Outgoing {
        Outgoing {
            row: Row(row),
            id: MessageId([0; 16]),
            recipient: PeerId::from_bytes([9; 32]),
            incarnation: Incarnation(1),
            sequence: Sequence(row),
            queued,
            expires: queued + MESSAGE_LIFETIME_MAX,
            subject: None,
            key: None,
            body: Bytes::new(),
        }
    }

    /// What is left of a message's life two days after it was queued, if the clock was set
    /// meanwhile, and if it was sealed before that.
    fn left(set: impl Fn(Timestamp) -> Timestamp, is_sealed: bool) -> Span {
        let start = at(Span::ZERO, DAY.times(1_000));
        let mut lifetimes = Lifetimes::new(start);
        let message = message(1, start.wall);
        lifetimes.on_queued(start, &message);
        let now = at(DAY.times(2), DAY.times(1_002));
        let now = Now { wall: set(now.wall), ..now };
        let sealed = is_sealed.then(|| Setting::of(start));
        lifetimes.expires(now, &message, sealed).since(now.wall)
    }

    #[test]
    fn what_is_left_is_seven_days_less_the_time_that_passed() {
        for is_sealed in [false, true] {
            assert_eq!(left(|wall| wall, is_sealed), DAY.times(5));
            assert_eq!(left(|wall| wall - DAY.times(100), is_sealed), DAY.times(5));
        }
        assert_eq!(left(|wall| wall + DAY.times(100), false), DAY.times(5));
    }

    #[test]
    fn what_may_have_arrived_gets_no_more_time_by_a_clock_set_forward() {
        assert_eq!(left(|wall| wall + DAY.times(100), true), Span::ZERO);
        assert_eq!(left(|wall| wall + DAY, true), DAY.times(4));
    }

    #[test]
    fn a_message_of_an_earlier_run_is_at_least_as_old_as_this_one() {
        let start = at(Span::ZERO, DAY.times(1_000));
        let lifetimes = Lifetimes::new(start);
        let now = at(DAY, DAY.times(1_001));
        let left = |queued| lifetimes.expires(now, &message(1, queued), None).since(now.wall);
        assert_eq!(left(start.wall + DAY.times(300)), DAY.times(6));
        assert_eq!(left(start.wall - DAY.times(3)), DAY.times(3));
    }
}
