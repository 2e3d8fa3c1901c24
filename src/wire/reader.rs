//! Reading bounded input from the front.

use bytes::{Buf as _, Bytes};
use thiserror::Error;

use crate::model::PeerId;

/// Why bytes are not what they claim to be. The peer that sent them is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// It ends before its last field.
    #[error("truncated {0}")]
    Truncated(&'static str),
    /// It goes on after its last field.
    #[error("trailing bytes after {0}")]
    Trailing(&'static str),
    /// A length or count is over its limit.
    #[error("{0} is over its limit")]
    TooLarge(&'static str),
    /// A field has a value that the protocol does not know.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// It is of another protocol version.
    #[error("protocol version {0} is not supported")]
    Version(u8),
}

/// Takes fields from the front of bytes. Slices share the bytes' memory.
pub(super) struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    /// Reads `bytes`, which errors call `what`.
    pub(super) const fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let array = *self.rest.first_chunk().ok_or(WireError::Truncated(self.what))?;
        self.rest.advance(N);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn peer(&mut self) -> Result<PeerId, WireError> {
        self.array().map(PeerId::from_bytes)
    }

    /// The version byte, which must be ours.
    pub(super) fn version(&mut self) -> Result<(), WireError> {
        match self.u8()? {
            super::VERSION => Ok(()),
            other => Err(WireError::Version(other)),
        }
    }

    /// A count or length, checked against its limit.
    pub(super) fn bounded(
        &self,
        value: usize,
        max: usize,
        what: &'static str,
    ) -> Result<usize, WireError> {
        if value > max { Err(WireError::TooLarge(what)) } else { Ok(value) }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.rest.len() {
            return Err(WireError::Truncated(self.what));
        }
        Ok(self.rest.split_to(length))
    }

    /// Text of a length given in one byte.
    pub(super) fn short_text(&mut self) -> Result<Bytes, WireError> {
        let length = usize::from(self.u8()?);
        let bytes = self.bytes(length)?;
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(bytes),
            Err(_) => Err(WireError::Invalid("text")),
        }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.what)) }
    }
}

/// Text that [`Reader::short_text`] checked.
pub(super) fn as_text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
