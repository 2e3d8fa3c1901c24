//! Answers questions. Each does a bounded amount of work, since commits wait for it.

use bytes::Bytes;
use rusqlite::blob::Blob;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, params};

use crate::model::{Incarnation, PeerId, Sequence, Timestamp};
use crate::store::apply::key_state_number;
use crate::store::columns::{Columns, bound, stored};
use crate::store::error::{Damage, Fault, ReadError};
use crate::store::op::{
    Answer, Cursor, Incoming, KeyRow, KeyState, Outgoing, OutgoingHead, Question, Row, Stored,
};
use crate::store::sums::{self, Sum, Summing};

/// Messages that one question looks at: some milliseconds of work where a filter refuses most.
pub(super) const INBOX_SEARCH_MAX: u64 = 20_000;

/// Messages in one answer, and bytes of their bodies: what is asked for beyond is not given.
const MESSAGES_MAX: usize = 20_000;
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a body looked at together when the whole is looked through.
const SUMMED_BYTES: usize = 64 * 1024;

/// Where outbox and inbox ended when the question was put. What came later is committed already,
/// but the node has not heard of it yet: an answer must not run ahead of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The last place in the outbox.
    pub(super) row: Row,
    /// The last place in the inbox.
    pub(super) cursor: Cursor,
}

/// Answers one question.
pub(super) fn answer(
    connection: &Connection,
    question: &Question,
    ends: Ends,
) -> Result<Answer, Fault> {
    match question {
        Question::OutboxOf { recipient, after, messages_max, bytes_max } => {
            outbox_of(connection, *recipient, *after, ends.row, *messages_max, *bytes_max)
        }
        Question::Outbox { after, messages_max } => {
            outbox(connection, *after, ends.row, *messages_max)
        }
        Question::Inbox {
            after,
            through,
            from,
            since,
            messages_max,
            bytes_max,
            body_bytes_max,
        } => {
            let search = Search {
                after: *after,
                through: (*through).min(ends.cursor),
                from: *from,
                since: *since,
                messages_max: *messages_max,
                bytes_max: *bytes_max,
                body_bytes_max: *body_bytes_max,
            };
            search.run(connection)
        }
        Question::Body { cursor, offset, bytes_max } => {
            body(connection, *cursor, *offset, *bytes_max).map(Answer::Body)
        }
        Question::Key { key, subject, body } => {
            key_row(connection, key, subject.as_deref(), body).map(Answer::Key)
        }
    }
}

/// Counts what an answer holds, and says when it is enough.
struct Fill {
    messages_left: usize,
    bytes_left: usize,
    empty: bool,
}

impl Fill {
    fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages_left: messages_max.min(MESSAGES_MAX),
            bytes_left: bytes_max.min(BYTES_MAX),
            empty: true,
        }
    }

    /// Whether a message with that many bytes goes in. The first one always does.
    fn takes(&mut self, bytes: usize) -> bool {
        if self.messages_left == 0 || (bytes > self.bytes_left && !self.empty) {
            return false;
        }
        self.messages_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.empty = false;
        true
    }
}

fn outbox_of(
    connection: &Connection,
    recipient: PeerId,
    after: Row,
    end: Row,
    messages_max: usize,
    bytes_max: usize,
) -> Result<Answer, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT row, id, recipient, incarnation, sequence, queued, expires, subject, key, sums,
         body
         FROM outbox WHERE recipient = ?1 AND row > ?2 AND row <= ?3 ORDER BY row",
    )?;
    let params = params![recipient.as_bytes(), bound(after.0), bound(end.0)];
    let mut rows = statement.query(params)?;
    let mut fill = Fill::new(messages_max, bytes_max);
    let mut messages = Vec::new();
    while fill.messages_left > 0
        && let Some(row) = rows.next()?
    {
        let columns = Columns { table: "outbox", row };
        let body = columns.bytes(10)?;
        if !fill.takes(body.len()) {
            break;
        }
        let length = body.len() as u64;
        messages.push(outgoing(&columns, Some(body), length)?);
    }
    Ok(Answer::OutboxOf(messages))
}

fn outbox(
    connection: &Connection,
    after: Row,
    end: Row,
    messages_max: usize,
) -> Result<Answer, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT row, id, recipient, incarnation, sequence, queued, expires, subject, key, sums,
         length(body)
         FROM outbox WHERE row > ?1 AND row <= ?2 ORDER BY row LIMIT ?3",
    )?;
    let limit = bound(messages_max.min(MESSAGES_MAX) as u64);
    let mut rows = statement.query(params![bound(after.0), bound(end.0), limit])?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        let columns = Columns { table: "outbox", row };
        let bytes = columns.number(10)?;
        let message = outgoing(&columns, None, bytes)?;
        heads.push(OutgoingHead { message, bytes });
    }
    Ok(Answer::Outbox(heads))
}

/// A message of the outbox: its first ten columns, and its body if that was read.
fn outgoing(
    columns: &Columns<'_, '_>,
    body: Option<Bytes>,
    length: u64,
) -> Result<Outgoing, ReadError> {
    let mut message = Outgoing {
        row: Row(columns.place(0)?),
        id: columns.id(1)?,
        recipient: columns.peer(2)?,
        incarnation: Incarnation(columns.number(3)?),
        sequence: Sequence(columns.place(4)?),
        queued: columns.time(5)?,
        expires: columns.time(6)?,
        subject: columns.optional_text(7)?.map(Into::into),
        key: columns.optional_text(8)?.map(Into::into),
        body: Bytes::new(),
    };
    sums::check(columns, 9, body.as_deref(), |of_body| {
        sums::of_outgoing(&message, length, of_body)
    })?;
    message.body = body.unwrap_or_default();
    Ok(message)
}

