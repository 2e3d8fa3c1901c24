//! Work of others that costs us much, shared out fairly among the neighbours that bring it.

use std::collections::BTreeMap;

use super::{Monotonic, Occupancy, PeerId, Span};

/// How long one sharing-out lasts.
const ROUND: Span = Span::from_secs(1);
/// Neighbours that are counted in one round; who comes after them comes again in the next one.
const ASKERS_MAX: usize = 4_096;

/// So many pieces of work a second, and each neighbour its share of them: as many as are there, so
/// many parts. Whoever the work claims to be for is not looked at: that is easily forged, a
/// neighbour is not.
#[derive(Debug, Clone)]
pub struct FairBucket {
    /// Pieces of work in a round.
    per_round: u32,
    since: Monotonic,
    /// What each neighbour asked for in this round.
    asked: BTreeMap<PeerId, u32>,
    /// Pieces granted in this round.
    granted: u32,
    /// How many neighbours asked for something in the round before.
    askers: usize,
}

impl FairBucket {
    /// Nobody asked for anything yet.
    pub const fn new(per_second: u32, now: Monotonic) -> Self {
        Self { per_round: per_second, since: now, asked: BTreeMap::new(), granted: 0, askers: 0 }
    }

    /// Takes one piece of work from a neighbour; false if its share is used up.
    pub fn take(&mut self, from: PeerId, now: Monotonic) -> bool {
        if now >= self.since + ROUND {
            // Who asked before a pause does not ask now.
            let idle = now >= self.since + ROUND + ROUND;
            self.askers = if idle { 0 } else { self.asked.len() };
            self.asked.clear();
            self.granted = 0;
            self.since = now;
        }
        if self.asked.len() >= ASKERS_MAX && !self.asked.contains_key(&from) {
            return false;
        }
        let asked = self.asked.entry(from).or_insert(0);
        *asked = asked.saturating_add(1);
        let mine = *asked;
        let askers = self.askers.max(self.asked.len()).max(1);
        let share = (self.per_round / u32::try_from(askers).unwrap_or(u32::MAX)).max(1);
        // Neighbours that come late in a round find their share, if not more than twice as much
        // was promised to those before them.
        let granted = mine <= share && self.granted < self.per_round.saturating_mul(2);
        self.granted += u32::from(granted);
        granted
    }

    /// How many are counted, under this name.
    pub fn occupancy(&self, table: &'static str) -> Occupancy {
        Occupancy::new(table, self.asked.len(), ASKERS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    #[test]
    fn one_alone_has_it_all_and_no_more() {
        let start = Monotonic::from_micros(1_000_000);
        let mut bucket = FairBucket::new(100, start);
        let granted = (0..1_000).filter(|_| bucket.take(peer(1), start)).count();
        assert_eq!(granted, 100);
        assert!(bucket.take(peer(1), start + ROUND), "the next round is a new one");
    }

    #[test]
    fn whoever_asks_for_little_gets_it_beside_whoever_asks_for_all() {
        let mut now = Monotonic::from_micros(1_000_000);
        let mut bucket = FairBucket::new(100, now);
        for round in 0..5 {
            let greedy = (0..1_000).filter(|_| bucket.take(peer(1), now)).count();
            let modest = (0..40).filter(|_| bucket.take(peer(2), now)).count();
            assert_eq!(modest, 40, "round {round}");
            assert_eq!(greedy, if round == 0 { 100 } else { 50 }, "round {round}");
            now = now + ROUND;
        }
    }

    #[test]
    fn however_many_ask_the_work_is_bounded() {
        let now = Monotonic::from_micros(1_000_000);
        let mut bucket = FairBucket::new(100, now);
        let ask = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            bucket.take(PeerId::from_bytes(bytes), now)
        };
        assert_eq!((0..5_000).map(ask).filter(|granted| *granted).count(), 200);
        let counted = bucket.occupancy("askers");
        assert_eq!((counted.used, counted.limit), (4_096, 4_096));
    }
}
