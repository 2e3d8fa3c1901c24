//! Two nodes whose only neighbour is the enemy: everything that they say to each other passes
//! through its hands, and it says what it likes to either.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use distmsg::control::protocol::{ErrorCode, Event, Listen, Page, Peer, Reply, Request, Wait};
use distmsg::control::{Call, Outgoing as ToClient, RequestId, SendRequest};
use distmsg::crypto::{
    Domain, Identity, PrekeySecret, Random, SessionContext, SessionSecret, commitment_of,
};
use distmsg::model::{
    Address, Incarnation, Limits, Monotonic, Name, NetworkId, Now, PeerId, Prekey, PrekeyRow,
    Record, Sequence, SessionId, Span, Timestamp,
};
use distmsg::node::core::{About, ClientId, Core, Effect, Input, LinkId, LinkUp, Settings};
use distmsg::wire::{
    CloseReason, Envelope, Frame, Header, Item, Opening, PayloadWriter, Tail, decode_record,
    encode_record, record_with_signature,
};

use crate::disk::Disk;

const START_MS: u64 = 1_700_000_000_000;
/// Turns in which two nodes that answer each other come to rest.
const TURNS_MAX: usize = 1_000;

/// One of the two honest nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Alice,
    Bob,
}

use Side::{Alice, Bob};

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Alice => Bob,
            Bob => Alice,
        }
    }
}

/// What a client was told of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Delivered,
    NotDelivered,
    Failed(String),
}

struct Honest {
    identity: Arc<Identity>,
    core: Core,
    disk: Disk,
    link: LinkId,
    record: Bytes,
    /// What it said and nobody has heard yet.
    said: VecDeque<Bytes>,
    told: Vec<(i64, Told)>,
    peers: Vec<Peer>,
    /// Messages that listening clients were given: the client, and which message.
    given: Vec<(ClientId, u64)>,
    /// Why it ended its link, if it did.
    closed: Option<(CloseReason, String)>,
}

