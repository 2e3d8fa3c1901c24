//! Nodes, the links between them and their time, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use distmsg::control::protocol::{Connect, ErrorCode, Reply, Request, Wait};
use distmsg::control::{Call, Outgoing as ToClient, RequestId, SendRequest};
use distmsg::crypto::{Identity, Random, sha256};
use distmsg::model::{Address, Limits, Monotonic, Name, NetworkId, Now, PeerId, Span, Timestamp};
use distmsg::node::core::{
    About, ClientId, Core, DialFailure, DialId, Effect, Input, LinkId, LinkUp, Settings,
};
use distmsg::store::op::{Completion, Op, Query, Transaction};
use distmsg::wire::Frame;

use crate::disk::Disk;
use crate::hostile::{Hostile, Kind, Reaction};
use crate::network::Network;
use crate::referee::{Referee, body_of};

/// What is wrong with the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Frames lost, of a thousand.
    pub(crate) loss: u64,
    /// Delays of frames, at least and at most; frames on one link may overtake each other.
    pub(crate) delay_ms: (u64, u64),
    /// Whether links break and come back.
    pub(crate) cuts: bool,
    /// Whether nodes crash and come back with what was committed.
    pub(crate) crashes: bool,
}

enum Event {
    /// A node's deadline may have come.
    Wake(usize),
    /// Something happens to a node, unless it crashed meanwhile.
    To(usize, u64, Input),
    /// A frame arrives, if the link is still there.
    Frame {
        node: usize,
        link: LinkId,
        frame: Bytes,
    },
    /// The disk is done.
    Commit(usize, u64, Transaction),
    /// The disk answers.
    Answer(usize, u64, Query),
    Crash(usize),
    Start(usize),
    Cut,
    /// A hostile node speaks unasked.
    Mischief(usize),
    /// A frame leaves a hostile node late.
    Late(usize, LinkId, Bytes),
}

struct Node {
    identity: Arc<Identity>,
    core: Option<Core>,
    disk: Disk,
    disk_busy: Monotonic,
    /// How often something happened to it.
    inputs: u64,
    /// When it is looked at next, in inputs.
    look_due: u64,
    /// Counts starts: what was meant for an earlier run is void.
    run: u64,
    woken: Monotonic,
    links: BTreeMap<LinkId, (usize, LinkId)>,
    record: Bytes,
    /// What it makes of the rules, if it does not keep them.
    hostile: Option<Hostile>,
    /// How far its clock is ahead of the true time, in milliseconds.
    ahead_ms: i64,
    /// What its clock gains, in parts of a million, and since when.
    drift: (i64, Monotonic),
    /// What its disk does.
    health: Health,
}

impl Node {
    /// What its clock gained since its drift was set.
    fn drifted_ms(&self, now: Monotonic) -> i64 {
        let (millionths, since) = self.drift;
        now.since(since).as_millis().cast_signed() * millionths / 1_000_000
    }
}

/// What a node's disk does with transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// There is no room.
    Full,
    /// The next one fails, and with it the node stops; it starts again later. What was to be
    /// written may be there or not.
    Failing,
    /// The node crashes while the next one is written: it is there or not, and nobody hears of it.
    Dying,
}

/// What the simulation counts.
#[derive(Debug, Default, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counts {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Frames that carry an envelope or a part of one over one link.
    pub(crate) carried: u64,
    pub(crate) crashes: u64,
    pub(crate) breaks: u64,
    pub(crate) failures: u64,
    /// Crashes while a disk was writing.
    pub(crate) torn: u64,
}

/// What a client was told of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Delivered,
    NotDelivered,
    Failed(String),
}

pub(crate) struct World {
    pub(crate) now: Monotonic,
    random: Random,
    faults: Faults,
    nodes: Vec<Node>,
    events: BTreeMap<(Monotonic, u64), Event>,
    last_event: u64,
    last_link: u64,
    /// What became of each send, by its number.
    pub(crate) told: BTreeMap<i64, Told>,
    /// Sends that the client heard nothing of because the daemon crashed.
    pub(crate) unheard: BTreeSet<i64>,
    waiting: BTreeMap<i64, usize>,
    /// Everything that happened, for comparing runs.
    trace: DefaultHasher,
    limits: Limits,
    links_auto: usize,
    /// The network, if it is more than `faults` say.
    network: Option<Network>,
    /// Frames that wait for the end of a cut.
    stalled: BTreeMap<(usize, usize), Vec<Event>>,
    pub(crate) referee: Option<Referee>,
    pub(crate) counts: Counts,
    traced: bool,
    /// Whether what must be true at any time is looked at after every input, and not now and then.
    pub(crate) looks_always: bool,
}

