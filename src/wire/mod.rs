//! Bytes to values and back: frames on links, what is inside of them, and peer records.
//!
//! Every length is checked before it is used, every encoding has one form, and nothing is left over
//! at the end. All numbers are big-endian. Decoding proves form only: signatures and seals are for
//! the rooms that know whom to ask.
//!
//! On a link each frame is preceded by its length in four bytes. Its first byte says what it is.

mod envelope;
mod flood;
mod frame;
mod hello;
mod payload;
mod reader;
mod record;

#[cfg(test)]
mod tests;

pub use envelope::{Envelope, EnvelopeKey, Header, OPENING_LEN, Opening, Tail};
pub use flood::{FRAGMENT_BYTES_MAX, Find, Flood, Found, TAIL_FRAGMENTS_MAX};
pub use frame::{CloseReason, Digest, Frame, Notice, NoticeKind, RejectReason, split_frames};
pub use hello::Hello;
pub use payload::{Item, Payload, PayloadWriter};
pub use reader::WireError;
pub use record::{ParsedRecord, decode_record, encode_record, fit_record, record_with_signature};

/// The protocol's version. Peers that speak another refuse each other's hello.
pub const VERSION: u8 = 1;
