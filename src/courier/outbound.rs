//! Sending: one queue to each recipient, each at its own pace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::pace::{Pace, TIMEOUT_MAX};
use super::session::OutSession;
use super::{GivenUp, Output, QueueState};
use crate::crypto::{Identity, Random};
use crate::model::limits::{CHUNK_BYTES, WINDOW};
use crate::model::{
    Bucket, Incarnation, Monotonic, Now, Outgoing, PeerId, Prekey, Row, Sequence, SessionId,
    SignedRecord, Span,
};
use crate::wire::{Envelope, FRAGMENT_BYTES_MAX, Item, NoticeKind, PayloadWriter, RejectReason};

/// Bytes of message bodies kept in memory for one recipient; the rest stays on disk.
const LOADED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages kept in memory for one recipient.
const LOADED_MESSAGES_MAX: usize = 4 * WINDOW as usize;
/// Pings waiting for one recipient.
const PINGS_MAX: usize = 64;
/// Between the first failure to find a recipient and the next try; doubled each time.
const RETRY_INITIAL: Span = Span::from_secs(1);
/// Searches that come up empty, for all recipients together: a second, and at once. Each is a
/// flood.
const SEARCHES_PER_SECOND: u32 = 1;
const SEARCHES_BURST: u32 = 10;
/// How long a recipient whose inbox is full is left in peace.
const FULL_PAUSE: Span = Span::from_secs(10);
/// A recipient that lost its sessions says so once for each envelope on its way; more resets than
/// one in this time are not believed.
const RESET_INTERVAL: Span = Span::from_secs(1);
/// From this attempt on, every second one is flooded.
const FLOOD_ATTEMPT: u16 = 3;
/// The time that each fragment of a flooded envelope adds to its timeout: origins may send two a
/// second.
const FRAGMENT_PAUSE: Span = Span::from_millis(600);
/// How often expired messages are looked for, and how long a session is kept for what may follow.
const EXPIRY_INTERVAL: Span = Span::from_secs(3600);

/// All queues.
#[derive(Debug)]
pub(super) struct Outbox {
    identity: Arc<Identity>,
    queues: BTreeMap<PeerId, Queue>,
    /// Who is next, and when.
    timers: BTreeSet<(Monotonic, PeerId)>,
    /// Whose queue has something to do at the next flush.
    dirty: BTreeSet<PeerId>,
    /// Which queue an envelope on its way belongs to.
    on_the_way: BTreeMap<[u8; 32], PeerId>,
    searches: Bucket,
}

/// The queue to one recipient.
#[derive(Debug)]
struct Queue {
    /// Messages in memory that are not delivered yet.
    messages: BTreeMap<Row, Loaded>,
    /// Their bodies' bytes.
    bytes: usize,
    /// Messages that are not delivered yet, those on disk only included.
    undelivered: u64,
    /// The last message that was loaded.
    last_loaded: Row,
    /// Whether an answer to [`Output::Load`] is awaited.
    loading: bool,
    /// What has to be sealed, in order.
    parts: VecDeque<Part>,
    /// Envelopes on their way.
    flights: BTreeMap<[u8; 32], Flight>,
    /// Their bytes.
    in_flight: usize,
    /// Envelopes that have to be sent again, in order.
    lost: VecDeque<Flight>,
    /// Pings that have to be sent.
    pings: VecDeque<u64>,
    session: Option<OutSession>,
    /// The recipient's prekey, from its newest record.
    prekey: Option<Prekey>,
    pace: Pace,
    phase: Phase,
    /// Searches that came up empty in a row.
    failures: u32,
    last_reset: Option<Monotonic>,
    /// When expired messages are looked for next, and whether the session is still of use.
    next_expiry: Monotonic,
    /// When something was last sealed.
    last_sealed: Monotonic,
    /// What stands in `timers`.
    timer: Option<Monotonic>,
}

#[derive(Debug)]
struct Loaded {
    message: Outgoing,
    /// Parts whose receipt has not come.
    missing: usize,
}

