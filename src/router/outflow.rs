//! What is flooded to one neighbour, at the pace that it takes floods.
//!
//! A neighbour drops floods above its limit without looking at them. Whoever passes everything on
//! as it comes lets others' floods, invented perhaps, push out those that matter. So we keep to the
//! pace ourselves, and choose: our own first, then those of origins that are known, then those that
//! this neighbour may be the way for, then the rest; among each, in turn by the neighbour that
//! brought them. Somebody unknown is one of any number of invented origins; but few of these look
//! for somebody who is there, and one who is lies behind few of our links;
//! who aims at somebody there competes on those as an equal. A stranger that flooded much lately
//! comes one sort later: dozens that each use their whole allowance fill every link, and the find
//! of somebody who seldom floods would be one of theirs.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Router;
use super::budget::{Class, Lanes, next_of};
use super::timers::Timer;
use crate::model::{Bucket, Limits, Monotonic, Occupancy, PeerId};

/// Frames that wait to be flooded to one neighbour: some seconds of its pace.
const WAITING_MAX: usize = 128;
/// Of so many frames one is of those that matter less, though others wait.
const LESSER_EVERY: u32 = 8;
/// Of so many frames of strangers one is of those that flood much, though others wait.
const BUSY_EVERY: u32 = 4;
/// So many of each sort may wait whatever else comes: a turn is worth nothing to who may not wait.
const RESERVED: usize = WAITING_MAX / LESSER_EVERY as usize;

/// How much a flood of somebody else matters to us: those before matter more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    /// Its origin is known.
    Known,
    /// Its origin is not known, but the neighbour it goes to is where we would look for whom it is
    /// for.
    Toward,
    /// Its origin is not known; or floods much, and is a neighbour of ours, or goes to one where we
    /// would look.
    Unknown,
    /// Its origin is not known, and floods much.
    Busy,
}

/// Whose flood it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It is ours.
    Own,
    /// How much it matters, and who brought it.
    Theirs(Sort, PeerId),
}

impl Rank {
    /// The rank of the same flood, where it goes to a neighbour that may lead to whom it is for.
    const fn toward(self) -> Self {
        match self {
            Self::Theirs(Sort::Busy, from) => Self::Theirs(Sort::Unknown, from),
            Self::Theirs(Sort::Unknown, from) => Self::Theirs(Sort::Toward, from),
            rank => rank,
        }
    }
}

/// Floods to one neighbour.
#[derive(Debug)]
pub(super) struct Outflow {
    /// What the neighbour takes. Half of its burst, so that frames which come closer together than
    /// they left are not too many for it.
    bucket: Bucket,
    own: VecDeque<Bytes>,
    /// By their [`Sort`].
    theirs: [Class<Bytes>; 4],
}

impl Outflow {
    /// Nothing waits yet. Neighbours are taken to have the same limits as we have.
    pub(super) fn new(limits: &Limits, now: Monotonic) -> Self {
        Self {
            bucket: Self::budget(limits, now),
            own: VecDeque::new(),
            theirs: [
                Class::new(LESSER_EVERY),
                Class::new(LESSER_EVERY),
                Class::new(BUSY_EVERY),
                Class::last(),
            ],
        }
    }

    pub(super) fn budget(limits: &Limits, now: Monotonic) -> Bucket {
        let burst = (limits.link_floods_burst / 2).max(1);
        Bucket::new(limits.link_floods_per_second, burst, now)
    }

    /// Keeps to another budget.
    pub(super) const fn pace(&mut self, budget: Bucket) {
        self.bucket = budget;
    }

    /// Whether a frame may go at once.
    fn may_go(&mut self, now: Monotonic) -> bool {
        self.waiting() == 0 && self.bucket.take(now)
    }

