//! Frames: everything that two neighbours say to each other.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::envelope::{Envelope, EnvelopeKey, Header};
use super::flood::{Find, Flood, Found};
use super::hello::Hello;
use super::reader::{Reader, WireError, as_text};
use super::record::put_short_text;
use crate::model::PeerId;
use crate::model::limits::{
    DIGESTS_MAX, FRAME_BYTES_MAX, REASON_BYTES_MAX, RECORD_BYTES_MAX, RECORDS_PER_FRAME_MAX,
};

/// Bytes of a digest.
const DIGEST_LEN: usize = PeerId::LEN + 8;

const _: () = assert!(1 + 4 + 1 + 2 + DIGESTS_MAX * DIGEST_LEN <= FRAME_BYTES_MAX);
const _: () = assert!(1 + 2 + RECORDS_PER_FRAME_MAX * (2 + RECORD_BYTES_MAX) <= FRAME_BYTES_MAX);

/// The first byte of each kind of frame.
pub(super) mod tag {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const CLOSE: u8 = 0x02;
    pub(crate) const PING: u8 = 0x10;
    pub(crate) const PONG: u8 = 0x11;
    pub(crate) const FIND: u8 = 0x20;
    pub(crate) const FOUND: u8 = 0x21;
    pub(crate) const ENVELOPE: u8 = 0x30;
    pub(crate) const FLOOD: u8 = 0x31;
    pub(crate) const REJECT: u8 = 0x32;
    pub(crate) const RECEIPT: u8 = 0x33;
    pub(crate) const NOTICE: u8 = 0x34;
    pub(crate) const DIGEST_REQUEST: u8 = 0x40;
    pub(crate) const DIGESTS: u8 = 0x41;
    pub(crate) const RECORD_REQUEST: u8 = 0x42;
    pub(crate) const RECORDS: u8 = 0x43;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first frame each way.
    Hello(Hello),
    /// The last frame: why the link ends.
    Close {
        /// The kind of reason.
        reason: CloseReason,
        /// For the operator at the other end, at most [`REASON_BYTES_MAX`] bytes.
        text: Box<str>,
    },
    /// Asks for a sign of life.
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// A sign of life.
    Pong {
        /// The ping's.
        nonce: u64,
    },
    /// Asks the network for the way to a peer.
    Find(Find),
    /// The answer.
    Found(Found),
    /// An envelope on a learned route.
    Envelope(Envelope),
    /// An envelope, or a fragment of one, for everybody to pass on.
    Flood(Flood),
    /// The neighbour cannot take this envelope any further.
    Reject {
        /// Which envelope.
        key: EnvelopeKey,
        /// Why.
        reason: RejectReason,
    },
    /// The destination stored the envelope whose commitment is the hash of this.
    Receipt {
        /// What only the destination could reveal.
        preimage: [u8; 32],
    },
    /// The destination could not take the envelope.
    Notice(Notice),
    /// Asks what records the neighbour has, in order of peer ID.
    DigestRequest {
        /// Comes back in the answer; not 0.
        exchange: u32,
        /// Only those after it; none for the first page.
        after: Option<PeerId>,
    },
    /// What records the sender has.
    Digests {
        /// The request's; 0 for news that nobody asked for.
        exchange: u32,
        /// Whether there are more after the last.
        more: bool,
        /// In order of peer ID if asked for.
        digests: Vec<Digest>,
    },
    /// Asks for records.
    RecordRequest {
        /// Whose, at most [`RECORDS_PER_FRAME_MAX`].
        peers: Vec<PeerId>,
    },
    /// Records, each as bytes.
    Records {
        /// At most [`RECORDS_PER_FRAME_MAX`].
        records: Vec<Bytes>,
    },
}

/// A record that a neighbour has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Whose.
    pub peer: PeerId,
    /// Which one.
    pub sequence: u64,
}

/// The destination's signed word on an envelope that it did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// What is the matter.
    pub kind: NoticeKind,
    /// The envelope's commitment.
    pub commitment: [u8; 32],
    /// The destination's signature.
    pub signature: [u8; 64],
}

impl Notice {
    /// The bytes that a destination signs: the notice is bound to one envelope.
    pub fn to_sign(kind: NoticeKind, header: &Header) -> Vec<u8> {
        let mut out = header.aad();
        out.push(kind as u8);
        out
    }
}

