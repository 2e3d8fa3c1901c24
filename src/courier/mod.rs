//! PURE. From end to end: sessions, sealing and opening, ordering, receipts, retries.
//!
//! The courier knows messages and peers, not links. What it wants carried it hands over as sealed
//! envelopes; what it wants kept it hands over as [`Change`]s, and it reveals a receipt only after
//! it was told that they are on disk.
//!
//! The contract: after a batch of [`Courier::handle`] calls, call [`Courier::flush`] once, then
//! drain [`Courier::poll_output`] until it returns `None`; then read [`Courier::deadline`] and call
//! [`Courier::tick`] (and drain) when it has come. Nothing is lost if that is late.

mod chunk_set;
mod inbound;
mod outbound;
mod pace;
mod prekeys;
mod session;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::crypto::{Identity, Random};
use crate::model::{
    Cursor, GivenUp, Incarnation, Incoming, IncomingChunk, Limits, MessageId, Monotonic, Now,
    Occupancy, Outgoing, PartialRow, PeerId, Prekey, PrekeyId, PrekeyRow, ReceivedKey, Row,
    SessionId, SessionRow, SignedRecord, Span, Timestamp, WindowRow,
};
use crate::wire::{Envelope, Header, NoticeKind, RejectReason};

use inbound::Inbound;
use outbound::Outbox;
use prekeys::Prekeys;

/// What happens to a courier.
#[derive(Debug)]
pub enum Input {
    /// Messages are in the outbox and on disk. In order of row.
    Queued(Vec<Outgoing>),
    /// The answer to [`Output::Load`].
    Loaded {
        /// Whose messages.
        recipient: PeerId,
        /// In order of row.
        messages: Vec<Outgoing>,
    },
    /// There is a way to a peer, and this is its record.
    Located(SignedRecord),
    /// Nobody answers for a peer.
    NotFound(PeerId),
    /// A link came up, or a peer's record changed: what failed may work now.
    Nudge {
        /// Whose record changed; none if a link came up.
        peer: Option<PeerId>,
    },
    /// An envelope of ours left on a link.
    Departed {
        /// The envelope's commitment.
        commitment: [u8; 32],
    },
    /// The recipient of one of our envelopes stored it.
    Receipt {
        /// The envelope's commitment.
        commitment: [u8; 32],
    },
    /// Nobody took one of our envelopes.
    Rejected {
        /// The envelope's commitment.
        commitment: [u8; 32],
        /// Which attempt.
        attempt: u16,
        /// Why.
        reason: RejectReason,
    },
    /// The recipient's own word on one of our envelopes.
    Notice {
        /// The envelope's commitment.
        commitment: [u8; 32],
        /// What is the matter.
        kind: NoticeKind,
    },
    /// An envelope for us.
    Envelope(Delivery),
    /// The changes of [`Output::Store`] are on disk.
    Stored {
        /// The windows that [`Change::DropWindow`] left.
        kept_windows: Vec<(PeerId, Incarnation)>,
    },
    /// There was no room for the changes of [`Output::Store`]; none was made.
    StoreFull,
    /// Messages were removed from the inbox.
    Pruned {
        /// Bytes of their bodies.
        bytes: u64,
    },
    /// Ask a peer's node for a sign of life.
    Ping {
        /// Whom.
        recipient: PeerId,
        /// Comes back in [`Output::Pong`].
        ping: u64,
    },
    /// Nobody waits for that ping any more.
    CancelPing {
        /// Whom it was for.
        recipient: PeerId,
        /// Which.
        ping: u64,
    },
    /// Drop what is kept for a peer in memory; its queued messages stay.
    Forget(PeerId),
}