/// What must be true at any time is looked at after so many inputs of a node, at least.
const LOOK_PAUSE_MIN: u64 = 16;
/// To look takes time as there are entries in its tables: after so many of them one input more.
const ENTRIES_PER_INPUT: u64 = 64;

const START_MS: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, faults: Faults) -> Self {
        Self::with_links_auto(seed, nodes, faults, 0)
    }

    /// A world whose nodes make so many links by themselves.
    pub(crate) fn with_links_auto(
        seed: u64,
        nodes: usize,
        faults: Faults,
        links_auto: usize,
    ) -> Self {
        let mut random = Random::from_seed(sha256(&[b"sim", &seed.to_be_bytes()]));
        let nodes = (0..nodes)
            .map(|_| Node {
                identity: Arc::new(Identity::generate(&mut random)),
                core: None,
                disk: Disk::default(),
                disk_busy: Monotonic::START,
                inputs: 0,
                look_due: LOOK_PAUSE_MIN,
                run: 0,
                woken: Monotonic::NEVER,
                links: BTreeMap::new(),
                record: Bytes::new(),
                hostile: None,
                ahead_ms: 0,
                drift: (0, Monotonic::START),
                health: Health::Good,
            })
            .collect::<Vec<_>>();
        let count = nodes.len();
        let mut world = Self {
            now: Monotonic::from_micros(1_000_000),
            random,
            faults,
            nodes,
            events: BTreeMap::new(),
            last_event: 0,
            last_link: 0,
            told: BTreeMap::new(),
            unheard: BTreeSet::new(),
            waiting: BTreeMap::new(),
            trace: DefaultHasher::new(),
            limits: Limits::default(),
            links_auto,
            network: None,
            stalled: BTreeMap::new(),
            referee: None,
            counts: Counts::default(),
            traced: std::env::var_os("DISTMSG_SIM_TRACE").is_some(),
            looks_always: false,
        };
        for node in 0..count {
            world.start(node);
        }
        world
    }

    pub(crate) fn peer(&self, node: usize) -> PeerId {
        self.nodes[node].identity.peer()
    }

    pub(crate) fn disk(&self, node: usize) -> &Disk {
        &self.nodes[node].disk
    }

    /// A hash of everything that happened.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Has the operator of one node connect another.
    pub(crate) fn connect(&mut self, from: usize, to: usize) {
        let request = Request::Connect(Connect {
            peer: self.peer(to).to_string(),
            address: address_of(to).to_string(),
            alias: None,
            timeout_ms: 10_000,
        });
        self.call(from, -1, Call::Other(request));
    }

    /// Sends a message; what becomes of it is in `told` by its number.
    pub(crate) fn send(&mut self, from: usize, to: usize, number: i64, body: Bytes) {
        let request = SendRequest {
            peer: self.peer(to).to_string(),
            body,
            subject: None,
            wait: Wait::Delivered,
            timeout_ms: Some(20_000),
            key: None,
        };
        self.waiting.insert(number, from);
        self.call(from, number, Call::Send(request));
    }

    fn call(&mut self, node: usize, number: i64, call: Call) {
        let calls = vec![(RequestId::Number(number), call)];
        self.input(node, Input::Calls { client: ClientId(1), calls });
    }

    /// Makes a node crash now and start again after a while.
    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].core.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.nodes[node].run += 1;
        for link in self.links_of(node) {
            self.break_link(node, link);
        }
        let mut unheard: Vec<i64> = Vec::new();
        self.waiting.retain(|number, from| {
            let lost = *from == node;
            if lost {
                unheard.push(*number);
            }
            !lost
        });
        self.unheard.extend(unheard);
        let pause = Span::from_millis(50 + self.random.below(3_000));
        self.at(pause, Event::Start(node));
    }

    /// Breaks some link now.
    pub(crate) fn cut(&mut self) {
        let all: Vec<_> = (0..self.nodes.len())
            .flat_map(|node| self.nodes[node].links.keys().map(move |link| (node, *link)))
            .collect();
        if let Some((node, link)) = all.get(self.random.below(all.len() as u64) as usize) {
            self.break_link(*node, *link);
        }
    }

    /// From now on these things go wrong.
    pub(crate) const fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// From now on the network is this one, and a referee watches.
    pub(crate) fn enter(&mut self, network: Network) {
        self.network = Some(network);
        self.referee = Some(Referee::default());
    }

    /// Makes a node hostile.
    pub(crate) fn corrupt(&mut self, node: usize, kinds: Vec<Kind>) {
        let identity = Arc::clone(&self.nodes[node].identity);
        let random = Random::from_seed(self.random.bytes());
        if let Some(network) = &mut self.network
            && kinds.contains(&Kind::Rush)
        {
            network.place_next_to_all(node);
        }
        self.nodes[node].hostile = Some(Hostile::new(kinds, identity, random));
        self.at(Span::from_millis(100), Event::Mischief(node));
    }

    /// Hands in a message that the referee knows; false if the node is down.
    pub(crate) fn hand_in(&mut self, from: usize, to: usize, number: u64, size: usize) -> bool {
        if !self.is_up(from) {
            return false;
        }
        let way = (self.peer(from), self.peer(to));
        if let Some(referee) = &mut self.referee {
            referee.on_handed(number, (from, to), way, size, self.now);
        }
        self.send(from, to, number.cast_signed(), body_of(number, size));
        true
    }

    pub(crate) fn network(&mut self) -> &mut Network {
        self.network.as_mut().expect("a network was entered")
    }

    /// Frames that waited for the end of a cut go on, if it has ended.
    pub(crate) fn release(&mut self) {
        for (way, events) in std::mem::take(&mut self.stalled) {
            if self.network.as_ref().is_some_and(|network| network.is_cut(way.0, way.1)) {
                self.stalled.insert(way, events);
                continue;
            }
            events.into_iter().for_each(|event| self.at(Span::from_millis(1), event));
        }
    }

    pub(crate) fn set_health(&mut self, node: usize, health: Health) {
        self.nodes[node].health = health;
    }

    /// Sets a node's clock: so far ahead of the true time.
    pub(crate) fn set_clock(&mut self, node: usize, ahead_ms: i64) {
        self.nodes[node].ahead_ms = ahead_ms;
    }

    /// Has a node's clock gain so many parts of a million from now on.
    pub(crate) fn set_drift(&mut self, node: usize, millionths: i64) {
        let now = self.now;
        let there = &mut self.nodes[node];
        there.ahead_ms += there.drifted_ms(now);
        there.drift = (millionths, now);
    }

    /// Breaks all links between two nodes.
    pub(crate) fn part(&mut self, a: usize, b: usize) {
        let links = self.nodes[a].links.iter().filter(|(_, (other, _))| *other == b);
        let links: Vec<_> = links.map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.break_link(a, link));
    }

    /// Neighbours of a node, each as often as there are links to it.
    pub(crate) fn neighbours(&self, node: usize) -> Vec<usize> {
        self.nodes[node].links.values().map(|(other, _)| *other).collect()
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].core.is_some()
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults { loss: 0, delay_ms: (1, 3), cuts: false, crashes: false };
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Span) {
        let end = self.now + span;
        self.schedule_faults(span);
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((when, _), event) = entry.remove_entry();
            self.now = self.now.max(when);
            self.happen(event);
        }
        self.now = end;
    }

    /// Lets time pass until something is true; false if it never was.
    pub(crate) fn run_until(&mut self, most: Span, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + most;
        while self.now < end {
            if done(self) {
                return true;
            }
            self.run(Span::from_millis(100));
        }
        done(self)
    }

    fn schedule_faults(&mut self, span: Span) {
        // Also of a short time: faults come while messages are handed in, not only afterwards.
        let rest = span.as_millis() % 1000;
        let seconds = span.as_millis() / 1000 + u64::from(self.random.below(1000) < rest);
        for _ in 0..seconds {
            let after = Span::from_micros(self.random.below(span.as_micros()));
            if self.faults.cuts && self.random.below(3) == 0 {
                self.at(after, Event::Cut);
            }
            if self.faults.crashes && self.random.below(3) == 0 {
                let node = self.random.below(self.nodes.len() as u64) as usize;
                self.at(after, Event::Crash(node));
            }
        }
    }

    fn at(&mut self, after: Span, event: Event) {
        self.last_event += 1;
        self.events.insert((self.now + after, self.last_event), event);
    }

    fn time(&self, node: usize) -> Now {
        let true_ms = START_MS + self.now.as_micros() / 1000;
        let there = &self.nodes[node];
        let wall = true_ms.saturating_add_signed(there.ahead_ms + there.drifted_ms(self.now));
        Now { mono: self.now, wall: Timestamp::from_millis(wall) }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(node) if self.nodes[node].woken <= self.now => {
                self.nodes[node].woken = Monotonic::NEVER;
                self.finish(node);
            }
            Event::To(node, run, input) if self.nodes[node].run == run => self.input(node, input),
            Event::Frame { node, link, frame } => self.arrive(node, link, frame),
            Event::Commit(node, run, transaction) if self.nodes[node].run == run => {
                self.commit(node, transaction);
            }
            Event::Answer(node, run, query) if self.nodes[node].run == run => {
                let completion = self.nodes[node].disk.answer(&query);
                self.input(node, Input::Store(completion));
            }
            Event::Crash(node) if self.faults.crashes => self.crash(node),
            Event::Start(node) => self.start(node),
            Event::Mischief(node) => self.mischief(node),
            Event::Late(node, link, frame) => {
                self.transmit_frame(node, link, frame);
            }
            Event::Cut if self.faults.cuts => self.cut(),
            _ => {}
        }
    }

    fn start(&mut self, node: usize) {
        let settings = Settings {
            identity: Arc::clone(&self.nodes[node].identity),
            network: NetworkId::OPEN,
            name: format!("node{node}").parse::<Name>().ok(),
            advertise: vec![address_of(node)],
            links_auto: self.links_auto,
            limits: self.limits.clone(),
            about: About::default(),
        };
        let snapshot = self.nodes[node].disk.snapshot();
        let core = Core::new(settings, snapshot, self.time(node), self.random.bytes());
        self.nodes[node].core = Some(core);
        self.finish(node);
    }

    fn arrive(&mut self, node: usize, link: LinkId, frame: Bytes) {
        let Some((other, _)) = self.nodes[node].links.get(&link).copied() else { return };
        if let Some(network) = &self.network
            && network.is_cut(other, node)
        {
            let event = Event::Frame { node, link, frame };
            return self.stalled.entry((other, node)).or_default().push(event);
        }
        frame.hash(&mut self.trace);
        let Ok(frame) = Frame::decode(frame) else {
            assert!(self.nodes[other].hostile.is_some(), "a node sends only what it can read");
            return self.break_link(node, link);
        };
        let now = self.time(node);
        if let Some(hostile) = &mut self.nodes[node].hostile {
            let Reaction { answers, rushed, is_heard } = hostile.incoming(now, &frame);
            for answer in answers {
                self.transmit_frame(node, link, answer);
            }
            if let Some(rushed) = rushed {
                for other in self.links_of(node).into_iter().filter(|other| *other != link) {
                    self.transmit_frame(node, other, rushed.clone());
                }
            }
            if !is_heard {
                return;
            }
        }
        self.input(node, Input::Frames { link, frames: vec![frame] });
    }

    fn commit(&mut self, node: usize, transaction: Transaction) {
        let queued = queued_by(&transaction);
        let there = &mut self.nodes[node];
        let completion = match there.health {
            Health::Good => {
                let completion = there.disk.commit(transaction);
                self.referee.iter_mut().for_each(|referee| referee.on_queued(&queued));
                completion
            }
            Health::Full => Completion::Full { token: transaction.token },
            Health::Failing | Health::Dying => {
                let dies = there.health == Health::Dying;
                there.health = Health::Good;
                if self.random.below(2) == 0 {
                    there.disk.commit(transaction);
                    self.referee.iter_mut().for_each(|referee| referee.on_queued(&queued));
                }
                self.look_at_inbox(node);
                if dies {
                    self.counts.torn += 1;
                    return self.crash(node);
                }
                Completion::Failed { reason: "the disk is broken".to_owned() }
            }
        };
        self.look_at_inbox(node);
        self.input(node, Input::Store(completion));
    }

    /// Shows the referee what is new in an inbox.
    fn look_at_inbox(&mut self, node: usize) {
        let Some(mut referee) = self.referee.take() else { return };
        for message in self.nodes[node].disk.take_news() {
            let sender_of = |node: usize| self.nodes[node].identity.peer();
            referee.on_inbox(node, sender_of(node), &message, sender_of, self.now);
        }
        self.referee = Some(referee);
    }

    fn links_of(&self, node: usize) -> Vec<LinkId> {
        self.nodes[node].links.keys().copied().collect()
    }

    fn mischief(&mut self, node: usize) {
        let (now, record) = (self.time(node), self.nodes[node].record.clone());
        let Some(hostile) = &mut self.nodes[node].hostile else { return };
        let said = hostile.unasked(now, &record);
        for link in self.links_of(node) {
            for frame in &said {
                self.transmit_frame(node, link, frame.clone());
            }
        }
        self.at(Span::from_millis(100), Event::Mischief(node));
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.time(node);
        (self.now.as_micros(), node).hash(&mut self.trace);
        hash_input(&input, &mut self.trace);
        self.nodes[node].inputs += 1;
        if self.traced {
            let text = format!("{} {node} {input:?}", self.now.as_micros());
            eprintln!("{}", text.chars().take(400).collect::<String>());
        }
        if let Some(core) = &mut self.nodes[node].core {
            core.handle(now, input);
        }
        self.finish(node);
    }

    fn finish(&mut self, node: usize) {
        let now = self.time(node);
        let there = &mut self.nodes[node];
        let Some(core) = &mut there.core else { return };
        let effects = core.finish(now);
        let deadline = core.deadline();
        if self.looks_always || there.inputs >= there.look_due {
            let again = core.finish(now);
            assert!(again.is_empty(), "a second finish at {now:?} found {again:?} to do");
            let entries = look_at_tables(node, core);
            there.look_due = there.inputs + LOOK_PAUSE_MIN + entries / ENTRIES_PER_INPUT;
        }
        if deadline < self.nodes[node].woken && deadline < Monotonic::NEVER {
            self.nodes[node].woken = deadline;
            let after = deadline.since(self.now);
            self.at(after, Event::Wake(node));
        }
        for effect in effects {
            self.execute(node, effect);
        }
    }

    fn execute(&mut self, node: usize, effect: Effect) {
        if self.traced {
            let text = format!("    -> {node} {effect:?}");
            eprintln!("{}", text.chars().take(300).collect::<String>());
        }
        let run = self.nodes[node].run;
        match effect {
            Effect::Send { link, frames } => self.transmit(node, link, frames),
            Effect::Close { link, .. } => self.break_link(node, link),
            Effect::Dial { dial, address, expected, .. } => {
                self.dial(node, dial, &address, expected);
            }
            Effect::Transact(transaction) => {
                let latency = self.disk_latency(node);
                self.at(latency, Event::Commit(node, run, transaction));
            }
            Effect::Ask(query) => {
                let latency = self.disk_latency(node);
                self.at(latency, Event::Answer(node, run, query));
            }
            Effect::Tell { what, .. } => what.into_iter().for_each(|told| self.hear(told)),
            Effect::Record(bytes) => self.nodes[node].record = bytes,
            Effect::GivenUp(_) | Effect::Log { .. } => {}
            Effect::Stop { reason } => {
                assert_eq!(reason, "the disk is broken", "node {node} stopped");
                self.counts.failures += 1;
                self.crash(node);
            }
        }
    }

    /// How long the disk takes. It works in order.
    fn disk_latency(&mut self, node: usize) -> Span {
        let done = self.now + Span::from_micros(50 + self.random.below(2_000));
        let node = &mut self.nodes[node];
        node.disk_busy = node.disk_busy.max(done);
        node.disk_busy.since(self.now)
    }

    fn transmit(&mut self, node: usize, link: LinkId, frames: Vec<Bytes>) {
        let run = self.nodes[node].run;
        let Some((other, theirs)) = self.nodes[node].links.get(&link).copied() else { return };
        let bytes = frames.iter().map(Bytes::len).sum();
        if self.network.is_some() {
            let mut left = self.now;
            for frame in frames {
                left = self.transmit_by_network(node, link, frame).max(left);
            }
            let after = left.since(self.now);
            return self.at(after, Event::To(node, run, Input::Written { link, bytes }));
        }
        for frame in frames {
            if self.random.below(1000) < self.faults.loss {
                continue;
            }
            let (least, most) = self.faults.delay_ms;
            let delay = least * 1000 + self.random.below((most - least) * 1000 + 1);
            let event = Event::Frame { node: other, link: theirs, frame };
            self.at(Span::from_micros(delay), event);
        }
        self.at(Span::from_micros(100), Event::To(node, run, Input::Written { link, bytes }));
    }

    /// What a node's core says, or what it makes of it; when that has left.
    fn transmit_by_network(&mut self, node: usize, link: LinkId, frame: Bytes) -> Monotonic {
        let Some(hostile) = &mut self.nodes[node].hostile else {
            self.watch(node, link, &frame);
            return self.transmit_frame(node, link, frame);
        };
        for (later, frame) in hostile.outgoing(frame) {
            match later {
                Span::ZERO => {
                    self.transmit_frame(node, link, frame);
                }
                later => self.at(later, Event::Late(node, link, frame)),
            }
        }
        self.now
    }

    fn transmit_frame(&mut self, node: usize, link: LinkId, frame: Bytes) -> Monotonic {
        let Some((other, theirs)) = self.nodes[node].links.get(&link).copied() else {
            return self.now;
        };
        self.counts.frames += 1;
        self.counts.bytes += frame.len() as u64;
        let Some(network) = &mut self.network else { return self.now };
        let way = (node, other);
        let (left, arrives) = network.pass(way, frame.len(), self.now, &mut self.random);
        let after = arrives.since(self.now);
        self.at(after, Event::Frame { node: other, link: theirs, frame });
        left
    }

    /// Shows the referee what an honest node sends.
    fn watch(&mut self, node: usize, link: LinkId, frame: &Bytes) {
        let me = self.peer(node);
        let Some((other, _)) = self.nodes[node].links.get(&link).copied() else { return };
        let Some(referee) = &mut self.referee else { return };
        let (header, attempt) = match Frame::decode(frame.clone()) {
            Ok(Frame::Envelope(envelope)) => (envelope.header, envelope.attempt),
            // Each fragment of each attempt has other bytes.
            Ok(Frame::Flood(flood)) => (flood.header, flood.attempt),
            _ => return,
        };
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        let way = (node, self.nodes[node].run, other);
        referee.on_crossing(way, hasher.finish(), (header.source, header.destination), self.now);
        self.counts.carried += 1;
        if header.source == me {
            referee.on_attempt((me, header.destination), header.commitment, attempt);
        }
    }

    fn dial(&mut self, node: usize, dial: DialId, address: &Address, expected: Option<PeerId>) {
        let run = self.nodes[node].run;
        let other = node_at(address);
        let latency = Span::from_millis(2 + self.random.below(10));
        let failed = |reason: &str| Input::DialFailed {
            dial,
            failure: DialFailure::Unreachable { reason: reason.to_owned() },
        };
        if self.nodes[other].core.is_none() {
            return self.at(latency, Event::To(node, run, failed("down")));
        }
        assert_eq!(expected, Some(self.peer(other)));
        self.last_link += 2;
        let (mine, theirs) = (LinkId(self.last_link), LinkId(self.last_link + 1));
        self.nodes[node].links.insert(mine, (other, theirs));
        self.nodes[other].links.insert(theirs, (node, mine));
        let up = |world: &Self, of: usize, link, dial| {
            Input::LinkUp(LinkUp {
                link,
                peer: world.peer(of),
                dial,
                address: address_of(of),
                instance: world.nodes[of].run * 1000 + of as u64,
                record: world.nodes[of].record.clone(),
            })
        };
        let there = up(self, node, theirs, None);
        let here = up(self, other, mine, Some(dial));
        self.input(other, there);
        self.input(node, here);
    }

    fn break_link(&mut self, node: usize, link: LinkId) {
        let Some((other, theirs)) = self.nodes[node].links.remove(&link) else { return };
        self.counts.breaks += 1;
        self.nodes[other].links.remove(&theirs);
        for (node, link) in [(node, link), (other, theirs)] {
            let run = self.nodes[node].run;
            let down = Input::LinkDown { link, reason: "cut".to_owned() };
            self.at(Span::from_millis(1), Event::To(node, run, down));
        }
    }

    fn hear(&mut self, told: ToClient) {
        let ToClient::Reply { id: RequestId::Number(number), result } = told else { return };
        if self.waiting.remove(&number).is_none() {
            return;
        }
        let told = match result {
            Ok(Reply::Sent(_)) => Told::Delivered,
            Err(failure) if failure.code == ErrorCode::NotDelivered => Told::NotDelivered,
            other => Told::Failed(format!("{other:?}")),
        };
        if let Some(referee) = &self.referee
            && let Ok(number) = u64::try_from(number)
            && let Some(to) = referee.handed().get(&number).map(|handed| handed.to)
        {
            let held = &self.nodes[to].disk.held;
            let is_held = |body: &Bytes| held.values().any(|held| held.body == *body);
            referee.on_told(number, &told, is_held);
        }
        self.told.insert(number, told);
    }
}

