//! What comes back for an envelope: its receipt, or its destination's notice.
//!
//! A receipt proves itself: whoever knows the preimage of the commitment has it from the
//! destination. So it is believed from anybody, but credited only to the next hop that was asked.

use super::flights::Stage;
use super::{Output, Router};
use crate::crypto::{Domain, commitment_of, verify};
use crate::model::{FairBucket, Monotonic, PeerId};
use crate::wire::{Frame, Header, Notice, NoticeKind};

/// Notices that we sign in a second, shared among the neighbours that brought what they are about:
/// junk asks for notices as well.
const NOTICES_PER_SECOND: u32 = 50;
/// Notices that are passed back for one attempt. Relays do not verify them on a route, since only
/// the way itself could forge them.
const NOTICES_PASSED_MAX: u8 = 2;
/// Neighbours that bring the receipt of one flood and are taken for a way to its destination.
const RECEIPTS_LEARNED_MAX: u8 = 4;
/// How far a destination is that only a flood's receipt tells of: farther than anybody says.
const HOPS_UNKNOWN: u8 = 64;
/// Floods of different sources with one commitment (all but one are copies) that a notice is tried
/// with.
const COPIES_MAX: usize = 4;

/// The pace at which we sign notices.
pub(super) const fn notice_budget(now: Monotonic) -> FairBucket {
    FairBucket::new(NOTICES_PER_SECOND, now)
}

impl Router {
    /// The receipt of an envelope that passed here lately, if it came.
    pub(super) fn revealed(&self, commitment: &[u8; 32]) -> Option<[u8; 32]> {
        self.flights.preimage(commitment).or_else(|| self.flood_log.preimage(commitment))
    }

    /// A receipt came: credit whoever brought it, pass it back, tell the courier.
    pub(super) fn on_receipt(&mut self, from: PeerId, preimage: [u8; 32]) {
        let commitment = commitment_of(&preimage);
        let told = self.revealed(&commitment).is_some();
        let mut back: Vec<PeerId> = Vec::new();
        let mut ours = false;
        // All attempts have one receipt. If one of them was flooded, everybody brings it, whoever
        // dropped another attempt too: then it speaks for nobody, and no receipt in time counts.
        let was_flooded = self.flood_log.of_mut(commitment).next().is_some();
        for id in self.flights.of_commitment(&commitment) {
            let Some(flight) = self.flights.get_mut(id) else { continue };
            if flight.header.destination == self.me {
                continue;
            }
            if flight.preimage.is_none() {
                flight.preimage = Some(preimage);
                ours |= flight.arrivals().is_empty() && !flight.quiet;
                back.extend(flight.arrivals());
            }
            let destination = flight.header.destination;
            let credited =
                !was_flooded && flight.stage != Stage::Settled && flight.hop() == Some(from);
            // Another next hop keeps flying until its own receipt comes, or counts as a miss.
            let done = credited || flight.stage != Stage::Flying;
            if credited {
                self.routes.credit(&destination, &from, self.now.mono);
            }
            if done {
                self.flights.settle(id);
            } else {
                self.flights.release(id);
            }
        }
        let mut flooded = false;
        let mut reached: Vec<PeerId> = Vec::new();
        for logged in self.flood_log.of_mut(commitment) {
            let destination = logged.header.destination;
            if destination == self.me {
                continue;
            }
            if logged.preimage.is_none() {
                logged.preimage = Some(preimage);
                flooded = true;
                ours |= logged.header.source == self.me;
            }
            if logged.receipts < RECEIPTS_LEARNED_MAX {
                logged.receipts += 1;
                reached.push(destination);
            }
        }
        for destination in reached {
            self.learn_by_receipt(destination, from);
        }
        self.pass_back(&Frame::Receipt { preimage }, flooded, &mut back, Some(from));
        if ours && !told {
            self.own_floods.settle(&commitment);
            self.output(Output::Receipt { commitment });
        }
    }

    /// A flood reached its destination, and its receipt came by this neighbour: there is a way.
    /// Finds are answered on the quickest ways, which may lead through whoever only pretends to be
    /// near; this is how others come to be known.
    fn learn_by_receipt(&mut self, destination: PeerId, from: PeerId) {
        if !self.routes.has(&destination, &from) {
            self.learn_route(destination, from, HOPS_UNKNOWN);
        }
    }

