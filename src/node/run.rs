//! The loop around the core: one `select!` collects inputs, one `match` executes effects.
//!
//! It never waits for a neighbour, a client or the disk: all of them have queues of their own, and
//! what they have to say are inputs like any other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::adjust::{InUse, listening_of};
use super::caretaker::{Caretaker, Order, Unattended};
use super::core::{ClientId, Core, DialFailure, Effect, Input, LinkUp, Settings};
use crate::control::Outgoing;
use crate::control::protocol::{LogLevel, Reply};
use crate::control::server::{ClientEvent, ClientHandle, ClientNews, Server};
use crate::crypto::Identity;
use crate::link::{
    DialError, DialId, Endpoint, EndpointConfig, Event as LinkEvent, LinkHandle, LinkId,
    ListenError, Membership, Purpose,
};
use crate::model::{Address, GivenUp, Limits, Monotonic, Name, NetworkId, Now, Timestamp};
use crate::store::op::Completion;
use crate::store::{OpenError, Request, Store};
use crate::wire::CloseReason;

/// Events of links that wait for the loop. Each link has one more in its hand; were there many, one
/// that says little would wait behind all that others say much.
const LINK_EVENTS_MAX: usize = 128;
/// Events of clients that wait for the loop.
const CLIENT_EVENTS_MAX: usize = 256;
/// Inputs taken in before their effects are executed.
const BATCH_MAX: usize = 512;
/// For so long at most: what is due to clients and links does not wait for whoever says much.
const BATCH_SPAN_MAX: Duration = Duration::from_millis(5);
/// Between two helpings of entropy from the operating system.
const ENTROPY_INTERVAL: Duration = Duration::from_secs(3600);
/// At most this often, when the loop wakes anyway, the control socket is looked after.
const REMINDER_INTERVAL: Duration = Duration::from_secs(15);
/// The longest sleep: calendar time may jump, which no timer notices.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// Messages given up together whose IDs are logged.
const LOGGED_IDS_MAX: usize = 16;
/// What links get to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a node is made with.
#[derive(Debug)]
pub struct NodeConfig {
    /// The identity key.
    pub identity: Arc<Identity>,
    /// Who may be a neighbour.
    pub membership: Membership,
    /// What may change while it runs.
    pub adjustable: Adjustable,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Where it is configured, for people.
    pub config_file: PathBuf,
}

/// Settings that may change while a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustable {
    /// Its own name.
    pub name: Option<Name>,
    /// Where it accepts links.
    pub listen: Vec<Address>,
    /// What it tells others instead of where it listens.
    pub advertise: Vec<Address>,
    /// Where control clients are served over TCP, for `status`: whoever made this sees to it.
    pub interface: Vec<Address>,
    /// Links to peers that the operator did not connect.
    pub links_auto: usize,
    /// Its bounds.
    pub limits: Limits,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its database cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}

/// Why a node stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Asked,
    /// Its database failed.
    Failed(String),
}

/// A node that runs on this machine.
#[derive(Debug)]
pub struct Node {
    core: Core,
    clock: Clock,
    pub(super) endpoint: Endpoint,
    store: Store,
    pub(super) server: Server,
    links: BTreeMap<LinkId, LinkHandle>,
    clients: BTreeMap<ClientId, ClientHandle>,
    link_events: mpsc::Receiver<LinkEvent>,
    client_events: mpsc::Receiver<ClientEvent>,
    completions: mpsc::UnboundedReceiver<Vec<Completion>>,
    next_entropy: Instant,
    next_reminder: Instant,
    pub(super) settings: InUse,
}

