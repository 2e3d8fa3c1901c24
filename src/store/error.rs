//! What can go wrong, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

use crate::model::{PeerId, excerpt};

/// Characters of what SQLite says that are repeated to the operator.
const SAID_CHARS_MAX: usize = 300;

/// Why the database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file system said no.
    #[error(
        "cannot open {}: {source}; check the directory's owner, mode and free space",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("{} is in use by another process; stop that one first", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error(
        "{} is not a database of distmsg, or its beginning is destroyed; \
         restore it from a backup or move it away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error(
        "{} was written by a newer distmsg (schema {found}, this one knows up to {known}); \
         install that version again, or move the file away to start empty",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// It was filled by a node with another key.
    #[error(
        "{} belongs to {owner}, and the identity key is that of {own}; restore the identity.pem of \
         {owner} from a backup, or move the database away to start empty as {own}",
        path.display()
    )]
    OtherIdentity {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: PeerId,
        /// Whom it was opened for.
        own: PeerId,
    },
    /// A row, a table or the file's structure is damaged.
    #[error(
        "{} is damaged: {what}; restore it from a backup, or move it away to start empty",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage is.
        what: String,
    },
    /// There is no room.
    #[error(
        "there is no room to open {}; make some on its file system, or raise the quota",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A setting that durability depends on is not in force.
    #[error(
        "sqlite would not set {setting} to {wanted} for {} (it is {found}); \
         keep the state directory on a local file system",
        path.display()
    )]
    Setting {
        /// The file.
        path: PathBuf,
        /// Which setting.
        setting: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// The files cannot be written.
    #[error("{} cannot be used: {what}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What happened, with the remedy.
        what: String,
    },
    /// Anything else SQLite says.
    #[error(
        "cannot open {}: {}; check the disk and the file's owner and mode",
        path.display(),
        one_line(&source.to_string())
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The system starts no more threads.
    #[error("cannot start the store's thread: {0}; raise the limit on tasks")]
    Thread(io::Error),
}

/// A value in the database that cannot be what was written.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("table {table}, row {row}: {what}")]
pub(super) struct Damage {
    /// The table.
    pub(super) table: &'static str,
    /// What identifies the row.
    pub(super) row: String,
    /// What is wrong with it.
    pub(super) what: String,
}

/// Why something could not be read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// The value is there and is not what it should be.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// SQLite could not read it.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl ReadError {
    /// As the operator sees it when the database is being opened.
    pub(super) fn on_open(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        let error = match self {
            Self::Damage(damage) => return OpenError::Damaged { path, what: damage.to_string() },
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Busy { path },
            Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
            Some(ErrorCode::DatabaseCorrupt) => {
                OpenError::Damaged { path, what: one_line(&error.to_string()) }
            }
            Some(ErrorCode::DiskFull) => OpenError::Full { path },
            _ => OpenError::Sqlite { path, source: error },
        }
    }
}

/// Why a transaction was not carried out, or a question not answered.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// No room: the one fault that passes.
    #[error("there is no room on the disk or in the quota; make some")]
    Full,
    /// A write did not succeed. SQLite says why only if the file system is full; whether a quota
    /// or a limit on files was in the way, which passes as well, `Disk::explain` finds out.
    #[error(
        "the database cannot be used safely: {0}; \
         check the disk and the log of the system, then start again"
    )]
    Unwritten(String),
    /// What the change builds on is not there. After a refusal for lack of room that is a
    /// consequence; otherwise it is our bug.
    #[error("{0}; this is a bug in distmsg, please report it")]
    Missing(String),
    /// The database does not hold what was written.
    #[error(
        "the database is damaged: {0}; restore it from a backup or move it away to start empty"
    )]
    Damaged(String),
    /// The disk or the system failed: what is on the disk is not known any more.
    #[error(
        "the database cannot be used safely: {0}; \
         check the disk and the log of the system, then start again"
    )]
    Disk(String),
    /// The node asked for something that must not be.
    #[error("{0}; this is a bug in distmsg, please report it")]
    Bug(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // SQLite says so when the file system has no room left, and when the database has
            // reached its own limit.
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::SystemIoFailure) if is_write(&error) => {
                Self::Unwritten(described(&error))
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(one_line(&error.to_string()))
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory,
            ) => Self::Disk(described(&error)),
            _ => Self::Bug(one_line(&error.to_string())),
        }
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage.to_string())
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damage(damage) => damage.into(),
            ReadError::Sqlite(error) => error.into(),
        }
    }
}

/// Whether it was a write that failed: not a sync, after which nobody knows what is on the disk.
fn is_write(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|code| code.extended_code == ffi::SQLITE_IOERR_WRITE)
}

/// SQLite's extended code tells a failed sync from a failed read; its message does not.
fn described(error: &rusqlite::Error) -> String {
    let said = one_line(&error.to_string());
    match error.sqlite_error() {
        Some(code) => format!("{said} (sqlite code {})", code.extended_code),
        None => said,
    }
}

/// The beginning of what SQLite says, as one line: it speaks of a page in many, and repeats
/// statements and names from the file as they are.
pub(super) fn one_line(said: &str) -> String {
    let words: Vec<_> = said.split_whitespace().collect();
    excerpt(&words.join(" "), SAID_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: i32) -> Fault {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()
    }

    #[test]
    fn whatever_sqlite_says_is_one_short_line() {
        let said = format!("*** in main ***\nTree 17:\n  \u{1b}[31m{}", "cell 3\n".repeat(999));
        let line = one_line(&said);
        assert!(line.starts_with("*** in main *** Tree 17: "), "{line}");
        assert!(!line.contains(char::is_control) && line.len() < 1_000, "{line}");
    }

    #[test]
    fn only_lack_of_room_passes() {
        assert!(matches!(fault(ffi::SQLITE_FULL), Fault::Full));
        let write = fault(ffi::SQLITE_IOERR_WRITE);
        assert!(matches!(write, Fault::Unwritten(_)), "{write}");
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_READ, ffi::SQLITE_READONLY] {
            let fault = fault(code);
            assert!(matches!(fault, Fault::Disk(_)), "{fault}");
            assert!(fault.to_string().contains(&code.to_string()), "{fault}");
        }
        assert!(matches!(fault(ffi::SQLITE_CORRUPT), Fault::Damaged(_)));
        assert!(matches!(fault(ffi::SQLITE_CONSTRAINT_UNIQUE), Fault::Bug(_)));
    }
}
