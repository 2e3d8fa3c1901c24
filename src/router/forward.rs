//! Sending envelopes on, and what becomes of them: local alternatives, rejects, misses.

use super::flights::{Flight, Stage};
use super::{Action, Output, Router, Traffic};
use crate::crypto::short_digest;
use crate::model::PeerId;
use crate::model::limits::NEXT_HOPS_MAX;
use crate::wire::{Envelope, EnvelopeKey, Frame, Header, RejectReason};

impl Router {
    /// Our courier's envelope, for a learned route.
    pub(super) fn on_send(&mut self, envelope: Envelope, elsewhere: bool) {
        let (header, key) = (envelope.header, envelope.key());
        let commitment = header.commitment;
        if self.revealed(&commitment).is_some() {
            return self.output(Output::Receipt { commitment });
        }
        let digest = short_digest(&[&envelope.encoded]);
        let before = self.flights.of_commitment(&commitment);
        let last = before.iter().rev().filter_map(|id| self.flights.get(*id));
        let mut own = last.filter(|flight| elsewhere && flight.arrivals().is_empty());
        let missed = own.find_map(|flight| Some((flight.hop()?, flight.sent())));
        let avoid: Vec<PeerId> = missed.iter().map(|(hop, _)| *hop).collect();
        if let Some((hop, sent)) = missed {
            self.doubt(&hop, sent);
        }
        if let Some(same) = self.flights.copy_of(&commitment, &digest) {
            self.flights.remove(same);
        }
        let flight = Flight::new(header, envelope.attempt, digest, self.me, self.now.mono);
        let id = self.flights.insert(flight, Some(&envelope.encoded));
        match self.send_on(id, &avoid) {
            Ok(hop) => {
                self.output(Output::Departed { commitment });
                let length = envelope.encoded.len();
                self.observe(Action::Originated, &header, key.attempt, None, &[hop], length);
            }
            Err(reason) => {
                self.flights.remove(id);
                self.output(Output::Rejected { commitment, attempt: key.attempt, reason });
            }
        }
    }

    /// Somebody's envelope: for us, or to be passed on.
    pub(super) fn on_envelope(&mut self, from: PeerId, envelope: Envelope) {
        let (header, key) = (envelope.header, envelope.key());
        let length = envelope.encoded.len();
        let digest = short_digest(&[&envelope.encoded]);
        if let Some(id) = self.flights.copy_of(&header.commitment, &digest) {
            return self.on_copy(id, from, length);
        }
        if let Some(preimage) = self.revealed(&header.commitment) {
            // Another attempt got through already: the sender only misses its receipt.
            self.send_control(&from, &Frame::Receipt { preimage });
            return;
        }
        let is_relayed = header.destination != self.me;
        if header.source == self.me || (is_relayed && self.flights.is_forgotten(&digest)) {
            return self.send_back(from, &header, key, RejectReason::Loop, length);
        }
        let avoid = self.tried_before(&header.commitment, key.attempt, &from);
        let mut flight = Flight::new(header, key.attempt, digest, from, self.now.mono);
        flight.arrive(from);
        if header.destination == self.me {
            self.flights.insert(flight, None);
            self.observe(Action::Delivered, &header, key.attempt, Some(from), &[], length);
            return self.output(Output::Deliver { from, envelope });
        }
        let id = self.flights.insert(flight, Some(&envelope.encoded));
        match self.send_on(id, &avoid) {
            Ok(hop) => {
                self.observe(Action::Forwarded, &header, key.attempt, Some(from), &[hop], length);
            }
            Err(reason) => self.give_up(id, reason, length),
        }
    }

    /// Where earlier attempts of an envelope that the same neighbour brought were sent: its source
    /// tries again because they were to no avail, whatever else those next hops achieve. Altered
    /// copies of the same attempt say nothing of that.
    fn tried_before(&self, commitment: &[u8; 32], attempt: u16, from: &PeerId) -> Vec<PeerId> {
        let before = self.flights.of_commitment(commitment);
        let before = before.iter().filter_map(|id| self.flights.get(*id));
        let is_before =
            |flight: &&Flight| flight.attempt < attempt && flight.arrivals().contains(from);
        before.filter(is_before).filter_map(Flight::hop).collect()
    }

