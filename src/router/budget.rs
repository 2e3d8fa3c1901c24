//! How much of something is allowed, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::model::{Bucket, Monotonic, Occupancy, PeerId, Span};
use crate::wire::TAIL_FRAGMENTS_MAX;

/// Origins whose floods are counted at once. An origin's bucket is full again after ten seconds (by
/// default) without floods; at 200 verifications a second there are at most 2,000 that are not. Who
/// floods without a pause keeps its count, too: it comes again before 4,096 others.
const ORIGINS_MAX: usize = 4_096;
/// What an origin flooded counts half after this.
const HALF_LIFE: Span = Span::from_secs(180);
/// Who has flooded more than this lately is busy: from four to eight a minute. Of dozens that each
/// use their whole allowance a link carries one in some seconds. A message as long as may be, with
/// the finds for it, makes nobody busy.
const BUSY_ABOVE: u32 = 24;
const _: () = assert!(TAIL_FRAGMENTS_MAX + 4 < BUSY_ABOVE as usize);

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
    /// The neighbours by the length of their queues: who has most is looked for at every flood that
    /// finds no room.
    lengths: BTreeSet<(usize, PeerId)>,
    /// How many wait in all.
    waiting: usize,
    /// Who was served last: whoever follows is next.
    last: Option<PeerId>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), lengths: BTreeSet::new(), waiting: 0, last: None }
    }
}

impl<T> Lanes<T> {
    /// Adds to the end of a neighbour's queue.
    pub(super) fn push(&mut self, neighbour: PeerId, item: T) {
        let queue = self.queues.entry(neighbour).or_default();
        queue.push_back(item);
        let length = queue.len();
        self.lengths.remove(&(length - 1, neighbour));
        self.lengths.insert((length, neighbour));
        self.waiting += 1;
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
        self.take(neighbour, VecDeque::pop_front)
    }

    /// Drops the last of one neighbour's queue; false if there is none.
    pub(super) fn drop_newest(&mut self, neighbour: &PeerId) -> bool {
        self.take(neighbour, VecDeque::pop_back).is_some()
    }

    fn take(
        &mut self,
        neighbour: &PeerId,
        one: impl FnOnce(&mut VecDeque<T>) -> Option<T>,
    ) -> Option<T> {
        let queue = self.queues.get_mut(neighbour)?;
        let item = one(queue)?;
        let length = queue.len();
        self.waiting -= 1;
        self.lengths.remove(&(length + 1, *neighbour));
        if length == 0 {
            self.queues.remove(neighbour);
        } else {
            self.lengths.insert((length, *neighbour));
        }
        Some(item)
    }

    /// The neighbour with the longest queue, and its length.
    pub(super) fn longest(&self) -> Option<(PeerId, usize)> {
        self.lengths.last().map(|(length, neighbour)| (*neighbour, *length))
    }

    /// How many wait in all.
    pub(super) const fn len(&self) -> usize {
        self.waiting
    }

    /// How many wait for one neighbour's turn.
    pub(super) fn count(&self, neighbour: &PeerId) -> usize {
        self.queues.get(neighbour).map_or(0, VecDeque::len)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Forgets all of one neighbour.
    pub(super) fn remove(&mut self, neighbour: &PeerId) {
        let forgotten = self.queues.remove(neighbour).map_or(0, |queue| queue.len());
        self.lengths.remove(&(forgotten, *neighbour));
        self.waiting -= forgotten;
    }
}

/// Lanes of what matters equally, beside others that matter more or less.
#[derive(Debug)]
pub(super) struct Class<T> {
    pub(super) lanes: Lanes<T>,
    /// Of so many taken one is of those that matter less, though others wait.
    lesser_every: u32,
    /// How many were taken in a row, while lesser ones may have waited.
    in_a_row: u32,
}

impl<T> Class<T> {
    pub(super) fn new(lesser_every: u32) -> Self {
        Self { lanes: Lanes::default(), lesser_every, in_a_row: 0 }
    }

