//! What crosses every link of the network: who may flood, and what is done with flooded envelopes.
//!
//! Finds, the answers to them and floods take the same way in, and the order of its checks is what
//! keeps liars cheap: form and expiry; the neighbour's allowance, before anything costs much;
//! whether it was here before; whether its origin has spent its allowance; then a place in the
//! queue for verification, shared fairly among neighbours. Only what is verified is remembered
//! (else a forged copy would suppress the true one) and charged to its origin (else a spoofer would
//! spend the victim's allowance).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::budget::{Class, next_of};
use super::directory::is_signed;
use super::find::Answer;
use super::outflow::Rank;
use super::seen::Digest16;
use super::timers::Timer;
use super::{Action, Output, Router};
use crate::crypto::{Domain, short_digest, verify};
use crate::model::limits::{CLOCK_SKEW_MAX, FLOOD_LIFETIME};
use crate::model::{Bucket, Limits, Monotonic, Occupancy, PeerId, Span, Timestamp};
use crate::wire::{Envelope, Find, Flood, Frame, Header, ParsedRecord, RejectReason};

/// Finds and floods of one neighbour that wait for their verification, and as many answers.
const WAITING_PER_LINK_MAX: usize = 32;
/// Of so many verifications one goes to what matters less, though what matters more waits: who is
/// known is only claimed before the verification.
const LESSER_EVERY: u32 = 4;
/// Envelopes of ours that wait to be flooded.
const OWN_FLOODS_MAX: usize = 64;
/// Tokens that our own allowance is smaller than what others grant us: two floods may come closer
/// together than they left.
const OWN_BURST_MARGIN: u32 = 2;
/// When no link takes a fragment, it is tried again after this.
const CONGESTED_PAUSE: Span = Span::from_millis(250);
/// Flooded envelopes whose receipts are passed on. 200 verifications a second fill this in 80
/// seconds, and only if all go to floods.
const LOG_MAX: usize = 16_384;
/// How long receipts of a flood are passed on: as long as its last fragment may be on its way.
const LOG_LIFETIME: Span = Span::from_secs(20 * 60);

/// Something that is flooded, and whose form was checked.
#[derive(Debug)]
pub(super) enum Flooded {
    /// A find, with its origin's record.
    Find(Box<Find>, Box<ParsedRecord>),
    /// An envelope, or a fragment of one.
    Flood(Box<Flood>),
}

/// A flood that is not known to be seen before.
#[derive(Debug)]
struct Admitted {
    what: Flooded,
    digest: Digest16,
}

impl Flooded {
    fn origin(&self) -> PeerId {
        match self {
            Self::Find(_, record) => record.record.peer,
            Self::Flood(flood) => flood.header.source,
        }
    }
}

fn digest_of(what: &Flooded) -> Digest16 {
    match what {
        Flooded::Find(find, _) => find_digest(&find.signed),
        Flooded::Flood(flood) => flood_digest(&flood.signed),
    }
}

/// What a find is remembered by: what was signed, not what relays may change.
pub(super) fn find_digest(signed: &[u8]) -> Digest16 {
    short_digest(&[b"find\0", signed])
}

fn flood_digest(signed: &[u8]) -> Digest16 {
    short_digest(&[b"flood\0", signed])
}

/// What waits for its verification.
#[derive(Debug)]
enum Waiting {
    Flooded(Admitted),
    Answer(Answer),
}

/// The queue for verification.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Verifications in all.
    budget: Bucket,
    /// Second signatures of what was taken, of one at most: paid for before the next is.
    owed: u32,
    /// Floods whose claimed origin is known by receipts, to the operator, or a neighbour; answers
    /// to our own finds.
    known: Class<Waiting>,
    /// Answers to the finds of others, which were verified when they passed.
    answers: Class<Waiting>,
    /// All others.
    unknown: Class<Waiting>,
}

impl Verifier {
    pub(super) fn new(limits: &Limits, now: Monotonic) -> Self {
        Self {
            budget: Self::budget(limits, now),
            owed: 0,
            known: Class::new(LESSER_EVERY),
            answers: Class::new(LESSER_EVERY),
            unknown: Class::last(),
        }
    }