/// The numbers of the messages that a transaction puts into the outbox.
fn queued_by(transaction: &Transaction) -> Vec<u64> {
    let number = |op: &Op| match op {
        Op::Queue(message) => message.body.first_chunk().map(|head| u64::from_be_bytes(*head)),
        _ => None,
    };
    transaction.ops.iter().filter_map(number).collect()
}

/// Every table must be within its limit. How many entries there are in all.
fn look_at_tables(node: usize, core: &Core) -> u64 {
    let mut entries = 0;
    for table in core.occupancy() {
        assert!(table.is_within(), "node {node} has too much of something: {table:?}");
        let is_bytes = table.table.contains("bytes");
        entries += if is_bytes { 0 } else { table.used };
    }
    entries
}

/// What tells one input from another. Frames were hashed as they came.
fn hash_input(input: &Input, hasher: &mut impl Hasher) {
    std::mem::discriminant(input).hash(hasher);
    match input {
        Input::LinkUp(up) => (up.link, up.peer, up.instance, &up.record).hash(hasher),
        Input::LinkDown { link, .. } | Input::Frames { link, .. } => link.hash(hasher),
        Input::Written { link, bytes } => (link, bytes).hash(hasher),
        Input::DialFailed { dial, .. } => dial.hash(hasher),
        Input::Probed { dial, peer, record } => (dial, peer, record).hash(hasher),
        Input::Calls { client, calls } => (client, calls.len()).hash(hasher),
        Input::ClientGone(client) => client.hash(hasher),
        Input::Store(Completion::Answered { token, answer }) => {
            (1, token, std::mem::discriminant(answer)).hash(hasher);
        }
        Input::Store(Completion::Committed { token, .. }) => (2, token).hash(hasher),
        Input::Store(Completion::Full { token }) => (3, token).hash(hasher),
        Input::Store(Completion::Failed { reason }) => (4, reason).hash(hasher),
        Input::Entropy(entropy) => entropy.hash(hasher),
        Input::Changes(changes) => (&changes.name, changes.links_auto).hash(hasher),
        Input::Warnings(warnings) => warnings.hash(hasher),
    }
}

fn address_of(node: usize) -> Address {
    Address::new(&format!("10.0.0.{}", node + 1), 3000).expect("an address")
}

fn node_at(address: &Address) -> usize {
    let last = address.host().rsplit('.').next().expect("four numbers");
    last.parse::<usize>().expect("a number") - 1
}
