//! What the node asks of the store, and what it hears back.

use bytes::Bytes;

use crate::model::{Address, Incarnation, MessageId, Name, PeerId, PrekeyId, SessionId, Timestamp};
pub use crate::model::{
    Cursor, GivenUp, HeldRow, Incoming, IncomingChunk, Outgoing, PartialRow, PrekeyRow,
    ReceivedKey, Row, SessionRow, WindowRow,
};

/// Changes that become durable together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Tells completions apart; the node's own number.
    pub token: u64,
    /// The changes, applied in order.
    pub ops: Vec<Op>,
}

/// One change. None depends on what the database holds, except where it says so.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new message in the outbox.
    Queue(Box<Outgoing>),
    /// Messages that left the outbox because they were delivered. Keys stay.
    Unqueue {
        /// Their rows.
        rows: Vec<Row>,
    },
    /// A message that left the outbox undelivered. Its key stays; of itself what people want to
    /// know is kept, until [`GIVEN_UP_MAX`](crate::model::limits::GIVEN_UP_MAX) newer ones follow.
    GiveUp(Box<GivenUp>),
    /// What became of a message that was sent with a key.
    KeyState {
        /// The client's key.
        key: Box<str>,
        /// Its message's fate.
        state: KeyState,
        /// From when on the key may be forgotten, unless it is to be kept for longer already.
        expires: Timestamp,
    },
    /// A message in order: it gets its place in the inbox.
    Deliver(Box<Incoming>),
    /// A message out of order: kept, without a place yet.
    Hold(Box<Incoming>),
    /// A held message's turn has come.
    Release {
        /// Which message.
        key: ReceivedKey,
        /// Its place in the inbox.
        cursor: Cursor,
    },
    /// A chunk of a message that spans several envelopes.
    Chunk(Box<IncomingChunk>),
    /// All chunks are there: they become one message, which is delivered (with a cursor) or held.
    Assemble {
        /// Which message.
        key: ReceivedKey,
        /// Its ID.
        id: MessageId,
        /// Its place in the inbox, if its turn has come.
        cursor: Option<Cursor>,
        /// When it was completed.
        received: Timestamp,
    },
    /// The chunks of a message that will never be complete are dropped.
    DropChunks(ReceivedKey),
    /// The ordering window of one sender's incarnation.
    Window(Box<WindowRow>),
    /// A window that is no longer needed, unless messages of that run are in the inbox:
    /// [`Completion::Committed`] tells which windows are kept for that.
    DropWindow {
        /// The sender.
        sender: PeerId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// A session another opened with us.
    Session(Box<SessionRow>),
    /// A session that is over; its secret is overwritten.
    DropSession {
        /// The sender.
        sender: PeerId,
        /// Its session.
        session: SessionId,
    },
    /// A prekey of ours.
    Prekey(Box<PrekeyRow>),
    /// A prekey that nobody may use any more; its secret is overwritten.
    DropPrekey(PrekeyId),
    /// What is known of a peer, all of it. An alias must be free, by then, of any other peer.
    Peer(Box<PeerRow>),
    /// A peer to forget.
    DropPeer(PeerId),
    /// A listener, with everything it has acknowledged so far up to its position.
    Listener {
        /// Its name.
        name: Box<str>,
        /// Everything up to here is acknowledged.
        position: Cursor,
    },
    /// A listener to forget, with everything it has acknowledged.
    DropListener {
        /// Its name.
        name: Box<str>,
    },
    /// Messages acknowledged beyond the position of a listener that exists.
    Acknowledge {
        /// The listener's name.
        name: Box<str>,
        /// The first of the messages acknowledged.
        first: Cursor,
        /// The last of them.
        last: Cursor,
    },
    /// Drops messages from the inbox, oldest first, while they are at or before the cursor and
    /// either were received before the time or the inbox holds more than that many bytes (held
    /// ones and chunks included). At most 20,000 at once, so that others are not kept waiting;
    /// [`Pruned`] tells how many went, and asking again continues.
    Prune {
        /// Everything up to here is acknowledged by every listener.
        through: Cursor,
        /// Older ones go.
        received_before: Timestamp,
        /// More than this, and the oldest go.
        bytes_max: u64,
    },
    /// Forgets keys that expired before this time, unless their messages are in the outbox still:
    /// the clock by which those were queued may have been wrong. At most 5,000 at once, as with
    /// [`Op::Prune`].
    PruneKeys {
        /// The time.
        expired_before: Timestamp,
    },
}

/// What became of a message that was sent with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is in the outbox.
    Queued,
    /// The recipient has it.
    Delivered,
    /// It was given up.
    Expired,
}

/// A key, its message and that message's fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The client's key.
    pub key: Box<str>,
    /// The message sent with it.
    pub id: MessageId,
    /// Who it is for.
    pub recipient: PeerId,
    /// What became of it.
    pub state: KeyState,
    /// Its place in the outbox.
    pub row: Row,
    /// Whether its subject and body are those that were asked about.
    pub is_same: bool,
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    /// Who.
    pub peer: PeerId,
    /// Its record, as received; signed, so that a damaged one is noticed.
    pub record: Option<Bytes>,
    /// What the operator calls it; unique.
    pub alias: Option<Name>,
    /// Where the operator connected it: its link is kept and redialled.
    pub dial: Option<Address>,
}

