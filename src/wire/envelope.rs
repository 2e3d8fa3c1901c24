//! Envelopes: what goes hop by hop from a source to a destination.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::tag;
use super::reader::{Reader, WireError};
use crate::model::limits::{FRAME_BYTES_MAX, SEALED_BYTES_MAX};
use crate::model::{PeerId, PrekeyId, SessionId};

/// Bytes of an opening.
pub const OPENING_LEN: usize = 4 + ENCAPSULATION_LEN + 64;

const ENCAPSULATION_LEN: usize = 1120;

const _: () = assert!(1 + 1 + 2 + Header::LEN + Tail::BYTES_MAX <= FRAME_BYTES_MAX);

/// Where the attempt stands in an encoded envelope: it is patched when it is sent again.
const ATTEMPT_AT: usize = 2;

/// The part of an envelope that never changes on its way. It is bound to the sealed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sealed it.
    pub source: PeerId,
    /// Who can open it.
    pub destination: PeerId,
    /// Which of the source's sessions it belongs to.
    pub session: SessionId,
    /// Its number in that session.
    pub counter: u64,
    /// The hash of what the destination reveals once it has stored the content.
    pub commitment: [u8; 32],
}

impl Header {
    /// Bytes of an encoded header.
    pub(super) const LEN: usize = 32 + 32 + 8 + 8 + 32;

    /// What the seal binds: version and header.
    pub fn aad(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + Self::LEN);
        out.push(super::VERSION);
        self.put(&mut out);
        out
    }

    pub(super) fn put(&self, out: &mut impl bytes::BufMut) {
        out.put_slice(self.source.as_bytes());
        out.put_slice(self.destination.as_bytes());
        out.put_u64(self.session.0);
        out.put_u64(self.counter);
        out.put_slice(&self.commitment);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, WireError> {
        Ok(Self {
            source: reader.peer()?,
            destination: reader.peer()?,
            session: SessionId(reader.u64()?),
            counter: reader.u64()?,
            commitment: reader.array()?,
        })
    }

    /// What tells this attempt from all others.
    pub const fn key(&self, attempt: u16) -> EnvelopeKey {
        EnvelopeKey { source: self.source, session: self.session, counter: self.counter, attempt }
    }
}

/// Tells one attempt to deliver one envelope from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeKey {
    /// Who sealed it.
    pub source: PeerId,
    /// Which of the source's sessions it belongs to.
    pub session: SessionId,
    /// Its number in that session.
    pub counter: u64,
    /// Which attempt this is; the first is 1.
    pub attempt: u16,
}

impl EnvelopeKey {
    pub(super) fn put(&self, out: &mut impl bytes::BufMut) {
        out.put_slice(self.source.as_bytes());
        out.put_u64(self.session.0);
        out.put_u64(self.counter);
        out.put_u16(self.attempt);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, WireError> {
        Ok(Self {
            source: reader.peer()?,
            session: SessionId(reader.u64()?),
            counter: reader.u64()?,
            attempt: reader.u16()?,
        })
    }
}

/// An envelope on its way. Its encoding is kept and passed on untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The fixed part.
    pub header: Header,
    /// Which attempt this is; the first is 1.
    pub attempt: u16,
    /// Opening and sealed body, still as bytes.
    pub tail: Bytes,
    /// The whole frame.
    pub encoded: Bytes,
}

impl Envelope {
    /// An envelope of these parts.
    pub fn new(header: Header, attempt: u16, tail: &[u8]) -> Self {
        let mut out = BytesMut::with_capacity(4 + Header::LEN + tail.len());
        out.put_u8(tag::ENVELOPE);
        out.put_u8(super::VERSION);
        out.put_u16(attempt);
        header.put(&mut out);
        let at = out.len();
        out.put_slice(tail);
        let encoded = out.freeze();
        Self { header, attempt, tail: encoded.slice(at..), encoded }
    }

    /// The same envelope for another attempt.
    pub fn with_attempt(&self, attempt: u16) -> Self {
        let mut out = BytesMut::from(&*self.encoded);
        if let Some(slot) = out.get_mut(ATTEMPT_AT..ATTEMPT_AT + 2) {
            slot.copy_from_slice(&attempt.to_be_bytes());
        }
        let encoded = out.freeze();
        let tail = encoded.slice(encoded.len().saturating_sub(self.tail.len())..);
        Self { header: self.header, attempt, tail, encoded }
    }

    /// What tells this attempt from all others.
    pub const fn key(&self) -> EnvelopeKey {
        self.header.key(self.attempt)
    }

    pub(super) fn decode(encoded: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(encoded.slice(1..), "envelope");
        reader.version()?;
        let attempt = reader.u16()?;
        let header = Header::read(&mut reader)?;
        let tail = reader.rest();
        if attempt == 0 {
            return Err(WireError::Invalid("attempt"));
        }
        if tail.is_empty() {
            return Err(WireError::Truncated("envelope"));
        }
        if tail.len() > Tail::BYTES_MAX {
            return Err(WireError::TooLarge("envelope"));
        }
        Ok(Self { header, attempt, tail, encoded })
    }
}

/// What opens a session: it precedes the sealed body until the first receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The recipient's prekey that it is for.
    pub prekey: PrekeyId,
    /// The encapsulated secret.
    pub encapsulation: Bytes,
    /// The sender's signature over the session's context and the encapsulation.
    pub signature: [u8; 64],
}

/// Opening and sealed body: what follows an envelope's header, and what is cut into fragments when
/// it has to be flooded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The opening, until the first receipt.
    pub opening: Option<Opening>,
    /// The sealed body.
    pub sealed: Bytes,
}

impl Tail {
    /// Bytes of the longest tail.
    pub const BYTES_MAX: usize = 1 + OPENING_LEN + SEALED_BYTES_MAX;

    /// The tail as bytes.
    pub fn encode(opening: Option<&Opening>, sealed: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + OPENING_LEN + sealed.len());
        match opening {
            None => out.push(0),
            Some(opening) => {
                out.push(1);
                debug_assert_eq!(opening.encapsulation.len(), ENCAPSULATION_LEN);
                out.put_u32(opening.prekey.0);
                out.put_slice(&opening.encapsulation);
                out.put_slice(&opening.signature);
            }
        }
        out.extend_from_slice(sealed);
        out
    }

    /// Reads a tail.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes, "envelope");
        let opening = match reader.u8()? {
            0 => None,
            1 => Some(Opening {
                prekey: PrekeyId(reader.u32()?),
                encapsulation: reader.bytes(ENCAPSULATION_LEN)?,
                signature: reader.array()?,
            }),
            _ => return Err(WireError::Invalid("opening")),
        };
        reader.bounded(reader.remaining(), SEALED_BYTES_MAX, "sealed body")?;
        Ok(Self { opening, sealed: reader.rest() })
    }
}
