//! Through which neighbours others can be reached.
//!
//! A table of soft state: what is not confirmed by a receipt or learned again is forgotten. Which
//! way is best is not what others say of it (they may lie) but what came back: receipts, which only
//! the destination can reveal, count for a way, and their absence counts against it. A way that no
//! receipt came by yet is worth no more than what its first relay achieved for other destinations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::Router;
use crate::model::limits::NEXT_HOPS_MAX;
use crate::model::{Monotonic, Occupancy, PeerId, Span};
use crate::wire::RejectReason;

/// How long a way is believed in without a sign that it works.
const ROUTE_LIFETIME: Span = Span::from_secs(30 * 60);

/// A way that nothing but receipts came by.
const SCORE_FULL: u32 = 1 << 16;
/// A way that was not tried yet: in the middle.
const SCORE_NEW: u32 = SCORE_FULL / 2;
/// A way that failed, but was learned again since: worth a try after the untried ones.
const SCORE_RELEARNED: u32 = SCORE_FULL / 4;
/// Below this a way is bad: it is not offered to others, and we ask for another.
const SCORE_BAD: u32 = SCORE_FULL / 5;

/// Neighbours of now and before whose doing as relays is remembered.
const RELAYS_MAX: usize = 1_024;
/// Relays are told apart by so many steps: one that misses little is as good as a new one.
const RELAY_STEPS: u32 = 8;
/// Each sweep a relay's score regains this part of what it lacks.
const RELAY_HEALING: u32 = 32;

/// Ways to one destination that are remembered for having failed.
const FAILED_MAX: usize = 16;

/// The table's order of age need not be finer than this.
const AGE_RESOLUTION: Span = Span::from_secs(1);

/// One way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// The neighbour.
    pub(super) via: PeerId,
    /// Links to the destination, by hearsay.
    pub(super) hops: u8,
    /// Moving average of receipts against misses, up to [`SCORE_FULL`].
    score: u32,
    /// Misses since the last receipt.
    misses: u32,
    /// Verified receipts in all.
    pub(super) receipts: u64,
    /// When it was learned first.
    pub(super) learned: Monotonic,
    /// When it was last learned or confirmed.
    pub(super) confirmed: Monotonic,
}

impl Hop {
    /// From 0 (only misses) to 1 (only receipts).
    pub(super) fn score(&self) -> f64 {
        f64::from(self.score) / f64::from(SCORE_FULL)
    }

    /// Whether it failed so often that another way should be sought.
    pub(super) const fn is_bad(&self) -> bool {
        self.score < SCORE_BAD
    }

    /// What it is worth to whoever chooses. Until a receipt came by it, it is worth no more than
    /// its relay, so that who says to be near everybody and passes nothing on is not tried first
    /// for everybody.
    fn rank(&self, destination: &PeerId, relays: &BTreeMap<PeerId, u32>) -> u32 {
        if self.via == *destination {
            return u32::MAX;
        }
        if self.receipts > 0 {
            return self.score;
        }
        let relay = relays.get(&self.via).copied().unwrap_or(SCORE_FULL);
        let step = (relay * RELAY_STEPS + SCORE_FULL / 2) / SCORE_FULL;
        self.score.min(SCORE_RELEARNED + (SCORE_NEW - SCORE_RELEARNED) * step / RELAY_STEPS)
    }

    const fn is_fresh(&self, now: Monotonic) -> bool {
        now.since(self.confirmed).as_micros() <= ROUTE_LIFETIME.as_micros()
    }
}

/// The ways to one destination.
#[derive(Debug)]
struct Route {
    /// The best first: the destination itself if it is a neighbour, then by rank, then by hops.
    hops: Vec<Hop>,
    /// Ways that failed and made room: learned again they are no better than before.
    failed: VecDeque<PeerId>,
    /// Its place in the order of age.
    confirmed: Monotonic,
}

/// All ways known.
#[derive(Debug)]
pub(super) struct Routes {
    table: BTreeMap<PeerId, Route>,
    /// In order of the last confirmation: the first is forgotten first.
    ages: BTreeSet<(Monotonic, PeerId)>,
    destinations_max: usize,
    /// How neighbours do as relays, whatever the destination: a score like that of a way. Those
    /// that never missed are not here.
    relays: BTreeMap<PeerId, u32>,
}

