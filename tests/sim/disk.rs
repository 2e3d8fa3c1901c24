//! A store in memory: what is committed survives a crash, what is not is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use distmsg::model::{
    Cursor, GivenUp, Incarnation, Incoming, IncomingChunk, Outgoing, PartialRow, PeerId, PrekeyId,
    PrekeyRow, ReceivedKey, Row, SessionId, SessionRow, WindowRow,
};
use distmsg::store::op::{
    Answer, Completion, KeyRow, KeyState, ListenerRow, Op, OutboxSummary, OutgoingHead, PeerRow,
    Pruned, Query, Question, Snapshot, Stored, Transaction,
};

/// The tables of one node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    pub(crate) inbox: BTreeMap<Cursor, Incoming>,
    pub(crate) held: BTreeMap<ReceivedKey, Incoming>,
    chunks: BTreeMap<(ReceivedKey, u16), IncomingChunk>,
    pub(crate) outbox: BTreeMap<Row, Outgoing>,
    given_up: Vec<GivenUp>,
    keys: BTreeMap<Box<str>, (KeyRow, Outgoing)>,
    windows: BTreeMap<(PeerId, Incarnation), WindowRow>,
    sessions: BTreeMap<(PeerId, SessionId), SessionRow>,
    prekeys: BTreeMap<PrekeyId, PrekeyRow>,
    peers: BTreeMap<PeerId, PeerRow>,
    listeners: BTreeMap<Box<str>, ListenerRow>,
    last_row: Row,
    last_cursor: Cursor,
    keys_in_inbox: BTreeSet<ReceivedKey>,
    /// The last message that was shown to a referee.
    shown: Cursor,
}

impl Disk {
    pub(crate) fn lose_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn commit(&mut self, transaction: Transaction) -> Completion {
        let mut kept_windows = Vec::new();
        for op in transaction.ops {
            match op {
                Op::DropWindow { sender, incarnation } if self.has_any_of(sender, incarnation) => {
                    kept_windows.push((sender, incarnation));
                }
                op => self.apply(op),
            }
        }
        let pruned = Pruned::default();
        Completion::Committed { token: transaction.token, pruned, kept_windows }
    }