/// A whole message, or a chunk of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    row: Row,
    chunk: Option<u16>,
}

/// An envelope on its way, or about to be sent again.
#[derive(Debug)]
struct Flight {
    envelope: Envelope,
    session: SessionId,
    parts: Vec<Part>,
    ping: Option<u64>,
    first_sent: Monotonic,
    sent: Monotonic,
    deadline: Monotonic,
    flooded: bool,
}

/// What a queue is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does not know the way and has not asked.
    Idle,
    /// It asked.
    Locating,
    /// It knows a way.
    Ready,
    /// Nobody answered, or the recipient is full; until then.
    Waiting { until: Monotonic, full: bool },
}

impl Outbox {
    pub(super) fn new(identity: Arc<Identity>, waiting: &[(PeerId, u64)], now: Now) -> Self {
        let mut outbox = Self {
            identity,
            queues: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            searches: Bucket::new(SEARCHES_PER_SECOND, SEARCHES_BURST, now.mono),
        };
        for (recipient, messages) in waiting {
            outbox.queue(now, *recipient).undelivered = *messages;
            outbox.dirty.insert(*recipient);
        }
        outbox
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.timers.first().map_or(Monotonic::NEVER, |(when, _)| *when)
    }

    pub(super) fn state(&self, recipient: &PeerId) -> QueueState {
        match self.queues.get(recipient) {
            Some(Queue { phase: Phase::Locating, .. }) => QueueState::Finding,
            Some(Queue { phase: Phase::Waiting { full: true, .. }, .. }) => {
                QueueState::RecipientFull
            }
            Some(queue) if !queue.flights.is_empty() => QueueState::InFlight,
            _ => QueueState::Waiting,
        }
    }

    pub(super) fn queued(&self, recipient: &PeerId) -> u64 {
        self.queues.get(recipient).map_or(0, |queue| queue.undelivered)
    }

    pub(super) fn on_queued(&mut self, now: Now, messages: Vec<Outgoing>) {
        for message in messages {
            let recipient = message.recipient;
            let queue = self.queue(now, recipient);
            let all_loaded = queue.is_all_loaded() && queue.has_room();
            queue.undelivered += 1;
            if all_loaded && message.row > queue.last_loaded {
                queue.load(message);
            }
            self.dirty.insert(recipient);
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        now: Now,
        recipient: PeerId,
        messages: Vec<Outgoing>,
        out: &mut VecDeque<Output>,
    ) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.loading = false;
        if messages.is_empty() {
            // Nothing more is on disk: what was counted beyond is gone.
            queue.undelivered = queue.messages.len() as u64;
        }
        for message in messages {
            if message.row > queue.last_loaded {
                queue.load(message);
            }
        }
        queue.expire(now, recipient, out);
        self.dirty.insert(recipient);
    }

