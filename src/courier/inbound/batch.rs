//! One batch: what the envelopes in it change, worked out on copies.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::chores::Chores;
use super::partial::Partial;
use super::{Arrival, Change, Inbound, Opened, Run};
use crate::courier::window::{Place, Window};
use crate::crypto::message_id;
use crate::model::limits::stored_bytes;
use crate::model::{
    Cursor, Incarnation, Incoming, IncomingChunk, Now, PeerId, ReceivedKey, Sequence, SessionId,
    SessionRow, Timestamp, Uid,
};
use crate::wire::{Header, Item, Payload};

/// What a batch worked out, until it is on disk.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) windows: BTreeMap<(PeerId, Incarnation), Window>,
    /// How many of these are new, by sender.
    pub(super) new_windows: BTreeMap<PeerId, usize>,
    pub(super) partials: BTreeMap<ReceivedKey, Option<Partial>>,
    pub(super) sessions: Vec<(PeerId, SessionId)>,
    pub(super) accepted: Vec<(Header, [u8; 32])>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) changes: Vec<Change>,
    /// What goes along though nothing received asked for it.
    pub(super) chores: Chores,
    pub(super) last_cursor: Cursor,
    /// What its envelopes needed, unfinished messages as a whole.
    pub(super) reserved: u64,
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
    /// Takes an envelope that was assessed into the batch.
    pub(super) fn apply(&self, now: Now, batch: &mut Batch, opened: Opened, needed: u64) {
        let Opened { header, receipt, payload, bytes, .. } = opened;
        // A body is a slice of what it came in, and keeps it in memory: not if it is little of it.
        let is_sparse = usize::try_from(needed).unwrap_or(usize::MAX) < bytes / 4;
        batch.reserved = batch.reserved.saturating_add(needed);
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

    /// What a batch knows of a sender's run so far.
    pub(super) fn known<'a>(
        &'a self,
        batch: &'a Batch,
        key: &(PeerId, Incarnation),
    ) -> Option<&'a Window> {
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

    /// Gives up what has not come below a number. That is our word, not its sender's: whatever of
    /// it comes after all is not receipted.
    pub(super) fn skip(&self, now: Now, batch: &mut Batch, run: Run, floor: Sequence) {
        let window = self.window(now, batch, run);
        if floor > window.base() {
            let released = window.give_up_to(floor);
            self.release(batch, run.0, run.1, released);
        }
        self.drop_partials(batch, run, floor);
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
        if !partial.is_whole() {
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