/// What a courier wants done, in order.
#[derive(Debug)]
pub enum Output {
    /// Find a way to a peer.
    Locate {
        /// Whom.
        peer: PeerId,
        /// What is known did not work.
        anew: bool,
    },
    /// Carry an envelope on a learned route.
    Send {
        /// The envelope.
        envelope: Envelope,
        /// Not by the way of the last attempt.
        elsewhere: bool,
    },
    /// Carry an envelope by all ways.
    Flood(Envelope),
    /// Nothing more is wanted of an envelope.
    Settled {
        /// Its commitment.
        commitment: [u8; 32],
    },
    /// An envelope's content is on disk: here is its receipt.
    Reveal {
        /// The receipt.
        preimage: [u8; 32],
    },
    /// Tell an envelope's source that it was not taken.
    Notify {
        /// What is the matter.
        kind: NoticeKind,
        /// The envelope's header.
        header: Header,
    },
    /// Read messages for a recipient from the outbox.
    Load {
        /// Whose.
        recipient: PeerId,
        /// Only those after it.
        after: Row,
        /// Stop after this many bytes of bodies; always at least one message.
        bytes_max: usize,
    },
    /// Make these changes durable, together. Until [`Input::Stored`] or [`Input::StoreFull`] comes
    /// there is no other.
    Store(Vec<Change>),
    /// Messages that are now in the inbox, on disk, in order of cursor.
    Arrived(Vec<Arrival>),
    /// A message left on a link, whole or in part.
    Sent(Row),
    /// The recipient proved that it has these messages.
    Delivered {
        /// Who proved it.
        recipient: PeerId,
        /// Which messages.
        rows: Vec<Row>,
        /// Bytes of their bodies.
        bytes: u64,
    },
    /// Messages for one recipient that were given up, for one reason.
    GivenUp(Vec<GivenUp>),
    /// A sign of life, proven.
    Pong {
        /// Which ping.
        ping: u64,
        /// From the first attempt to the proof.
        rtt: Span,
        /// Attempts made.
        attempts: u16,
    },
    /// Our prekeys changed: others need a new record. See [`Courier::prekeys`].
    Prekeys,
    /// What to store of a change of our prekeys.
    StorePrekeys(Vec<Change>),
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its place in the inbox.
    pub cursor: Cursor,
    /// Its sender.
    pub sender: PeerId,
    /// The message, unless it has to be read from disk.
    pub message: Option<Incoming>,
}

/// What has to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message in order: it goes to the inbox.
    Deliver(Box<Incoming>),
    /// A message out of order.
    Hold(Box<Incoming>),
    /// A held message's turn has come.
    Release {
        /// Which message.
        key: ReceivedKey,
        /// Its place in the inbox.
        cursor: Cursor,
    },
    /// A chunk of a large message.
    Chunk(Box<IncomingChunk>),
    /// All chunks are there.
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
    /// The chunks of a message that will never be complete.
    DropChunks(ReceivedKey),
    /// An ordering window.
    Window(Box<WindowRow>),
    /// A window that is no longer needed, unless messages of its run are in the inbox.
    DropWindow {
        /// The sender.
        sender: PeerId,
        /// Its run.
        incarnation: Incarnation,
    },
    /// A session another opened with us.
    Session(Box<SessionRow>),
    /// A session that is over.
    DropSession {
        /// The sender.
        sender: PeerId,
        /// Its session.
        session: SessionId,
    },
    /// A prekey of ours.
    Prekey(Box<PrekeyRow>),
    /// A prekey that nobody may use any more.
    DropPrekey(PrekeyId),
}

/// What was stored when the daemon stopped.
#[derive(Debug, Default)]
pub struct Stored {
    /// Our prekeys.
    pub prekeys: Vec<PrekeyRow>,
    /// Sessions others opened with us.
    pub sessions: Vec<SessionRow>,
    /// Ordering windows.
    pub windows: Vec<WindowRow>,
    /// Messages of which some chunks are there.
    pub partials: Vec<PartialRow>,
    /// Recipients that messages wait for.
    pub waiting: Vec<Waiting>,
    /// The last place given in the inbox, ever.
    pub last_cursor: Cursor,
    /// Bytes in the inbox.
    pub inbox_bytes: u64,
}

/// What waits for one recipient.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Who it is for.
    pub recipient: PeerId,
    /// How many messages.
    pub messages: u64,
    /// When the first of them expires.
    pub expires: Timestamp,
}

/// What a queue to one recipient is doing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    /// Nothing answers; it will be tried again.
    Waiting,
    /// A way is being looked for.
    Finding,
    /// Envelopes are on their way.
    InFlight,
    /// The recipient's inbox is full.
    RecipientFull,
}

/// An envelope for us, and what is known of how it came.
#[derive(Debug)]
pub struct Delivery {
    /// The envelope, whole.
    pub envelope: Envelope,
    /// The neighbour that brought it.
    pub via: PeerId,
    /// Whether the operator connected that neighbour.
    pub via_vouched: bool,
    /// Whether the operator knows who claims to have sent it: connected or named it.
    pub vouched: bool,
}

/// The courier of one node.
#[derive(Debug)]
pub struct Courier {
    outbox: Outbox,
    inbound: Inbound,
    prekeys: Prekeys,
    random: Random,
    out: VecDeque<Output>,
}

