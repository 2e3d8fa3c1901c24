//! What is flooded to one neighbour, at the pace that it takes floods.
//!
//! A neighbour drops floods above its limit without looking at them. Whoever passes everything on
//! as it comes lets others' floods, invented perhaps, push out those that matter. So we keep to the
//! pace ourselves, and choose: our own first, then those of origins that are known, then those that
//! this neighbour may be the way for, then the rest; among each, in turn by the neighbour that
//! brought them. Somebody unknown is one of any number of invented origins; but few of these look
//! for somebody who is there, and one who is lies behind few of our links;
//! who aims at somebody there competes on those as an equal. Who flooded much lately comes one sort
//! later than it would: dozens that each use their whole allowance fill every link, and the find
//! of somebody who seldom floods would be one of theirs.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Router;
use super::budget::{Class, next_of};
use super::timers::Timer;
use crate::model::{Bucket, Limits, Monotonic, Occupancy, PeerId};

/// Frames that wait to be flooded to one neighbour: some seconds of its pace.
const WAITING_MAX: usize = 128;
/// Of so many frames one is of those that matter less, though others wait.
const LESSER_EVERY: u32 = 8;
/// So many of each sort may wait whatever else comes: a turn is worth nothing to who may not wait.
const RESERVED: usize = WAITING_MAX / LESSER_EVERY as usize;

/// How much a flood matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It is ours.
    Own,
    /// Its origin is known; and who brought it.
    Known(PeerId),
    /// Its origin is not known, but the neighbour it goes to is where we would look for whom it is
    /// for; or it is known, and floods much; and who brought it.
    Toward(PeerId),
    /// Its origin is not known; or floods much, and the neighbour is where we would look; and who
    /// brought it.
    Unknown(PeerId),
    /// Its origin is not known, and floods much; and who brought it.
    Busy(PeerId),
}

