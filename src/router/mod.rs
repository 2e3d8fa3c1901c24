//! PURE. Who our neighbours are and how to reach everybody else through them.
//!
//! The router knows envelopes, not messages; a relay needs nothing else. It has no clock, no socket
//! and no randomness of its own: [`Router::handle`] takes what happened and when, and
//! [`Router::poll_output`] says what to do about it.
//!
//! The contract: after every call of `handle` or `tick`, drain `poll_output` until it returns
//! `None`; then read `deadline` and call `tick` when it has come. Nothing is lost if `tick` is
//! late.

mod budget;
mod directory;
mod exchange;
mod find;
mod flights;
mod flood;
mod forward;
mod limits;
mod neighbour;
mod occupancy;
mod outflow;
mod reassembly;
mod receipt;
mod route;
mod seen;
mod shares;
mod timers;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::{Identity, Random};
use crate::model::{FairBucket, Limits, Monotonic, NetworkId, Now, PeerId, SignedRecord, Span};
use crate::wire::{CloseReason, Envelope, Frame, Header, NoticeKind, RejectReason};

use budget::Origins;
use directory::Directory;
use exchange::Exchange;
use find::Finds;
use flights::Flights;
use flood::{FloodLog, OwnFloods, Verifier};
use neighbour::Neighbour;
use reassembly::Reassembly;
use route::Routes;
use seen::Seen;
use timers::{Timer, Timers};

pub use view::{NeighbourView, NextHopView, RouteView};

/// What happens to a router.
#[derive(Debug)]
pub enum Input {
    /// Our own record was made or renewed. The first input of all.
    OwnRecord(SignedRecord),
    /// A record from our own store, at start: trusted, not announced.
    StoredRecord(SignedRecord),
    /// How the operator stands to a peer, or that we exchanged messages: such peers' records are
    /// never evicted, their floods are verified first.
    Standing {
        /// The peer.
        peer: PeerId,
        /// Whether the operator connected it, named it, or a receipt of it was seen.
        known: bool,
    },
    /// The operator forgot a peer: its record and routes go.
    Forget(PeerId),
    /// A link to a neighbour is up, authenticated, and the only one to it.
    LinkUp {
        /// Who.
        neighbour: PeerId,
        /// The record in its hello, as bytes; not verified.
        record: Bytes,
    },
    /// The link to a neighbour is down.
    LinkDown {
        /// Who.
        neighbour: PeerId,
    },
    /// A neighbour said something.
    Frame {
        /// Who.
        from: PeerId,
        /// What.
        frame: Frame,
    },
    /// Bytes that were handed to a link have left it: there is room again.
    Written {
        /// On whose link.
        neighbour: PeerId,
        /// How many, frame prefixes not counted.
        bytes: usize,
    },
    /// The courier wants to write to a peer: it needs a fresh record and a way.
    Locate {
        /// Whom.
        peer: PeerId,
        /// What we know did not work: ask the target itself anew.
        anew: bool,
    },
    /// The courier's envelope, for a learned route.
    Send {
        /// The envelope.
        envelope: Envelope,
        /// Prefer another first hop than the last attempt of this envelope took.
        elsewhere: bool,
    },
    /// The courier's envelope, for everybody: routes failed. Paced by the origin's limit.
    Flood {
        /// The envelope.
        envelope: Envelope,
    },
    /// The courier gave an envelope up, or has its receipt: whatever is left to do for it is void.
    Settled {
        /// Its commitment.
        commitment: [u8; 32],
    },
    /// The courier stored an envelope's content: its receipt goes back every way the envelope came.
    Reveal {
        /// The receipt.
        preimage: [u8; 32],
    },
    /// The courier could not take an envelope: a notice goes back the way it came.
    Notify {
        /// What is the matter.
        kind: NoticeKind,
        /// The envelope's header.
        header: Header,
    },
    /// Compare tables with all neighbours now.
    Discover,
    /// Whether to output [`Output::Traffic`].
    Observe(bool),
    /// Keep to other limits from now on.
    Limits(Box<Limits>),
}

