//! Receiving: open, check, put in order, store, and only then reveal.
//!
//! Envelopes are opened as they come and wait for the next batch. A batch is worked out on copies
//! of the windows it touches and becomes true only when the store says so; there is one batch at a
//! time, so what a refused batch worked out is simply dropped.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;

use super::prekeys::Prekeys;
use super::session::opening_holds;
use super::window::{Place, Window};
use super::{Arrival, Change, Output, Stored};
use crate::crypto::{SealingKeys, SessionContext, SessionSecret, commitment_of, message_id};
use crate::model::limits::{
    CHUNK_BYTES, CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, PREKEY_LIFETIME, SESSION_LIFETIME, WINDOW,
};
use crate::model::{
    Bucket, Cursor, Incarnation, Incoming, IncomingChunk, Limits, Monotonic, Now, PeerId,
    ReceivedKey, Sequence, SessionId, SessionRow, Span, Timestamp, Uid,
};
use crate::wire::{Envelope, Header, Item, NoticeKind, Opening, Payload, Tail};

/// How often what is too old is looked for.
const CHORE_INTERVAL: Span = Span::from_secs(600);
/// Bytes of opened envelopes that wait for the batch before them; more are dropped and come again.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one batch: bounds how long a commit takes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Sessions one sender may have with us: more, and its own oldest goes.
const SESSIONS_PER_SENDER_MAX: usize = 8;
/// Windows one sender may have with us: as many restarts in eight days, with undelivered messages
/// each time.
const WINDOWS_PER_SENDER_MAX: usize = 256;
/// Windows in all.
const WINDOWS_MAX: usize = 100_000;
/// Openings a second, each a signature check and a decapsulation: from strangers, and the same
/// again from senders that have a session or a window.
const OPENINGS_PER_SECOND: u32 = 100;
/// Openings at once.
const OPENINGS_BURST: u32 = 200;
/// A window outlives every prekey that its messages can have been sealed to.
const WINDOW_LIFETIME: Span = Span::from_micros(PREKEY_LIFETIME.as_micros() + 86_400_000_000);

/// A session another opened with us.
struct InSession {
    secret: SessionSecret,
    keys: SealingKeys,
    created: Timestamp,
    /// Whether it is on disk.
    stored: bool,
}

/// A message of which some chunks are there.
#[derive(Debug, Clone)]
struct Partial {
    total: u64,
    expires: Timestamp,
    /// One bit a chunk.
    chunks: Vec<u64>,
    missing: usize,
    bytes: u64,
}

/// An envelope that was opened and waits for its batch.
struct Opened {
    header: Header,
    receipt: [u8; 32],
    payload: Payload,
    bytes: usize,
}

/// What a batch worked out, until it is on disk.
#[derive(Default)]
struct Batch {
    windows: BTreeMap<(PeerId, Incarnation), Window>,
    partials: BTreeMap<ReceivedKey, Option<Partial>>,
    sessions: Vec<(PeerId, SessionId)>,
    accepted: Vec<(Header, [u8; 32])>,
    arrivals: Vec<Arrival>,
    changes: Vec<Change>,
    /// Windows that had to go for new ones.
    crowded_out: Vec<(PeerId, Incarnation)>,
    /// Changes that nothing received asked for; asked for again if the batch is refused.
    chores: Vec<Change>,
    last_cursor: Cursor,
    bytes: u64,
}

/// The receiving half of a courier.
pub(super) struct Inbound {
    me: PeerId,
    message_bytes_max: usize,
    inbox_bytes_max: u64,
    sessions_max: usize,
    sessions: BTreeMap<(PeerId, SessionId), InSession>,
    windows: BTreeMap<(PeerId, Incarnation), Window>,
    partials: BTreeMap<ReceivedKey, Partial>,
    last_cursor: Cursor,
    inbox_bytes: u64,
    waiting: VecDeque<Opened>,
    waiting_bytes: usize,
    batch: Option<Box<Batch>>,
    chores: Vec<Change>,
    strangers: Bucket,
    acquaintances: Bucket,
    next_chore: Monotonic,
}

