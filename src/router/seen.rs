//! Which finds and floods were here before.

use std::collections::{BTreeSet, VecDeque};

use crate::model::{Monotonic, Occupancy, Span};

/// The first 16 bytes of a hash: nobody finds two contents with the same.
pub(super) type Digest16 = [u8; 16];

/// Remembers digests for a time.
///
/// A ring in order of time with a set beside it, and not two generations: entries then live exactly
/// as long as configured and are exactly as many. At 200 verifications a second, 360,000 entries
/// are what 30 minutes can bring, so that nobody can make us forget a flood that has not expired.
#[derive(Debug)]
pub(super) struct Seen {
    /// What is remembered.
    digests: BTreeSet<Digest16>,
    /// The same in order of time, to forget the oldest.
    order: VecDeque<(Monotonic, Digest16)>,
    entries_max: usize,
    lifetime: Span,
}

impl Seen {
    pub(super) fn new(entries_max: usize, lifetime: Span) -> Self {
        Self { digests: BTreeSet::new(), order: VecDeque::new(), entries_max, lifetime }
    }

    /// Whether it was here before.
    pub(super) fn contains(&self, digest: &Digest16) -> bool {
        self.digests.contains(digest)
    }

    /// Remembers it.
    pub(super) fn insert(&mut self, now: Monotonic, digest: Digest16) {
        if !self.digests.insert(digest) {
            return;
        }
        self.order.push_back((now, digest));
        self.shrink(self.entries_max, self.lifetime);
    }

    /// Keeps so many at most, for so long.
    pub(super) fn shrink(&mut self, entries_max: usize, lifetime: Span) {
        (self.entries_max, self.lifetime) = (entries_max, lifetime);
        while self.order.len() > self.entries_max.max(1) {
            self.forget_oldest();
        }
    }

    /// Forgets what is old.
    pub(super) fn sweep(&mut self, now: Monotonic) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > self.lifetime) {
            self.forget_oldest();
        }
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 2] {
        let limit = self.entries_max.max(1);
        [
            Occupancy::new("seen floods", self.digests.len(), limit),
            Occupancy::new("seen floods in order", self.order.len(), limit),
        ]
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, digest)) = self.order.pop_front() {
            self.digests.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_so_many_for_so_long() {
        let at = |secs: u64| Monotonic::START + Span::from_secs(secs);
        let mut seen = Seen::new(3, Span::from_secs(10));
        (0..5).for_each(|n| seen.insert(at(u64::from(n)), [n; 16]));
        assert_eq!(seen.len(), 3);
        assert!(!seen.contains(&[1; 16]));
        assert!(seen.contains(&[2; 16]));
        seen.sweep(at(13));
        assert!(!seen.contains(&[2; 16]));
        assert!(seen.contains(&[3; 16]), "not older than its lifetime");
    }
}
