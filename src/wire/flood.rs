//! What crosses every link of the network: finds, and as a last resort flooded envelopes.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::envelope::{Envelope, Header, Tail};
use super::frame::tag;
use super::reader::{Reader, WireError};
use crate::model::limits::{FLOOD_BYTES_MAX, FRAGMENTS_MAX, RECORD_BYTES_MAX};
use crate::model::{PeerId, Timestamp};

const SIGNATURE_LEN: usize = 64;

/// Bytes of an envelope's tail in one fragment: with header and signature it fits a flooded frame.
pub const FRAGMENT_BYTES_MAX: usize = 3_900;

/// Bytes of a find or found beside the record.
const FIND_BARE_LEN: usize = 2 + 1 + 1 + 8 + 32 + 8 + 2 + SIGNATURE_LEN;
/// Bytes of a flood beside the fragment.
const FLOOD_BARE_LEN: usize = 1 + 1 + Header::LEN + 2 + 1 + 1 + 8 + SIGNATURE_LEN;
/// Fragments of the longest tail.
pub const TAIL_FRAGMENTS_MAX: usize = Tail::BYTES_MAX.div_ceil(FRAGMENT_BYTES_MAX);

const _: () = assert!(FIND_BARE_LEN + RECORD_BYTES_MAX <= FLOOD_BYTES_MAX);
const _: () = assert!(FLOOD_BARE_LEN + FRAGMENT_BYTES_MAX <= FLOOD_BYTES_MAX);
const _: () = assert!(TAIL_FRAGMENTS_MAX <= FRAGMENTS_MAX);

/// Asks the network for the way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// Links it crossed so far, by hearsay: relays count, and no signature covers it.
    pub hops: u8,
    /// Only the target itself may answer: what others knew did not work.
    pub direct: bool,
    /// Tells this find from others of its origin.
    pub nonce: u64,
    /// Who is sought.
    pub target: PeerId,
    /// From when on nobody passes it on.
    pub expires: Timestamp,
    /// The origin's record, as bytes.
    pub record: Bytes,
    /// What the origin signed.
    pub signed: Bytes,
    /// The origin's signature.
    pub signature: [u8; SIGNATURE_LEN],
}

const DIRECT: u8 = 1;

impl Find {
    /// The bytes that the origin signs.
    pub fn to_sign(
        direct: bool,
        nonce: u64,
        target: &PeerId,
        expires: Timestamp,
        record: &[u8],
    ) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + record.len());
        out.put_u8(super::VERSION);
        out.put_u8(if direct { DIRECT } else { 0 });
        out.put_u64(nonce);
        out.put_slice(target.as_bytes());
        out.put_u64(expires.as_millis());
        put_record(&mut out, record);
        out.freeze()
    }

    /// The frame, with the number of links it has crossed.
    pub fn encode(signed: &[u8], signature: &[u8; SIGNATURE_LEN], hops: u8) -> Bytes {
        frame_of(tag::FIND, hops, signed, signature)
    }

    pub(super) fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let (hops, signed, signature) = parts_of(frame, "find")?;
        let mut reader = Reader::new(signed.clone(), "find");
        reader.version()?;
        let find = Self {
            hops,
            direct: read_direct(&mut reader)?,
            nonce: reader.u64()?,
            target: reader.peer()?,
            expires: Timestamp::from_millis(reader.u64()?),
            record: read_record(&mut reader)?,
            signed,
            signature,
        };
        reader.finish()?;
        Ok(find)
    }
}

/// The answer to a find, along the way it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Links from the target so far, by hearsay.
    pub hops: u8,
    /// The target itself answers, and signed this.
    pub direct: bool,
    /// Who sought.
    pub origin: PeerId,
    /// Which find it answers.
    pub nonce: u64,
    /// The target's record, as bytes.
    pub record: Bytes,
    /// What the target signed, if it did.
    pub signed: Bytes,
    /// Its signature; zeros if another node answers for it.
    pub signature: [u8; SIGNATURE_LEN],
}

impl Found {
    /// The bytes that a target signs.
    pub fn to_sign(direct: bool, origin: &PeerId, nonce: u64, record: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + record.len());
        out.put_u8(super::VERSION);
        out.put_u8(if direct { DIRECT } else { 0 });
        out.put_slice(origin.as_bytes());
        out.put_u64(nonce);
        put_record(&mut out, record);
        out.freeze()
    }

    /// The frame, with the number of links from the target.
    pub fn encode(signed: &[u8], signature: &[u8; SIGNATURE_LEN], hops: u8) -> Bytes {
        frame_of(tag::FOUND, hops, signed, signature)
    }

    pub(super) fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let (hops, signed, signature) = parts_of(frame, "found")?;
        let mut reader = Reader::new(signed.clone(), "found");
        reader.version()?;
        let found = Self {
            hops,
            direct: read_direct(&mut reader)?,
            origin: reader.peer()?,
            nonce: reader.u64()?,
            record: read_record(&mut reader)?,
            signed,
            signature,
        };
        reader.finish()?;
        Ok(found)
    }
}