impl Inbound {
    pub(super) fn new(me: PeerId, limits: &Limits, stored: Stored, now: Now) -> Self {
        let sessions = stored.sessions.into_iter().map(|row| {
            let secret = SessionSecret::from_bytes(row.secret);
            let keys = secret.keys();
            let session = InSession { secret, keys, created: row.created, stored: true };
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
        Self {
            me,
            message_bytes_max: limits.message_bytes_max,
            inbox_bytes_max: limits.inbox_bytes_max,
            sessions_max: limits.sessions_max,
            sessions: sessions.collect(),
            windows: windows.collect(),
            partials: partials.collect(),
            last_cursor: stored.last_cursor,
            inbox_bytes: stored.inbox_bytes,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            batch: None,
            chores: Vec::new(),
            strangers: Bucket::new(OPENINGS_PER_SECOND, OPENINGS_BURST, now.mono),
            acquaintances: Bucket::new(OPENINGS_PER_SECOND, OPENINGS_BURST, now.mono),
            next_chore: now.mono,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.inbox_bytes
    }

    pub(super) const fn last_cursor(&self) -> Cursor {
        self.last_cursor
    }

    pub(super) const fn deadline(&self) -> Monotonic {
        self.next_chore
    }

    /// An envelope for us came.
    pub(super) fn on_envelope(
        &mut self,
        now: Now,
        envelope: &Envelope,
        prekeys: &Prekeys,
        out: &mut VecDeque<Output>,
    ) {
        let header = envelope.header;
        if header.destination != self.me
            || header.source == self.me
            || self.waiting_bytes.saturating_add(envelope.tail.len()) > WAITING_BYTES_MAX
        {
            return;
        }
        let Ok(tail) = Tail::decode(envelope.tail.clone()) else { return };
        let session = (header.source, header.session);
        if !self.sessions.contains_key(&session) {
            match self.accept(now, &header, tail.opening.as_ref(), prekeys) {
                Ok(accepted) => {
                    // Only an opening whose envelope opens becomes a session.
                    if let Some(opened) = open(&accepted.keys, &header, &tail.sealed) {
                        self.insert_session(session, accepted);
                        self.wait(opened);
                    }
                }
                Err(Some(kind)) => out.push_back(Output::Notify { kind, header }),
                Err(None) => {}
            }
            return;
        }
        let known = self.sessions.get(&session);
        if let Some(opened) = known.and_then(|known| open(&known.keys, &header, &tail.sealed)) {
            self.wait(opened);
        }
    }

    /// Makes a batch of what waits, unless there is one under way.
    pub(super) fn flush(&mut self, now: Now, out: &mut VecDeque<Output>) {
        if self.batch.is_some() || (self.waiting.is_empty() && self.chores.is_empty()) {
            return;
        }
        let mut batch = Box::new(Batch { last_cursor: self.last_cursor, ..Batch::default() });
        batch.chores = std::mem::take(&mut self.chores);
        batch.changes.clone_from(&batch.chores);
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(opened) = self.waiting.pop_front()
        {
            bytes += opened.bytes;
            self.waiting_bytes -= opened.bytes;
            match self.refusal(now, &batch, &opened) {
                None => self.apply(now, &mut batch, opened),
                Some(Refusal::Notice(kind)) => {
                    out.push_back(Output::Notify { kind, header: opened.header });
                }
                Some(Refusal::Silence) => {}
            }
        }
        for (sender, incarnation) in &batch.crowded_out {
            let (sender, incarnation) = (*sender, *incarnation);
            batch.changes.push(Change::DropWindow { sender, incarnation });
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
    pub(super) fn on_stored(&mut self, out: &mut VecDeque<Output>) {
        let Some(batch) = self.batch.take() else { return };
        for session in &batch.sessions {
            if let Some(session) = self.sessions.get_mut(session) {
                session.stored = true;
            }
        }
        for crowded_out in &batch.crowded_out {
            self.windows.remove(crowded_out);
        }
        self.windows.extend(batch.windows);
        for (key, partial) in batch.partials {
            match partial {
                Some(partial) => self.partials.insert(key, partial),
                None => self.partials.remove(&key),
            };
        }
        self.last_cursor = batch.last_cursor;
        self.inbox_bytes = self.inbox_bytes.saturating_add(batch.bytes);
        reveal(&batch.accepted, out);
        if !batch.arrivals.is_empty() {
            out.push_back(Output::Arrived(batch.arrivals));
        }
    }

    /// There was no room for the batch: it never happened.
    pub(super) fn on_store_full(&mut self, out: &mut VecDeque<Output>) {
        let Some(batch) = self.batch.take() else { return };
        self.chores = batch.chores;
        for (header, _) in batch.accepted {
            out.push_back(Output::Notify { kind: NoticeKind::Full, header });
        }
    }

    pub(super) const fn on_pruned(&mut self, bytes: u64) {
        self.inbox_bytes = self.inbox_bytes.saturating_sub(bytes);
    }

    /// Looks for what is too old.
    pub(super) fn tick(&mut self, now: Now) {
        // While a batch is under way its windows and chunks may be about to change.
        if now.mono < self.next_chore || self.batch.is_some() {
            return;
        }
        self.next_chore = now.mono + CHORE_INTERVAL;
        let chores = &mut self.chores;
        self.sessions.retain(|(sender, session), state| {
            let keep = now.wall < state.created + SESSION_LIFETIME;
            if !keep {
                chores.push(Change::DropSession { sender: *sender, session: *session });
            }
            keep
        });
        let mut dropped = 0;
        self.partials.retain(|key, partial| {
            let keep = now.wall < partial.expires + CLOCK_SKEW_MAX;
            if !keep {
                dropped += partial.bytes;
                chores.push(Change::DropChunks(*key));
            }
            keep
        });
        self.inbox_bytes = self.inbox_bytes.saturating_sub(dropped);
        self.release_stale(now);
        let chores = &mut self.chores;
        self.windows.retain(|(sender, incarnation), window| {
            let keep = now.wall < window.touched + WINDOW_LIFETIME || !window.is_in_order();
            if !keep {
                let (sender, incarnation) = (*sender, *incarnation);
                chores.push(Change::DropWindow { sender, incarnation });
            }
            keep
        });
    }

    /// Messages held for others that have expired by now need not wait any longer. The gap is
    /// closed by an envelope of our own making, which goes the way of all others.
    fn release_stale(&mut self, now: Now) {
        for ((sender, incarnation), window) in &self.windows {
            if window.is_in_order() || now.wall < window.touched + MESSAGE_LIFETIME_MAX {
                continue;
            }
            let mut skipped = window.clone();
            let floor = skipped.skip_all().last().map_or(Sequence::FIRST, |last| last.next());
            let payload = Payload { incarnation: *incarnation, floor, items: Vec::new() };
            let header = Header {
                source: *sender,
                destination: self.me,
                session: SessionId(0),
                counter: 0,
                commitment: [0; 32],
            };
            self.waiting.push_back(Opened { header, receipt: [0; 32], payload, bytes: 0 });
        }
    }

    /// Checks an opening and accepts its session; else what to answer, if anything.
    fn accept(
        &mut self,
        now: Now,
        header: &Header,
        opening: Option<&Opening>,
        prekeys: &Prekeys,
    ) -> Result<InSession, Option<NoticeKind>> {
        let opening = opening.ok_or(Some(NoticeKind::Reset))?;
        let Some(prekey) = prekeys.secret(opening.prekey, now) else {
            return Err(Some(NoticeKind::Reset));
        };
        let known = self.is_acquainted(&header.source);
        let bucket = if known { &mut self.acquaintances } else { &mut self.strangers };
        if !bucket.take(now.mono) {
            return Err(None);
        }
        let context = SessionContext {
            sender: header.source,
            recipient: self.me,
            session: header.session,
            prekey: opening.prekey,
        };
        if !opening_holds(&context, opening) {
            return Err(None);
        }
        let secret = SessionSecret::accept(prekey, &opening.encapsulation, &context);
        let secret = secret.map_err(|_| None)?;
        let keys = secret.keys();
        Ok(InSession { secret, keys, created: now.wall, stored: false })
    }

    fn is_acquainted(&self, sender: &PeerId) -> bool {
        let sessions =
            self.sessions.range((*sender, SessionId(0))..=(*sender, SessionId(u64::MAX)));
        let runs = (*sender, Incarnation(0))..=(*sender, Incarnation(u64::MAX));
        sessions.take(1).count() > 0 || self.windows.range(runs).next().is_some()
    }

    fn insert_session(&mut self, key: (PeerId, SessionId), session: InSession) {
        let own = (key.0, SessionId(0))..=(key.0, SessionId(u64::MAX));
        let own_oldest = self.sessions.range(own.clone()).min_by_key(|(_, s)| s.created);
        let evicted = if self.sessions.range(own).count() >= SESSIONS_PER_SENDER_MAX {
            own_oldest.map(|(key, _)| *key)
        } else if self.sessions.len() >= self.sessions_max {
            self.sessions.iter().min_by_key(|(_, s)| s.created).map(|(key, _)| *key)
        } else {
            None
        };
        if let Some((sender, session)) = evicted {
            self.sessions.remove(&(sender, session));
            self.chores.push(Change::DropSession { sender, session });
        }
        self.sessions.insert(key, session);
    }

    fn wait(&mut self, opened: Opened) {
        self.waiting_bytes += opened.bytes;
        self.waiting.push_back(opened);
    }

    /// Why an envelope cannot be taken as a whole, if so. An envelope is taken whole or not at all.
    fn refusal(&self, now: Now, batch: &Batch, opened: &Opened) -> Option<Refusal> {
        let key = (opened.header.source, opened.payload.incarnation);
        let window = self.known(batch, &key);
        let mut bytes = 0;
        for item in &opened.payload.items {
            let (sequence, expires, size, total) = match item {
                Item::Ping => continue,
                Item::Message { sequence, expires, body, .. } => {
                    (*sequence, *expires, body.len(), body.len())
                }
                Item::Chunk { sequence, expires, bytes, total, .. } => {
                    let total = usize::try_from(*total).unwrap_or(usize::MAX);
                    (*sequence, *expires, bytes.len(), total)
                }
            };
            if total > self.message_bytes_max {
                return Some(Refusal::Notice(NoticeKind::TooLarge));
            }
            let place = window.map_or(Place::New, |window| window.place(sequence));
            let unborn = expires > now.wall + MESSAGE_LIFETIME_MAX + CLOCK_SKEW_MAX;
            // A floor moves the window before the items are placed, so only what is beyond even
            // then is refused: the sender's own floor bounds how far ahead it may be.
            let ahead = sequence.0.saturating_sub(opened.payload.floor.0) >= WINDOW;
            match place {
                Place::Past => continue,
                _ if expires + CLOCK_SKEW_MAX < now.wall || unborn || ahead => {
                    return Some(Refusal::Silence);
                }
                Place::New | Place::Beyond => bytes += size as u64,
            }
        }
        let total = self.inbox_bytes.saturating_add(batch.bytes).saturating_add(bytes);
        (bytes > 0 && total > self.inbox_bytes_max).then_some(Refusal::Notice(NoticeKind::Full))
    }

    fn apply(&self, now: Now, batch: &mut Batch, opened: Opened) {
        let Opened { header, receipt, payload, .. } = opened;
        let sender = header.source;
        if let Some(session) = self.sessions.get(&(sender, header.session))
            && !session.stored
            && !batch.sessions.contains(&(sender, header.session))
        {
            batch.sessions.push((sender, header.session));
            batch.changes.push(Change::Session(Box::new(SessionRow {
                sender,
                session: header.session,
                secret: session.secret.as_bytes().clone(),
                created: session.created,
            })));
        }
        self.apply_floor(now, batch, sender, &payload);
        for item in payload.items {
            match item {
                Item::Ping => {}
                Item::Message { sequence, sent, subject, body, .. } => {
                    let key = ReceivedKey { sender, incarnation: payload.incarnation, sequence };
                    let message = Message { sent, subject, body };
                    self.apply_message(now, batch, key, message);
                }
                Item::Chunk { sequence, sent, expires, subject, total, index, bytes } => {
                    let key = ReceivedKey { sender, incarnation: payload.incarnation, sequence };
                    let chunk = IncomingChunk { key, index, total, sent, expires, subject, bytes };
                    self.apply_chunk(now, batch, chunk);
                }
            }
        }
        batch.accepted.push((header, receipt));
    }

    /// The window of a sender's run, for this batch to change.
    fn window<'a>(
        &self,
        now: Now,
        batch: &'a mut Batch,
        key: (PeerId, Incarnation),
    ) -> &'a mut Window {
        let crowded_out = &mut batch.crowded_out;
        let window = batch.windows.entry(key).or_insert_with(|| {
            self.windows.get(&key).cloned().unwrap_or_else(|| {
                crowded_out.extend(self.crowded_out(&key.0));
                Window::new(now.wall)
            })
        });
        window.touched = now.wall;
        window
    }

    /// The window that has to go for a new one, if there are too many.
    fn crowded_out(&self, sender: &PeerId) -> Option<(PeerId, Incarnation)> {
        let own =
            || self.windows.range((*sender, Incarnation(0))..=(*sender, Incarnation(u64::MAX)));
        let oldest = if own().count() >= WINDOWS_PER_SENDER_MAX {
            own().min_by_key(|(_, window)| window.touched)
        } else if self.windows.len() >= WINDOWS_MAX {
            self.windows.iter().min_by_key(|(_, window)| window.touched)
        } else {
            None
        };
        oldest.map(|(key, _)| *key)
    }

    /// What a batch knows of a sender's run so far.
    fn known<'a>(&'a self, batch: &'a Batch, key: &(PeerId, Incarnation)) -> Option<&'a Window> {
        batch.windows.get(key).or_else(|| self.windows.get(key))
    }

    fn apply_floor(&self, now: Now, batch: &mut Batch, sender: PeerId, payload: &Payload) {
        let key = (sender, payload.incarnation);
        let base = self.known(batch, &key).map_or(Sequence::FIRST, Window::base);
        if payload.floor > base {
            let released = self.window(now, batch, key).skip_to(payload.floor);
            self.release(batch, sender, payload.incarnation, released);
        }
    }

    fn apply_message(&self, now: Now, batch: &mut Batch, key: ReceivedKey, message: Message) {
        let run = (key.sender, key.incarnation);
        if self.known(batch, &run).is_some_and(|window| window.place(key.sequence) != Place::New) {
            return;
        }
        let window = self.window(now, batch, run);
        let next = window.is_next(key.sequence);
        let released = window.receive(key.sequence);
        batch.bytes = batch.bytes.saturating_add(message.body.len() as u64);
        let incoming = Incoming {
            key,
            cursor: if next { batch.advance() } else { Cursor(0) },
            id: message_id(&self.uid(&key)),
            sent: message.sent,
            received: now.wall,
            subject: message.subject,
            body: message.body,
        };
        if next {
            batch.arrivals.push(Arrival {
                cursor: incoming.cursor,
                sender: key.sender,
                message: Some(incoming.clone()),
            });
            batch.changes.push(Change::Deliver(Box::new(incoming)));
        } else {
            batch.changes.push(Change::Hold(Box::new(incoming)));
        }
        self.release(batch, key.sender, key.incarnation, released);
    }

    fn apply_chunk(&self, now: Now, batch: &mut Batch, chunk: IncomingChunk) {
        let key = chunk.key;
        let run = (key.sender, key.incarnation);
        if self.known(batch, &run).is_some_and(|window| window.place(key.sequence) != Place::New) {
            return;
        }
        let known = match batch.partials.get(&key) {
            Some(staged) => staged.clone(),
            None => self.partials.get(&key).cloned(),
        };
        let mut partial = known.unwrap_or_else(|| Partial::new(chunk.total, chunk.expires));
        // A sender that changes its mind about a message's length gets no receipt for the change to
        // rely on; the first length stands.
        if partial.total != chunk.total || !partial.add(chunk.index) {
            return;
        }
        batch.bytes = batch.bytes.saturating_add(chunk.bytes.len() as u64);
        batch.changes.push(Change::Chunk(Box::new(chunk)));
        if partial.missing > 0 {
            batch.partials.insert(key, Some(partial));
            return;
        }
        batch.partials.insert(key, None);
        let window = self.window(now, batch, run);
        let next = window.is_next(key.sequence);
        let released = window.receive(key.sequence);
        let cursor = next.then(|| batch.advance());
        let (id, received) = (message_id(&self.uid(&key)), now.wall);
        batch.changes.push(Change::Assemble { key, id, cursor, received });
        if let Some(cursor) = cursor {
            batch.arrivals.push(Arrival { cursor, sender: key.sender, message: None });
        }
        self.release(batch, key.sender, key.incarnation, released);
    }

    /// Gives held messages their place in the inbox.
    fn release(
        &self,
        batch: &mut Batch,
        sender: PeerId,
        incarnation: Incarnation,
        released: Vec<Sequence>,
    ) {
        for sequence in released {
            let (key, cursor) = (ReceivedKey { sender, incarnation, sequence }, batch.advance());
            batch.changes.push(Change::Release { key, cursor });
            batch.arrivals.push(Arrival { cursor, sender, message: None });
        }
    }

    const fn uid(&self, key: &ReceivedKey) -> Uid {
        Uid {
            sender: key.sender,
            recipient: self.me,
            incarnation: key.incarnation,
            sequence: key.sequence,
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

impl Batch {
    /// The next place in the inbox.
    const fn advance(&mut self) -> Cursor {
        self.last_cursor = Cursor(self.last_cursor.0 + 1);
        self.last_cursor
    }
}

impl Partial {
    fn new(total: u64, expires: Timestamp) -> Self {
        let chunks = usize::try_from(total).unwrap_or(usize::MAX).div_ceil(CHUNK_BYTES);
        Self { total, expires, chunks: vec![0; chunks.div_ceil(64)], missing: chunks, bytes: 0 }
    }

    /// Notes a chunk; false if it was there already.
    fn add(&mut self, index: u16) -> bool {
        let bit = 1 << (index % 64);
        match self.chunks.get_mut(usize::from(index / 64)) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.missing = self.missing.saturating_sub(1);
                self.bytes = self.bytes.saturating_add(CHUNK_BYTES as u64).min(self.total);
                true
            }
            _ => false,
        }
    }
}

/// A whole message's content.
struct Message {
    sent: Timestamp,
    subject: Option<Box<str>>,
    body: Bytes,
}

/// How an envelope is refused.
enum Refusal {
    /// Its source is told.
    Notice(NoticeKind),
    /// Its source will notice by itself, or is not well-behaved.
    Silence,
}

/// Opens an envelope and checks that its receipt will match its commitment.
fn open(keys: &SealingKeys, header: &Header, sealed: &Bytes) -> Option<Opened> {
    let mut content = sealed.to_vec();
    let length = keys.open(header.counter, &header.aad(), &mut content).ok()?.len();
    content.truncate(length);
    let receipt = keys.receipt(header.counter);
    if commitment_of(&receipt) != header.commitment {
        return None;
    }
    let payload = Payload::decode(content.into()).ok()?;
    Some(Opened { header: *header, receipt, payload, bytes: sealed.len() })
}

fn reveal(accepted: &[(Header, [u8; 32])], out: &mut VecDeque<Output>) {
    // A commitment of zeros is our own making: see `release_stale`.
    let real = accepted.iter().filter(|(header, _)| header.commitment != [0; 32]);
    out.extend(real.map(|(_, preimage)| Output::Reveal { preimage: *preimage }));
}
