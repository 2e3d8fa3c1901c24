//! The table of envelopes that are on their way, or were a moment ago.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::seen::{Digest16, Seen};
use super::shares::Shares;
use crate::model::limits::{FRAME_BYTES_MAX, NEXT_HOPS_MAX};
use crate::model::{Monotonic, Occupancy, PeerId, SessionId, Span};
use crate::wire::{EnvelopeKey, Header};

/// Envelopes remembered at once: at 20,000 a second with receipts after 100 ms, 2,000 are open; the
/// rest is for late receipts and copies.
pub(super) const FLIGHTS_MAX: usize = 65_536;
/// How long a receipt may take to be passed back.
pub(super) const FLIGHT_LIFETIME: Span = Span::from_secs(60);
/// How long a next hop is waited for.
pub(super) const PATIENCE: Span = Span::from_secs(5);
/// Flights with one commitment that came from one neighbour: the attempts of one envelope. Whoever
/// sends more (forged copies, perhaps) loses its own first.
pub(super) const FLIGHTS_PER_COMMITMENT_MAX: usize = 16;
/// Flights of others with one commitment in all: each further one is compared with all of them.
pub(super) const FLIGHTS_OF_OTHERS_MAX: usize = 64;
/// Attempts of which nothing else is known than that they were here: those that were let go for
/// others with the same commitment. Whoever alters what passes makes any number of them.
pub(super) const FORGOTTEN_MAX: usize = 16_384;
/// Neighbours that brought the same attempt and get its receipt.
const ARRIVALS_MAX: usize = 4;

/// How a flight stands, what can be spared first coming first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Receipted, or sent back.
    Settled,
    /// No receipt came in time; or the envelope is for us, and its receipt was not revealed yet.
    Lapsed,
    /// With a next hop, whose receipt or reject is waited for.
    Flying,
}

/// One attempt to deliver one envelope.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) header: Header,
    pub(super) attempt: u16,
    /// A hash of the whole frame: a forged copy of an attempt is another flight, and does not make
    /// us take the true one for a loop.
    pub(super) digest: Digest16,
    /// Whose share of the table it is: the neighbour it came from first, or we ourselves.
    owner: PeerId,
    /// The neighbours it came from; none if it is ours.
    arrivals: Vec<PeerId>,
    /// The next hops it was sent to, in order. The last is where it is.
    pub(super) tried: Vec<PeerId>,
    /// How often this frame or another that says to be the same attempt of the same envelope was
    /// sent to a next hop. All but one of these frames are altered copies.
    departures: usize,
    /// The frame, while another next hop may be tried.
    pub(super) frame: Option<Bytes>,
    pub(super) stage: Stage,
    /// When it was last sent to a next hop, or else when it began.
    sent: Monotonic,
    /// When its stage ends.
    due: Monotonic,
    /// When all of it ends: some time after it was last sent, so that it crosses no link again
    /// within that.
    expires: Monotonic,
    /// Bytes of the frame.
    pub(super) length: usize,
    /// Its receipt, once it came and was passed back.
    pub(super) preimage: Option<[u8; 32]>,
    /// How many notices came.
    pub(super) notices: u8,
    /// It is ours and the courier does not want to hear of it any more.
    pub(super) quiet: bool,
}

impl Flight {
    pub(super) fn new(
        header: Header,
        attempt: u16,
        digest: Digest16,
        owner: PeerId,
        now: Monotonic,
    ) -> Self {
        let expires = now + FLIGHT_LIFETIME;
        Self {
            header,
            attempt,
            digest,
            owner,
            arrivals: Vec::new(),
            tried: Vec::new(),
            departures: 0,
            frame: None,
            stage: Stage::Lapsed,
            sent: now,
            due: expires,
            expires,
            length: 0,
            preimage: None,
            notices: 0,
            quiet: false,
        }
    }

    pub(super) const fn key(&self) -> EnvelopeKey {
        self.header.key(self.attempt)
    }

    /// Where it is, while it flies, or was last.
    pub(super) fn hop(&self) -> Option<PeerId> {
        self.tried.last().copied()
    }

    /// When it was sent to where it is.
    pub(super) const fn sent(&self) -> Monotonic {
        self.sent
    }

    /// Whether others that say to be the same attempt were sent to a next hop.
    pub(super) const fn has_copies(&self) -> bool {
        self.departures != self.tried.len()
    }

