//! What is to be done later, and when.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Monotonic, Occupancy, PeerId};

/// Something that happens at a certain time. Each is set at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A link may need a ping, or may be silent for too long.
    Link(PeerId),
    /// A neighbour owes an answer to a request for digests or records.
    Exchange(PeerId),
    /// News of records are told to the neighbours.
    Announce,
    /// Tables are compared with all neighbours.
    Compare,
    /// Records of others may be verified again.
    Records,
    /// Finds and floods of others may be verified again.
    Verify,
    /// Our own finds and floods may leave again.
    OwnFloods,
    /// Finds and floods may go to a neighbour again.
    Outflow,
    /// A find of ours may have found nobody.
    Finds,
    /// Patience with an envelope on its way ends.
    Flights,
    /// Everything that is forgotten with age.
    Sweep,
}

/// The timers that are set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// In order of time: the first is the next deadline.
    due: BTreeSet<(Monotonic, Timer)>,
    /// When each is due, to find it in `due`.
    at: BTreeMap<Timer, Monotonic>,
}

impl Timers {
    /// Sets a timer, wherever it was before.
    pub(super) fn set(&mut self, timer: Timer, at: Monotonic) {
        self.clear(timer);
        self.at.insert(timer, at);
        self.due.insert((at, timer));
    }

    /// Sets a timer unless it is due earlier already.
    pub(super) fn set_by(&mut self, timer: Timer, at: Monotonic) {
        if self.at.get(&timer).is_none_or(|earlier| *earlier > at) {
            self.set(timer, at);
        }
    }

    /// Forgets a timer.
    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Monotonic {
        self.due.first().map_or(Monotonic::NEVER, |(at, _)| *at)
    }

    /// With so many links at most: two timers each, and one of each other kind.
    pub(super) fn occupancy(&self, links_max: usize) -> [Occupancy; 2] {
        let limit = links_max.saturating_mul(2).saturating_add(16);
        [
            Occupancy::new("router timers", self.at.len(), limit),
            Occupancy::new("router timers in order", self.due.len(), self.at.len()),
        ]
    }

    /// Takes all that are due, with the times they were due at.
    pub(super) fn take_due(&mut self, now: Monotonic) -> Vec<(Monotonic, Timer)> {
        let mut due = Vec::new();
        while let Some(first) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&first);
            self.at.remove(&first.1);
            due.push(first);
        }
        due
    }
}
