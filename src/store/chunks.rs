//! Messages that arrive in pieces.

use bytes::Bytes;
use rusqlite::blob::ZeroBlob;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, params};

use crate::model::limits::{STORED_OVERHEAD_BYTES, stored_bytes};
use crate::model::{MessageId, Timestamp};
use crate::store::columns::{Columns, key_params, stored};
use crate::store::error::Fault;
use crate::store::op::{Cursor, Incoming, IncomingChunk, ReceivedKey};
use crate::store::sums::{self, Summing, Sums};

/// Makes the row of a message whose chunks are there, with a body to be written.
const INTO_INBOX: &str = "
    INSERT INTO inbox
    (cursor, sender, incarnation, sequence, id, sent, received, subject, sums, body)
    SELECT ?1, sender, incarnation, sequence, ?5, sent, ?6, subject, ?7, ?8 FROM partials
    WHERE sender = ?2 AND incarnation = ?3 AND sequence = ?4";
/// The same for messages whose turn has not come.
const INTO_HELD: &str = "
    INSERT INTO held
    (slot, sender, incarnation, sequence, id, sent, received, subject, sums, body)
    SELECT ?1, sender, incarnation, sequence, ?5, sent, ?6, subject, ?7, ?8 FROM partials
    WHERE sender = ?2 AND incarnation = ?3 AND sequence = ?4";

/// Stores a chunk, unless it is there. Returns what it counts for, if it is new.
pub(super) fn put(connection: &Connection, chunk: &IncomingChunk) -> Result<u64, Fault> {
    let key = &chunk.key;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO partials
             (sender, incarnation, sequence, total, sent, expires, subject, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            key.sender.as_bytes(),
            stored(key.incarnation.0),
            stored(key.sequence.0),
            stored(chunk.total),
            stored(chunk.sent.as_millis()),
            stored(chunk.expires.as_millis()),
            chunk.subject,
            sums::of_partial(key, chunk.total, chunk.sent.as_millis(), chunk.subject.as_deref()),
        ])?;
    let added = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO chunks (sender, incarnation, sequence, number, sum, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            key.sender.as_bytes(),
            stored(key.incarnation.0),
            stored(key.sequence.0),
            chunk.index,
            sums::of_chunk(key, u64::from(chunk.index), &chunk.bytes),
            &chunk.bytes[..],
        ])?;
    Ok(if added == 0 { 0 } else { stored_bytes(chunk.bytes.len() as u64) })
}

/// Makes one message of all chunks, in the inbox (with a cursor) or held. Its size stays the same.
///
/// The body is written piece by piece into a row that was made for it: no copy of it is in memory.
pub(super) fn assemble(
    connection: &Connection,
    key: &ReceivedKey,
    id: MessageId,
    cursor: Option<Cursor>,
    received: Timestamp,
) -> Result<(), Fault> {
    let total = checked_total(connection, key)?;
    let sums = checked_sums(connection, key, id, received)?;
    let (table, place) = match cursor {
        Some(cursor) => ("inbox", Some(stored(cursor.0))),
        None => ("held", None),
    };
    let sql = match cursor {
        Some(_) => INTO_INBOX,
        None => INTO_HELD,
    };
    let slot = connection.prepare_cached(sql)?.insert(params![
        place,
        key.sender.as_bytes(),
        stored(key.incarnation.0),
        stored(key.sequence.0),
        &id.0[..],
        stored(received.as_millis()),
        sums,
        ZeroBlob(total),
    ])?;
    let mut body = connection.blob_open(MAIN_DB, table, "body", slot, false)?;
    let mut statement = connection.prepare_cached(
        "SELECT bytes FROM chunks WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3
         ORDER BY number",
    )?;
    let mut rows = statement.query(key_params(key))?;
    let mut offset = 0;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        body.write_at(bytes, offset)?;
        offset += bytes.len();
    }
    drop(rows);
    body.close()?;
    drop_all(connection, key)?;
    Ok(())
}

/// The sums of the message to be made, once its chunks are known to be what was written.
fn checked_sums(
    connection: &Connection,
    key: &ReceivedKey,
    id: MessageId,
    received: Timestamp,
) -> Result<Sums, Fault> {
    let mut body = Summing::new();
    let mut statement = connection.prepare_cached(
        "SELECT number, sum, bytes FROM chunks
         WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3 ORDER BY number",
    )?;
    let mut rows = statement.query(key_params(key))?;
    while let Some(row) = rows.next()? {
        let columns = Columns { table: "chunks", row };
        let bytes = columns.slice(2)?;
        sums::check_one(&columns, 1, sums::of_chunk(key, columns.number(0)?, bytes))?;
        body.add(bytes);
    }
    let mut statement = connection.prepare_cached(
        "SELECT sender, total, sent, subject, sum FROM partials
         WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
    )?;
    let mut rows = statement.query(key_params(key))?;
    let Some(row) = rows.next()? else {
        return Err(Fault::Missing(format!("{key:?} is assembled but has no chunks")));
    };
    let columns = Columns { table: "partials", row };
    let (total, sent) = (columns.number(1)?, columns.time(2)?);
    let subject = columns.optional_text(3)?;
    sums::check_one(&columns, 4, sums::of_partial(key, total, sent.as_millis(), subject))?;
    let message = Incoming {
        key: *key,
        cursor: Cursor::default(),
        id,
        sent,
        received,
        subject: subject.map(Into::into),
        body: Bytes::new(),
    };
    Ok(sums::of_incoming(&message, total, body.sum()))
}

/// The message's size, once its chunks are known to be all there.
fn checked_total(connection: &Connection, key: &ReceivedKey) -> Result<i32, Fault> {
    let total: Option<i64> = connection
        .prepare_cached(
            "SELECT total FROM partials
             WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
        )?
        .query_row(key_params(key), |row| row.get(0))
        .optional()?;
    let Some(total) = total else {
        return Err(Fault::Missing(format!("{key:?} is assembled but has no chunks")));
    };
    let (count, last, bytes): (i64, i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), ifnull(max(number), 0), ifnull(sum(length(bytes)), 0) FROM chunks
             WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
        )?
        .query_row(key_params(key), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if bytes != total || last.checked_add(1) != Some(count) {
        return Err(Fault::Missing(format!(
            "{key:?} is assembled from {count} chunks up to number {last} \
             with {bytes} bytes of {total}"
        )));
    }
    i32::try_from(total).map_err(|_| Fault::Bug(format!("{key:?} has {total} bytes")))
}

/// Drops the chunks of a message. Returns what they counted for.
pub(super) fn drop_all(connection: &Connection, key: &ReceivedKey) -> Result<u64, Fault> {
    let (bytes, count): (i64, i64) = connection
        .prepare_cached(
            "SELECT ifnull(sum(length(bytes)), 0), count(*) FROM chunks
             WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
        )?
        .query_row(key_params(key), |row| Ok((row.get(0)?, row.get(1)?)))?;
    for sql in [
        "DELETE FROM chunks WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
        "DELETE FROM partials WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
    ] {
        connection.prepare_cached(sql)?.execute(key_params(key))?;
    }
    let overhead = count.unsigned_abs().saturating_mul(STORED_OVERHEAD_BYTES);
    Ok(bytes.unsigned_abs().saturating_add(overhead))
}
