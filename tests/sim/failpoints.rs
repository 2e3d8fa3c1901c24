//! Failpoints: a short exchange is run once to count the steps of each node, and then once more for
//! every step, at which that node crashes, or its disk has no room or breaks. It starts again from
//! what was committed, clients ask again, and everything must come to its end: once, in order, and
//! with no reply or receipt that was not true when it was given.
//!
//! A failure names its failpoints; `DISTMSG_SIM_FAILPOINTS="0:17:Crash 1:40:Full"` runs those alone
//! (node, step, what), and `DISTMSG_SIM_PAIRS=N` draws N pairs of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use distmsg::control::protocol::{
    Ack, Connect, ErrorCode, Event as Told, Failure, Listen, MessageEvent, Reply, Request, Sent,
    Wait,
};
use distmsg::control::{Call, Outgoing as ToClient, RequestId, SendRequest};
use distmsg::crypto::{Identity, Random, sha256};
use distmsg::model::{Address, Incarnation, Limits, Monotonic, NetworkId, Now, PeerId, Sequence};
use distmsg::model::{Span, Timestamp};
use distmsg::node::core::{
    About, ClientId, Core, DialFailure, DialId, Effect, Input, LinkId, LinkUp, Settings,
};
use distmsg::store::op::{Completion, Query, Transaction};
use distmsg::wire::Frame;

use crate::disk::Disk;

/// How long a crashed node stays away.
const AWAY: Span = Span::from_millis(300);
/// How long a disk that is full stays so.
const FULL: Span = Span::from_secs(3);
/// Between two tries of a client that was not answered as it wished.
const CLIENT_RETRY: Span = Span::from_millis(500);
/// How long everything goes on after the last fault, should something come late.
const QUIET: Span = Span::from_secs(4);
/// Everything must be over by then.
const END: Span = Span::from_secs(600);
/// Pairs of failpoints drawn when nobody says how many.
const PAIRS_DEFAULT: u64 = 150;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The process is gone.
    Crash,
    /// This transaction alone finds no room.
    FullOnce,
    /// From this transaction on there is no room for a while.
    Full,
    /// The commit fails, and nothing of it is there later.
    Broken,
    /// The commit fails, but it is there later all the same.
    BrokenLate,
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failpoint {
    node: usize,
    step: u64,
    kind: Kind,
}

/// Requests of the clients. What was not answered well is asked again.
#[derive(Debug, Clone)]
enum Wish {
    Connect { from: usize, to: usize },
    Send { from: usize, to: usize, body: Bytes, wait: Wait },
}

enum Event {
    Wake,
    To(Input),
    Frame { link: LinkId, frame: Bytes },
    Commit(Transaction),
    Answer(Query),
    Start,
    Ask(usize),
}

struct Node {
    identity: Arc<Identity>,
    core: Option<Core>,
    disk: Disk,
    disk_busy: Monotonic,
    full_until: Monotonic,
    run: u64,
    woken: Monotonic,
    links: BTreeMap<LinkId, (usize, LinkId)>,
    record: Bytes,
    /// Steps taken, for all its runs.
    steps: u64,
    /// The steps at which something was committed.
    commits: Vec<u64>,
    /// What a listening client was given, and what it knows to be acknowledged.
    listened: Vec<u64>,
    acking: u64,
    acknowledged: u64,
}

impl Node {
    /// Everything up to here is acknowledged, on disk.
    fn position(&self) -> u64 {
        self.disk.snapshot().listeners.first().map_or(0, |row| row.position.0)
    }
}

/// The nodes of one run.
struct Exchange {
    now: Monotonic,
    nodes: Vec<Node>,
    events: BTreeMap<(Monotonic, u64), (usize, u64, Event)>,
    last_event: u64,
    last_link: u64,
    wishes: Vec<Wish>,
    fulfilled: BTreeSet<usize>,
    failpoints: Vec<Failpoint>,
    /// How many of the failpoints were reached.
    struck: usize,
    /// Until when something may come late.
    quiet: Monotonic,
}