pub(crate) struct Rig {
    mono: Monotonic,
    pub(crate) random: Random,
    pub(crate) enemy: Identity,
    sides: [Honest; 2],
    last_link: u64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut random = Random::from_seed([42; 32]);
        let mono = Monotonic::from_micros(1_000_000);
        let enemy = Identity::generate(&mut random);
        let sides = [Alice, Bob].map(|_| {
            let identity = Arc::new(Identity::generate(&mut random));
            let disk = Disk::default();
            let core = core_of(&identity, &disk, time(mono), &mut random);
            Honest {
                identity,
                core,
                disk,
                link: LinkId(0),
                record: Bytes::new(),
                said: VecDeque::new(),
                told: Vec::new(),
                peers: Vec::new(),
                given: Vec::new(),
                closed: None,
            }
        });
        let mut rig = Self { mono, random, enemy, sides, last_link: 0 };
        for side in [Alice, Bob] {
            rig.link(side);
        }
        rig.pass();
        rig
    }

    /// Links the enemy with a node, as a peer with a record like any other.
    pub(crate) fn link(&mut self, side: Side) {
        self.link_with(side, &self.own_record());
    }

    /// The same with another record.
    pub(crate) fn link_with(&mut self, side: Side, record: &Record) {
        self.last_link += 1;
        let record = self.signed_record(record);
        let address = Address::new("10.0.0.9", 3000).expect("an address");
        let link = LinkId(self.last_link);
        let node = &mut self.sides[side as usize];
        (node.link, node.closed) = (link, None);
        let peer = self.enemy.peer();
        let up = LinkUp { link, peer, dial: None, address, instance: self.last_link, record };
        self.input(side, Input::LinkUp(up));
    }

    /// The node loses what was not on disk, and comes back.
    pub(crate) fn restart(&mut self, side: Side) {
        let now = time(self.mono);
        let node = &mut self.sides[side as usize];
        node.core = core_of(&node.identity, &node.disk, now, &mut self.random);
        node.said.clear();
        self.link(side);
    }

    /// The node loses everything but its identity, and comes back.
    pub(crate) fn lose_state(&mut self, side: Side) {
        self.sides[side as usize].disk = Disk::default();
        self.restart(side);
    }

    /// The node forgets the sessions that others opened with it, and comes back.
    pub(crate) fn lose_sessions(&mut self, side: Side) {
        self.sides[side as usize].disk.lose_sessions();
        self.restart(side);
    }

    /// All that a thief of a node's files has: its identity and its prekeys.
    pub(crate) fn stolen(&self, side: Side) -> (Arc<Identity>, Vec<PrekeySecret>) {
        let node = &self.sides[side as usize];
        let secret = |row: PrekeyRow| PrekeySecret::from_seed(row.id, row.secret);
        let prekeys = node.disk.snapshot().prekeys.into_iter().map(secret).collect();
        (Arc::clone(&node.identity), prekeys)
    }

    pub(crate) fn peer(&self, side: Side) -> PeerId {
        self.sides[side as usize].identity.peer()
    }

    pub(crate) fn now(&self) -> Now {
        time(self.mono)
    }

    /// The record that a node hands out now.
    pub(crate) fn record(&self, side: Side) -> Record {
        let bytes = self.sides[side as usize].record.clone();
        decode_record(bytes).expect("a node makes good records").record
    }

    pub(crate) fn record_bytes(&self, side: Side) -> Bytes {
        self.sides[side as usize].record.clone()
    }

    /// What stands in its inbox: sender and body.
    pub(crate) fn inbox(&self, side: Side) -> Vec<(PeerId, Bytes)> {
        let messages = self.sides[side as usize].disk.inbox.values();
        messages.map(|message| (message.key.sender, message.body.clone())).collect()
    }

    /// Whether anything is kept that no listener sees yet.
    pub(crate) fn holds_back(&self, side: Side) -> bool {
        !self.sides[side as usize].disk.held.is_empty()
    }

    pub(crate) fn outbox_len(&self, side: Side) -> usize {
        self.sides[side as usize].disk.outbox.len()
    }

    /// What its clients were told of their messages so far.
    pub(crate) fn told(&self, side: Side) -> &[(i64, Told)] {
        &self.sides[side as usize].told
    }

    pub(crate) fn closed(&self, side: Side) -> Option<&(CloseReason, String)> {
        self.sides[side as usize].closed.as_ref()
    }

    /// Hands a message in at one node for the other.
    pub(crate) fn send(&mut self, from: Side, number: i64, body: &'static [u8]) {
        let request = SendRequest {
            peer: self.peer(from.other()).to_string(),
            body: Bytes::from_static(body),
            subject: None,
            wait: Wait::Delivered,
            timeout_ms: Some(60_000),
            key: None,
        };
        self.call(from, number, Call::Send(request));
    }

    /// Hands a message for anybody in at one node.
    pub(crate) fn send_to(&mut self, from: Side, peer: PeerId, number: i64, body: &'static [u8]) {
        let request = SendRequest {
            peer: peer.to_string(),
            body: Bytes::from_static(body),
            subject: None,
            wait: Wait::Delivered,
            timeout_ms: Some(60_000),
            key: None,
        };
        self.call(from, number, Call::Send(request));
    }

    /// A node's table.
    pub(crate) fn table(&mut self, side: Side) -> Vec<Peer> {
        let page = Page { after: None, limit: None };
        self.call(side, -1, Call::Other(Request::Peers(page)));
        std::mem::take(&mut self.sides[side as usize].peers)
    }

    /// A client of a node listens under a name, for so many messages at once.
    pub(crate) fn listen(&mut self, side: Side, client: u64, name: &str, window: u32) {
        let (name, from, since) = (name.to_owned(), None, None);
        let call = Call::Other(Request::Listen(Listen { name, window, from, since }));
        let calls = vec![(RequestId::Number(-2), call)];
        self.input(side, Input::Calls { client: ClientId(client), calls });
    }

    /// What the listening clients of a node were given: the client, and which message.
    pub(crate) fn given(&self, side: Side) -> &[(ClientId, u64)] {
        &self.sides[side as usize].given
    }

    fn call(&mut self, side: Side, number: i64, call: Call) {
        let calls = vec![(RequestId::Number(number), call)];
        self.input(side, Input::Calls { client: ClientId(1), calls });
    }

    /// The enemy says something to a node.
    pub(crate) fn say(&mut self, side: Side, frame: &Frame) {
        let frame = Frame::decode(frame.encode()).expect("the enemy keeps to the form");
        let link = self.sides[side as usize].link;
        self.input(side, Input::Frames { link, frames: vec![frame] });
    }

    /// What a node has said to the enemy since the last look.
    pub(crate) fn heard(&mut self, side: Side) -> Vec<Frame> {
        let said = std::mem::take(&mut self.sides[side as usize].said);
        said.into_iter().map(|frame| Frame::decode(frame).expect("a frame")).collect()
    }

    /// The enemy carries everything to and fro, honestly.
    pub(crate) fn pass(&mut self) {
        self.pass_but(|_, _| false);
    }

    /// The enemy carries everything but what it keeps to itself, which is returned.
    pub(crate) fn pass_but(&mut self, keep: impl Fn(Side, &Frame) -> bool) -> Vec<Frame> {
        let mut kept = Vec::new();
        for _ in 0..TURNS_MAX {
            let mut quiet = true;
            for side in [Alice, Bob] {
                for frame in self.heard(side) {
                    quiet = false;
                    if keep(side, &frame) {
                        kept.push(frame);
                    } else {
                        self.say(side.other(), &frame);
                    }
                }
            }
            if quiet {
                return kept;
            }
        }
        panic!("the two never come to rest");
    }

    /// Hands a message in and takes the envelope with it from its sender's hands.
    pub(crate) fn intercept(&mut self, from: Side, number: i64, body: &'static [u8]) -> Envelope {
        self.send(from, number, body);
        let is_envelope =
            |side: Side, frame: &Frame| side == from && matches!(frame, Frame::Envelope(_));
        let mut kept = self.pass_but(is_envelope);
        match (kept.pop(), kept.pop()) {
            (Some(Frame::Envelope(envelope)), None) => envelope,
            other => panic!("not one envelope: {other:?}"),
        }
    }

    /// Lets time pass while the enemy carries everything.
    pub(crate) fn wait(&mut self, span: Span) {
        self.wait_but(span, |_, _| false);
    }

    /// Lets time pass while the enemy carries everything but what it keeps.
    pub(crate) fn wait_but(&mut self, span: Span, keep: impl Fn(Side, &Frame) -> bool) {
        let end = self.mono + span;
        loop {
            let next = self.sides.iter().map(|node| node.core.deadline()).min();
            // Little steps cost nothing: nothing happens between deadlines.
            let next = next.unwrap_or(end).max(self.mono + Span::from_millis(1));
            if next >= end {
                break;
            }
            self.mono = next;
            self.finish(Alice);
            self.finish(Bob);
            self.pass_but(&keep);
        }
        self.mono = end;
        self.finish(Alice);
        self.finish(Bob);
        self.pass_but(&keep);
    }

    /// Lets time pass; what the enemy keeps meanwhile is returned.
    pub(crate) fn wait_but_keep(
        &mut self,
        span: Span,
        keep: impl Fn(Side, &Frame) -> bool,
    ) -> Vec<Frame> {
        let end = self.mono + span;
        let mut kept = self.pass_but(&keep);
        loop {
            let next = self.sides.iter().map(|node| node.core.deadline()).min();
            let next = next.unwrap_or(end).max(self.mono + Span::from_millis(1)).min(end);
            self.mono = next;
            self.finish(Alice);
            self.finish(Bob);
            kept.extend(self.pass_but(&keep));
            if next >= end {
                return kept;
            }
        }
    }

    /// A long time passes at once, for both; whoever was linked still is.
    pub(crate) fn skip(&mut self, span: Span) {
        self.mono = self.mono + span;
        self.finish(Alice);
        self.finish(Bob);
        self.pass();
    }

    fn input(&mut self, side: Side, input: Input) {
        let now = time(self.mono);
        self.sides[side as usize].core.handle(now, input);
        self.finish(side);
    }

    fn finish(&mut self, side: Side) {
        let now = time(self.mono);
        let node = &mut self.sides[side as usize];
        let mut effects = VecDeque::from(node.core.finish(now));
        while let Some(effect) = effects.pop_front() {
            let answer = match effect {
                Effect::Send { link, frames } if link == node.link => {
                    let bytes = frames.iter().map(Bytes::len).sum();
                    node.said.extend(frames);
                    Some(Input::Written { link, bytes })
                }
                Effect::Transact(transaction) => Some(Input::Store(node.disk.commit(transaction))),
                Effect::Ask(query) => Some(Input::Store(node.disk.answer(&query))),
                Effect::Record(record) => {
                    node.record = record;
                    None
                }
                Effect::Close { link, reason, text } if link == node.link => {
                    node.closed = Some((reason, text.clone()));
                    Some(Input::LinkDown { link, reason: text })
                }
                Effect::Tell { client, what } => {
                    what.into_iter().for_each(|what| node.hear(client, what));
                    None
                }
                Effect::Stop { reason } => panic!("{side:?} stopped: {reason}"),
                Effect::Send { .. }
                | Effect::Close { .. }
                | Effect::Dial { .. }
                | Effect::Log { .. }
                | Effect::GivenUp(_) => None,
            };
            if let Some(answer) = answer {
                node.core.handle(now, answer);
                effects.extend(node.core.finish(now));
            }
        }
    }

    /// A record of the enemy, to be changed before it is signed.
    pub(crate) fn own_record(&self) -> Record {
        let now = self.now().wall;
        Record {
            network: NetworkId::OPEN,
            peer: self.enemy.peer(),
            sequence: now.as_millis(),
            expires: now + Span::from_secs(86_400),
            name: "mallory".parse::<Name>().ok(),
            addresses: vec![Address::new("10.0.0.9", 3000).expect("an address")],
            prekeys: Vec::new(),
        }
    }

    /// A record signed by the enemy, whatever it says.
    pub(crate) fn signed_record(&self, record: &Record) -> Bytes {
        self.signed_record_for(Domain::Record, record)
    }

    pub(crate) fn signed_record_for(&self, domain: Domain, record: &Record) -> Bytes {
        let content = encode_record(record);
        let signature = self.enemy.sign(domain, &[&content]);
        record_with_signature(content, &signature)
    }

    /// An envelope made by the rules, except for what the forgery says.
    pub(crate) fn forge(&mut self, to: Side, forgery: &Forgery) -> Envelope {
        let prekey = forgery.prekey.clone().unwrap_or_else(|| self.record(to).prekeys[0].clone());
        let context = SessionContext {
            sender: forgery.source.unwrap_or(self.enemy.peer()),
            recipient: self.peer(to),
            session: SessionId(self.random.number()),
            prekey: prekey.id,
        };
        let (encapsulation, secret) =
            SessionSecret::open(&prekey, &context, &mut self.random).expect("a good prekey");
        let domain = forgery.domain.unwrap_or(Domain::Opening);
        let signature = self.enemy.sign(domain, &[&context.to_bytes(), &encapsulation[..]]);
        let encapsulation = Bytes::copy_from_slice(&encapsulation[..]);
        let opening = Opening { prekey: prekey.id, encapsulation, signature };
        let keys = secret.keys();
        let header = Header {
            source: context.sender,
            destination: context.recipient,
            session: context.session,
            counter: 0,
            commitment: forgery.commitment.unwrap_or_else(|| commitment_of(&keys.receipt(0))),
        };
        let mut payload = PayloadWriter::new(Incarnation(7), Sequence::FIRST);
        let now = self.now().wall;
        let expires = now + Span::from_secs(3_600);
        let body = Bytes::from_static(b"forged");
        let sequence = Sequence::FIRST;
        payload.push(&Item::Message { sequence, sent: now, expires, subject: None, body });
        let mut sealed = payload.finish();
        keys.seal(0, &header.aad(), &mut sealed).expect("sealed");
        Envelope::new(header, 1, &Tail::encode(Some(&opening), &sealed))
    }
}

