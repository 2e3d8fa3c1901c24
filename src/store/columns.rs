//! Between values and columns. What is read is checked: a disk can return anything.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use zeroize::Zeroizing;

use crate::model::{Incarnation, MessageId, PeerId, Sequence, Timestamp};
use crate::store::error::{Damage, ReadError};
use crate::store::op::ReceivedKey;

/// No place is beyond this, in any count: it is past the last sequence number, and there is room to
/// count on behind it.
pub(super) const PLACE_MAX: u64 = 3 << 61;

/// A number as SQLite stores it: the same 64 bits, so that every value returns as it was, whatever
/// a stranger chose. Only for numbers whose order does not matter or that are ours.
pub(super) const fn stored(number: u64) -> i64 {
    number.cast_signed()
}

/// A bound to compare stored numbers with: larger than all of them if it is too large.
pub(super) const fn bound(number: u64) -> i64 {
    if number > i64::MAX.unsigned_abs() { i64::MAX } else { number.cast_signed() }
}

/// What identifies a message received, as three parameters.
pub(super) const fn key_params(key: &ReceivedKey) -> (&[u8; 32], i64, i64) {
    (key.sender.as_bytes(), stored(key.incarnation.0), stored(key.sequence.0))
}

/// A row of a table. The first column identifies it to people.
pub(super) struct Columns<'a, 'statement> {
    /// The table, for reports.
    pub(super) table: &'static str,
    /// The row.
    pub(super) row: &'a Row<'statement>,
}

impl<'a> Columns<'a, '_> {
    /// Reports damage in this row.
    pub(super) fn damage(&self, what: impl Into<String>) -> Damage {
        let row = match self.row.get_ref(0) {
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(ValueRef::Text(text)) => format!("{:?}", String::from_utf8_lossy(text)),
            Ok(ValueRef::Blob(bytes)) => {
                bytes.iter().take(PeerId::LEN).map(|byte| format!("{byte:02x}")).collect()
            }
            _ => "unknown".to_owned(),
        };
        Damage { table: self.table, row, what: what.into() }
    }

    /// A number.
    pub(super) fn number(&self, column: usize) -> Result<u64, ReadError> {
        match self.row.get_ref(column)? {
            ValueRef::Integer(number) => Ok(number.cast_unsigned()),
            _ => Err(self.wrong(column, "a number")),
        }
    }

    /// A number that may be no larger than its type.
    pub(super) fn small<T: TryFrom<u64>>(&self, column: usize) -> Result<T, ReadError> {
        T::try_from(self.number(column)?).map_err(|_| self.wrong(column, "a number that small"))
    }

    /// A number that is counted up: a place in the inbox or the outbox, a sequence number.
    pub(super) fn place(&self, column: usize) -> Result<u64, ReadError> {
        let number = self.number(column)?;
        if number > PLACE_MAX {
            return Err(self.wrong(column, "a number that anything has counted to"));
        }
        Ok(number)
    }

    /// Bytes, where they lie.
    pub(super) fn slice(&self, column: usize) -> Result<&'a [u8], ReadError> {
        match self.row.get_ref(column)? {
            ValueRef::Blob(bytes) => Ok(bytes),
            _ => Err(self.wrong(column, "bytes")),
        }
    }

    /// Bytes, copied.
    pub(super) fn bytes(&self, column: usize) -> Result<Bytes, ReadError> {
        self.slice(column).map(Bytes::copy_from_slice)
    }

    /// Bytes that may be missing, copied.
    pub(super) fn optional_bytes(&self, column: usize) -> Result<Option<Bytes>, ReadError> {
        match self.row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            _ => self.bytes(column).map(Some),
        }
    }

    /// That many bytes and no other number.
    pub(super) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], ReadError> {
        <[u8; N]>::try_from(self.slice(column)?)
            .map_err(|_| self.wrong(column, &format!("{N} bytes")))
    }

    /// A secret, which is wiped from memory when it is dropped.
    pub(super) fn secret(&self, column: usize) -> Result<Zeroizing<[u8; 32]>, ReadError> {
        let mut secret = Zeroizing::new([0; 32]);
        let bytes = self.slice(column)?;
        if bytes.len() != secret.len() {
            return Err(self.wrong(column, "32 bytes"));
        }
        secret.copy_from_slice(bytes);
        Ok(secret)
    }

    /// Text.
    pub(super) fn text(&self, column: usize) -> Result<&'a str, ReadError> {
        match self.row.get_ref(column)? {
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| self.wrong(column, "text"))
            }
            _ => Err(self.wrong(column, "text")),
        }
    }

    /// Text that may be missing.
    pub(super) fn optional_text(&self, column: usize) -> Result<Option<&'a str>, ReadError> {
        match self.row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    /// A peer ID.
    pub(super) fn peer(&self, column: usize) -> Result<PeerId, ReadError> {
        self.array(column).map(PeerId::from_bytes)
    }

    /// A message ID.
    pub(super) fn id(&self, column: usize) -> Result<MessageId, ReadError> {
        self.array(column).map(MessageId)
    }

    /// A point in time.
    pub(super) fn time(&self, column: usize) -> Result<Timestamp, ReadError> {
        self.number(column).map(Timestamp::from_millis)
    }

    /// What identifies a message received: three columns from this one on.
    pub(super) fn key(&self, column: usize) -> Result<ReceivedKey, ReadError> {
        Ok(ReceivedKey {
            sender: self.peer(column)?,
            incarnation: Incarnation(self.number(column + 1)?),
            sequence: Sequence(self.place(column + 2)?),
        })
    }

    /// Reports a column that is something else.
    fn wrong(&self, column: usize, wanted: &str) -> ReadError {
        let name = self.row.as_ref().column_name(column).unwrap_or("unknown");
        self.damage(format!("{name} is not {wanted}")).into()
    }
}
