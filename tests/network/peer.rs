//! A neighbour that has an identity, links like any other, and then misbehaves.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use distmsg::crypto::{Domain, Identity, Random};
use distmsg::link::{
    DialError, DialId, Ended, Endpoint, EndpointConfig, Event, LinkHandle, Membership, Purpose,
};
use distmsg::model::{Address, NetworkId, PeerId, Record, SessionId, Span, Timestamp};
use distmsg::wire::{
    CloseReason, Digest, Envelope, EnvelopeKey, Find, Frame, Header, RejectReason, encode_record,
    record_with_signature,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::daemon::{Daemon, SOON, start_all};
use crate::hostile::{GROWTH_KB_MAX, resident_kb};
use crate::running::until;

/// Nothing takes longer on an honest daemon's side.
const PATIENCE: Duration = Duration::from_secs(20);
/// Dials in vain before a link is given up.
const DIALS_MAX: u32 = 5;
/// What misbehaves at once, before it looks for answers.
const SALVO: usize = 200;

/// The enemy at one end of a link.
pub(crate) struct Enemy {
    runtime: Runtime,
    identity: Arc<Identity>,
    endpoint: Endpoint,
    events: mpsc::Receiver<Event>,
    dials: u64,
    /// Where it dials, if not the victim itself.
    door: Option<SocketAddr>,
    random: Random,
}

impl Enemy {
    fn new(seed: u8) -> Self {
        Self::of(Identity::from_seed(&[seed; 32]), [seed; 32])
    }

    pub(crate) fn of(identity: Identity, seed: [u8; 32]) -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let identity = Arc::new(identity);
        let mut config = EndpointConfig::new(Arc::clone(&identity), Membership::Open, 1);
        config.record = record_of(&identity);
        let (sender, events) = mpsc::channel(16);
        let endpoint = runtime.block_on(Endpoint::start(config, sender)).expect("started");
        let random = Random::from_seed(seed);
        Self { runtime, identity, endpoint, events, dials: 0, door: None, random }
    }

    /// Has its connections to the victim come from an address of its own.
    pub(crate) fn come_from(&mut self, own: Ipv4Addr, victim: &Daemon) {
        let to: SocketAddr = victim.address.parse().expect("an address");
        let listener = self.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        self.door = Some(listener.local_addr().expect("it is bound"));
        self.runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // Its end, whatever the reason, is that of the connection.
                tokio::spawn(async move { pass(near, own, to).await });
            }
        });
    }

    fn next(&mut self, what: &str) -> Event {
        let next = async { timeout(PATIENCE, self.events.recv()).await };
        let event = self.runtime.block_on(next).unwrap_or_else(|_| panic!("in vain for {what}"));
        event.expect("the endpoint runs")
    }

    pub(crate) fn link(&mut self, victim: &Daemon) -> LinkHandle {
        self.dial(victim);
        let mut dials = 1;
        loop {
            match self.next("a link") {
                Event::Up { handle, .. } => return handle,
                Event::Frames { .. } | Event::Written { .. } | Event::Down { .. } => {}
                // A machine on which very much else happens.
                Event::DialFailed { error: DialError::Timeout | DialError::Lost(_), .. }
                    if dials < DIALS_MAX =>
                {
                    dials += 1;
                    self.dial(victim);
                }
                other => panic!("{other:?} instead of a link"),
            }
        }
    }

    fn dial(&mut self, victim: &Daemon) {
        self.dials += 1;
        let door = self.door.map_or_else(|| victim.address.clone(), |door| door.to_string());
        let address: Address = door.parse().expect("an address");
        let peer: PeerId = victim.peer.parse().expect("an ID");
        self.endpoint.dial(DialId(self.dials), address, Some(peer), Purpose::Link);
    }

    /// Waits until the other end ends the link.
    fn ended(&mut self) -> Ended {
        loop {
            if let Event::Down { ended, .. } = self.next("the link's end") {
                return ended;
            }
        }
    }

    /// Waits until everything was written, or the link is down; false if it is.
    pub(crate) fn flush(&mut self, mut bytes: usize) -> bool {
        while bytes > 0 {
            match self.next("what is written") {
                Event::Written { bytes: written, .. } => bytes = bytes.saturating_sub(written),
                Event::Down { .. } => return false,
                _ => {}
            }
        }
        true
    }

    /// Takes whatever comes, for so long.
    pub(crate) fn listen(&mut self, span: Duration) {
        self.runtime.block_on(async {
            let all = async { while self.events.recv().await.is_some() {} };
            let _ = timeout(span, all).await;
        });
    }

    fn peer(&mut self) -> PeerId {
        PeerId::from_bytes(self.random.bytes())
    }

    fn envelope(&mut self, destination: PeerId, length: usize) -> Envelope {
        let header = Header {
            source: self.peer(),
            destination,
            session: SessionId(self.random.number()),
            counter: self.random.number(),
            commitment: self.random.bytes(),
        };
        Envelope::new(header, 1, &vec![0; length])
    }
}

