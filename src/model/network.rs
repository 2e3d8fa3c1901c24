//! Which network a node belongs to.

use std::fmt;

/// Names a network in records: all zeros for the open network, a hash of the key for a closed one.
///
/// It is public; it proves nothing. Membership is proven at the link, with the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId([u8; 16]);

impl NetworkId {
    /// The open network, which anybody may join.
    pub const OPEN: Self = Self([0; 16]);

    /// Bytes of a network ID on the wire.
    pub const LEN: usize = 16;

    /// A network ID from its wire form.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OPEN {
            return f.write_str("open");
        }
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
