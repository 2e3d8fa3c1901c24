//! Sums over messages. SQLite has none over its pages: a bit that flips on the disk would be
//! delivered as if it had been sent.
//!
//! They guard against disks, not against people, who could write new ones; SHA-256 only because it
//! is there and fast. A message has two: one over its columns, so that a listing need not read
//! bodies, and one over its body, which the former covers. Both stay the same when a held message
//! comes into the inbox.

use aws_lc_rs::digest::{Context, SHA256};

use crate::store::columns::Columns;
use crate::store::error::ReadError;
use crate::store::op::{Incoming, Outgoing, ReceivedKey};

/// A sum: the first bytes of a hash.
pub(super) type Sum = [u8; 8];

/// Both sums of a message, as they are stored: columns first.
pub(super) type Sums = [u8; 16];

/// A sum in the making.
pub(super) struct Summing(Context);

impl Summing {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// A piece of a body.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn sum(self) -> Sum {
        let hash = self.0.finish();
        std::array::from_fn(|at| hash.as_ref().get(at).copied().unwrap_or(0))
    }

    fn number(mut self, number: u64) -> Self {
        self.add(&number.to_be_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self.number(bytes.len() as u64)
    }

    fn text(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.bytes(text.as_bytes()).number(1),
            None => self.number(0),
        }
    }

    fn key(self, key: &ReceivedKey) -> Self {
        self.bytes(key.sender.as_bytes()).number(key.incarnation.0).number(key.sequence.0)
    }

    /// Both sums, this one being of the columns before the body.
    fn with_body(self, length: u64, body: Sum) -> Sums {
        let columns = self.number(length).bytes(&body).sum();
        let mut sums = columns.into_iter().chain(body);
        std::array::from_fn(|_| sums.next().unwrap_or(0))
    }
}

/// Of a body, or of a piece of one.
fn of_bytes(bytes: &[u8]) -> Sum {
    let mut summing = Summing::new();
    summing.add(bytes);
    summing.sum()
}

/// Of a message received that is all here.
pub(super) fn of_whole_incoming(message: &Incoming) -> Sums {
    of_incoming(message, message.body.len() as u64, of_bytes(&message.body))
}

/// The same of a message to be sent.
pub(super) fn of_whole_outgoing(message: &Outgoing) -> Sums {
    of_outgoing(message, message.body.len() as u64, of_bytes(&message.body))
}

/// Of what a client wants to say, to know it again.
pub(super) fn of_content(subject: Option<&str>, body: &[u8]) -> Sum {
    Summing::new().text(subject).bytes(body).sum()
}

/// Of a message received, with a body of this length and sum, wherever that is.
pub(super) fn of_incoming(message: &Incoming, length: u64, body: Sum) -> Sums {
    Summing::new()
        .key(&message.key)
        .bytes(&message.id.0)
        .number(message.sent.as_millis())
        .number(message.received.as_millis())
        .text(message.subject.as_deref())
        .with_body(length, body)
}

/// The same of a message to be sent.
pub(super) fn of_outgoing(message: &Outgoing, length: u64, body: Sum) -> Sums {
    Summing::new()
        .bytes(&message.id.0)
        .bytes(message.recipient.as_bytes())
        .number(message.incarnation.0)
        .number(message.sequence.0)
        .number(message.queued.as_millis())
        .number(message.expires.as_millis())
        .text(message.subject.as_deref())
        .text(message.key.as_deref())
        .with_body(length, body)
}

/// Of what is known of a message whose chunks are arriving.
pub(super) fn of_partial(key: &ReceivedKey, total: u64, sent: u64, subject: Option<&str>) -> Sum {
    Summing::new().key(key).number(total).number(sent).text(subject).sum()
}

/// Of one of them.
pub(super) fn of_chunk(key: &ReceivedKey, number: u64, bytes: &[u8]) -> Sum {
    Summing::new().key(key).number(number).bytes(bytes).sum()
}

/// The half of the sums that is of the body.
fn body_of(sums: &Sums) -> Sum {
    std::array::from_fn(|at| sums.get(8 + at).copied().unwrap_or(0))
}

/// Checks a row that was read: its sums in that column, its body if that was read as well, and what
/// its sums should be for a body with a given sum.
pub(super) fn check(
    columns: &Columns<'_, '_>,
    column: usize,
    body: Option<&[u8]>,
    expected: impl FnOnce(Sum) -> Sums,
) -> Result<(), ReadError> {
    let sums: Sums = columns.array(column)?;
    let of_body = body_of(&sums);
    let is_body = || body.is_none_or(|body| of_bytes(body) == of_body);
    confirm(columns, expected(of_body) == sums && is_body())
}

/// Checks a row that was read and has one sum, in that column.
pub(super) fn check_one(
    columns: &Columns<'_, '_>,
    column: usize,
    expected: Sum,
) -> Result<(), ReadError> {
    confirm(columns, columns.array(column)? == expected)
}

fn confirm(columns: &Columns<'_, '_>, is_as_written: bool) -> Result<(), ReadError> {
    match is_as_written {
        true => Ok(()),
        false => Err(columns.damage("it is not what was written").into()),
    }
}
