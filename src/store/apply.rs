//! Carries out changes, within whatever SQLite transaction is open.

use rusqlite::{Connection, OptionalExtension as _, Statement, params};

use crate::model::limits::{GIVEN_UP_MAX, stored_bytes};
use crate::model::{Incarnation, PeerId, Timestamp, WhyGivenUp};
use crate::store::columns::{bound, key_params, stored};
use crate::store::error::Fault;
use crate::store::op::{
    Cursor, GivenUp, Incoming, KeyState, Op, Outgoing, PeerRow, Pruned, ReceivedKey, Row, Snapshot,
    WindowRow,
};
use crate::store::{chunks, listeners, secrets, sums};

/// Messages that one [`Op::Prune`] removes at most: some 50 ms of work, during which nobody else is
/// served.
pub(super) const PRUNE_MESSAGES_MAX: u16 = 20_000;

/// Keys that one [`Op::PruneKeys`] forgets at most: as much work, since they lie far apart.
pub(super) const PRUNE_KEYS_MAX: u16 = 5_000;

/// What a transaction did beyond what it says.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What [`Op::Prune`] did.
    pub(super) pruned: Pruned,
    /// The windows that [`Op::DropWindow`] left.
    pub(super) kept_windows: Vec<(PeerId, Incarnation)>,
}

/// Sums over the database that would be slow to ask for. They follow what is applied and return to
/// what they were when it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// The last place given in the outbox.
    pub(super) last_row: Row,
    /// The last place given in the inbox.
    pub(super) last_cursor: Cursor,
    /// What the messages in the inbox count for, held ones and chunks included.
    inbox_bytes: u64,
    /// Messages left the outbox or the inbox, so that the last places may not be found in their
    /// tables any more.
    removed: bool,
    /// The last places, as the database has them beside the tables.
    noted: (Row, Cursor),
}

impl Totals {
    /// What was found when the database was opened. That the last places are noted is not assumed.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self {
            last_row: snapshot.last_row,
            last_cursor: snapshot.last_cursor,
            inbox_bytes: snapshot.inbox_bytes,
            removed: false,
            noted: (Row(0), Cursor(0)),
        }
    }
}

/// The database, ready for changes.
pub(super) struct Applier<'connection> {
    pub(super) connection: &'connection Connection,
    pub(super) totals: Totals,
    /// Whether a secret was overwritten, so that the log shows it still.
    pub(super) secret_dropped: bool,
    // The hot changes. All others are found by their text, which costs a hash.
    queue: Statement<'connection>,
    unqueue: Statement<'connection>,
    deliver: Statement<'connection>,
    window: Statement<'connection>,
}