    pub(super) const fn budget(limits: &Limits, now: Monotonic) -> Bucket {
        let rate = limits.verifications_per_second;
        Bucket::new(rate, rate, now)
    }

    /// Keeps to another budget.
    pub(super) const fn pace(&mut self, budget: Bucket) {
        self.budget = budget;
    }

    /// Charges the second signature of what was taken.
    pub(super) const fn owe(&mut self) {
        self.owed = self.owed.saturating_add(1);
    }

    /// Whether there is a verification left that nobody waits for.
    pub(super) fn take_spare(&mut self, now: Monotonic) -> bool {
        self.is_empty() && self.take(now)
    }

    fn take(&mut self, now: Monotonic) -> bool {
        while self.owed > 0 && self.budget.take(now) {
            self.owed -= 1;
        }
        self.owed == 0 && self.budget.take(now)
    }

    /// Forgets what a neighbour sent.
    pub(super) fn remove(&mut self, neighbour: &PeerId) {
        for class in [&mut self.known, &mut self.answers, &mut self.unknown] {
            class.lanes.remove(neighbour);
        }
    }

    /// Has something wait, in the class it is of, unless the neighbour has too much waiting.
    fn push(&mut self, from: PeerId, what: Waiting, known: bool) {
        let is_full = |waiting: usize| waiting >= WAITING_PER_LINK_MAX;
        let (is_full, class) = match what {
            _ if known => {
                let is_full = is_full(self.waiting(&from));
                (is_full && self.unknown.lanes.pop_of(&from).is_none(), &mut self.known)
            }
            Waiting::Answer(_) => (is_full(self.answers.lanes.count(&from)), &mut self.answers),
            Waiting::Flooded(_) => (is_full(self.waiting(&from)), &mut self.unknown),
        };
        if !is_full {
            class.lanes.push(from, what);
        }
    }

    fn pop(&mut self) -> Option<(PeerId, Waiting)> {
        next_of([&mut self.known, &mut self.answers, &mut self.unknown])
    }

    fn is_empty(&self) -> bool {
        [&self.known, &self.answers, &self.unknown].iter().all(|class| class.lanes.is_empty())
    }

    /// With so many links at most.
    pub(super) fn occupancy(&self, links_max: usize) -> [Occupancy; 3] {
        let limit = links_max.saturating_mul(WAITING_PER_LINK_MAX);
        let waiting = self.known.lanes.len() + self.unknown.lanes.len();
        [
            Occupancy::new("floods to verify", waiting, limit),
            Occupancy::new("answers to verify", self.answers.lanes.len(), limit),
            Occupancy::new("verifications owed", self.owed as usize, 1),
        ]
    }

    /// How many of a neighbour wait, answers to others' finds aside.
    pub(super) fn waiting(&self, neighbour: &PeerId) -> usize {
        self.known.lanes.count(neighbour) + self.unknown.lanes.count(neighbour)
    }
}

/// An envelope's place in the log: its commitment and its source.
type LogKey = ([u8; 32], PeerId);

/// The envelopes that were flooded through here: their receipts flood back.
#[derive(Debug, Default)]
pub(super) struct FloodLog {
    entries: BTreeMap<LogKey, Logged>,
    /// In order of time.
    order: VecDeque<(Monotonic, LogKey)>,
}

/// A flooded envelope.
#[derive(Debug)]
pub(super) struct Logged {
    /// Its header: notices are verified with it.
    pub(super) header: Header,
    /// Its receipt, once it came.
    pub(super) preimage: Option<[u8; 32]>,
    /// How many neighbours brought its receipt.
    pub(super) receipts: u8,
    /// How many notices came.
    pub(super) notices: u8,
}

impl FloodLog {
    fn insert(&mut self, header: Header, now: Monotonic) {
        let key = (header.commitment, header.source);
        if self.entries.contains_key(&key) {
            return;
        }
        self.entries.insert(key, Logged { header, preimage: None, receipts: 0, notices: 0 });
        self.order.push_back((now, key));
        while self.order.len() > LOG_MAX {
            self.forget_oldest();
        }
    }