/// What is wrong with an envelope of the enemy's; by default nothing.
#[derive(Default)]
pub(crate) struct Forgery {
    /// Another source than the one who signs.
    pub(crate) source: Option<PeerId>,
    /// Another purpose of the signature.
    pub(crate) domain: Option<Domain>,
    /// Another prekey than the recipient's.
    pub(crate) prekey: Option<Prekey>,
    /// Another commitment than that of the receipt.
    pub(crate) commitment: Option<[u8; 32]>,
}

impl Honest {
    fn hear(&mut self, client: ClientId, told: ToClient) {
        if let ToClient::Event(Event::Message(event)) = &told {
            self.given.push((client, event.message.cursor));
        }
        let ToClient::Reply { id: RequestId::Number(number), result } = told else { return };
        let told = match result {
            Ok(Reply::Peers(page)) => return self.peers = page.peers,
            Ok(Reply::Sent(_)) => Told::Delivered,
            Err(failure) if failure.code == ErrorCode::NotDelivered => Told::NotDelivered,
            other => Told::Failed(format!("{other:?}")),
        };
        self.told.push((number, told));
    }
}

fn time(mono: Monotonic) -> Now {
    Now { mono, wall: Timestamp::from_millis(START_MS + mono.as_micros() / 1000) }
}

fn core_of(identity: &Arc<Identity>, disk: &Disk, now: Now, random: &mut Random) -> Core {
    let settings = Settings {
        identity: Arc::clone(identity),
        network: NetworkId::OPEN,
        name: None,
        advertise: Vec::new(),
        links_auto: 0,
        limits: Limits::default(),
        about: About::default(),
    };
    Core::new(settings, disk.snapshot(), now, random.bytes())
}
