//! The newest messages, kept in memory so that listeners who keep up need not read the disk.

use std::collections::VecDeque;

use crate::model::{Cursor, Incoming, Occupancy};

/// Bytes of them.
const RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What each of them takes beside its texts.
const OVERHEAD_BYTES: usize = 256;

/// The newest messages, without a gap.
#[derive(Debug, Default)]
pub(super) struct Recent {
    messages: VecDeque<Incoming>,
    bytes: usize,
}

impl Recent {
    /// Adds the next message; the oldest make room.
    pub(super) fn remember(&mut self, message: Incoming) {
        self.bytes += bytes_of(&message);
        self.messages.push_back(message);
        while self.bytes > RECENT_BYTES_MAX
            && let Some(old) = self.messages.pop_front()
        {
            self.bytes -= bytes_of(&old);
        }
    }

    /// There was a message that is not here: what follows it begins anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("bytes of recent messages", self.bytes, RECENT_BYTES_MAX)
    }

    /// The message after a cursor, if it is here.
    pub(super) fn after(&self, cursor: Cursor) -> Option<&Incoming> {
        let first = self.messages.front()?.cursor.0;
        let at = (cursor.0 + 1).checked_sub(first)?;
        self.messages.get(usize::try_from(at).ok()?)
    }
}

/// What a message takes in memory. A body that is a small part of what it came in was copied out of
/// it.
pub(super) fn bytes_of(message: &Incoming) -> usize {
    let subject = message.subject.as_ref().map_or(0, |subject| subject.len());
    message.body.len() + subject + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Incarnation, MessageId, PeerId, ReceivedKey, Sequence, Timestamp};

    #[test]
    fn recent_messages_are_bounded_though_they_have_no_body() {
        let mut recent = Recent::default();
        for number in 1..=100_000 {
            let sender = PeerId::from_bytes([1; 32]);
            recent.remember(Incoming {
                key: ReceivedKey {
                    sender,
                    incarnation: Incarnation(1),
                    sequence: Sequence(number),
                },
                cursor: Cursor(number),
                id: MessageId([0; 16]),
                sent: Timestamp::from_millis(1),
                received: Timestamp::from_millis(2),
                subject: Some("s".repeat(255).into()),
                body: Bytes::new(),
            });
        }
        assert!(recent.messages.len() < 10_000, "{} in memory", recent.messages.len());
        assert!(recent.messages.len() > 1_000, "{} in memory", recent.messages.len());
    }
}
