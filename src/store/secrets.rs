//! Prekeys and sessions: rows that name a secret, and slots that hold it.
//!
//! A secret that is dropped must be gone. SQLite overwrites what it deletes, but when it moves rows
//! between pages it can leave a copy in the unused part of a page. So a secret never moves: slots
//! are all of one size, are added only at the end (which moves nothing), are never deleted, and are
//! overwritten in place, with zeros when they become vacant. Old versions of the page are in the
//! log until [`Disk::scrub`] overwrites it, a moment after the drop.
//!
//! What a disk keeps of overwritten blocks (flash translation, snapshots of a file system) is
//! beyond us, and so are backups.
//!
//! [`Disk::scrub`]: super::disk::Disk::scrub

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::model::{PeerId, PrekeyId, SessionId};
use crate::store::columns::stored;
use crate::store::error::Fault;
use crate::store::op::{PrekeyRow, SessionRow};

/// Stores a session. Says whether another secret was overwritten.
pub(super) fn put_session(connection: &Connection, row: &SessionRow) -> Result<bool, Fault> {
    let found = session_slot(connection, row.sender, row.session)?;
    let slot = write(connection, found, &row.secret)?;
    connection
        .prepare_cached(
            "INSERT INTO sessions (sender, session, created, slot) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET created = ?3",
        )?
        .execute(params![
            row.sender.as_bytes(),
            stored(row.session.0),
            stored(row.created.as_millis()),
            slot
        ])?;
    Ok(found.is_some())
}

/// Drops a session. Says whether a secret was overwritten.
pub(super) fn drop_session(
    connection: &Connection,
    sender: PeerId,
    session: SessionId,
) -> Result<bool, Fault> {
    let Some(slot) = session_slot(connection, sender, session)? else {
        return Ok(false);
    };
    vacate(connection, slot)?;
    connection
        .prepare_cached("DELETE FROM sessions WHERE sender = ?1 AND session = ?2")?
        .execute(params![sender.as_bytes(), stored(session.0)])?;
    Ok(true)
}

/// Stores a prekey. Says whether another secret was overwritten.
pub(super) fn put_prekey(connection: &Connection, row: &PrekeyRow) -> Result<bool, Fault> {
    let found = prekey_slot(connection, row.id)?;
    let slot = write(connection, found, &row.secret)?;
    connection
        .prepare_cached(
            "INSERT INTO prekeys (id, created, slot) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET created = ?2",
        )?
        .execute(params![row.id.0, stored(row.created.as_millis()), slot])?;
    Ok(found.is_some())
}

/// Drops a prekey. Says whether a secret was overwritten.
pub(super) fn drop_prekey(connection: &Connection, id: PrekeyId) -> Result<bool, Fault> {
    let Some(slot) = prekey_slot(connection, id)? else {
        return Ok(false);
    };
    vacate(connection, slot)?;
    connection.prepare_cached("DELETE FROM prekeys WHERE id = ?1")?.execute([id.0])?;
    Ok(true)
}

/// Where a session's secret is.
fn session_slot(
    connection: &Connection,
    sender: PeerId,
    session: SessionId,
) -> Result<Option<i64>, Fault> {
    let slot = connection
        .prepare_cached("SELECT slot FROM sessions WHERE sender = ?1 AND session = ?2")?
        .query_row(params![sender.as_bytes(), stored(session.0)], |row| row.get(0))
        .optional()?;
    Ok(slot)
}

/// Where a prekey's secret is.
fn prekey_slot(connection: &Connection, id: PrekeyId) -> Result<Option<i64>, Fault> {
    let slot = connection
        .prepare_cached("SELECT slot FROM prekeys WHERE id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    Ok(slot)
}

/// Writes a secret into the slot given, else a vacant one, else a new one.
fn write(connection: &Connection, slot: Option<i64>, secret: &[u8; 32]) -> Result<i64, Fault> {
    let slot = match slot {
        Some(slot) => Some(slot),
        None => connection
            .prepare_cached(
                "DELETE FROM vacant_slots WHERE slot = (SELECT min(slot) FROM vacant_slots)
                 RETURNING slot",
            )?
            .query_row([], |row| row.get(0))
            .optional()?,
    };
    let Some(slot) = slot else {
        return Ok(connection
            .prepare_cached("INSERT INTO secrets (bytes) VALUES (?1)")?
            .insert([&secret[..]])?);
    };
    overwrite(connection, slot, secret)?;
    Ok(slot)
}

/// Overwrites a slot with zeros and gives it free.
fn vacate(connection: &Connection, slot: i64) -> Result<(), Fault> {
    overwrite(connection, slot, &[0; 32])?;
    connection.prepare_cached("INSERT INTO vacant_slots (slot) VALUES (?1)")?.execute([slot])?;
    Ok(())
}

/// Overwrites a slot where it is: a record of equal size stays in its place.
fn overwrite(connection: &Connection, slot: i64, bytes: &[u8; 32]) -> Result<(), Fault> {
    let changed = connection
        .prepare_cached("UPDATE secrets SET bytes = ?2 WHERE slot = ?1")?
        .execute(params![slot, &bytes[..]])?;
    match changed {
        1 => Ok(()),
        _ => Err(Fault::Damaged(format!("table secrets, row {slot}: it is missing"))),
    }
}
