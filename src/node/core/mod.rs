//! PURE. One node, whole: in come frames, requests, store completions, time and random bytes; out
//! go frames, store transactions, replies and the next deadline.
//!
//! The contract: after a batch of [`Core::handle`] calls, call [`Core::finish`] once and execute
//! what it returns, in order; then read [`Core::deadline`] and call [`Core::finish`] again when it
//! has come. What must be durable before it is sent or told is kept back inside until the store
//! said so: the order is persist, then send, then notify.

mod changes;
mod clients;
mod desk;
mod links;
mod listeners;
mod occupancy;
mod peers;
mod record;
mod storage;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::control::protocol::{Event, Failure, Reply, TrafficAction, TrafficEvent};
use crate::control::{Call, Outgoing as ToClient, RequestId};
use crate::courier::{self, Courier};
use crate::crypto::{Identity, Random};
use crate::model::{
    Address, GivenUp, Incarnation, Level, Limits, Monotonic, Name, NetworkId, Now, PeerId, Span,
};
use crate::router::{self, Router};
use crate::store::op::{Completion, Query, Snapshot, Transaction};
use crate::wire::{CloseReason, Frame};

pub use crate::link::{DialId, LinkId};

use clients::Clients;
use desk::Desk;
use links::Links;
use listeners::Listeners;
use peers::Peers;
use record::OwnRecord;
use storage::{Storage, waiting_of};

/// A control client, for as long as it is connected. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Who waits for a reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// The client.
    pub client: ClientId,
    /// Its request.
    pub request: RequestId,
}

/// What a node is made with.
#[derive(Debug)]
pub struct Settings {
    /// The identity key.
    pub identity: Arc<Identity>,
    /// The network it belongs to.
    pub network: NetworkId,
    /// Its own name.
    pub name: Option<Name>,
    /// Addresses to tell others.
    pub advertise: Vec<Address>,
    /// Links to peers that the operator did not connect.
    pub links_auto: usize,
    /// Its bounds.
    pub limits: Limits,
    /// What `status` tells of the process.
    pub about: About,
}

/// What `status` tells of the process around the core.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The process.
    pub pid: u32,
    /// Where state is kept.
    pub state_dir: String,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Addresses of its TCP interface port.
    pub interface: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// How a node does, as far as whoever looks after it cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Links up.
    pub links: usize,
    /// Messages accepted and not delivered yet.
    pub outbox_messages: u64,
    /// Their bytes.
    pub outbox_bytes: u64,
    /// There is no room on the disk or in the quota.
    pub is_full: bool,
}

/// Settings that a running node takes on.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Its own name.
    pub name: Option<Name>,
    /// Addresses to tell others.
    pub advertise: Vec<Address>,
    /// Links to peers that the operator did not connect. Those that are up stay.
    pub links_auto: usize,
    /// Its bounds. What was accepted under others stays, and nothing more is until there is room.
    pub limits: Limits,
    /// Addresses it listens on, as `status` tells them.
    pub listen: Vec<String>,
    /// Addresses of its TCP interface port, as `status` tells them.
    pub interface: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A link that was authenticated.
