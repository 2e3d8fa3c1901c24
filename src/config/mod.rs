//! The configuration file and the paths of daemon and client: what was written becomes typed values
//! once, here, with every default applied. And what else both do alike: how a wrong command line is
//! told, and how one is completed for a shell.

mod completion;
mod endpoint;
mod file;
mod limits;
mod paths;
mod problem;
mod read;
mod suggest;
mod template;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::model::{Address, Level, Limits, Name, WordError};

pub use completion::{Shell, completion, each_argument};
pub use endpoint::{
    Endpoint, EndpointError, EndpointFlags, InterfaceEndpoint, TOKEN_FILE, TokenFile,
};
pub use paths::{ConfigPath, Environment, PathError, SocketFrom, SocketPath, history_file};
pub use problem::{Problem, Problems};
pub use read::{address_to_advertise, address_to_listen};
pub use template::Setup;
pub use usage::usage_line;

/// Links to peers that nobody connected by hand, when the configuration does not say.
pub const LINKS_AUTO_DEFAULT: usize = 8;
/// The most of them that can be asked for.
pub const LINKS_AUTO_MAX: usize = 64;
/// Addresses to listen on, or to advertise: a record has no room for more.
pub const ADDRESSES_MAX: usize = crate::model::limits::RECORD_ADDRESSES_MAX;

/// A node's configuration, all defaults applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What the node calls itself; none leaves it to the daemon (the machine's name).
    pub name: Option<Name>,
    /// Where it accepts links.
    pub listen: Vec<Address>,
    /// Where others reach it, if that is not where it listens.
    pub advertise: Vec<Address>,
    /// Who may be a neighbour.
    pub network: Network,
    /// Where a closed network's key is, if not in the state directory.
    pub network_key_file: Option<PathBuf>,
    /// How much is logged.
    pub log: Level,
    /// The control socket, if not at the usual place.
    pub socket: Option<PathBuf>,
    /// The state directory, if not at the usual place.
    pub state_dir: Option<PathBuf>,
    /// Where control clients are served over TCP; none unless somebody wants it.
    pub interface: Option<Address>,
    /// How many links it makes by itself.
    pub links_auto: usize,
    /// Its own bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            listen: Self::listen_default(),
            advertise: Vec::new(),
            network: Network::Open,
            network_key_file: None,
            log: Level::Info,
            socket: None,
            state_dir: None,
            interface: None,
            links_auto: LINKS_AUTO_DEFAULT,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::parse(&file::text_of(path)?, path)
    }

    /// Reads a configuration file once more.
    ///
    /// # Errors
    /// All that is wrong with it, and when it is of a kind that can be read only once.
    pub fn load_again(path: &Path) -> Result<Self, Problems> {
        file::check_lasting(path)?;
        Self::load(path)
    }

    /// Reads a configuration's text; the path is for the problems.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        let (config, problems) = read::read(text, path);
        problems.map_or(Ok(config), Err)
    }

    /// A problem with what a key outside of any table names, which shows only when that is used.
    pub fn problem_with(path: &Path, key: &str, message: impl fmt::Display) -> Problems {
        // A file that cannot be read any more has no lines.
        let text = file::text_of(path).unwrap_or_default();
        let (line, key) = (read::line_of_key(&text, key), Some(key.to_owned()));
        Problems::of(Problem { file: path.to_owned(), line, key, message: message.to_string() })
    }

    /// Where a node listens that was not told otherwise: nobody but this machine gets there.
    pub fn listen_default() -> Vec<Address> {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], Address::PORT_DEFAULT));
        vec![loopback.into()]
    }

    /// The `socket` of a configuration file, for a client: what else may be wrong in it is the
    /// daemon's concern.
    pub(super) fn socket_in(path: &Path) -> Result<Option<PathBuf>, Problems> {
        let (config, problems) = read::read(&file::text_of(path)?, path);
        let ours = |problem: &Problem| problem.key.as_deref().is_none_or(|key| key == read::SOCKET);
        match problems.and_then(|problems| problems.filtered(ours)) {
            Some(problems) => Err(problems),
            None => Ok(config.socket),
        }
    }
}

/// The interface port that is suggested to whoever wants one.
pub const INTERFACE_PORT_SUGGESTED: u16 = 8080;

/// The interface address that a mere port stands for: nobody but this machine gets there.
pub fn interface_on_loopback(port: u16) -> Address {
    std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()
}

/// Who may be a node's neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Anybody.
    Open,
    /// Who has the network's key.
    Closed,
}

impl Network {
    /// The word for it, everywhere.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Network {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(WordError("\"open\" (anybody may link) or \"closed\" (who has the key may)")),
        }
    }
}