    /// Our courier stored an envelope: its receipt goes back every way it came.
    pub(super) fn on_reveal(&mut self, preimage: [u8; 32]) {
        let commitment = commitment_of(&preimage);
        let mut back: Vec<PeerId> = Vec::new();
        for id in self.flights.of_commitment(&commitment) {
            let Some(flight) = self.flights.get_mut(id) else { continue };
            if flight.header.destination == self.me {
                flight.preimage = Some(preimage);
                back.extend(flight.arrivals());
                self.flights.settle(id);
            }
        }
        let mut flooded = false;
        for logged in self.flood_log.of_mut(commitment) {
            if logged.header.destination == self.me {
                logged.preimage = Some(preimage);
                flooded = true;
            }
        }
        self.pass_back(&Frame::Receipt { preimage }, flooded, &mut back, None);
    }

    /// Our courier could not take an envelope.
    pub(super) fn on_notify(&mut self, kind: NoticeKind, header: &Header) {
        let commitment = header.commitment;
        let mut back: Vec<PeerId> = Vec::new();
        for id in self.flights.of_commitment(&commitment) {
            if let Some(flight) = self.flights.get(id).filter(|flight| flight.header == *header) {
                back.extend(flight.arrivals());
            }
        }
        let flooded = self.flood_log.of_mut(commitment).any(|logged| logged.header == *header);
        // All floods share one part: whoever is behind them, everybody brings them.
        let via = back.first().copied().unwrap_or(self.me);
        if !self.notices.take(via, self.now.mono) {
            return;
        }
        let signature = self.identity.sign(Domain::Notice, &[&Notice::to_sign(kind, header)]);
        let notice = Notice { kind, commitment, signature };
        self.pass_back(&Frame::Notice(notice), flooded, &mut back, None);
    }

    /// A notice came: pass it back; if it is for us, verify it and tell the courier.
    pub(super) fn on_notice(&mut self, from: PeerId, notice: &Notice) {
        let commitment = notice.commitment;
        let mut back: Vec<PeerId> = Vec::new();
        let mut ours: Option<Header> = None;
        for id in self.flights.of_commitment(&commitment) {
            let Some(flight) = self.flights.get_mut(id) else { continue };
            if !flight.tried.contains(&from) || flight.notices >= NOTICES_PASSED_MAX {
                continue;
            }
            flight.notices += 1;
            back.extend(flight.arrivals());
            if flight.arrivals().is_empty() && !flight.quiet {
                ours = Some(flight.header);
            }
        }
        let flooded = self.flooded_header(notice);
        let verified = match flooded.or(ours) {
            Some(header) => is_notice(notice, &header),
            None => true,
        };
        let own = ours.is_some() || flooded.is_some_and(|header| header.source == self.me);
        if !verified {
            return;
        }
        self.pass_back(&Frame::Notice(*notice), flooded.is_some(), &mut back, Some(from));
        if own {
            self.output(Output::Notice { commitment, kind: notice.kind });
        }
    }

    /// The header of a flooded envelope that this notice may be of. Since everybody passes on
    /// flooded notices, everybody verifies them, as long as nothing else needs verification.
    fn flooded_header(&mut self, notice: &Notice) -> Option<Header> {
        for logged in self.flood_log.of_mut(notice.commitment).take(COPIES_MAX) {
            if logged.notices >= NOTICES_PASSED_MAX || !self.verifier.take_spare(self.now.mono) {
                continue;
            }
            if is_notice(notice, &logged.header) {
                logged.notices += 1;
                return Some(logged.header);
            }
        }
        None
    }

    /// Sends what came back to everybody who waits for it, once each: all neighbours, if the
    /// envelope was flooded.
    fn pass_back(
        &mut self,
        frame: &Frame,
        flooded: bool,
        back: &mut Vec<PeerId>,
        from: Option<PeerId>,
    ) {
        if flooded {
            return self.send_control_to_all(from, frame);
        }
        back.sort_unstable();
        back.dedup();
        for neighbour in back.iter().filter(|neighbour| Some(**neighbour) != from) {
            self.send_control(neighbour, frame);
        }
    }
}

fn is_notice(notice: &Notice, header: &Header) -> bool {
    let signed = Notice::to_sign(notice.kind, header);
    verify(&header.destination, Domain::Notice, &[&signed], &notice.signature)
}