/// A listener as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerRow {
    /// Its name.
    pub name: Box<str>,
    /// Everything up to here is acknowledged.
    pub position: Cursor,
    /// What is acknowledged beyond: ranges, first and last, ascending, not touching.
    pub acknowledged: Vec<(Cursor, Cursor)>,
}

/// Messages waiting for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxSummary {
    /// Who they are for.
    pub recipient: PeerId,
    /// How many.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the first of them expires.
    pub expires: Timestamp,
}

/// Everything the node keeps in memory, as it was found when the store was opened.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Peers known.
    pub peers: Vec<PeerRow>,
    /// Our prekeys.
    pub prekeys: Vec<PrekeyRow>,
    /// Sessions others opened with us.
    pub sessions: Vec<SessionRow>,
    /// Ordering windows.
    pub windows: Vec<WindowRow>,
    /// Messages held out of order.
    pub held: Vec<HeldRow>,
    /// Messages of which some chunks are there.
    pub partials: Vec<PartialRow>,
    /// Listeners.
    pub listeners: Vec<ListenerRow>,
    /// What waits, by recipient.
    pub outbox: Vec<OutboxSummary>,
    /// What was given up, the newest last.
    pub given_up: Vec<GivenUp>,
    /// The last place given in the outbox, ever.
    pub last_row: Row,
    /// The last place given in the inbox, ever.
    pub last_cursor: Cursor,
    /// Messages in the inbox.
    pub inbox_messages: u64,
    /// What they count for on disk, held ones and chunks included.
    pub inbox_bytes: u64,
}

/// A question. Answered after every transaction submitted before it has been committed.
#[derive(Debug, Clone)]
pub struct Query {
    /// Tells answers apart; the node's own number.
    pub token: u64,
    /// What is asked.
    pub what: Question,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Messages of the outbox for one recipient, in order of row.
    OutboxOf {
        /// Who they are for.
        recipient: PeerId,
        /// Only those after it.
        after: Row,
        /// At most this many.
        messages_max: usize,
        /// Stop after this many bytes of bodies; always at least one message.
        bytes_max: usize,
    },
    /// Messages of the outbox for everybody, in order of row, bodies left out.
    Outbox {
        /// Only those after it.
        after: Row,
        /// At most this many.
        messages_max: usize,
    },
    /// Messages of the inbox, in order of cursor. Looks at 20,000 at most; [`Answer::Inbox`] tells
    /// how far it got.
    Inbox {
        /// Only those after it.
        after: Cursor,
        /// Only up to it.
        through: Cursor,
        /// Only of this sender.
        from: Option<PeerId>,
        /// Only those received at or after it.
        since: Option<Timestamp>,
        /// At most this many.
        messages_max: usize,
        /// Stop after this many bytes of bodies; always at least one message.
        bytes_max: usize,
        /// Bodies longer than this are left out.
        body_bytes_max: usize,
    },
    /// A piece of a body in the inbox.
    Body {
        /// Which message.
        cursor: Cursor,
        /// From which byte on.
        offset: u64,
        /// At most this many bytes.
        bytes_max: usize,
    },
    /// What became of the message sent with a key, and whether it was this one.
    Key {
        /// The client's key.
        key: Box<str>,
        /// The subject that is to be sent with it now.
        subject: Option<Box<str>>,
        /// The body.
        body: Bytes,
    },
}

/// A message of the outbox, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingHead {
    /// The message; its body is empty.
    pub message: Outgoing,
    /// Bytes of the body.
    pub bytes: u64,
}

/// A message of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message; its body is empty if it was left out.
    pub message: Incoming,
    /// Bytes of the body.
    pub bytes: u64,
    /// Whether the body is here.
    pub whole: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Question::OutboxOf`].
    OutboxOf(Vec<Outgoing>),
    /// To [`Question::Outbox`].
    Outbox(Vec<OutgoingHead>),
    /// To [`Question::Inbox`], and how far the search got: nothing matching lies between the last
    /// message returned and it.
    Inbox {
        /// The messages.
        messages: Vec<Stored>,
        /// Everything up to here was looked at.
        through: Cursor,
    },
    /// To [`Question::Body`]; none if there is no such message.
    Body(Option<Bytes>),
    /// To [`Question::Key`]; none if the key is not known.
    Key(Option<KeyRow>),
}

/// What [`Op::Prune`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Messages removed.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys that [`Op::PruneKeys`] forgot.
    pub keys: u64,
}

/// What the node hears back, in the order of submission.
#[derive(Debug)]
pub enum Completion {
    /// The transaction is on disk.
    Committed {
        /// Its token.
        token: u64,
        /// What was pruned by it.
        pruned: Pruned,
        /// The windows, each by its sender and its run, that [`Op::DropWindow`] left.
        kept_windows: Vec<(PeerId, Incarnation)>,
    },
    /// The transaction was undone: there is no room. Others are not affected, except that what
    /// builds on it (releases what it held, assembles its chunks, acknowledges for its listener)
    /// is undone as well. It may be tried again.
    ///
    /// A later transaction that was already submitted may have been committed all the same: two
    /// that write the same window must not be under way at once.
    Full {
        /// Its token.
        token: u64,
    },
    /// A question's answer.
    Answered {
        /// Its token.
        token: u64,
        /// The answer.
        answer: Answer,
    },
    /// The database is broken or cannot be written safely: the daemon must stop. Nothing follows.
    Failed {
        /// What happened, for the operator, with the remedy.
        reason: String,
    },
}
