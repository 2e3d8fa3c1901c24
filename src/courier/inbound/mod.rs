//! Receiving: open, check, put in order, store, and only then reveal.
//!
//! Envelopes are opened as they come and wait for the next batch. A batch is worked out on copies
//! of the windows it touches and becomes true only when the store says so; there is one batch at a
//! time, so what a refused batch worked out is simply dropped.

mod assess;
mod batch;
mod chores;
mod partial;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;

use self::assess::Refusal;
use self::batch::Batch;
use self::chores::Chores;
use self::partial::Partial;
use self::session::InSession;
use super::prekeys::Prekeys;
use super::window::Window;
use super::{Arrival, Change, Delivery, Output, Stored};
use crate::crypto::{SealingKeys, SessionSecret, commitment_of};
use crate::model::{
    Cursor, FairBucket, Incarnation, Limits, Monotonic, Now, Occupancy, PeerId, ReceivedKey,
    SessionId, SettledClock,
};
use crate::wire::{Header, NoticeKind, Payload, Tail};

/// Bytes of opened envelopes that wait for the batch before them; more are dropped and come again.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one batch: bounds how long a commit takes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an opened envelope takes in memory beside its content.
const OPENED_OVERHEAD_BYTES: usize = 512;
/// Openings a second whose signature is checked (40 us each): shared among the neighbours that the
/// operator connected, and the same again among all others. Whoever they claim to come from is not
/// looked at: anybody can spend that allowance.
const SIGNATURES_PER_SECOND: u32 = 500;
/// Openings a second that are signed by whoever they come from, each a decapsulation (300 us):
/// shared in the same way.
const OPENINGS_PER_SECOND: u32 = 100;

/// A run of a sender.
type Run = (PeerId, Incarnation);

/// An envelope that was opened and waits for its batch.
struct Opened {
    header: Header,
    receipt: [u8; 32],
    payload: Payload,
    /// What it takes in memory.
    bytes: usize,
    /// Whether the operator knows its sender.
    vouched: bool,
}

/// What opening sessions may cost.
struct Openings {
    signatures: FairBucket,
    sessions: FairBucket,
}

/// The receiving half of a courier.
pub(super) struct Inbound {
    me: PeerId,
    message_bytes_max: usize,
    inbox_bytes_max: u64,
    /// The part of it that strangers can fill.
    strangers_bytes_max: u64,
    sessions_max: usize,
    sessions: BTreeMap<(PeerId, SessionId), InSession>,
    windows: BTreeMap<Run, Window>,
    partials: BTreeMap<ReceivedKey, Partial>,
    last_cursor: Cursor,
    inbox_bytes: u64,
    /// What the missing chunks of all messages that were begun will count for.
    reserved_bytes: u64,
    waiting: VecDeque<Opened>,
    waiting_bytes: usize,
    batch: Option<Box<Batch>>,
    chores: Chores,
    /// They do not go along before: there was no room for them.
    chores_from: Monotonic,
    /// What comes over links that the operator asked for.
    vouched_openings: Openings,
    /// What comes over all other links.
    openings: Openings,
    /// When what is too old was looked for, and is looked for next.
    clock: SettledClock,
    next_chore: Monotonic,
}

impl Inbound {
    pub(super) fn new(me: PeerId, limits: &Limits, stored: Stored, now: Now) -> Self {
        let sessions = stored.sessions.into_iter().map(|row| {
            let secret = SessionSecret::from_bytes(row.secret);
            let keys = secret.keys();
            let (created, stored) = (row.created, true);
            let session = InSession { secret, keys, created, stored, vouched: false };
            ((row.sender, row.session), session)
        });
        let windows =
            stored.windows.iter().map(|row| ((row.sender, row.incarnation), Window::from_row(row)));
        let partials = stored.partials.iter().map(|row| {
            let mut partial = Partial::new(row.total, row.expires);
            for index in &row.indexes {
                partial.add(*index);
            }
            (row.key, partial)
        });
        let partials: BTreeMap<_, _> = partials.collect();
        Self {
            me,
            message_bytes_max: limits.message_bytes_max,
            inbox_bytes_max: limits.inbox_bytes_max,
            strangers_bytes_max: limits.strangers_bytes_max(),
            sessions_max: limits.sessions_max,
            sessions: sessions.collect(),
            windows: windows.collect(),
            reserved_bytes: partials.values().map(Partial::rest).sum(),
            partials,
            last_cursor: stored.last_cursor,
            inbox_bytes: stored.inbox_bytes,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            batch: None,
            chores: Chores::default(),
            chores_from: now.mono,
            vouched_openings: Openings::new(now),
            openings: Openings::new(now),
            clock: SettledClock::default(),
            next_chore: now.mono,
        }
    }