impl Courier {
    /// The courier of a node, as it was when the node stopped.
    pub fn new(
        identity: Arc<Identity>,
        limits: &Limits,
        stored: Stored,
        now: Now,
        mut random: Random,
    ) -> Self {
        let mut out = VecDeque::new();
        let prekeys = Prekeys::new(&stored.prekeys, now, &mut random, &mut out);
        let outbox = Outbox::new(Arc::clone(&identity), &stored.waiting, now);
        let inbound = Inbound::new(identity.peer(), limits, stored, now);
        Self { outbox, inbound, prekeys, random, out }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        let Self { outbox, inbound, prekeys, random, out } = self;
        match input {
            Input::Queued(messages) => outbox.on_queued(now, messages),
            Input::Loaded { recipient, messages } => {
                outbox.on_loaded(now, recipient, messages, out);
            }
            Input::Located(record) => outbox.on_located(now, &record, random, out),
            Input::NotFound(peer) => outbox.on_not_found(now, peer, random, out),
            Input::Nudge { peer } => outbox.on_nudge(now, peer),
            Input::Departed { commitment } => outbox.on_departed(&commitment, out),
            Input::Receipt { commitment } => outbox.on_receipt(now, &commitment, out),
            Input::Rejected { commitment, attempt, reason } => {
                outbox.on_rejected(&commitment, attempt, reason, out);
            }
            Input::Notice { commitment, kind } => outbox.on_notice(now, &commitment, kind, out),
            Input::Envelope(delivery) => inbound.on_envelope(now, &delivery, prekeys, out),
            Input::Stored { kept_windows } => inbound.on_stored(now, &kept_windows, out),
            Input::StoreFull => inbound.on_store_full(now, out),
            Input::Pruned { bytes } => inbound.on_pruned(bytes),
            Input::Ping { recipient, ping } => outbox.on_ping(now, recipient, ping, out),
            Input::CancelPing { recipient, ping } => outbox.on_cancel_ping(recipient, ping, out),
            Input::Forget(peer) => outbox.on_forget(peer),
        }
    }

    /// Seals and batches what the inputs since the last flush made possible.
    pub fn flush(&mut self, now: Now) {
        self.outbox.flush(now, &mut self.random, &mut self.out);
        self.inbound.flush(now, &mut self.out);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        self.prekeys.tick(now, &mut self.random, &mut self.out);
        self.inbound.tick(now);
        self.outbox.tick(now, &mut self.out);
        self.flush(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Courier::tick`] is due.
    pub fn deadline(&self) -> Monotonic {
        self.outbox.deadline().min(self.inbound.deadline()).min(self.prekeys.deadline())
    }

    /// Our prekeys for the record, the preferred one first.
    pub fn prekeys(&self) -> Vec<Prekey> {
        self.prekeys.published()
    }

    /// Bytes in the inbox, held messages and chunks included.
    pub const fn inbox_bytes(&self) -> u64 {
        self.inbound.bytes()
    }

    /// The last place given in the inbox to a message that is on disk.
    pub const fn last_cursor(&self) -> Cursor {
        self.inbound.last_cursor()
    }

    /// Messages waiting for a recipient.
    pub fn queued(&self, recipient: &PeerId) -> u64 {
        self.outbox.queued(recipient)
    }

    /// Keeps to these limits from now on. What was accepted stays, and what was begun may be
    /// finished.
    pub fn adopt_limits(&mut self, limits: &Limits) {
        self.inbound.adopt_limits(limits);
    }

    /// Adds fresh entropy.
    pub fn mix(&mut self, entropy: &[u8; 32]) {
        self.random.mix(entropy);
    }

    /// Every table that others can fill, and how full it is.
    pub fn occupancy(&self, limits: &Limits) -> Vec<Occupancy> {
        let mut all = self.outbox.occupancy(limits.message_bytes_max);
        all.extend(self.inbound.occupancy());
        all.push(self.prekeys.occupancy());
        all.push(Occupancy::new("courier outputs", self.out.len(), 0));
        all
    }

    /// What the queue to a recipient is doing.
    pub fn queue_state(&self, recipient: &PeerId) -> QueueState {
        self.outbox.state(recipient)
    }

    /// How many peers something is on its way to, or was within the last hour.
    pub fn recipients(&self) -> usize {
        self.outbox.recipients()
    }

    /// Whether a peer is one of them.
    pub fn writes_to(&self, peer: &PeerId) -> bool {
        self.outbox.writes_to(peer)
    }
}