    /// An attempt that was here before came again.
    fn on_copy(&mut self, id: u64, from: PeerId, length: usize) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        if let Some(preimage) = flight.preimage {
            self.send_control(&from, &Frame::Receipt { preimage });
            return;
        }
        let (header, key) = (flight.header, flight.key());
        // Ours came back; else whoever brought it gets the receipt too. Only who brought it first
        // waits for what becomes of it: others hear at once, each time.
        let is_other = header.source != self.me
            && (flight.arrive(from) || flight.arrivals().first() != Some(&from));
        if header.destination == self.me {
            return;
        }
        let is_done = flight.stage == Stage::Settled;
        let reason = if is_done && !is_other { RejectReason::NoRoute } else { RejectReason::Loop };
        if is_other || is_done || header.source == self.me {
            self.send_back(from, &header, key, reason, length);
        }
    }

    /// Sends a flight to the best next hop that was not tried; those to avoid come last, and so
    /// do those that fell silent.
    fn send_on(&mut self, id: u64, avoid: &[PeerId]) -> Result<PeerId, RejectReason> {
        let mut reason = RejectReason::NoRoute;
        let frame = self.flights.get(id).and_then(|flight| flight.frame.clone()).ok_or(reason)?;
        for hop in self.next_hops(id, avoid).into_iter().flatten() {
            if self.send_traffic(&hop, frame.clone()) {
                self.flights.depart(id, hop, self.now.mono);
                return Ok(hop);
            }
            reason = RejectReason::Congested;
        }
        Err(reason)
    }

    /// Where a flight may go next, the best first: never where it came from, nor twice to the same.
    fn next_hops(&self, id: u64, avoid: &[PeerId]) -> [Option<PeerId>; NEXT_HOPS_MAX + 1] {
        let mut hops = [None; NEXT_HOPS_MAX + 1];
        let Some(flight) = self.flights.get(id) else { return hops };
        let destination = flight.header.destination;
        let is_open = |hop: &PeerId| {
            self.neighbours.contains_key(hop)
                && !flight.tried.contains(hop)
                && !flight.arrivals().contains(hop)
        };
        let all = || {
            let learned = self.routes.hops(&destination, self.now.mono).map(|hop| hop.via);
            let learned = learned.filter(|via| *via != destination);
            std::iter::once(destination).chain(learned).filter(is_open)
        };
        let is_last = |hop: &PeerId| avoid.contains(hop) || self.is_doubted(hop);
        let first = all().filter(|hop| !is_last(hop));
        let last = all().filter(is_last);
        for (slot, hop) in hops.iter_mut().zip(first.chain(last)) {
            *slot = Some(hop);
        }
        hops
    }

    /// The next hop says that it cannot: try another, else say so ourselves.
    pub(super) fn on_reject(&mut self, from: PeerId, key: &EnvelopeKey, reason: RejectReason) {
        if let Some(id) = self.flights.at_hop(&from, key) {
            // Each altered copy that a next hop passed on goes back for what others did.
            if let Some(flight) = self.flights.get(id)
                && !(flight.has_copies() && reason == RejectReason::Loop)
            {
                self.routes.refused(&flight.header.destination, &from, reason);
            }
            self.try_another(id, reason);
        }
    }

    /// A link is down: what was sent on it is tried elsewhere.
    pub(super) fn on_hop_down(&mut self, hop: &PeerId) {
        for id in self.flights.all_at_hop(hop) {
            self.try_another(id, RejectReason::NoRoute);
        }
    }

    fn try_another(&mut self, id: u64, reason: RejectReason) {
        let Some(flight) = self.flights.get(id) else { return };
        let (header, attempt) = (flight.header, flight.attempt);
        let length = flight.length;
        let previous = flight.arrivals().first().copied();
        if flight.preimage.is_some() || flight.quiet {
            return self.flights.settle(id);
        }
        let another = match self.flights.has_alternative(id) {
            true => self.send_on(id, &[]),
            // There may be a way for the true one: our neighbour need not think less of us.
            false if reason == RejectReason::NoRoute => Err(RejectReason::Loop),
            false => Err(reason),
        };
        match another {
            Ok(hop) => {
                let action = match previous {
                    None => Action::Originated,
                    Some(_) => Action::Forwarded,
                };
                self.observe(action, &header, attempt, previous, &[hop], length);
            }
            // None is left, or its frame was let go for others: it is as the last one said.
            Err(RejectReason::NoRoute) => self.give_up(id, reason, length),
            Err(ours) => self.give_up(id, ours, length),
        }
    }

    /// No next hop is left for a flight.
    fn give_up(&mut self, id: u64, reason: RejectReason, length: usize) {
        let Some(flight) = self.flights.get(id) else { return };
        let (header, key) = (flight.header, flight.key());
        let Some(first) = flight.arrivals().first().copied() else {
            self.flights.settle(id);
            let (commitment, attempt) = (header.commitment, key.attempt);
            return self.output(Output::Rejected { commitment, attempt, reason });
        };
        self.flights.settle(id);
        self.send_back(first, &header, key, reason, length);
    }

    fn send_back(
        &mut self,
        to: PeerId,
        header: &Header,
        key: EnvelopeKey,
        reason: RejectReason,
        length: usize,
    ) {
        self.send_control(&to, &Frame::Reject { key, reason });
        self.observe(Action::Rejected, header, key.attempt, Some(to), &[], length);
    }

    /// Patience with some flights ends: their next hops missed.
    pub(super) fn on_flights_timer(&mut self) {
        while let Some(id) = self.flights.take_due(self.now.mono) {
            if let Some(flight) = self.flights.get(id)
                && let Some(hop) = flight.hop()
            {
                self.routes.miss(&flight.header.destination, &hop);
                let sent = flight.sent();
                self.doubt(&hop, sent);
            }
            self.flights.lapse(id);
        }
    }

    /// The courier gave an envelope up, or has its receipt. Next hops are still judged by whether
    /// their receipts come.
    pub(super) fn on_settled(&mut self, commitment: &[u8; 32]) {
        self.own_floods.settle(commitment);
        for id in self.flights.of_commitment(commitment) {
            let is_ours = |flight: &&mut Flight| flight.arrivals().is_empty();
            if let Some(flight) = self.flights.get_mut(id).filter(is_ours) {
                flight.quiet = true;
                self.flights.release(id);
            }
        }
    }

    /// Tells of an envelope that passed, if anybody wants to know.
    pub(super) fn observe(
        &mut self,
        action: Action,
        header: &Header,
        attempt: u16,
        previous: Option<PeerId>,
        next: &[PeerId],
        bytes: usize,
    ) {
        if self.observed {
            let (source, destination) = (header.source, header.destination);
            let next = next.to_vec();
            let traffic = Traffic { action, source, destination, previous, next, bytes, attempt };
            self.output(Output::Traffic(traffic));
        }
    }
}
