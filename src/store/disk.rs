//! The two files: the database and the write-ahead log next to it. When the log is moved in, where
//! the room for that comes from, and how secrets leave the log.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::OFlags;

use crate::store::error::Fault;

/// Only the daemon's user: there are private keys and other people's words in it.
const FILE_MODE: u32 = 0o600;

/// Bytes of a page; SQLite's own choice, confirmed when the database is opened.
const PAGE_BYTES: u64 = 4_096;

/// Frames (pages with their headers) after which the log is moved into the database: 4 MiB.
/// Larger, and more commits share the writing of a page; smaller, and less waits in two places.
const CHECKPOINT_FRAMES: u64 = 1_000;

/// Bytes the log has from the start: what [`CHECKPOINT_FRAMES`] need. A commit then overwrites
/// blocks that exist; syncing a file that grows costs the file system's journal as well, which
/// doubles the time of a small commit.
const LOG_BYTES_MIN: u64 = 4 * 1024 * 1024 + 256 * 1024;

/// The log grows beyond it only while a group is being committed.
pub(super) const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What one write overwrites.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The database file grows by at least this much at once.
const GROWTH_BYTES: u64 = 1024 * 1024;

/// The files of a database that nobody else has open.
pub(super) struct Disk {
    /// The database file. Closing any handle to it would give up SQLite's lock on it, so this one
    /// is opened before SQLite's and closed after it.
    database: File,
    /// The log, which SQLite makes.
    log: PathBuf,
    /// There from before a new database file is made until it holds something: a file without a
    /// page, beside which this is missing, was cut off.
    making: PathBuf,
}

impl Disk {
    /// Opens the database file or makes it, for the daemon's user alone. SQLite gives the log the
    /// same mode.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Never what somebody's link leads to: its mode is changed below.
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits());
        let no_follow = no_follow.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        options.read(true).write(true).custom_flags(no_follow);
        // The names must survive a power failure as the contents do.
        let sync_names = || {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        let making = beside(path, "-making");
        if !path.try_exists()? {
            options.clone().create(true).truncate(true).mode(FILE_MODE).open(&making)?;
            sync_names()?;
        }
        let database = match options.clone().create_new(true).mode(FILE_MODE).open(path) {
            Ok(file) => {
                sync_names()?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = options.open(path)?;
                if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
                    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
                }
                file
            }
            Err(error) => return Err(error),
        };
        Ok(Self { database, log: beside(path, "-wal"), making })
    }

    /// Whether the database file has not even a page, though it was in use. SQLite would take one
    /// of a few bytes for a new one.
    pub(super) fn is_cut_off(&self) -> io::Result<bool> {
        Ok(self.database.metadata()?.len() < PAGE_BYTES && !self.making.try_exists()?)
    }

    /// The database holds what every database does.
    pub(super) fn finish_making(&self) {
        // If it stays there, the next start takes an empty file for a new one; no more than that.
        let _ = fs::remove_file(&self.making);
    }

    /// Makes sure, before a commit, that the database file has room for what the log will bring.
    ///
    /// Otherwise a full disk could hold a log that cannot be moved for want of room, and then no
    /// message could be removed either, since a removal is written to the log first.
    pub(super) fn reserve(&self, connection: &Connection) -> Result<(), Fault> {
        let mut statement = connection.prepare_cached("PRAGMA page_count")?;
        let pages: i64 = statement.query_row([], |row| row.get(0))?;
        let wanted = pages.unsigned_abs().saturating_mul(PAGE_BYTES);
        let failed = |error| fault(error, "the database file cannot grow");
        let length = self.database.metadata().map_err(failed)?.len();
        if wanted <= length {
            return Ok(());
        }
        let least = wanted - length;
        match self.grow(length, least.max(GROWTH_BYTES)) {
            Err(error) if is_no_room(&error) => self.grow(length, least),
            result => result,
        }
        .map_err(failed)
    }

    /// Gives the database file blocks beyond its end. SQLite cuts off what it did not need.
    #[cfg(target_os = "linux")]
    fn grow(&self, from: u64, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;

        match fallocate(&self.database, FallocateFlags::empty(), from, bytes) {
            // Some file systems cannot promise room.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Elsewhere the room is not promised.
    #[cfg(not(target_os = "linux"))]
    fn grow(&self, _from: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Moves the log into the database when it is long enough, or at once if `now`.
    ///
    /// SQLite would do it by itself inside a commit, but it ignores what goes wrong then: a sync
    /// that failed once and is tried again may claim success for pages that were lost.
    pub(super) fn checkpoint(&self, connection: &Connection, now: bool) -> Result<(), Fault> {
        let waiting = frames_waiting(connection, "PRAGMA wal_checkpoint(NOOP)")?;
        if waiting >= CHECKPOINT_FRAMES || (now && waiting > 0) {
            frames_waiting(connection, "PRAGMA wal_checkpoint(PASSIVE)")
                .map_err(|fault| self.explain(fault))?;
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
        let waiting = frames_waiting(connection, "PRAGMA wal_checkpoint(RESTART)")
            .map_err(|fault| self.explain(fault))?;
        if waiting > 0 {
            return Err(Fault::Bug(format!("{waiting} pages stayed in the log")));
        }
        self.overwrite_log().map_err(|error| fault(error, "the log cannot be overwritten"))
    }

    /// Finds out why a write did not succeed, outside of any transaction.
    ///
    /// SQLite tells a full file system from other errors, but neither a quota that is used up nor
    /// a limit on the size of files. So this wants more room than any write of a page does: if
    /// there is none, it is the same.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        let Fault::Unwritten(what) = fault else { return fault };
        match self.has_room() {
            Err(error) if is_no_room(&error) => Fault::Full,
            _ => Fault::Disk(what),
        }
    }

    /// Writes beyond the ends of both files, where SQLite reads nothing, and cuts that off again.
    fn has_room(&self) -> io::Result<()> {
        let log = OpenOptions::new().write(true).open(&self.log)?;
        for file in [&log, &self.database] {
            let length = file.metadata()?.len();
            let written = file.write_all_at(&ZEROS, length);
            file.set_len(length)?;
            written?;
        }
        Ok(())
    }

    /// Overwrites what the log has, then lets it grow to what it should have, if there is room.
    fn overwrite_log(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.log)?;
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

/// Whether there was no room, by the disk's size, the user's quota or a limit on files.
fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What went wrong with a file, for the operator.
fn fault(error: io::Error, what: &str) -> Fault {
    match is_no_room(&error) {
        true => Fault::Full,
        false => Fault::Disk(format!("{what}: {error}")),
    }
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

/// A file beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
