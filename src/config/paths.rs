//! Where things are: pure functions of an [`Environment`], so that precedence can be tested.
//!
//! Everywhere: argument, then environment, then configuration, then default. As the XDG base
//! directory specification says, a relative path in an `XDG_` variable counts as none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use directories::BaseDirs;
use thiserror::Error;

use super::{Config, Problems};
use crate::model::plainly;

/// The directory of ours in each of the user's.
const OURS: &str = "distmsg";
const CONFIG_FILE: &str = "config.toml";
const SOCKET_FILE: &str = "socket";
const HISTORY_FILE: &str = "history";
/// The system service's socket.
const SYSTEM_SOCKET: &str = "/run/distmsg/socket";

/// What of the process's surroundings decides where things are.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Its variables.
    pub vars: BTreeMap<String, OsString>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The user, by number.
    pub uid: u32,
    /// The directory for temporary files.
    pub temp_dir: PathBuf,
}

/// The daemon's configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigPath {
    /// Where it is.
    pub path: PathBuf,
    /// Somebody named it, so it must exist; the default one may be missing.
    pub explicit: bool,
}

/// Who said where the socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketFrom {
    /// `--socket`.
    Flag,
    /// `DISTMSG_SOCKET`.
    Variable,
    /// The configuration file.
    Config,
    /// Nobody: it is the user's own daemon's.
    User,
    /// Nobody: it is the system service's.
    System,
}

/// The socket that a client uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketPath {
    /// Where it is.
    pub path: PathBuf,
    /// Who said so.
    pub from: SocketFrom,
    /// Where the user's own was looked for in vain, if it is the system service's.
    pub missed: Option<PathBuf>,
}

impl SocketPath {
    /// One that somebody named.
    pub const fn named(path: PathBuf, from: SocketFrom) -> Self {
        Self { path, from, missed: None }
    }
}

