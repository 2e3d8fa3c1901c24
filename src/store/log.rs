//! The write-ahead log next to the database: when it is moved in, and how secrets leave it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::store::error::Fault;

/// Frames (pages with their headers) after which the log is moved into the database: 8 MiB.
/// Larger, and more commits share the writing of a page; smaller, and less waits in two places.
const CHECKPOINT_FRAMES: u64 = 2_000;

/// Bytes the log has from the start: what [`CHECKPOINT_FRAMES`] need. A commit then overwrites
/// blocks that exist; syncing a file that grows costs the file system's journal as well, which
/// doubles the time of a small commit.
const LOG_BYTES_MIN: u64 = 8 * 1024 * 1024 + 256 * 1024;

/// The log grows beyond it only while a group is being committed.
pub(super) const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What one write overwrites.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The log of a database that nobody else has open.
pub(super) struct Log {
    /// The file, which SQLite makes.
    path: PathBuf,
}

impl Log {
    /// The log of the database in this file.
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into() }
    }

    /// Moves the log into the database when it is long enough, or at once if `now`.
    ///
    /// SQLite would do it by itself inside a commit, but it ignores what goes wrong then: a sync
    /// that failed once and is tried again may claim success for pages that were lost.
    pub(super) fn checkpoint(&self, connection: &Connection, now: bool) -> Result<(), Fault> {
        let waiting = frames_waiting(connection, "PRAGMA wal_checkpoint(NOOP)")?;
        if waiting >= CHECKPOINT_FRAMES || (now && waiting > 0) {
            frames_waiting(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        Ok(())
    }

    /// Moves the log into the database and overwrites it, so that no page in it shows a secret that
    /// was dropped.
    ///
    /// After the checkpoint all pages are in the database and synced, and SQLite will begin the log
    /// anew with its next write; until then it reads nothing from it. A log of zeros is an empty
    /// log, whenever the power fails.
    pub(super) fn scrub(&self, connection: &Connection) -> Result<(), Fault> {
        let waiting = frames_waiting(connection, "PRAGMA wal_checkpoint(RESTART)")?;
        if waiting > 0 {
            return Err(Fault::Bug(format!("{waiting} pages stayed in the log")));
        }
        self.overwrite().map_err(|error| match is_no_room(&error) {
            true => Fault::Full,
            false => Fault::Disk(format!("{}: {error}", self.path.display())),
        })
    }

    /// Overwrites what the file has, then lets it grow to what it should have, if there is room.
    fn overwrite(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        let length = file.metadata()?.len();
        write_zeros(&mut file, length)?;
        match write_zeros(&mut file, LOG_BYTES_MIN.saturating_sub(length)) {
            Err(error) if is_no_room(&error) => file.set_len(length)?,
            other => other?,
        }
        file.sync_all()
    }
}

/// Writes that many zeros.
fn write_zeros(file: &mut File, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let piece = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        let zeros = ZEROS.get(..piece).unwrap_or(&ZEROS);
        file.write_all(zeros)?;
        left -= zeros.len() as u64;
    }
    Ok(())
}

/// Whether there was no room, by the disk's size or by the user's quota.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Runs a checkpoint and says how many frames of the log are not in the database after it.
fn frames_waiting(connection: &Connection, pragma: &str) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(pragma)?;
    let (busy, log, moved) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (busy, log, moved): (i64, i64, i64) = (busy, log, moved);
    if busy != 0 {
        return Err(Fault::Bug("somebody else reads the database".to_owned()));
    }
    Ok((log - moved).max(0).unsigned_abs())
}