#[derive(Debug, Clone)]
pub struct LinkUp {
    /// The link.
    pub link: LinkId,
    /// Who is at the other end, by its key.
    pub peer: PeerId,
    /// The dial it came of; none if the other end dialled.
    pub dial: Option<DialId>,
    /// The address at the other end.
    pub address: Address,
    /// The run of the peer's daemon.
    pub instance: u64,
    /// The record in the peer's hello; not verified.
    pub record: Bytes,
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFailure {
    /// Another key answered than was expected.
    Identity {
        /// Whose it is.
        found: PeerId,
    },
    /// The peer refused.
    Refused {
        /// The kind of reason.
        reason: CloseReason,
        /// In its words.
        text: String,
    },
    /// Nothing answered, or nothing that speaks the protocol.
    Unreachable {
        /// What happened, for people.
        reason: String,
    },
    /// The peer is there, and it is we who cannot take the link: its record does not hold by our
    /// clock, or we have too many links.
    Unacceptable {
        /// What is the matter, for people.
        reason: String,
    },
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// A link is up.
    LinkUp(LinkUp),
    /// A link is down.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// Frames came on a link.
    Frames {
        /// Which.
        link: LinkId,
        /// The frames of one read.
        frames: Vec<Frame>,
    },
    /// Bytes left on a link.
    Written {
        /// Which.
        link: LinkId,
        /// How many, frame prefixes not counted.
        bytes: usize,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Which.
        dial: DialId,
        /// Why.
        failure: DialFailure,
    },
    /// A probe reached somebody.
    Probed {
        /// Which.
        dial: DialId,
        /// Who answered, by its key.
        peer: PeerId,
        /// The record in its hello; not verified.
        record: Bytes,
    },
    /// A client made requests.
    Calls {
        /// Who.
        client: ClientId,
        /// Its requests, in order.
        calls: Vec<(RequestId, Call)>,
    },
    /// A client is gone.
    ClientGone(ClientId),
    /// The store answered.
    Store(Completion),
    /// Fresh entropy from the operating system.
    Entropy([u8; 32]),
    /// The configuration was changed.
    Changes(Box<Changes>),
    /// What the operator should know is something else now.
    Warnings(Vec<String>),
}

/// What a node wants done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Hand frames to a link.
    Send {
        /// Which.
        link: LinkId,
        /// Frames without their length prefixes.
        frames: Vec<Bytes>,
    },
    /// End a link.
    Close {
        /// Which.
        link: LinkId,
        /// The kind of reason.
        reason: CloseReason,
        /// For both operators.
        text: String,
    },
    /// Make a link.
    Dial {
        /// Its number.
        dial: DialId,
        /// Where.
        address: Address,
        /// Who must answer.
        expected: Option<PeerId>,
        /// Only ask who answers.
        probe: bool,
    },
    /// Make changes durable.
    Transact(Transaction),
    /// Ask the store.
    Ask(Query),
    /// Tell a client.
    Tell {
        /// Which.
        client: ClientId,
        /// Replies and events, in order.
        what: Vec<ToClient>,
    },
    /// Log so much from now on, if a level is given; and tell who asked how much is logged.
    Log {
        /// Who asked.
        caller: Caller,
        /// The level.
        level: Option<Level>,
    },
    /// Use this record in hellos from now on.
    Record(Bytes),
    /// Log that these messages, for one recipient and for one reason, were given up.
    GivenUp(Vec<GivenUp>),
    /// Stop the daemon: the store failed.
    Stop {
        /// What happened, with the remedy.
        reason: String,
    },
}

/// One node.
#[derive(Debug)]
pub struct Core {
    me: PeerId,
    limits: Limits,
    started: Now,
    router: Router,
    courier: Courier,
    links: Links,
    peers: Peers,
    desk: Desk,
    listeners: Listeners,
    clients: Clients,
    record: OwnRecord,
    storage: Storage,
    random: Random,
    out: Out,
}

/// Effects being collected; frames and events are grouped by whom they are for.
#[derive(Debug, Default)]
struct Out {
    effects: Vec<Effect>,
    frames: BTreeMap<LinkId, Vec<Bytes>>,
    told: BTreeMap<ClientId, Vec<ToClient>>,
}

/// Times that things become due while others are done, in one [`Core::finish`]. What is left is due
/// again at once.
const ROUNDS_MAX: usize = 16;