impl Exchange {
    /// A line of nodes; the first sends to the last, and the last to the first.
    fn new(count: usize, failpoints: &[Failpoint]) -> Self {
        let node = |n: usize| Node {
            identity: Arc::new(Identity::from_seed(&sha256(&[b"failpoints", &[n as u8]]))),
            core: None,
            disk: Disk::default(),
            disk_busy: Monotonic::START,
            full_until: Monotonic::START,
            run: 0,
            woken: Monotonic::NEVER,
            links: BTreeMap::new(),
            record: Bytes::new(),
            steps: 0,
            commits: Vec::new(),
            listened: Vec::new(),
            acking: 0,
            acknowledged: 0,
        };
        let mut wishes: Vec<Wish> =
            (1..count).map(|to| Wish::Connect { from: to - 1, to }).collect();
        let mut send = |from, to, wait, body: String| {
            wishes.push(Wish::Send { from, to, wait, body: body.into() });
        };
        let last = count - 1;
        send(0, last, Wait::Delivered, "first".to_owned());
        send(0, last, Wait::Queued, "second".to_owned());
        send(last, 0, Wait::Delivered, "an answer".to_owned());
        send(0, last, Wait::Delivered, "large ".repeat(20_000));
        send(0, last, Wait::Sent, "after the large one".to_owned());
        let mut exchange = Self {
            now: Monotonic::from_micros(1_000_000),
            nodes: (0..count).map(node).collect(),
            events: BTreeMap::new(),
            last_event: 0,
            last_link: 0,
            wishes,
            fulfilled: BTreeSet::new(),
            failpoints: failpoints.to_vec(),
            struck: 0,
            quiet: Monotonic::from_micros(1_000_000) + QUIET,
        };
        (0..count).for_each(|node| exchange.start(node));
        for wish in 0..exchange.wishes.len() {
            // The last two while the one before them is on its way.
            let after = Span::from_millis(40 * (wish as u64).min(count as u64 + 2));
            exchange.ask_after(after, wish);
        }
        exchange
    }

    fn peer(&self, node: usize) -> PeerId {
        self.nodes[node].identity.peer()
    }

    /// Lets everything come to its end.
    fn run(&mut self) {
        let end = self.now + END;
        while !self.is_over()
            && let Some(((when, _), (node, run, event))) = self.events.pop_first()
            && when <= end
        {
            self.now = self.now.max(when);
            self.happen(node, run, event);
            self.check();
        }
        assert!(self.is_over(), "not over: fulfilled {:?}, {:?}", self.fulfilled, self.left());
        // After a first fault a run may be shorter.
        let reached = self.struck == self.failpoints.len() || self.failpoints.len() > 1;
        assert!(reached, "the failpoint was not reached");
        self.check_whole();
    }

    fn left(&self) -> Vec<String> {
        let outbox = |node: &Node| format!("{:?} {:?}", node.disk.outbox, node.disk.held);
        self.nodes.iter().map(outbox).collect()
    }

    fn is_over(&self) -> bool {
        // A client may not have heard of its last acknowledgement.
        let acknowledged =
            |node: &Node| node.core.is_some() && node.position() == node.disk.inbox.len() as u64;
        let emptied = |node: &Node| node.disk.outbox.is_empty() && node.disk.held.is_empty();
        self.now >= self.quiet
            && self.fulfilled.len() == self.wishes.len()
            && self.nodes.iter().all(|node| acknowledged(node) && emptied(node))
    }

    /// What is true at any time.
    fn check(&self) {
        for node in 0..self.nodes.len() {
            let mut last: BTreeMap<(PeerId, Incarnation), Sequence> = BTreeMap::new();
            for message in self.nodes[node].disk.inbox.values() {
                let key = (message.key.sender, message.key.incarnation);
                let before = last.insert(key, message.key.sequence);
                assert!(before < Some(message.key.sequence), "out of order at node {node}");
            }
        }
    }

