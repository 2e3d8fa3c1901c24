//! What a recipient has of our messages, as far as its receipts tell.
//!
//! A message that overtook another one waits at the recipient until that comes, or until it is told
//! that it will not: every envelope says the lowest number still wanted. If nothing more is sent,
//! nothing says it, and what was receipted would not be seen for days. This notices.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Incarnation, Monotonic, Sequence, Span};

/// What a recipient has of each of our runs.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<Incarnation, Run>);

#[derive(Debug)]
struct Run {
    /// All below it were receipted, or the recipient knows that they are not wanted.
    base: Sequence,
    /// What was receipted above: at most a window, since nothing is sent further ahead.
    receipted: BTreeSet<Sequence>,
    /// When it last changed.
    touched: Monotonic,
}

impl Runs {
    /// An envelope with this floor and these whole messages was receipted.
    pub(super) fn on_receipt(
        &mut self,
        now: Monotonic,
        incarnation: Incarnation,
        floor: Sequence,
        sequences: &[Sequence],
    ) {
        let new = Run { base: Sequence::FIRST, receipted: BTreeSet::new(), touched: now };
        let run = self.0.entry(incarnation).or_insert(new);
        run.touched = now;
        if floor > run.base {
            run.base = floor;
            run.receipted = run.receipted.split_off(&floor);
        }
        for sequence in sequences {
            if *sequence == run.base {
                run.base = run.base.next();
            } else if *sequence > run.base {
                run.receipted.insert(*sequence);
            }
        }
        while run.receipted.remove(&run.base) {
            run.base = run.base.next();
        }
    }

    /// The runs of which something waits at the recipient: the first number it waits for, and the
    /// last one that waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Incarnation, Sequence, Sequence)> + '_ {
        self.0
            .iter()
            .filter_map(|(incarnation, run)| Some((*incarnation, run.base, *run.receipted.last()?)))
    }

    pub(super) fn any_waiting(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// Forgets what has not changed for so long: in order runs soon, the others when recipients
    /// stop waiting by themselves.
    pub(super) fn forget(&mut self, now: Monotonic, in_order: Span, others: Span) {
        self.0.retain(|_, run| {
            let kept = if run.receipted.is_empty() { in_order } else { others };
            now < run.touched + kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic::START;
    const RUN: Incarnation = Incarnation(1);

    fn waiting(runs: &Runs) -> Vec<(u64, u64)> {
        runs.waiting().map(|(_, base, last)| (base.0, last.0)).collect()
    }

    #[test]
    fn what_comes_in_any_order_waits_for_nothing_in_the_end() {
        let mut runs = Runs::default();
        for numbers in [[7, 8], [3, 4], [1, 2], [9, 10], [5, 6]] {
            runs.on_receipt(NOW, RUN, Sequence(1), &numbers.map(Sequence));
        }
        assert_eq!(waiting(&runs), []);
        runs.on_receipt(NOW, RUN, Sequence(1), &[Sequence(12)]);
        assert_eq!(waiting(&runs), [(11, 12)]);
    }

    #[test]
    fn a_floor_that_was_receipted_ends_the_waiting() {
        let mut runs = Runs::default();
        runs.on_receipt(NOW, RUN, Sequence(1), &[Sequence(3), Sequence(5)]);
        runs.on_receipt(NOW, RUN, Sequence(3), &[]);
        assert_eq!(waiting(&runs), [(4, 5)]);
        runs.on_receipt(NOW, RUN, Sequence(6), &[]);
        assert_eq!(waiting(&runs), []);
        // An older envelope, receipted late, says nothing new.
        runs.on_receipt(NOW, RUN, Sequence(1), &[Sequence(4)]);
        assert_eq!(waiting(&runs), []);
    }

    #[test]
    fn what_has_not_changed_for_long_is_forgotten() {
        let mut runs = Runs::default();
        runs.on_receipt(NOW, RUN, Sequence(1), &[Sequence(1)]);
        runs.on_receipt(NOW, Incarnation(2), Sequence(1), &[Sequence(2)]);
        let (hour, day) = (Span::from_secs(3_600), Span::from_secs(86_400));
        runs.forget(NOW + hour, hour, day);
        assert_eq!(runs.0.len(), 1);
        assert!(runs.any_waiting());
        runs.forget(NOW + day, hour, day);
        assert!(!runs.any_waiting());
    }
}