    /// Has a frame wait; false if there is no room for it.
    fn push(&mut self, rank: Rank, frame: Bytes) -> bool {
        if self.waiting() >= WAITING_MAX && !self.make_room(rank) {
            return false;
        }
        match rank {
            Rank::Own => self.own.push_back(frame),
            Rank::Theirs(sort, from) => self.lanes(sort).push(from, frame),
        }
        true
    }

    fn lanes(&mut self, sort: Sort) -> &mut Lanes<Bytes> {
        let [known, toward, unknown, busy] = &mut self.theirs;
        let class = match sort {
            Sort::Known => known,
            Sort::Toward => toward,
            Sort::Unknown => unknown,
            Sort::Busy => busy,
        };
        &mut class.lanes
    }

    /// Drops the newest frame that matters least, of the neighbour that brought most; none of those
    /// that have a place whatever comes. Nothing goes that matters more than the one that comes,
    /// unless that has such a place; nor, if it matters as much, of who brought no more.
    fn make_room(&mut self, rank: Rank) -> bool {
        let has_place = match rank {
            Rank::Own => false,
            Rank::Theirs(sort, _) => self.lanes(sort).len() < RESERVED,
        };
        for sort in [Sort::Busy, Sort::Unknown, Sort::Toward, Sort::Known] {
            let lanes = self.lanes(sort);
            let Some((longest, count)) = lanes.longest() else { continue };
            let (may_go, is_worth_it) = match rank {
                Rank::Own => (true, true),
                Rank::Theirs(of, from) if of == sort => (!has_place, lanes.count(&from) < count),
                Rank::Theirs(of, _) => ((of < sort || has_place) && lanes.len() > RESERVED, true),
            };
            if may_go {
                return is_worth_it && lanes.drop_newest(&longest);
            }
        }
        false
    }

    fn pop(&mut self) -> Option<Bytes> {
        let next = || next_of(self.theirs.each_mut()).map(|(_, frame)| frame);
        self.own.pop_front().or_else(next)
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("floods to a neighbour", self.waiting(), WAITING_MAX)
    }

    /// How many wait in all.
    pub(super) fn waiting(&self) -> usize {
        self.own.len() + self.theirs.iter().map(|class| class.lanes.len()).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn waits(&mut self, sort: Sort) -> bool {
        !self.lanes(sort).is_empty()
    }
}

impl Router {
    /// Floods a frame, for somebody, to all neighbours but one; to whom it goes.
    pub(super) fn flood_to_all(
        &mut self,
        except: Option<PeerId>,
        rank: Rank,
        destination: &PeerId,
        frame: &Bytes,
    ) -> Vec<PeerId> {
        let mut to: Vec<PeerId> = self.neighbours.keys().copied().collect();
        to.retain(|id| Some(*id) != except && self.flood_to(id, rank, destination, frame.clone()));
        to
    }

    /// Floods a frame, for somebody, to one neighbour, now or in a while; false if it is lost.
    pub(super) fn flood_to(
        &mut self,
        to: &PeerId,
        rank: Rank,
        destination: &PeerId,
        frame: Bytes,
    ) -> bool {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(to) else { return false };
        if neighbour.outflow.may_go(now) {
            return self.send_traffic(to, frame);
        }
        let higher = rank.toward();
        let rank = if higher != rank && self.may_lead_to(destination, to) { higher } else { rank };
        let Some(neighbour) = self.neighbours.get_mut(to) else { return false };
        let is_taken = neighbour.outflow.push(rank, frame);
        self.timers.set_by(Timer::Outflow, neighbour.outflow.bucket.ready_at(now));
        is_taken
    }

    /// The rank of a flood of this origin that a neighbour brought. A neighbour that nobody knows
    /// otherwise and that floods much is as good as a stranger.
    pub(super) fn rank_of(&self, origin: &PeerId, from: PeerId) -> Rank {
        let is_busy = self.origins.is_busy(origin, self.now.mono);
        let sort = match (self.is_known(origin), self.neighbours.contains_key(origin)) {
            (true, _) => Sort::Known,
            (false, true) if !is_busy => Sort::Known,
            (false, false) if is_busy => Sort::Busy,
            (false, _) => Sort::Unknown,
        };
        Rank::Theirs(sort, from)
    }