    /// What is true in the end: everything is there once, and nothing else is.
    fn check_whole(&self) {
        for node in 0..self.nodes.len() {
            let of_inbox =
                |message: &distmsg::model::Incoming| (message.key.sender, message.body.clone());
            let mut there: Vec<_> = self.nodes[node].disk.inbox.values().map(of_inbox).collect();
            let mut sent: Vec<_> = self
                .wishes
                .iter()
                .filter_map(|wish| match wish {
                    Wish::Send { from, to, body, .. } if *to == node => {
                        Some((self.peer(*from), body.clone()))
                    }
                    _ => None,
                })
                .collect();
            there.sort();
            sent.sort();
            assert!(there == sent, "the inbox of node {node} has {} messages", there.len());
            let heard: BTreeSet<u64> = self.nodes[node].listened.iter().copied().collect();
            let all: BTreeSet<u64> =
                self.nodes[node].disk.inbox.keys().map(|cursor| cursor.0).collect();
            assert_eq!(heard, all, "what the listener of node {node} was given");
        }
    }

    fn at(&mut self, node: usize, after: Span, event: Event) {
        self.last_event += 1;
        let run = self.nodes[node].run;
        self.events.insert((self.now + after, self.last_event), (node, run, event));
    }

    fn ask_after(&mut self, after: Span, wish: usize) {
        let from = match &self.wishes[wish] {
            Wish::Connect { from, .. } | Wish::Send { from, .. } => *from,
        };
        self.at(from, after, Event::Ask(wish));
    }

    fn time(&self) -> Now {
        let wall = Timestamp::from_millis(1_700_000_000_000 + self.now.as_micros() / 1000);
        Now { mono: self.now, wall }
    }

    fn happen(&mut self, node: usize, run: u64, event: Event) {
        match event {
            Event::Start => return self.start(node),
            // A client outlives the daemon that it asks.
            Event::Ask(wish) => return self.ask(node, wish),
            _ if self.nodes[node].run != run => return,
            _ => {}
        }
        match event {
            Event::Wake if self.nodes[node].woken <= self.now => {
                self.nodes[node].woken = Monotonic::NEVER;
                self.finish(node);
            }
            Event::To(input) => self.input(node, input),
            Event::Frame { link, frame } if self.nodes[node].links.contains_key(&link) => {
                let frame = Frame::decode(frame).expect("a node sends only what it can read");
                self.input(node, Input::Frames { link, frames: vec![frame] });
            }
            Event::Commit(transaction) => self.commit(node, transaction),
            Event::Answer(query) => {
                let completion = self.nodes[node].disk.answer(&query);
                self.input(node, Input::Store(completion));
            }
            _ => {}
        }
    }

    /// Counts a step, and says what goes wrong at it. A disk fails only where it is written to.
    fn step(&mut self, node: usize, commit: bool) -> Option<Kind> {
        let step = self.nodes[node].steps;
        self.nodes[node].steps += 1;
        if commit {
            self.nodes[node].commits.push(step);
        }
        let struck = |point: &&Failpoint| point.node == node && point.step == step;
        let kind = self.failpoints.iter().find(struck)?.kind;
        self.struck += 1;
        self.quiet = self.now + QUIET;
        if kind == Kind::Crash {
            self.crash(node);
        }
        (kind == Kind::Crash || commit).then_some(kind)
    }

    fn crashes(&mut self, node: usize) -> bool {
        self.step(node, false).is_some()
    }