/// A fragment of an envelope (or all of it) that is passed on to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// The envelope's header.
    pub header: Header,
    /// Which attempt this is.
    pub attempt: u16,
    /// Which fragment this is, from 0.
    pub fragment: u8,
    /// How many there are.
    pub fragments: u8,
    /// From when on nobody passes it on.
    pub expires: Timestamp,
    /// This fragment of the envelope's tail.
    pub part: Bytes,
    /// What the source signed.
    pub signed: Bytes,
    /// The source's signature.
    pub signature: [u8; SIGNATURE_LEN],
    /// The whole frame, passed on untouched.
    pub encoded: Bytes,
}

impl Flood {
    /// The bytes to sign for each fragment of an envelope.
    pub fn to_sign(envelope: &Envelope, expires: Timestamp) -> Vec<Bytes> {
        debug_assert!((1..=Tail::BYTES_MAX).contains(&envelope.tail.len()));
        let parts = envelope.tail.chunks(FRAGMENT_BYTES_MAX);
        let fragments = u8::try_from(parts.len()).unwrap_or(u8::MAX);
        let mut out = Vec::with_capacity(parts.len());
        for (fragment, part) in (0_u8..).zip(parts) {
            let mut signed = BytesMut::with_capacity(FLOOD_BYTES_MAX);
            signed.put_u8(super::VERSION);
            envelope.header.put(&mut signed);
            signed.put_u16(envelope.attempt);
            signed.put_u8(fragment);
            signed.put_u8(fragments);
            signed.put_u64(expires.as_millis());
            signed.put_slice(part);
            out.push(signed.freeze());
        }
        out
    }

    /// The frame.
    pub fn encode(signed: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + signed.len() + SIGNATURE_LEN);
        out.put_u8(tag::FLOOD);
        out.put_slice(signed);
        out.put_slice(signature);
        out.freeze()
    }

    pub(super) fn decode(encoded: Bytes) -> Result<Self, WireError> {
        let (signed, signature) = split_signature(&encoded, 1, "flood")?;
        let mut reader = Reader::new(signed.clone(), "flood");
        reader.version()?;
        let header = Header::read(&mut reader)?;
        let (attempt, fragment, fragments) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let expires = Timestamp::from_millis(reader.u64()?);
        let part = reader.rest();
        let counted = fragment < fragments && usize::from(fragments) <= TAIL_FRAGMENTS_MAX;
        let last = fragment.saturating_add(1) == fragments;
        let sized = (1..=FRAGMENT_BYTES_MAX).contains(&part.len())
            && (last || part.len() == FRAGMENT_BYTES_MAX);
        // Put together, the fragments are a tail that an envelope may have.
        let end = usize::from(fragment).saturating_mul(FRAGMENT_BYTES_MAX) + part.len();
        let sized = sized && end <= Tail::BYTES_MAX;
        if attempt == 0 || !counted || !sized {
            return Err(WireError::Invalid("fragment"));
        }
        let flood = Self {
            header,
            attempt,
            fragment,
            fragments,
            expires,
            part,
            signed,
            signature,
            encoded,
        };
        Ok(flood)
    }
}

fn put_record(out: &mut BytesMut, record: &[u8]) {
    out.put_u16(u16::try_from(record.len()).unwrap_or(0));
    out.put_slice(record);
}

fn read_record(reader: &mut Reader) -> Result<Bytes, WireError> {
    let length = usize::from(reader.u16()?);
    let length = reader.bounded(length, RECORD_BYTES_MAX, "record")?;
    reader.bytes(length)
}

fn read_direct(reader: &mut Reader) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        DIRECT => Ok(true),
        _ => Err(WireError::Invalid("flags")),
    }
}

fn frame_of(tag: u8, hops: u8, signed: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + signed.len() + SIGNATURE_LEN);
    out.put_u8(tag);
    out.put_u8(hops);
    out.put_slice(signed);
    out.put_slice(signature);
    out.freeze()
}

type Parts = (u8, Bytes, [u8; SIGNATURE_LEN]);

fn parts_of(frame: &Bytes, what: &'static str) -> Result<Parts, WireError> {
    let hops = *frame.get(1).ok_or(WireError::Truncated(what))?;
    let (signed, signature) = split_signature(frame, 2, what)?;
    Ok((hops, signed, signature))
}

fn split_signature(
    frame: &Bytes,
    from: usize,
    what: &'static str,
) -> Result<(Bytes, [u8; SIGNATURE_LEN]), WireError> {
    if frame.len() > FLOOD_BYTES_MAX {
        return Err(WireError::TooLarge(what));
    }
    let to = frame.len().checked_sub(SIGNATURE_LEN).filter(|to| *to >= from);
    let to = to.ok_or(WireError::Truncated(what))?;
    let signature = Reader::new(frame.slice(to..), what).array()?;
    Ok((frame.slice(from..to), signature))
}
