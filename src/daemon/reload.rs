//! Reading the configuration again: what can change while the daemon runs is applied, of the rest
//! it is said that it waits for the next start, and a file that is wrong changes nothing.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::{info, warn};

use super::exit::Stop;
use super::interface::InterfacePort;
use super::logging::Verbosity;
use super::manager::Line;
use super::run::adjustable;
use super::secrets::{self, SecretError};
use crate::config::{Config, ConfigPath, Environment, Network};
use crate::crypto::NetworkKey;
use crate::link::Membership;
use crate::model::{Address, PeerId};
use crate::node::Order;

/// Reads the configuration again when it is told to.
#[derive(Debug)]
pub(super) struct Reload {
    file: ConfigPath,
    environment: Environment,
    /// What the daemon was started with, and still is.
    started: Started,
    /// Where it listens for peers, as it is written.
    listen: Vec<Address>,
    verbosity: Verbosity,
    /// To the service manager, if there is one.
    line: Option<Line>,
    /// The interface port, once the node runs.
    pub(super) interface: Option<Arc<Mutex<InterfacePort>>>,
}

/// What cannot change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) config: Config,
    pub(super) peer: PeerId,
    pub(super) membership: Membership,
}

impl Reload {
    pub(super) fn new(
        file: ConfigPath,
        environment: Environment,
        started: Started,
        verbosity: Verbosity,
        line: Option<Line>,
    ) -> Self {
        let listen = started.config.listen.clone();
        Self { file, environment, started, listen, verbosity, line, interface: None }
    }

    /// Reads the file and has the node take it on. What comes of it is told to the log, to `status`
    /// and to the service manager.
    pub(super) async fn reload(&mut self, orders: &mpsc::Sender<Order>) {
        if let Some(line) = &self.line {
            line.tell_reloading();
        }
        let refusal = match self.read_and_apply(orders).await {
            Ok(()) => {
                info!(file = %self.file.path.display(), "the configuration was read again");
                None
            }
            Err(stop) => {
                for problem in stop.message.lines() {
                    warn!("the configuration is refused: {problem}");
                }
                let problems: Vec<&str> = stop.message.lines().collect();
                let problems = problems.join("; ");
                Some(format!(
                    "running on the old configuration, the new one is refused: {problems}"
                ))
            }
        };
        // A loop that has ended needs to know nothing.
        let _ = orders.send(Order::Reloaded(refusal)).await;
    }

    async fn read_and_apply(&mut self, orders: &mpsc::Sender<Order>) -> Result<(), Stop> {
        let (file, environment) = (self.file.clone(), self.environment.clone());
        let started = self.started.clone();
        // The disk may take its time.
        let read = tokio::task::spawn_blocking(move || read(&file, &environment, &started));
        let (config, waiting) = read.await.map_err(Stop::failure)??;
        let mut settings = adjustable(&config);
        settings.warnings.extend(waiting);
        // Of what can fail, first what can be undone. It is there before a signal is obeyed.
        let Some(interface) = &self.interface else { return Ok(()) };
        let mut interface = interface.lock().await;
        let prepared = interface.prepare(config.interface.as_ref(), &config.listen).await;
        let prepared = prepared.map_err(|stop| self.in_its_own_way(&config, stop))?;
        settings.interface = prepared.listening();
        let (done, is_done) = oneshot::channel();
        if orders.send(Order::Adjust(Box::new(settings), done)).await.is_err() {
            // The daemon is stopping.
            return Ok(());
        }
        match is_done.await {
            Ok(Ok(())) => interface.settle(prepared).await?,
            // The daemon is stopping.
            Err(_) => return Ok(()),
            Ok(Err(error)) => {
                interface.abandon(prepared).await;
                return Err(Config::problem_with(&self.file.path, "listen", error).into());
            }
        }
        self.listen = config.listen;
        self.verbosity.begin_again(config.log);
        Ok(())
    }

    /// Why the interface port cannot be where it is wanted: where the daemon itself listens, nobody
    /// else is to be stopped.
    fn in_its_own_way(&self, config: &Config, stop: Stop) -> Stop {
        let wanted = config.interface.as_ref();
        match wanted.filter(|wanted| self.listen.iter().any(|at| at.collides_with(wanted))) {
            Some(wanted) => Stop::failure(format_args!(
                "{wanted} under [interface] is where this daemon still listens for peers; restart \
                 it, or choose another port"
            )),
            None => stop,
        }
    }
}