impl Routes {
    pub(super) const fn new(destinations_max: usize) -> Self {
        Self {
            table: BTreeMap::new(),
            ages: BTreeSet::new(),
            destinations_max,
            relays: BTreeMap::new(),
        }
    }

    /// Learns a way, from a verified frame. `is_up` says which neighbours there are: a way through
    /// one that is gone makes room first.
    pub(super) fn learn(
        &mut self,
        destination: PeerId,
        via: PeerId,
        hops: u8,
        now: Monotonic,
        is_up: impl Fn(&PeerId) -> bool,
    ) {
        let relays = &self.relays;
        let rank = |hop: &Hop| hop.rank(&destination, relays);
        let route = self.table.entry(destination).or_insert_with(|| {
            self.ages.insert((now, destination));
            Route {
                hops: Vec::with_capacity(NEXT_HOPS_MAX),
                failed: VecDeque::new(),
                confirmed: now,
            }
        });
        if let Some(hop) = route.hops.iter_mut().find(|hop| hop.via == via) {
            hop.hops = hops;
            hop.confirmed = now;
            hop.score = hop.score.max(SCORE_RELEARNED);
        } else {
            let has_failed = route.failed.contains(&via);
            let hop = Hop {
                via,
                hops,
                score: if has_failed { SCORE_RELEARNED } else { SCORE_NEW },
                misses: 0,
                receipts: 0,
                learned: now,
                confirmed: now,
            };
            if route.hops.len() < NEXT_HOPS_MAX {
                route.hops.push(hop);
            } else if let Some(place) = place_for(&mut route.hops, &hop, now, is_up, rank) {
                let old = std::mem::replace(place, hop);
                if old.is_bad() {
                    route.failed.retain(|failed| *failed != old.via);
                    route.failed.push_back(old.via);
                    if route.failed.len() > FAILED_MAX {
                        route.failed.pop_front();
                    }
                }
            }
        }
        sort(&mut route.hops, &destination, relays);
        self.touch(destination, now);
        self.shrink(self.destinations_max);
    }

    /// Keeps the ways to so many destinations at most, those learned last.
    pub(super) fn shrink(&mut self, destinations_max: usize) {
        self.destinations_max = destinations_max;
        while self.table.len() > self.destinations_max.max(1) {
            let Some((_, oldest)) = self.ages.pop_first() else { break };
            self.table.remove(&oldest);
        }
    }

    /// The ways to a destination, the best first, also through neighbours that are gone.
    pub(super) fn hops(&self, destination: &PeerId, now: Monotonic) -> impl Iterator<Item = &Hop> {
        let hops = self.table.get(destination).map_or(&[][..], |route| &route.hops);
        hops.iter().filter(move |hop| hop.is_fresh(now))
    }

    /// Whether this way is among those known.
    pub(super) fn has(&self, destination: &PeerId, via: &PeerId) -> bool {
        let route = self.table.get(destination);
        route.is_some_and(|route| route.hops.iter().any(|hop| hop.via == *via))
    }

    /// Whether this is the best way known, or another that does not fail.
    pub(super) fn is_good(&self, destination: &PeerId, via: &PeerId, now: Monotonic) -> bool {
        let mut hops = self.hops(destination, now).enumerate();
        hops.any(|(place, hop)| hop.via == *via && (place == 0 || !hop.is_bad()))
    }

    /// Changes what is thought of a relay. What was for itself says nothing of what it passes on.
    fn change_relay(&mut self, destination: &PeerId, via: &PeerId, change: fn(u32) -> u32) {
        if destination == via {
            return;
        }
        let known = self.relays.get(via).copied();
        let score = change(known.unwrap_or(SCORE_FULL));
        if known.is_none() && score < SCORE_FULL && self.relays.len() >= RELAYS_MAX {
            // Who does best is nearest to being new.
            let best = self.relays.iter().max_by_key(|(_, score)| **score).map(|(id, _)| *id);
            best.map(|best| self.relays.remove(&best));
        }
        if known.is_some() || score < SCORE_FULL {
            self.relays.insert(*via, score);
        }
    }