    pub(super) fn adopt_limits(&mut self, limits: &Limits) {
        self.message_bytes_max = limits.message_bytes_max;
        self.inbox_bytes_max = limits.inbox_bytes_max;
        self.strangers_bytes_max = limits.strangers_bytes_max();
        self.sessions_max = limits.sessions_max;
        while self.sessions.len() > self.sessions_max
            && let Some(key) = self.most_dispensable_session()
        {
            self.remove_session(key);
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.inbox_bytes
    }

    pub(super) const fn last_cursor(&self) -> Cursor {
        self.last_cursor
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.chores_deadline()
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 10] {
        let inbox_bytes = self.inbox_bytes.saturating_add(self.reserved_bytes);
        let batch = self.batch.as_ref().map_or(0, |batch| batch.accepted.len());
        let chores_max = self.sessions_max + assess::WINDOWS_MAX + assess::PARTIALS_MAX;
        [
            Occupancy::new("sessions with us", self.sessions.len(), self.sessions_max),
            Occupancy::new("windows", self.windows.len(), assess::WINDOWS_MAX),
            Occupancy::new("messages in parts", self.partials.len(), assess::PARTIALS_MAX),
            Occupancy { table: "inbox bytes", used: inbox_bytes, limit: self.inbox_bytes_max },
            Occupancy::new(
                "bytes of opened envelopes",
                self.waiting_bytes,
                WAITING_BYTES_MAX + OPENED_OVERHEAD_BYTES,
            ),
            Occupancy::new(
                "opened envelopes",
                self.waiting.len(),
                WAITING_BYTES_MAX / OPENED_OVERHEAD_BYTES,
            ),
            Occupancy::new("batch", batch, BATCH_BYTES_MAX / OPENED_OVERHEAD_BYTES + 1),
            Occupancy::new("chores", self.chores.len(), chores_max),
            self.openings.signatures.occupancy("openings to check"),
            self.openings.sessions.occupancy("openings to open"),
        ]
    }

    /// An envelope for us came.
    pub(super) fn on_envelope(
        &mut self,
        now: Now,
        delivery: &Delivery,
        prekeys: &Prekeys,
        out: &mut VecDeque<Output>,
    ) {
        let Delivery { envelope, vouched, .. } = delivery;
        let header = envelope.header;
        if header.destination != self.me
            || header.source == self.me
            || self.waiting_bytes.saturating_add(envelope.tail.len()) > WAITING_BYTES_MAX
        {
            return;
        }
        let Ok(tail) = Tail::decode(envelope.tail.clone()) else { return };
        let key = (header.source, header.session);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.vouched = *vouched;
            let opened = open(&session.keys, &header, &tail.sealed, *vouched);
            return opened.into_iter().for_each(|opened| self.wait(opened));
        }
        match self.accept(now, delivery, tail.opening.as_ref(), prekeys) {
            // Only an opening whose envelope opens becomes a session.
            Ok(session) => {
                if let Some(opened) = open(&session.keys, &header, &tail.sealed, *vouched) {
                    self.insert_session(key, session);
                    self.wait(opened);
                }
            }
            Err(Some(kind)) => out.push_back(Output::Notify { kind, header }),
            Err(None) => {}
        }
    }

