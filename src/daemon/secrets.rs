//! The node's secrets on disk: its identity key, its network's key, and its interface port's token.
//!
//! A secret is for its owner only. It is read where it is and never through a symbolic link, and
//! made so that it is there whole or not at all: a half-written identity would be a new one at the
//! next start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use super::exit::Stop;
use super::files;
use crate::config::{Config, TOKEN_FILE};
use crate::crypto::{AccessToken, Identity, KeyError, NetworkKey, Random};
use crate::model::{PeerId, plainly};

/// The identity key's file, in the state directory or among the credentials.
pub const IDENTITY_FILE: &str = "identity.pem";
/// The network key's file, in the state directory or among the credentials.
pub const NETWORK_KEY_FILE: &str = "network.key";

/// Bytes of a secret's file: both kinds are far smaller.
const SECRET_BYTES_MAX: usize = 4 * 1024;
/// Room for a network key as a line of base64, which has 45 bytes.
const KEY_LINE_BYTES_MAX: usize = 64;

/// A secret, and where it is kept.
#[derive(Debug)]
pub struct Kept<T> {
    /// The secret.
    pub secret: T,
    /// Its file.
    pub path: PathBuf,
    /// It was made just now.
    pub made: bool,
}

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Others may read or change it.
    #[error(
        "{path} can be read or changed by others (mode {mode:03o}); if nobody has, \
         'chmod 600 {path}', otherwise make a new one"
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A symbolic link, a directory, a pipe.
    #[error("{0} is not a regular file (links are not followed); put the secret itself there")]
    NotAFile(PathBuf),
    /// Far too large, or not text.
    #[error("{0} does not hold a secret of ours; restore it from a backup, or name another file")]
    NotASecret(PathBuf),
    /// No identity key.
    #[error(
        "{path}: {error}; restore it from a backup, or move it away for a new identity (peers \
         will not know this node any more)"
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: KeyError,
    },
    /// No network key.
    #[error(
        "{0} does not hold one line of base64 with 32 bytes; copy it again from another member"
    )]
    NetworkKey(PathBuf),
    /// No token.
    #[error(
        "{0} does not hold one line of 64 hexadecimal digits; remove it, and a new token is made"
    )]
    InterfaceToken(PathBuf),
    /// It was named, and is not there.
    #[error(
        "{0} does not exist; copy another member's network.key there, or take network_key_file \
         out: then the key is in the state directory, and made if it is not there"
    )]
    Missing(PathBuf),
    /// The system refuses.
    #[error("cannot use the secret {path}: {}; let this user read it", plainly(error))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl From<SecretError> for Stop {
    fn from(error: SecretError) -> Self {
        Self::config(error)
    }
}

impl SecretError {
    /// The file it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotAFile(path)
            | Self::NotASecret(path)
            | Self::NetworkKey(path)
            | Self::InterfaceToken(path)
            | Self::Missing(path)
            | Self::NotPrivate { path, .. }
            | Self::Identity { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// The same as the configuration's own problem, if that names the file as the network's key.
    pub(super) fn with_network_key_file(self, config: &Path, named: Option<&Path>) -> Stop {
        match named {
            Some(named) if named == self.path() => {
                Config::problem_with(config, "network_key_file", self).into()
            }
            _ => self.into(),
        }
    }
}

/// Who vouches for a file's permissions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Nobody: we look at its mode.
    Mode,
    /// systemd: only the service can enter the directory of credentials, and the access lists there
    /// show as group permissions.
    Credentials,
}

/// A secret's text; made, if its file is not there yet.
///
/// # Errors
/// When others may read it, or it cannot be read or made.
pub fn load_or_create(
    path: &Path,
    make: impl FnOnce() -> Zeroizing<String>,
) -> Result<Kept<Zeroizing<String>>, SecretError> {
    if let Some(secret) = load(path, Guard::Mode)? {
        return Ok(Kept { secret, path: path.to_owned(), made: false });
    }
    let secret = make();
    match files::create(path, secret.as_bytes(), 0o600) {
        Ok(()) => Ok(Kept { secret, path: path.to_owned(), made: true }),
        // Another process was faster. Its secret counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let kept = |secret| Kept { secret, path: path.to_owned(), made: false };
            let vanished = SecretError::Io { path: path.to_owned(), error };
            load(path, Guard::Mode)?.map(kept).ok_or(vanished)
        }
        Err(error) => Err(SecretError::Io { path: path.to_owned(), error }),
    }
}