    /// A verified receipt came back this way.
    pub(super) fn credit(&mut self, destination: &PeerId, via: &PeerId, now: Monotonic) {
        self.change_relay(destination, via, up);
        self.change(destination, via, |hop| {
            hop.score = up(hop.score);
            hop.misses = 0;
            hop.receipts = hop.receipts.saturating_add(1);
            hop.confirmed = now;
        });
        self.touch(*destination, now);
    }

    /// No receipt came back this way in time.
    pub(super) fn miss(&mut self, destination: &PeerId, via: &PeerId) {
        // One that does not answer says little, however often it is asked: anybody may send it what
        // it cannot answer.
        let mut is_first = false;
        self.change(destination, via, |hop| {
            is_first = hop.misses == 0;
            hop.score = down(hop.score);
            hop.misses = hop.misses.saturating_add(1);
        });
        if is_first {
            self.change_relay(destination, via, down);
        }
    }

    /// The neighbour said that it cannot.
    pub(super) fn refused(&mut self, destination: &PeerId, via: &PeerId, reason: RejectReason) {
        let part = match reason {
            RejectReason::NoRoute => 2,
            RejectReason::Loop => 4,
            RejectReason::Congested => 16,
        };
        self.change(destination, via, |hop| hop.score -= hop.score / part);
    }

    /// Somebody says that what we know does not work: ways that missed fall behind the others.
    pub(super) fn doubt(&mut self, destination: &PeerId) {
        if let Some(route) = self.table.get_mut(destination) {
            for hop in route.hops.iter_mut().filter(|hop| hop.misses > 0) {
                hop.score /= 2;
            }
            sort(&mut route.hops, destination, &self.relays);
        }
    }

    /// Forgets all ways to a destination.
    pub(super) fn forget(&mut self, destination: &PeerId) {
        if let Some(route) = self.table.remove(destination) {
            self.ages.remove(&(route.confirmed, *destination));
        }
    }

    /// Forgets what was not confirmed for long, and a little of what relays did. For each minute.
    pub(super) fn sweep(&mut self, now: Monotonic) {
        while let Some((at, oldest)) = self.ages.first().copied() {
            if now.since(at) <= ROUTE_LIFETIME + AGE_RESOLUTION {
                break;
            }
            self.forget(&oldest);
        }
        self.relays.retain(|_, score| {
            *score += SCORE_FULL.saturating_sub(*score).div_ceil(RELAY_HEALING);
            *score < SCORE_FULL
        });
    }

    /// Destinations after one, in order, with their ways.
    pub(super) fn after(
        &self,
        after: Option<PeerId>,
        now: Monotonic,
    ) -> impl Iterator<Item = (&PeerId, impl Iterator<Item = &Hop>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.table.range((from, Bound::Unbounded)).map(move |(destination, route)| {
            (destination, route.hops.iter().filter(move |hop| hop.is_fresh(now)))
        })
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 5] {
        let most = |length: fn(&Route) -> usize| self.table.values().map(length).max();
        let hops = most(|route| route.hops.len()).unwrap_or(0);
        let failed = most(|route| route.failed.len()).unwrap_or(0);
        [
            Occupancy::new("routes", self.table.len(), self.destinations_max.max(1)),
            Occupancy::new("routes by age", self.ages.len(), self.table.len()),
            Occupancy::new("next hops of a route", hops, NEXT_HOPS_MAX),
            Occupancy::new("failed hops of a route", failed, FAILED_MAX),
            Occupancy::new("relays judged", self.relays.len(), RELAYS_MAX),
        ]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn change(&mut self, destination: &PeerId, via: &PeerId, change: impl FnOnce(&mut Hop)) {
        let Some(route) = self.table.get_mut(destination) else { return };
        if let Some(hop) = route.hops.iter_mut().find(|hop| hop.via == *via) {
            change(hop);
            sort(&mut route.hops, destination, &self.relays);
        }
    }

    /// Makes a destination the youngest.
    fn touch(&mut self, destination: PeerId, now: Monotonic) {
        let Some(route) = self.table.get_mut(&destination) else { return };
        if now.since(route.confirmed) < AGE_RESOLUTION {
            return;
        }
        self.ages.remove(&(route.confirmed, destination));
        route.confirmed = now;
        self.ages.insert((now, destination));
    }
}

const fn up(score: u32) -> u32 {
    score + SCORE_FULL.saturating_sub(score) / 8
}

const fn down(score: u32) -> u32 {
    score - score / 4
}

/// The way that a new one replaces: one that is gone, else the worst if the new one promises more.
/// One that proved itself is never replaced by one that did not.
fn place_for<'a>(
    hops: &'a mut [Hop],
    new: &Hop,
    now: Monotonic,
    is_up: impl Fn(&PeerId) -> bool,
    rank: impl Fn(&Hop) -> u32,
) -> Option<&'a mut Hop> {
    let gone = hops.iter().position(|hop| !is_up(&hop.via) || !hop.is_fresh(now));
    if let Some(gone) = gone {
        return hops.get_mut(gone);
    }
    let worst = hops.last_mut()?;
    let (new_rank, worst_rank) = (rank(new), rank(worst));
    let better = new_rank > worst_rank || (new_rank == worst_rank && new.hops < worst.hops);
    better.then_some(worst)
}