impl Node {
    /// Opens the database, listens and begins to dial; nothing is answered before [`Node::run`].
    ///
    /// # Errors
    /// When it cannot listen, or its database cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let clock = Clock { start: Instant::now() };
        let (completed, completions) = mpsc::unbounded_channel();
        let path = config.state_dir.join("distmsg.db");
        let (store, snapshot) = Store::open(&path, config.identity.peer(), move |completions| {
            // Nobody is left to be told once the loop has ended.
            let _ = completed.send(completions);
        })?;
        let instance = u64::from_be_bytes(random()?);
        let network = match &config.membership {
            Membership::Open => NetworkId::OPEN,
            Membership::Closed(key) => key.network(),
        };
        let (link_sender, link_events) = mpsc::channel(LINK_EVENTS_MAX);
        let endpoint_config = EndpointConfig {
            listen: config.adjustable.listen.clone(),
            ..EndpointConfig::new(Arc::clone(&config.identity), config.membership, instance)
        };
        let endpoint = Endpoint::start(endpoint_config, link_sender).await?;
        let (client_sender, client_events) = mpsc::channel(CLIENT_EVENTS_MAX);
        let server = Server::new(&config.adjustable.limits, client_sender);
        let mut in_use = InUse::new(config.config_file);
        let changes = in_use.adopt(config.adjustable, &listening_of(&endpoint));
        let settings = Settings {
            identity: config.identity,
            network,
            name: changes.name,
            advertise: changes.advertise,
            links_auto: changes.links_auto,
            limits: changes.limits,
            about: super::core::About {
                pid: std::process::id(),
                state_dir: config.state_dir.display().to_string(),
                listen: changes.listen,
                interface: changes.interface,
                warnings: changes.warnings,
            },
        };
        let core = Core::new(settings, snapshot, clock.now(), random()?);
        let mut node = Self {
            core,
            clock,
            endpoint,
            store,
            server,
            links: BTreeMap::new(),
            clients: BTreeMap::new(),
            link_events,
            client_events,
            completions,
            next_entropy: Instant::now() + ENTROPY_INTERVAL,
            next_reminder: Instant::now() + REMINDER_INTERVAL,
            settings: in_use,
        };
        // Whoever dials from now on is to get our record.
        node.execute(&mut Unattended);
        Ok(node)
    }

    /// What serves control connections of this node.
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// Where it accepts links.
    pub fn listening(&self) -> Vec<Address> {
        listening_of(&self.endpoint)
    }

    /// Runs until it is ordered to stop, or its database fails. Whoever gives no orders any more
    /// has ended, and so does the node.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        caretaker: &mut impl Caretaker,
    ) -> Stopped {
        let stopped = loop {
            if let Some(reason) = self.execute(caretaker) {
                break Stopped::Failed(reason);
            }
            let sleep = self.until_due(caretaker.on_round(Instant::now(), self.core.vitals()));
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Stop) | None => {
                        self.core.hurry();
                        break self.execute(caretaker).map_or(Stopped::Asked, Stopped::Failed);
                    }
                    Some(Order::Adjust(to, done)) => self.begin_to_adjust(*to, done),
                    Some(Order::Reloaded(refusal)) => {
                        caretaker.on_reloaded(refusal.as_deref());
                        self.on_reloaded(refusal);
                    }
                },
                Some(completions) = self.completions.recv() => self.on_completions(completions),
                Some(event) = self.link_events.recv() => self.on_link(event),
                Some(event) = self.client_events.recv() => self.on_client(event),
                () = tokio::time::sleep(sleep) => self.on_time(),
            }
            self.take_more();
        };
        caretaker.on_stopping(&stopped);
        self.say_goodbye().await;
        stopped
    }

    /// How long the loop may sleep, if its caretaker wants it awake by then.
    fn until_due(&self, awake: Option<Instant>) -> Duration {
        let (now, core_now) = (Instant::now(), self.clock.now());
        let until_due = Duration::from(self.core.deadline().since(core_now.mono));
        let awake = awake.map_or(self.next_entropy, |awake| awake.min(self.next_entropy));
        until_due.min(awake.saturating_duration_since(now)).min(SLEEP_MAX)
    }

    /// Takes in what else has happened, so that effects are executed in batches.
    fn take_more(&mut self) {
        let began = Instant::now();
        for _ in 0..BATCH_MAX {
            let mut any = false;
            if let Ok(completions) = self.completions.try_recv() {
                self.on_completions(completions);
                any = true;
            }
            if let Ok(event) = self.link_events.try_recv() {
                self.on_link(event);
                any = true;
            }
            if let Ok(event) = self.client_events.try_recv() {
                self.on_client(event);
                any = true;
            }
            if !any || began.elapsed() >= BATCH_SPAN_MAX {
                return;
            }
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
    }

    fn on_completions(&mut self, completions: Vec<Completion>) {
        for completion in completions {
            self.input(Input::Store(completion));
        }
    }

    fn on_time(&mut self) {
        if self.next_reminder <= Instant::now() {
            self.next_reminder = Instant::now() + REMINDER_INTERVAL;
            self.server.remind();
        }
        if self.next_entropy <= Instant::now() {
            self.next_entropy = Instant::now() + ENTROPY_INTERVAL;
            match random() {
                Ok(entropy) => self.input(Input::Entropy(entropy)),
                Err(error) => warn!(%error, "going on with what randomness there is"),
            }
        }
    }

    fn on_client(&mut self, event: ClientEvent) {
        let client = ClientId(event.client);
        match event.what {
            ClientNews::Connected(handle) => {
                self.clients.insert(client, handle);
            }
            ClientNews::Calls(calls) => self.input(Input::Calls { client, calls }),
            ClientNews::Gone => {
                self.clients.remove(&client);
                self.input(Input::ClientGone(client));
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, peer, dial, address, instance, record, handle, .. } => {
                self.links.insert(link, handle);
                let address = Address::from(address);
                self.input(Input::LinkUp(LinkUp { link, peer, dial, address, instance, record }));
            }
            LinkEvent::Frames { link, frames } => self.input(Input::Frames { link, frames }),
            LinkEvent::Written { link, bytes } => self.input(Input::Written { link, bytes }),
            LinkEvent::Down { link, ended } => {
                self.links.remove(&link);
                let reason = ended.to_string();
                self.input(Input::LinkDown { link, reason });
            }
            LinkEvent::Probed { dial, peer, record, .. } => {
                self.input(Input::Probed { dial, peer, record });
            }
            LinkEvent::DialFailed { dial, error } => {
                debug!(dial = dial.0, %error, "dial failed");
                self.input(Input::DialFailed { dial, failure: failure_of(error) });
            }
            LinkEvent::Listening(outcome) => self.on_listening(outcome),
            // The link room logs it.
            LinkEvent::Refused { .. } => {}
        }
    }

    /// Executes what the core wants done; the reason, if the daemon has to stop.
    fn execute(&mut self, caretaker: &mut impl Caretaker) -> Option<String> {
        let effects = self.core.finish(self.clock.now());
        let mut requests = Vec::new();
        let mut stop = None;
        for effect in effects {
            match effect {
                Effect::Send { link, frames } => {
                    if let Some(handle) = self.links.get(&link) {
                        handle.send(frames);
                    }
                }
                Effect::Close { link, reason, text } => {
                    if let Some(handle) = self.links.get(&link) {
                        handle.close(reason, text);
                    }
                }
                Effect::Dial { dial, address, expected, probe } => {
                    let purpose = if probe { Purpose::Probe } else { Purpose::Link };
                    self.endpoint.dial(DialId(dial.0), address, expected, purpose);
                }
                Effect::Transact(transaction) => requests.push(Request::Transact(transaction)),
                Effect::Ask(query) => requests.push(Request::Ask(query)),
                Effect::Tell { client, what } => {
                    if let Some(handle) = self.clients.get(&client) {
                        handle.push(what);
                    }
                }
                Effect::Log { caller, level } => {
                    let reply = Reply::Log(LogLevel { level: caretaker.log(level) });
                    if let Some(handle) = self.clients.get(&caller.client) {
                        let (id, result) = (caller.request, Ok(reply));
                        handle.push(vec![Outgoing::Reply { id, result }]);
                    }
                }
                Effect::Record(record) => self.endpoint.set_record(record),
                Effect::GivenUp(messages) => log_given_up(&messages),
                Effect::Stop { reason } => stop = Some(reason),
            }
        }
        if !requests.is_empty() {
            self.store.submit(requests);
        }
        if let Some(reason) = &stop {
            error!(reason, "the database failed");
        }
        stop
    }

    /// Tells neighbours, and finishes what the store was asked.
    async fn say_goodbye(mut self) {
        let links = std::mem::take(&mut self.links);
        for handle in links.values() {
            handle.close(CloseReason::Stopping, "");
        }
        let mut left = links.len();
        let farewell = async {
            while left > 0
                && let Some(event) = self.link_events.recv().await
            {
                left -= usize::from(matches!(event, LinkEvent::Down { .. }));
            }
        };
        let _ = tokio::time::timeout(GOODBYE, farewell).await;
        let store = self.store;
        // Closing waits for the disk.
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Err(error) = closed {
            error!(%error, "the database was not closed");
        }
    }
}

/// One line for all of them: a queue may expire as a whole.
fn log_given_up(messages: &[GivenUp]) {
    let Some(GivenUp { recipient, why, .. }) = messages.first() else { return };
    let ids: Vec<String> =
        messages.iter().take(LOGGED_IDS_MAX).map(|message| message.id.to_string()).collect();
    let bytes: u64 = messages.iter().map(|message| message.bytes).sum();
    warn!(
        peer = %recipient,
        messages = messages.len(),
        bytes,
        ids = ids.join(" "),
        "given up undelivered: {why}"
    );
}

/// The machine's clocks.
#[derive(Debug)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Now { mono: Monotonic::from_micros(mono), wall: Timestamp::from_millis(wall) }
    }
}

/// Random bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N], NodeError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NodeError::Random)?;
    Ok(bytes)
}

fn failure_of(error: DialError) -> DialFailure {
    match error {
        DialError::Identity { found } => DialFailure::Identity { found },
        DialError::Refused { reason, text, .. } => DialFailure::Refused { reason, text },
        error => DialFailure::Unreachable { reason: error.to_string() },
    }
}
