//! The ordering window of one sender's incarnation.

use bytes::Bytes;

use crate::model::limits::WINDOW;
use crate::model::{Incarnation, PeerId, Sequence, Timestamp, WindowRow};

const WORDS: usize = (WINDOW / 64) as usize;

/// Which sequence numbers have been received: all below `base` (or they never will be), and those
/// whose bit is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    base: Sequence,
    /// Bit `s % WINDOW` stands for sequence `s` with `base <= s < base + WINDOW`.
    bits: [u64; WORDS],
    /// Below it numbers were given up without their sender's word: what has not come is not there,
    /// and what has is not told from it.
    given_up: Sequence,
    pub(super) touched: Timestamp,
}

/// What a sequence number is to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Received before, or given up by its sender.
    Past,
    /// Perhaps received before, perhaps given up by us.
    GivenUp,
    /// Not received yet.
    New,
    /// Too far ahead: no well-behaved sender goes there.
    Beyond,
}

impl Window {
    pub(super) const fn new(touched: Timestamp) -> Self {
        Self { base: Sequence::FIRST, bits: [0; WORDS], given_up: Sequence::FIRST, touched }
    }

    /// A stored window. Surplus or missing bytes count as not received.
    pub(super) fn from_row(row: &WindowRow) -> Self {
        let (base, given_up, touched) = (row.base, row.given_up, row.touched);
        let mut window = Self { base, bits: [0; WORDS], given_up, touched };
        for offset in 0..WINDOW {
            let byte = usize::try_from(offset / 8).ok().and_then(|at| row.received.get(at));
            if byte.is_some_and(|byte| byte >> (offset % 8) & 1 == 1) {
                window.set(Sequence(row.base.0.saturating_add(offset)), true);
            }
        }
        window
    }

