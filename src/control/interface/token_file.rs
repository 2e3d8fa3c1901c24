//! The token as a client reads it from a file.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::AccessToken;
use crate::model::plainly;

/// Bytes of a token's file: its 64 digits, and a line's end of whatever kind.
const FILE_BYTES_MAX: u64 = 80;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// Others may read it.
    #[error(
        "the token in {path} can be read or changed by others (mode {mode:03o}); if nobody has, \
         'chmod 600 {path}', otherwise remove it where the daemon keeps it and restart that"
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Something else is in it.
    #[error(
        "{0} does not hold a token, which is one line of 64 hexadecimal digits; copy \
         interface-token from the daemon's state directory"
    )]
    NotAToken(PathBuf),
    /// It cannot be read.
    #[error("cannot read the token {path}: {}; {}", plainly(error), remedy(error))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "copy interface-token from the daemon's state directory there, or name another file"
        }
        _ => "let this user read it, or name a copy of your own",
    }
}

/// What a client shows, once it knows to whom.
#[derive(Debug)]
pub struct Credentials(pub(super) AccessToken);

/// The token in a file, which must be for its owner only.
///
/// # Errors
/// When it cannot be read, when others can read it, or when it is something else.
pub fn read_token(path: &Path) -> Result<Credentials, TokenFileError> {
    let failed = |error| TokenFileError::Io { path: path.to_owned(), error };
    // Without NONBLOCK, a pipe put here would hang us.
    let flags = i32::try_from(OFlags::NONBLOCK.bits());
    let flags = flags.map_err(|_| failed(io::ErrorKind::Unsupported.into()))?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    // Asked of the open file, which nobody can exchange any more.
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(TokenFileError::NotAToken(path.to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(TokenFileError::NotPrivate {
            path: path.to_owned(),
            mode: found.mode() & 0o777,
        });
    }
    // Room for all of it from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * 80));
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    match read {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(failed(error)),
        _ => AccessToken::parse(text.trim_ascii_end())
            .map(Credentials)
            .ok_or_else(|| TokenFileError::NotAToken(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_read_if_it_is_one_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let error = |path: &Path| read_token(path).expect_err("refused").to_string();
        assert!(
            error(&path).contains("no such file or directory; copy interface-token"),
            "{}",
            error(&path)
        );
        assert!(error(dir.path()).contains("does not hold a token"), "{}", error(dir.path()));
        let digits = "0123456789abcdef".repeat(4);
        let upper = digits.to_uppercase();
        for (text, is_one) in [
            (&*format!("{digits}\n"), true),
            (&digits, true),
            (&format!("{digits}\r\n"), true),
            ("", false),
            (&digits[1..], false),
            (&upper, false),
            (&format!("{digits}\n{digits}\n"), false),
            (&digits.repeat(1000), false),
        ] {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
            assert_eq!(read_token(&path).is_ok(), is_one, "{text}");
        }
        fs::write(&path, b"\xff\xfe").expect("written");
        assert!(error(&path).contains("does not hold a token"), "{}", error(&path));
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            assert!(error(&path).contains("chmod 600"), "{}", error(&path));
        }
    }
}