impl<'connection> Applier<'connection> {
    /// Prepares the statements of the hot changes.
    pub(super) fn new(connection: &'connection Connection, totals: Totals) -> Result<Self, Fault> {
        Ok(Self {
            connection,
            totals,
            secret_dropped: false,
            queue: connection.prepare(
                "INSERT INTO outbox
                 (row, id, recipient, incarnation, sequence, queued, expires, subject, key, sums,
                 body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?,
            unqueue: connection.prepare("DELETE FROM outbox WHERE row = ?1")?,
            deliver: connection.prepare(
                "INSERT INTO inbox
                 (cursor, sender, incarnation, sequence, id, sent, received, subject, sums, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            window: connection.prepare(
                "INSERT INTO windows (sender, incarnation, base, received, given_up, touched)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET base = ?3, received = ?4, given_up = ?5, touched = ?6",
            )?,
        })
    }

    /// Carries out one change.
    pub(super) fn apply(&mut self, op: &Op, done: &mut Done) -> Result<(), Fault> {
        match op {
            Op::Queue(message) => self.queue(message),
            Op::Unqueue { rows } => self.unqueue(rows),
            Op::GiveUp(message) => self.give_up(message),
            Op::KeyState { key, state, expires } => self.key_state(key, *state, *expires),
            Op::Deliver(message) => self.deliver(message),
            Op::Hold(message) => self.hold(message),
            Op::Release { key, cursor } => self.release(key, *cursor),
            Op::Chunk(chunk) => {
                self.totals.inbox_bytes += chunks::put(self.connection, chunk)?;
                Ok(())
            }
            Op::Assemble { key, id, cursor, received } => {
                chunks::assemble(self.connection, key, *id, *cursor, *received)?;
                self.totals.last_cursor = self.totals.last_cursor.max(cursor.unwrap_or_default());
                Ok(())
            }
            Op::DropChunks(key) => {
                let bytes = chunks::drop_all(self.connection, key)?;
                self.totals.inbox_bytes = self.totals.inbox_bytes.saturating_sub(bytes);
                Ok(())
            }
            Op::Window(row) => self.window(row),
            Op::DropWindow { sender, incarnation } => {
                if !self.drop_window(*sender, *incarnation)? {
                    done.kept_windows.push((*sender, *incarnation));
                }
                Ok(())
            }
            Op::Session(row) => {
                self.secret_dropped |= secrets::put_session(self.connection, row)?;
                Ok(())
            }
            Op::DropSession { sender, session } => {
                self.secret_dropped |= secrets::drop_session(self.connection, *sender, *session)?;
                Ok(())
            }
            Op::Prekey(row) => {
                self.secret_dropped |= secrets::put_prekey(self.connection, row)?;
                Ok(())
            }
            Op::DropPrekey(id) => {
                self.secret_dropped |= secrets::drop_prekey(self.connection, *id)?;
                Ok(())
            }
            Op::Peer(row) => self.peer(row),
            Op::DropPeer(peer) => self.run("DELETE FROM peers WHERE peer = ?1", [peer.as_bytes()]),
            Op::Listener { name, position } => listeners::put(self.connection, name, *position),
            Op::DropListener { name } => listeners::forget(self.connection, name),
            Op::Acknowledge { name, first, last } => {
                listeners::acknowledge(self.connection, name, *first, *last)
            }
            Op::Prune { through, received_before, bytes_max } => {
                self.prune(*through, *received_before, *bytes_max, &mut done.pruned)
            }
            Op::PruneKeys { expired_before } => self.prune_keys(*expired_before, &mut done.pruned),
        }
    }

    /// Notes the last places beside the tables, before a commit. Only after a removal: otherwise
    /// the last message is still in its table and says it. Thus a commit that only adds writes one
    /// page less.
    pub(super) fn note_last_places(&mut self) -> Result<(), Fault> {
        let places = (self.totals.last_row, self.totals.last_cursor);
        if self.totals.removed && self.totals.noted != places {
            self.run(
                "UPDATE last_places SET row = ?1, cursor = ?2",
                params![stored(places.0.0), stored(places.1.0)],
            )?;
            self.totals.noted = places;
        }
        self.totals.removed = false;
        Ok(())
    }

    fn queue(&mut self, message: &Outgoing) -> Result<(), Fault> {
        self.queue.execute(params![
            stored(message.row.0),
            message.id.0,
            message.recipient.as_bytes(),
            stored(message.incarnation.0),
            stored(message.sequence.0),
            stored(message.queued.as_millis()),
            stored(message.expires.as_millis()),
            message.subject,
            message.key,
            sums::of_whole_outgoing(message),
            &message.body[..],
        ])?;
        self.totals.last_row = self.totals.last_row.max(message.row);
        let Some(key) = &message.key else {
            return Ok(());
        };
        // A key that was used before names the newer message: the node has decided so.
        self.run(
            "INSERT OR REPLACE INTO keys (key, id, recipient, state, row, expires, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                key,
                message.id.0,
                message.recipient.as_bytes(),
                key_state_number(KeyState::Queued),
                stored(message.row.0),
                bound(message.expires.as_millis()),
                sums::of_content(message.subject.as_deref(), &message.body),
            ],
        )
    }

    fn unqueue(&mut self, rows: &[Row]) -> Result<(), Fault> {
        for row in rows {
            self.unqueue.execute([stored(row.0)])?;
        }
        self.totals.removed = true;
        Ok(())
    }

    fn give_up(&mut self, message: &GivenUp) -> Result<(), Fault> {
        self.unqueue(&[message.row])?;
        self.run(
            "INSERT INTO given_up (row, id, recipient, queued, subject, bytes, at, why)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                stored(message.row.0),
                message.id.0,
                message.recipient.as_bytes(),
                stored(message.queued.as_millis()),
                message.subject,
                stored(message.bytes),
                stored(message.at.as_millis()),
                why_number(message.why),
            ],
        )?;
        self.run(
            "DELETE FROM given_up WHERE place <= (SELECT max(place) FROM given_up) - ?1",
            [GIVEN_UP_MAX],
        )
    }

    fn key_state(&self, key: &str, state: KeyState, expires: Timestamp) -> Result<(), Fault> {
        let state = key_state_number(state);
        self.run(
            "UPDATE keys SET state = ?2, expires = max(expires, ?3) WHERE key = ?1",
            params![key, state, bound(expires.as_millis())],
        )
    }

    fn deliver(&mut self, message: &Incoming) -> Result<(), Fault> {
        let delivered = self.deliver.execute(params![
            stored(message.cursor.0),
            message.key.sender.as_bytes(),
            stored(message.key.incarnation.0),
            stored(message.key.sequence.0),
            message.id.0,
            stored(message.sent.as_millis()),
            stored(message.received.as_millis()),
            message.subject,
            sums::of_whole_incoming(message),
            &message.body[..],
        ]);
        if let Err(error) = delivered {
            return Err(twice(error, "delivered", &message.key, message.cursor));
        }
        self.totals.last_cursor = self.totals.last_cursor.max(message.cursor);
        self.totals.inbox_bytes += stored_bytes(message.body.len() as u64);
        Ok(())
    }

    fn hold(&mut self, message: &Incoming) -> Result<(), Fault> {
        let delivered: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT cursor FROM inbox
                 WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
            )?
            .query_row(key_params(&message.key), |row| row.get(0))
            .optional()?;
        if let Some(cursor) = delivered {
            return Err(Fault::Bug(format!(
                "{:?} is held but is in the inbox at {cursor}",
                message.key
            )));
        }
        self.connection
            .prepare_cached(
                "INSERT INTO held
                 (sender, incarnation, sequence, id, sent, received, subject, sums, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                message.key.sender.as_bytes(),
                stored(message.key.incarnation.0),
                stored(message.key.sequence.0),
                message.id.0,
                stored(message.sent.as_millis()),
                stored(message.received.as_millis()),
                message.subject,
                sums::of_whole_incoming(message),
                &message.body[..],
            ])
            .map_err(|error| twice(error, "held", &message.key, message.cursor))?;
        self.totals.inbox_bytes += stored_bytes(message.body.len() as u64);
        Ok(())
    }

    fn release(&mut self, key: &ReceivedKey, cursor: Cursor) -> Result<(), Fault> {
        let (sender, incarnation, sequence) = key_params(key);
        let released = self
            .connection
            .prepare_cached(
                "INSERT INTO inbox
                 (cursor, sender, incarnation, sequence, id, sent, received, subject, sums, body)
                 SELECT ?4, sender, incarnation, sequence, id, sent, received, subject, sums, body
                 FROM held WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
            )?
            .execute(params![sender, incarnation, sequence, stored(cursor.0)])
            .map_err(|error| twice(error, "released", key, cursor))?;
        if released == 0 {
            return Err(Fault::Missing(format!("{key:?} is released but not held")));
        }
        self.run(
            "DELETE FROM held WHERE sender = ?1 AND incarnation = ?2 AND sequence = ?3",
            key_params(key),
        )?;
        self.totals.last_cursor = self.totals.last_cursor.max(cursor);
        Ok(())
    }

    fn window(&mut self, row: &WindowRow) -> Result<(), Fault> {
        self.window.execute(params![
            row.sender.as_bytes(),
            stored(row.incarnation.0),
            stored(row.base.0),
            &row.received[..],
            stored(row.given_up.0),
            stored(row.touched.as_millis()),
        ])?;
        Ok(())
    }

    /// Drops a window, unless messages of its run are in the inbox: whatever time has passed, they
    /// must not come in a second time. Whether it is gone.
    fn drop_window(&self, sender: PeerId, incarnation: Incarnation) -> Result<bool, Fault> {
        let run = params![sender.as_bytes(), stored(incarnation.0)];
        let is_needed: bool = self
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM inbox WHERE sender = ?1 AND incarnation = ?2)",
            )?
            .query_row(run, |row| row.get(0))?;
        if !is_needed {
            self.run("DELETE FROM windows WHERE sender = ?1 AND incarnation = ?2", run)?;
        }
        Ok(!is_needed)
    }

    fn peer(&self, row: &PeerRow) -> Result<(), Fault> {
        self.run(
            "INSERT INTO peers (peer, alias, dial, record) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (peer) DO UPDATE SET alias = ?2, dial = ?3, record = ?4",
            params![
                row.peer.as_bytes(),
                row.alias.as_ref().map(|alias| alias.as_str()),
                row.dial.as_ref().map(ToString::to_string),
                row.record.as_deref(),
            ],
        )
    }

    /// Walks from the oldest message on, until one must stay.
    fn prune(
        &mut self,
        through: Cursor,
        received_before: Timestamp,
        bytes_max: u64,
        pruned: &mut Pruned,
    ) -> Result<(), Fault> {
        let mut statement = self.connection.prepare_cached(
            "SELECT cursor, received, length(body) FROM inbox WHERE cursor <= ?1
             ORDER BY cursor LIMIT ?2",
        )?;
        let mut rows = statement.query(params![bound(through.0), PRUNE_MESSAGES_MAX])?;
        let mut last_gone = None;
        let mut bytes_left = self.totals.inbox_bytes;
        while let Some(row) = rows.next()? {
            let (cursor, received, bytes): (i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            if received >= bound(received_before.as_millis()) && bytes_left <= bytes_max {
                break;
            }
            last_gone = Some(cursor);
            bytes_left = bytes_left.saturating_sub(stored_bytes(bytes.unsigned_abs()));
            pruned.messages += 1;
        }
        drop(rows);
        pruned.bytes += self.totals.inbox_bytes - bytes_left;
        if let Some(last_gone) = last_gone {
            self.run("DELETE FROM inbox WHERE cursor <= ?1", [last_gone])?;
            self.totals.inbox_bytes = bytes_left;
            self.totals.removed = true;
        }
        Ok(())
    }

    /// Forgets keys, those that expired first. One whose message waits still would let it be sent
    /// a second time.
    fn prune_keys(&self, expired_before: Timestamp, pruned: &mut Pruned) -> Result<(), Fault> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM keys WHERE key IN
             (SELECT key FROM keys WHERE expires < ?1
              AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.row = keys.row)
              ORDER BY expires LIMIT ?2)",
        )?;
        let params = params![bound(expired_before.as_millis()), PRUNE_KEYS_MAX];
        pruned.keys += statement.execute(params)? as u64;
        Ok(())
    }

    /// Runs a statement that is not hot.
    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), Fault> {
        self.connection.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}

/// A constraint that stops a message from being stored twice speaks of columns; this names it.
fn twice(error: rusqlite::Error, what: &str, key: &ReceivedKey, cursor: Cursor) -> Fault {
    match Fault::from(error) {
        Fault::Bug(why) => Fault::Bug(format!("{key:?} is {what} twice, or {cursor:?} is: {why}")),
        fault => fault,
    }
}

/// How the fate of a key's message is stored.
pub(super) const fn key_state_number(state: KeyState) -> u8 {
    match state {
        KeyState::Queued => 0,
        KeyState::Delivered => 1,
        KeyState::Expired => 2,
    }
}

/// How the reason for which a message was given up is stored.
pub(super) const fn why_number(why: WhyGivenUp) -> u8 {
    match why {
        WhyGivenUp::Expired => 0,
        WhyGivenUp::TooLarge => 1,
    }
}
