//! One core without a world: its effects are looked at.

use std::sync::Arc;

use bytes::Bytes;
use distmsg::control::protocol::{Connect, PeerRef, Reply, Request, Wait};
use distmsg::control::{Call, Outgoing, RequestId, SendRequest};
use distmsg::crypto::{Domain, Identity};
use distmsg::model::{
    Address, GivenUp, Limits, Monotonic, NetworkId, Now, Record, Span, Timestamp, WhyGivenUp,
};
use distmsg::node::core::{
    About, ClientId, Core, DialFailure, DialId, Effect, Input, LinkId, LinkUp, Settings,
};
use distmsg::wire::{encode_record, record_with_signature};

use crate::disk::Disk;

struct Bare {
    core: Core,
    disk: Disk,
    now: Now,
    dials: Vec<DialId>,
    closed: Vec<(LinkId, String)>,
    given_up: Vec<GivenUp>,
    told: Vec<Outgoing>,
    last_link: u64,
}

fn at(micros: u64) -> Now {
    let wall = Timestamp::from_millis(1_700_000_000_000 + micros / 1_000);
    Now { mono: Monotonic::from_micros(micros), wall }
}

impl Bare {
    fn new(limits: Limits, links_auto: usize) -> Self {
        let now = at(1_000_000);
        let settings = Settings {
            identity: Arc::new(Identity::from_seed(&[1; 32])),
            network: NetworkId::OPEN,
            name: None,
            advertise: Vec::new(),
            links_auto,
            limits,
            about: About::default(),
        };
        let disk = Disk::default();
        let core = Core::new(settings, disk.snapshot(), now, [3; 32]);
        Self {
            core,
            disk,
            now,
            dials: Vec::new(),
            closed: Vec::new(),
            given_up: Vec::new(),
            told: Vec::new(),
            last_link: 0,
        }
    }

    fn finish(&mut self) {
        loop {
            let effects = self.core.finish(self.now);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Transact(t) => {
                        let done = self.disk.commit(t);
                        self.core.handle(self.now, Input::Store(done));
                    }
                    Effect::Ask(q) => {
                        let answer = self.disk.answer(&q);
                        self.core.handle(self.now, Input::Store(answer));
                    }
                    Effect::Dial { dial, .. } => self.dials.push(dial),
                    Effect::Close { link, text, reason } => {
                        self.closed.push((link, format!("{reason:?} {text}")));
                    }
                    Effect::Send { link, frames } => {
                        let bytes = frames.iter().map(Bytes::len).sum();
                        self.core.handle(self.now, Input::Written { link, bytes });
                    }
                    Effect::GivenUp(messages) => self.given_up.extend(messages),
                    Effect::Tell { what, .. } => self.told.extend(what),
                    _ => {}
                }
            }
        }
    }

    fn call(&mut self, call: Call) {
        let calls = vec![(RequestId::Number(1), call)];
        self.input(Input::Calls { client: ClientId(1), calls });
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.finish();
    }

    fn connect(&mut self, who: &Identity, address: &Address) -> DialId {
        let connect = Connect {
            peer: who.peer().to_string(),
            address: address.to_string(),
            alias: None,
            timeout_ms: 10_000,
        };
        self.call(Call::Other(Request::Connect(connect)));
        *self.dials.last().expect("dialled")
    }

    fn link(&mut self, who: &Identity, dial: Option<DialId>) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        let address = Address::new("10.0.0.2", 3000).expect("one");
        let content = encode_record(&Record {
            network: NetworkId::OPEN,
            peer: who.peer(),
            sequence: self.now.wall.as_millis(),
            expires: self.now.wall + Span::from_secs(3_600),
            name: None,
            addresses: vec![address.clone()],
            prekeys: Vec::new(),
        });
        let signature = who.sign(Domain::Record, &[&content]);
        let record = record_with_signature(content, &signature);
        self.input(Input::LinkUp(LinkUp {
            link,
            peer: who.peer(),
            dial,
            address,
            instance: 5,
            record,
        }));
        link
    }

    fn wait(&mut self, span: Span) {
        let end = self.now.mono + span;
        while self.now.mono < end {
            let next = self.core.deadline().max(self.now.mono + Span::from_millis(1)).min(end);
            self.now = at(next.as_micros());
            self.finish();
        }
    }
}