/// What a router wants done, in order.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Hand a frame to a neighbour's link. The router has counted its bytes against the queue.
    Send {
        /// Whose link.
        neighbour: PeerId,
        /// The frame, without its length prefix.
        frame: Bytes,
    },
    /// End a link.
    Disconnect {
        /// Whose.
        neighbour: PeerId,
        /// Why.
        reason: CloseReason,
        /// For both operators.
        text: String,
    },
    /// An envelope for us, whole: for the courier.
    Deliver {
        /// The neighbour that brought it, or its last fragment.
        from: PeerId,
        /// The envelope; fragments have been put together.
        envelope: Envelope,
    },
    /// A fragment or attempt of ours left on at least one link: what `--wait sent` waits for.
    Departed {
        /// The envelope's commitment.
        commitment: [u8; 32],
    },
    /// A receipt for one of our envelopes, checked against its commitment.
    Receipt {
        /// The envelope's commitment.
        commitment: [u8; 32],
    },
    /// Nobody took this envelope of ours: every next hop rejected it, or there is none.
    Rejected {
        /// The envelope's commitment.
        commitment: [u8; 32],
        /// Which attempt.
        attempt: u16,
        /// The last reason.
        reason: RejectReason,
    },
    /// A destination's notice on one of our envelopes, its signature verified.
    Notice {
        /// The envelope's commitment.
        commitment: [u8; 32],
        /// What is the matter.
        kind: NoticeKind,
    },
    /// There is a fresh record of the peer and a way to it: the answer to [`Input::Locate`].
    Located {
        /// The peer.
        peer: PeerId,
    },
    /// Nobody answered for the peer in time: the other answer to [`Input::Locate`]. If an answer
    /// comes late, [`Output::Located`] follows.
    NotFound {
        /// The peer.
        peer: PeerId,
    },
    /// A record was learned and verified: store it. It is in the table already.
    Learned {
        /// The record.
        record: SignedRecord,
        /// The neighbour it came from.
        via: PeerId,
        /// Whether the peer was not known before.
        new: bool,
        /// Whether a running discover brought it.
        discovered: bool,
    },
    /// A record was dropped: expired, or evicted.
    Dropped {
        /// Whose.
        peer: PeerId,
    },
    /// Others have a newer record of ours than we do: our clock went back. Make one with a higher
    /// sequence.
    OwnRecordAhead {
        /// The sequence they have.
        sequence: u64,
    },
    /// A discover is over.
    Discovered(DiscoverOutcome),
    /// An envelope passed; only while observed.
    Traffic(Traffic),
}

/// What a discover brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiscoverOutcome {
    /// Neighbours asked.
    pub asked: u64,
    /// Neighbours whose table was merged completely.
    pub answered: u64,
    /// Peers not known before.
    pub new: u64,
    /// Peers whose record was replaced by a newer one.
    pub updated: u64,
}

/// An envelope that passed, as a relay sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// What was done with it.
    pub action: Action,
    /// Who sealed it.
    pub source: PeerId,
    /// Who can open it.
    pub destination: PeerId,
    /// The neighbour it came from; none if it began here.
    pub previous: Option<PeerId>,
    /// The neighbours it went to.
    pub next: Vec<PeerId>,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Which attempt of its source this is.
    pub attempt: u16,
}

/// What a node did with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sent by this node.
    Originated,
    /// Passed on to a next hop.
    Forwarded,
    /// Passed on to all neighbours.
    Flooded,
    /// It is for this node.
    Delivered,
    /// Sent back.
    Rejected,
}

/// How often everything is looked through that is forgotten with age.
const SWEEP_INTERVAL: Span = Span::from_secs(60);

/// One node's router.
pub struct Router {
    /// Signs our finds, answers, floods and notices.
    identity: Arc<Identity>,
    /// Who we are.
    me: PeerId,
    /// Which network's records are ours to keep.
    network: NetworkId,
    limits: Limits,
    /// Nonces and jitter.
    random: Random,
    /// The time of the input that is being handled.
    now: Now,
    /// Whether the periodic timers were set: they need a first time to count from.
    started: bool,
    /// Our own record, as it goes into finds and comparisons.
    own: Option<SignedRecord>,
    /// Whether somebody wants to know of every envelope that passes.
    observed: bool,
    /// What was not polled yet.
    outputs: VecDeque<Output>,
    timers: Timers,
    neighbours: BTreeMap<PeerId, Neighbour>,
    /// Bytes handed to all links that were not written yet.
    queued: usize,
    /// Peers that the operator or a receipt made known; at most as many as records.
    known: BTreeSet<PeerId>,
    directory: Directory,
    exchange: Exchange,
    routes: Routes,
    finds: Finds,
    /// Finds and floods that were verified before.
    seen: Seen,
    verifier: Verifier,
    /// What each origin may flood.
    origins: Origins,
    own_floods: OwnFloods,
    flood_log: FloodLog,
    reassembly: Reassembly,
    flights: Flights,
    /// How many notices we may sign.
    notices: FairBucket,
}

impl Router {
    /// A router that knows nobody yet. Equal seeds and inputs give equal outputs.
    pub fn new(
        identity: Arc<Identity>,
        network: NetworkId,
        limits: Limits,
        seed: [u8; 32],
    ) -> Self {
        let start = Monotonic::START;
        Self {
            me: identity.peer(),
            identity,
            network,
            random: Random::from_seed(seed),
            now: Now::default(),
            started: false,
            own: None,
            observed: false,
            outputs: VecDeque::new(),
            timers: Timers::default(),
            neighbours: BTreeMap::new(),
            queued: 0,
            known: BTreeSet::new(),
            directory: Directory::new(limits.records_max),
            exchange: Exchange::new(start),
            routes: Routes::new(limits.records_max),
            finds: Finds::default(),
            seen: Seen::new(limits.seen_entries_max, limits.seen_lifetime),
            verifier: Verifier::new(&limits, start),
            origins: Origins::new(limits.origin_floods_per_second, limits.origin_floods_burst),
            own_floods: OwnFloods::new(&limits, start),
            flood_log: FloodLog::default(),
            reassembly: Reassembly::default(),
            flights: Flights::new(limits.relay_bytes_max),
            notices: receipt::notice_budget(start),
            limits,
        }
    }

