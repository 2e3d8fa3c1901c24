//! What a peer says of itself: its name, its addresses and the keys to write to it with.

use bytes::Bytes;

use super::{Address, Name, NetworkId, PeerId, Timestamp};

/// Names a prekey among those of one peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PrekeyId(pub u32);

/// The public half of a key that sessions are opened to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prekey {
    /// Which of the peer's prekeys this is.
    pub id: PrekeyId,
    /// When its peer stops answering to it.
    pub expires: Timestamp,
    /// The X-Wing public key, [`Prekey::PUBLIC_LEN`] bytes.
    pub public: Bytes,
}

impl Prekey {
    /// Bytes of an X-Wing public key.
    pub const PUBLIC_LEN: usize = 1216;
}

/// A peer record's contents. The signature and its bytes are in [`SignedRecord`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The network it is for.
    pub network: NetworkId,
    /// Who it describes, and who signed it.
    pub peer: PeerId,
    /// Unix milliseconds of its making; a larger one replaces a smaller one.
    pub sequence: u64,
    /// From when on it is void.
    pub expires: Timestamp,
    /// The peer's own name for itself. Anybody may choose any name: it is a hint, never an
    /// identity.
    pub name: Option<Name>,
    /// Where it can be dialled.
    pub addresses: Vec<Address>,
    /// Keys to open sessions to, the preferred one first.
    pub prekeys: Vec<Prekey>,
}

/// A record whose signature has been verified, with the very bytes that were signed.
///
/// Those bytes are what is stored and passed on, never a re-encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedRecord {
    /// What it says.
    pub record: Record,
    /// The bytes as received: contents and signature.
    pub bytes: Bytes,
}
