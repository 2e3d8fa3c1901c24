//! Where links begin: listening, dialling, and what all links of a node share.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::accept::{Gate, Noise, listen};
use super::dial::{Dial, dial};
use super::event::{DialId, Event, LinkId};
use super::handshake::Membership;
use super::tls::Tls;
use crate::crypto::Identity;
use crate::model::limits::HANDSHAKE_TIMEOUT;
use crate::model::{Address, PeerId};

/// Handshakes of those who dial us in progress at once, in all.
const HANDSHAKES_MAX: usize = 256;
/// The same, of one source address.
const HANDSHAKES_PER_SOURCE_MAX: usize = 16;
/// Bytes that may wait for one link before it counts as congested: a second wall behind the bound
/// that whoever sends keeps (`link_queue_bytes_max`), several times as far out.
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a write to a neighbour may make no progress at all.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: u32 = 1_024;

/// How an endpoint is to be. [`EndpointConfig::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The network we belong to.
    pub network: Membership,
    /// A number drawn at the daemon's start.
    pub instance: u64,
    /// Where to listen; nowhere is allowed.
    pub listen: Vec<Address>,
    /// Our record, as bytes, until [`Endpoint::set_record`].
    pub record: Bytes,
    /// From connecting to the end of hello.
    pub handshake_timeout: Duration,
    /// Handshakes of those who dial us in progress at once, in all.
    pub handshakes_max: usize,
    /// The same, of one source address.
    pub handshakes_per_source_max: usize,
    /// Bytes that may wait for one link before it ends as congested.
    pub queue_bytes_max: usize,
    /// How long a write may make no progress at all before its link ends.
    pub stall_timeout: Duration,
}

