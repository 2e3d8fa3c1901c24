//! Two nodes, the enemies between them, and what must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use distmsg::control::codec::encode_outgoing;
use distmsg::control::protocol::{Event, LogLevel, Reply, Wait};
use distmsg::control::{Call, Outgoing as ToClient, RequestId};
use distmsg::crypto::{Identity, Random, sha256};
use distmsg::model::limits::{CONTROL_LINE_BYTES_MAX, FRAME_BYTES_MAX, RECORD_BYTES_MAX};
use distmsg::model::{Address, Limits, Monotonic, NetworkId, Now, PeerId, Record, Span, Timestamp};
use distmsg::node::core::{
    About, ClientId, Core, DialFailure, DialId, Effect, Input, LinkId, LinkUp, Settings,
};
use distmsg::store::op::{Completion, Query, Transaction};
use distmsg::wire::{Frame, decode_record};

use super::super::disk::Disk;
use super::enemy::Enemy;

/// Inputs of a node that one fuzzed input may cause: what is longer shows nothing new.
const WORK_MAX: usize = 8_000;
/// Rounds in which a node that nobody disturbs has done what is due.
const ROUNDS_MAX: usize = 64;
/// Rounds in which two nodes that answer each other are let go on.
const TURNS_MAX: usize = 60;
/// Frames that wait for the enemy's decision on one link; the oldest are lost.
const SAID_MAX: usize = 256;
/// Frames that the enemies remember.
const KEPT_MAX: usize = 64;
/// Dials that wait for their outcome.
const DIALS_MAX: usize = 32;
/// Deadlines in a second in which nothing happens.
const IDLE_DEADLINES_MAX: u64 = 200;
/// Clients of one node at once.
const CLIENTS: usize = 3;
/// What a node may hand to a link beyond the bound of its queue: what it was about to say.
const QUEUE_SLACK_BYTES: usize = 1024 * 1024;

/// The bounds of the nodes, as narrow as a configuration may make them, so that they are reached.
fn limits() -> Limits {
    Limits {
        message_bytes_max: 256 * 1024,
        link_floods_burst: 50,
        seen_entries_max: 1_000,
        relay_bytes_max: 1024 * 1024,
        link_queue_bytes_max: 256 * 1024,
        records_max: 16,
        sessions_max: 16,
        links_max: 4,
        clients_max: 4,
        inbox_bytes_max: 1024 * 1024,
        outbox_bytes_max: 1024 * 1024,
        ..Limits::default()
    }
}

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// One of the enemies.
    Enemy(usize),
    /// The other node, and its end.
    Node(LinkId),
}

pub(super) struct Link {
    pub(super) other: Other,
    /// What was said on it and nobody has heard yet.
    pub(super) said: VecDeque<Bytes>,
    /// Handed over, and not reported as written.
    unwritten: usize,
    /// Nothing leaves.
    stalled: bool,
}

impl Link {
    pub(super) const fn new(other: Other) -> Self {
        Self { other, said: VecDeque::new(), unwritten: 0, stalled: false }
    }
}

pub(super) struct Dial {
    pub(super) dial: DialId,
    pub(super) address: Address,
    pub(super) expected: Option<PeerId>,
    pub(super) probe: bool,
}

enum Asked {
    Transact(Transaction),
    Ask(Query),
}

/// How a disk does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Full,
    Broken,
    /// The commit fails, but it is there later all the same.
    BrokenLate,
}

pub(super) struct Node {
    pub(super) identity: Arc<Identity>,
    pub(super) core: Option<Core>,
    pub(super) disk: Disk,
    pub(super) record: Bytes,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) dials: VecDeque<Dial>,
    asked: VecDeque<Asked>,
    /// Inputs that follow from what it did.
    next: VecDeque<Input>,
    /// Requests without a reply, with the body if there is one.
    calls: BTreeMap<(ClientId, i64), Option<Bytes>>,
    last_call: i64,
    /// The clients that are connected. No two have the same ID, ever.
    clients: [ClientId; CLIENTS],
    last_client: u64,
    /// Bodies handed in, ever.
    handed: BTreeSet<Bytes>,
    /// What clients know of their subscriptions and leases.
    pub(super) subscriptions: Vec<(ClientId, u64)>,
    pub(super) cursors: Vec<u64>,
    runs: u64,
    /// Inputs were given and nothing was finished.
    open: bool,
}

