//! One daemon on one state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

use super::exit::Stop;
use super::files;
use crate::model::plainly;

const LOCK_FILE: &str = "lock";
/// Bytes of the lock's file that are read for the holder's number.
const PID_BYTES_MAX: u64 = 32;

/// The state directory is ours alone until this is dropped, or the process ends however it ends.
#[derive(Debug)]
pub struct StateLock {
    /// The lock is on this open file, so it cannot outlive the process.
    _file: File,
}

/// Why the state directory is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error(
        "{state_dir} is in use by {}; stop it, or set another state_dir in the configuration",
        holder(*pid)
    )]
    Held {
        /// The directory.
        state_dir: PathBuf,
        /// The daemon that uses it, unless it has not written its number yet.
        pid: Option<u32>,
    },
    /// Somebody else may change what is in it.
    #[error(
        "{state_dir} is not ours alone: {why}; 'chmod 700 {state_dir}', or set another state_dir"
    )]
    NotPrivate {
        /// The directory.
        state_dir: PathBuf,
        /// What is the matter.
        why: &'static str,
    },
    /// The system refuses.
    #[error(
        "cannot use the state directory {state_dir}: {}; let this user write to it, or set another \
         state_dir in the configuration",
        plainly(error)
    )]
    Io {
        /// The directory.
        state_dir: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl From<LockError> for Stop {
    fn from(error: LockError) -> Self {
        match error {
            LockError::NotPrivate { .. } => Self::config(error),
            LockError::Held { .. } | LockError::Io { .. } => Self::failure(error),
        }
    }
}

impl StateLock {
    /// Takes the state directory for this process; it is made if missing, for its owner only.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io { state_dir: state_dir.to_owned(), error };
        files::make_directory(state_dir).map_err(failed)?;
        let found = std::fs::metadata(state_dir).map_err(failed)?;
        if let Some(why) = why_not_private(found.uid(), found.mode()) {
            return Err(LockError::NotPrivate { state_dir: state_dir.to_owned(), why });
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // What is locked is also truncated: never what somebody's link leads to.
            .custom_flags(nofollow().map_err(failed)?)
            .open(state_dir.join(LOCK_FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = pid_in(&mut file);
                return Err(LockError::Held { state_dir: state_dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The file stays when we end: removing it would let two daemons lock two files.
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        // The lock holds without it; on a full disk there may be no room for a number.
        let _ = writeln!(file, "{}", std::process::id());
        files::remove_leftovers(state_dir);
        Ok(Self { _file: file })
    }
}

/// Why a directory with this owner and mode is no place for keys, if it is none.
fn why_not_private(owner: u32, mode: u32) -> Option<&'static str> {
    let me = rustix::process::geteuid().as_raw();
    if owner != me && owner != 0 {
        return Some("it belongs to another user");
    }
    (mode & 0o022 != 0).then_some("others may write to it")
}

fn nofollow() -> io::Result<i32> {
    i32::try_from(OFlags::NOFOLLOW.bits()).map_err(|_| io::ErrorKind::Unsupported.into())
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("the distmsg with process ID {pid}"),
        None => "another distmsg".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let lock = StateLock::acquire(&state).expect("free");
        let error = StateLock::acquire(&state).expect_err("held").to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("the distmsg with process ID {pid};")), "{error}");
        drop(lock);
        std::fs::write(state.join(LOCK_FILE), "4294967295 and a longer line\n").expect("written");
        let _lock = StateLock::acquire(&state).expect("free again");
        let text = std::fs::read_to_string(state.join(LOCK_FILE)).expect("text");
        assert_eq!(text, format!("{pid}\n"));
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("target");
        std::fs::write(&target, "precious").expect("written");
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("made");
        std::os::unix::fs::symlink(&target, state.join(LOCK_FILE)).expect("linked");
        let error = StateLock::acquire(&state).expect_err("refused");
        assert!(matches!(error, LockError::Io { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&target).expect("there"), "precious");
    }

    #[test]
    fn a_state_directory_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = StateLock::acquire(&file.join("state")).expect_err("impossible").to_string();
        assert!(error.contains("file/state: not a directory; let this user write"), "{error}");
        assert!(error.ends_with("or set another state_dir in the configuration"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("made");
        for (mode, is_fine) in [(0o777, false), (0o720, false), (0o755, true), (0o700, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&state, permissions).expect("set");
            let result = StateLock::acquire(&state);
            assert_eq!(result.is_ok(), is_fine, "{mode:o}: {result:?}");
        }
        let somebody = rustix::process::geteuid().as_raw() + 1;
        assert!(why_not_private(somebody, 0o700).is_some());
        assert!(why_not_private(0, 0o755).is_none());
    }

    #[test]
    fn what_a_killed_start_left_behind_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let left = dir.path().join(".distmsg-a1b2c3");
        std::fs::write(&left, "half a key").expect("written");
        std::fs::write(dir.path().join("identity.pem"), "a key").expect("written");
        let _lock = StateLock::acquire(dir.path()).expect("free");
        assert!(!left.exists());
        assert!(dir.path().join("identity.pem").exists());
    }
}
