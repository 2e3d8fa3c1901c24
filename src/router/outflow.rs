//! What is flooded to one neighbour, at the pace that it takes floods.
//!
//! A neighbour drops floods above its limit without looking at them. Whoever passes everything on
//! as it comes lets others' floods, invented perhaps, push out those that matter. So we keep to the
//! pace ourselves, and choose: our own first, then those of origins that are known, then the rest;
//! among each, in turn by the neighbour that brought them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Router;
use super::budget::Lanes;
use super::timers::Timer;
use crate::model::{Bucket, Limits, Monotonic, Occupancy, PeerId};

/// Frames that wait to be flooded to one neighbour: some seconds of its pace.
const WAITING_MAX: usize = 128;
/// Of so many frames of others one is of an origin that is not known, though known ones wait.
const UNKNOWN_EVERY: u32 = 8;

/// How much a flood matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// It is ours.
    Own,
    /// Its origin is known; and who brought it.
    Known(PeerId),
    /// Its origin is not known; and who brought it.
    Unknown(PeerId),
}

/// Floods to one neighbour.
#[derive(Debug)]
pub(super) struct Outflow {
    /// What the neighbour takes. Half of its burst, so that frames which come closer together than
    /// they left are not too many for it.
    bucket: Bucket,
    own: VecDeque<Bytes>,
    known: Lanes<Bytes>,
    unknown: Lanes<Bytes>,
    /// How many wait in all.
    waiting: usize,
    /// How many were taken from the known ones in a row.
    known_in_a_row: u32,
}

impl Outflow {
    /// Nothing waits yet. Neighbours are taken to have the same limits as we have.
    pub(super) fn new(limits: &Limits, now: Monotonic) -> Self {
        Self {
            bucket: Self::budget(limits, now),
            own: VecDeque::new(),
            known: Lanes::default(),
            unknown: Lanes::default(),
            waiting: 0,
            known_in_a_row: 0,
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
            Rank::Known(from) => self.known.push(from, frame),
            Rank::Unknown(from) => self.unknown.push(from, frame),
        }
        true
    }

    /// Drops the newest frame that matters least, of the neighbour that brought most.
    fn make_room(&mut self, rank: Rank) -> bool {
        let (lanes, of) = match rank {
            _ if !self.unknown.is_empty() => (&mut self.unknown, None),
            Rank::Own if !self.known.is_empty() => (&mut self.known, None),
            Rank::Known(from) => (&mut self.known, Some(from)),
            _ => return false,
        };
        let of = if let Rank::Unknown(from) = rank { Some(from) } else { of };
        let Some((longest, count)) = lanes.longest() else { return false };
        let is_worth_it = of.is_none_or(|from| lanes.count(&from) < count);
        let dropped = is_worth_it && lanes.drop_newest(&longest);
        self.waiting -= usize::from(dropped);
        dropped
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.own.pop_front().or_else(|| {
            let unknown_turn = self.known_in_a_row + 1 >= UNKNOWN_EVERY && !self.unknown.is_empty();
            if !unknown_turn && let Some((_, frame)) = self.known.pop() {
                self.known_in_a_row = self.known_in_a_row.saturating_add(1);
                return Some(frame);
            }
            self.known_in_a_row = 0;
            self.unknown.pop().map(|(_, frame)| frame)
        })?;
        self.waiting -= 1;
        Some(frame)
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        let waiting = self.own.len() + self.known.len() + self.unknown.len();
        Occupancy::new("floods to a neighbour", waiting, WAITING_MAX)
    }

    #[cfg(test)]
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Router {
    /// Floods a frame to all neighbours but one; to whom it goes.
    pub(super) fn flood_to_all(
        &mut self,
        except: Option<PeerId>,
        rank: Rank,
        frame: &Bytes,
    ) -> Vec<PeerId> {
        let mut to: Vec<PeerId> = self.neighbours.keys().copied().collect();
        to.retain(|id| Some(*id) != except && self.flood_to(id, rank, frame.clone()));
        to
    }

    /// Floods a frame to one neighbour, now or in a while; false if it is lost.
    pub(super) fn flood_to(&mut self, to: &PeerId, rank: Rank, frame: Bytes) -> bool {
        let now = self.now.mono;
        let Some(neighbour) = self.neighbours.get_mut(to) else { return false };
        if neighbour.outflow.may_go(now) {
            return self.send_traffic(to, frame);
        }
        let is_taken = neighbour.outflow.push(rank, frame);
        self.timers.set_by(Timer::Outflow, neighbour.outflow.bucket.ready_at(now));
        is_taken
    }

    /// The rank of a flood of this origin that a neighbour brought.
    pub(super) fn rank_of(&self, origin: &PeerId, from: PeerId) -> Rank {
        if self.is_kept(origin) { Rank::Known(from) } else { Rank::Unknown(from) }
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
    fn a_full_queue_of_known_ones_takes_no_unknown_ones() {
        let mut outflow = outflow();
        for n in 0..=255 {
            outflow.push(Rank::Known(peer(1)), frame(n));
        }
        assert!(!outflow.push(Rank::Unknown(peer(2)), frame(1)));
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
