//! One batch: what the envelopes in it change, worked out on copies.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::partial::Partial;
use super::{Arrival, Change, Inbound, Opened};
use crate::courier::window::{Place, Window};
use crate::crypto::message_id;
use crate::model::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, WINDOW, stored_bytes};
use crate::model::{
    Cursor, Incarnation, Incoming, IncomingChunk, Now, PeerId, ReceivedKey, Sequence, SessionId,
    SessionRow, Timestamp, Uid,
};
use crate::wire::{Header, Item, NoticeKind, Payload};

/// Windows one sender may have with us: as many restarts in nine days, with undelivered messages
/// each time. A window is never dropped to make room: it is what stands between a message that is
/// sent again and a second copy in the inbox.
const WINDOWS_PER_SENDER_MAX: usize = 256;
/// Windows of senders that the operator does not know, in all.
const WINDOWS_MAX: usize = 100_000;
/// Messages one sender may have begun and not finished: several times what an honest one keeps on
/// the way at once.
const PARTIALS_PER_SENDER_MAX: usize = 256;
/// Messages that senders the operator does not know have begun and not finished, in all.
const PARTIALS_MAX: usize = 10_000;

/// What a batch worked out, until it is on disk.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) windows: BTreeMap<(PeerId, Incarnation), Window>,
    /// How many of these are new, by sender.
    new_windows: BTreeMap<PeerId, usize>,
    pub(super) partials: BTreeMap<ReceivedKey, Option<Partial>>,
    pub(super) sessions: Vec<(PeerId, SessionId)>,
    pub(super) accepted: Vec<(Header, [u8; 32])>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) changes: Vec<Change>,
    /// Changes that nothing received asked for; asked for again if the batch is refused.
    pub(super) chores: Vec<Change>,
    pub(super) last_cursor: Cursor,
    /// What it adds to the inbox.
    pub(super) bytes: u64,
    /// What it takes from it.
    pub(super) bytes_dropped: u64,
}

impl Batch {
    /// An empty batch that gives the places after this one.
    pub(super) fn after(last_cursor: Cursor) -> Self {
        Self { last_cursor, ..Self::default() }
    }

    /// The next place in the inbox.
    const fn advance(&mut self) -> Cursor {
        self.last_cursor = Cursor(self.last_cursor.0 + 1);
        self.last_cursor
    }
}

