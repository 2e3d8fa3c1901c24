//! A calendar clock that may be wrong for a while, and what it is believed.

use std::collections::VecDeque;

use super::{Now, Span, Timestamp};

/// What cannot be undone is done only if the clock has said for so long that it is time: one that
/// is ahead for a while costs nothing.
const PATIENCE: Span = Span::from_secs(3_600);
/// Looks within this of each other are kept as one: so there are few, however often it is looked.
const GRAIN: Span = Span::from_secs(60);

/// What the calendar clock showed when it was looked at, as far back as an hour goes.
#[derive(Debug, Default)]
pub struct SettledClock(VecDeque<Now>);

impl SettledClock {
    /// Looks at the clock. The earliest time that it has shown for an hour: whatever is too old by
    /// that was so all the while. None if that is not known for so long.
    pub fn look(&mut self, now: Now) -> Option<Timestamp> {
        match self.0.back_mut().filter(|last| now.mono < last.mono + GRAIN) {
            Some(last) => last.wall = last.wall.min(now.wall),
            None => self.0.push_back(now),
        }
        while self.0.get(1).is_some_and(|second| now.mono >= second.mono + PATIENCE) {
            self.0.pop_front();
        }
        let is_long_ago = self.0.front().is_some_and(|first| now.mono >= first.mono + PATIENCE);
        self.0.iter().map(|look| look.wall).min().filter(|_| is_long_ago)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Monotonic;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const YEAR: Span = Span::from_secs(365 * 86_400);

    /// Looks at a clock every so many seconds; the clock is ahead by a year in between. What it
    /// was believed at last, as seconds after its start, and how many looks it kept at most.
    fn believed(every: u64, ahead: std::ops::Range<u64>, until: u64) -> (Option<u64>, usize) {
        let mut clock = SettledClock::default();
        let (mut believed, mut most) = (None, 0);
        for second in (0..=until).step_by(usize::try_from(every).expect("a few")) {
            let passed = Span::from_secs(second);
            let by = if ahead.contains(&second) { YEAR } else { Span::ZERO };
            let now = Now { mono: Monotonic::START + passed, wall: START + passed + by };
            believed = clock.look(now).map(|wall| wall.since(START).as_millis() / 1_000);
            most = most.max(clock.0.len());
        }
        (believed, most)
    }

    #[test]
    fn a_clock_is_believed_what_it_has_shown_for_an_hour() {
        for every in [1, 60, 600, 3_600] {
            assert_eq!(believed(every, 0..0, 3_599).0, None, "not known for so long");
            assert_eq!(believed(every, 0..0, 3_600).0, Some(0));
            assert_eq!(believed(every, 7_200..9_000, 7_200).0, Some(3_600), "ahead for a moment");
            let (believed, most) = believed(every, 0..0, 86_400);
            assert!(believed.is_some_and(|at| (82_740..=82_800).contains(&at)), "{believed:?}");
            assert!(most <= 62, "{most} looks are kept");
        }
        // It has been ahead for longer than an hour: then that is what time it is.
        let year = YEAR.as_millis() / 1_000;
        assert!(believed(600, 7_200..20_000, 14_400).0.is_some_and(|at| at > year));
    }
}