    pub(super) fn on_located(
        &mut self,
        now: Now,
        record: &SignedRecord,
        out: &mut VecDeque<Output>,
    ) {
        let recipient = record.record.peer;
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.prekey = record.record.prekeys.iter().find(|key| now.wall < key.expires).cloned();
        if queue.phase == Phase::Locating
            || matches!(queue.phase, Phase::Waiting { full: false, .. })
        {
            queue.phase = Phase::Ready;
        }
        if queue.prekey.is_none() && queue.phase == Phase::Ready {
            // A record without a usable prekey: ask the peer itself for a newer one.
            queue.locate(recipient, true, out);
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_not_found(
        &mut self,
        now: Now,
        peer: PeerId,
        random: &mut Random,
        out: &mut VecDeque<Output>,
    ) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        if queue.phase != Phase::Locating {
            return;
        }
        for commitment in queue.void_flights() {
            self.on_the_way.remove(&commitment);
            out.push_back(Output::Settled { commitment });
        }
        queue.unload();
        let backoff = RETRY_INITIAL.times(1 << queue.failures.min(6)).min(TIMEOUT_MAX);
        queue.failures = queue.failures.saturating_add(1);
        let jittered = backoff.divided(2) + Span::from_micros(random.below(backoff.as_micros()));
        let slot = self.searches.ready_at(now.mono);
        self.searches.take(now.mono);
        queue.phase = Phase::Waiting { until: slot.max(now.mono + jittered), full: false };
        self.dirty.insert(peer);
    }

    /// What failed may work now.
    pub(super) fn on_nudge(&mut self, now: Now, peer: Option<PeerId>) {
        let recipients: Vec<_> = match peer {
            Some(peer) => vec![peer],
            None => self.queues.keys().copied().collect(),
        };
        for recipient in recipients {
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            match &mut queue.phase {
                Phase::Waiting { until, full: false } => {
                    if peer.is_some() {
                        queue.failures = 0;
                    }
                    // Many may be waiting for the same link: they share the searches.
                    *until = (*until).min(self.searches.ready_at(now.mono));
                }
                Phase::Ready => queue.hasten(now),
                _ => continue,
            }
            self.dirty.insert(recipient);
        }
    }

    pub(super) fn on_departed(&mut self, commitment: &[u8; 32], out: &mut VecDeque<Output>) {
        let recipient = self.on_the_way.get(commitment);
        let queue = recipient.and_then(|recipient| self.queues.get(recipient));
        let Some(flight) = queue.and_then(|queue| queue.flight(commitment)) else { return };
        let mut rows: Vec<Row> = flight.parts.iter().map(|part| part.row).collect();
        rows.dedup();
        out.extend(rows.into_iter().map(Output::Sent));
    }

    pub(super) fn on_receipt(
        &mut self,
        now: Now,
        commitment: &[u8; 32],
        out: &mut VecDeque<Output>,
    ) {
        let Some(recipient) = self.on_the_way.remove(commitment) else { return };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let Some(flight) = queue.take_flight(commitment) else { return };
        out.push_back(Output::Settled { commitment: *commitment });
        if flight.envelope.attempt == 1 {
            queue.pace.on_sample(now.mono.since(flight.sent));
        }
        queue.pace.on_receipt(flight.envelope.encoded.len());
        queue.failures = 0;
        if let Some(session) = &mut queue.session
            && session.id() == flight.session
        {
            session.on_receipt();
        }
        if let Some(ping) = flight.ping {
            let (rtt, attempts) = (now.mono.since(flight.first_sent), flight.envelope.attempt);
            out.push_back(Output::Pong { ping, rtt, attempts });
        }
        let before = queue.bytes;
        let rows = queue.settle(&flight.parts);
        if !rows.is_empty() {
            let bytes = (before - queue.bytes) as u64;
            out.push_back(Output::Delivered { recipient, rows, bytes });
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_rejected(
        &mut self,
        commitment: &[u8; 32],
        attempt: u16,
        reason: RejectReason,
        out: &mut VecDeque<Output>,
    ) {
        let Some(recipient) = self.on_the_way.get(commitment).copied() else { return };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if queue.flight(commitment).is_none_or(|flight| flight.envelope.attempt != attempt) {
            return;
        }
        match reason {
            // The way is right but full: it is tried again when the envelope's time is up.
            RejectReason::Congested => queue.pace.on_loss(),
            RejectReason::NoRoute | RejectReason::Loop => {
                queue.lose(commitment);
                queue.locate(recipient, true, out);
            }
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_notice(
        &mut self,
        now: Now,
        commitment: &[u8; 32],
        kind: NoticeKind,
        out: &mut VecDeque<Output>,
    ) {
        let Some(recipient) = self.on_the_way.get(commitment).copied() else { return };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        match kind {
            NoticeKind::Reset => {
                let session = queue.flight(commitment).map(|flight| flight.session);
                let current = queue.session.as_ref().map(OutSession::id);
                let believed =
                    queue.last_reset.is_none_or(|last| now.mono >= last + RESET_INTERVAL);
                if session == current && session.is_some() && believed {
                    queue.last_reset = Some(now.mono);
                    queue.session = None;
                    for commitment in queue.void_flights() {
                        self.on_the_way.remove(&commitment);
                        out.push_back(Output::Settled { commitment });
                    }
                    // The prekey may be what it lost: only its newest record tells.
                    queue.locate(recipient, true, out);
                }
            }
            NoticeKind::Full => {
                queue.lose(commitment);
                queue.phase = Phase::Waiting { until: now.mono + FULL_PAUSE, full: true };
            }
            NoticeKind::TooLarge => {
                let Some(flight) = queue.take_flight(commitment) else { return };
                self.on_the_way.remove(commitment);
                let largest = queue.largest_of(&flight.parts);
                queue.requeue(flight.parts);
                if let Some(row) = largest {
                    let bytes = queue.give_up(&[row]);
                    let (rows, why) = (vec![row], GivenUp::TooLarge);
                    out.push_back(Output::GivenUp { recipient, rows, bytes, why });
                }
            }
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_ping(
        &mut self,
        now: Now,
        recipient: PeerId,
        ping: u64,
        out: &mut VecDeque<Output>,
    ) {
        let queue = self.queue(now, recipient);
        if queue.pings.len() < PINGS_MAX {
            queue.pings.push_back(ping);
        }
        match queue.phase {
            Phase::Idle | Phase::Waiting { full: false, .. } => {
                queue.locate(recipient, false, out);
            }
            _ => {}
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_cancel_ping(&mut self, recipient: PeerId, ping: u64) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.pings.retain(|waiting| *waiting != ping);
        let gone = |flight: &Flight| flight.ping == Some(ping);
        let commitments: Vec<_> =
            queue.flights.iter().filter(|(_, f)| gone(f)).map(|(c, _)| *c).collect();
        for commitment in commitments {
            queue.take_flight(&commitment);
            self.on_the_way.remove(&commitment);
        }
        queue.lost.retain(|flight| !gone(flight));
        self.dirty.insert(recipient);
    }

    pub(super) fn on_forget(&mut self, peer: PeerId) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.session = None;
            queue.prekey = None;
        }
    }

    /// Seals and sends what can be sent.
    pub(super) fn flush(&mut self, now: Now, random: &mut Random, out: &mut VecDeque<Output>) {
        while let Some(recipient) = self.dirty.pop_first() {
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            let mut turn = Turn {
                identity: &self.identity,
                recipient,
                now,
                random,
                on_the_way: &mut self.on_the_way,
                out,
            };
            queue.pump(&mut turn);
            let next = queue.next_deadline();
            if queue.timer != next {
                if let Some(old) = queue.timer {
                    self.timers.remove(&(old, recipient));
                }
                if let Some(new) = next {
                    self.timers.insert((new, recipient));
                }
                queue.timer = next;
            }
            if queue.is_idle() {
                self.queues.remove(&recipient);
            }
        }
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut VecDeque<Output>) {
        while let Some((when, recipient)) = self.timers.first().copied()
            && when <= now.mono
        {
            self.timers.pop_first();
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            queue.timer = None;
            queue.on_time(now, recipient, out);
            self.dirty.insert(recipient);
        }
    }

    fn queue(&mut self, now: Now, recipient: PeerId) -> &mut Queue {
        self.queues.entry(recipient).or_insert_with(|| Queue::new(now))
    }
}

/// What a queue needs to send.
struct Turn<'a> {
    identity: &'a Identity,
    recipient: PeerId,
    now: Now,
    random: &'a mut Random,
    on_the_way: &'a mut BTreeMap<[u8; 32], PeerId>,
    out: &'a mut VecDeque<Output>,
}

impl Queue {
    fn new(now: Now) -> Self {
        Self {
            messages: BTreeMap::new(),
            bytes: 0,
            undelivered: 0,
            last_loaded: Row(0),
            loading: false,
            parts: VecDeque::new(),
            flights: BTreeMap::new(),
            in_flight: 0,
            lost: VecDeque::new(),
            pings: VecDeque::new(),
            session: None,
            prekey: None,
            pace: Pace::new(),
            phase: Phase::Idle,
            failures: 0,
            last_reset: None,
            next_expiry: now.mono,
            last_sealed: now.mono,
            timer: None,
        }
    }

    fn is_all_loaded(&self) -> bool {
        self.messages.len() as u64 == self.undelivered && !self.loading
    }

    fn has_room(&self) -> bool {
        self.bytes < LOADED_BYTES_MAX && self.messages.len() < LOADED_MESSAGES_MAX
    }

    /// Whether nothing is lost by forgetting it. A session is worth keeping for a day.
    fn is_idle(&self) -> bool {
        self.undelivered == 0
            && self.pings.is_empty()
            && self.flights.is_empty()
            && self.lost.is_empty()
            && self.session.is_none()
    }

    fn load(&mut self, message: Outgoing) {
        let length = message.body.len();
        let row = message.row;
        let missing = if PayloadWriter::fits_whole(length) {
            self.parts.push_back(Part { row, chunk: None });
            1
        } else {
            let chunks = length.div_ceil(CHUNK_BYTES);
            for chunk in (0_u16..).take(chunks) {
                self.parts.push_back(Part { row, chunk: Some(chunk) });
            }
            chunks
        };
        self.bytes += length;
        self.last_loaded = self.last_loaded.max(row);
        self.messages.insert(row, Loaded { message, missing });
    }

    /// Drops what is in memory and on disk too. Nothing may be on its way.
    fn unload(&mut self) {
        self.messages.clear();
        self.parts.clear();
        self.bytes = 0;
        self.last_loaded = Row(0);
    }

    fn locate(&mut self, recipient: PeerId, anew: bool, out: &mut VecDeque<Output>) {
        if self.phase != Phase::Locating {
            self.phase = Phase::Locating;
            out.push_back(Output::Locate { peer: recipient, anew });
        }
    }

    fn flight(&self, commitment: &[u8; 32]) -> Option<&Flight> {
        let is = |flight: &&Flight| flight.envelope.header.commitment == *commitment;
        self.flights.get(commitment).or_else(|| self.lost.iter().find(is))
    }

    fn take_flight(&mut self, commitment: &[u8; 32]) -> Option<Flight> {
        if let Some(flight) = self.flights.remove(commitment) {
            self.in_flight = self.in_flight.saturating_sub(flight.envelope.encoded.len());
            return Some(flight);
        }
        let at = self.lost.iter().position(|f| f.envelope.header.commitment == *commitment)?;
        self.lost.remove(at)
    }

    /// An envelope did not make it: it will be sent again.
    fn lose(&mut self, commitment: &[u8; 32]) {
        if let Some(flight) = self.flights.remove(commitment) {
            self.in_flight = self.in_flight.saturating_sub(flight.envelope.encoded.len());
            let counter = flight.envelope.header.counter;
            let at = self.lost.partition_point(|f| f.envelope.header.counter < counter);
            self.lost.insert(at, flight);
        }
    }

    /// Takes back everything that is sealed: its content will be sealed anew.
    fn void_flights(&mut self) -> Vec<[u8; 32]> {
        let flights: Vec<_> =
            std::mem::take(&mut self.flights).into_values().chain(self.lost.drain(..)).collect();
        self.in_flight = 0;
        let commitments = flights.iter().map(|f| f.envelope.header.commitment).collect();
        let mut parts = Vec::new();
        for flight in flights {
            self.pings.extend(flight.ping);
            parts.extend(flight.parts);
        }
        self.requeue(parts);
        commitments
    }

    /// Puts parts back where they belong: before what was never sealed, in order.
    fn requeue(&mut self, mut parts: Vec<Part>) {
        parts.retain(|part| self.messages.contains_key(&part.row));
        parts.extend(self.parts.drain(..));
        parts.sort_unstable();
        parts.dedup();
        self.parts = parts.into();
    }

    /// Parts whose receipt came: the messages that are whole by it.
    fn settle(&mut self, parts: &[Part]) -> Vec<Row> {
        let mut rows = Vec::new();
        for part in parts {
            let Some(loaded) = self.messages.get_mut(&part.row) else { continue };
            loaded.missing = loaded.missing.saturating_sub(1);
            if loaded.missing == 0 {
                rows.push(part.row);
                self.bytes -= loaded.message.body.len();
                self.messages.remove(&part.row);
            }
        }
        self.undelivered = self.undelivered.saturating_sub(rows.len() as u64);
        rows
    }

    /// Messages that are not wanted any more. What of them is on its way stays there; its receipts
    /// are for nothing. Returns the bytes of their bodies.
    fn give_up(&mut self, rows: &[Row]) -> u64 {
        let before = self.bytes;
        for row in rows {
            if let Some(loaded) = self.messages.remove(row) {
                self.bytes -= loaded.message.body.len();
                self.undelivered = self.undelivered.saturating_sub(1);
            }
        }
        self.parts.retain(|part| self.messages.contains_key(&part.row));
        (before - self.bytes) as u64
    }

    fn largest_of(&self, parts: &[Part]) -> Option<Row> {
        let sizes = parts.iter().filter_map(|part| {
            self.messages.get(&part.row).map(|loaded| (loaded.message.body.len(), part.row))
        });
        sizes.max().map(|(_, row)| row)
    }

    fn expire(&mut self, now: Now, recipient: PeerId, out: &mut VecDeque<Output>) {
        let expired = |loaded: &Loaded| loaded.message.expires <= now.wall;
        let rows: Vec<Row> =
            self.messages.iter().filter(|(_, m)| expired(m)).map(|(row, _)| *row).collect();
        if !rows.is_empty() {
            let bytes = self.give_up(&rows);
            out.push_back(Output::GivenUp { recipient, rows, bytes, why: GivenUp::Expired });
        }
    }

    /// Things changed: what is in trouble is tried at once.
    fn hasten(&mut self, now: Now) {
        for flight in self.flights.values_mut() {
            if flight.envelope.attempt > 1 {
                flight.deadline = flight.deadline.min(now.mono);
            }
        }
    }

    fn on_time(&mut self, now: Now, recipient: PeerId, out: &mut VecDeque<Output>) {
        if let Phase::Waiting { until, full } = self.phase
            && until <= now.mono
        {
            if full {
                self.phase = Phase::Ready;
            } else {
                self.phase = Phase::Idle;
                if self.undelivered > 0 || !self.pings.is_empty() {
                    self.locate(recipient, true, out);
                }
            }
        }
        let late: Vec<_> =
            self.flights.iter().filter(|(_, f)| f.deadline <= now.mono).map(|(c, _)| *c).collect();
        if !late.is_empty() {
            self.pace.on_loss();
        }
        for commitment in late {
            self.lose(&commitment);
        }
        if self.next_expiry <= now.mono {
            self.next_expiry = now.mono + EXPIRY_INTERVAL;
            self.expire(now, recipient, out);
            if self.undelivered == 0 && now.mono >= self.last_sealed + EXPIRY_INTERVAL {
                self.session = None;
            }
            let unloaded = self.messages.is_empty() && self.undelivered > 0;
            if unloaded && !self.loading {
                self.loading = true;
                out.push_back(Output::Load { recipient, after: self.last_loaded });
            }
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        let flights = self.flights.values().map(|flight| flight.deadline).min();
        let waiting = match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        };
        let kept = self.undelivered > 0 || self.session.is_some();
        let expiry = kept.then_some(self.next_expiry);
        flights.into_iter().chain(waiting).chain(expiry).min()
    }

    /// Sends again what was lost, then what is new, as far as the pace allows.
    fn pump(&mut self, turn: &mut Turn<'_>) {
        let wanted = self.undelivered > 0 || !self.pings.is_empty() || !self.lost.is_empty();
        if wanted && self.phase == Phase::Idle {
            self.locate(turn.recipient, false, turn.out);
        }
        if self.phase != Phase::Ready {
            return;
        }
        self.refresh_session(turn);
        while self.pace.allows(self.in_flight)
            && let Some(flight) = self.lost.pop_front()
        {
            self.send_again(turn, flight);
        }
        while self.pace.allows(self.in_flight)
            && let Some(ping) = self.pings.pop_front()
        {
            self.seal_ping(turn, ping);
        }
        while self.pace.allows(self.in_flight) && self.seal_next(turn) {}
        let hungry = self.parts.len() < LOADED_MESSAGES_MAX / 2 && self.has_room();
        if hungry && !self.loading && (self.messages.len() as u64) < self.undelivered {
            self.loading = true;
            let (recipient, after) = (turn.recipient, self.last_loaded);
            turn.out.push_back(Output::Load { recipient, after });
        }
    }

    /// Lets go of a session that is not to be used any more, and of what was sealed in it and lost.
    fn refresh_session(&mut self, turn: &mut Turn<'_>) {
        let Some(prekey) = &self.prekey else { return };
        if self.session.as_ref().is_some_and(|s| !s.is_current(prekey.id, turn.now)) {
            self.session = None;
        }
        let current = self.session.as_ref().map(OutSession::id);
        let (keep, stale) =
            self.lost.drain(..).partition::<VecDeque<_>, _>(|f| Some(f.session) == current);
        self.lost = keep;
        let mut parts = Vec::new();
        for flight in stale {
            turn.on_the_way.remove(&flight.envelope.header.commitment);
            self.pings.extend(flight.ping);
            parts.extend(flight.parts);
        }
        if !parts.is_empty() {
            self.requeue(parts);
        }
    }

    fn send_again(&mut self, turn: &mut Turn<'_>, mut flight: Flight) {
        let wanted = |part: &Part| {
            self.messages.get(&part.row).is_some_and(|m| turn.now.wall < m.message.expires)
        };
        if flight.ping.is_none() && !flight.parts.iter().all(wanted) {
            // Some of it has expired: the rest is sealed anew, without it.
            let commitment = flight.envelope.header.commitment;
            turn.on_the_way.remove(&commitment);
            turn.out.push_back(Output::Settled { commitment });
            self.requeue(flight.parts);
            return;
        }
        let attempt = flight.envelope.attempt.saturating_add(1);
        flight.envelope = flight.envelope.with_attempt(attempt);
        let odd = attempt % 2 == FLOOD_ATTEMPT % 2;
        flight.flooded =
            attempt >= FLOOD_ATTEMPT && odd && !self.flights.values().any(|other| other.flooded);
        if flight.flooded {
            turn.out.push_back(Output::Locate { peer: turn.recipient, anew: true });
        }
        self.launch(turn, flight, attempt);
    }

    fn launch(&mut self, turn: &mut Turn<'_>, mut flight: Flight, attempt: u16) {
        let timeout = self.pace.timeout(attempt);
        let jitter = Span::from_micros(turn.random.below(timeout.as_micros() / 4));
        let pause = match flight.flooded {
            true => {
                FRAGMENT_PAUSE.times(flight.envelope.tail.len().div_ceil(FRAGMENT_BYTES_MAX) as u64)
            }
            false => Span::ZERO,
        };
        flight.sent = turn.now.mono;
        flight.deadline = turn.now.mono + timeout + jitter + pause;
        let commitment = flight.envelope.header.commitment;
        let envelope = flight.envelope.clone();
        turn.out.push_back(match flight.flooded {
            true => Output::Flood(envelope),
            false => Output::Send { envelope, elsewhere: attempt > 1 },
        });
        turn.on_the_way.insert(commitment, turn.recipient);
        self.in_flight += flight.envelope.encoded.len();
        self.flights.insert(commitment, flight);
    }

    /// Seals the next envelope of messages; false if there is none to seal.
    fn seal_next(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(incarnation) = self.next_incarnation(turn) else { return false };
        let floor = self.floor(incarnation);
        let mut writer = PayloadWriter::new(incarnation, floor);
        let mut parts = Vec::new();
        while let Some(part) = self.parts.front().copied() {
            let Some(loaded) = self.messages.get(&part.row) else {
                self.parts.pop_front();
                continue;
            };
            let message = &loaded.message;
            if message.incarnation != incarnation
                || message.sequence.0.saturating_sub(floor.0) >= WINDOW
                || !writer.push(&item_of(message, part.chunk))
            {
                break;
            }
            parts.push(part);
            self.parts.pop_front();
        }
        !parts.is_empty() && self.seal(turn, writer, parts, None)
    }

    /// The incarnation of the next message to seal.
    fn next_incarnation(&mut self, turn: &Turn<'_>) -> Option<Incarnation> {
        while let Some(part) = self.parts.front() {
            match self.messages.get(&part.row) {
                Some(loaded) if turn.now.wall < loaded.message.expires => {
                    return Some(loaded.message.incarnation);
                }
                // Given up, or about to be.
                _ => {
                    self.next_expiry = turn.now.mono;
                    self.parts.pop_front()
                }
            };
        }
        None
    }

    /// The lowest sequence number of an incarnation that is still wanted. Rows grow with sequence
    /// numbers, so it is the first.
    fn floor(&self, incarnation: Incarnation) -> Sequence {
        let mut own = self.messages.values().filter(|m| m.message.incarnation == incarnation);
        own.next().map_or(Sequence::FIRST, |loaded| loaded.message.sequence)
    }

    fn seal_ping(&mut self, turn: &mut Turn<'_>, ping: u64) {
        let mut writer = PayloadWriter::new(Incarnation(0), Sequence::FIRST);
        writer.push(&Item::Ping);
        self.seal(turn, writer, Vec::new(), Some(ping));
    }

    fn seal(
        &mut self,
        turn: &mut Turn<'_>,
        writer: PayloadWriter,
        parts: Vec<Part>,
        ping: Option<u64>,
    ) -> bool {
        let sealed = self.session(turn).and_then(|session| {
            let envelope = session.seal(writer.finish()).ok()?;
            Some((envelope, session.id()))
        });
        let Some((envelope, session)) = sealed else {
            // The recipient's prekey is of no use: only a newer record helps.
            self.requeue(parts);
            self.pings.extend(ping);
            self.prekey = None;
            self.locate(turn.recipient, true, turn.out);
            return false;
        };
        let now = turn.now.mono;
        self.last_sealed = now;
        let flight = Flight {
            envelope,
            session,
            parts,
            ping,
            first_sent: now,
            sent: now,
            deadline: now,
            flooded: false,
        };
        self.launch(turn, flight, 1);
        true
    }

    fn session(&mut self, turn: &mut Turn<'_>) -> Option<&mut OutSession> {
        if self.session.is_none() {
            let prekey = self.prekey.as_ref().filter(|key| turn.now.wall < key.expires)?;
            let (identity, recipient) = (turn.identity, turn.recipient);
            self.session =
                OutSession::open(identity, recipient, prekey, turn.now, turn.random).ok();
        }
        self.session.as_mut()
    }
}

fn item_of(message: &Outgoing, chunk: Option<u16>) -> Item {
    let (sequence, sent, expires) = (message.sequence, message.queued, message.expires);
    let subject = message.subject.clone();
    match chunk {
        None => Item::Message { sequence, sent, expires, subject, body: message.body.clone() },
        Some(index) => {
            let start = usize::from(index).saturating_mul(CHUNK_BYTES).min(message.body.len());
            let end = start.saturating_add(CHUNK_BYTES).min(message.body.len());
            let (total, bytes) = (message.body.len() as u64, message.body.slice(start..end));
            Item::Chunk { sequence, sent, expires, subject, total, index, bytes }
        }
    }
}
