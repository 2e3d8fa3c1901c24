//! Peer IDs: an Ed25519 public key, written as bech32m (BIP 350) with the prefix `dm`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use thiserror::Error;

/// The human-readable part of every peer ID.
const PREFIX: Hrp = Hrp::parse_unchecked("dm");

/// Characters of a full peer ID: `dm`, the separator, 52 of key and 6 of checksum.
const TEXT_LEN: usize = 61;

/// Characters that hold the key itself.
const KEY_CHARS: usize = 52;

/// Characters of the short form that people read in tables and logs.
const SHORT_LEN: usize = 11;

/// A node's identity: its Ed25519 public key.
///
/// The text form is bech32m, so a mistyped ID is refused instead of naming somebody else.
/// Ordering is that of the key bytes; simultaneous dials are resolved by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Bytes of a peer ID on the wire.
    pub const LEN: usize = 32;

    /// The ID of the node that holds the private half of this Ed25519 public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The Ed25519 public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All IDs whose text begins with this, if it is the beginning of an ID (`dm1` and then some).
    pub fn range_of_prefix(text: &str) -> Option<RangeInclusive<Self>> {
        const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
        let text = text.to_ascii_lowercase();
        let data = text.strip_prefix("dm1").filter(|data| (1..=KEY_CHARS).contains(&data.len()))?;
        let (mut low, mut high) = ([0; 32], [0xff; 32]);
        for (at, c) in data.chars().enumerate() {
            let value = CHARSET.find(c)?;
            // Each character holds five bits, the first one the highest; the last of an ID has one
            // bit of padding.
            for bit in 0..5 {
                let (place, set) = (at * 5 + bit, value >> (4 - bit) & 1 == 1);
                let mask = 0x80_u8 >> (place % 8);
                if let (Some(low), Some(high)) = (low.get_mut(place / 8), high.get_mut(place / 8)) {
                    *low = if set { *low | mask } else { *low & !mask };
                    *high = if set { *high | mask } else { *high & !mask };
                }
            }
        }
        Some(Self(low)..=Self(high))
    }

    /// The first characters of the text form: enough for a person to tell peers apart, not to name
    /// one safely.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(SHORT_LEN);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Encoding 32 bytes with this prefix cannot exceed bech32's length limit.
        let text = bech32::encode::<Bech32m>(PREFIX, &self.0).map_err(|_| fmt::Error)?;
        f.pad(&text)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Why a text is no peer ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerIdError {
    /// It does not begin with `dm1`.
    #[error("a peer ID begins with dm1")]
    Prefix,
    /// It has the wrong number of characters.
    #[error("a peer ID has {TEXT_LEN} characters, this has {0}")]
    Length(usize),
    /// A character is mistyped: the checksum does not match.
    #[error("mistyped: the checksum does not match")]
    Checksum,
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if !text.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("dm1")) {
            return Err(PeerIdError::Prefix);
        }
        if text.len() != TEXT_LEN {
            return Err(PeerIdError::Length(text.chars().count()));
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| PeerIdError::Checksum)?;
        let mut key = [0; 32];
        let mut bytes = checked.byte_iter();
        for slot in &mut key {
            *slot = bytes.next().ok_or(PeerIdError::Checksum)?;
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PeerId {
        PeerId::from_bytes(std::array::from_fn(|i| i as u8 * 7))
    }

    #[test]
    fn text_round_trips() {
        let text = sample().to_string();
        assert_eq!(text.len(), TEXT_LEN);
        assert!(text.starts_with("dm1"));
        assert_eq!(text.parse::<PeerId>(), Ok(sample()));
        assert_eq!(text.to_uppercase().parse::<PeerId>(), Ok(sample()));
    }

    #[test]
    fn every_single_typo_is_caught() {
        let text = sample().to_string();
        for at in 3..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
            let typo = String::from_utf8(typo).expect("ascii");
            assert_eq!(typo.parse::<PeerId>(), Err(PeerIdError::Checksum), "at {at}");
        }
    }

    #[test]
    fn a_prefix_names_exactly_the_ids_that_begin_with_it() {
        let other = PeerId::from_bytes([0x5a; 32]);
        for length in 4..=55 {
            let text = sample().to_string();
            let range = PeerId::range_of_prefix(&text[..length]).expect("a prefix");
            assert!(range.contains(&sample()), "{length}");
            assert_eq!(range.contains(&other), other.to_string().starts_with(&text[..length]));
        }
        assert_eq!(PeerId::range_of_prefix("dm1"), None);
        assert_eq!(PeerId::range_of_prefix("dm1b"), None, "b is not in the alphabet");
        assert_eq!(PeerId::range_of_prefix("alice"), None);
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!("".parse::<PeerId>(), Err(PeerIdError::Prefix));
        assert_eq!("alice".parse::<PeerId>(), Err(PeerIdError::Prefix));
        assert_eq!("dm1qq".parse::<PeerId>(), Err(PeerIdError::Length(5)));
        // The older bech32 checksum is not accepted in place of bech32m.
        let old = bech32::encode::<bech32::Bech32>(PREFIX, sample().as_bytes()).expect("short");
        assert_eq!(old.parse::<PeerId>(), Err(PeerIdError::Checksum));
    }
}
