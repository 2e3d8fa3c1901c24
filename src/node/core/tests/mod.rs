//! One core without a network or a disk: what it wants done is looked at.

mod changes;
mod desk;
mod links;
mod record;
mod storage;

use std::collections::VecDeque;

use super::*;
use crate::control::protocol::{Connect, Request};
use crate::model::{Outgoing, Row, Sequence, Timestamp};
use crate::store::op::{Answer, Op, PeerRow, Pruned, Question};

/// A disk that only knows peers and what is to be sent.
#[derive(Default)]
pub(super) struct Disk {
    /// Whether there is no room.
    pub(super) full: bool,
    pub(super) peers: BTreeMap<PeerId, PeerRow>,
    /// Changes in the largest transaction.
    pub(super) ops_max: usize,
    /// Messages that were put into the outbox, in order.
    pub(super) queued: Vec<(PeerId, Sequence)>,
    /// From when on keys were kept, and messages of the inbox, each time that something was to go.
    pub(super) keys_kept: Vec<Timestamp>,
    pub(super) inbox_kept: Vec<Timestamp>,
    /// Until when keys stay that were settled.
    pub(super) settled: Vec<Timestamp>,
    outbox: BTreeMap<Row, Outgoing>,
}

impl Disk {
    fn commit(&mut self, transaction: Transaction) -> Completion {
        let Transaction { token, ops } = transaction;
        self.ops_max = self.ops_max.max(ops.len());
        if self.full {
            return Completion::Full { token };
        }
        for op in ops {
            match op {
                Op::Peer(row) => {
                    let alias = row.alias.as_ref();
                    let taken = |other: &PeerRow| other.peer != row.peer && other.alias.is_some();
                    let mut others = self.peers.values().filter(|other| taken(other));
                    assert!(others.all(|other| other.alias.as_ref() != alias), "not unique");
                    self.peers.insert(row.peer, *row);
                }
                Op::DropPeer(peer) => {
                    self.peers.remove(&peer);
                }
                Op::Queue(message) => {
                    self.queued.push((message.recipient, message.sequence));
                    self.outbox.insert(message.row, *message);
                }
                Op::PruneKeys { expired_before } => self.keys_kept.push(expired_before),
                Op::Prune { received_before, .. } => self.inbox_kept.push(received_before),
                Op::KeyState { expires, .. } => self.settled.push(expires),
                Op::Unqueue { rows } => self.outbox.retain(|row, _| !rows.contains(row)),
                _ => {}
            }
        }
        Completion::Committed { token, pruned: Pruned::default(), kept_windows: Vec::new() }
    }

    fn answer(&self, query: &Query) -> Option<Completion> {
        let token = query.token;
        let (recipient, after) = match &query.what {
            Question::OutboxOf { recipient, after, .. } => (recipient, after),
            Question::Key { .. } => {
                return Some(Completion::Answered { token, answer: Answer::Key(None) });
            }
            _ => return None,
        };
        let mine =
            |(row, message): &(&Row, &Outgoing)| *row > after && message.recipient == *recipient;
        let messages = self.outbox.iter().filter(mine).map(|(_, message)| message.clone());
        let answer = Answer::OutboxOf(messages.collect());
        Some(Completion::Answered { token, answer })
    }
}

/// A core, and what it wanted done that tests look at.
pub(super) struct Lone {
    pub(super) core: Core,
    pub(super) now: Now,
    pub(super) disk: Disk,
    /// How far the wall clock is off, in milliseconds.
    pub(super) clock_ms: i64,
    /// Dials that did not end.
    pub(super) dials: Vec<DialId>,
    pub(super) closed: Vec<LinkId>,
    pub(super) told: Vec<ToClient>,
    /// The newest record of its own.
    pub(super) record: Bytes,
}

fn settings(seed: u8, limits: Limits) -> Settings {
    Settings {
        identity: Arc::new(Identity::from_seed(&[seed; 32])),
        network: NetworkId::OPEN,
        name: None,
        advertise: Vec::new(),
        links_auto: 0,
        limits,
        about: About::default(),
    }
}

