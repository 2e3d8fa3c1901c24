//! Where links begin: listening, dialling, and what all links of a node share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::accept::{Gate, Noise};
use super::dial::{Dial, dial};
use super::event::{DialId, Event, LinkId};
use super::handshake::Membership;
use super::listeners::{ListenError, Listeners};
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

/// A node's links. Dropping it stops listening and dialling and closes all links.
pub struct Endpoint {
    context: Arc<Context>,
    listeners: Arc<Listeners>,
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
        let listeners = Arc::new(Listeners::default());
        listeners.change(&context, &config.listen).await?;
        Ok(Self { context, listeners, runtime: Handle::current(), _running: running_sender })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.listeners.local()
    }

    /// Listens on these addresses from now on, and on no others; links live on. What comes of it is
    /// an event, `Listening`.
    pub fn listen_at(&self, addresses: Vec<Address>) {
        let (context, listeners) = (Arc::clone(&self.context), Arc::clone(&self.listeners));
        self.runtime.spawn(async move {
            let outcome = listeners.change(&context, &addresses).await;
            // Nobody is left to be told once the node has ended.
            let _ = context.events.send(Event::Listening(outcome)).await;
        });
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
        write!(f, "Endpoint({:?}, {:?})", self.context.peer, self.listening())
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