    /// Whether a neighbour is where we would look for somebody: it is that peer, a way to it, or
    /// told us of it.
    fn may_lead_to(&self, destination: &PeerId, neighbour: &PeerId) -> bool {
        destination == neighbour
            || self.directory.teller(destination) == Some(*neighbour)
            || self.routes.is_good(destination, neighbour, self.now.mono)
    }

    /// Lets go what waits, as far as the pace of each neighbour allows.
    pub(super) fn run_outflow(&mut self) {
        let now = self.now.mono;
        let waiting = self.neighbours.iter().filter(|(_, there)| there.outflow.waiting() > 0);
        let waiting: Vec<PeerId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            while let Some(there) = self.neighbours.get_mut(&id)
                && there.outflow.waiting() > 0
            {
                let outflow = &mut there.outflow;
                if !outflow.bucket.take(now) {
                    let next = outflow.bucket.ready_at(now);
                    self.timers.set_by(Timer::Outflow, next);
                    break;
                }
                if let Some(frame) = outflow.pop() {
                    self.send_traffic(&id, frame);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn frame(number: u8) -> Bytes {
        Bytes::from(vec![number])
    }

    fn popped(outflow: &mut Outflow) -> Vec<u8> {
        std::iter::from_fn(|| outflow.pop()).map(|frame| frame[0]).collect()
    }

    fn outflow() -> Outflow {
        Outflow::new(&Limits::default(), Monotonic::START)
    }

    #[test]
    fn what_matters_goes_first_and_nobody_is_forgotten() {
        let mut outflow = outflow();
        (0..3).for_each(|n| assert!(outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(n))));
        assert!(outflow.push(Rank::Theirs(Sort::Unknown, peer(2)), frame(10)));
        (20..30).for_each(|n| assert!(outflow.push(Rank::Theirs(Sort::Known, peer(1)), frame(n))));
        assert!(outflow.push(Rank::Own, frame(40)));
        let order = popped(&mut outflow);
        assert_eq!(order, [40, 20, 21, 22, 23, 24, 25, 26, 0, 27, 28, 29, 10, 1, 2]);
        assert_eq!(outflow.waiting(), 0);
    }

    #[test]
    fn what_goes_toward_its_destination_is_before_the_rest() {
        let mut outflow = outflow();
        (0..100)
            .for_each(|n| assert!(outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(n))));
        (100..110)
            .for_each(|n| assert!(outflow.push(Rank::Theirs(Sort::Toward, peer(1)), frame(n))));
        (120..124)
            .for_each(|n| assert!(outflow.push(Rank::Theirs(Sort::Known, peer(1)), frame(n))));
        let order = popped(&mut outflow);
        let expected = [120, 121, 122, 123, 100, 101, 102, 103, 104, 105, 106, 0, 107, 108, 109, 1];
        assert_eq!(order[..16], expected);
        (0..=255).for_each(|n| _ = outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(n)));
        (0..=255).for_each(|n| _ = outflow.push(Rank::Theirs(Sort::Toward, peer(1)), frame(n)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
        assert_eq!(outflow.lanes(Sort::Unknown).len(), RESERVED, "they keep their places");
        assert!(
            outflow.push(Rank::Theirs(Sort::Unknown, peer(2)), frame(1)),
            "in turn with who brought more"
        );
        assert!(!outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(1)));
        assert!(outflow.push(Rank::Theirs(Sort::Toward, peer(2)), frame(2)), "it has brought less");
        assert!(outflow.push(Rank::Theirs(Sort::Known, peer(1)), frame(3)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
    }

    #[test]
    fn who_floods_much_is_one_sort_later_and_still_not_forgotten() {
        let mut outflow = outflow();
        (0..=255).for_each(|n| _ = outflow.push(Rank::Theirs(Sort::Busy, peer(1)), frame(n)));
        assert!(!outflow.push(Rank::Theirs(Sort::Busy, peer(1)), frame(0)));
        let strangers =
            (0..=255).filter(|n| outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(*n)));
        assert_eq!(strangers.count(), WAITING_MAX - RESERVED, "though the same peer brought them");
        assert_eq!(outflow.lanes(Sort::Busy).len(), RESERVED, "they keep their places");
        let order = popped(&mut outflow);
        assert_eq!(order[..9], [0, 1, 2, 0, 3, 4, 5, 1, 6]);
        let toward = |rank: Rank| (rank.toward(), rank.toward().toward());
        let [busy, unknown] =
            [Rank::Theirs(Sort::Busy, peer(1)), Rank::Theirs(Sort::Unknown, peer(1))];
        assert_eq!(toward(busy), (unknown, Rank::Theirs(Sort::Toward, peer(1))));
        for rank in
            [Rank::Own, Rank::Theirs(Sort::Known, peer(1)), Rank::Theirs(Sort::Toward, peer(1))]
        {
            assert_eq!(rank.toward(), rank);
        }
    }

    #[test]
    fn the_rest_still_goes_while_twice_as_much_comes_that_goes_before_it() {
        let mut outflow = outflow();
        let mut unknown = 0;
        for _ in 0..1_000 {
            outflow.push(Rank::Theirs(Sort::Toward, peer(1)), frame(0));
            outflow.push(Rank::Theirs(Sort::Toward, peer(2)), frame(0));
            outflow.push(Rank::Theirs(Sort::Unknown, peer(3)), frame(1));
            unknown += outflow.pop().map_or(0, |frame| u32::from(frame[0]));
        }
        assert_eq!(unknown, 1_000 / LESSER_EVERY);
    }

    #[test]
    fn whoever_brings_most_loses_first() {
        let mut outflow = outflow();
        for n in 0..=255 {
            outflow.push(Rank::Theirs(Sort::Unknown, peer(1)), frame(n));
        }
        assert_eq!(outflow.waiting(), WAITING_MAX);
        assert!(
            outflow.push(Rank::Theirs(Sort::Unknown, peer(2)), frame(7)),
            "it has brought less"
        );
        assert!(outflow.push(Rank::Theirs(Sort::Known, peer(3)), frame(8)));
        assert!(outflow.push(Rank::Own, frame(9)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
        let order = popped(&mut outflow);
        assert_eq!(order.len(), WAITING_MAX);
        assert_eq!(order[..2], [9, 8]);
        assert!(order[2..5].contains(&7));
    }

    #[test]
    fn a_full_queue_of_known_ones_takes_few_unknown_ones() {
        let mut outflow = outflow();
        for n in 0..=255 {
            outflow.push(Rank::Theirs(Sort::Known, peer(1)), frame(n));
        }
        let few = (0..100)
            .filter(|n| outflow.push(Rank::Theirs(Sort::Unknown, peer(2)), frame(*n)))
            .count();
        assert_eq!(few, RESERVED);
        assert!(outflow.push(Rank::Theirs(Sort::Known, peer(2)), frame(2)));
        assert!(outflow.push(Rank::Own, frame(3)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
    }

    #[test]
    fn the_pace_is_kept() {
        let limits =
            Limits { link_floods_per_second: 10, link_floods_burst: 20, ..Limits::default() };
        let mut outflow = Outflow::new(&limits, Monotonic::START);
        let at_once = (0..100).filter(|_| outflow.may_go(Monotonic::START)).count();
        assert_eq!(at_once, 10);
        let later = Monotonic::START + Span::from_secs(1);
        assert_eq!((0..100).filter(|_| outflow.may_go(later)).count(), 10);
    }
}
