//! What is kept on disk of messages and keys, as values: the courier decides about them, the store
//! keeps them.

use bytes::Bytes;

use super::{Incarnation, MessageId, PeerId, PrekeyId, Sequence, SessionId, Timestamp};

/// A message's place in the inbox: grows by one per message, never reused. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor(pub u64);

/// A message's place in the outbox: grows by one per message, never reused. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Row(pub u64);

/// Identifies a message received, at its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceivedKey {
    /// Who wrote it.
    pub sender: PeerId,
    /// The sender's run.
    pub incarnation: Incarnation,
    /// Its place in that run.
    pub sequence: Sequence,
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the outbox.
    pub row: Row,
    /// Its ID.
    pub id: MessageId,
    /// Who it is for.
    pub recipient: PeerId,
    /// The run it was queued in.
    pub incarnation: Incarnation,
    /// Its place in that run.
    pub sequence: Sequence,
    /// When it was queued.
    pub queued: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// What it is about.
    pub subject: Option<Box<str>>,
    /// The client's key, if it gave one.
    pub key: Option<Box<str>>,
    /// The body.
    pub body: Bytes,
}

/// A message that left the outbox and was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Its place in the outbox.
    pub row: Row,
    /// Its ID.
    pub id: MessageId,
    /// Who it was for.
    pub recipient: PeerId,
    /// When it was queued.
    pub queued: Timestamp,
    /// What it is about.
    pub subject: Option<Box<str>>,
    /// Bytes of the body.
    pub bytes: u64,
    /// When it was given up.
    pub at: Timestamp,
    /// Why.
    pub why: WhyGivenUp,
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyGivenUp {
    /// It waited too long.
    Expired,
    /// The recipient does not accept messages of its size.
    TooLarge,
}

impl std::fmt::Display for WhyGivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::TooLarge => "too large for the recipient",
        })
    }
}

/// A message received whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Which message.
    pub key: ReceivedKey,
    /// Its place in the inbox; ignored while held.
    pub cursor: Cursor,
    /// Its ID.
    pub id: MessageId,
    /// When its sender queued it, by the sender's clock.
    pub sent: Timestamp,
    /// When it came.
    pub received: Timestamp,
    /// What it is about.
    pub subject: Option<Box<str>>,
    /// The body.
    pub body: Bytes,
}

/// A chunk received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingChunk {
    /// Which message it is of.
    pub key: ReceivedKey,
    /// Which chunk, from 0.
    pub index: u16,
    /// Bytes of the whole body.
    pub total: u64,
    /// When its sender queued the message, by the sender's clock.
    pub sent: Timestamp,
    /// When the message expires.
    pub expires: Timestamp,
    /// What it is about.
    pub subject: Option<Box<str>>,
    /// The chunk's bytes.
    pub bytes: Bytes,
}

/// The chunks that are there of a message that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialRow {
    /// Which message.
    pub key: ReceivedKey,
    /// Bytes of the whole body.
    pub total: u64,
    /// When the message expires.
    pub expires: Timestamp,
    /// The chunks that are there, ascending.
    pub indexes: Vec<u16>,
}

/// The ordering window of one sender's incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRow {
    /// The sender.
    pub sender: PeerId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Everything before it is received, or will never come.
    pub base: Sequence,
    /// One bit per sequence number from `base` on: received. The lowest bit of the first byte is
    /// `base`.
    pub received: Bytes,
    /// Everything before it that is not received was given up without its sender's word.
    pub given_up: Sequence,
    /// When it was last changed.
    pub touched: Timestamp,
}

/// A session another opened with us.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Who opened it.
    pub sender: PeerId,
    /// Its name.
    pub session: SessionId,
    /// What keys are derived from.
    pub secret: zeroize::Zeroizing<[u8; 32]>,
    /// When it was opened.
    pub created: Timestamp,
}

impl std::fmt::Debug for SessionRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionRow")
            .field("sender", &self.sender)
            .field("session", &self.session)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// A prekey of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct PrekeyRow {
    /// Its name.
    pub id: PrekeyId,
    /// The private half.
    pub secret: zeroize::Zeroizing<[u8; 32]>,
    /// When it was made.
    pub created: Timestamp,
}

impl std::fmt::Debug for PrekeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrekeyRow")
            .field("id", &self.id)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// A message held out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRow {
    /// Which message.
    pub key: ReceivedKey,
    /// When it came.
    pub received: Timestamp,
    /// Bytes of its body.
    pub bytes: u64,
}