    /// Makes a batch of what waits, unless there is one under way.
    pub(super) fn flush(&mut self, now: Now, out: &mut VecDeque<Output>) {
        let are_chores_due = !self.chores.is_empty() && now.mono >= self.chores_from;
        if self.batch.is_some() || (self.waiting.is_empty() && !are_chores_due) {
            return;
        }
        let mut batch = Box::new(Batch::after(self.last_cursor));
        if are_chores_due {
            batch.chores = self.take_chores(now);
        }
        batch.changes = batch.chores.changes();
        for (run, floor) in batch.chores.skips.clone() {
            self.skip(now, &mut batch, run, floor);
        }
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(opened) = self.waiting.pop_front()
        {
            bytes += opened.bytes;
            self.waiting_bytes -= opened.bytes;
            match self.assess(now, &batch, &opened) {
                Ok(needed) => self.apply(now, &mut batch, opened, needed),
                Err(Refusal::Notice(kind)) => {
                    out.push_back(Output::Notify { kind, header: opened.header });
                }
                Err(Refusal::Silence) => {}
            }
        }
        for ((sender, incarnation), window) in &batch.windows {
            batch.changes.push(Change::Window(Box::new(window.to_row(*sender, *incarnation))));
        }
        if batch.changes.is_empty() {
            // Only duplicates of what is on disk: their receipts got lost.
            reveal(&batch.accepted, out);
            return;
        }
        out.push_back(Output::Store(std::mem::take(&mut batch.changes)));
        self.batch = Some(batch);
    }

    /// The batch is on disk: it becomes true.
    pub(super) fn on_stored(&mut self, now: Now, kept_windows: &[Run], out: &mut VecDeque<Output>) {
        let Some(batch) = self.batch.take() else { return };
        self.on_chores_done(now, &batch.chores, kept_windows);
        for session in &batch.sessions {
            if let Some(session) = self.sessions.get_mut(session) {
                session.stored = true;
            }
        }
        self.windows.extend(batch.windows);
        for (key, partial) in batch.partials {
            let rest = partial.as_ref().map_or(0, Partial::rest);
            let before = match partial {
                Some(partial) => self.partials.insert(key, partial),
                None => self.partials.remove(&key),
            };
            let before = before.as_ref().map_or(0, Partial::rest);
            self.reserved_bytes = self.reserved_bytes.saturating_add(rest).saturating_sub(before);
        }
        self.last_cursor = batch.last_cursor;
        let with_batch = self.inbox_bytes.saturating_add(batch.bytes);
        self.inbox_bytes = with_batch.saturating_sub(batch.bytes_dropped);
        reveal(&batch.accepted, out);
        if !batch.arrivals.is_empty() {
            out.push_back(Output::Arrived(batch.arrivals));
        }
    }

    /// There was no room for the batch: it never happened.
    pub(super) fn on_store_full(&mut self, now: Now, out: &mut VecDeque<Output>) {
        let Some(batch) = self.batch.take() else { return };
        // What came up meanwhile stays due as well. Not at once: nothing has changed.
        self.on_chores_refused(now, batch.chores);
        for (header, _) in batch.accepted {
            out.push_back(Output::Notify { kind: NoticeKind::Full, header });
        }
    }

    pub(super) const fn on_pruned(&mut self, bytes: u64) {
        self.inbox_bytes = self.inbox_bytes.saturating_sub(bytes);
    }

    fn wait(&mut self, opened: Opened) {
        self.waiting_bytes += opened.bytes;
        self.waiting.push_back(opened);
    }
}

impl Openings {
    const fn new(now: Now) -> Self {
        Self {
            signatures: FairBucket::new(SIGNATURES_PER_SECOND, now.mono),
            sessions: FairBucket::new(OPENINGS_PER_SECOND, now.mono),
        }
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("sessions", &self.sessions.len())
            .field("windows", &self.windows.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Opens an envelope and checks that its receipt will match its commitment.
fn open(keys: &SealingKeys, header: &Header, sealed: &Bytes, vouched: bool) -> Option<Opened> {
    let mut content = sealed.to_vec();
    let length = keys.open(header.counter, &header.aad(), &mut content).ok()?.len();
    content.truncate(length);
    let receipt = keys.receipt(header.counter);
    if commitment_of(&receipt) != header.commitment {
        return None;
    }
    let payload = Payload::decode(content.into()).ok()?;
    let bytes = sealed.len() + OPENED_OVERHEAD_BYTES;
    Some(Opened { header: *header, receipt, payload, bytes, vouched })
}

fn reveal(accepted: &[(Header, [u8; 32])], out: &mut VecDeque<Output>) {
    out.extend(accepted.iter().map(|(_, preimage)| Output::Reveal { preimage: *preimage }));
}