impl Rank {
    /// The rank of the same flood, where it goes to a neighbour that may lead to whom it is for.
    const fn toward(self) -> Self {
        match self {
            Self::Busy(from) => Self::Unknown(from),
            Self::Unknown(from) => Self::Toward(from),
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
    known: Class<Bytes>,
    toward: Class<Bytes>,
    unknown: Class<Bytes>,
    busy: Class<Bytes>,
    /// How many wait in all.
    waiting: usize,
}

impl Outflow {
    /// Nothing waits yet. Neighbours are taken to have the same limits as we have.
    pub(super) fn new(limits: &Limits, now: Monotonic) -> Self {
        Self {
            bucket: Self::budget(limits, now),
            own: VecDeque::new(),
            known: Class::default(),
            toward: Class::default(),
            unknown: Class::default(),
            busy: Class::default(),
            waiting: 0,
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
        self.waiting == 0 && self.bucket.take(now)
    }

    /// Has a frame wait; false if there is no room for it.
    fn push(&mut self, rank: Rank, frame: Bytes) -> bool {
        if self.waiting >= WAITING_MAX && !self.make_room(rank) {
            return false;
        }
        self.waiting += 1;
        match rank {
            Rank::Own => self.own.push_back(frame),
            Rank::Known(from) => self.known.lanes.push(from, frame),
            Rank::Toward(from) => self.toward.lanes.push(from, frame),
            Rank::Unknown(from) => self.unknown.lanes.push(from, frame),
            Rank::Busy(from) => self.busy.lanes.push(from, frame),
        }
        true
    }

    /// Drops the newest frame that matters least, of the neighbour that brought most; none of those
    /// that have a place whatever comes. Nothing goes that matters more than the one that comes,
    /// unless that has such a place; nor, if it matters as much, of who brought no more.
    fn make_room(&mut self, rank: Rank) -> bool {
        let (matters, from) = match rank {
            Rank::Busy(from) => (0, Some(from)),
            Rank::Unknown(from) => (1, Some(from)),
            Rank::Toward(from) => (2, Some(from)),
            Rank::Known(from) => (3, Some(from)),
            Rank::Own => (4, None),
        };
        let classes = [&mut self.busy, &mut self.unknown, &mut self.toward, &mut self.known];
        let has_place = classes.get(matters).is_some_and(|class| class.lanes.len() < RESERVED);
        let may_go = |(sort, class): &(usize, &mut Class<Bytes>)| match *sort {
            _ if from.is_none() => !class.lanes.is_empty(),
            sort if sort == matters => !has_place,
            sort => (sort < matters || has_place) && class.lanes.len() > RESERVED,
        };
        let least = classes.into_iter().enumerate().find(may_go);
        let Some((sort, Class { lanes, .. })) = least else { return false };
        let Some((longest, count)) = lanes.longest() else { return false };
        let is_worth_it = sort != matters || from.is_some_and(|from| lanes.count(&from) < count);
        let dropped = is_worth_it && lanes.drop_newest(&longest);
        self.waiting -= usize::from(dropped);
        dropped
    }

    fn pop(&mut self) -> Option<Bytes> {
        let of_others = [&mut self.known, &mut self.toward, &mut self.unknown, &mut self.busy];
        let next = || next_of(of_others, LESSER_EVERY).map(|(_, frame)| frame);
        let frame = self.own.pop_front().or_else(next)?;
        self.waiting -= 1;
        Some(frame)
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        let of_others = [&self.known, &self.toward, &self.unknown, &self.busy];
        let of_others = of_others.iter().map(|class| class.lanes.len()).sum::<usize>();
        let waiting = self.own.len() + of_others;
        Occupancy::new("floods to a neighbour", waiting, WAITING_MAX)
    }

    #[cfg(test)]
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
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
        let rank = if self.may_lead_to(destination, to) { rank.toward() } else { rank };
        let Some(neighbour) = self.neighbours.get_mut(to) else { return false };
        let is_taken = neighbour.outflow.push(rank, frame);
        self.timers.set_by(Timer::Outflow, neighbour.outflow.bucket.ready_at(now));
        is_taken
    }

    /// The rank of a flood of this origin that a neighbour brought.
    pub(super) fn rank_of(&self, origin: &PeerId, from: PeerId) -> Rank {
        match (self.is_kept(origin), self.origins.is_busy(origin, self.now.mono)) {
            (true, false) => Rank::Known(from),
            (true, true) => Rank::Toward(from),
            (false, false) => Rank::Unknown(from),
            (false, true) => Rank::Busy(from),
        }
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
        let waiting = self.neighbours.iter().filter(|(_, there)| there.outflow.waiting > 0);
        let waiting: Vec<PeerId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            while let Some(there) = self.neighbours.get_mut(&id)
                && there.outflow.waiting > 0
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
        (0..3).for_each(|n| assert!(outflow.push(Rank::Unknown(peer(1)), frame(n))));
        assert!(outflow.push(Rank::Unknown(peer(2)), frame(10)));
        (20..30).for_each(|n| assert!(outflow.push(Rank::Known(peer(1)), frame(n))));
        assert!(outflow.push(Rank::Own, frame(40)));
        let order = popped(&mut outflow);
        assert_eq!(order, [40, 20, 21, 22, 23, 24, 25, 26, 0, 27, 28, 29, 10, 1, 2]);
        assert_eq!(outflow.waiting(), 0);
    }

    #[test]
    fn what_goes_toward_its_destination_is_before_the_rest() {
        let mut outflow = outflow();
        (0..100).for_each(|n| assert!(outflow.push(Rank::Unknown(peer(1)), frame(n))));
        (100..110).for_each(|n| assert!(outflow.push(Rank::Toward(peer(1)), frame(n))));
        (120..124).for_each(|n| assert!(outflow.push(Rank::Known(peer(1)), frame(n))));
        let order = popped(&mut outflow);
        let expected = [120, 121, 122, 123, 100, 101, 102, 103, 104, 105, 106, 0, 107, 108, 109, 1];
        assert_eq!(order[..16], expected);
        (0..=255).for_each(|n| _ = outflow.push(Rank::Unknown(peer(1)), frame(n)));
        (0..=255).for_each(|n| _ = outflow.push(Rank::Toward(peer(1)), frame(n)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
        assert_eq!(outflow.unknown.lanes.len(), RESERVED, "they keep their places");
        assert!(outflow.push(Rank::Unknown(peer(2)), frame(1)), "in turn with who brought more");
        assert!(!outflow.push(Rank::Unknown(peer(1)), frame(1)));
        assert!(outflow.push(Rank::Toward(peer(2)), frame(2)), "it has brought less");
        assert!(outflow.push(Rank::Known(peer(1)), frame(3)));
        assert_eq!(outflow.waiting(), WAITING_MAX);
    }

    #[test]
    fn who_floods_much_is_one_sort_later_and_still_not_forgotten() {
        let mut outflow = outflow();
        (0..=255).for_each(|n| _ = outflow.push(Rank::Busy(peer(1)), frame(n)));
        assert!(!outflow.push(Rank::Busy(peer(1)), frame(0)));
        let strangers = (0..=255).filter(|n| outflow.push(Rank::Unknown(peer(1)), frame(*n)));
        assert_eq!(strangers.count(), WAITING_MAX - RESERVED, "though the same peer brought them");
        assert_eq!(outflow.busy.lanes.len(), RESERVED, "they keep their places");
        let order = popped(&mut outflow);
        assert_eq!(order[..9], [0, 1, 2, 3, 4, 5, 6, 0, 7]);
        let toward = |rank: Rank| (rank.toward(), rank.toward().toward());
        let [busy, unknown] = [Rank::Busy(peer(1)), Rank::Unknown(peer(1))];
        assert_eq!(toward(busy), (unknown, Rank::Toward(peer(1))));
        for rank in [Rank::Own, Rank::Known(peer(1)), Rank::Toward(peer(1))] {
            assert_eq!(rank.toward(), rank);
        }
    }

    #[test]
    fn the_rest_still_goes_while_twice_as_much_comes_that_goes_before_it() {
        let mut outflow = outflow();
        let mut unknown = 0;
        for _ in 0..1_000 {
            outflow.push(Rank::Toward(peer(1)), frame(0));
            outflow.push(Rank::Toward(peer(2)), frame(0));
            outflow.push(Rank::Unknown(peer(3)), frame(1));
            unknown += outflow.pop().map_or(0, |frame| u32::from(frame[0]));
        }
        assert_eq!(unknown, 1_000 / LESSER_EVERY);
    }

    #[test]
    fn whoever_brings_most_loses_first() {
        let mut outflow = outflow();
        for n in 0..=255 {
            outflow.push(Rank::Unknown(peer(1)), frame(n));
        }
        assert_eq!(outflow.waiting(), WAITING_MAX);
        assert!(outflow.push(Rank::Unknown(peer(2)), frame(7)), "it has brought less");
        assert!(outflow.push(Rank::Known(peer(3)), frame(8)));
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
            outflow.push(Rank::Known(peer(1)), frame(n));
        }
        let few = (0..100).filter(|n| outflow.push(Rank::Unknown(peer(2)), frame(*n))).count();
        assert_eq!(few, RESERVED);
        assert!(outflow.push(Rank::Known(peer(2)), frame(2)));
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
