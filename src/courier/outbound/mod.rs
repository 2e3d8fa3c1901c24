//! Sending: one queue to each recipient, each at its own pace.

mod flights;
mod lifetimes;
mod queue;
mod runs;
mod seal;
mod searches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::lifetimes::Lifetimes;
use self::queue::{LOADED_BYTES_MAX, LOADED_BYTES_MIN, Phase, Queue};
use self::seal::Turn;
use self::searches::Searches;
use super::pace::Pace;
use super::session::OutSession;
use super::{Output, QueueState, Waiting};
use crate::crypto::{Identity, Random};
use crate::model::limits::MESSAGE_LIFETIME_MAX;
use crate::model::{
    Monotonic, Now, Occupancy, Outgoing, PeerId, Row, SignedRecord, Span, WhyGivenUp,
};
use crate::wire::{NoticeKind, RejectReason};

/// Bytes of message bodies kept in memory for all recipients. Beyond, there is little for each, so
/// that none waits for another.
const LOADED_BYTES_IN_ALL_MAX: usize = 64 * 1024 * 1024;
/// Pings waiting for one recipient.
const PINGS_MAX: usize = 64;
/// How long a recipient whose inbox is full is left in peace; doubled four times.
const FULL_PAUSE: Span = Span::from_secs(10);
/// A recipient that lost its sessions says so once for each envelope on its way; more resets than
/// one in this time are not believed.
const RESET_INTERVAL: Span = Span::from_secs(1);
/// The same for a session whose opening goes along with every envelope. It cannot have been lost:
/// its prekey was, or somebody took the opening out.
const DOUBT_INTERVAL: Span = Span::from_secs(10);

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
    searches: Searches,
    lifetimes: Lifetimes,
    /// Bytes of messages in memory, or on their way there, for all recipients.
    loaded: usize,
}

impl Outbox {
    pub(super) fn new(identity: Arc<Identity>, waiting: &[Waiting], now: Now) -> Self {
        let mut outbox = Self {
            identity,
            queues: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            searches: Searches::new(now.mono),
            lifetimes: Lifetimes::new(now),
            loaded: 0,
        };
        for Waiting { recipient, messages, expires } in waiting {
            let queue = outbox.queue(now, *recipient);
            queue.undelivered = *messages;
            // However far ahead the clock was: they have been queued by now.
            queue.first_expires = Some((*expires).min(now.wall + MESSAGE_LIFETIME_MAX));
            outbox.dirty.insert(*recipient);
        }
        outbox
    }

    pub(super) fn deadline(&self) -> Monotonic {
        let timer = self.timers.first().map_or(Monotonic::NEVER, |(when, _)| *when);
        timer.min(self.searches.deadline())
    }

    /// With messages of so many bytes at most. Of what each queue has, the fullest.
    pub(super) fn occupancy(&self, message_bytes_max: usize) -> Vec<Occupancy> {
        let queues = self.queues.len();
        let envelopes = self.queues.values().map(|queue| queue.flights.len()).sum();
        let mut all = vec![
            Occupancy::new("queues by deadline", self.timers.len(), queues),
            Occupancy::new("queues to look at", self.dirty.len(), 0),
            Occupancy::new("envelopes without a receipt", self.on_the_way.len(), envelopes),
        ];
        let tables = self.queues.values().map(|queue| queue.occupancy(message_bytes_max));
        all.extend(Occupancy::fullest(tables).into_iter().flatten());
        all
    }

    pub(super) fn state(&self, recipient: &PeerId) -> QueueState {
        match self.queues.get(recipient) {
            Some(Queue { phase: Phase::Locating, .. }) => QueueState::Finding,
            Some(Queue { phase: Phase::Waiting { full: true, .. }, .. }) => {
                QueueState::RecipientFull
            }
            Some(queue) if queue.flights.any_on_its_way() => QueueState::InFlight,
            _ => QueueState::Waiting,
        }
    }

