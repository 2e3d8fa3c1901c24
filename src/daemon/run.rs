//! The daemon itself: everything a node needs of this machine, until a signal ends it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tracing::{info, warn};

use super::exit::Stop;
use super::interface::{Bound, InterfacePort};
use super::lock::StateLock;
use super::manager::Manager;
use super::reload::{Reload, Started};
use super::signals::Signals;
use super::{activation, init, logging, print, secrets};
use crate::config::{Config, ConfigPath, Environment, Network};
use crate::control::plain;
use crate::control::socket::ControlSocket;
use crate::link::Membership;
use crate::model::Address;
use crate::node::{Adjustable, Node, NodeConfig, NodeError, Stopped};
use crate::store::OpenError;

/// The control socket's mode: a user's own.
const SOCKET_MODE: u32 = 0o600;
/// The control socket's mode for the system service: the group may use it too.
const SOCKET_MODE_SYSTEM: u32 = 0o660;

/// Orders that wait for the loop.
const ORDERS_MAX: usize = 4;

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Print messages that arrive.
    pub print: bool,
    /// End when standard input does.
    pub exit_with_stdin: bool,
}

/// Runs a node in the foreground until SIGTERM or SIGINT. Its configuration is of this file.
///
/// # Errors
/// When it cannot start, or its database fails.
pub fn run(
    config: Config,
    file: ConfigPath,
    environment: &Environment,
    manner: Manner,
) -> Result<(), Stop> {
    if manner.print && plain::stdout_was_closed() {
        return Err(Stop::failure(
            "standard output is closed: nobody would see the messages that --print acknowledges; \
             open it, or leave out --print",
        ));
    }
    let handed_over = activation::handed_over(environment)?;
    let logging = logging::start(config.log, environment)?;
    if !handed_over.others.is_empty() {
        warn!("not used of what was handed over: {}", handed_over.others.join(", "));
    }
    allow_many_files();
    let state_dir = environment.state_dir(&config)?;
    let _lock = StateLock::acquire(&state_dir)?;
    let (node, made) = node_config(&config, &file.path, environment, &state_dir)?;
    let socket = match handed_over.control_socket {
        Some(listener) => {
            if let Some(named) = &config.socket
                && !is_at(&listener, named)
            {
                let named = named.display();
                warn!("clients look for us at {named}, as configured, but another socket is used");
            }
            Socket::HandedOver(listener)
        }
        None => Socket::Ours(own_socket(&config, environment)?),
    };
    let manager = Manager::from(environment, logging.verbosity.clone()).map_err(Stop::failure)?;
    let (peer, membership) = (node.identity.peer(), node.membership.clone());
    let wanted = config.interface.clone();
    let started = Started { config, peer, membership };
    let reload =
        Reload::new(file, environment.clone(), started, logging.verbosity.clone(), manager.line());
    // One thread for links, clients and the loop: handing over to another costs more than the work
    // that is handed over. The disk has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Stop::failure)?;
    let served = serve(node, made, socket, wanted, manner, manager, reload);
    let stopped = runtime.block_on(served);
    // Whoever still reads or writes is of no consequence any more.
    runtime.shutdown_background();
    match stopped? {
        Stopped::Asked => Ok(()),
        Stopped::Failed(reason) => Err(Stop::failure(reason)),
    }
}

/// Where the control socket is from.
enum Socket {
    /// Whoever started us made it.
    HandedOver(UnixListener),
    /// We make it.
    Ours(SocketPlace),
}

/// Where we make it, and for whom.
struct SocketPlace {
    path: PathBuf,
    mode: u32,
}

fn is_at(listener: &UnixListener, path: &Path) -> bool {
    listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
}

fn own_socket(config: &Config, environment: &Environment) -> Result<SocketPlace, Stop> {
    let path = environment.daemon_socket(config);
    environment.prepare_private_dir(&path)?;
    let mode = if environment.is_system_service() { SOCKET_MODE_SYSTEM } else { SOCKET_MODE };
    Ok(SocketPlace { path, mode })
}

/// Every link and client takes a file descriptor, and the usual limit of 1,024 is there only for
/// programs that use select(2): systemd.exec(5), LimitNOFILE.
fn allow_many_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays low");
    }
}

