//! What must be true, kept apart from the product and simple.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use distmsg::crypto::sha256;
use distmsg::model::{Incarnation, Incoming, Monotonic, PeerId, Sequence, Span};

use crate::world::Told;

/// Frames remembered, to see whether one crosses a link twice.
const CROSSINGS_MAX: usize = 200_000;

/// How long a node remembers what passed.
const MEMORY: Span = Span::from_secs(60);

/// A message that was handed in at a node.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) size: usize,
    pub(crate) at: Monotonic,
    /// Attempts of its sender for its recipient, before it.
    attempts_before: u64,
    /// How many messages its sender had handed in for its recipient, before it.
    turn: u64,
}

/// What became of it at its recipient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) after: Span,
    /// Attempts that its sender made for its recipient meanwhile.
    pub(crate) attempts: u64,
    /// How many messages went before it.
    pub(crate) turn: u64,
}

/// An attempt to deliver an envelope: its commitment, and which attempt it is.
type Attempt = ([u8; 32], u16);

/// Watches everything that reaches an inbox, and everything that a client is told.
#[derive(Debug, Default)]
pub(crate) struct Referee {
    handed: BTreeMap<u64, Handed>,
    arrived: BTreeMap<u64, Arrived>,
    /// Messages that were in the outbox, on disk: they arrive, whatever a client was told.
    queued: BTreeSet<u64>,
    /// Messages handed in at one node for another.
    turns: BTreeMap<(usize, usize), u64>,
    /// The last message of each run of a sender that a node has.
    last: BTreeMap<(usize, PeerId, Incarnation), (Sequence, u64)>,
    /// Envelopes that crossed a link in one direction, and when: by node, run of the node, and the
    /// node at the other end.
    crossings: HashMap<(usize, u64, usize, u64), Monotonic>,
    /// Attempts of each sender for each recipient: each envelope, and each further attempt of it.
    attempts: BTreeMap<(PeerId, PeerId), BTreeSet<Attempt>>,
}

/// The body of a message: its number, and bytes that follow from it.
pub(crate) fn body_of(number: u64, size: usize) -> Bytes {
    let mut body = Vec::with_capacity(size + 32);
    body.extend_from_slice(&number.to_be_bytes());
    let filler = sha256(&[b"body", &number.to_be_bytes()]);
    while body.len() < size {
        body.extend_from_slice(&filler);
    }
    body.truncate(size.max(8));
    body.into()
}

impl Referee {
    pub(crate) fn on_handed(
        &mut self,
        number: u64,
        (from, to): (usize, usize),
        (sender, recipient): (PeerId, PeerId),
        size: usize,
        at: Monotonic,
    ) {
        let attempts_before = self.attempts_of(sender, recipient);
        let turns = self.turns.entry((from, to)).or_insert(0);
        let turn = *turns;
        *turns += 1;
        let handed = Handed { from, to, size, at, attempts_before, turn };
        assert!(
            self.handed.insert(number, handed).is_none(),
            "message {number} is handed in twice"
        );
    }

    /// Messages are in their sender's outbox, on disk.
    pub(crate) fn on_queued(&mut self, numbers: &[u64]) {
        self.queued.extend(numbers);
    }

    pub(crate) fn is_queued(&self, number: u64) -> bool {
        self.queued.contains(&number)
    }

    fn attempts_of(&self, sender: PeerId, recipient: PeerId) -> u64 {
        self.attempts.get(&(sender, recipient)).map_or(0, |attempts| attempts.len() as u64)
    }

    /// A message came to its place in a node's inbox.
    pub(crate) fn on_inbox(
        &mut self,
        node: usize,
        recipient: PeerId,
        message: &Incoming,
        sender_of: impl Fn(usize) -> PeerId,
        now: Monotonic,
    ) {
        let head = message.body.get(..8).and_then(|head| head.try_into().ok());
        let number = u64::from_be_bytes(head.expect("a message that nobody sent"));
        let Some(handed) = self.handed.get(&number) else {
            panic!("node {node} has message {number}, which nobody sent");
        };
        let sender = message.key.sender;
        assert_eq!(handed.to, node, "message {number} is for node {}", handed.to);
        assert_eq!(sender_of(handed.from), sender, "message {number} has another sender");
        assert!(message.body == body_of(number, handed.size), "message {number} has other bytes");
        let run = (node, sender, message.key.incarnation);
        if let Some((sequence, before)) = self.last.insert(run, (message.key.sequence, number)) {
            assert!(
                sequence < message.key.sequence && before < number,
                "node {node} got message {number} after message {before}"
            );
        }
        let attempts = self.attempts_of(sender, recipient) - handed.attempts_before;
        let arrived = Arrived { after: now.since(handed.at), attempts, turn: handed.turn };
        let twice = self.arrived.insert(number, arrived).is_some();
        assert!(!twice, "node {node} got message {number} twice");
    }

    /// A client was told what became of its message. `is_held` says whether it waits for its turn.
    pub(crate) fn on_told(&self, number: u64, told: &Told, is_held: impl Fn(&Bytes) -> bool) {
        let Some(handed) = self.handed.get(&number) else { return };
        if *told == Told::Delivered && !self.arrived.contains_key(&number) {
            let is_there = is_held(&body_of(number, handed.size));
            assert!(is_there, "message {number} was receipted, but is not there");
        }
    }

    /// An envelope, or a fragment of a flooded one, left a node that plays by the rules. Once an
    /// attempt, for as long as the node remembers it: a minute, and as long as it runs.
    pub(crate) fn on_crossing(
        &mut self,
        (from, run, to): (usize, u64, usize),
        frame: u64,
        (source, destination): (PeerId, PeerId),
        now: Monotonic,
    ) {
        if self.crossings.len() >= CROSSINGS_MAX {
            self.crossings.retain(|_, at| now.since(*at) < MEMORY);
        }
        if let Some(before) = self.crossings.insert((from, run, to, frame), now) {
            let ago = now.since(before);
            assert!(
                ago >= MEMORY,
                "an attempt from {source} to {destination} crossed from node {from} to {to} \
                 again after {ago:?}"
            );
        }
    }

    /// A sender made an attempt to deliver.
    pub(crate) fn on_attempt(&mut self, way: (PeerId, PeerId), commitment: [u8; 32], attempt: u16) {
        self.attempts.entry(way).or_default().insert((commitment, attempt));
    }

    pub(crate) fn handed(&self) -> &BTreeMap<u64, Handed> {
        &self.handed
    }

    pub(crate) fn arrived(&self) -> &BTreeMap<u64, Arrived> {
        &self.arrived
    }
}