    pub(super) fn recipients(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn writes_to(&self, peer: &PeerId) -> bool {
        self.queues.contains_key(peer)
    }

    pub(super) fn queued(&self, recipient: &PeerId) -> u64 {
        self.queues.get(recipient).map_or(0, |queue| queue.undelivered)
    }

    pub(super) fn on_queued(&mut self, now: Now, messages: Vec<Outgoing>) {
        for message in messages {
            let recipient = message.recipient;
            self.lifetimes.on_queued(now, &message);
            let page = page(self.loaded);
            let queue = self.queues.entry(recipient).or_insert_with(|| Queue::new(now));
            // All together have too much: a small one for each, so that it need not be read.
            let fits = page == LOADED_BYTES_MAX
                || (queue.messages.is_empty() && message.body.len() <= page);
            let all_loaded = queue.is_all_loaded() && queue.has_room();
            queue.undelivered += 1;
            if all_loaded && fits && message.row > queue.last_loaded {
                queue.load(now, &self.lifetimes, message);
            }
            self.dirty.insert(recipient);
            self.count(recipient);
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
        (queue.loading, queue.asked) = (false, 0);
        self.dirty.insert(recipient);
        if std::mem::take(&mut queue.loads_in_vain) {
            return;
        }
        if messages.is_empty() {
            // Nothing more is on disk: what was counted beyond is gone.
            queue.undelivered = queue.messages.len() as u64;
        }
        for message in messages {
            if message.row > queue.last_loaded {
                queue.load(now, &self.lifetimes, message);
            }
        }
        queue.expire(now, &self.lifetimes, out);
        // Whatever has expired goes at once, however much it is and whether there is a way or not.
        queue.load_if_empty(recipient, page(self.loaded), out);
        // The rest is read again when there is a way.
        if queue.phase != Phase::Ready && !queue.messages.is_empty() && queue.flights.is_empty() {
            queue.unload();
        }
        self.count(recipient);
    }

    pub(super) fn on_located(
        &mut self,
        now: Now,
        record: &SignedRecord,
        random: &mut Random,
        out: &mut VecDeque<Output>,
    ) {
        let recipient = record.record.peer;
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.prekey = record.record.prekeys.iter().find(|key| now.wall < key.expires).cloned();
        if queue.phase == Phase::Locating
            || matches!(queue.phase, Phase::Waiting { full: false, .. } | Phase::InLine { .. })
        {
            queue.phase = Phase::Ready;
        }
        if queue.phase == Phase::Ready && queue.prekey.is_none() {
            // A record without a usable prekey: ask the peer itself for a newer one, unless this is
            // the newest it has.
            match queue.located_anew {
                false => queue.locate(recipient, true, out),
                true => queue.back_off(now, random),
            }
        }
        if std::mem::take(&mut queue.prekey_doubted) && !queue.is_session_current(now) {
            queue.session = None;
            let flights = queue.flights.take_all();
            settle(&mut self.on_the_way, &queue.unseal(flights), out);
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
        let flights = queue.flights.take_all();
        settle(&mut self.on_the_way, &queue.unseal(flights), out);
        queue.misses_before = 0;
        queue.unload();
        queue.back_off(now, random);
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
            if peer.is_some() {
                queue.failures = 0;
            }
            match queue.phase {
                // Many may be waiting for the same link: they share the searches.
                Phase::Waiting { full: false, .. } => {
                    queue.phase = Phase::InLine { since: now.mono };
                }
                Phase::InLine { .. } => {}
                Phase::Ready => queue.flights.hasten(now.mono),
                _ => continue,
            }
            self.dirty.insert(recipient);
        }
    }

    pub(super) fn on_departed(&mut self, commitment: &[u8; 32], out: &mut VecDeque<Output>) {
        let recipient = self.on_the_way.get(commitment);
        let queue = recipient.and_then(|recipient| self.queues.get(recipient));
        let Some(flight) = queue.and_then(|queue| queue.flights.get(commitment)) else { return };
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
        let Some(flight) = queue.flights.take(commitment) else { return };
        out.push_back(Output::Settled { commitment: *commitment });
        if flight.envelope.attempt == 1 && !flight.flooded {
            queue.pace.on_sample(now.mono.since(flight.sent));
        }
        queue.pace.on_receipt(flight.envelope.encoded.len());
        queue.failures = 0;
        (queue.misses_before, queue.times_full) = (0, 0);
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
        let rows = queue.settle(now, &flight);
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
        if queue.flights.get(commitment).is_none_or(|flight| flight.envelope.attempt != attempt) {
            return;
        }
        match reason {
            // The way is right but full: it is tried again when the envelope's time is up.
            RejectReason::Congested => queue.pace.on_loss(),
            RejectReason::NoRoute | RejectReason::Loop => {
                queue.flights.lose(commitment);
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
                let of = queue.flights.get(commitment).map(|flight| flight.session);
                let Some(session) = queue.session.as_ref().filter(|s| Some(s.id()) == of) else {
                    return;
                };
                let confirmed = session.is_confirmed();
                let interval = if confirmed { RESET_INTERVAL } else { DOUBT_INTERVAL };
                if queue.last_reset.is_some_and(|last| now.mono < last + interval) {
                    return;
                }
                queue.last_reset = Some(now.mono);
                if confirmed {
                    queue.session = None;
                    let flights = queue.flights.take_all();
                    settle(&mut self.on_the_way, &queue.unseal(flights), out);
                }
                // The prekey may be what it lost: only its newest record tells.
                queue.prekey_doubted = true;
                queue.locate(recipient, true, out);
            }
            NoticeKind::Full => {
                // The way is good; it is not tried over and over, nor another one. But the next
                // attempt is another envelope: whoever is on the way could repeat this notice for
                // ever, and it would be true.
                let flights = queue.flights.take(commitment).into_iter().collect();
                settle(&mut self.on_the_way, &queue.unseal(flights), out);
                if !matches!(queue.phase, Phase::Waiting { full: true, .. }) {
                    let pause = FULL_PAUSE.times(1 << queue.times_full.min(4));
                    queue.times_full = queue.times_full.saturating_add(1);
                    queue.phase = Phase::Waiting { until: now.mono + pause, full: true };
                }
            }
            NoticeKind::TooLarge => {
                let Some(flight) = queue.flights.take(commitment) else { return };
                settle(&mut self.on_the_way, &[*commitment], out);
                // One envelope after the other is refused for the same message: once that is given
                // up, what else was in them is not to blame.
                let gone = flight.parts.iter().any(|part| !queue.messages.contains_key(&part.row));
                let largest = if gone { None } else { queue.largest_of(&flight.parts) };
                queue.requeue(flight.parts);
                if let Some(row) = largest {
                    out.push_back(queue.give_up(now, &[row], WhyGivenUp::TooLarge));
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
            Phase::Idle | Phase::Waiting { full: false, .. } | Phase::InLine { .. } => {
                queue.locate(recipient, false, out);
            }
            _ => {}
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_cancel_ping(
        &mut self,
        recipient: PeerId,
        ping: u64,
        out: &mut VecDeque<Output>,
    ) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.pings.retain(|waiting| *waiting != ping);
        for flight in queue.flights.take_ping(ping) {
            self.on_the_way.remove(&flight.commitment());
            out.push_back(Output::Settled { commitment: flight.commitment() });
        }
        self.dirty.insert(recipient);
    }

    pub(super) fn on_forget(&mut self, peer: PeerId) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        queue.session = None;
        queue.prekey = None;
        if queue.phase == Phase::Ready {
            // Nothing can be sealed before the peer was located again.
            queue.phase = Phase::Idle;
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
                lifetimes: &self.lifetimes,
                page: page(self.loaded),
                out,
            };
            queue.pump(&mut turn);
            self.note(recipient);
        }
        while let Some(recipient) = self.searches.take(now.mono) {
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            queue.phase = Phase::Idle;
            if queue.is_wanted() {
                queue.locate(recipient, true, out);
            }
            self.note(recipient);
        }
    }

    /// Notes what became of a queue: when it is next, and whether it is still needed.
    fn note(&mut self, recipient: PeerId) {
        self.count(recipient);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if queue.is_idle() {
            queue.phase = Phase::Idle;
        }
        let place = queue.place_in_line();
        if queue.place != place {
            self.searches.replace(recipient, queue.place, place);
            queue.place = place;
        }
        let next = queue.next_deadline();
        if queue.timer != next {
            if let Some(old) = queue.timer {
                self.timers.remove(&(old, recipient));
            }
            self.timers.extend(next.map(|new| (new, recipient)));
            queue.timer = next;
        }
        if queue.is_idle() {
            self.queues.remove(&recipient);
        }
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut VecDeque<Output>) {
        while let Some((when, recipient)) = self.timers.first().copied()
            && when <= now.mono
        {
            self.timers.pop_first();
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            queue.timer = None;
            queue.on_time(now, &self.lifetimes, page(self.loaded), recipient, out);
            self.count(recipient);
            self.dirty.insert(recipient);
        }
    }

    /// Counts what a queue has in memory.
    fn count(&mut self, recipient: PeerId) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let before = std::mem::replace(&mut queue.counted, queue.bytes + queue.asked);
        self.loaded = (self.loaded + queue.counted).saturating_sub(before);
    }

    fn queue(&mut self, now: Now, recipient: PeerId) -> &mut Queue {
        self.queues.entry(recipient).or_insert_with(|| Queue::new(now))
    }
}

/// How much may be loaded for one recipient, if so much is for all.
const fn page(loaded: usize) -> usize {
    match loaded + LOADED_BYTES_MAX <= LOADED_BYTES_IN_ALL_MAX {
        true => LOADED_BYTES_MAX,
        false => LOADED_BYTES_MIN,
    }
}

/// No receipt is awaited for these any more.
fn settle(
    on_the_way: &mut BTreeMap<[u8; 32], PeerId>,
    commitments: &[[u8; 32]],
    out: &mut VecDeque<Output>,
) {
    for commitment in commitments {
        on_the_way.remove(commitment);
        out.push_back(Output::Settled { commitment: *commitment });
    }
}
