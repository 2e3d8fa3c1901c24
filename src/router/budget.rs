//! How much of something is allowed, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::model::{Bucket, Monotonic, Occupancy, PeerId, Span};

/// Origins whose floods are counted at once. An origin's bucket is full again after ten seconds (by
/// default) without floods; at 200 verifications a second there are at most 2,000 that are not.
/// Whoever floods much comes again before 4,096 others, and keeps its count.
const ORIGINS_MAX: usize = 4_096;
/// What an origin flooded counts half after this.
const HALF_LIFE: Span = Span::from_secs(60);
/// Who has flooded more than this lately is busy. Of dozens that each use their whole allowance a
/// link carries one in some seconds. Who looks for somebody in vain does it less and less often.
const BUSY_ABOVE: u32 = 8;

/// What each origin of floods may send, and what it sent.
#[derive(Debug)]
pub(super) struct Origins {
    counted: BTreeMap<PeerId, Counted>,
    /// In order of their last flood, to forget the longest unused.
    order: BTreeSet<(Monotonic, PeerId)>,
    per_second: u32,
    burst: u32,
}

/// The floods of one origin.
#[derive(Debug)]
struct Counted {
    /// When the last one came.
    used: Monotonic,
    /// How many more may come.
    bucket: Bucket,
    /// How many came, halved again and again.
    recent: u32,
    /// When that was halved the last time.
    halved: Monotonic,
}

impl Counted {
    const fn new(bucket: Bucket, now: Monotonic) -> Self {
        Self { used: now, bucket, recent: 0, halved: now }
    }

    /// How many came lately, and when that was to be halved the last time.
    fn recent(&self, now: Monotonic) -> (u32, Monotonic) {
        let halvings = now.since(self.halved).as_micros() / HALF_LIFE.as_micros();
        let recent = u32::try_from(halvings).ok().and_then(|n| self.recent.checked_shr(n));
        (recent.unwrap_or(0), self.halved + HALF_LIFE.times(halvings))
    }
}

impl Origins {
    pub(super) const fn new(per_second: u32, burst: u32) -> Self {
        Self { counted: BTreeMap::new(), order: BTreeSet::new(), per_second, burst }
    }

    /// Charges an origin for a flood of its own; false if it sends too many.
    pub(super) fn take(&mut self, origin: PeerId, now: Monotonic) -> bool {
        let fresh = || Counted::new(Bucket::new(self.per_second, self.burst, now), now);
        let counted = self.counted.entry(origin).or_insert_with(fresh);
        self.order.remove(&(counted.used, origin));
        counted.used = now;
        let (recent, halved) = counted.recent(now);
        (counted.recent, counted.halved) = (recent.saturating_add(1), halved);
        let allowed = counted.bucket.take(now);
        self.order.insert((now, origin));
        while self.counted.len() > ORIGINS_MAX {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.counted.remove(&oldest);
        }
        allowed
    }

    /// Whether an origin has nothing left.
    pub(super) fn is_spent(&mut self, origin: &PeerId, now: Monotonic) -> bool {
        self.counted.get_mut(origin).is_some_and(|counted| counted.bucket.ready_at(now) > now)
    }

    /// Whether an origin has flooded much lately.
    pub(super) fn is_busy(&self, origin: &PeerId, now: Monotonic) -> bool {
        self.counted.get(origin).is_some_and(|counted| counted.recent(now).0 > BUSY_ABOVE)
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 2] {
        [
            Occupancy::new("flooding origins", self.counted.len(), ORIGINS_MAX),
            Occupancy::new("flooding origins in order", self.order.len(), self.counted.len()),
        ]
    }

    /// How many are counted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// Whether an origin was ever charged.
    #[cfg(test)]
    pub(super) fn knows(&self, origin: &PeerId) -> bool {
        self.counted.contains_key(origin)
    }
}

/// A queue for each neighbour, served in turn.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    /// Never empty ones.
    queues: BTreeMap<PeerId, VecDeque<T>>,
    /// Who was served last: whoever follows is next.
    last: Option<PeerId>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), last: None }
    }
}

impl<T> Lanes<T> {
    /// Adds to the end of a neighbour's queue.
    pub(super) fn push(&mut self, neighbour: PeerId, item: T) {
        self.queues.entry(neighbour).or_default().push_back(item);
    }