/// Passes on what comes to a connection from an address of ours.
async fn pass(mut near: TcpStream, own: Ipv4Addr, to: SocketAddr) -> io::Result<(u64, u64)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    let mut far = socket.connect(to).await?;
    copy_bidirectional(&mut near, &mut far).await
}

/// A record like any other.
pub(crate) fn record_of(identity: &Identity) -> Bytes {
    let record = encode_record(&Record {
        network: NetworkId::OPEN,
        peer: identity.peer(),
        sequence: wall().as_millis(),
        expires: wall() + Span::from_secs(3_600),
        name: None,
        addresses: Vec::new(),
        prekeys: Vec::new(),
    });
    let signature = identity.sign(Domain::Record, &[&record]);
    record_with_signature(record, &signature)
}

#[test]
fn what_is_no_frame_ends_the_link_with_a_logged_reason_and_no_other() {
    let net = start_all("ab");
    let [a, b] = &net[..] else { panic!("two") };
    a.connect(b);
    let mut enemy = Enemy::new(1);
    let truncated_find = Bytes::from(vec![0x20; 40]);
    // What is empty or too long to be one: see the tests of `link`, an endpoint cannot say it.
    let bad: [Bytes; 4] = [
        Bytes::from_static(&[0x99, 1, 2, 3]),
        truncated_find,
        Bytes::from(vec![0x30; 64 * 1024]),
        Bytes::from_static(&[0x10, 0]),
    ];
    let mut round = |times: usize| {
        for frame in std::iter::repeat_n(&bad, times).flatten() {
            let link = enemy.link(b);
            link.send(vec![frame.clone()]);
            match enemy.ended() {
                Ended::ByPeer { reason: CloseReason::Protocol, text } => assert!(!text.is_empty()),
                // The reason did not get through before the connection was reset.
                Ended::Lost(_) => {}
                other => panic!("{other:?} after {} bytes", frame.len()),
            }
        }
    };
    round(5);
    let before = resident_kb(b);
    round(40);
    let after = resident_kb(b);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
    let peer = enemy.identity.peer().to_string();
    let said =
        b.log().lines().filter(|line| line.contains(&peer) && line.contains("frame")).count();
    assert!(said > 0, "the log does not say why the links of {peer} ended");
    assert_eq!(b.linked(), std::slice::from_ref(&a.peer));
    a.ctl(&["send", "b", "still here"]).exits(0);
    assert_eq!(b.bodies(), ["still here"]);
}

