//! Reads everything the node keeps in memory, and with it every row of every table that messages
//! fill, except their bodies.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};

use crate::model::limits::{MESSAGE_BYTES_CEILING, stored_bytes};
use crate::model::{Incarnation, PrekeyId, Sequence, SessionId, WhyGivenUp};
use crate::store::apply::why_number;
use crate::store::columns::Columns;
use crate::store::error::{Damage, ReadError};
use crate::store::op::{
    Cursor, GivenUp, HeldRow, ListenerRow, OutboxSummary, PartialRow, PeerRow, PrekeyRow,
    ReceivedKey, Row, SessionRow, Snapshot, WindowRow,
};
use crate::store::sums;

/// Reads it all.
pub(super) fn load(connection: &Connection) -> Result<Snapshot, ReadError> {
    let mut snapshot = Snapshot {
        peers: peers(connection)?,
        prekeys: prekeys(connection)?,
        sessions: sessions(connection)?,
        windows: windows(connection)?,
        listeners: listeners(connection)?,
        given_up: given_up(connection)?,
        ..Snapshot::default()
    };
    last_places(connection, &mut snapshot)?;
    outbox(connection, &mut snapshot)?;
    inbox(connection, &mut snapshot)?;
    held(connection, &mut snapshot)?;
    partials(connection, &mut snapshot)?;
    Ok(snapshot)
}

/// Calls for each row of a table. The first column must identify the row.
fn each(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    mut visit: impl FnMut(&Columns<'_, '_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(&Columns { table, row })?;
    }
    Ok(())
}

fn peers(connection: &Connection) -> Result<Vec<PeerRow>, ReadError> {
    let mut peers = Vec::new();
    let sql = "SELECT peer, alias, dial, record FROM peers ORDER BY peer";
    each(connection, "peers", sql, |row| {
        let alias = row.optional_text(1)?.map(str::parse).transpose();
        let dial = row.optional_text(2)?.map(str::parse).transpose();
        peers.push(PeerRow {
            peer: row.peer(0)?,
            alias: alias.map_err(|error| row.damage(format!("alias: {error}")))?,
            dial: dial.map_err(|error| row.damage(format!("dial: {error}")))?,
            record: row.optional_bytes(3)?,
        });
        Ok(())
    })?;
    Ok(peers)
}

fn prekeys(connection: &Connection) -> Result<Vec<PrekeyRow>, ReadError> {
    let mut prekeys = Vec::new();
    let sql = "SELECT id, created, bytes FROM prekeys LEFT JOIN secrets USING (slot) ORDER BY id";
    each(connection, "prekeys", sql, |row| {
        prekeys.push(PrekeyRow {
            id: PrekeyId(row.small(0)?),
            created: row.time(1)?,
            secret: row.secret(2)?,
        });
        Ok(())
    })?;
    Ok(prekeys)
}

fn sessions(connection: &Connection) -> Result<Vec<SessionRow>, ReadError> {
    let mut sessions = Vec::new();
    let sql = "SELECT sender, session, created, bytes
               FROM sessions LEFT JOIN secrets USING (slot) ORDER BY sender, session";
    each(connection, "sessions", sql, |row| {
        sessions.push(SessionRow {
            sender: row.peer(0)?,
            session: SessionId(row.number(1)?),
            created: row.time(2)?,
            secret: row.secret(3)?,
        });
        Ok(())
    })?;
    Ok(sessions)
}

fn windows(connection: &Connection) -> Result<Vec<WindowRow>, ReadError> {
    let mut windows = Vec::new();
    let sql = "SELECT sender, incarnation, base, received, given_up, touched FROM windows
               ORDER BY sender, incarnation";
    each(connection, "windows", sql, |row| {
        windows.push(WindowRow {
            sender: row.peer(0)?,
            incarnation: Incarnation(row.number(1)?),
            base: Sequence(row.place(2)?),
            received: row.bytes(3)?,
            given_up: Sequence(row.place(4)?),
            touched: row.time(5)?,
        });
        Ok(())
    })?;
    Ok(windows)
}

fn listeners(connection: &Connection) -> Result<Vec<ListenerRow>, ReadError> {
    let mut listeners: BTreeMap<Box<str>, ListenerRow> = BTreeMap::new();
    let sql = "SELECT name, position FROM listeners";
    each(connection, "listeners", sql, |row| {
        let name: Box<str> = row.text(0)?.into();
        let position = Cursor(row.place(1)?);
        listeners.insert(name.clone(), ListenerRow { name, position, acknowledged: Vec::new() });
        Ok(())
    })?;
    let sql = "SELECT name, first, last FROM acknowledged ORDER BY name, first";
    each(connection, "acknowledged", sql, |row| {
        let (first, last) = (Cursor(row.place(1)?), Cursor(row.place(2)?));
        let Some(listener) = listeners.get_mut(row.text(0)?) else {
            return Err(row.damage("there is no such listener").into());
        };
        let before = listener.acknowledged.last().map_or(listener.position, |range| range.1);
        if first <= before || last < first {
            return Err(row.damage(format!("the range {} to {}", first.0, last.0)).into());
        }
        listener.acknowledged.push((first, last));
        Ok(())
    })?;
    Ok(listeners.into_values().collect())
}