    /// Takes what happened. Then drain [`Router::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.advance(now);
        match input {
            Input::OwnRecord(record) => self.on_own_record(record),
            Input::StoredRecord(record) => self.on_stored_record(record),
            Input::Standing { peer, known } => self.on_standing(peer, known),
            Input::Forget(peer) => self.on_forget(&peer),
            Input::LinkUp { neighbour, record } => self.on_link_up(neighbour, &record),
            Input::LinkDown { neighbour } => self.remove_neighbour(&neighbour),
            Input::Frame { from, frame } => self.on_frame(from, frame),
            Input::Written { neighbour, bytes } => self.on_written(&neighbour, bytes),
            Input::Locate { peer, anew } => self.on_locate(peer, anew),
            Input::Send { envelope, elsewhere } => self.on_send(envelope, elsewhere),
            Input::Flood { envelope } => self.on_own_flood(envelope),
            Input::Settled { commitment } => self.on_settled(&commitment),
            Input::Reveal { preimage } => self.on_reveal(preimage),
            Input::Notify { kind, header } => self.on_notify(kind, &header),
            Input::Discover => self.on_discover(),
            Input::Observe(observed) => self.observed = observed,
            Input::Limits(limits) => self.on_limits(*limits),
        }
        self.watch_flights();
    }

    /// Does what is due. Call it when [`Router::deadline`] has come; then drain
    /// [`Router::poll_output`].
    pub fn tick(&mut self, now: Now) {
        self.advance(now);
        for (due, timer) in self.timers.take_due(self.now.mono) {
            match timer {
                Timer::Link(neighbour) => self.on_link_timer(neighbour, due),
                Timer::Exchange(neighbour) => self.on_exchange_timer(neighbour),
                Timer::Announce => self.tell_news(),
                Timer::Compare => self.on_compare_timer(),
                Timer::Records => self.verify_records(),
                Timer::Verify => self.run_verifier(),
                Timer::OwnFloods => self.run_own_floods(),
                Timer::Outflow => self.run_outflow(),
                Timer::Finds => self.on_finds_timer(),
                Timer::Flights => self.on_flights_timer(),
                Timer::Sweep => self.sweep(),
            }
        }
        self.watch_flights();
    }

    /// The next thing to do, in order; none if nothing is left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Router::tick`] has something to do.
    pub fn deadline(&self) -> Monotonic {
        self.timers.next()
    }

    fn on_frame(&mut self, from: PeerId, frame: Frame) {
        if !self.hear(&from) {
            return;
        }
        match frame {
            Frame::Hello(_) => {
                self.disconnect(from, CloseReason::Protocol, "a second hello on one link");
            }
            Frame::Close { reason, text } => self.disconnect(from, reason, &text),
            Frame::Ping { nonce } => {
                self.send_control(&from, &Frame::Pong { nonce });
            }
            Frame::Pong { nonce } => self.on_pong(&from, nonce),
            Frame::Find(find) => self.on_find(from, find),
            Frame::Found(found) => self.on_found(from, found),
            Frame::Envelope(envelope) => self.on_envelope(from, envelope),
            Frame::Flood(flood) => self.on_flood(from, flood),
            Frame::Reject { key, reason } => self.on_reject(from, &key, reason),
            Frame::Receipt { preimage } => self.on_receipt(from, preimage),
            Frame::Notice(notice) => self.on_notice(from, &notice),
            Frame::DigestRequest { exchange, after } => {
                self.on_digest_request(from, exchange, after);
            }
            Frame::Digests { exchange, more, digests } => {
                self.on_digests(from, exchange, more, &digests);
            }
            Frame::RecordRequest { peers } => self.on_record_request(from, &peers),
            Frame::Records { records } => self.on_records(from, &records),
        }
    }

    fn advance(&mut self, now: Now) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        if !self.started {
            self.started = true;
            self.timers.set(Timer::Sweep, self.now.mono + SWEEP_INTERVAL);
            self.schedule_compare();
        }
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Has the timer go off when the first flight's stage ends. It may go off in vain, since
    /// flights that end early do not move it.
    fn watch_flights(&mut self) {
        if let Some(next) = self.flights.next_due() {
            self.timers.set_by(Timer::Flights, next);
        }
    }

    /// Forgets what is old.
    fn sweep(&mut self) {
        let now = self.now.mono;
        self.timers.set(Timer::Sweep, now + SWEEP_INTERVAL);
        // A link that is up confirms the way to its neighbour.
        let neighbours: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for neighbour in neighbours {
            self.learn_route(neighbour, neighbour, 1);
        }
        self.routes.sweep(now);
        self.seen.sweep(now);
        self.finds.sweep(now);
        self.flood_log.sweep(now);
        self.reassembly.sweep(now);
        self.drop_void_records();
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({:?})", self.me)
    }
}