#[test]
fn a_failed_second_connect_does_not_end_the_redialling() {
    let bob = Identity::from_seed(&[2; 32]);
    let mut node = Bare::new(Limits::default(), 0);
    let good = Address::new("10.0.0.2", 3000).expect("one");
    let dial = node.connect(&bob, &good);
    let link = node.link(&bob, Some(dial));
    // The operator mistypes the port of a peer that is linked.
    let wrong = Address::new("10.0.0.2", 3001).expect("one");
    let dial = node.connect(&bob, &wrong);
    let failure = DialFailure::Unreachable { reason: "refused".to_owned() };
    node.input(Input::DialFailed { dial, failure });
    let before = node.dials.len();
    node.input(Input::LinkDown { link, reason: "gone".to_owned() });
    node.wait(Span::from_secs(300));
    assert!(node.dials.len() > before, "five minutes, and the kept peer is not dialled again");
}

#[test]
fn strangers_do_not_keep_the_operators_peer_out() {
    let bob = Identity::from_seed(&[2; 32]);
    let mut node = Bare::new(Limits { links_max: 4, ..Limits::default() }, 0);
    let good = Address::new("10.0.0.2", 3000).expect("one");
    let dial = node.connect(&bob, &good);
    let link = node.link(&bob, Some(dial));
    node.input(Input::LinkDown { link, reason: "gone".to_owned() });
    for n in 0..4 {
        node.link(&Identity::from_seed(&[100 + n; 32]), None);
    }
    node.wait(Span::from_secs(2));
    let dial = *node.dials.last().expect("redialled");
    let link = node.link(&bob, Some(dial));
    assert!(node.closed.iter().all(|(l, _)| *l != link), "{:?}", node.closed);
}

#[test]
fn a_peer_that_was_disconnected_is_not_dialled_by_our_own_choice() {
    let (bob, carol) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[4; 32]));
    let mut node = Bare::new(Limits::default(), 4);
    let good = Address::new("10.0.0.2", 3000).expect("one");
    let dial = node.connect(&bob, &good);
    let link = node.link(&bob, Some(dial));
    let before = node.dials.len();
    node.call(Call::Other(Request::Disconnect(PeerRef { peer: bob.peer().to_string() })));
    assert!(node.closed.iter().any(|(l, _)| *l == link), "{:?}", node.closed);
    node.wait(Span::from_secs(3_000));
    assert_eq!(node.dials.len(), before, "it is dialled again");
    // Others are, if their links go down.
    let link = node.link(&carol, None);
    node.input(Input::LinkDown { link, reason: "gone".to_owned() });
    node.wait(Span::from_secs(3_000));
    assert!(node.dials.len() > before, "nobody is dialled");
}

#[test]
fn a_message_that_expires_leaves_word() {
    let mut node = Bare::new(Limits::default(), 0);
    let nobody = Identity::from_seed(&[9; 32]).peer();
    node.call(Call::Send(SendRequest {
        peer: nobody.to_string(),
        body: Bytes::from_static(b"body"),
        subject: Some("late".into()),
        key: None,
        wait: Wait::Queued,
        timeout_ms: None,
    }));
    let day = Span::from_secs(24 * 60 * 60);
    node.wait(day.times(6));
    assert_eq!(node.given_up, []);
    node.wait(day + Span::from_secs(2 * 60 * 60));
    let given_up = node.given_up.clone();
    let [message] = &given_up[..] else { panic!("{given_up:?}") };
    let told = (message.recipient, message.subject.as_deref(), message.bytes, message.why);
    assert_eq!(told, (nobody, Some("late"), 4, WhyGivenUp::Expired));
    let status = |node: &mut Bare| {
        node.call(Call::Other(Request::Status {}));
        match node.told.pop() {
            Some(Outgoing::Reply { result: Ok(Reply::Status(status)), .. }) => status,
            other => panic!("{other:?}"),
        }
    };
    let now = status(&mut node);
    assert_eq!((now.outbox_messages, now.given_up), (0, 1));
    assert_eq!(now.last_given_up.expect("one").id, message.id.to_string());
    node.wait(day.times(8));
    assert_eq!(status(&mut node).given_up, 0, "that is not lately any more");
}