    pub(super) fn to_row(&self, sender: PeerId, incarnation: Incarnation) -> WindowRow {
        let mut received: Vec<u8> = (0..WINDOW / 8)
            .map(|byte| {
                (0..8).fold(0, |bits, bit| {
                    let sequence = Sequence(self.base.0.saturating_add(byte * 8 + bit));
                    bits | u8::from(self.get(sequence)) << bit
                })
            })
            .collect();
        received.truncate(received.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
        let received = Bytes::from(received);
        let Self { base, given_up, touched, .. } = *self;
        WindowRow { sender, incarnation, base, received, given_up, touched }
    }

    /// Everything before it is received, or never will be.
    pub(super) const fn base(&self) -> Sequence {
        self.base
    }

    pub(super) fn place(&self, sequence: Sequence) -> Place {
        if sequence < self.given_up.min(self.base) {
            Place::GivenUp
        } else if sequence < self.base {
            Place::Past
        } else if sequence.0 - self.base.0 >= WINDOW {
            Place::Beyond
        } else if self.get(sequence) {
            Place::Past
        } else {
            Place::New
        }
    }

    /// Whether nothing waits for an earlier number.
    pub(super) fn is_in_order(&self) -> bool {
        self.bits == [0; WORDS]
    }

    /// Whether this number is the next one to be released.
    pub(super) fn is_next(&self, sequence: Sequence) -> bool {
        sequence == self.base
    }

    /// Marks a number received. If it was the next, the window moves on; the numbers returned were
    /// held for it, and their turn has come, in order.
    pub(super) fn receive(&mut self, sequence: Sequence) -> Vec<Sequence> {
        if sequence != self.base {
            self.set(sequence, true);
            return Vec::new();
        }
        self.base = self.base.next();
        self.advance()
    }

    /// Its sender gave up everything below `floor` that has not come. What was held for it is
    /// returned, in order.
    pub(super) fn skip_to(&mut self, floor: Sequence) -> Vec<Sequence> {
        let mut released = Vec::new();
        let end = floor.0.min(self.base.0.saturating_add(WINDOW));
        while self.base.0 < end {
            if self.get(self.base) {
                self.set(self.base, false);
                released.push(self.base);
            }
            self.base = self.base.next();
        }
        self.base = self.base.max(floor);
        released.extend(self.advance());
        released
    }

    /// We give up everything below `floor` that has not come. What was held for it is returned, in
    /// order.
    pub(super) fn give_up_to(&mut self, floor: Sequence) -> Vec<Sequence> {
        self.given_up = self.given_up.max(floor);
        self.skip_to(floor)
    }

    /// The last number that waits for an earlier one.
    pub(super) fn last_held(&self) -> Option<Sequence> {
        if self.is_in_order() {
            return None;
        }
        let mut ahead =
            (0..WINDOW).rev().map(|offset| Sequence(self.base.0.saturating_add(offset)));
        ahead.find(|sequence| self.get(*sequence))
    }

    fn advance(&mut self) -> Vec<Sequence> {
        let mut released = Vec::new();
        while self.get(self.base) {
            self.set(self.base, false);
            released.push(self.base);
            self.base = self.base.next();
        }
        released
    }

    fn get(&self, sequence: Sequence) -> bool {
        let (word, bit) = slot(sequence);
        self.bits.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    fn set(&mut self, sequence: Sequence, received: bool) {
        let (word, bit) = slot(sequence);
        if let Some(bits) = self.bits.get_mut(word) {
            *bits = *bits & !(1 << bit) | u64::from(received) << bit;
        }
    }
}

fn slot(sequence: Sequence) -> (usize, u64) {
    let offset = sequence.0 % WINDOW;
    (usize::try_from(offset / 64).unwrap_or(0), offset % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn fresh() -> Window {
        Window::new(Timestamp::from_millis(0))
    }

    #[test]
    fn in_order_numbers_release_nothing_held() {
        let mut window = fresh();
        for n in 1..=3000 {
            assert_eq!(window.place(Sequence(n)), Place::New);
            assert!(window.is_next(Sequence(n)));
            assert_eq!(window.receive(Sequence(n)), []);
            assert_eq!(window.place(Sequence(n)), Place::Past);
        }
        assert!(window.is_in_order());
    }

    #[test]
    fn the_edge_of_the_window_is_exact() {
        let mut window = fresh();
        assert_eq!(window.place(Sequence(WINDOW)), Place::New);
        assert_eq!(window.place(Sequence(WINDOW + 1)), Place::Beyond);
        assert_eq!(window.receive(Sequence(WINDOW)), []);
        assert_eq!(window.receive(Sequence(1)), []);
        assert_eq!(window.place(Sequence(WINDOW + 1)), Place::New);
        assert_eq!(window.place(Sequence(WINDOW)), Place::Past);
        assert_eq!(window.last_held(), Some(Sequence(WINDOW)));
        assert_eq!(window.give_up_to(Sequence(WINDOW + 1)), [Sequence(WINDOW)]);
        assert_eq!(window.last_held(), None);
    }

    #[test]
    fn what_was_given_up_is_not_taken_for_received() {
        let mut window = fresh();
        assert_eq!(window.receive(Sequence(3)), []);
        assert_eq!(window.give_up_to(Sequence(4)), [Sequence(3)]);
        assert_eq!(window.receive(Sequence(4)), []);
        assert_eq!(window.place(Sequence(2)), Place::GivenUp);
        assert_eq!(window.place(Sequence(4)), Place::Past);
        assert_eq!(window.place(Sequence(5)), Place::New);
        let row = window.to_row(PeerId::from_bytes([0; 32]), Incarnation(1));
        assert_eq!(Window::from_row(&row).place(Sequence(2)), Place::GivenUp);
    }

    #[test]
    fn a_floor_far_ahead_is_one_step() {
        let mut window = fresh();
        assert_eq!(window.receive(Sequence(7)), []);
        assert_eq!(window.skip_to(Sequence(u64::MAX - 5)), [Sequence(7)]);
        assert_eq!(window.place(Sequence(u64::MAX - 5)), Place::New);
        assert_eq!(window.place(Sequence(100)), Place::Past);
    }

    proptest! {
        /// Against the simplest model: a set of what was received and the order of release.
        #[test]
        fn it_releases_like_the_model(
            steps in prop::collection::vec((0_u64..3, 1_u64..40), 1..200),
        ) {
            let (mut window, mut released) = (fresh(), Vec::new());
            let (mut got, mut base) = (BTreeSet::new(), 1);
            for (kind, number) in steps {
                if kind == 0 {
                    released.extend(window.skip_to(Sequence(number)));
                    base = base.max(number);
                } else if window.place(Sequence(number)) == Place::New {
                    prop_assert!(number >= base && got.insert(number));
                    if window.is_next(Sequence(number)) {
                        released.push(Sequence(number));
                    }
                    released.extend(window.receive(Sequence(number)));
                } else {
                    prop_assert!(number < base || got.contains(&number));
                }
                while got.contains(&base) {
                    base += 1;
                }
                let expected: Vec<_> =
                    got.iter().filter(|n| **n < base).map(|n| Sequence(*n)).collect();
                prop_assert_eq!(&released, &expected);
                let row = window.to_row(PeerId::from_bytes([0; 32]), Incarnation(1));
                prop_assert_eq!(&Window::from_row(&row), &window);
            }
        }
    }
}