    /// The envelopes with this commitment: one, unless somebody copied it.
    pub(super) fn of_mut(&mut self, commitment: [u8; 32]) -> impl Iterator<Item = &mut Logged> {
        let (first, last) = (PeerId::from_bytes([0; 32]), PeerId::from_bytes([255; 32]));
        let logged = self.entries.range_mut((commitment, first)..=(commitment, last));
        logged.map(|(_, logged)| logged)
    }

    /// The receipt of an envelope, if it came.
    pub(super) fn preimage(&self, commitment: &[u8; 32]) -> Option<[u8; 32]> {
        let (first, last) = (PeerId::from_bytes([0; 32]), PeerId::from_bytes([255; 32]));
        let mut logged = self.entries.range((*commitment, first)..=(*commitment, last));
        logged.find_map(|(_, logged)| logged.preimage)
    }

    pub(super) fn sweep(&mut self, now: Monotonic) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > LOG_LIFETIME) {
            self.forget_oldest();
        }
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 2] {
        [
            Occupancy::new("flooded envelopes", self.entries.len(), LOG_MAX),
            Occupancy::new("flooded envelopes in order", self.order.len(), self.entries.len()),
        ]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.entries.remove(&key);
        }
    }
}

/// Our own floods that wait for their turn.
#[derive(Debug)]
pub(super) struct OwnFloods {
    /// What others grant us as an origin, for finds and floods together.
    bucket: Bucket,
    queue: VecDeque<OwnFlood>,
    /// Whether a find goes next, if both wait.
    find_next: bool,
}

/// An envelope of ours to be flooded.
#[derive(Debug)]
struct OwnFlood {
    envelope: Envelope,
    /// Its fragments as signed, once the first is on its way: their expiry counts from then.
    signed: Vec<Bytes>,
    /// The fragment to go next.
    next: usize,
    /// How many went.
    sent: usize,
}

impl OwnFloods {
    pub(super) fn new(limits: &Limits, now: Monotonic) -> Self {
        Self { bucket: Self::budget(limits, now), queue: VecDeque::new(), find_next: true }
    }

    pub(super) fn budget(limits: &Limits, now: Monotonic) -> Bucket {
        let burst = limits.origin_floods_burst.saturating_sub(OWN_BURST_MARGIN).max(1);
        Bucket::new(limits.origin_floods_per_second, burst, now)
    }

    /// Keeps to another budget.
    pub(super) const fn pace(&mut self, budget: Bucket) {
        self.bucket = budget;
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("own floods", self.queue.len(), OWN_FLOODS_MAX)
    }

    /// Nothing is left to do for an envelope.
    pub(super) fn settle(&mut self, commitment: &[u8; 32]) {
        self.queue.retain(|own| own.envelope.header.commitment != *commitment);
    }
}

impl Router {
    /// A find came: the checks before its verification.
    pub(super) fn on_find(&mut self, from: PeerId, find: Find) {
        if !self.may_flood(&from, find.expires) {
            return;
        }
        if let Ok(record) = self.read_record(&find.record)
            && record.record.peer != self.me
        {
            self.admit(from, Flooded::Find(Box::new(find), Box::new(record)));
        }
    }

    /// A flooded envelope came: the checks before its verification.
    pub(super) fn on_flood(&mut self, from: PeerId, flood: Flood) {
        if self.may_flood(&from, flood.expires) && flood.header.source != self.me {
            self.admit(from, Flooded::Flood(Box::new(flood)));
        }
    }

    /// Expiry and the neighbour's allowance.
    fn may_flood(&mut self, from: &PeerId, expires: Timestamp) -> bool {
        let (now, wall) = (self.now.mono, self.now.wall);
        expires > wall
            && expires <= wall + FLOOD_LIFETIME + CLOCK_SKEW_MAX
            && self.neighbours.get_mut(from).is_some_and(|n| n.floods.take(now))
    }