fn given_up(connection: &Connection) -> Result<Vec<GivenUp>, ReadError> {
    let mut given_up = Vec::new();
    let sql = "SELECT place, row, id, recipient, queued, subject, bytes, at, why FROM given_up
               ORDER BY place";
    each(connection, "given_up", sql, |row| {
        let number: u8 = row.small(8)?;
        let why = [WhyGivenUp::Expired, WhyGivenUp::TooLarge]
            .into_iter()
            .find(|why| why_number(*why) == number)
            .ok_or_else(|| row.damage(format!("reason {number} is unknown")))?;
        given_up.push(GivenUp {
            row: Row(row.place(1)?),
            id: row.id(2)?,
            recipient: row.peer(3)?,
            queued: row.time(4)?,
            subject: row.optional_text(5)?.map(Into::into),
            bytes: row.number(6)?,
            at: row.time(7)?,
            why,
        });
        Ok(())
    })?;
    Ok(given_up)
}

/// What was noted beside the tables; the tables may hold later ones.
fn last_places(connection: &Connection, snapshot: &mut Snapshot) -> Result<(), ReadError> {
    let sql = "SELECT id, row, cursor FROM last_places";
    let mut found = false;
    each(connection, "last_places", sql, |row| {
        snapshot.last_row = Row(row.place(1)?);
        snapshot.last_cursor = Cursor(row.place(2)?);
        found = true;
        Ok(())
    })?;
    match found {
        true => Ok(()),
        false => Err(missing("last_places", "0", "it is missing").into()),
    }
}

fn outbox(connection: &Connection, snapshot: &mut Snapshot) -> Result<(), ReadError> {
    let mut by_recipient = BTreeMap::new();
    let mut messages = 0;
    let sql = "SELECT row, recipient, length(body), length(id), expires FROM outbox ORDER BY row";
    each(connection, "outbox", sql, |row| {
        let recipient = row.peer(1)?;
        if row.number(3)? != 16 {
            return Err(row.damage("id is not 16 bytes").into());
        }
        let expires = row.time(4)?;
        let empty = OutboxSummary { recipient, messages: 0, bytes: 0, expires };
        let summary = by_recipient.entry(recipient).or_insert(empty);
        summary.messages += 1;
        summary.bytes += row.number(2)?;
        summary.expires = summary.expires.min(expires);
        messages += 1;
        snapshot.last_row = snapshot.last_row.max(Row(row.place(0)?));
        Ok(())
    })?;
    snapshot.outbox = by_recipient.into_values().collect();
    // A message that its index does not know would never be sent.
    same_count(connection, "outbox", messages)
}

fn inbox(connection: &Connection, snapshot: &mut Snapshot) -> Result<(), ReadError> {
    let sql = "SELECT cursor, length(sender), length(body), length(id) FROM inbox ORDER BY cursor";
    each(connection, "inbox", sql, |row| {
        if row.number(1)? != 32 || row.number(3)? != 16 {
            return Err(row.damage("sender is not 32 bytes, or id is not 16").into());
        }
        snapshot.inbox_messages += 1;
        snapshot.inbox_bytes += stored_bytes(row.number(2)?);
        snapshot.last_cursor = snapshot.last_cursor.max(Cursor(row.place(0)?));
        Ok(())
    })?;
    same_count(connection, "inbox", snapshot.inbox_messages)
}

fn held(connection: &Connection, snapshot: &mut Snapshot) -> Result<(), ReadError> {
    let sql = "SELECT slot, sender, incarnation, sequence, received, length(body), length(id)
               FROM held ORDER BY slot";
    each(connection, "held", sql, |row| {
        let bytes = row.number(5)?;
        if row.number(6)? != 16 {
            return Err(row.damage("id is not 16 bytes").into());
        }
        snapshot.held.push(HeldRow { key: row.key(1)?, received: row.time(4)?, bytes });
        snapshot.inbox_bytes += stored_bytes(bytes);
        Ok(())
    })
}

fn partials(connection: &Connection, snapshot: &mut Snapshot) -> Result<(), ReadError> {
    let mut partials: BTreeMap<ReceivedKey, PartialRow> = BTreeMap::new();
    let sql = "SELECT sender, sender, incarnation, sequence, total, expires, sent, subject, sum
               FROM partials";
    each(connection, "partials", sql, |row| {
        let (key, total, expires) = (row.key(1)?, row.number(4)?, row.time(5)?);
        // So much is set apart for it, in memory and of the inbox.
        if total > MESSAGE_BYTES_CEILING as u64 {
            return Err(row.damage(format!("total is {total}, more than any message has")).into());
        }
        let sum = sums::of_partial(&key, total, row.time(6)?.as_millis(), row.optional_text(7)?);
        sums::check_one(row, 8, sum)?;
        partials.insert(key, PartialRow { key, total, expires, indexes: Vec::new() });
        Ok(())
    })?;
    let sql = "SELECT sender, sender, incarnation, sequence, number, length(bytes) FROM chunks
               ORDER BY sender, incarnation, sequence, number";
    each(connection, "chunks", sql, |row| {
        let Some(partial) = partials.get_mut(&row.key(1)?) else {
            return Err(row.damage("a chunk of an unknown message").into());
        };
        partial.indexes.push(row.small(4)?);
        snapshot.inbox_bytes += stored_bytes(row.number(5)?);
        Ok(())
    })?;
    snapshot.partials = partials.into_values().collect();
    Ok(())
}

/// Compares the rows seen with those the table's index knows. SQLite counts in the smallest tree.
fn same_count(connection: &Connection, table: &'static str, seen: u64) -> Result<(), ReadError> {
    let sql = format!("SELECT count(*) FROM {table}");
    let counted: Option<i64> = connection.query_row(&sql, [], |row| row.get(0)).optional()?;
    match counted.map(i64::unsigned_abs) {
        Some(counted) if counted == seen => Ok(()),
        _ => Err(missing(table, "unknown", "the table and its index differ").into()),
    }
}

fn missing(table: &'static str, row: &str, what: &str) -> Damage {
    Damage { table, row: row.to_owned(), what: what.to_owned() }
}