fn sort(hops: &mut [Hop], destination: &PeerId, relays: &BTreeMap<PeerId, u32>) {
    hops.sort_by_key(|hop| {
        let rank = hop.rank(destination, relays);
        (std::cmp::Reverse(rank), hop.hops, hop.via)
    });
}

impl Router {
    /// Learns a way to a peer from a verified frame.
    pub(super) fn learn_route(&mut self, destination: PeerId, via: PeerId, hops: u8) {
        if destination != self.me {
            let neighbours = &self.neighbours;
            let is_up = |id: &PeerId| neighbours.contains_key(id);
            self.routes.learn(destination, via, hops, self.now.mono, is_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> PeerId {
        PeerId::from_bytes(std::array::from_fn(|i| (n >> (i % 4 * 8)) as u8))
    }

    fn at(secs: u64) -> Monotonic {
        Monotonic::START + Span::from_secs(secs)
    }

    fn ways(routes: &Routes, now: Monotonic) -> Vec<PeerId> {
        routes.hops(&peer(100), now).map(|hop| hop.via).collect()
    }

    #[test]
    fn receipts_and_misses_decide_and_hops_break_ties() {
        let mut routes = Routes::new(10);
        for (via, hops) in [(1, 5), (2, 2), (3, 3)] {
            routes.learn(peer(100), peer(via), hops, at(0), |_| true);
        }
        assert_eq!(ways(&routes, at(0)), [peer(2), peer(3), peer(1)]);
        routes.credit(&peer(100), &peer(1), at(0));
        routes.miss(&peer(100), &peer(2));
        assert_eq!(ways(&routes, at(0)), [peer(1), peer(3), peer(2)]);
        routes.learn(peer(100), peer(4), 1, at(0), |_| true);
        assert_eq!(ways(&routes, at(0)), [peer(1), peer(4), peer(3)], "the worst made room");
        routes.learn(peer(100), peer(5), 9, at(0), |_| true);
        assert_eq!(ways(&routes, at(0)), [peer(1), peer(4), peer(3)], "no better");
        routes.learn(peer(100), peer(6), 9, at(0), |via| *via != peer(1));
        assert_eq!(ways(&routes, at(0)), [peer(4), peer(3), peer(6)], "one was gone");
        routes.learn(peer(100), peer(100), 1, at(0), |_| true);
        assert_eq!(ways(&routes, at(0)), [peer(100), peer(4), peer(3)]);
        routes.refused(&peer(100), &peer(4), RejectReason::NoRoute);
        assert_eq!(ways(&routes, at(0)), [peer(100), peer(3), peer(4)]);
    }

    #[test]
    fn repeated_misses_make_a_way_bad_until_it_is_learned_again() {
        let mut routes = Routes::new(10);
        routes.learn(peer(100), peer(1), 1, at(0), |_| true);
        (0..4).for_each(|_| routes.miss(&peer(100), &peer(1)));
        assert!(routes.is_good(&peer(100), &peer(1), at(0)), "there is none better");
        assert!(routes.hops(&peer(100), at(0)).all(Hop::is_bad));
        routes.doubt(&peer(100));
        routes.learn(peer(100), peer(1), 1, at(1), |_| true);
        assert!(!routes.hops(&peer(100), at(1)).any(Hop::is_bad));
        routes.learn(peer(100), peer(2), 1, at(1), |_| true);
        (0..4).for_each(|_| routes.miss(&peer(100), &peer(1)));
        assert!(!routes.is_good(&peer(100), &peer(1), at(1)));
    }

    #[test]
    fn who_swallows_what_it_is_to_pass_on_is_tried_after_others_for_whomever() {
        let mut routes = Routes::new(10);
        let learn = |routes: &mut Routes, destination| {
            // The first says that it is the nearest.
            let destination = peer(destination);
            routes.learn(destination, peer(1), 1, at(0), |_| true);
            routes.learn(destination, peer(2), 5, at(0), |_| true);
            routes.hops(&destination, at(0)).map(|hop| hop.via).collect::<Vec<_>>()
        };
        for destination in 100..105 {
            assert_eq!(learn(&mut routes, destination)[0], peer(1));
        }
        routes.miss(&peer(100), &peer(1));
        assert_eq!(learn(&mut routes, 101), [peer(2), peer(1)], "also what was learned before");
        (0..100).for_each(|_| routes.miss(&peer(100), &peer(1)));
        assert_eq!(routes.relays[&peer(1)], down(SCORE_FULL), "one destination says no more");
        for destination in 101..105 {
            routes.miss(&peer(destination), &peer(1));
        }
        assert_eq!(learn(&mut routes, 105), [peer(2), peer(1)]);
        assert!(routes.is_good(&peer(105), &peer(1), at(0)), "it is tried, though");
        assert_eq!(learn(&mut routes, 1), [peer(1), peer(2)], "to itself it is the way");
        routes.miss(&peer(2), &peer(2));
        assert_eq!(learn(&mut routes, 105), [peer(2), peer(1)], "that was for itself");
        routes.credit(&peer(105), &peer(1), at(0));
        assert_eq!(learn(&mut routes, 105), [peer(1), peer(2)], "there it proved itself");
        assert_eq!(learn(&mut routes, 106), [peer(2), peer(1)]);
    }

    #[test]
    fn what_relays_did_is_bounded_and_forgotten_in_time() {
        let mut routes = Routes::new(10);
        let miss = |routes: &mut Routes, via| {
            routes.learn(peer(100), peer(via), 1, at(0), |_| false);
            routes.miss(&peer(100), &peer(via));
        };
        routes.credit(&peer(100), &peer(1), at(0));
        assert!(routes.relays.is_empty(), "it is like a new one");
        for destination in 101..105 {
            routes.learn(peer(destination), peer(1), 1, at(0), |_| true);
            routes.miss(&peer(destination), &peer(1));
        }
        (1_000..3_000).for_each(|via| miss(&mut routes, via));
        assert_eq!(routes.relays.len(), RELAYS_MAX);
        assert!(routes.relays.contains_key(&peer(1)), "the worst is remembered");
        let minutes = (0..1_000).take_while(|_| {
            routes.sweep(at(0));
            !routes.relays.is_empty()
        });
        assert!((60..600).contains(&minutes.count()));
    }

    #[test]
    fn unconfirmed_ways_are_forgotten_and_the_table_is_bounded() {
        let mut routes = Routes::new(10);
        routes.learn(peer(100), peer(1), 1, at(0), |_| true);
        assert_eq!(ways(&routes, at(30 * 60 + 1)), []);
        routes.sweep(at(30 * 60 + 2));
        assert_eq!(routes.len(), 0);
        (0..1_000).for_each(|n| routes.learn(peer(n), peer(1), 1, at(u64::from(n)), |_| true));
        assert_eq!((routes.len(), routes.ages.len()), (10, 10));
        routes.credit(&peer(990), &peer(1), at(2_000));
        routes.learn(peer(5_000), peer(1), 1, at(2_001), |_| true);
        assert!(routes.hops(&peer(990), at(2_001)).next().is_some(), "confirmed last");
        assert!(routes.hops(&peer(991), at(2_001)).next().is_none(), "the oldest went");
    }
}