/// A walk through the inbox.
struct Search {
    after: Cursor,
    through: Cursor,
    from: Option<PeerId>,
    since: Option<Timestamp>,
    messages_max: usize,
    bytes_max: usize,
    body_bytes_max: usize,
}

impl Search {
    fn run(&self, connection: &Connection) -> Result<Answer, Fault> {
        let through = self.reach(connection)?;
        let mut statement = connection.prepare_cached(
            "SELECT cursor, sender, incarnation, sequence, id, sent, received, subject,
             length(body), sums, CASE WHEN length(body) <= ?5 THEN body END
             FROM inbox WHERE cursor > ?1 AND cursor <= ?2
             AND (?3 IS NULL OR sender = ?3) AND (?4 IS NULL OR received >= ?4)
             ORDER BY cursor",
        )?;
        let mut rows = statement.query(params![
            bound(self.after.0),
            bound(through.0),
            self.from.as_ref().map(PeerId::as_bytes),
            self.since.map(|since| bound(since.as_millis())),
            bound(self.body_bytes_max as u64),
        ])?;
        let mut fill = Fill::new(self.messages_max, self.bytes_max);
        let mut messages: Vec<Stored> = Vec::new();
        loop {
            if fill.messages_left == 0 {
                break;
            }
            let Some(row) = rows.next()? else {
                return Ok(Answer::Inbox { messages, through });
            };
            let columns = Columns { table: "inbox", row };
            let body = columns.optional_bytes(10)?;
            if !fill.takes(body.as_ref().map_or(0, Bytes::len)) {
                break;
            }
            messages.push(found(&columns, body)?);
        }
        let through = messages.last().map_or(self.after, |last| last.message.cursor);
        Ok(Answer::Inbox { messages, through })
    }

    /// How far this search may go. Cursors grow by one, so a range of them has at most as many
    /// messages; counting begins at the first message there is, since older ones may be gone.
    fn reach(&self, connection: &Connection) -> Result<Cursor, Fault> {
        let first: Option<i64> = connection
            .prepare_cached("SELECT min(cursor) FROM inbox WHERE cursor > ?1")?
            .query_row([bound(self.after.0)], |row| row.get(0))?;
        let end = match first {
            Some(first) => Cursor(first.unsigned_abs().saturating_add(INBOX_SEARCH_MAX - 1)),
            None => self.through,
        };
        Ok(end.min(self.through).max(self.after))
    }
}

/// A message of the inbox, with its body if that was read.
fn found(columns: &Columns<'_, '_>, body: Option<Bytes>) -> Result<Stored, ReadError> {
    let mut message = Incoming {
        cursor: Cursor(columns.place(0)?),
        key: columns.key(1)?,
        id: columns.id(4)?,
        sent: columns.time(5)?,
        received: columns.time(6)?,
        subject: columns.optional_text(7)?.map(Into::into),
        body: Bytes::new(),
    };
    let bytes = columns.number(8)?;
    sums::check(columns, 9, body.as_deref(), |of_body| {
        sums::of_incoming(&message, bytes, of_body)
    })?;
    let whole = body.is_some();
    message.body = body.unwrap_or_default();
    Ok(Stored { message, bytes, whole })
}

/// A piece of a body, read where it lies: the rest of it is not brought into memory. Before the
/// first piece is given the whole is looked through.
fn body(
    connection: &Connection,
    cursor: Cursor,
    offset: u64,
    bytes_max: usize,
) -> Result<Option<Bytes>, Fault> {
    let found: Option<(i64, Vec<u8>)> = connection
        .prepare_cached("SELECT length(body), sums FROM inbox WHERE cursor = ?1")?
        .query_row([stored(cursor.0)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((length, sums)) = found else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(0);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
    let mut piece = vec![0; (length - offset).min(bytes_max).min(BYTES_MAX)];
    if !piece.is_empty() {
        let blob = connection.blob_open(MAIN_DB, "inbox", "body", stored(cursor.0), true)?;
        if offset == 0 && !sums.ends_with(&sum_of(&blob, length)?) {
            let what = "its body is not what was written".to_owned();
            let row = cursor.0.to_string();
            return Err(Damage { table: "inbox", row, what }.into());
        }
        blob.read_at_exact(&mut piece, offset)?;
    }
    Ok(Some(piece.into()))
}

/// The sum over a body that is not brought into memory.
fn sum_of(blob: &Blob<'_>, length: usize) -> Result<Sum, Fault> {
    let mut summing = Summing::new();
    let mut piece = vec![0; SUMMED_BYTES.min(length)];
    let mut offset = 0;
    while offset < length {
        piece.truncate(length - offset);
        blob.read_at_exact(&mut piece, offset)?;
        summing.add(&piece);
        offset += piece.len();
    }
    Ok(summing.sum())
}

fn key_row(
    connection: &Connection,
    key: &str,
    subject: Option<&str>,
    body: &[u8],
) -> Result<Option<KeyRow>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT key, id, recipient, state, row, sum FROM keys WHERE key = ?1")?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let columns = Columns { table: "keys", row };
    let number: u8 = columns.small(3)?;
    let state = [KeyState::Queued, KeyState::Delivered, KeyState::Expired]
        .into_iter()
        .find(|state| key_state_number(*state) == number)
        .ok_or_else(|| columns.damage(format!("state {number} is unknown")))?;
    Ok(Some(KeyRow {
        key: columns.text(0)?.into(),
        id: columns.id(1)?,
        recipient: columns.peer(2)?,
        state,
        row: Row(columns.place(4)?),
        // Of keys from before there was this column nobody knows.
        is_same: columns
            .optional_bytes(5)?
            .is_none_or(|sum| sum == sums::of_content(subject, body).as_slice()),
    }))
}
