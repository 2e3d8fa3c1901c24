//! A network of routers in memory, in virtual time. Every frame goes through its bytes on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::{Domain, Identity, commitment_of};
use crate::model::{
    Limits, Monotonic, NetworkId, Now, PeerId, Record, SessionId, SignedRecord, Span, Timestamp,
};
use crate::router::{Input, NextHopView, Output, Router};
use crate::wire::{self, Envelope, Frame, Header};

/// When the virtual time begins: 2024.
pub(super) const BEGIN: Timestamp = Timestamp::from_millis(1_704_067_200_000);
const LATENCY: Span = Span::from_millis(1);

/// What happens to a frame from one node to another: true if it is lost.
pub(super) type Loss = Box<dyn FnMut(usize, usize, &Frame) -> bool>;

pub(super) struct Net {
    pub(super) routers: Vec<Router>,
    pub(super) ids: Vec<PeerId>,
    pub(super) identities: Vec<Arc<Identity>>,
    pub(super) now: Now,
    /// What came out of each node and was not a frame.
    pub(super) outputs: Vec<Vec<Output>>,
    /// Every frame that was sent: from, to, frame.
    pub(super) frames: Vec<(usize, usize, Frame)>,
    pub(super) loss: Loss,
    /// Whether what is delivered is receipted at once.
    pub(super) reveals: bool,
    links: BTreeSet<(usize, usize)>,
    on_the_way: BTreeMap<(Monotonic, u64), (usize, usize, Bytes)>,
    sent: u64,
    preimages: BTreeMap<[u8; 32], [u8; 32]>,
}

pub(super) fn identity(n: u64) -> Arc<Identity> {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Arc::new(Identity::from_seed(&seed))
}

/// A valid record made at a time.
pub(super) fn record_of(identity: &Identity, made: Timestamp) -> SignedRecord {
    signed(
        identity,
        Record {
            network: NetworkId::OPEN,
            peer: identity.peer(),
            sequence: made.as_millis(),
            expires: made + Span::from_secs(7 * 24 * 3600),
            name: None,
            addresses: Vec::new(),
            prekeys: Vec::new(),
        },
    )
}

pub(super) fn signed(identity: &Identity, record: Record) -> SignedRecord {
    let content = wire::encode_record(&record);
    let signature = identity.sign(Domain::Record, &[&content]);
    SignedRecord { record, bytes: wire::record_with_signature(content, &signature) }
}

impl Net {
    pub(super) fn new(nodes: usize) -> Self {
        Self::with_limits(nodes, &Limits::default())
    }

    pub(super) fn with_limits(nodes: usize, limits: &Limits) -> Self {
        let identities: Vec<_> = (0..nodes as u64).map(identity).collect();
        let routers = identities.iter().zip(0..).map(|(identity, n)| {
            Router::new(Arc::clone(identity), NetworkId::OPEN, limits.clone(), [n; 32])
        });
        let mut net = Self {
            routers: routers.collect(),
            ids: identities.iter().map(|identity| identity.peer()).collect(),
            identities,
            now: Now { mono: Monotonic::START + Span::from_secs(1), wall: BEGIN },
            outputs: (0..nodes).map(|_| Vec::new()).collect(),
            frames: Vec::new(),
            loss: Box::new(|_, _, _| false),
            reveals: true,
            links: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            preimages: BTreeMap::new(),
        };
        for node in 0..nodes {
            let record = record_of(&net.identities[node], BEGIN);
            net.input(node, Input::OwnRecord(record));
        }
        net
    }

    /// Nodes in a row, linked, and quiet.
    pub(super) fn line(nodes: usize) -> Self {
        Self::linked(nodes, (1..nodes).map(|n| (n - 1, n)))
    }

    /// Nodes in a ring.
    pub(super) fn ring(nodes: usize) -> Self {
        Self::linked(nodes, (0..nodes).map(|n| (n, (n + 1) % nodes)))
    }

    pub(super) fn linked(nodes: usize, links: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut net = Self::new(nodes);
        for (a, b) in links {
            net.link(a, b);
        }
        net.run(Span::from_secs(2));
        net.forget();
        net
    }

    /// Forgets what came out so far.
    pub(super) fn forget(&mut self) {
        self.outputs.iter_mut().for_each(Vec::clear);
        self.frames.clear();
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        self.links.insert((a, b));
        self.links.insert((b, a));
        for (node, other) in [(a, b), (b, a)] {
            let record = self.routers[other].own.clone().expect("a record").bytes;
            self.input(node, Input::LinkUp { neighbour: self.ids[other], record });
        }
    }

    pub(super) fn unlink(&mut self, a: usize, b: usize) {
        self.links.remove(&(a, b));
        self.links.remove(&(b, a));
        self.on_the_way
            .retain(|_, (from, to, _)| !((*from == a && *to == b) || (*from == b && *to == a)));
        for (node, other) in [(a, b), (b, a)] {
            self.input(node, Input::LinkDown { neighbour: self.ids[other] });
        }
    }