/// The node's identity: from the credentials, or from the state directory, where it is made at the
/// first start.
///
/// # Errors
/// When it cannot be had; a new one is never made in place of one that cannot be read.
pub fn identity(
    state_dir: &Path,
    credentials_dir: Option<&Path>,
    random: &mut Random,
) -> Result<Kept<Identity>, SecretError> {
    let kept = match credential(credentials_dir, IDENTITY_FILE)? {
        Some(kept) => kept,
        None => {
            load_or_create(&state_dir.join(IDENTITY_FILE), || Identity::generate(random).to_pem())?
        }
    };
    identity_of(kept)
}

/// Whose identity key is there, if there is one.
///
/// # Errors
/// When it cannot be read, or is no key.
pub fn identity_there(
    state_dir: &Path,
    credentials_dir: Option<&Path>,
) -> Result<Option<PeerId>, SecretError> {
    let kept = match credential(credentials_dir, IDENTITY_FILE)? {
        Some(kept) => Some(kept),
        None => there(state_dir.join(IDENTITY_FILE), Guard::Mode)?,
    };
    kept.map(|kept| identity_of(kept).map(|kept| kept.secret.peer())).transpose()
}

/// A closed network's key as [`network_key`] finds it; none, if it would be made.
///
/// # Errors
/// When it cannot be read, or is no key.
pub fn network_key_there(
    state_dir: &Path,
    credentials_dir: Option<&Path>,
    file: Option<&Path>,
) -> Result<Option<NetworkKey>, SecretError> {
    let kept = match (credential(credentials_dir, NETWORK_KEY_FILE)?, file) {
        (Some(kept), _) => Some(kept),
        (None, Some(file)) => return network_key_in(file).map(|kept| Some(kept.secret)),
        (None, None) => there(state_dir.join(NETWORK_KEY_FILE), Guard::Mode)?,
    };
    kept.map(|kept| network_key_of(kept).map(|kept| kept.secret)).transpose()
}

/// A closed network's key: from the credentials, or from the file that the configuration names, or
/// from the state directory, where it is made at the first start.
///
/// # Errors
/// When it cannot be had.
pub fn network_key(
    state_dir: &Path,
    credentials_dir: Option<&Path>,
    file: Option<&Path>,
    random: &mut Random,
) -> Result<Kept<NetworkKey>, SecretError> {
    let kept = match (credential(credentials_dir, NETWORK_KEY_FILE)?, file) {
        (Some(kept), _) => kept,
        (None, Some(file)) => return network_key_in(file),
        (None, None) => load_or_create(&state_dir.join(NETWORK_KEY_FILE), || {
            let key = Zeroizing::new(random.bytes::<32>());
            // Room for all of it from the start: growing would leave a copy behind.
            let mut line = Zeroizing::new(String::with_capacity(KEY_LINE_BYTES_MAX));
            STANDARD.encode_string(key.as_slice(), &mut line);
            line.push('\n');
            line
        })?,
    };
    network_key_of(kept)
}

/// The interface port's token, from the state directory, where it is made when it is first needed.
///
/// # Errors
/// When it cannot be had; a new one is never made in place of one that cannot be read.
pub fn interface_token(
    state_dir: &Path,
    random: &mut Random,
) -> Result<Kept<AccessToken>, SecretError> {
    let kept = load_or_create(&state_dir.join(TOKEN_FILE), || {
        let mut line = AccessToken::generate(random).to_text();
        line.push('\n');
        line
    })?;
    let Kept { secret, path, made } = kept;
    match AccessToken::parse(secret.trim_ascii_end()) {
        Some(secret) => Ok(Kept { secret, path, made }),
        None => Err(SecretError::InterfaceToken(path)),
    }
}

/// Random bytes for secrets, seeded by the operating system.
///
/// # Errors
/// When that gives none.
pub(super) fn random() -> Result<Random, Stop> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *seed)
        .map_err(|_| Stop::failure("the operating system gives no random bytes"))?;
    Ok(Random::from_seed(*seed))
}