/// The configuration as it is now, and what of it waits for the next start.
fn read(
    file: &ConfigPath,
    environment: &Environment,
    started: &Started,
) -> Result<(Config, Vec<String>), Stop> {
    let config = match super::files::exists(&file.path) || file.explicit {
        true => Config::load_again(&file.path)?,
        // As at the start.
        false => Config::default(),
    };
    let named = config.network_key_file.as_deref();
    let now = SecretsNow::read(&config, environment)
        .map_err(|error| error.with_network_key_file(&file.path, named))?;
    let mut waiting = Vec::new();
    let before = &started.config;
    let key_differs = match (&started.membership, &now.key) {
        (Membership::Closed(before), Some(now)) => before.network() != now.network(),
        _ => false,
    };
    let differs = [
        ("state_dir", before.state_dir != config.state_dir),
        ("socket", before.socket != config.socket),
        ("network", before.network != config.network),
        ("network_key_file", before.network_key_file != config.network_key_file),
        ("the network key", key_differs),
        ("the identity", now.peer.is_some_and(|peer| peer != started.peer)),
    ];
    for (what, _) in differs.iter().filter(|(_, differs)| *differs) {
        waiting.push(format!("{what} was changed: that takes effect at the next start"));
    }
    Ok((config, waiting))
}

/// The secrets as they are on disk now; those that are not there are made at the next start.
struct SecretsNow {
    peer: Option<PeerId>,
    key: Option<NetworkKey>,
}

impl SecretsNow {
    fn read(config: &Config, environment: &Environment) -> Result<Self, SecretError> {
        // Without a state directory the daemon would not have started.
        let state_dir = environment.state_dir(config).unwrap_or_default();
        let credentials = environment.credentials_dir();
        let credentials = credentials.as_deref();
        let file = config.network_key_file.as_deref();
        let key = match config.network {
            Network::Open => None,
            Network::Closed => secrets::network_key_there(&state_dir, credentials, file)?,
        };
        let peer = secrets::identity_there(&state_dir, credentials)?;
        Ok(Self { peer, key })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::crypto::Random;

    #[test]
    fn what_cannot_change_now_is_said_to_wait_once_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        let state = dir.path().join("state");
        let vars = [("STATE_DIRECTORY", state.as_os_str())];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment { vars: vars.into(), ..Environment::default() };
        let mut random = Random::from_seed([1; 32]);
        let identity = secrets::identity(&state, None, &mut random).expect("made").secret;
        let (config, membership) = (Config::default(), Membership::Open);
        let started = Started { config, peer: identity.peer(), membership };
        let waiting = |text: &str| {
            fs::write(&path, text).expect("written");
            let file = ConfigPath { path: path.clone(), explicit: true };
            read(&file, &environment, &started).map(|(_, waiting)| waiting)
        };
        assert_eq!(waiting("name = \"x\"\nlog = \"debug\"\nlisten = []"), Ok(Vec::new()));
        let key = dir.path().join("key");
        secrets::load_or_create(&key, || format!("{}=\n", "A".repeat(43)).into()).expect("made");
        let told = waiting(&format!(
            "socket = \"/s\"\nnetwork = \"closed\"\nnetwork_key_file = {key:?}\n"
        ))
        .expect("right");
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, what) in told.iter().zip(["socket", "network", "network_key_file"]) {
            assert_eq!(*told, format!("{what} was changed: that takes effect at the next start"));
        }
        let wrong = waiting("\nlog = \"loud\"").expect_err("wrong").message;
        assert!(wrong.contains("config.toml:2: log: write \"error\""), "{wrong}");
        fs::remove_file(&key).expect("removed");
        let text = format!("network = \"closed\"\nnetwork_key_file = {key:?}\n");
        let wrong = waiting(&text).expect_err("no key").message;
        assert!(wrong.contains("config.toml:2: network_key_file:"), "{wrong}");
        fs::remove_file(state.join("identity.pem")).expect("removed");
        assert_eq!(waiting(""), Ok(Vec::new()), "one is made at the next start");
        secrets::identity(&state, None, &mut random).expect("made");
        let told = waiting("").expect("right");
        assert_eq!(told, ["the identity was changed: that takes effect at the next start"]);
    }
}