    pub(super) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&(a, b))
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.routers[node].handle(self.now, input);
        self.drain(node);
    }

    /// A frame as if the neighbour had sent it.
    pub(super) fn inject(&mut self, from: usize, to: usize, frame: &Frame) {
        let frame = Frame::decode(frame.encode()).expect("a frame");
        self.input(to, Input::Frame { from: self.ids[from], frame });
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.routers[node].poll_output() {
            match &output {
                Output::Send { neighbour, frame } => {
                    let to = self.index(neighbour);
                    self.send(node, to, frame.clone());
                    continue;
                }
                Output::Disconnect { neighbour, .. } => {
                    let to = self.index(neighbour);
                    self.outputs[node].push(output);
                    self.unlink(node, to);
                    continue;
                }
                Output::Deliver { envelope, .. } if self.reveals => {
                    let preimage = self.preimages[&envelope.header.commitment];
                    self.outputs[node].push(output);
                    self.input(node, Input::Reveal { preimage });
                    continue;
                }
                _ => {}
            }
            self.outputs[node].push(output);
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        let frame = Frame::decode(bytes.clone()).expect("what is sent can be read");
        if self.is_linked(from, to) && !(self.loss)(from, to, &frame) {
            self.sent += 1;
            self.on_the_way.insert((self.now.mono + LATENCY, self.sent), (from, to, bytes));
        } else {
            let neighbour = self.ids[to];
            self.routers[from].handle(self.now, Input::Written { neighbour, bytes: bytes.len() });
        }
        self.frames.push((from, to, frame));
    }

    pub(super) fn index(&self, peer: &PeerId) -> usize {
        self.ids.iter().position(|id| id == peer).expect("one of the nodes")
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, span: Span) {
        let until = self.now.mono + span;
        loop {
            let arrival = self.on_the_way.keys().next().map_or(Monotonic::NEVER, |(at, _)| *at);
            let deadlines = self.routers.iter().map(Router::deadline);
            let deadline = deadlines.min().unwrap_or(Monotonic::NEVER);
            let next = arrival.min(deadline);
            self.pass(next.min(until));
            if next > until {
                return;
            }
            if arrival <= deadline {
                self.arrive();
            } else {
                for node in 0..self.routers.len() {
                    if self.routers[node].deadline() <= self.now.mono {
                        self.routers[node].tick(self.now);
                        assert!(self.routers[node].deadline() > self.now.mono, "ticks in vain");
                        self.drain(node);
                    }
                }
            }
        }
    }

    fn arrive(&mut self) {
        let Some((_, (from, to, bytes))) = self.on_the_way.pop_first() else { return };
        let (neighbour, length) = (self.ids[to], bytes.len());
        self.input(from, Input::Written { neighbour, bytes: length });
        let frame = Frame::decode(bytes).expect("a frame");
        self.input(to, Input::Frame { from: self.ids[from], frame });
    }

    fn pass(&mut self, to: Monotonic) {
        let passed = to.since(self.now.mono);
        let micros = self.now.mono.as_micros() + passed.as_micros();
        self.now.mono = Monotonic::from_micros(micros);
        self.now.wall = BEGIN + Span::from_micros(micros);
    }

    /// An envelope of one node to another; the network knows its receipt.
    pub(super) fn envelope(
        &mut self,
        from: usize,
        to: usize,
        counter: u64,
        size: usize,
    ) -> Envelope {
        let mut preimage = [from as u8; 32];
        preimage[8..16].copy_from_slice(&counter.to_be_bytes());
        let header = Header {
            source: self.ids[from],
            destination: self.ids[to],
            session: SessionId(from as u64),
            counter,
            commitment: commitment_of(&preimage),
        };
        self.preimages.insert(header.commitment, preimage);
        Envelope::new(header, 1, &vec![7; size])
    }

    pub(super) fn preimage(&self, envelope: &Envelope) -> [u8; 32] {
        self.preimages[&envelope.header.commitment]
    }

    pub(super) fn send_envelope(&mut self, from: usize, envelope: &Envelope) {
        self.input(from, Input::Send { envelope: envelope.clone(), elsewhere: false });
    }

    pub(super) fn locate(&mut self, from: usize, to: usize, anew: bool) {
        let peer = self.ids[to];
        self.input(from, Input::Locate { peer, anew });
    }

    pub(super) fn located(&self, from: usize, to: usize) -> usize {
        let located = Output::Located { peer: self.ids[to] };
        self.outputs[from].iter().filter(|output| **output == located).count()
    }

    /// The attempts that were delivered to a node, by counter.
    pub(super) fn delivered(&self, node: usize) -> Vec<(u64, u16)> {
        let delivered = self.outputs[node].iter().filter_map(|output| match output {
            Output::Deliver { envelope, .. } => Some((envelope.header.counter, envelope.attempt)),
            _ => None,
        });
        delivered.collect()
    }

    /// How many receipts a node's courier got for an envelope.
    pub(super) fn receipts(&self, node: usize, envelope: &Envelope) -> usize {
        let receipt = Output::Receipt { commitment: envelope.header.commitment };
        self.outputs[node].iter().filter(|output| **output == receipt).count()
    }

    /// The ways a node knows to another.
    pub(super) fn ways(&self, from: usize, to: usize) -> Vec<(usize, NextHopView)> {
        let routes = self.routers[from].routes_after(None, usize::MAX);
        let route = routes.into_iter().find(|route| route.destination == self.ids[to]);
        let hops = route.map_or(Vec::new(), |route| route.next_hops);
        hops.into_iter().map(|hop| (self.index(&hop.neighbour), hop)).collect()
    }

    /// How many frames of a kind were sent.
    pub(super) fn count(&self, is: impl Fn(usize, usize, &Frame) -> bool) -> usize {
        self.frames.iter().filter(|(from, to, frame)| is(*from, *to, frame)).count()
    }

    pub(super) fn disconnects(&self, node: usize) -> usize {
        let is = |output: &&Output| matches!(output, Output::Disconnect { .. });
        self.outputs[node].iter().filter(is).count()
    }
}