impl Core {
    /// A node, as it was when it stopped.
    pub fn new(settings: Settings, snapshot: Snapshot, now: Now, seed: [u8; 32]) -> Self {
        let mut random = Random::from_seed(seed);
        let Settings { identity, network, name, advertise, links_auto, limits, about } = settings;
        let incarnation = Incarnation(random.number());
        let stored = courier::Stored {
            prekeys: snapshot.prekeys,
            sessions: snapshot.sessions,
            windows: snapshot.windows,
            partials: snapshot.partials,
            waiting: snapshot.outbox.iter().map(waiting_of).collect(),
            last_cursor: snapshot.last_cursor,
            inbox_bytes: snapshot.inbox_bytes,
        };
        let courier_random = Random::from_seed(random.bytes());
        let courier = Courier::new(Arc::clone(&identity), &limits, stored, now, courier_random);
        let router = Router::new(Arc::clone(&identity), network, limits.clone(), random.bytes());
        let me = identity.peer();
        let mut core = Self {
            me,
            links: Links::new(links_auto, limits.links_max, now),
            desk: Desk::new(
                incarnation,
                snapshot.last_row,
                &snapshot.outbox,
                snapshot.given_up,
                &limits,
            ),
            listeners: Listeners::new(
                &snapshot.listeners,
                snapshot.last_cursor,
                snapshot.inbox_messages,
            ),
            peers: Peers::default(),
            clients: Clients::new(about),
            record: OwnRecord::new(identity, network, name, advertise),
            storage: Storage::default(),
            started: now,
            limits,
            router,
            courier,
            random,
            out: Out::default(),
        };
        core.renew_record(now);
        core.restore_peers(now, snapshot.peers);
        core
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::LinkUp(up) => self.on_link_up(now, up),
            Input::LinkDown { link, reason } => self.on_link_down(now, link, &reason),
            Input::Frames { link, frames } => {
                let Some(from) = self.links.active_peer(link) else { return };
                for frame in frames {
                    self.router.handle(now, router::Input::Frame { from, frame });
                    // A frame may end the link that the others came on.
                    self.route(now);
                    if self.links.active_peer(link).is_none() {
                        break;
                    }
                }
            }
            Input::Written { link, bytes } => {
                if let Some(neighbour) = self.links.active_peer(link) {
                    self.router.handle(now, router::Input::Written { neighbour, bytes });
                }
            }
            Input::DialFailed { dial, failure } => self.on_dial_failed(now, dial, failure),
            Input::Probed { dial, peer, record } => self.on_probed(now, dial, peer, &record),
            Input::Calls { client, calls } => {
                for (request, call) in calls {
                    self.on_call(now, Caller { client, request }, call);
                }
            }
            Input::ClientGone(client) => self.on_client_gone(now, client),
            Input::Store(completion) => self.on_completion(now, completion),
            Input::Entropy(entropy) => {
                self.random.mix(&entropy);
                self.courier.mix(&self.random.bytes());
            }
            Input::Changes(changes) => self.on_changes(now, *changes),
            Input::Warnings(warnings) => self.clients.about.warnings = warnings,
        }
    }

    /// Does what is due, works until nothing is left to do, and says what has to be done outside.
    pub fn finish(&mut self, now: Now) -> Vec<Effect> {
        for _ in 0..ROUNDS_MAX {
            self.tick(now);
            while self.route(now) | self.flush(now) {}
            // What was decided may be due at once.
            if self.deadline() > now.mono {
                break;
            }
        }
        self.pump_listeners(now);
        self.resume_keys(now);
        self.commit(now);
        self.out.take()
    }

    /// Before the daemon stops: the next [`Core::finish`] leaves nothing for later.
    /// Whoever waits for a message is told that it stays queued.
    pub fn hurry(&mut self) {
        self.storage.hurry();
        self.dismiss_waiters();
    }

    /// Does what is due.
    fn tick(&mut self, now: Now) {
        if self.router.deadline() <= now.mono {
            self.router.tick(now);
        }
        if self.courier.deadline() <= now.mono {
            self.courier.tick(now);
        }
        self.tick_links(now);
        self.tick_peers(now);
        self.tick_desk(now);
        self.tick_clients(now);
        self.tick_listeners(now);
        self.tick_storage(now);
    }

    /// Lets the courier seal and batch, and does what it wants done; false if it was nothing.
    fn flush(&mut self, now: Now) -> bool {
        self.courier.flush(now);
        self.carry(now)
    }

    /// When [`Core::finish`] is due.
    pub fn deadline(&self) -> Monotonic {
        [
            self.router.deadline(),
            self.courier.deadline(),
            self.links.deadline(),
            self.peers.deadline(),
            self.desk.deadline(),
            self.clients.deadline(),
            self.listeners.deadline(),
            self.storage.deadline(),
        ]
        .into_iter()
        .min()
        .unwrap_or(Monotonic::NEVER)
    }

    /// Who this is.
    pub const fn peer(&self) -> PeerId {
        self.me
    }

    /// Does what the router wants done; false if it was nothing.
    fn route(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.router.poll_output() {
            any = true;
            self.on_router(now, output);
        }
        any
    }

    fn on_router(&mut self, now: Now, output: router::Output) {
        use router::Output;
        match output {
            Output::Send { neighbour, frame } => {
                if let Some(link) = self.links.link_of(&neighbour) {
                    self.out.frames.entry(link).or_default().push(frame);
                }
            }
            Output::Disconnect { neighbour, reason, text } => {
                self.close_link(now, &neighbour, reason, &text);
            }
            Output::Deliver { from, envelope } => {
                let via_vouched = self.peers.dial(&from).is_some();
                let vouched = self.peers.known(&envelope.header.source).is_some();
                let delivery = courier::Delivery { envelope, via: from, via_vouched, vouched };
                self.courier.handle(now, courier::Input::Envelope(delivery));
            }
            Output::Departed { commitment } => {
                self.courier.handle(now, courier::Input::Departed { commitment });
            }
            Output::Receipt { commitment } => {
                self.courier.handle(now, courier::Input::Receipt { commitment });
            }
            Output::Rejected { commitment, attempt, reason } => {
                let input = courier::Input::Rejected { commitment, attempt, reason };
                self.courier.handle(now, input);
            }
            Output::Notice { commitment, kind } => {
                self.courier.handle(now, courier::Input::Notice { commitment, kind });
            }
            Output::Located { peer } => {
                let input = match self.router.record(&peer) {
                    Some(record) => courier::Input::Located(record.clone()),
                    None => courier::Input::NotFound(peer),
                };
                self.courier.handle(now, input);
            }
            Output::NotFound { peer } => self.courier.handle(now, courier::Input::NotFound(peer)),
            Output::Learned { record, via, new, discovered } => {
                self.on_learned(now, &record, via, new, discovered);
            }
            Output::Dropped { peer } => self.storage.record_dropped(peer),
            Output::OwnRecordAhead { sequence } => {
                self.record.see(sequence);
                self.renew_record(now);
            }
            Output::Discovered(outcome) => self.on_discovered(outcome),
            Output::Traffic(traffic) => self.on_traffic(&traffic),
        }
    }

    /// Does what the courier wants done; false if it was nothing.
    fn carry(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.courier.poll_output() {
            any = true;
            self.on_courier(now, output);
        }
        any
    }

    fn on_courier(&mut self, now: Now, output: courier::Output) {
        use courier::Output;
        match output {
            Output::Locate { peer, anew } => {
                self.router.handle(now, router::Input::Locate { peer, anew });
            }
            Output::Send { envelope, elsewhere } => {
                self.router.handle(now, router::Input::Send { envelope, elsewhere });
            }
            Output::Flood(envelope) => self.router.handle(now, router::Input::Flood { envelope }),
            Output::Settled { commitment } => {
                self.router.handle(now, router::Input::Settled { commitment });
            }
            Output::Reveal { preimage } => {
                self.router.handle(now, router::Input::Reveal { preimage });
            }
            Output::Notify { kind, header } => {
                self.router.handle(now, router::Input::Notify { kind, header });
            }
            Output::Load { recipient, after, bytes_max } => {
                self.load_outbox(recipient, after, bytes_max);
            }
            Output::Store(changes) => self.storage.receive(changes),
            Output::StorePrekeys(changes) => self.storage.later_all(changes),
            Output::Arrived(arrivals) => self.on_arrived(now, arrivals),
            Output::Sent(row) => self.on_sent(row),
            Output::Delivered { recipient, rows, bytes } => {
                // A receipt is proof of acquaintance.
                let standing = router::Input::Standing { peer: recipient, known: true };
                if self.peers.acquaint(recipient) {
                    self.router.handle(now, standing);
                }
                self.on_delivered(now, &rows, bytes);
            }
            Output::GivenUp(messages) => self.on_given_up(now, messages),
            Output::Pong { ping, rtt, attempts } => self.on_pong(ping, rtt, attempts),
            Output::Prekeys => self.renew_record(now),
        }
    }

    fn on_traffic(&mut self, traffic: &router::Traffic) {
        let event = Event::Traffic(TrafficEvent {
            action: match traffic.action {
                router::Action::Originated => TrafficAction::Originated,
                router::Action::Forwarded => TrafficAction::Forwarded,
                router::Action::Flooded => TrafficAction::Flooded,
                router::Action::Delivered => TrafficAction::Delivered,
                router::Action::Rejected => TrafficAction::Rejected,
            },
            source: traffic.source.to_string(),
            destination: traffic.destination.to_string(),
            previous: traffic.previous.map(|peer| peer.to_string()),
            next: traffic.next.iter().map(ToString::to_string).collect(),
            bytes: traffic.bytes as u64,
            attempt: traffic.attempt,
        });
        for client in self.clients.observers() {
            self.out.tell(client, ToClient::Event(event.clone()));
        }
    }

    fn reply(&mut self, caller: Caller, reply: Reply) {
        self.out.tell(caller.client, ToClient::Reply { id: caller.request, result: Ok(reply) });
    }

    fn fail(&mut self, caller: Caller, failure: Failure) {
        let result = Err(failure);
        self.out.tell(caller.client, ToClient::Reply { id: caller.request, result });
    }
}

impl Out {
    fn tell(&mut self, client: ClientId, what: ToClient) {
        self.told.entry(client).or_default().push(what);
    }

    /// Frames before what follows them: a close must not overtake what was said before it.
    fn flush_frames_of(&mut self, link: LinkId) {
        if let Some(frames) = self.frames.remove(&link) {
            self.effects.push(Effect::Send { link, frames });
        }
    }

    fn take(&mut self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        let frames = std::mem::take(&mut self.frames);
        effects.extend(frames.into_iter().map(|(link, frames)| Effect::Send { link, frames }));
        let told = std::mem::take(&mut self.told);
        effects.extend(told.into_iter().map(|(client, what)| Effect::Tell { client, what }));
        effects
    }
}

/// Adds a random part of up to a half to a span, so that nodes that failed together do not try
/// again together.
fn jittered(random: &mut Random, span: Span) -> Span {
    span + Span::from_micros(random.below(span.as_micros() / 2))
}