    fn commit(&mut self, node: usize, transaction: Transaction) {
        let token = transaction.token;
        let kind = self.step(node, true);
        if kind == Some(Kind::Full) {
            self.nodes[node].full_until = self.now + FULL;
        }
        let full = self.nodes[node].full_until > self.now;
        let failed = || Completion::Failed { reason: "planted".to_owned() };
        let completion = match kind {
            Some(Kind::Crash) => return,
            Some(Kind::Broken) => failed(),
            Some(Kind::BrokenLate) => {
                self.nodes[node].disk.commit(transaction);
                failed()
            }
            _ if full || kind == Some(Kind::FullOnce) => Completion::Full { token },
            _ => self.nodes[node].disk.commit(transaction),
        };
        if !self.crashes(node) {
            self.input(node, Input::Store(completion));
        }
        if matches!(kind, Some(Kind::Broken | Kind::BrokenLate)) {
            assert!(self.nodes[node].core.is_none(), "node {node} runs with a broken disk");
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].core.is_some() {
            return;
        }
        let run = self.nodes[node].run;
        let settings = Settings {
            identity: Arc::clone(&self.nodes[node].identity),
            network: NetworkId::OPEN,
            name: None,
            advertise: vec![address_of(node)],
            links_auto: 0,
            limits: Limits::default(),
            about: About::default(),
        };
        let seed = sha256(&[b"run", &[node as u8], &run.to_be_bytes()]);
        let core = Core::new(settings, self.nodes[node].disk.snapshot(), self.time(), seed);
        self.nodes[node].core = Some(core);
        self.finish(node);
        let listen = Listen { name: "l".to_owned(), from: None, since: None, window: 2 };
        self.call(node, -1, Call::Other(Request::Listen(listen)));
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].core = None;
        self.nodes[node].run += 1;
        self.nodes[node].disk_busy = self.now;
        self.nodes[node].woken = Monotonic::NEVER;
        let links: Vec<_> = self.nodes[node].links.keys().copied().collect();
        links.into_iter().for_each(|link| self.break_link(node, link));
        self.at(node, AWAY, Event::Start);
        for wish in 0..self.wishes.len() {
            let asked = match &self.wishes[wish] {
                Wish::Connect { from, .. } | Wish::Send { from, .. } => *from == node,
            };
            if asked && !self.fulfilled.contains(&wish) {
                self.ask_after(AWAY + CLIENT_RETRY, wish);
            }
        }
    }

    fn ask(&mut self, node: usize, wish: usize) {
        if self.fulfilled.contains(&wish) {
            return;
        }
        let call = match self.wishes[wish].clone() {
            Wish::Connect { to, .. } => Call::Other(Request::Connect(Connect {
                peer: self.peer(to).to_string(),
                address: address_of(to).to_string(),
                alias: None,
                timeout_ms: 10_000,
            })),
            Wish::Send { to, body, wait, .. } => Call::Send(SendRequest {
                peer: self.peer(to).to_string(),
                body,
                subject: None,
                wait,
                timeout_ms: Some(20_000),
                key: Some(format!("key {wish}").into()),
            }),
        };
        self.call(node, wish as i64, call);
    }

    fn call(&mut self, node: usize, number: i64, call: Call) {
        let client = ClientId(self.nodes[node].run);
        let calls = vec![(RequestId::Number(number), call)];
        self.input(node, Input::Calls { client, calls });
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.time();
        if std::env::var_os("DISTMSG_SIM_TRACE").is_some() {
            let text = format!("{} {node} {input:?}", self.now.as_micros());
            eprintln!("{}", text.chars().take(300).collect::<String>());
        }
        if let Some(core) = &mut self.nodes[node].core {
            core.handle(now, input);
            self.finish(node);
        }
    }

    fn finish(&mut self, node: usize) {
        let now = self.time();
        let Some(core) = &mut self.nodes[node].core else { return };
        let effects = core.finish(now);
        let deadline = core.deadline();
        if deadline < self.nodes[node].woken && deadline < Monotonic::NEVER {
            self.nodes[node].woken = deadline;
            self.at(node, deadline.since(self.now), Event::Wake);
        }
        let run = self.nodes[node].run;
        for effect in effects {
            // Before it, and below after it.
            if self.nodes[node].run != run || self.crashes(node) {
                return;
            }
            if std::env::var_os("DISTMSG_SIM_TRACE").is_some() {
                let text = format!("    -> {node} {} {effect:?}", self.nodes[node].steps);
                eprintln!("{}", text.chars().take(300).collect::<String>());
            }
            self.execute(node, effect);
        }
        if self.nodes[node].run == run {
            self.crashes(node);
        }
    }

    fn execute(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { link, frames } => self.transmit(node, link, frames),
            Effect::Close { link, .. } => self.break_link(node, link),
            Effect::Dial { dial, address, .. } => self.dial(node, dial, &address),
            Effect::Transact(transaction) => {
                let latency = self.disk_latency(node);
                self.at(node, latency, Event::Commit(transaction));
            }
            Effect::Ask(query) => {
                let latency = self.disk_latency(node);
                self.at(node, latency, Event::Answer(query));
            }
            Effect::Tell { what, .. } => what.into_iter().for_each(|told| self.hear(node, told)),
            Effect::Record(bytes) => self.nodes[node].record = bytes,
            Effect::GivenUp(_) | Effect::Log { .. } => {}
            Effect::Stop { reason } => {
                assert_eq!(reason, "planted", "node {node} stopped");
                self.crash(node);
            }
        }
    }

    /// How long the disk takes. It works in order.
    fn disk_latency(&mut self, node: usize) -> Span {
        let done = self.now + Span::from_micros(700);
        let node = &mut self.nodes[node];
        node.disk_busy = node.disk_busy.max(done) + Span::from_micros(1);
        node.disk_busy.since(self.now)
    }

    fn transmit(&mut self, node: usize, link: LinkId, frames: Vec<Bytes>) {
        let Some((other, theirs)) = self.nodes[node].links.get(&link).copied() else { return };
        let bytes = frames.iter().map(Bytes::len).sum();
        for frame in frames {
            self.at(other, Span::from_millis(1), Event::Frame { link: theirs, frame });
        }
        let written = Event::To(Input::Written { link, bytes });
        self.at(node, Span::from_micros(100), written);
    }

    fn dial(&mut self, node: usize, dial: DialId, address: &Address) {
        let last = address.host().rsplit('.').next().expect("four numbers");
        let other = last.parse::<usize>().expect("a number") - 1;
        if self.nodes[other].core.is_none() {
            let failure = DialFailure::Unreachable { reason: "down".to_owned() };
            let failed = Event::To(Input::DialFailed { dial, failure });
            return self.at(node, Span::from_millis(1), failed);
        }
        self.last_link += 2;
        let (mine, theirs) = (LinkId(self.last_link), LinkId(self.last_link + 1));
        self.nodes[node].links.insert(mine, (other, theirs));
        self.nodes[other].links.insert(theirs, (node, mine));
        let up = |exchange: &Self, of: usize, link, dial| {
            Event::To(Input::LinkUp(LinkUp {
                link,
                peer: exchange.peer(of),
                dial,
                address: address_of(of),
                instance: exchange.nodes[of].run * 1000 + of as u64,
                record: exchange.nodes[of].record.clone(),
            }))
        };
        let (here, there) = (up(self, other, mine, Some(dial)), up(self, node, theirs, None));
        self.at(other, Span::from_micros(500), there);
        self.at(node, Span::from_micros(500), here);
    }

    fn break_link(&mut self, node: usize, link: LinkId) {
        let Some((other, theirs)) = self.nodes[node].links.remove(&link) else { return };
        self.nodes[other].links.remove(&theirs);
        for (node, link) in [(node, link), (other, theirs)] {
            let down = Input::LinkDown { link, reason: "cut".to_owned() };
            self.at(node, Span::from_millis(1), Event::To(down));
        }
    }

    fn hear(&mut self, node: usize, told: ToClient) {
        match told {
            ToClient::Reply { id: RequestId::Number(number), result } => {
                self.hear_reply(node, number, result);
            }
            ToClient::Event(Told::Message(event)) => self.hear_message(node, event),
            _ => {}
        }
    }

    fn hear_message(&mut self, node: usize, event: MessageEvent) {
        let MessageEvent { subscription, message } = event;
        let stored = self.nodes[node].disk.inbox.get(&distmsg::model::Cursor(message.cursor));
        let stored = stored.expect("a listener is given what is on disk");
        assert_eq!(message.bytes, stored.body.len() as u64);
        assert!(message.body.is_none_or(|body| body.as_bytes() == &*stored.body), "another body");
        assert_eq!(message.from, stored.key.sender.to_string());
        let state = &mut self.nodes[node];
        assert!(message.cursor > state.acknowledged, "{} was acknowledged", message.cursor);
        state.listened.push(message.cursor);
        state.acking = message.cursor;
        let ack = Ack { subscription, cursors: vec![message.cursor] };
        let calls = vec![(
            RequestId::Number(-1_000 - message.cursor as i64),
            Call::Other(Request::Ack(ack)),
        )];
        let client = ClientId(state.run);
        self.at(node, Span::from_micros(300), Event::To(Input::Calls { client, calls }));
    }

    /// What a client is told is true at that moment.
    fn hear_reply(&mut self, node: usize, number: i64, result: Result<Reply, Failure>) {
        let Ok(wish) = usize::try_from(number) else {
            result.expect("to listen and to acknowledge is always possible");
            if number <= -1_000 {
                let cursor = (-1_000 - number) as u64;
                assert!(
                    self.nodes[node].position() >= cursor,
                    "{cursor} is acknowledged, and not on disk"
                );
                let acknowledged = &mut self.nodes[node].acknowledged;
                *acknowledged = (*acknowledged).max(cursor);
            }
            return;
        };
        match (self.wishes[wish].clone(), result) {
            (Wish::Connect { .. }, Ok(Reply::Connected(_))) => {
                self.fulfilled.insert(wish);
            }
            (Wish::Send { to, body, wait, .. }, Ok(Reply::Sent(Sent { state, .. }))) => {
                let arrived = {
                    let disk = &self.nodes[to].disk;
                    disk.inbox.values().chain(disk.held.values()).any(|m| m.body == body)
                };
                let queued = self.nodes[node].disk.outbox.values().any(|m| m.body == body);
                match state {
                    Wait::Delivered => assert!(arrived, "send {wish} was not delivered"),
                    _ => assert!(arrived || queued, "send {wish} was not queued"),
                }
                assert!(wait != Wait::Delivered || state == Wait::Delivered);
                self.fulfilled.insert(wish);
            }
            (_, Err(failure)) => {
                let known = match failure.code {
                    ErrorCode::StorageFull => self.failpoints.iter().any(|point| {
                        point.node == node && matches!(point.kind, Kind::Full | Kind::FullOnce)
                    }),
                    ErrorCode::NotDelivered | ErrorCode::Busy | ErrorCode::Unreachable => true,
                    _ => false,
                };
                assert!(known, "request {wish} failed: {failure:?}");
                self.ask_after(CLIENT_RETRY, wish);
            }
            (wish, reply) => panic!("{wish:?}: {reply:?}"),
        }
    }
}

