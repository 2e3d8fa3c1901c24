//! The tables, and what is refused before one of them is read.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::store::disk;
use crate::store::error::{Damage, OpenError, ReadError, one_line};

/// Names our files among those of SQLite: "DMSG".
const APPLICATION_ID: i64 = 0x444d_5347;

/// Statements kept prepared: more than the store has.
const STATEMENTS_MAX: usize = 128;

/// The steps from an empty file to the newest schema: the first makes version 1, and so on. A step
/// that was released is never changed.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

/// How a rowid is used, and what has an index, is decided by the four hot changes: a message comes
/// into the outbox, leaves it, comes into the inbox; a window moves.
///
/// - A message of the outbox is found by its row, and by its recipient with the row as tail.
/// - A message of the inbox is found by its cursor; its key is unique, so that nothing can be
///   stored twice, whatever the rest of the program does.
/// - Bodies stand last, so that a search that only looks at the other columns does not read them.
/// - Sums stand before them, see `sums.rs`.
/// - Secrets stand in slots, see `secrets.rs`.
const VERSION_1: &str = "
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    recipient BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    subject TEXT,
    key TEXT,
    sums BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_recipient ON outbox (recipient);

CREATE TABLE keys (
    key TEXT PRIMARY KEY,
    id BLOB NOT NULL,
    recipient BLOB NOT NULL,
    state INTEGER NOT NULL,
    row INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_expires ON keys (expires);

CREATE TABLE inbox (
    cursor INTEGER PRIMARY KEY,
    sender BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    id BLOB NOT NULL,
    sent INTEGER NOT NULL,
    received INTEGER NOT NULL,
    subject TEXT,
    sums BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_message ON inbox (sender, incarnation, sequence);

CREATE TABLE held (
    slot INTEGER PRIMARY KEY,
    sender BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    id BLOB NOT NULL,
    sent INTEGER NOT NULL,
    received INTEGER NOT NULL,
    subject TEXT,
    sums BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX held_message ON held (sender, incarnation, sequence);

CREATE TABLE partials (
    sender BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    total INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    subject TEXT,
    sum BLOB NOT NULL,
    PRIMARY KEY (sender, incarnation, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunks (
    sender BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    sum BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (sender, incarnation, sequence, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE windows (
    sender BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    base INTEGER NOT NULL,
    received BLOB NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (sender, incarnation)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    sender BLOB NOT NULL,
    session INTEGER NOT NULL,
    created INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    PRIMARY KEY (sender, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE prekeys (
    id INTEGER PRIMARY KEY,
    created INTEGER NOT NULL,
    slot INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (slot INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE vacant_slots (slot INTEGER PRIMARY KEY) STRICT;

CREATE TABLE peers (
    peer BLOB PRIMARY KEY NOT NULL,
    alias TEXT,
    dial TEXT,
    record BLOB
) STRICT;
CREATE UNIQUE INDEX peers_alias ON peers (alias) WHERE alias IS NOT NULL;

CREATE TABLE listeners (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE acknowledged (
    name TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (name, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE last_places (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    row INTEGER NOT NULL,
    cursor INTEGER NOT NULL
) STRICT;
INSERT INTO last_places VALUES (0, 0, 0);
";

/// Whose database it is, see `owner.rs`. The table is empty until the first start after this step.
const VERSION_2: &str = "
CREATE TABLE owner (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    peer BLOB NOT NULL
) STRICT;
";

/// What was given up, in this order; the outbox's columns and when and why. See
/// [`Op::GiveUp`](super::op::Op::GiveUp).
const VERSION_3: &str = "
CREATE TABLE given_up (
    place INTEGER PRIMARY KEY,
    row INTEGER NOT NULL,
    id BLOB NOT NULL,
    recipient BLOB NOT NULL,
    queued INTEGER NOT NULL,
    subject TEXT,
    bytes INTEGER NOT NULL,
    at INTEGER NOT NULL,
    why INTEGER NOT NULL
) STRICT;
";

/// What was sent with a key, as a sum: a key that comes with something else is a mistake.
const VERSION_4: &str = "ALTER TABLE keys ADD COLUMN sum BLOB;";

/// What recipients gave up by themselves is told from what they received. And every message of the
/// inbox has the window of its run, see [`Op::DropWindow`]: those that went before this was so come
/// back.
///
/// [`Op::DropWindow`]: crate::store::op::Op::DropWindow
const VERSION_5: &str = "
ALTER TABLE windows ADD COLUMN given_up INTEGER NOT NULL DEFAULT 1;
INSERT OR IGNORE INTO windows (sender, incarnation, base, received, given_up, touched)
SELECT sender, incarnation, max(sequence) + 1, x'', max(sequence) + 1, max(received) FROM inbox
GROUP BY sender, incarnation;
";

/// Tables whose size the number of peers bounds, not the number of messages: these are checked as a
/// whole at each start.
const SMALL_TABLES: &[&str] = &[
    "windows",
    "sessions",
    "prekeys",
    "secrets",
    "vacant_slots",
    "peers",
    "listeners",
    "acknowledged",
    "last_places",
    "owner",
    "given_up",
];

/// What tests change.
pub(super) struct Options {
    /// The steps to the newest schema.
    pub(super) migrations: &'static [&'static str],
    /// Pages the file may have: a disk that is full by order.
    pub(super) pages_max: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { migrations: MIGRATIONS, pages_max: None }
    }
}

/// A setting that must be in force, with its value in the words in which SQLite confirms it.
struct Setting {
    name: &'static str,
    value: &'static str,
    confirmed: &'static str,
}

/// Before the first read: the file belongs to one process.
const EXCLUSIVE: Setting =
    Setting { name: "locking_mode", value: "EXCLUSIVE", confirmed: "exclusive" };

/// After the file is known to be ours.
const SETTINGS: &[Setting] = &[
    // What the arithmetic of `disk.rs` assumes; in force since the file was made.
    Setting { name: "page_size", value: "4096", confirmed: "4096" },
    // Durability: a commit returns after the log is synced. The last one matters on macOS only.
    Setting { name: "journal_mode", value: "WAL", confirmed: "wal" },
    Setting { name: "synchronous", value: "FULL", confirmed: "2" },
    Setting { name: "fullfsync", value: "ON", confirmed: "1" },
    // The log is moved by `disk.rs`, which hears what goes wrong.
    Setting { name: "wal_autocheckpoint", value: "0", confirmed: "0" },
    // What is deleted is overwritten within the pages that are written anyway. Whole pages set free
    // (bodies above some kilobytes) are not, since that would double the writing of large messages;
    // secrets never share such pages, see `secrets.rs`.
    Setting { name: "secure_delete", value: "FAST", confirmed: "2" },
    // The file may have been written to by others: nothing in its schema is run, and sizes in its
    // pages are checked before they are used.
    Setting { name: "trusted_schema", value: "OFF", confirmed: "0" },
    Setting { name: "cell_size_check", value: "ON", confirmed: "1" },
    Setting { name: "foreign_keys", value: "OFF", confirmed: "0" },
    // Nothing temporary reaches the disk, where it would outlive its deletion.
    Setting { name: "temp_store", value: "MEMORY", confirmed: "2" },
    // Kibibytes. Messages are read soon after they were written or not at all; more helps little.
    Setting { name: "cache_size", value: "-3072", confirmed: "-3072" },
    // A failed read of mapped memory would be a signal instead of an error.
    Setting { name: "mmap_size", value: "0", confirmed: "0" },
];

/// Opens the file, which may be empty, brings its schema up to date and looks for damage.
pub(super) fn open(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let on_open = |error: rusqlite::Error| ReadError::from(error).on_open(path);
    let connection = Connection::open_with_flags(path, flags).map_err(on_open)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Nobody who has it will let go soon.
    connection.busy_timeout(Duration::ZERO).map_err(on_open)?;
    set(&connection, path, &EXCLUSIVE)?;
    let version = version(&connection, path, options)?;
    for setting in SETTINGS {
        set(&connection, path, setting)?;
    }
    connection
        .pragma_update(None, "journal_size_limit", i64::try_from(disk::LOG_BYTES_MAX).unwrap_or(-1))
        .map_err(on_open)?;
    migrate(&connection, options.migrations, version).map_err(on_open)?;
    check(&connection).map_err(|error| error.on_open(path))?;
    if let Some(pages) = options.pages_max {
        connection.pragma_update(None, "max_page_count", pages).map_err(on_open)?;
    }
    Ok(connection)
}

/// The schema version of a file that is ours; 0 if it is empty.
fn version(connection: &Connection, path: &Path, options: &Options) -> Result<i64, OpenError> {
    let number = |pragma: &str| -> rusqlite::Result<i64> {
        connection.pragma_query_value(None, pragma, |row| row.get(0))
    };
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        let sql = "SELECT count(*) FROM sqlite_schema";
        let objects = connection.query_row(sql, [], |row| row.get(0))?;
        Ok((number("application_id")?, number("user_version")?, objects))
    };
    let path = || path.to_owned();
    let known = i64::try_from(options.migrations.len()).unwrap_or(i64::MAX);
    match read().map_err(|error| ReadError::from(error).on_open(&path()))? {
        // New, or its making was interrupted before the first step was committed.
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, found, _) if found > known => {
            Err(OpenError::Newer { path: path(), found, known })
        }
        (APPLICATION_ID, found, _) if found > 0 => Ok(found),
        _ => Err(OpenError::Foreign { path: path() }),
    }
}

/// Sets one setting and reads it back: SQLite ignores what it cannot do or does not know.
fn set(connection: &Connection, path: &Path, setting: &Setting) -> Result<(), OpenError> {
    let Setting { name, value, confirmed } = *setting;
    let attempt = || -> rusqlite::Result<String> {
        connection.execute_batch(&format!("PRAGMA {name} = {value}"))?;
        match connection.pragma_query_value(None, name, |row| Ok(shown(row.get_ref(0)?))) {
            // Some settings answer nothing where they have no meaning.
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok("unknown".to_owned()),
            result => result,
        }
    };
    let found = attempt().map_err(|error| ReadError::from(error).on_open(path))?;
    if found == confirmed {
        return Ok(());
    }
    Err(OpenError::Setting { path: path.to_owned(), setting: name, wanted: value, found })
}

/// A value in SQLite's own words.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Takes the steps that are missing, each of them whole or not at all.
fn migrate(connection: &Connection, steps: &[&str], version: i64) -> rusqlite::Result<()> {
    for (number, step) in (1_i64..).zip(steps).skip_while(|(number, _)| *number <= version) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
        tracing::info!(schema = number, "the database has a new schema");
    }
    Ok(())
}

/// Looks for damage, at a cost that the number of messages does not bound.
///
/// SQLite's own check of the whole file reads every page of it, gigabytes at a full inbox, and
/// sorts. Instead: a file cut short is noticed by SQLite at the first read, by the size in its
/// header; the tables that peers and sessions fill are checked whole, here; of those that messages
/// fill the snapshot walks every leaf and checks every row, but not the pages bodies run over to.
/// Damage there is noticed when the body is read, and stops the daemon.
fn check(connection: &Connection) -> Result<(), ReadError> {
    for &table in SMALL_TABLES {
        let mut found = None;
        connection.pragma(None, "quick_check", table, |row| {
            let text = shown(row.get_ref(0)?);
            if text != "ok" && found.is_none() {
                found = Some(one_line(&text));
            }
            Ok(())
        })?;
        if let Some(what) = found {
            return Err(Damage { table, row: "unknown".to_owned(), what }.into());
        }
    }
    Ok(())
}
