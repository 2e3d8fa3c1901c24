//! What identifies a message, from end to end.

use std::fmt;
use std::str::FromStr;

use super::PeerId;

/// Which run of the sender's daemon queued a message: a random number drawn at each start.
///
/// A state directory restored from a backup therefore never reuses a sequence number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Incarnation(pub u64);

/// A message's place among those of one incarnation to one recipient. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The first sequence number.
    pub const FIRST: Self = Self(1);
    /// The last one: no run of a daemon comes near, and there is room to count on behind it.
    pub const LAST: Self = Self(1 << 62);

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Names a session among those of one sender: random, drawn by the sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Everything that makes a message unique. Exactly once means: once for each of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Uid {
    /// Who wrote it.
    pub sender: PeerId,
    /// Who it is for.
    pub recipient: PeerId,
    /// The sender's run.
    pub incarnation: Incarnation,
    /// Its place in that run.
    pub sequence: Sequence,
}

/// A hash of a [`Uid`], the same at both ends: what people and scripts call a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "a message ID has 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WHY);
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| WHY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_round_trip_and_refuse_signs() {
        let id = MessageId(std::array::from_fn(|i| i as u8));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+0000000000000000000000000000001".parse::<MessageId>().is_err());
        assert!("00".parse::<MessageId>().is_err());
    }
}