impl Inbound {
    /// What an envelope adds to the inbox, or why it cannot be taken: an envelope is taken whole or
    /// not at all.
    pub(super) fn assess(&self, now: Now, batch: &Batch, opened: &Opened) -> Result<u64, Refusal> {
        let key = (opened.header.source, opened.payload.incarnation);
        let window = self.known(batch, &key);
        if !self.has_room_for_state(batch, opened, window) {
            return Err(Refusal::Notice(NoticeKind::Full));
        }
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
                return Err(Refusal::Notice(NoticeKind::TooLarge));
            }
            let place = window.map_or(Place::New, |window| window.place(sequence));
            let unborn = expires > now.wall + MESSAGE_LIFETIME_MAX + CLOCK_SKEW_MAX;
            // A floor moves the window before the items are placed, so only what is beyond even
            // then is refused: the sender's own floor bounds how far ahead it may be.
            let ahead = sequence.0.saturating_sub(opened.payload.floor.0) >= WINDOW;
            match place {
                Place::Past => continue,
                _ if expires + CLOCK_SKEW_MAX < now.wall || unborn || ahead => {
                    return Err(Refusal::Silence);
                }
                Place::New | Place::Beyond => bytes += stored_bytes(size as u64),
            }
        }
        let total = self.inbox_bytes.saturating_add(batch.bytes).saturating_add(bytes);
        if bytes > 0 && total > self.inbox_bytes_max {
            return Err(Refusal::Notice(NoticeKind::Full));
        }
        Ok(bytes)
    }

    /// Takes an envelope that was assessed into the batch.
    pub(super) fn apply(&self, now: Now, batch: &mut Batch, opened: Opened, bytes_added: u64) {
        let Opened { header, receipt, payload, bytes, .. } = opened;
        // A body is a slice of what it came in, and keeps it in memory: not if it is little of it.
        let is_sparse = usize::try_from(bytes_added).unwrap_or(usize::MAX) < bytes / 4;
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
                    let body = if is_sparse { Bytes::copy_from_slice(&body) } else { body };
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
        let new_windows = &mut batch.new_windows;
        let window = batch.windows.entry(key).or_insert_with(|| {
            self.windows.get(&key).cloned().unwrap_or_else(|| {
                *new_windows.entry(key.0).or_insert(0) += 1;
                Window::new(now.wall)
            })
        });
        window.touched = now.wall;
        window
    }

    /// Whether what has to be remembered for an envelope is within bounds.
    fn has_room_for_state(&self, batch: &Batch, opened: &Opened, window: Option<&Window>) -> bool {
        let (sender, incarnation) = (opened.header.source, opened.payload.incarnation);
        let news = opened.payload.items.iter().filter_map(|item| match item {
            Item::Ping => None,
            Item::Message { sequence, .. } => Some((*sequence, false)),
            Item::Chunk { sequence, .. } => Some((*sequence, true)),
        });
        let (mut any, mut begun) = (false, 0);
        for (sequence, is_chunk) in news {
            let key = ReceivedKey { sender, incarnation, sequence };
            let known = batch.partials.contains_key(&key) || self.partials.contains_key(&key);
            any = true;
            begun += usize::from(is_chunk && !known);
        }
        (!any || window.is_some() || self.has_room_for_window(batch, &sender, opened.vouched))
            && (begun == 0 || self.has_room_for_partials(batch, &sender, begun, opened.vouched))
    }

    fn has_room_for_window(&self, batch: &Batch, sender: &PeerId, vouched: bool) -> bool {
        let own = (*sender, Incarnation(0))..=(*sender, Incarnation(u64::MAX));
        let own_new = batch.new_windows.get(sender).copied().unwrap_or(0);
        let new: usize = batch.new_windows.values().sum();
        self.windows.range(own).count() + own_new < WINDOWS_PER_SENDER_MAX
            && (vouched || self.windows.len() + new < WINDOWS_MAX)
    }

    /// Those that a batch finishes count as long as it is not on disk.
    fn has_room_for_partials(
        &self,
        batch: &Batch,
        sender: &PeerId,
        begun: usize,
        vouched: bool,
    ) -> bool {
        let key = |incarnation, sequence| ReceivedKey { sender: *sender, incarnation, sequence };
        let own = key(Incarnation(0), Sequence(0))..=key(Incarnation(u64::MAX), Sequence(u64::MAX));
        let own = self.partials.range(own.clone()).count() + batch.partials.range(own).count();
        own + begun <= PARTIALS_PER_SENDER_MAX
            && (vouched || self.partials.len() + batch.partials.len() + begun <= PARTIALS_MAX)
    }

    /// What a batch knows of a sender's run so far.
    fn known<'a>(&'a self, batch: &'a Batch, key: &(PeerId, Incarnation)) -> Option<&'a Window> {
        batch.windows.get(key).or_else(|| self.windows.get(key))
    }

    fn apply_floor(&self, now: Now, batch: &mut Batch, sender: PeerId, payload: &Payload) {
        let run = (sender, payload.incarnation);
        let Some(base) = self.known(batch, &run).map(Window::base) else {
            // A floor alone is not worth remembering.
            if payload.items.iter().any(|item| *item != Item::Ping) {
                self.window(now, batch, run).skip_to(payload.floor);
            }
            return;
        };
        if payload.floor > base {
            let released = self.window(now, batch, run).skip_to(payload.floor);
            self.release(batch, sender, payload.incarnation, released);
            self.drop_partials(batch, run, payload.floor);
        }
    }

    /// Drops what was begun and is not wanted any more.
    fn drop_partials(&self, batch: &mut Batch, run: (PeerId, Incarnation), floor: Sequence) {
        let key = |sequence| ReceivedKey { sender: run.0, incarnation: run.1, sequence };
        let below = key(Sequence(0))..key(floor);
        let staged = batch.partials.range(below.clone());
        let mut begun: Vec<_> =
            staged.filter_map(|(key, partial)| Some((*key, partial.as_ref()?.bytes))).collect();
        let before = self.partials.range(below).map(|(key, partial)| (*key, partial.bytes));
        begun.extend(before.filter(|(key, _)| !batch.partials.contains_key(key)));
        for (key, bytes) in begun {
            batch.bytes_dropped = batch.bytes_dropped.saturating_add(bytes);
            batch.partials.insert(key, None);
            batch.changes.push(Change::DropChunks(key));
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
        batch.bytes = batch.bytes.saturating_add(stored_bytes(message.body.len() as u64));
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
        batch.bytes = batch.bytes.saturating_add(stored_bytes(chunk.bytes.len() as u64));
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

/// A whole message's content.
struct Message {
    sent: Timestamp,
    subject: Option<Box<str>>,
    body: Bytes,
}

/// How an envelope is refused.
pub(super) enum Refusal {
    /// Its source is told.
    Notice(NoticeKind),
    /// Its source will notice by itself, or is not well-behaved.
    Silence,
}