    /// Whether messages of a run are in the inbox.
    fn has_any_of(&self, sender: PeerId, incarnation: Incarnation) -> bool {
        self.keys_in_inbox.iter().any(|key| (key.sender, key.incarnation) == (sender, incarnation))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Queue(message) => {
                self.last_row = self.last_row.max(message.row);
                if let Some(key) = &message.key {
                    let row = KeyRow {
                        key: key.clone(),
                        id: message.id,
                        recipient: message.recipient,
                        state: KeyState::Queued,
                        row: message.row,
                        is_same: true,
                    };
                    let before = self.keys.insert(key.clone(), (row, (*message).clone()));
                    assert!(before.is_none(), "a key was used twice");
                }
                assert!(self.outbox.insert(message.row, *message).is_none(), "a row twice");
            }
            Op::Unqueue { rows } => rows.iter().for_each(|row| {
                self.outbox.remove(row);
            }),
            Op::GiveUp(message) => {
                self.outbox.remove(&message.row);
                self.given_up.push(*message);
            }
            Op::KeyState { key, state, .. } => {
                if let Some((row, _)) = self.keys.get_mut(&key) {
                    row.state = state;
                }
            }
            Op::Deliver(message) => self.deliver(*message),
            Op::Hold(message) => {
                assert!(self.held.insert(message.key, *message).is_none(), "held twice");
            }
            Op::Release { key, cursor } => {
                let message = self.held.remove(&key).expect("released what is held");
                self.deliver(Incoming { cursor, ..message });
            }
            Op::Chunk(chunk) => {
                self.chunks.entry((chunk.key, chunk.index)).or_insert(*chunk);
            }
            Op::Assemble { key, id, cursor, received } => {
                let chunks: Vec<_> = self
                    .chunks
                    .extract_if((key, 0)..=(key, u16::MAX), |_, _| true)
                    .map(|(_, chunk)| chunk)
                    .collect();
                let mut body = BytesMut::new();
                chunks.iter().for_each(|chunk| body.extend_from_slice(&chunk.bytes));
                let first = chunks.first().expect("chunks");
                assert_eq!(body.len() as u64, first.total, "an incomplete message");
                let message = Incoming {
                    key,
                    cursor: cursor.unwrap_or_default(),
                    id,
                    sent: first.sent,
                    received,
                    subject: first.subject.clone(),
                    body: body.freeze(),
                };
                match cursor {
                    Some(_) => self.deliver(message),
                    None => assert!(self.held.insert(key, message).is_none(), "held twice"),
                }
            }
            Op::DropChunks(key) => self.chunks.retain(|(of, _), _| *of != key),
            Op::Window(row) => {
                self.windows.insert((row.sender, row.incarnation), *row);
            }
            Op::DropWindow { sender, incarnation } => {
                self.windows.remove(&(sender, incarnation));
            }
            Op::Session(row) => {
                self.sessions.insert((row.sender, row.session), *row);
            }
            Op::DropSession { sender, session } => {
                self.sessions.remove(&(sender, session));
            }
            Op::Prekey(row) => {
                self.prekeys.insert(row.id, *row);
            }
            Op::DropPrekey(id) => {
                self.prekeys.remove(&id);
            }
            Op::Peer(row) => {
                self.peers.insert(row.peer, *row);
            }
            Op::DropPeer(peer) => {
                self.peers.remove(&peer);
            }
            Op::Listener { name, position } => {
                let row = ListenerRow { name: name.clone(), position, acknowledged: Vec::new() };
                self.listeners.insert(name, row);
            }
            Op::DropListener { name } => {
                self.listeners.remove(&name);
            }
            // Nothing in this harness restarts with acknowledgements out of order.
            Op::Acknowledge { .. } | Op::Prune { .. } | Op::PruneKeys { .. } => {}
        }
    }

    fn deliver(&mut self, message: Incoming) {
        assert!(self.keys_in_inbox.insert(message.key), "{:?} is in the inbox twice", message.key);
        assert_eq!(message.cursor.0, self.last_cursor.0 + 1, "cursors have a gap");
        self.last_cursor = message.cursor;
        self.inbox.insert(message.cursor, message);
    }

    /// What came into the inbox since this was last asked.
    pub(crate) fn take_news(&mut self) -> Vec<Incoming> {
        let news = self.inbox.range(beyond(self.shown)).map(|(_, message)| message.clone());
        let news = news.collect();
        self.shown = self.last_cursor;
        news
    }

    pub(crate) fn answer(&self, query: &Query) -> Completion {
        let answer = match &query.what {
            Question::OutboxOf { recipient, after, messages_max, bytes_max } => {
                let mut bytes = 0;
                let mine = self.outbox.range(beyond(*after)).map(|(_, message)| message);
                let mut messages = Vec::new();
                for message in mine.filter(|message| message.recipient == *recipient) {
                    if messages.len() >= *messages_max || bytes >= *bytes_max {
                        break;
                    }
                    bytes += message.body.len();
                    messages.push(message.clone());
                }
                Answer::OutboxOf(messages)
            }
            Question::Outbox { after, messages_max } => {
                let rows = self.outbox.range(beyond(*after)).take(*messages_max);
                let head = |(_, message): (&Row, &Outgoing)| OutgoingHead {
                    message: message.clone(),
                    bytes: message.body.len() as u64,
                };
                Answer::Outbox(rows.map(head).collect())
            }
            Question::Inbox { after, through, messages_max, .. } => {
                let last = (*through).min(self.last_cursor);
                let all = self.inbox.range(beyond(*after)).map(|(_, message)| message);
                let messages: Vec<Stored> = all
                    .take_while(|message| message.cursor <= last)
                    .take(*messages_max)
                    .map(|message| Stored {
                        message: message.clone(),
                        bytes: message.body.len() as u64,
                        whole: true,
                    })
                    .collect();
                let through = match messages.last() {
                    Some(stored) if messages.len() == *messages_max => stored.message.cursor,
                    _ => last,
                };
                Answer::Inbox { messages, through }
            }
            Question::Body { cursor, offset, bytes_max } => {
                let piece = |message: &Incoming| -> Bytes {
                    let from = usize::try_from(*offset).unwrap_or(0).min(message.body.len());
                    let to = (from + bytes_max).min(message.body.len());
                    message.body.slice(from..to)
                };
                Answer::Body(self.inbox.get(cursor).map(piece))
            }
            Question::Key { key, subject, body } => {
                let row = |(row, message): &(KeyRow, Outgoing)| KeyRow {
                    is_same: message.subject == *subject && message.body == *body,
                    ..row.clone()
                };
                Answer::Key(self.keys.get(key).map(row))
            }
        };
        Completion::Answered { token: query.token, answer }
    }

    /// What a node finds when it starts.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut outbox: BTreeMap<PeerId, OutboxSummary> = BTreeMap::new();
        for message in self.outbox.values() {
            let recipient = message.recipient;
            let expires = message.expires;
            let summary = OutboxSummary { recipient, messages: 0, bytes: 0, expires };
            let summary = outbox.entry(recipient).or_insert(summary);
            summary.messages += 1;
            summary.bytes += message.body.len() as u64;
            summary.expires = summary.expires.min(expires);
        }
        let mut partials: BTreeMap<ReceivedKey, PartialRow> = BTreeMap::new();
        for ((key, index), chunk) in &self.chunks {
            let new = PartialRow {
                key: *key,
                total: chunk.total,
                expires: chunk.expires,
                indexes: Vec::new(),
            };
            partials.entry(*key).or_insert(new).indexes.push(*index);
        }
        Snapshot {
            peers: self.peers.values().cloned().collect(),
            prekeys: self.prekeys.values().cloned().collect(),
            sessions: self.sessions.values().cloned().collect(),
            windows: self.windows.values().cloned().collect(),
            held: Vec::new(),
            partials: partials.into_values().collect(),
            listeners: self.listeners.values().cloned().collect(),
            outbox: outbox.into_values().collect(),
            given_up: self.given_up.clone(),
            last_row: self.last_row,
            last_cursor: self.last_cursor,
            inbox_messages: self.inbox.len() as u64,
            inbox_bytes: self.inbox.values().map(|message| message.body.len() as u64).sum(),
        }
    }
}

/// Everything after this one, which may be the last there could be.
fn beyond<T>(last: T) -> (Bound<T>, Bound<T>) {
    (Bound::Excluded(last), Bound::Unbounded)
}