    fn admit(&mut self, from: PeerId, what: Flooded) {
        let digest = digest_of(&what);
        if self.seen.contains(&digest) {
            return self.on_second_copy(from, &what);
        }
        // It would be verified for nothing. Only its origin's own can have spent what it has.
        if self.origins.is_spent(&what.origin(), self.now.mono) {
            return;
        }
        if self.verifier.take_spare(self.now.mono) {
            return self.verify_flooded(from, Admitted { what, digest });
        }
        let known = self.is_kept(&what.origin());
        self.verifier.push(from, Waiting::Flooded(Admitted { what, digest }), known);
        self.run_verifier();
    }

    /// An answer that is waited for, and has signatures to verify.
    pub(super) fn admit_answer(&mut self, from: PeerId, answer: Answer, is_ours: bool) {
        if self.verifier.take_spare(self.now.mono) {
            return self.on_answer(from, answer);
        }
        self.verifier.push(from, Waiting::Answer(answer), is_ours);
        self.run_verifier();
    }

    /// Verifies what waits, as far as the budget goes.
    pub(super) fn run_verifier(&mut self) {
        while !self.verifier.is_empty() {
            let now = self.now.mono;
            if !self.verifier.take(now) {
                self.timers.set(Timer::Verify, self.verifier.budget.ready_at(now));
                return;
            }
            match self.verifier.pop() {
                Some((from, Waiting::Flooded(admitted))) => self.verify_flooded(from, admitted),
                Some((from, Waiting::Answer(answer))) => self.on_answer(from, answer),
                None => return,
            }
        }
    }

    /// Verify, then remember, then charge.
    fn verify_flooded(&mut self, from: PeerId, admitted: Admitted) {
        let Admitted { what, digest } = admitted;
        if self.seen.contains(&digest) {
            return self.on_second_copy(from, &what);
        }
        if !self.is_verified(&what) {
            return self.on_forgery(from, "finds or floods with signatures that do not hold");
        }
        self.seen.insert(self.now.mono, digest);
        if !self.origins.take(what.origin(), self.now.mono) {
            return;
        }
        match what {
            Flooded::Find(find, record) => self.on_verified_find(from, &find, *record),
            Flooded::Flood(flood) => self.on_verified_flood(from, &flood),
        }
    }

    /// Whether all signatures in it hold. Its record must hold too, though its origin signed the
    /// find around it: it is passed on.
    fn is_verified(&mut self, what: &Flooded) -> bool {
        match what {
            Flooded::Find(find, record) => {
                if !self.is_held(record) {
                    self.verifier.owe();
                    if !is_signed(record) {
                        return false;
                    }
                }
                verify(&record.record.peer, Domain::Find, &[&find.signed], &find.signature)
            }
            Flooded::Flood(flood) => {
                verify(&flood.header.source, Domain::Flood, &[&flood.signed], &flood.signature)
            }
        }
    }

    fn on_second_copy(&mut self, from: PeerId, what: &Flooded) {
        if let Flooded::Find(find, record) = what {
            self.on_find_again(from, find, &record.record.peer);
        }
    }

    fn on_verified_flood(&mut self, from: PeerId, flood: &Flood) {
        let header = flood.header;
        if let Some(preimage) = self.revealed(&header.commitment) {
            // It was stored already: the receipt got lost on its way, not the envelope.
            self.send_control(&from, &Frame::Receipt { preimage });
            return;
        }
        self.flood_log.insert(header, self.now.mono);
        if header.destination != self.me {
            let rank = self.rank_of(&header.source, from);
            let to = &header.destination;
            let next = self.flood_to_all(Some(from), rank, to, &flood.encoded);
            let bytes = flood.encoded.len();
            self.observe(Action::Flooded, &header, flood.attempt, Some(from), &next, bytes);
            return;
        }
        if let Some(envelope) = self.reassembly.add(flood, self.now.mono, &self.known) {
            let (attempt, bytes) = (envelope.attempt, envelope.encoded.len());
            self.observe(Action::Delivered, &header, attempt, Some(from), &[], bytes);
            self.output(Output::Deliver { from, envelope });
        }
    }