impl EndpointConfig {
    /// A configuration with default bounds that listens nowhere.
    pub fn new(identity: Arc<Identity>, network: Membership, instance: u64) -> Self {
        Self {
            identity,
            network,
            instance,
            listen: Vec::new(),
            record: Bytes::new(),
            handshake_timeout: HANDSHAKE_TIMEOUT.into(),
            handshakes_max: HANDSHAKES_MAX,
            handshakes_per_source_max: HANDSHAKES_PER_SOURCE_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// What a dial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To have a link.
    Link,
    /// To learn who answers: the other end never sees a link.
    Probe,
}

/// Why an endpoint cannot start.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The name to listen on has no address.
    #[error("cannot listen on {address}: {error}; give an IP address of this machine")]
    Resolve {
        /// What was to be listened on.
        address: Address,
        /// What the resolver said.
        error: io::Error,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {error}; {}", remedy(error))]
    Bind {
        /// What was to be listened on.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The identity is of no use for TLS.
    #[error("the identity key cannot be used for TLS: {0}; it must be an Ed25519 key")]
    Identity(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "choose another port, or stop what listens there",
        io::ErrorKind::AddrNotAvailable => "give an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or grant the privilege",
        _ => "choose another address",
    }
}

/// A node's links. Dropping it stops listening and dialling and closes all links.
pub struct Endpoint {
    context: Arc<Context>,
    listening: Vec<SocketAddr>,
    runtime: Handle,
    /// Everything stops when this is dropped.
    _running: watch::Sender<()>,
}

/// What all links share.
pub(super) struct Context {
    pub(super) peer: PeerId,
    pub(super) network: Membership,
    pub(super) instance: u64,
    pub(super) tls: Tls,
    pub(super) handshake_timeout: Duration,
    pub(super) queue_bytes_max: usize,
    pub(super) stall_timeout: Duration,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) gate: Arc<Gate>,
    /// The pace at which those who did not become a link are told of.
    pub(super) noise: Noise,
    /// The pace at which links that begin and end are logged.
    pub(super) changes: Noise,
    /// What we send in hello: replaced when the node makes a new one.
    record: Mutex<Bytes>,
    /// Dials in progress, to be cancelled.
    dials: Mutex<HashMap<DialId, AbortHandle>>,
    links: AtomicU64,
    running: watch::Receiver<()>,
}

impl Endpoint {
    /// Listens, and sends what happens to `events`. That channel's size bounds what is read but
    /// not handled: up to 256 KiB of frames an event. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the identity is of no use.
    pub async fn start(
        config: EndpointConfig,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, ListenError> {
        let tls = Tls::new(&config.identity).map_err(|e| ListenError::Identity(e.to_string()))?;
        let mut listeners = Vec::new();
        for address in &config.listen {
            listeners.extend(bind(address, &config.listen).await?);
        }
        let (running_sender, running) = watch::channel(());
        let context = Arc::new(Context {
            peer: config.identity.peer(),
            network: config.network,
            instance: config.instance,
            tls,
            handshake_timeout: config.handshake_timeout,
            queue_bytes_max: config.queue_bytes_max,
            stall_timeout: config.stall_timeout,
            events,
            gate: Gate::new(config.handshakes_max, config.handshakes_per_source_max),
            noise: Noise::new(),
            changes: Noise::new(),
            record: Mutex::new(config.record),
            dials: Mutex::default(),
            links: AtomicU64::new(1),
            running,
        });
        let listening = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        for listener in listeners {
            tokio::spawn(listen(Arc::clone(&context), listener));
        }
        Ok(Self { context, listening, runtime: Handle::current(), _running: running_sender })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Our record for the hellos to come.
    pub fn set_record(&self, record: Bytes) {
        *self.context.record_slot() = record;
    }

    /// Dials an address; a name is resolved anew each time. What comes of it is one event with this
    /// dial's ID: `Up`, `Probed` or `DialFailed`.
    pub fn dial(&self, id: DialId, address: Address, expected: Option<PeerId>, purpose: Purpose) {
        let order = Dial { id, address, expected, purpose };
        let mut dials = self.context.dials();
        let task = self.runtime.spawn(dial(Arc::clone(&self.context), order));
        dials.insert(id, task.abort_handle());
    }

    /// Gives a dial up: no event of it follows, unless its outcome was already on its way.
    pub fn cancel(&self, id: DialId) {
        if let Some(task) = self.context.dials().remove(&id) {
            task.abort();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for (_, task) in self.context.dials().drain() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?}, {:?})", self.context.peer, self.listening)
    }
}

impl Context {
    /// Waits until the endpoint is dropped.
    pub(super) async fn stopped(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }

    pub(super) fn next_link(&self) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn record(&self) -> Bytes {
        self.record_slot().clone()
    }

    /// A dial is over: it can no longer be cancelled.
    pub(super) fn forget_dial(&self, id: DialId) {
        self.dials().remove(&id);
    }

    fn record_slot(&self) -> MutexGuard<'_, Bytes> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dials(&self) -> MutexGuard<'_, HashMap<DialId, AbortHandle>> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens on all that an address stands for.
async fn bind(address: &Address, all: &[Address]) -> Result<Vec<TcpListener>, ListenError> {
    let resolved: Vec<SocketAddr> = match address.ip() {
        Some(ip) => vec![SocketAddr::new(ip, address.port())],
        None => lookup_host((address.host(), address.port()))
            .await
            .map_err(|error| ListenError::Resolve { address: address.clone(), error })?
            .collect(),
    };
    let mut listeners = Vec::new();
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for socket_address in resolved {
        match bind_one(socket_address, shares_port_with_ipv4(address, all)) {
            Ok(listener) => listeners.push(listener),
            Err(error) => problem = error,
        }
    }
    // Of a name's addresses some may not exist here, such as `::1` without IPv6.
    if listeners.is_empty() {
        return Err(ListenError::Bind { address: address.clone(), error: problem });
    }
    Ok(listeners)
}

/// Whether the configuration also listens on all of IPv4 at the same port: then `[::]` must leave
/// IPv4 alone, or the two would be in each other's way.
fn shares_port_with_ipv4(address: &Address, all: &[Address]) -> bool {
    all.iter()
        .any(|other| other.port() == address.port() && matches!(other.ip(), Some(IpAddr::V4(_))))
}

fn bind_one(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Otherwise a restarted daemon could not listen until old connections have timed out.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && ipv6_only {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