macro_rules! byte_enum {
    (
        $(#[$meta:meta])* $name:ident, $what:literal {
            $($(#[$doc:meta])* $variant:ident = $byte:literal, $text:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $byte,)+
        }

        impl $name {
            fn from_byte(byte: u8) -> Result<Self, WireError> {
                match byte {
                    $($byte => Ok(Self::$variant),)+
                    _ => Err(WireError::Invalid($what)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

byte_enum! {
    /// What a destination says of an envelope that it did not take.
    NoticeKind, "notice" {
        /// It lost the session: open a new one.
        Reset = 1, "session unknown";
        /// Its inbox is full: try again later.
        Full = 2, "inbox full";
        /// The message is larger than it accepts: do not try again.
        TooLarge = 3, "message too large";
    }
}

byte_enum! {
    /// Why a neighbour does not take an envelope any further.
    RejectReason, "reject reason" {
        /// It knows no way, or none that is left.
        NoRoute = 1, "no route";
        /// It saw this attempt before.
        Loop = 2, "loop";
        /// Its queues are full.
        Congested = 3, "congested";
    }
}

byte_enum! {
    /// Why a link ends.
    CloseReason, "close reason" {
        /// The daemon stops.
        Stopping = 1, "the peer is stopping";
        /// There is another link between the two.
        Duplicate = 2, "another link is in use";
        /// The two are not in the same network.
        Network = 3, "the peer is in another network";
        /// The two speak different versions.
        Version = 4, "the peer speaks another version";
        /// Something came that the protocol does not allow.
        Protocol = 5, "protocol violation";
        /// There are too many links.
        Busy = 6, "the peer has too many links";
        /// The operator ended it.
        Operator = 7, "disconnected by the operator";
        /// A node cannot be its own neighbour.
        Myself = 8, "that is this node itself";
        /// Nothing was heard for too long.
        Silent = 9, "nothing was heard for too long";
        /// It was only asked who answers.
        Probe = 10, "it was only a probe";
    }
}

impl Frame {
    /// Reads one frame, without its length prefix.
    ///
    /// # Errors
    /// When the bytes are no frame of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(WireError::TooLarge("frame"));
        }
        let kind = *bytes.first().ok_or(WireError::Truncated("frame"))?;
        match kind {
            tag::HELLO => Hello::decode(&bytes).map(Self::Hello),
            tag::FIND => Find::decode(&bytes).map(Self::Find),
            tag::FOUND => Found::decode(&bytes).map(Self::Found),
            tag::ENVELOPE => Envelope::decode(bytes).map(Self::Envelope),
            tag::FLOOD => Flood::decode(bytes).map(Self::Flood),
            _ => {
                let mut reader = Reader::new(bytes.slice(1..), "frame");
                let frame = read_small(kind, &mut reader)?;
                reader.finish()?;
                Ok(frame)
            }
        }
    }

    /// The frame as bytes, without its length prefix.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => return hello.encode(),
            Self::Find(find) => return Find::encode(&find.signed, &find.signature, find.hops),
            Self::Found(found) => {
                return Found::encode(&found.signed, &found.signature, found.hops);
            }
            Self::Envelope(envelope) => return envelope.encoded.clone(),
            Self::Flood(flood) => return flood.encoded.clone(),
            Self::Close { reason, text } => {
                out.extend_from_slice(&[tag::CLOSE, *reason as u8]);
                put_short_text(&mut out, truncated(text));
            }
            Self::Ping { nonce } => put_tagged(&mut out, tag::PING, &nonce.to_be_bytes()),
            Self::Pong { nonce } => put_tagged(&mut out, tag::PONG, &nonce.to_be_bytes()),
            Self::Reject { key, reason } => {
                out.push(tag::REJECT);
                key.put(&mut out);
                out.push(*reason as u8);
            }
            Self::Receipt { preimage } => put_tagged(&mut out, tag::RECEIPT, preimage),
            Self::Notice(notice) => {
                out.extend_from_slice(&[tag::NOTICE, notice.kind as u8]);
                out.extend_from_slice(&notice.commitment);
                out.extend_from_slice(&notice.signature);
            }
            Self::DigestRequest { exchange, after } => {
                put_tagged(&mut out, tag::DIGEST_REQUEST, &exchange.to_be_bytes());
                out.push(u8::from(after.is_some()));
                out.extend(after.iter().flat_map(|peer| peer.as_bytes()));
            }
            Self::Digests { exchange, more, digests } => {
                put_tagged(&mut out, tag::DIGESTS, &exchange.to_be_bytes());
                out.push(u8::from(*more));
                debug_assert!(digests.len() <= DIGESTS_MAX);
                put_count(&mut out, digests.len());
                for digest in digests {
                    out.extend_from_slice(digest.peer.as_bytes());
                    out.put_u64(digest.sequence);
                }
            }
            Self::RecordRequest { peers } => {
                out.push(tag::RECORD_REQUEST);
                debug_assert!(peers.len() <= RECORDS_PER_FRAME_MAX);
                put_count(&mut out, peers.len());
                out.extend(peers.iter().flat_map(|peer| peer.as_bytes()));
            }
            Self::Records { records } => {
                out.push(tag::RECORDS);
                debug_assert!(records.len() <= RECORDS_PER_FRAME_MAX);
                put_count(&mut out, records.len());
                for record in records {
                    debug_assert!(record.len() <= RECORD_BYTES_MAX);
                    put_count(&mut out, record.len());
                    out.extend_from_slice(record);
                }
            }
        }
        out.into()
    }
}

fn read_small(kind: u8, reader: &mut Reader) -> Result<Frame, WireError> {
    Ok(match kind {
        tag::CLOSE => Frame::Close {
            reason: CloseReason::from_byte(reader.u8()?)?,
            text: as_text(&reader.short_text()?).into(),
        },
        tag::PING => Frame::Ping { nonce: reader.u64()? },
        tag::PONG => Frame::Pong { nonce: reader.u64()? },
        tag::REJECT => Frame::Reject {
            key: EnvelopeKey::read(reader)?,
            reason: RejectReason::from_byte(reader.u8()?)?,
        },
        tag::RECEIPT => Frame::Receipt { preimage: reader.array()? },
        tag::NOTICE => Frame::Notice(Notice {
            kind: NoticeKind::from_byte(reader.u8()?)?,
            commitment: reader.array()?,
            signature: reader.array()?,
        }),
        tag::DIGEST_REQUEST => {
            let exchange = reader.u32()?;
            if exchange == 0 {
                return Err(WireError::Invalid("exchange"));
            }
            let after = if read_flag(reader)? { Some(reader.peer()?) } else { None };
            Frame::DigestRequest { exchange, after }
        }
        tag::DIGESTS => {
            let (exchange, more) = (reader.u32()?, read_flag(reader)?);
            let count = read_count(reader, DIGESTS_MAX, "number of digests")?;
            let digests = (0..count)
                .map(|_| Ok(Digest { peer: reader.peer()?, sequence: reader.u64()? }))
                .collect::<Result<_, _>>()?;
            Frame::Digests { exchange, more, digests }
        }
        tag::RECORD_REQUEST => {
            let count = read_count(reader, RECORDS_PER_FRAME_MAX, "number of records")?;
            let peers = (0..count).map(|_| reader.peer()).collect::<Result<_, _>>()?;
            Frame::RecordRequest { peers }
        }
        tag::RECORDS => {
            let count = read_count(reader, RECORDS_PER_FRAME_MAX, "number of records")?;
            let records = (0..count)
                .map(|_| {
                    let length = read_count(reader, RECORD_BYTES_MAX, "record")?;
                    reader.bytes(length)
                })
                .collect::<Result<_, _>>()?;
            Frame::Records { records }
        }
        _ => return Err(WireError::Invalid("frame type")),
    })
}

/// Takes the next whole frame from the front of what a link has read, if it is there.
///
/// It is a copy: whoever keeps a frame or a part of it keeps just that, not the read buffer, and
/// the buffer is used again. Else a neighbour could pin a whole buffer with each little envelope
/// that waits here for its receipt.
///
/// # Errors
/// When the next frame is empty or longer than a frame may be: the link is of no use any more.
pub fn split_frames(read: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    let Some(prefix) = read.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(WireError::Truncated("frame"));
    }
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLarge("frame"));
    }
    let Some(frame) = read.get(4..4 + length).map(Bytes::copy_from_slice) else { return Ok(None) };
    read.advance(4 + length);
    Ok(Some(frame))
}

fn put_tagged(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    out.extend_from_slice(content);
}

/// Appends a count or length that is known to fit 16 bits.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

fn read_count(reader: &mut Reader, max: usize, what: &'static str) -> Result<usize, WireError> {
    let count = usize::from(reader.u16()?);
    reader.bounded(count, max, what)
}

fn read_flag(reader: &mut Reader) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("flag")),
    }
}

/// As much of a text as a reason may have, cut between characters.
fn truncated(text: &str) -> &str {
    text.get(..text.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or(text)
}