fn address_of(node: usize) -> Address {
    Address::new(&format!("10.0.0.{}", node + 1), 3000).expect("an address")
}

/// The failpoints of `DISTMSG_SIM_FAILPOINTS`.
fn asked_for() -> Option<Vec<Failpoint>> {
    let text = std::env::var("DISTMSG_SIM_FAILPOINTS").ok()?;
    let kinds = [Kind::Crash, Kind::FullOnce, Kind::Full, Kind::Broken, Kind::BrokenLate];
    let parse = |point: &str| {
        let [node, step, kind] = point.split(':').collect::<Vec<_>>()[..] else {
            panic!("{point}: write node:step:what")
        };
        Failpoint {
            node: node.parse().expect("a node"),
            step: step.parse().expect("a step"),
            kind: *kinds.iter().find(|known| format!("{known:?}") == kind).expect("a kind"),
        }
    };
    Some(text.split_whitespace().map(parse).collect())
}

/// Runs the exchange with each set of failpoints, and names the sets that fail.
fn sweep(count: usize, sets: Vec<Vec<Failpoint>>) {
    let sets = asked_for().map_or(sets, |asked| vec![asked]);
    let failed: Vec<String> = sets
        .iter()
        .filter(|set| std::panic::catch_unwind(|| Exchange::new(count, set).run()).is_err())
        .map(|set| {
            let name = |p: &Failpoint| format!("{}:{}:{:?}", p.node, p.step, p.kind);
            set.iter().map(name).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let name = failed.first().cloned().unwrap_or_default();
    assert!(
        failed.is_empty(),
        "{} of {} failed; DISTMSG_SIM_FAILPOINTS=\"{name}\" runs the first alone; all: {failed:?}",
        failed.len(),
        sets.len()
    );
}

/// An exchange in which nothing goes wrong.
fn calm(count: usize) -> Exchange {
    let mut exchange = Exchange::new(count, &[]);
    exchange.run();
    exchange
}

fn crash_everywhere(count: usize) {
    let calm = calm(count);
    let crash = |node| move |step| vec![Failpoint { node, step, kind: Kind::Crash }];
    let all: Vec<_> =
        (0..count).flat_map(|node| (0..calm.nodes[node].steps).map(crash(node))).collect();
    eprintln!("{count} nodes: {} failpoints", all.len());
    sweep(count, all);
}

fn fail_every_commit(count: usize, kinds: &[Kind]) {
    let calm = calm(count);
    let all: Vec<_> = (0..count)
        .flat_map(|node| calm.nodes[node].commits.iter().map(move |step| (node, *step)))
        .flat_map(|(node, step)| kinds.iter().map(move |kind| (node, step, *kind)))
        .map(|(node, step, kind)| vec![Failpoint { node, step, kind }])
        .collect();
    eprintln!("{count} nodes: {} failpoints", all.len());
    sweep(count, all);
}

#[test]
fn two_nodes_survive_a_crash_at_each_step() {
    crash_everywhere(2);
}

#[test]
fn three_nodes_survive_a_crash_at_each_step() {
    crash_everywhere(3);
}

#[test]
fn a_full_disk_at_each_commit_is_told_and_recovered_from() {
    fail_every_commit(2, &[Kind::FullOnce, Kind::Full]);
    fail_every_commit(3, &[Kind::FullOnce, Kind::Full]);
}

#[test]
fn a_broken_disk_at_each_commit_stops_the_node_and_loses_nothing() {
    fail_every_commit(2, &[Kind::Broken, Kind::BrokenLate]);
    fail_every_commit(3, &[Kind::Broken, Kind::BrokenLate]);
}

#[test]
fn three_nodes_survive_two_faults() {
    let pairs = std::env::var("DISTMSG_SIM_PAIRS")
        .map_or(PAIRS_DEFAULT, |pairs| pairs.parse().expect("a number"));
    let calm = calm(3);
    let mut random = Random::from_seed([8; 32]);
    let mut draw = || {
        let node = random.below(3) as usize;
        let state = &calm.nodes[node];
        match random.below(3) {
            0 => {
                let commits = &state.commits;
                let step = commits[random.below(commits.len() as u64) as usize];
                let kinds = [Kind::FullOnce, Kind::Full, Kind::Broken, Kind::BrokenLate];
                Failpoint { node, step, kind: kinds[random.below(4) as usize] }
            }
            _ => Failpoint { node, step: random.below(state.steps), kind: Kind::Crash },
        }
    };
    sweep(3, (0..pairs).map(|_| vec![draw(), draw()]).collect());
}