/// Frames of good form that are of no use to anybody.
fn salvo(enemy: &mut Enemy, victim: &Daemon) -> Vec<Bytes> {
    let victim: PeerId = victim.peer.parse().expect("an ID");
    let mut frames = Vec::new();
    for _ in 0..SALVO / 8 {
        let nowhere = enemy.peer();
        frames.push(enemy.envelope(nowhere, 60_000).encoded);
        frames.push(enemy.envelope(victim, 2_000).encoded);
        let sequence = wall().as_millis();
        let mut digests: Vec<Digest> =
            (0..1_024).map(|_| Digest { peer: enemy.peer(), sequence }).collect();
        digests.sort_by_key(|digest| digest.peer);
        frames.push(Frame::Digests { exchange: 0, more: false, digests }.encode());
        frames.push(Frame::RecordRequest { peers: vec![victim; 16] }.encode());
        frames.push(Frame::DigestRequest { exchange: 1, after: None }.encode());
        frames.push(Frame::Receipt { preimage: enemy.random.bytes() }.encode());
        let key = EnvelopeKey { source: nowhere, session: SessionId(1), counter: 1, attempt: 1 };
        frames.push(Frame::Reject { key, reason: RejectReason::NoRoute }.encode());
        let expires = wall() + Span::from_secs(60);
        let signed = Find::to_sign(false, enemy.random.number(), &nowhere, expires, &[0; 200]);
        let signature = enemy.identity.sign(Domain::Flood, &[&signed]);
        frames.push(Find::encode(&signed, &signature, 0));
    }
    frames
}

pub(crate) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since.expect("after 1970").as_millis();
    Timestamp::from_millis(u64::try_from(millis).expect("before the end of time"))
}

#[test]
fn useless_frames_without_end_cost_no_memory_and_nobody_elses_delivery() {
    let net = start_all("ab");
    let [a, b] = &net[..] else { panic!("two") };
    a.connect(b);
    let mut enemy = Enemy::new(2);
    let mut link = enemy.link(b);
    let mut links = 1;
    let mut round = |times: usize| {
        for _ in 0..times {
            let frames = salvo(&mut enemy, b);
            let bytes = frames.iter().map(Bytes::len).sum();
            link.send(frames);
            if !enemy.flush(bytes) {
                links += 1;
                link = enemy.link(b);
            }
        }
    };
    round(10);
    a.ctl(&["send", "b", "first", "--timeout", "20s"]).exits(0);
    let before = resident_kb(b);
    // 40 times 25 envelopes of 60 kB: nearly what relays may hold in all, if they held it.
    round(40);
    a.ctl(&["send", "b", "second", "--timeout", "20s"]).exits(0);
    let after = resident_kb(b);
    assert!(after < before + 2 * GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
    assert_eq!(b.bodies(), ["first", "second"]);
    let known = b.peers().len();
    assert!(known <= 2, "{known} peers are known of whom nobody ever saw a record");
    assert!(links < 50, "the links end before anything is said: {links}");
    until("b is at rest", SOON, || (b.status()["outbox_messages"] == 0).then_some(()));
}

#[test]
fn a_neighbour_that_comes_and_goes_without_end_does_not_fill_the_log() {
    let mut b = Daemon::prepare("b");
    b.log_filter = "info".to_owned();
    b.boot();
    let mut enemy = Enemy::new(3);
    for _ in 0..300 {
        let link = enemy.link(&b);
        link.send(vec![Bytes::from_static(&[0x99])]);
        enemy.ended();
    }
    let log = b.log();
    let peer = enemy.identity.peer().to_string();
    let said = log.lines().filter(|line| line.contains(&peer)).count();
    // A burst of twenty, and one a second; two lines for each link would be 600.
    assert!((2..100).contains(&said), "{said} lines for 300 links");
    assert!(log.lines().all(|line| line.len() < 500), "a line is long");
}

#[test]
fn a_neighbour_without_prekeys_does_not_hang_who_writes_to_it() {
    let net = start_all("ab");
    let [a, b] = &net[..] else { panic!("two") };
    a.connect(b);
    let mut enemy = Enemy::new(1);
    let _link = enemy.link(b);
    let peer = enemy.identity.peer().to_string();
    until("b is linked with the enemy", PATIENCE, || b.linked().contains(&peer).then_some(()));
    b.ctl(&["send", &peer, "hello", "--wait", "queued"]).exits(0);
    a.ctl(&["send", "b", "still here"]).exits(0);
}