    /// Of what matters least.
    pub(super) fn last() -> Self {
        Self::new(u32::MAX)
    }
}

/// Takes the next of classes that matter less and less. What matters more goes first, but one of
/// each `lesser_every` of a class goes to those that matter less, if any waits.
pub(super) fn next_of<T, const N: usize>(mut classes: [&mut Class<T>; N]) -> Option<(PeerId, T)> {
    let mut rest = &mut classes[..];
    while let Some((class, lesser)) = rest.split_first_mut() {
        let is_turn = class.in_a_row.saturating_add(1) < class.lesser_every
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
    fn the_longest_lane_is_known_whatever_is_added_and_taken() {
        let mut lanes = Lanes::default();
        for n in 0..2_000_u32 {
            let neighbour = PeerId::from_bytes([(n * n % 7) as u8; 32]);
            match n * 31 % 11 {
                0..6 => lanes.push(neighbour, n),
                6..8 => _ = lanes.pop(),
                8 => _ = lanes.pop_of(&neighbour),
                9 => _ = lanes.drop_newest(&neighbour),
                _ if n % 50 == 0 => lanes.remove(&neighbour),
                _ => {}
            }
            let lengths = lanes.queues.iter().map(|(id, queue)| (queue.len(), *id));
            let longest = lengths.clone().max().map(|(length, id)| (id, length));
            assert_eq!(lanes.longest(), longest, "{n}");
            assert_eq!(lanes.len(), lengths.clone().map(|(length, _)| length).sum::<usize>());
            assert_eq!(lanes.lengths, lengths.collect(), "{n}");
        }
        assert!(lanes.len() > 100);
    }

    #[test]
    fn what_matters_less_gets_one_in_so_many() {
        let from = PeerId::from_bytes([1; 32]);
        let mut classes: [Class<u8>; 3] = [Class::new(3), Class::new(3), Class::last()];
        for (n, class) in (0..).zip(&mut classes) {
            (0..4).for_each(|_| class.lanes.push(from, n));
        }
        let next = || next_of(classes.each_mut()).map(|(_, item)| item);
        let served: Vec<u8> = std::iter::from_fn(next).collect();
        assert_eq!(served, [0, 0, 1, 0, 0, 1, 2, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn who_floods_much_is_busy_until_it_was_quiet_for_a_while() {
        let mut origins = Origins::new(2, 20);
        let [much, little, none] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        // Nine a minute, and four, for an hour.
        for second in 0..3_600 {
            _ = second * 9 % 60 < 9 && origins.take(much, at(second * 1_000));
            _ = second * 4 % 60 < 4 && origins.take(little, at(second * 1_000));
            // The first halvings are of less than comes in the long run.
            assert!(second < 900 || origins.is_busy(&much, at(second * 1_000)), "{second}");
            assert!(!origins.is_busy(&little, at(second * 1_000)), "{second}");
        }
        assert!(!origins.is_busy(&none, at(3_600_000)));
        assert!(!origins.is_busy(&much, at(3_600_000 + 2 * 180_000)));
        assert!(!origins.is_busy(&much, at(u64::MAX / 1_000)));
        origins.take(much, at(u64::MAX / 1_000));
        assert!(!origins.is_busy(&much, at(u64::MAX / 1_000)));
    }

    #[test]
    fn a_message_as_long_as_may_be_makes_nobody_busy() {
        let mut origins = Origins::new(2, 20);
        let origin = PeerId::from_bytes([1; 32]);
        for _ in 0..TAIL_FRAGMENTS_MAX + 4 {
            origins.take(origin, at(0));
            assert!(!origins.is_busy(&origin, at(0)));
        }
        (0..4).for_each(|_| _ = origins.take(origin, at(0)));
        assert!(origins.is_busy(&origin, at(0)));
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
