//! What is inside the seal: messages, chunks of large ones, and pings.

use bytes::{BufMut as _, Bytes};

use super::reader::{Reader, WireError, as_text};
use crate::model::limits::{
    CHUNK_BYTES, ITEMS_MAX, MESSAGE_BYTES_CEILING, SEALED_BYTES_MAX, SUBJECT_BYTES_MAX,
};
use crate::model::{Incarnation, Sequence, Timestamp};

/// The content of an envelope, of one incarnation of its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The sender's run that the items belong to.
    pub incarnation: Incarnation,
    /// The lowest sequence number that the sender still wants delivered: whatever is below and has
    /// not come never will.
    pub floor: Sequence,
    /// What it carries.
    pub items: Vec<Item>,
}

/// One thing in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Nothing to keep: the receipt is the answer.
    Ping,
    /// A whole message.
    Message {
        /// Its place in the incarnation.
        sequence: Sequence,
        /// When it was queued, by the sender's clock.
        sent: Timestamp,
        /// When it is void.
        expires: Timestamp,
        /// What it is about.
        subject: Option<Box<str>>,
        /// The body.
        body: Bytes,
    },
    /// A chunk of a message that spans several envelopes.
    Chunk {
        /// The message's place in the incarnation.
        sequence: Sequence,
        /// When the message was queued, by the sender's clock.
        sent: Timestamp,
        /// When it is void.
        expires: Timestamp,
        /// What it is about.
        subject: Option<Box<str>>,
        /// Bytes of the whole body.
        total: u64,
        /// Which chunk, from 0: each but the last has [`CHUNK_BYTES`].
        index: u16,
        /// This chunk of the body.
        bytes: Bytes,
    },
}

const PING: u8 = 0;
const MESSAGE: u8 = 1;
const CHUNK: u8 = 2;

const NO_SUBJECT: u16 = u16::MAX;
const HEAD_LEN: usize = 18;

/// Bytes of the authentication tag that sealing adds.
const TAG_LEN: usize = 16;

/// Bytes of the longest payload.
const PAYLOAD_BYTES_MAX: usize = SEALED_BYTES_MAX - TAG_LEN;

const _: () = assert!(CHUNK_BYTES + SUBJECT_BYTES_MAX + 64 + HEAD_LEN <= PAYLOAD_BYTES_MAX);

impl Payload {
    /// Reads what was inside a seal.
    ///
    /// # Errors
    /// When the sender sealed something else.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes, "payload");
        let incarnation = Incarnation(reader.u64()?);
        let floor = Sequence(reader.u64()?);
        if floor > Sequence::LAST {
            return Err(WireError::Invalid("floor"));
        }
        let count = usize::from(reader.u16()?);
        let count = reader.bounded(count, ITEMS_MAX, "number of items")?;
        let items = (0..count).map(|_| read_item(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { incarnation, floor, items })
    }
}

/// Fills an envelope's payload, item by item, until it is full.
#[derive(Debug)]
pub struct PayloadWriter {
    out: Vec<u8>,
    items: usize,
}

impl PayloadWriter {
    /// An empty payload.
    pub fn new(incarnation: Incarnation, floor: Sequence) -> Self {
        let mut out = Vec::with_capacity(4096);
        out.put_u64(incarnation.0);
        out.put_u64(floor.0);
        out.put_u16(0);
        Self { out, items: 0 }
    }

    /// Whether a message of this size travels whole; a larger one goes in chunks.
    pub const fn fits_whole(body: usize) -> bool {
        body <= CHUNK_BYTES
    }

    /// Whether nothing is in it yet.
    pub const fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Bytes so far.
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// Adds an item; false, and nothing is added, if there is no room, or if it is one that no
    /// recipient would read: sealing it would lose everything else in the envelope.
    pub fn push(&mut self, item: &Item) -> bool {
        let full =
            self.items >= ITEMS_MAX || self.out.len() + size_of_item(item) > PAYLOAD_BYTES_MAX;
        if full || !is_readable(item) {
            return false;
        }
        put_item(&mut self.out, item);
        self.items += 1;
        true
    }

    /// The payload, ready to be sealed.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(slot) = self.out.get_mut(HEAD_LEN - 2..HEAD_LEN) {
            slot.copy_from_slice(&u16::try_from(self.items).unwrap_or(0).to_be_bytes());
        }
        // Room for the tag, so that sealing does not move it all.
        self.out.reserve(TAG_LEN);
        self.out
    }
}