    /// Our courier wants an envelope flooded. A newer attempt takes the place of an older one, and
    /// goes on with the fragment that the older one came to: those of all attempts fit together.
    pub(super) fn on_own_flood(&mut self, envelope: Envelope) {
        let (commitment, attempt) = (envelope.header.commitment, envelope.attempt);
        if self.revealed(&commitment).is_some() {
            return self.output(Output::Receipt { commitment });
        }
        if self.neighbours.is_empty() || envelope.tail.is_empty() {
            let reason = RejectReason::NoRoute;
            return self.output(Output::Rejected { commitment, attempt, reason });
        }
        self.flood_log.insert(envelope.header, self.now.mono);
        let queue = &mut self.own_floods.queue;
        let full = queue.len() >= OWN_FLOODS_MAX;
        match queue.iter_mut().find(|own| own.envelope.header.commitment == commitment) {
            Some(own) => {
                let next = own.next;
                *own = OwnFlood { envelope, signed: Vec::new(), next, sent: 0 };
            }
            None if !full => {
                queue.push_back(OwnFlood { envelope, signed: Vec::new(), next: 0, sent: 0 });
            }
            None => {
                let reason = RejectReason::Congested;
                return self.output(Output::Rejected { commitment, attempt, reason });
            }
        }
        self.run_own_floods();
    }

    /// Lets our finds and floods go, as far as our allowance goes.
    pub(super) fn run_own_floods(&mut self) {
        loop {
            self.drop_void_searches();
            let (finds, floods) = (self.finds.has_waiting(), !self.own_floods.queue.is_empty());
            if !finds && !floods {
                return;
            }
            if self.neighbours.is_empty() {
                return self.give_up_own_floods();
            }
            let now = self.now.mono;
            if !self.own_floods.bucket.take(now) {
                self.timers.set(Timer::OwnFloods, self.own_floods.bucket.ready_at(now));
                return;
            }
            let find = finds && (self.own_floods.find_next || !floods);
            self.own_floods.find_next = !find;
            if find {
                self.send_find();
            } else if !self.send_fragment() {
                self.timers.set(Timer::OwnFloods, now + CONGESTED_PAUSE);
                return;
            }
        }
    }

    /// The last link is down: nothing of this will leave.
    fn give_up_own_floods(&mut self) {
        for own in std::mem::take(&mut self.own_floods.queue) {
            let (commitment, attempt) = (own.envelope.header.commitment, own.envelope.attempt);
            let reason = RejectReason::NoRoute;
            self.output(Output::Rejected { commitment, attempt, reason });
        }
        self.give_up_searches();
    }

    /// Sends the next fragment of ours; false if no link took it.
    fn send_fragment(&mut self) -> bool {
        let Some(mut own) = self.own_floods.queue.pop_front() else { return true };
        if own.signed.is_empty() {
            own.signed = Flood::to_sign(&own.envelope, self.now.wall + FLOOD_LIFETIME);
        }
        let index = own.next % own.signed.len().max(1);
        let Some(signed) = own.signed.get(index) else { return true };
        let signature = self.identity.sign(Domain::Flood, &[signed]);
        let frame = Flood::encode(signed, &signature);
        let destination = own.envelope.header.destination;
        let next = self.flood_to_all(None, Rank::Own, &destination, &frame);
        if next.is_empty() {
            self.own_floods.queue.push_front(own);
            return false;
        }
        self.seen.insert(self.now.mono, flood_digest(signed));
        if own.sent == 0 {
            self.output(Output::Departed { commitment: own.envelope.header.commitment });
        }
        let header = own.envelope.header;
        self.observe(Action::Flooded, &header, own.envelope.attempt, None, &next, frame.len());
        own.next = index + 1;
        own.sent += 1;
        if own.sent < own.signed.len() {
            self.own_floods.queue.push_front(own);
        }
        true
    }
}