async fn serve(
    mut config: NodeConfig,
    made: Option<PathBuf>,
    socket: Socket,
    interface: Option<Address>,
    manner: Manner,
    mut manager: Manager,
    mut reload: Reload,
) -> Result<Stopped, Stop> {
    // Before anything is promised: a signal must not find us without a handler.
    let signals = Signals::new()?;
    let peer = config.identity.peer();
    let control = match socket {
        Socket::HandedOver(listener) => ControlSocket::adopt(listener),
        Socket::Ours(place) => ControlSocket::bind(&place.path, place.mode),
    };
    let control = control.map_err(Stop::failure)?;
    let path = control.path().display().to_string();
    let bound = match &interface {
        Some(address) => Some(Bound::at(address, &config.state_dir).await?),
        None => None,
    };
    config.adjustable.interface = bound.as_ref().map(Bound::listening).unwrap_or_default();
    let (identity, state_dir) = (Arc::clone(&config.identity), config.state_dir.clone());
    let node = Node::start(config).await.map_err(|error| unstarted(error, made))?;
    let listen: Vec<String> = node.listening().iter().map(ToString::to_string).collect();
    info!(%peer, listen = listen.join(" "), socket = path, "ready");
    let clients = tokio::spawn(control.serve(node.server()));
    manager.accepting = Some(clients.abort_handle());
    let mut interface = InterfacePort::new(identity, state_dir, node.server());
    if let Some(bound) = bound {
        interface.open(bound)?;
    }
    // Ours until the node has ended: its last words go by it, too.
    let interface = Arc::new(Mutex::new(interface));
    reload.interface = Some(Arc::clone(&interface));
    if manner.print {
        tokio::spawn(print::print(node.server()));
    }
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(signals.obey(orders, reload, manner.exit_with_stdin));
    let stopped = node.run(ordered, &mut manager).await;
    clients.abort();
    // Its end removes the socket's file.
    let _ = clients.await;
    drop(interface);
    manager.finish();
    Ok(stopped)
}

/// Why the node did not start. `made` is the identity key, if it was not there.
fn unstarted(error: NodeError, made: Option<PathBuf>) -> Stop {
    let NodeError::Store(other @ OpenError::OtherIdentity { .. }) = error else {
        return Stop::failure(error);
    };
    let (OpenError::OtherIdentity { path, owner, .. }, Some(made)) = (&other, made) else {
        return Stop::config(other);
    };
    // Nobody has seen this key, and it stands where the right one is to be put. Left there, it
    // would only be refused with other words at the next start.
    match fs::remove_file(&made) {
        Ok(()) => info!(path = %made.display(), "removed the new identity again"),
        Err(error) => warn!(path = %made.display(), %error, "cannot remove the new identity"),
    }
    Stop::config(format_args!(
        "{} is not there, and the database belongs to {owner}; restore the key from a backup, or \
         move {} away to start empty with a new identity (peers will not know this node any more)",
        made.display(),
        path.display()
    ))
}

/// What the node is made with, and the identity key's file if that was made just now.
fn node_config(
    config: &Config,
    config_file: &Path,
    environment: &Environment,
    state_dir: &Path,
) -> Result<(NodeConfig, Option<PathBuf>), Stop> {
    let mut random = secrets::random()?;
    let credentials = environment.credentials_dir();
    let credentials = credentials.as_deref();
    let identity = secrets::identity(state_dir, credentials, &mut random)?;
    if identity.made {
        let peer = identity.secret.peer();
        info!(%peer, path = %identity.path.display(), "made a new identity");
    }
    let membership = match config.network {
        Network::Open => Membership::Open,
        Network::Closed => {
            let file = config.network_key_file.as_deref();
            let key = secrets::network_key(state_dir, credentials, file, &mut random)
                .map_err(|error| error.with_network_key_file(config_file, file))?;
            if key.made {
                info!(path = %key.path.display(), "made a new network key; other members need it");
            }
            Membership::Closed(key.secret)
        }
    };
    let node = NodeConfig {
        identity: Arc::new(identity.secret),
        membership,
        adjustable: adjustable(config),
        state_dir: state_dir.to_owned(),
        config_file: config_file.to_owned(),
    };
    Ok((node, identity.made.then_some(identity.path)))
}

/// What of the configuration may change while the node runs.
pub(super) fn adjustable(config: &Config) -> Adjustable {
    Adjustable {
        name: config.name.clone().or_else(init::machine_name),
        listen: config.listen.clone(),
        advertise: config.advertise.clone(),
        interface: Vec::new(),
        links_auto: config.links_auto,
        limits: config.limits.clone(),
        warnings: Vec::new(),
    }
}