    pub(super) fn arrivals(&self) -> &[PeerId] {
        &self.arrivals
    }

    /// Notes that a neighbour brought it; false if that is known.
    pub(super) fn arrive(&mut self, from: PeerId) -> bool {
        let new = !self.arrivals.contains(&from);
        if new && self.arrivals.len() < ARRIVALS_MAX {
            self.arrivals.push(from);
        }
        new
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Flights {
    /// By number, in order of their beginning.
    flights: BTreeMap<u64, Flight>,
    /// The last number given.
    last: u64,
    /// To find them by receipt.
    by_commitment: BTreeSet<([u8; 32], u64)>,
    /// Those flying, by where they are, to find them by reject and when a link goes down.
    by_hop: BTreeSet<(PeerId, EnvelopeKey, u64)>,
    /// Whoever has most is evicted from first.
    shares: Shares<(Stage, u64)>,
    /// In order of the end of their stage.
    due: BTreeSet<(Monotonic, u64)>,
    /// Those whose frame is held.
    held: BTreeSet<u64>,
    /// Bytes of all frames held.
    held_bytes: usize,
    held_bytes_max: usize,
    /// Attempts that were let go, so that none passes twice.
    forgotten: Seen,
}

impl Flights {
    pub(super) fn new(held_bytes_max: usize) -> Self {
        Self {
            flights: BTreeMap::new(),
            last: 0,
            by_commitment: BTreeSet::new(),
            by_hop: BTreeSet::new(),
            shares: Shares::default(),
            due: BTreeSet::new(),
            held: BTreeSet::new(),
            held_bytes: 0,
            held_bytes_max,
            forgotten: Seen::new(FORGOTTEN_MAX, FLIGHT_LIFETIME),
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Flight> {
        self.flights.get(&id)
    }

    /// For everything but stage and hop, which the table's order depends on.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Flight> {
        self.flights.get_mut(&id)
    }

    /// Takes a new flight, with its frame if there may be a next hop to try.
    pub(super) fn insert(&mut self, mut flight: Flight, frame: Option<&Bytes>) -> u64 {
        // They all have counted the same.
        let departures = self.copies(&flight).next().map_or(0, |(_, copy)| copy.departures);
        flight.departures = departures;
        self.make_room(&flight);
        self.last += 1;
        let id = self.last;
        self.by_commitment.insert((flight.header.commitment, id));
        self.shares.insert(flight.owner, (flight.stage, id));
        self.due.insert((flight.due, id));
        self.flights.insert(id, flight);
        if let Some(frame) = frame {
            self.hold(id, frame);
        }
        id
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.release(id);
        let Some(flight) = self.flights.remove(&id) else { return };
        self.by_commitment.remove(&(flight.header.commitment, id));
        self.shares.remove(flight.owner, &(flight.stage, id));
        self.due.remove(&(flight.due, id));
        if let (Stage::Flying, Some(hop)) = (flight.stage, flight.hop()) {
            self.by_hop.remove(&(hop, flight.key(), id));
        }
    }

    /// It was sent to a next hop.
    pub(super) fn depart(&mut self, id: u64, hop: PeerId, now: Monotonic) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.sent = now;
        flight.expires = now + FLIGHT_LIFETIME;
        self.change_stage(id, Stage::Flying, now + PATIENCE, Some(hop));
        self.count_departure(id);
    }

    /// Whether it may be sent to another next hop than the first. An attempt has as many as there
    /// may be ways, and its altered copies, though each has its first, take of them: each is new to
    /// everybody, so that they would multiply wherever they come by somebody who alters them again.
    /// One without copies may try every way there is.
    pub(super) fn has_alternative(&self, id: u64) -> bool {
        let is_left = |flight: &Flight| flight.departures <= NEXT_HOPS_MAX || !flight.has_copies();
        self.get(id).is_some_and(is_left)
    }

    /// Nothing more is to be done for it but to answer late copies and receipts.
    pub(super) fn settle(&mut self, id: u64) {
        self.end_stage(id, Stage::Settled);
    }

    /// It was waited for long enough.
    pub(super) fn lapse(&mut self, id: u64) {
        self.end_stage(id, Stage::Lapsed);
    }

    /// Lets its frame go: no other next hop will be tried.
    pub(super) fn release(&mut self, id: u64) {
        if self.held.remove(&id)
            && let Some(flight) = self.flights.get_mut(&id)
        {
            self.held_bytes = self.held_bytes.saturating_sub(flight.length);
            flight.frame = None;
        }
    }

    /// All flights with a commitment, in order of their beginning.
    pub(super) fn of_commitment(&self, commitment: &[u8; 32]) -> Vec<u64> {
        self.range_of(commitment).collect()
    }

    /// The flight of exactly this frame.
    pub(super) fn copy_of(&self, commitment: &[u8; 32], digest: &Digest16) -> Option<u64> {
        let is_copy = |id: &u64| self.get(*id).is_some_and(|flight| flight.digest == *digest);
        self.range_of(commitment).find(is_copy)
    }

    /// Whether a frame was here and was let go for others with its commitment.
    pub(super) fn is_forgotten(&self, digest: &Digest16) -> bool {
        self.forgotten.contains(digest)
    }

    /// The receipt of a commitment, if it came.
    pub(super) fn preimage(&self, commitment: &[u8; 32]) -> Option<[u8; 32]> {
        self.range_of(commitment).find_map(|id| self.get(id)?.preimage)
    }

    /// The attempt that is with this next hop.
    pub(super) fn at_hop(&self, hop: &PeerId, key: &EnvelopeKey) -> Option<u64> {
        let range = (*hop, *key, 0)..=(*hop, *key, u64::MAX);
        self.by_hop.range(range).next().map(|(_, _, id)| *id)
    }

    /// Everything that is with this next hop.
    pub(super) fn all_at_hop(&self, hop: &PeerId) -> Vec<u64> {
        let source = PeerId::from_bytes([0; 32]);
        let first = EnvelopeKey { source, session: SessionId(0), counter: 0, attempt: 0 };
        let at = self.by_hop.range((*hop, first, 0)..).take_while(|(at, _, _)| at == hop);
        at.map(|(_, _, id)| *id).collect()
    }

    /// When the first stage ends.
    pub(super) fn next_due(&self) -> Option<Monotonic> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A flight whose stage is over; one whose time is over is taken out and not returned.
    pub(super) fn take_due(&mut self, now: Monotonic) -> Option<u64> {
        self.forgotten.sweep(now);
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            if self.get(id).is_some_and(|flight| flight.expires > now) {
                return Some(id);
            }
            self.remove(id);
        }
        None
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 7] {
        let flights = self.flights.len();
        [
            Occupancy::new("relayed flights", flights, FLIGHTS_MAX),
            Occupancy::new("flights forgotten", self.forgotten.len(), FORGOTTEN_MAX),
            Occupancy::new("flights by commitment", self.by_commitment.len(), flights),
            Occupancy::new("flights by next hop", self.by_hop.len(), flights),
            Occupancy::new("flights by deadline", self.due.len(), flights),
            Occupancy::new("frames of flights", self.held.len(), flights),
            // One frame may always be held, however little room was configured.
            Occupancy::new(
                "relay bytes",
                self.held_bytes,
                self.held_bytes_max.max(FRAME_BYTES_MAX),
            ),
        ]
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        assert_eq!(self.flights.len(), self.by_commitment.len());
        assert_eq!(self.flights.len(), self.due.len());
        let held = self.held.iter().filter_map(|id| self.get(*id)?.frame.as_ref());
        assert_eq!(held.map(Bytes::len).sum::<usize>(), self.held_bytes);
        let flying = self.flights.values().filter(|flight| flight.stage == Stage::Flying).count();
        assert_eq!(flying, self.by_hop.len());
        (self.flights.len(), self.held_bytes)
    }

    /// Counts a next hop for a flight and its copies, and lets the frames go that may go nowhere
    /// any more.
    fn count_departure(&mut self, id: u64) {
        let Some(flight) = self.get(id) else { return };
        // There are no others but where somebody alters, and an empty list costs nothing.
        let others = self.copies(flight).map(|(copy, _)| copy).filter(|copy| *copy != id);
        let others: Vec<u64> = others.collect();
        for copy in others.into_iter().chain([id]) {
            if let Some(flight) = self.flights.get_mut(&copy) {
                flight.departures += 1;
            }
            if !self.has_alternative(copy) {
                self.release(copy);
            }
        }
    }

    /// All flights that say to be this attempt of the envelope with this commitment, itself
    /// included once it is in the table. Of ours we know that it is the true one: nobody else's
    /// take anything of it. Others share whoever brought them: if each neighbour's had ways of
    /// their own, they would still multiply where many alter.
    fn copies(&self, of: &Flight) -> impl Iterator<Item = (u64, &Flight)> {
        let (is_ours, attempt) = (of.arrivals.is_empty(), of.attempt);
        let flights = self.range_of(&of.header.commitment);
        let flights = flights.filter_map(|id| Some((id, self.get(id)?)));
        flights.filter(move |(_, flight)| {
            flight.attempt == attempt && flight.arrivals.is_empty() == is_ours
        })
    }

    fn range_of(&self, commitment: &[u8; 32]) -> impl Iterator<Item = u64> {
        let range = (*commitment, 0)..=(*commitment, u64::MAX);
        self.by_commitment.range(range).map(|(_, id)| *id)
    }

    fn hold(&mut self, id: u64, frame: &Bytes) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        (flight.frame, flight.length) = (Some(frame.clone()), frame.len());
        self.held.insert(id);
        self.held_bytes += frame.len();
        self.make_room_beside(Some(id));
    }