/// The time so many microseconds after the beginning, by a clock that is off.
fn time(micros: u64, clock_ms: i64) -> Now {
    let wall = 1_700_000_000_000 + micros / 1_000;
    Now {
        mono: Monotonic::from_micros(1_000_000_000 + micros),
        wall: Timestamp::from_millis(wall.saturating_add_signed(clock_ms)),
    }
}

impl Lone {
    pub(super) fn new(seed: u8) -> Self {
        Self::with(seed, Limits::default(), Snapshot::default(), 0)
    }

    pub(super) fn with(seed: u8, limits: Limits, snapshot: Snapshot, clock_ms: i64) -> Self {
        let now = time(0, clock_ms);
        let core = Core::new(settings(seed, limits), snapshot, now, [seed; 32]);
        let mut lone = Self {
            core,
            now,
            disk: Disk::default(),
            clock_ms,
            dials: Vec::new(),
            closed: Vec::new(),
            told: Vec::new(),
            record: Bytes::new(),
        };
        lone.finish();
        lone
    }

    /// Does what is due.
    pub(super) fn finish(&mut self) {
        let mut effects = VecDeque::from(self.core.finish(self.now));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Transact(transaction) => {
                    let done = self.disk.commit(transaction);
                    self.core.handle(self.now, Input::Store(done));
                    effects.extend(self.core.finish(self.now));
                }
                Effect::Ask(query) => {
                    if let Some(answer) = self.disk.answer(&query) {
                        self.core.handle(self.now, Input::Store(answer));
                        effects.extend(self.core.finish(self.now));
                    }
                }
                Effect::Dial { dial, .. } => self.dials.push(dial),
                Effect::Close { link, .. } => self.closed.push(link),
                Effect::Tell { what, .. } => self.told.extend(what),
                Effect::Record(record) => self.record = record,
                _ => {}
            }
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.finish();
    }

    pub(super) fn call(&mut self, request: Request) {
        let calls = vec![(RequestId::Number(1), Call::Other(request))];
        self.input(Input::Calls { client: ClientId(1), calls });
    }

    pub(super) fn connect(&mut self, peer: PeerId) {
        self.call(Request::Connect(Connect {
            peer: peer.to_string(),
            address: "192.0.2.1:3000".to_owned(),
            alias: None,
            timeout_ms: 10_000,
        }));
    }

    /// The oldest dial ends with a link to a node.
    pub(super) fn reach(&mut self, other: &Self, link: u64) -> LinkId {
        let dial = self.dials.remove(0);
        self.link(other, link, Some(dial))
    }

    pub(super) fn link(&mut self, other: &Self, link: u64, dial: Option<DialId>) -> LinkId {
        let link = LinkId(link);
        self.input(Input::LinkUp(LinkUp {
            link,
            peer: other.core.peer(),
            dial,
            address: "192.0.2.1:3000".parse().expect("an address"),
            instance: 1,
            record: other.record.clone(),
        }));
        link
    }

    pub(super) fn unlink(&mut self, link: LinkId) {
        self.input(Input::LinkDown { link, reason: "too many links".to_owned() });
    }

    /// Lets time pass up to the next thing to do, or the end; false at the end.
    pub(super) fn pass(&mut self, end: Monotonic) -> bool {
        let next = self.core.deadline().max(self.now.mono + Span::from_millis(1)).min(end);
        let micros = next.since(time(0, 0).mono).as_micros();
        self.now = time(micros, self.clock_ms);
        self.finish();
        next < end
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, span: Span) {
        let end = self.now.mono + span;
        while self.pass(end) {}
    }

    /// Sets the clock.
    pub(super) fn set_clock(&mut self, clock_ms: i64) {
        self.clock_ms = clock_ms;
        let micros = self.now.mono.since(time(0, 0).mono).as_micros();
        self.now = time(micros, clock_ms);
    }
}

/// A disk on which the operator has connected a peer.
fn keeping(peer: PeerId) -> Snapshot {
    let dial = "192.0.2.1:3000".parse().ok();
    let row = PeerRow { peer, record: None, alias: None, dial };
    Snapshot { peers: vec![row], ..Snapshot::default() }
}