/// Whether the other end would read the item back.
fn is_readable(item: &Item) -> bool {
    match item {
        Item::Ping => true,
        Item::Message { sequence, subject, body, .. } => {
            is_common(*sequence, subject.as_deref()) && body.len() <= CHUNK_BYTES
        }
        Item::Chunk { sequence, subject, total, index, bytes, .. } => {
            is_common(*sequence, subject.as_deref()) && is_chunk(*total, *index, bytes.len())
        }
    }
}

fn is_common(sequence: Sequence, subject: Option<&str>) -> bool {
    (Sequence::FIRST..=Sequence::LAST).contains(&sequence)
        && subject.is_none_or(|text| text.len() <= SUBJECT_BYTES_MAX)
}

/// Bytes of an item.
fn size_of_item(item: &Item) -> usize {
    let subject_len = |subject: &Option<Box<str>>| subject.as_ref().map_or(0, |s| s.len());
    match item {
        Item::Ping => 1,
        Item::Message { subject, body, .. } => 31 + subject_len(subject) + body.len(),
        Item::Chunk { subject, bytes, .. } => 41 + subject_len(subject) + bytes.len(),
    }
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Ping => out.push(PING),
        Item::Message { sequence, sent, expires, subject, body } => {
            put_common(out, MESSAGE, *sequence, (*sent, *expires), subject.as_deref());
            put_bytes(out, body);
        }
        Item::Chunk { sequence, sent, expires, subject, total, index, bytes } => {
            put_common(out, CHUNK, *sequence, (*sent, *expires), subject.as_deref());
            out.put_u64(*total);
            out.put_u16(*index);
            put_bytes(out, bytes);
        }
    }
}

fn put_common(
    out: &mut Vec<u8>,
    kind: u8,
    sequence: Sequence,
    (sent, expires): (Timestamp, Timestamp),
    subject: Option<&str>,
) {
    out.push(kind);
    out.put_u64(sequence.0);
    out.put_u64(sent.as_millis());
    out.put_u64(expires.as_millis());
    match subject {
        None => out.put_u16(NO_SUBJECT),
        Some(text) => {
            out.put_u16(u16::try_from(text.len()).unwrap_or(0));
            out.put_slice(text.as_bytes());
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    out.put_slice(bytes);
}

fn read_item(reader: &mut Reader) -> Result<Item, WireError> {
    let kind = reader.u8()?;
    if kind == PING {
        return Ok(Item::Ping);
    }
    if kind != MESSAGE && kind != CHUNK {
        return Err(WireError::Invalid("item"));
    }
    let sequence = Sequence(reader.u64()?);
    if sequence < Sequence::FIRST || sequence > Sequence::LAST {
        return Err(WireError::Invalid("sequence"));
    }
    let sent = Timestamp::from_millis(reader.u64()?);
    let expires = Timestamp::from_millis(reader.u64()?);
    let subject = read_subject(reader)?;
    if kind == MESSAGE {
        let body = read_bytes(reader)?;
        return Ok(Item::Message { sequence, sent, expires, subject, body });
    }
    let (total, index) = (reader.u64()?, reader.u16()?);
    let bytes = read_bytes(reader)?;
    if !is_chunk(total, index, bytes.len()) {
        return Err(WireError::Invalid("chunk"));
    }
    Ok(Item::Chunk { sequence, sent, expires, subject, total, index, bytes })
}

/// Whether a body of `total` bytes has a chunk of this number and length.
fn is_chunk(total: u64, index: u16, length: usize) -> bool {
    let Ok(total) = usize::try_from(total) else { return false };
    let start = usize::from(index).saturating_mul(CHUNK_BYTES);
    total > CHUNK_BYTES
        && total <= MESSAGE_BYTES_CEILING
        && start < total
        && length == CHUNK_BYTES.min(total - start)
}

fn read_subject(reader: &mut Reader) -> Result<Option<Box<str>>, WireError> {
    let length = reader.u16()?;
    if length == NO_SUBJECT {
        return Ok(None);
    }
    let length = reader.bounded(usize::from(length), SUBJECT_BYTES_MAX, "subject")?;
    let bytes = reader.bytes(length)?;
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(Some(as_text(&bytes).into())),
        Err(_) => Err(WireError::Invalid("subject")),
    }
}

fn read_bytes(reader: &mut Reader) -> Result<Bytes, WireError> {
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    let length = reader.bounded(length, CHUNK_BYTES, "body")?;
    reader.bytes(length)
}