/// Why there is no path.
#[derive(Debug, Error)]
pub enum PathError {
    /// No variable helps and there is no home directory.
    #[error("there is no home directory; set {0}")]
    NoHome(&'static str),
    /// Somebody else made our private directory, or made it something else.
    #[error(
        "{path} is not a directory of yours with mode 0700 ({why}); remove it, or set \
         XDG_RUNTIME_DIR"
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// The system refuses.
    #[error(
        "cannot make the directory {path}: {}; set XDG_RUNTIME_DIR to another place",
        plainly(error)
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Environment {
    /// The surroundings of this process. Variables whose names are not UTF-8 are none of ours.
    pub fn from_process() -> Self {
        let vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Self {
            vars,
            home: BaseDirs::new().map(|directories| directories.home_dir().to_owned()),
            uid: rustix::process::getuid().as_raw(),
            temp_dir: std::env::temp_dir(),
        }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&OsString> {
        self.vars.get(name).filter(|value| !value.is_empty())
    }

    /// The daemon's configuration file: argument, then `DISTMSG_CONFIG`, then systemd's if it is
    /// there, then the user's.
    ///
    /// # Errors
    /// When nothing names it and there is no home directory.
    pub fn config_path(&self, argument: Option<&Path>) -> Result<ConfigPath, PathError> {
        let named = argument.map(Path::to_owned);
        if let Some(path) = named.or_else(|| self.var("DISTMSG_CONFIG").map(PathBuf::from)) {
            return Ok(ConfigPath { path, explicit: true });
        }
        let of_service = self.first_of("CONFIGURATION_DIRECTORY").map(|dir| dir.join(CONFIG_FILE));
        match of_service.filter(|path| path.is_file()) {
            Some(path) => Ok(ConfigPath { path, explicit: false }),
            None => self
                .user_dir("XDG_CONFIG_HOME", ".config")
                .map(|dir| ConfigPath { path: dir.join(CONFIG_FILE), explicit: false }),
        }
    }

    /// The daemon's state directory: configuration, then systemd's, then the user's.
    ///
    /// # Errors
    /// When nothing names it and there is no home directory.
    pub fn state_dir(&self, config: &Config) -> Result<PathBuf, PathError> {
        match config.state_dir.clone().or_else(|| self.first_of("STATE_DIRECTORY")) {
            Some(dir) => Ok(dir),
            None => self.user_state_dir(),
        }
    }

    /// systemd's directory of credentials, if the service was given any.
    pub fn credentials_dir(&self) -> Option<PathBuf> {
        self.absolute("CREDENTIALS_DIRECTORY")
    }

    /// Where the daemon makes its control socket: configuration, then systemd's runtime directory,
    /// then the user's, then a private directory among the temporary files, which
    /// [`Environment::prepare_private_dir`] makes.
    pub fn daemon_socket(&self, config: &Config) -> PathBuf {
        if let Some(socket) = &config.socket {
            return socket.clone();
        }
        match self.first_of("RUNTIME_DIRECTORY") {
            Some(dir) => dir.join(SOCKET_FILE),
            None => self.user_socket(),
        }
    }

    /// Whether this is systemd's system service: one of a user's has its runtime directory within
    /// the user's, where nobody else gets.
    pub fn is_system_service(&self) -> bool {
        let of_user = self.absolute("XDG_RUNTIME_DIR");
        self.first_of("RUNTIME_DIRECTORY")
            .is_some_and(|dir| !of_user.is_some_and(|of_user| dir.starts_with(of_user)))
    }

    /// Makes the private directory among the temporary files if the socket is to be there. Anybody
    /// may write there, so whatever already stands at its place is not to be trusted unless it is
    /// a real directory of ours that nobody else can enter.
    ///
    /// # Errors
    /// When it is not, or cannot be made.
    pub fn prepare_private_dir(&self, socket: &Path) -> Result<(), PathError> {
        let path = self.private_dir();
        if socket.parent() != Some(&*path) {
            return Ok(());
        }
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(PathError::Io { path, error })
            }
            _ => self.check_private(&path),
        }
    }

    /// The socket a client uses: flag, then `DISTMSG_SOCKET`, then the configuration file's, then
    /// the user's if there is one, then the system service's.
    ///
    /// # Errors
    /// When the configuration file was named and cannot be read, or its `socket` is wrong.
    pub fn client_socket(
        &self,
        flag: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<SocketPath, Problems> {
        let chosen = |path: PathBuf, from| Ok(SocketPath::named(path, from));
        if let Some(path) = flag {
            return chosen(path.to_owned(), SocketFrom::Flag);
        }
        if let Some(path) = self.var("DISTMSG_SOCKET") {
            return chosen(path.into(), SocketFrom::Variable);
        }
        if let Ok(ConfigPath { path, explicit }) = self.config_path(config)
            && (explicit || path.is_file())
            && let Some(socket) = Config::socket_in(&path)?
        {
            return chosen(socket, SocketFrom::Config);
        }
        let user = self.user_socket();
        let trusted = user.parent() != Some(&*self.private_dir())
            || self.check_private(&self.private_dir()).is_ok();
        if trusted && user.symlink_metadata().is_ok() {
            return chosen(user, SocketFrom::User);
        }
        let (path, from) = (SYSTEM_SOCKET.into(), SocketFrom::System);
        Ok(SocketPath { path, from, missed: Some(user) })
    }

    /// Where the prompt keeps what was typed.
    ///
    /// # Errors
    /// When there is no home directory.
    pub fn history_file(&self) -> Result<PathBuf, PathError> {
        Ok(self.user_state_dir()?.join(HISTORY_FILE))
    }

    pub(super) fn user_state_dir(&self) -> Result<PathBuf, PathError> {
        self.user_dir("XDG_STATE_HOME", ".local/state")
    }

    fn user_dir(&self, variable: &'static str, in_home: &str) -> Result<PathBuf, PathError> {
        let in_home = || self.home.as_ref().filter(|h| h.is_absolute()).map(|h| h.join(in_home));
        let base = self.absolute(variable).or_else(in_home);
        base.map(|base| base.join(OURS)).ok_or(PathError::NoHome(variable))
    }

    fn user_socket(&self) -> PathBuf {
        match self.absolute("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join(OURS).join(SOCKET_FILE),
            None => self.private_dir().join(SOCKET_FILE),
        }
    }

    fn private_dir(&self) -> PathBuf {
        self.temp_dir.join(format!("{OURS}-{}", self.uid))
    }

    fn check_private(&self, path: &Path) -> Result<(), PathError> {
        let refused = |why| Err(PathError::NotPrivate { path: path.to_owned(), why });
        match fs::symlink_metadata(path) {
            Err(error) => Err(PathError::Io { path: path.to_owned(), error }),
            Ok(found) if !found.is_dir() => refused("it is something else"),
            Ok(found) if found.uid() != self.uid => refused("it belongs to another user"),
            Ok(found) if found.mode() & 0o077 != 0 => refused("others may enter it"),
            Ok(_) => Ok(()),
        }
    }

    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        self.var(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The first of several directories that systemd separates with colons.
    fn first_of(&self, variable: &str) -> Option<PathBuf> {
        let first = std::env::split_paths(self.var(variable)?).next();
        first.filter(|path| path.is_absolute())
    }
}

/// Where this process's prompt keeps what was typed; nowhere without a home directory.
pub fn history_file() -> Option<PathBuf> {
    Environment::from_process().history_file().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let (home, temp_dir) = (Some("/home/u".into()), "/nowhere".into());
        Environment { vars, home, uid: 1000, temp_dir }
    }

    #[test]
    fn the_configuration_is_argument_then_variable_then_the_users() {
        let path = |vars: &[_], argument: Option<&str>| {
            let found = environment(vars).config_path(argument.map(Path::new)).expect("a path");
            (found.path.display().to_string(), found.explicit)
        };
        let all = [("DISTMSG_CONFIG", "rel.toml"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(path(&all, Some("a.toml")), ("a.toml".to_owned(), true));
        assert_eq!(path(&all, None), ("rel.toml".to_owned(), true));
        assert_eq!(path(&all[1..], None), ("/x/distmsg/config.toml".to_owned(), false));
        let home = ("/home/u/.config/distmsg/config.toml".to_owned(), false);
        assert_eq!(path(&[], None), home);
        assert_eq!(path(&[("XDG_CONFIG_HOME", "rel"), ("DISTMSG_CONFIG", "")], None), home);
        let dir = tempfile::tempdir().expect("a directory");
        let service = dir.path().to_str().expect("text");
        let vars = [("CONFIGURATION_DIRECTORY", service), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(path(&vars, None).0, "/x/distmsg/config.toml", "systemd's has no file");
        let of_service = dir.path().join("config.toml");
        fs::write(&of_service, "").expect("written");
        assert_eq!(path(&vars, None), (of_service.display().to_string(), false));
        assert_eq!(path(&vars, Some("a.toml")), ("a.toml".to_owned(), true));
        let homeless = Environment { home: None, ..environment(&[]) };
        let error = homeless.config_path(None).expect_err("no home").to_string();
        assert_eq!(error, "there is no home directory; set XDG_CONFIG_HOME");
    }

    #[test]
    fn a_users_service_is_not_the_systems() {
        let is_system = |vars: &[_]| environment(vars).is_system_service();
        assert!(is_system(&[("RUNTIME_DIRECTORY", "/run/distmsg")]));
        let of_user = ("XDG_RUNTIME_DIR", "/run/user/1000");
        assert!(!is_system(&[of_user, ("RUNTIME_DIRECTORY", "/run/user/1000/distmsg")]));
        assert!(is_system(&[of_user, ("RUNTIME_DIRECTORY", "/run/user/10001")]));
        assert!(!is_system(&[of_user]));
    }

    #[test]
    fn the_state_is_where_the_configuration_or_systemd_or_the_user_has_it() {
        let path = |vars: &[_], config: &Config| environment(vars).state_dir(config).expect("one");
        let config = Config { state_dir: Some("/c".into()), ..Config::default() };
        let all = [("STATE_DIRECTORY", "/s/a:/s/b"), ("XDG_STATE_HOME", "/x")];
        assert_eq!(path(&all, &config), Path::new("/c"));
        assert_eq!(path(&all, &Config::default()), Path::new("/s/a"));
        assert_eq!(path(&all[1..], &Config::default()), Path::new("/x/distmsg"));
        assert_eq!(path(&[], &Config::default()), Path::new("/home/u/.local/state/distmsg"));
        let history = environment(&[]).history_file().expect("one");
        assert_eq!(history, Path::new("/home/u/.local/state/distmsg/history"));
    }

    #[test]
    fn the_daemons_socket_is_where_the_configuration_or_systemd_or_the_user_has_it() {
        let path = |vars: &[_], config: &Config| environment(vars).daemon_socket(config);
        let config = Config { socket: Some("/c".into()), ..Config::default() };
        let all = [("RUNTIME_DIRECTORY", "/r"), ("XDG_RUNTIME_DIR", "/x")];
        assert_eq!(path(&all, &config), Path::new("/c"));
        assert_eq!(path(&all, &Config::default()), Path::new("/r/socket"));
        assert_eq!(path(&all[1..], &Config::default()), Path::new("/x/distmsg/socket"));
        assert_eq!(path(&[], &Config::default()), Path::new("/nowhere/distmsg-1000/socket"));
    }

    #[test]
    fn a_client_uses_flag_variable_configuration_the_users_and_the_systems() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("c.toml");
        fs::write(&config, "socket = \"/configured\"").expect("written");
        let runtime = dir.path().to_str().expect("text");
        let path = |vars: &[_], flag: Option<&str>, config: Option<&Path>| {
            let found = environment(vars).client_socket(flag.map(Path::new), config);
            let found = found.expect("a socket");
            (found.path.display().to_string(), found.from)
        };
        let all = [("DISTMSG_SOCKET", "/v"), ("XDG_RUNTIME_DIR", runtime)];
        assert_eq!(path(&all, Some("/f"), Some(&config)), ("/f".to_owned(), SocketFrom::Flag));
        assert_eq!(path(&all, None, Some(&config)), ("/v".to_owned(), SocketFrom::Variable));
        let configured = path(&all[1..], None, Some(&config));
        assert_eq!(configured, ("/configured".to_owned(), SocketFrom::Config));
        let system = (SYSTEM_SOCKET.to_owned(), SocketFrom::System);
        assert_eq!(path(&all[1..], None, None), system, "the user has none");
        let user = dir.path().join("distmsg/socket");
        let missed = environment(&all[1..]).client_socket(None, None).expect("a socket").missed;
        assert_eq!(missed.as_ref(), Some(&user), "and it is known where that would be");
        fs::create_dir(dir.path().join("distmsg")).expect("made");
        fs::write(&user, "").expect("written");
        let expected = (user.display().to_string(), SocketFrom::User);
        assert_eq!(path(&all[1..], None, None), expected);
        let missing = dir.path().join("none.toml");
        assert!(environment(&[]).client_socket(None, Some(&missing)).is_err(), "named but missing");
    }

    #[test]
    fn a_private_directory_is_made_and_one_of_others_is_not_trusted() {
        let temp = tempfile::tempdir().expect("a directory");
        let uid = rustix::process::getuid().as_raw();
        let ours = Environment { uid, temp_dir: temp.path().to_owned(), ..environment(&[]) };
        let socket = ours.daemon_socket(&Config::default());
        let dir = socket.parent().expect("a directory").to_owned();
        ours.prepare_private_dir(Path::new("/elsewhere/socket")).expect("nothing to do");
        assert!(!dir.exists());
        ours.prepare_private_dir(&socket).expect("made");
        ours.prepare_private_dir(&socket).expect("there");
        assert_eq!(dir.metadata().expect("there").mode() & 0o777, 0o700);

        fs::write(&socket, "").expect("written");
        let client = || ours.client_socket(None, None).expect("a socket").from;
        assert_eq!(client(), SocketFrom::User);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("set");
        assert!(ours.prepare_private_dir(&socket).is_err(), "others may enter");
        assert_eq!(client(), SocketFrom::System);

        fs::remove_file(&socket).expect("removed");
        fs::remove_dir(&dir).expect("removed");
        let target = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(target.path(), &dir).expect("linked");
        let error = ours.prepare_private_dir(&socket).expect_err("a link").to_string();
        assert!(error.contains("it is something else"), "{error}");

        let theirs = Environment { uid: uid.wrapping_add(1), ..ours };
        let socket = theirs.daemon_socket(&Config::default());
        let error = theirs.prepare_private_dir(&socket).expect_err("another's").to_string();
        assert!(error.contains("another user"), "{error}");
    }
}