/// The key in a file that somebody named, and that therefore must be there.
///
/// # Errors
/// When it is not there, or is no key.
pub fn network_key_in(file: &Path) -> Result<Kept<NetworkKey>, SecretError> {
    let missing = || SecretError::Missing(file.to_owned());
    let secret = load(file, Guard::Mode)?.ok_or_else(missing)?;
    network_key_of(Kept { secret, path: file.to_owned(), made: false })
}

fn identity_of(kept: Kept<Zeroizing<String>>) -> Result<Kept<Identity>, SecretError> {
    let Kept { secret, path, made } = kept;
    match Identity::from_pem(&secret) {
        Ok(secret) => Ok(Kept { secret, path, made }),
        Err(error) => Err(SecretError::Identity { path, error }),
    }
}

fn network_key_of(kept: Kept<Zeroizing<String>>) -> Result<Kept<NetworkKey>, SecretError> {
    let Kept { secret, path, made } = kept;
    let bytes = STANDARD.decode(secret.trim_ascii()).map(Zeroizing::new).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(&**bytes).ok());
    match bytes.map(Zeroizing::new) {
        Some(bytes) => Ok(Kept { secret: NetworkKey::from_bytes(bytes), path, made }),
        None => Err(SecretError::NetworkKey(path)),
    }
}

fn credential(
    directory: Option<&Path>,
    name: &str,
) -> Result<Option<Kept<Zeroizing<String>>>, SecretError> {
    let Some(directory) = directory else { return Ok(None) };
    there(directory.join(name), Guard::Credentials)
}

/// A secret, if its file is there.
fn there(path: PathBuf, guard: Guard) -> Result<Option<Kept<Zeroizing<String>>>, SecretError> {
    let secret = load(&path, guard)?;
    Ok(secret.map(|secret| Kept { secret, path, made: false }))
}

