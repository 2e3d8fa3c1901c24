//! Listeners and what they have acknowledged.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::columns::bound;
use crate::store::error::Fault;
use crate::store::op::Cursor;

/// Sets a listener's position and drops the ranges it has reached.
pub(super) fn put(connection: &Connection, name: &str, position: Cursor) -> Result<(), Fault> {
    let position = bound(position.0);
    connection
        .prepare_cached(
            "INSERT INTO listeners (name, position) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET position = ?2",
        )?
        .execute(params![name, position])?;
    // Ranges do not overlap: only the last of those that begin at or before the position can reach
    // beyond it.
    let beyond: Option<i64> = connection
        .prepare_cached(
            "SELECT last FROM acknowledged WHERE name = ?1 AND first <= ?2
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![name, position], |row| row.get(0))
        .optional()?;
    if let Some(last) = beyond {
        remove(connection, name, 0, position)?;
        if last > position {
            insert(connection, name, position.saturating_add(1), last)?;
        }
    }
    Ok(())
}

/// Forgets a listener with its ranges.
pub(super) fn forget(connection: &Connection, name: &str) -> Result<(), Fault> {
    remove(connection, name, 0, i64::MAX)?;
    connection.prepare_cached("DELETE FROM listeners WHERE name = ?1")?.execute([name])?;
    Ok(())
}

/// Notes that a listener has acknowledged these messages. Ranges that touch become one, so there
/// are only as many as there are gaps.
pub(super) fn acknowledge(
    connection: &Connection,
    name: &str,
    first: Cursor,
    last: Cursor,
) -> Result<(), Fault> {
    let position: Option<i64> = connection
        .prepare_cached("SELECT position FROM listeners WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let Some(position) = position else {
        return Err(Fault::Missing(format!("listener {name:?} acknowledges but does not exist")));
    };
    if first > last {
        return Err(Fault::Bug(format!("listener {name:?} acknowledges {first:?} to {last:?}")));
    }
    let (first, last) = (bound(first.0).max(position.saturating_add(1)), bound(last.0));
    if last < first {
        return Ok(());
    }
    let (first, last) = merged(connection, name, first, last)?;
    remove(connection, name, first, last)?;
    insert(connection, name, first, last)
}

/// The range with all that it overlaps or touches. Walks backwards from the last range that begins
/// in it; every one it meets disappears, so the walks are as long as the ranges were many.
fn merged(connection: &Connection, name: &str, first: i64, last: i64) -> Result<(i64, i64), Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT first, last FROM acknowledged WHERE name = ?1 AND first <= ?2
         ORDER BY first DESC",
    )?;
    let mut rows = statement.query(params![name, last.saturating_add(1)])?;
    let (mut lowest, mut highest) = (first, last);
    while let Some(row) = rows.next()? {
        let (start, end): (i64, i64) = (row.get(0)?, row.get(1)?);
        if end < first.saturating_sub(1) {
            break;
        }
        lowest = lowest.min(start);
        highest = highest.max(end);
    }
    Ok((lowest, highest))
}

/// Removes the ranges that begin there.
fn remove(connection: &Connection, name: &str, first: i64, last: i64) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM acknowledged WHERE name = ?1 AND first BETWEEN ?2 AND ?3")?
        .execute(params![name, first, last])?;
    Ok(())
}

/// Adds a range that touches no other.
fn insert(connection: &Connection, name: &str, first: i64, last: i64) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO acknowledged (name, first, last) VALUES (?1, ?2, ?3)")?
        .execute(params![name, first, last])?;
    Ok(())
}