pub(super) struct World {
    pub(super) now: Now,
    pub(super) random: Random,
    pub(super) enemies: [Enemy; 2],
    pub(super) nodes: [Node; 2],
    pub(super) kept: VecDeque<Bytes>,
    /// Inputs are given without finishing in between.
    pub(super) batching: bool,
    last_link: u64,
    work: usize,
    idle: Idle,
}

/// How long nothing has happened but time.
struct Idle {
    /// What had been worked when it began.
    work: usize,
    since: Monotonic,
    /// Deadlines that have come since then.
    deadlines: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Now {
            mono: Monotonic::from_micros(1_000_000),
            wall: Timestamp::from_millis(1_700_000_000_000),
        };
        let node = |name: u8| Node {
            identity: Arc::new(Identity::from_seed(&sha256(&[b"fuzzed", &[name]]))),
            core: None,
            disk: Disk::default(),
            record: Bytes::new(),
            links: BTreeMap::new(),
            dials: VecDeque::new(),
            asked: VecDeque::new(),
            next: VecDeque::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            clients: [ClientId(1), ClientId(2), ClientId(3)],
            last_client: 3,
            handed: BTreeSet::new(),
            subscriptions: Vec::new(),
            cursors: Vec::new(),
            runs: 0,
            open: false,
        };
        let mut world = Self {
            now,
            random: Random::from_seed([7; 32]),
            enemies: [Enemy::new(0), Enemy::new(1)],
            nodes: [node(0), node(1)],
            kept: VecDeque::new(),
            batching: false,
            last_link: 0,
            work: 0,
            idle: Idle { work: 0, since: now.mono, deadlines: 0 },
        };
        for side in 0..2 {
            world.start(side);
            world.link(side, 0);
        }
        world.settle();
        world
    }

    /// Enough was tried.
    pub(super) fn is_over(&self) -> bool {
        self.work > WORK_MAX
    }

    pub(super) fn peer(&self, side: usize) -> PeerId {
        self.nodes[side].identity.peer()
    }

    /// The record that a node hands out.
    pub(super) fn record_of(&self, side: usize) -> Record {
        let bytes = self.nodes[side].record.clone();
        decode_record(bytes).expect("a node makes good records").record
    }

    /// A node starts from what its disk has.
    pub(super) fn start(&mut self, side: usize) {
        self.crash(side);
        let node = &mut self.nodes[side];
        node.runs += 1;
        let settings = Settings {
            identity: Arc::clone(&node.identity),
            network: NetworkId::OPEN,
            name: ["alice", "bob"][side].parse().ok(),
            advertise: vec![address_of(side)],
            links_auto: 2,
            limits: limits(),
            about: About::default(),
        };
        let seed = sha256(&[b"run", &[u8::from(side == 1)], &node.runs.to_be_bytes()]);
        node.core = Some(Core::new(settings, node.disk.snapshot(), self.now, seed));
        self.finish(side);
    }

    /// A node is gone, with everything that is not on its disk.
    pub(super) fn crash(&mut self, side: usize) {
        let links: Vec<_> = self.nodes[side].links.keys().copied().collect();
        links.into_iter().for_each(|link| self.cut(side, link));
        let node = &mut self.nodes[side];
        node.core = None;
        node.dials.clear();
        node.asked.clear();
        node.next.clear();
        node.calls.clear();
        node.subscriptions.clear();
        node.cursors.clear();
        node.open = false;
    }

    /// Links a node with an enemy.
    pub(super) fn link(&mut self, side: usize, enemy: usize) {
        let record = self.enemies[enemy].record(self.now, &self.random_record());
        let (peer, other) = (self.enemies[enemy].identity.peer(), Other::Enemy(enemy));
        self.up(side, peer, other, None, record);
    }

    /// The plainest record that an enemy may have.
    fn random_record(&self) -> super::enemy::Claims {
        super::enemy::Claims { sequence: self.now.wall.as_millis(), ..Default::default() }
    }

    /// Links the nodes with each other.
    pub(super) fn link_directly(&mut self, dial: Option<DialId>) {
        if self.nodes.iter().any(|node| node.core.is_none()) {
            return;
        }
        let ends = [LinkId(self.last_link + 1), LinkId(self.last_link + 2)];
        self.last_link += 2;
        let [alice, bob] = ends;
        self.nodes[0].links.insert(alice, Link::new(Other::Node(bob)));
        self.nodes[1].links.insert(bob, Link::new(Other::Node(alice)));
        let dials = [dial, None];
        for side in 0..2 {
            let record = self.nodes[1 - side].record.clone();
            self.tell_up(side, ends[side], self.peer(1 - side), dials[side], record);
        }
    }

    pub(super) fn up(
        &mut self,
        side: usize,
        peer: PeerId,
        other: Other,
        dial: Option<DialId>,
        record: Bytes,
    ) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.nodes[side].links.insert(link, Link::new(other));
        self.tell_up(side, link, peer, dial, record);
    }

    /// A node hears of a link, if that is not over already.
    fn tell_up(
        &mut self,
        side: usize,
        link: LinkId,
        peer: PeerId,
        dial: Option<DialId>,
        record: Bytes,
    ) {
        let address = address_of(match self.nodes[side].links.get(&link) {
            None => return,
            Some(Link { other: Other::Enemy(enemy), .. }) => 2 + enemy,
            Some(_) => 1 - side,
        });
        let instance = self.nodes[1 - side].runs;
        let up = LinkUp { link, peer, dial, address, instance, record };
        self.input(side, Input::LinkUp(up));
    }

    /// A link breaks; both ends hear of it.
    pub(super) fn cut(&mut self, side: usize, link: LinkId) {
        let Some(gone) = self.nodes[side].links.remove(&link) else { return };
        let reason = || "cut".to_owned();
        if let Other::Node(theirs) = gone.other
            && self.nodes[1 - side].links.remove(&theirs).is_some()
        {
            self.input(1 - side, Input::LinkDown { link: theirs, reason: reason() });
        }
        self.input(side, Input::LinkDown { link, reason: reason() });
    }

    /// Stops or resumes what leaves on a link.
    pub(super) fn stall(&mut self, side: usize, link: LinkId, stalled: bool) {
        let Some(state) = self.nodes[side].links.get_mut(&link) else { return };
        state.stalled = stalled;
        if !stalled {
            let bytes = std::mem::take(&mut state.unwritten);
            self.input(side, Input::Written { link, bytes });
        }
    }

    /// A node hears frames, if they are any. Else the link ends, as links do.
    pub(super) fn hear(&mut self, side: usize, link: LinkId, frames: &[Bytes]) {
        if !self.nodes[side].links.contains_key(&link) {
            return;
        }
        let decoded: Result<Vec<_>, _> = frames.iter().cloned().map(Frame::decode).collect();
        match decoded {
            Ok(frames) => self.input(side, Input::Frames { link, frames }),
            Err(_) => self.cut(side, link),
        }
    }

    /// What comes next on a link is taken off it, to be passed on, altered or lost.
    pub(super) fn take(&mut self, side: usize, link: LinkId) -> Option<Bytes> {
        let frame = self.nodes[side].links.get_mut(&link)?.said.pop_front()?;
        self.keep(frame.clone());
        Some(frame)
    }

    fn keep(&mut self, frame: Bytes) {
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(frame);
    }

    /// Whom a frame that a node said on a link reaches, if nobody interferes.
    pub(super) fn way(&self, side: usize, link: LinkId) -> Option<(usize, LinkId)> {
        match self.nodes[side].links.get(&link)?.other {
            Other::Node(theirs) => Some((1 - side, theirs)),
            Other::Enemy(enemy) => {
                let mut links = self.nodes[1 - side].links.iter();
                let there = links.find(|(_, link)| link.other == Other::Enemy(enemy))?;
                Some((1 - side, *there.0))
            }
        }
    }

    /// Carries the next frame on a link to where it goes; false if there is none.
    pub(super) fn pass(&mut self, side: usize, link: LinkId) -> bool {
        let way = self.way(side, link);
        let Some(frame) = self.take(side, link) else { return false };
        if let Some((to, on)) = way {
            self.hear(to, on, &[frame]);
        }
        true
    }

    /// Everything is carried and stored until the nodes have come to rest.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut quiet = true;
            for side in 0..2 {
                while self.complete(side, Fate::Done) {
                    quiet = false;
                }
                let links: Vec<_> = self.nodes[side].links.keys().copied().collect();
                for link in links {
                    while !self.is_over() && self.pass(side, link) {
                        quiet = false;
                    }
                }
            }
            if quiet || self.is_over() {
                return;
            }
        }
    }

    /// The store does what it was asked first; false if there is nothing.
    pub(super) fn complete(&mut self, side: usize, fate: Fate) -> bool {
        let failed = || Completion::Failed { reason: "broken".to_owned() };
        let node = &mut self.nodes[side];
        let Some(asked) = node.asked.pop_front() else { return false };
        let completion = match (asked, fate) {
            (Asked::Ask(query), Fate::Done | Fate::Full) => node.disk.answer(&query),
            (Asked::Transact(transaction), Fate::Full) => {
                Completion::Full { token: transaction.token }
            }
            (Asked::Transact(transaction), Fate::Done) => node.disk.commit(transaction),
            (Asked::Transact(transaction), Fate::BrokenLate) => {
                node.disk.commit(transaction);
                failed()
            }
            (_, Fate::Broken | Fate::BrokenLate) => failed(),
        };
        self.check_inbox(side);
        let broke = matches!(completion, Completion::Failed { .. });
        self.input(side, Input::Store(completion));
        if broke {
            self.finish(side);
            assert!(self.nodes[side].core.is_none(), "a node goes on with a broken disk");
        }
        true
    }

    /// What came into an inbox was sent, by whom it says.
    fn check_inbox(&mut self, side: usize) {
        let other = self.peer(1 - side);
        for message in self.nodes[side].disk.take_news() {
            let sender = message.key.sender;
            let handed = &self.nodes[1 - side].handed;
            let is_enemy = self.enemies.iter().any(|enemy| enemy.identity.peer() == sender);
            let is_real = sender == other && handed.contains(&message.body);
            assert!(is_enemy || is_real, "node {side} has a message that nobody sent: {message:?}");
        }
    }

    /// A client makes a request.
    pub(super) fn call(&mut self, side: usize, client: ClientId, call: Call) {
        let node = &mut self.nodes[side];
        if node.core.is_none() {
            return;
        }
        node.last_call += 1;
        let body = match &call {
            Call::Send(request) => Some(request.body.clone()),
            Call::Other(_) => None,
        };
        node.handed.extend(body.clone());
        node.calls.insert((client, node.last_call), body);
        let calls = vec![(RequestId::Number(node.last_call), call)];
        self.input(side, Input::Calls { client, calls });
    }

    /// One of a node's clients.
    pub(super) fn client(&self, side: usize, which: u8) -> ClientId {
        self.nodes[side].clients[usize::from(which) % CLIENTS]
    }

    /// A client leaves, and another one comes.
    pub(super) fn leave(&mut self, side: usize, which: u8) {
        let gone = self.client(side, which);
        let node = &mut self.nodes[side];
        node.last_client += 1;
        node.clients[usize::from(which) % CLIENTS] = ClientId(node.last_client);
        node.calls.retain(|(of, _), _| *of != gone);
        node.subscriptions.retain(|(of, _)| *of != gone);
        self.input(side, Input::ClientGone(gone));
    }

    /// A number for bodies that no other body has.
    pub(super) fn next_body(&self, side: usize) -> u64 {
        let node = &self.nodes[side];
        (node.runs << 32) | node.last_call.unsigned_abs()
    }

    /// Time passes on the nodes' own clocks, and on the wall.
    pub(super) fn wait(&mut self, span: Span) {
        self.finish_all();
        self.now.mono = self.now.mono + span;
        self.now.wall = self.now.wall + span;
        self.finish_all();
    }

    /// Time passes until something is due.
    pub(super) fn wait_for_deadline(&mut self) {
        self.finish_all();
        let deadlines = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let next = deadlines.map(Core::deadline).min().unwrap_or(Monotonic::NEVER);
        if next < Monotonic::NEVER {
            self.wait(next.since(self.now.mono));
            self.check_idle();
        }
    }

    /// Nodes that nothing happens to sleep most of the time.
    fn check_idle(&mut self) {
        let idle = &mut self.idle;
        if idle.work != self.work {
            *idle = Idle { work: self.work, since: self.now.mono, deadlines: 0 };
        }
        idle.deadlines += 1;
        let (count, span) = (idle.deadlines, self.now.mono.since(idle.since));
        let most = IDLE_DEADLINES_MAX * (1 + span.as_millis() / 1_000);
        assert!(count <= most, "{count} deadlines in {span:?} in which nothing happened");
    }

    fn finish_all(&mut self) {
        (0..2).for_each(|side| self.finish(side));
    }

    pub(super) fn input(&mut self, side: usize, input: Input) {
        let node = &mut self.nodes[side];
        let Some(core) = &mut node.core else { return };
        self.work += 1;
        core.handle(self.now, input);
        node.open = true;
        if !self.batching {
            self.finish(side);
        }
    }

    /// Has a node do what is to be done, and everything that follows from it at once.
    pub(super) fn finish(&mut self, side: usize) {
        let mut idle = 0;
        loop {
            let now = self.now;
            let Some(core) = &mut self.nodes[side].core else { return };
            let effects = core.finish(now);
            self.nodes[side].open = false;
            for effect in effects {
                self.execute(side, effect);
                if self.nodes[side].core.is_none() {
                    return;
                }
            }
            let node = &mut self.nodes[side];
            let Some(core) = &mut node.core else { return };
            let next: Vec<_> = node.next.drain(..).collect();
            idle = if next.is_empty() { idle + 1 } else { 0 };
            self.work += next.len();
            next.into_iter().for_each(|input| core.handle(now, input));
            if idle > 0 && core.deadline() > now.mono {
                return;
            }
            assert!(idle < ROUNDS_MAX, "node {side} is due for ever: {:?}", core.deadline());
        }
    }

    fn execute(&mut self, side: usize, effect: Effect) {
        let node = &mut self.nodes[side];
        match effect {
            Effect::Send { link, frames } => {
                frames.iter().for_each(check_frame);
                // It may not have heard yet that the link is down.
                let Some(state) = node.links.get_mut(&link) else { return };
                let bytes = frames.iter().map(Bytes::len).sum::<usize>();
                state.unwritten += bytes;
                let most = limits().link_queue_bytes_max + QUEUE_SLACK_BYTES;
                assert!(state.unwritten <= most, "{} bytes wait on a link", state.unwritten);
                state.said.extend(frames);
                if !state.stalled {
                    state.unwritten = 0;
                    node.next.push_back(Input::Written { link, bytes });
                }
                let beyond = state.said.len().saturating_sub(SAID_MAX);
                match state.other {
                    Other::Enemy(_) => drop(state.said.drain(..beyond)),
                    // Nothing is lost between the nodes but with their link.
                    Other::Node(_) if beyond > 0 => self.end(side, link, "too slow"),
                    Other::Node(_) => {}
                }
            }
            Effect::Close { link, reason: _, text } => self.end(side, link, &text),
            Effect::Dial { dial, address, expected, probe } => {
                if node.dials.len() >= DIALS_MAX {
                    let reason = "busy".to_owned();
                    let failure = DialFailure::Unreachable { reason };
                    node.next.push_back(Input::DialFailed { dial, failure });
                } else {
                    node.dials.push_back(Dial { dial, address, expected, probe });
                }
            }
            Effect::Transact(transaction) => node.asked.push_back(Asked::Transact(transaction)),
            Effect::Ask(query) => node.asked.push_back(Asked::Ask(query)),
            Effect::Tell { client, what } => {
                what.into_iter().for_each(|what| self.tell(side, client, &what));
            }
            Effect::Record(record) => {
                assert!(record.len() <= RECORD_BYTES_MAX);
                node.record = record;
            }
            Effect::Log { caller, .. } => {
                let result = Ok(Reply::Log(LogLevel { level: "info".to_owned() }));
                let reply = ToClient::Reply { id: caller.request, result };
                self.tell(side, caller.client, &reply);
            }
            Effect::GivenUp(messages) => assert!(!messages.is_empty(), "none were given up"),
            Effect::Stop { reason: _ } => self.crash(side),
        }
    }

    /// A link is over; both ends hear of it after what they do now.
    fn end(&mut self, side: usize, link: LinkId, reason: &str) {
        let Some(gone) = self.nodes[side].links.remove(&link) else { return };
        let down = |link| Input::LinkDown { link, reason: reason.to_owned() };
        self.nodes[side].next.push_back(down(link));
        if let Other::Node(theirs) = gone.other
            && self.nodes[1 - side].links.remove(&theirs).is_some()
        {
            self.nodes[1 - side].next.push_back(down(theirs));
        }
    }

    fn tell(&mut self, side: usize, client: ClientId, what: &ToClient) {
        let mut line = Vec::new();
        encode_outgoing(what, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        let lines: Vec<_> = line.split(|byte| *byte == b'\n').collect();
        let longest = lines.iter().map(|line| line.len()).max();
        assert!(longest <= Some(CONTROL_LINE_BYTES_MAX), "a line of {longest:?} bytes");
        let count = match what {
            ToClient::Messages { messages, .. } => messages.len(),
            _ => 1,
        };
        assert_eq!(lines.len(), count, "each is a line: {what:?}");
        let node = &mut self.nodes[side];
        if !node.clients.contains(&client) {
            // It has left, and the shell drops what is for it.
            return;
        }
        match what {
            ToClient::Event(Event::Message(event)) => node.cursors.push(event.message.cursor),
            ToClient::Messages { messages, .. } => {
                node.cursors.extend(messages.iter().map(|message| message.cursor));
            }
            ToClient::Event(_) => {}
            ToClient::Reply { id: RequestId::Number(number), result } => {
                let asked = node.calls.remove(&(client, *number));
                let Some(body) = asked else {
                    panic!("node {side} replies to what was not asked: {what:?}");
                };
                match result {
                    Ok(Reply::Subscribed(reply)) => {
                        node.subscriptions.push((client, reply.subscription));
                    }
                    Ok(Reply::Sent(sent)) if sent.state == Wait::Delivered && !sent.duplicate => {
                        let body = body.expect("the reply to a send");
                        self.check_delivered(side, &body);
                    }
                    _ => {}
                }
            }
            ToClient::Reply { id, .. } => panic!("nobody asked by that ID: {id:?}"),
        }
    }

    /// What was receipted is on the recipient's disk.
    fn check_delivered(&self, side: usize, body: &Bytes) {
        let disk = &self.nodes[1 - side].disk;
        let mut there = disk.inbox.values().chain(disk.held.values());
        let mine =
            there.any(|message| message.key.sender == self.peer(side) && message.body == *body);
        assert!(mine, "node {side} was told of a delivery that was none");
    }
}

/// A node says only what it could read.
fn check_frame(frame: &Bytes) {
    assert!(frame.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", frame.len());
    match Frame::decode(frame.clone()) {
        Ok(Frame::Hello(hello)) => panic!("hellos are the link's: {hello:?}"),
        Ok(read) => assert_eq!(read.encode(), *frame, "another form of {read:?}"),
        Err(error) => panic!("a frame that nobody reads: {error}: {frame:?}"),
    }
}

/// Where a node, or an enemy, can be dialled.
pub(super) fn address_of(who: usize) -> Address {
    Address::new(&format!("10.0.0.{}", who + 1), 3000).expect("an address")
}
