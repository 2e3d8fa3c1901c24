//! The daemon itself: everything a node needs of this machine, until a signal ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::exit::Stop;
use super::interface::{Bound, InterfacePort};
use super::lock::StateLock;
use super::{init, logging, print, secrets};
use crate::config::{Config, Environment, Network};
use crate::control::plain;
use crate::control::socket::ControlSocket;
use crate::link::Membership;
use crate::model::Address;
use crate::node::{Node, NodeConfig, NodeError, Stopped};
use crate::store::OpenError;

/// The control socket's mode: a user's own.
const SOCKET_MODE: u32 = 0o600;
/// The control socket's mode where systemd made the runtime directory: the group may use it too.
const SOCKET_MODE_SYSTEM: u32 = 0o660;

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
    file: &Path,
    environment: &Environment,
    manner: Manner,
) -> Result<(), Stop> {
    if manner.print && plain::stdout_was_closed() {
        return Err(Stop::failure(
            "standard output is closed: nobody would see the messages that --print acknowledges; \
             open it, or leave out --print",
        ));
    }
    let _logging = logging::start(config.log, environment)?;
    allow_many_files();
    let state_dir = environment.state_dir(&config)?;
    let _lock = StateLock::acquire(&state_dir)?;
    let (node, made) = node_config(&config, file, environment, &state_dir)?;
    let socket = environment.daemon_socket(&config);
    environment.prepare_private_dir(&socket)?;
    let system = environment.var("RUNTIME_DIRECTORY").is_some();
    let mode = if system { SOCKET_MODE_SYSTEM } else { SOCKET_MODE };
    // One thread for links, clients and the loop: handing over to another costs more than the work
    // that is handed over. The disk has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Stop::failure)?;
    let interface = config.interface.as_ref();
    let stopped = runtime.block_on(serve(node, made, &socket, mode, interface, manner));
    // Whoever still reads or writes is of no consequence any more.
    runtime.shutdown_background();
    match stopped? {
        Stopped::Asked => Ok(()),
        Stopped::Failed(reason) => Err(Stop::failure(reason)),
    }
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
    socket: &Path,
    mode: u32,
    interface: Option<&Address>,
    manner: Manner,
) -> Result<Stopped, Stop> {
    // Before anything is promised: a signal must not find us without a handler.
    let mut terminate = signal(SignalKind::terminate()).map_err(Stop::failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Stop::failure)?;
    // Handled at all, it leaves a write with an error instead of ending the process: setrlimit(2).
    let file_too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _file_too_large = signal(file_too_large).map_err(Stop::failure)?;
    let peer = config.identity.peer();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let control = ControlSocket::bind(socket, mode).map_err(Stop::failure)?;
    let bound = match interface {
        Some(address) => Some(Bound::at(address, &config.state_dir).await?),
        None => None,
    };
    config.interface = bound.as_ref().map(Bound::listening).unwrap_or_default();
    let (identity, state_dir) = (Arc::clone(&config.identity), config.state_dir.clone());
    let node = Node::start(config).await.map_err(|error| unstarted(error, made))?;
    let listen: Vec<String> = node.listening().iter().map(ToString::to_string).collect();
    info!(%peer, listen = listen.join(" "), socket = %socket.display(), "ready");
    let clients = tokio::spawn(control.serve(node.server()));
    let mut interface = InterfacePort::new(identity, state_dir, node.server());
    if let Some(bound) = bound {
        interface.open(bound)?;
    }
    if manner.print {
        tokio::spawn(print::print(node.server()));
    }
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            () = end_of_stdin(), if manner.exit_with_stdin => info!("end of input: stopping"),
        }
    };
    let stopped = node.run(asked).await;
    clients.abort();
    // Its end removes the socket's file.
    let _ = clients.await;
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

/// Waits until nobody holds the other end of standard input any more.
async fn end_of_stdin() {
    let mut ignored = tokio::io::sink();
    // An error is an end as well.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut ignored).await;
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
            let key = secrets::network_key(state_dir, credentials, file, &mut random).map_err(
                |error| match file {
                    Some(file) if file == error.path() => {
                        Config::problem_with(config_file, "network_key_file", error).into()
                    }
                    _ => Stop::from(error),
                },
            )?;
            if key.made {
                info!(path = %key.path.display(), "made a new network key; other members need it");
            }
            Membership::Closed(key.secret)
        }
    };
    let node = NodeConfig {
        identity: Arc::new(identity.secret),
        membership,
        name: config.name.clone().or_else(init::machine_name),
        listen: config.listen.clone(),
        advertise: config.advertise.clone(),
        interface: Vec::new(),
        links_auto: config.links_auto,
        limits: config.limits.clone(),
        state_dir: state_dir.to_owned(),
        warnings: Vec::new(),
    };
    Ok((node, identity.made.then_some(identity.path)))
}