    /// Holds so many bytes at most.
    pub(super) fn shrink(&mut self, held_bytes_max: usize) {
        self.held_bytes_max = held_bytes_max;
        self.make_room_beside(None);
    }

    /// The oldest are let go: they only lose their chance of another next hop.
    fn make_room_beside(&mut self, newest: Option<u64>) {
        while self.held_bytes > self.held_bytes_max {
            let Some(oldest) = self.held.iter().find(|held| Some(**held) != newest).copied() else {
                return;
            };
            self.release(oldest);
        }
    }

    fn end_stage(&mut self, id: u64, stage: Stage) {
        self.release(id);
        let Some(expires) = self.get(id).map(|flight| flight.expires) else { return };
        self.change_stage(id, stage, expires, None);
    }

    fn change_stage(&mut self, id: u64, stage: Stage, due: Monotonic, hop: Option<PeerId>) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let key = flight.key();
        if let (Stage::Flying, Some(hop)) = (flight.stage, flight.hop()) {
            self.by_hop.remove(&(hop, key, id));
        }
        if let Some(hop) = hop {
            flight.tried.push(hop);
            self.by_hop.insert((hop, key, id));
        }
        if flight.stage != stage {
            self.shares.remove(flight.owner, &(flight.stage, id));
            self.shares.insert(flight.owner, (stage, id));
            flight.stage = stage;
        }
        self.due.remove(&(flight.due, id));
        flight.due = due.min(flight.expires);
        self.due.insert((flight.due, id));
    }

    /// Makes room for one more: first what was sent with the same commitment, then what the
    /// greediest owner can spare most.
    fn make_room(&mut self, new: &Flight) {
        while let Some(id) = self.spared_for(new) {
            if let Some(flight) = self.get(id) {
                let digest = flight.digest;
                self.forgotten.insert(new.sent, digest);
            }
            self.remove(id);
        }
        while self.flights.len() >= FLIGHTS_MAX {
            let Some((_, _, (_, id))) = self.shares.greediest() else { return };
            self.remove(id);
        }
    }

    /// What has to go of those with the commitment of a new one, if any: the oldest of its owner;
    /// or of others' what the owner that has most can spare most. Our own are not pushed out.
    fn spared_for(&self, new: &Flight) -> Option<u64> {
        if self.range_of(&new.header.commitment).count() < FLIGHTS_PER_COMMITMENT_MAX {
            return None;
        }
        let mut of_others = Vec::new();
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::from([(new.owner, 1)]);
        let mut oldest = None;
        for id in self.range_of(&new.header.commitment) {
            let Some(flight) = self.get(id) else { continue };
            *counts.entry(flight.owner).or_default() += 1;
            if flight.owner == new.owner {
                oldest = oldest.or(Some(id));
            }
            if !flight.arrivals.is_empty() {
                of_others.push((flight.owner, flight.stage, id));
            }
        }
        let count = |owner: &PeerId| counts.get(owner).copied().unwrap_or(0);
        if count(&new.owner) > FLIGHTS_PER_COMMITMENT_MAX {
            return oldest;
        }
        if new.arrivals.is_empty() || of_others.len() < FLIGHTS_OF_OTHERS_MAX {
            return None;
        }
        let spared =
            of_others.iter().min_by_key(|(owner, stage, id)| (Reverse(count(owner)), *stage, *id));
        spared.map(|(_, _, id)| *id)
    }
}