/// A secret's text, if its file is there.
fn load(path: &Path, guard: Guard) -> Result<Option<Zeroizing<String>>, SecretError> {
    let failed = |error| SecretError::Io { path: path.to_owned(), error };
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(SecretError::NotAFile(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    // Asked of the open file, which nobody can exchange any more.
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    if guard == Guard::Mode && found.mode() & 0o077 != 0 {
        return Err(SecretError::NotPrivate { path: path.to_owned(), mode: found.mode() & 0o777 });
    }
    read(file, path).map(Some)
}

fn open(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a pipe put here would hang the start.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits());
    let flags = flags.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn read(file: File, path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let not_a_secret = || SecretError::NotASecret(path.to_owned());
    // Room for all of it from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX.saturating_mul(2)));
    let most = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bounded = file.take(most);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| SecretError::Io { path: path.to_owned(), error })?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(not_a_secret());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_secret())?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn random(seed: u8) -> Random {
        Random::from_seed([seed; 32])
    }

    #[test]
    fn secrets_are_made_once_for_their_owner_only_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("new/state");
        let made = identity(&state, None, &mut random(1)).expect("made");
        assert!(made.made);
        assert_eq!(made.path, state.join("identity.pem"));
        assert_eq!(fs::metadata(&made.path).expect("there").mode() & 0o777, 0o600);
        let found = identity(&state, None, &mut random(2)).expect("found");
        assert!(!found.made);
        assert_eq!(found.secret.peer(), made.secret.peer());

        let made = network_key(&state, None, None, &mut random(1)).expect("made");
        let found = network_key(&state, None, None, &mut random(2)).expect("found");
        assert_eq!((made.made, found.made), (true, false));
        assert_eq!(found.secret.as_bytes(), made.secret.as_bytes());
        let text = fs::read_to_string(&made.path).expect("text");
        assert_eq!((text.len(), text.lines().count()), (45, 1));
    }

    #[test]
    fn credentials_come_first_then_the_file_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, credentials) = (dir.path().join("state"), dir.path().join("credentials"));
        let other = dir.path().join("other");
        let from = identity(&credentials, None, &mut random(1)).expect("made");
        let key = network_key(&credentials, None, None, &mut random(1)).expect("made");
        let named = network_key(&other, None, None, &mut random(2)).expect("made");
        // systemd's access lists show as group permissions.
        fs::set_permissions(&from.path, Permissions::from_mode(0o440)).expect("set");
        let found = identity(&state, Some(&credentials), &mut random(3)).expect("found");
        assert_eq!(found.secret.peer(), from.secret.peer());

        let file = Some(&*named.path);
        let found = network_key(&state, Some(&credentials), file, &mut random(3)).expect("found");
        assert_eq!(found.secret.as_bytes(), key.secret.as_bytes());
        let found = network_key(&state, Some(dir.path()), file, &mut random(3)).expect("found");
        assert_eq!(found.secret.as_bytes(), named.secret.as_bytes());
        assert!(!state.exists(), "nothing was made");
        fs::set_permissions(&from.path, Permissions::from_mode(0o600)).expect("set");
        fs::write(&from.path, "no key").expect("written");
        let error = identity_there(&state, Some(&credentials)).expect_err("no key");
        assert_eq!(error.path(), from.path, "it names the file that is wrong: {error}");
        let missing = dir.path().join("none");
        let error = network_key(&state, None, Some(&missing), &mut random(3)).expect_err("missing");
        assert!(matches!(error, SecretError::Missing(_)), "{error}");
    }

    #[test]
    fn secrets_that_others_may_read_are_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = identity(dir.path(), None, &mut random(1)).expect("made");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&made.path, Permissions::from_mode(mode)).expect("set");
            let error = identity(dir.path(), None, &mut random(1)).expect_err("refused");
            let remedy = format!("chmod 600 {}", made.path.display());
            assert!(error.to_string().contains(&remedy), "{error}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(IDENTITY_FILE);
        let refused = || identity(dir.path(), None, &mut random(1)).expect_err("refused");
        for (content, expected) in [
            (&b""[..], "not a PEM file"),
            (b"\xff", "does not hold a secret"),
            (&[b'x'; SECRET_BYTES_MAX + 1], "does not hold a secret"),
        ] {
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
            assert!(refused().to_string().contains(expected), "{}", refused());
            assert_eq!(fs::read(&path).expect("still there"), content);
        }
        fs::remove_file(&path).expect("removed");
        let target = dir.path().join("target");
        identity(&target, None, &mut random(1)).expect("made");
        std::os::unix::fs::symlink(target.join(IDENTITY_FILE), &path).expect("linked");
        assert!(matches!(refused(), SecretError::NotAFile(_)), "{}", refused());
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert!(matches!(refused(), SecretError::NotAFile(_)), "{}", refused());

        let key = dir.path().join(NETWORK_KEY_FILE);
        for text in ["", "AAAA\n", "not base64\n"] {
            fs::write(&key, text).expect("written");
            fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("set");
            let error = network_key_in(&key).expect_err("refused");
            assert!(matches!(error, SecretError::NetworkKey(_)), "{error}");
        }
    }

    #[test]
    fn a_token_is_made_once_and_what_is_none_is_refused_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = interface_token(dir.path(), &mut random(1)).expect("made");
        let text = fs::read_to_string(&made.path).expect("text");
        assert_eq!((text.len(), text.lines().count(), made.made), (65, 1, true));
        assert_eq!(fs::metadata(&made.path).expect("there").mode() & 0o777, 0o600);
        let found = interface_token(dir.path(), &mut random(2)).expect("found");
        assert!(!found.made && found.secret.is(text.trim_end()));

        let refused = || interface_token(dir.path(), &mut random(1)).expect_err("refused");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&made.path, Permissions::from_mode(mode)).expect("set");
            assert!(refused().to_string().contains("chmod 600"), "{}", refused());
        }
        fs::set_permissions(&made.path, Permissions::from_mode(0o600)).expect("set");
        for other in ["", "\n", &text[1..], &text.to_uppercase(), &format!("{text}{text}")] {
            fs::write(&made.path, other).expect("written");
            assert!(refused().to_string().contains("64 hexadecimal digits"), "{}", refused());
            assert_eq!(fs::read_to_string(&made.path).expect("there"), other);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let kept = interface_token(dir.path(), &mut random(1)).expect("made");
        let text = fs::read_to_string(&kept.path).expect("text");
        assert!(!format!("{kept:?}").contains(text.trim()));
        let kept = network_key(dir.path(), None, None, &mut random(1)).expect("made");
        let text = fs::read_to_string(&kept.path).expect("text");
        assert!(!format!("{kept:?}").contains(text.trim()));
        let kept = identity(dir.path(), None, &mut random(1)).expect("made");
        assert!(format!("{kept:?}").contains("Identity("), "{kept:?}");
    }
}