    /// Takes the first of the queue whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(PeerId, T)> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = self.queues.range((from, Bound::Unbounded)).map(|(id, _)| *id);
        let neighbour = next.next().or_else(|| self.queues.keys().next().copied())?;
        self.last = Some(neighbour);
        let item = self.pop_of(&neighbour)?;
        Some((neighbour, item))
    }

    /// Takes the first of one neighbour's queue.
    pub(super) fn pop_of(&mut self, neighbour: &PeerId) -> Option<T> {
        let queue = self.queues.get_mut(neighbour)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(neighbour);
        }
        item
    }

    /// The neighbour with the longest queue, and its length.
    pub(super) fn longest(&self) -> Option<(PeerId, usize)> {
        let longest = self.queues.iter().max_by_key(|(_, queue)| queue.len())?;
        Some((*longest.0, longest.1.len()))
    }

    /// How many wait in all.
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    /// Drops the last of one neighbour's queue; false if there is none.
    pub(super) fn drop_newest(&mut self, neighbour: &PeerId) -> bool {
        let Some(queue) = self.queues.get_mut(neighbour) else { return false };
        let dropped = queue.pop_back().is_some();
        if queue.is_empty() {
            self.queues.remove(neighbour);
        }
        dropped
    }

    /// How many wait for one neighbour's turn.
    pub(super) fn count(&self, neighbour: &PeerId) -> usize {
        self.queues.get(neighbour).map_or(0, VecDeque::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Forgets all of one neighbour.
    pub(super) fn remove(&mut self, neighbour: &PeerId) {
        self.queues.remove(neighbour);
    }
}

/// Lanes of what matters equally, beside others that matter more or less.
#[derive(Debug)]
pub(super) struct Class<T> {
    pub(super) lanes: Lanes<T>,
    /// How many were taken in a row, while lesser ones may have waited.
    in_a_row: u32,
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self { lanes: Lanes::default(), in_a_row: 0 }
    }
}

/// Takes the next of classes that matter less and less. What matters more goes first, but one of
/// each `lesser_every` goes to those that matter less, if any waits.
pub(super) fn next_of<T, const N: usize>(
    mut classes: [&mut Class<T>; N],
    lesser_every: u32,
) -> Option<(PeerId, T)> {
    let mut rest = &mut classes[..];
    while let Some((class, lesser)) = rest.split_first_mut() {
        let is_turn = class.in_a_row.saturating_add(1) < lesser_every
            || lesser.iter().all(|lesser| lesser.lanes.is_empty());
        if is_turn && let Some(next) = class.lanes.pop() {
            class.in_a_row = class.in_a_row.saturating_add(1);
            return Some(next);
        }
        class.in_a_row = 0;
        rest = lesser;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn at(millis: u64) -> Monotonic {
        Monotonic::START + Span::from_millis(millis)
    }

    #[test]
    fn lanes_are_served_in_turn() {
        let [a, b] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        let mut lanes = Lanes::default();
        (0..3).for_each(|n| lanes.push(a, n));
        lanes.push(b, 10);
        let served: Vec<_> = std::iter::from_fn(|| lanes.pop()).collect();
        assert_eq!(served, [(a, 0), (b, 10), (a, 1), (a, 2)]);
    }

    #[test]
    fn what_matters_less_gets_one_in_so_many() {
        let from = PeerId::from_bytes([1; 32]);
        let mut classes: [Class<u8>; 3] = std::array::from_fn(|_| Class::default());
        for (n, class) in (0..).zip(&mut classes) {
            (0..4).for_each(|_| class.lanes.push(from, n));
        }
        let next = || next_of(classes.each_mut(), 3).map(|(_, item)| item);
        let served: Vec<u8> = std::iter::from_fn(next).collect();
        assert_eq!(served, [0, 0, 1, 0, 0, 1, 2, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn who_floods_much_is_busy_until_it_was_quiet_for_a_while() {
        let mut origins = Origins::new(2, 20);
        let [much, little, none] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        // One every five seconds, and one every half minute, for ten minutes.
        for second in 0..600 {
            _ = second % 5 == 0 && origins.take(much, at(second * 1_000));
            _ = second % 30 == 0 && origins.take(little, at(second * 1_000));
            if second > 120 {
                assert!(origins.is_busy(&much, at(second * 1_000)), "{second}");
            }
            assert!(!origins.is_busy(&little, at(second * 1_000)), "{second}");
        }
        assert!(!origins.is_busy(&none, at(600_000)));
        assert!(origins.is_busy(&much, at(630_000)), "it counts for a while");
        assert!(!origins.is_busy(&much, at(900_000)));
        assert!(!origins.is_busy(&much, at(u64::MAX / 1_000)));
        origins.take(much, at(u64::MAX / 1_000));
        assert!(!origins.is_busy(&much, at(u64::MAX / 1_000)));
    }

    #[test]
    fn origins_are_bounded_and_each_is_limited() {
        let mut origins = Origins::new(1, 2);
        let peer = |n: u32| PeerId::from_bytes(std::array::from_fn(|i| (n >> (i % 4 * 8)) as u8));
        assert_eq!((0..5).filter(|_| origins.take(peer(0), at(0))).count(), 2);
        (1..10_000).for_each(|n| assert!(origins.take(peer(n), at(u64::from(n)))));
        assert_eq!(origins.len(), ORIGINS_MAX);
    }
}
