//! What links are for.

use std::net::TcpListener;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::*;
use crate::model::limits::REASON_BYTES_MAX;
use crate::wire::{CloseReason, Tail};

#[tokio::test]
async fn two_endpoints_link_and_know_each_other() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (at_a, at_b) = linked(&mut a, &mut b).await;
    assert_eq!(
        (at_a.peer, at_a.direction, at_a.dial),
        (b.peer, Direction::Outbound, Some(DialId(7)))
    );
    assert_eq!((at_b.peer, at_b.direction, at_b.dial), (a.peer, Direction::Inbound, None));
    assert_eq!((at_a.instance, at_a.record), (2, record(2)));
    assert_eq!((at_b.instance, at_b.record), (1, record(1)));
    // The next link has another ID, and the record of its time.
    a.endpoint.set_record(record(9));
    let (again_a, again_b) = linked(&mut a, &mut b).await;
    assert_ne!(again_a.id, at_a.id);
    assert_eq!(again_b.record, record(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_complete_and_in_order_and_written_adds_up() {
    const SMALL: u64 = 10_000;
    const LARGE: usize = 200;
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (at_a, at_b) = linked(&mut a, &mut b).await;
    let large = envelope(&vec![7; Tail::BYTES_MAX]);
    let mut sent_bytes = 0;
    for handle in [&at_a.handle, &at_b.handle] {
        sent_bytes = 0;
        for part in (0..SMALL).collect::<Vec<_>>().chunks(100) {
            let mut frames: Vec<Bytes> = part.iter().map(|nonce| ping(*nonce)).collect();
            frames.extend((0..LARGE / 100).map(|_| large.clone()));
            sent_bytes += frames.iter().map(Bytes::len).sum::<usize>();
            handle.send(frames);
        }
    }
    let total = SMALL as usize + LARGE;
    let receive = async |node: &mut Node| {
        let (mut frames, mut written) = (Vec::new(), 0);
        while frames.len() < total || written < sent_bytes {
            match node.next("frames").await {
                Event::Frames { frames: more, .. } => frames.extend(more),
                Event::Written { bytes, .. } => written += bytes,
                other => panic!("{other:?}"),
            }
        }
        (frames, written)
    };
    let (got_a, got_b) = tokio::join!(receive(&mut a), receive(&mut b));
    for (frames, written) in [got_a, got_b] {
        assert_eq!((frames.len(), written), (total, sent_bytes));
        let mut nonces = 0..SMALL;
        for frame in frames {
            match frame {
                Frame::Ping { nonce } => assert_eq!(Some(nonce), nonces.next()),
                Frame::Envelope(envelope) => assert_eq!(envelope.encoded, large),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_dial_that_finds_another_peer_fails_with_its_id() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let expected = identity(3).peer();
    a.endpoint.dial(DialId(1), b.address(), Some(expected), Purpose::Link);
    assert_eq!(a.dial_error().await, DialError::Identity { found: b.peer });
    // The other end has learned who tried, and has no link.
    assert_eq!(b.refused().await.0, Some(a.peer));
    // Without an expectation, whoever answers is the peer.
    a.endpoint.dial(DialId(2), b.address(), None, Purpose::Link);
    assert_eq!(a.up().await.peer, b.peer);
}

#[tokio::test]
async fn a_node_cannot_link_to_itself() {
    let mut a = Node::start(1).await;
    a.endpoint.dial(DialId(1), a.address(), None, Purpose::Link);
    match a.dial_error().await {
        DialError::Refused { reason, peer, .. } => {
            assert_eq!((reason, peer), (CloseReason::Myself, a.peer));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_members_of_the_same_network_link() {
    let open = || Membership::Open;
    // Each operator reads of "this node" and "the peer", and what to do about it.
    let join = "this node is in the open network, the peer in a closed network; to join it, write \
                network = \"closed\" and put a copy of its network.key in place";
    let let_in = "this node is in a closed network, the peer in the open one; only who has a copy \
                  of its network.key can link with it";
    let different = "the two are in different closed networks; to join the peer's, put a copy of \
                     its network.key in place of this node's";
    let cases = [
        (open(), closed(1), join, let_in),
        (closed(1), open(), let_in, join),
        (closed(1), closed(2), different, different),
    ];
    for (dialler, listener, why, why_there) in cases {
        assert!(why.len() <= REASON_BYTES_MAX, "it travels whole: {why}");
        let mut a = Node::start_with(1, dialler, |_| {}).await;
        let mut b = Node::start_with(2, listener, |_| {}).await;
        a.dial(1, &b);
        let (reason, text) = (CloseReason::Network, why.to_owned());
        assert_eq!(a.dial_error().await, DialError::Refused { peer: b.peer, reason, text });
        let (peer, reason) = b.refused().await;
        assert_eq!(peer, Some(a.peer));
        assert_eq!(reason, format!("the peer is in another network: {why_there}"));
    }
    let mut a = Node::start_with(1, closed(1), |_| {}).await;
    let mut b = Node::start_with(2, closed(1), |_| {}).await;
    let (at_a, at_b) = linked(&mut a, &mut b).await;
    assert_eq!((at_a.record, at_b.record), (record(2), record(1)));
}

#[tokio::test]
async fn a_probe_learns_who_answers_and_leaves_no_link() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    a.endpoint.dial(DialId(5), b.address(), None, Purpose::Probe);
    match a.next("Probed").await {
        Event::Probed { dial, peer, record: found, .. } => {
            assert_eq!((dial, peer, found), (DialId(5), b.peer, record(2)));
        }
        other => panic!("{other:?}"),
    }
    // The first that b hears of is the link after it, and it is its first.
    let (_, at_b) = linked(&mut a, &mut b).await;
    assert_eq!(at_b.id, LinkId(1));
}

#[tokio::test]
async fn a_close_reason_arrives_after_what_was_queued_and_is_safe_to_print() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (at_a, at_b) = linked(&mut a, &mut b).await;
    at_a.handle.send((0..100).map(ping).collect());
    at_a.handle.close(CloseReason::Operator, "bye\n\u{1b}[31m");
    at_a.handle.close(CloseReason::Busy, "only the first counts");
    at_a.handle.send(vec![ping(100)]);
    assert_eq!(b.frames(100).await.len(), 100);
    let text = "bye\\n\\u{1b}[31m".to_owned();
    let reason = CloseReason::Operator;
    assert_eq!(b.down(at_b.id).await, Ended::ByPeer { reason, text });
    let text = "bye\n\u{1b}[31m".to_owned();
    assert_eq!(a.down(at_a.id).await, Ended::ByUs { reason, text });
    // Sending on a link that is down does nothing.
    at_b.handle.send(vec![ping(1)]);
}

#[tokio::test]
async fn dropping_the_handle_or_the_endpoint_ends_links() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (at_a, at_b) = linked(&mut a, &mut b).await;
    drop(at_a.handle);
    let stopping = Ended::ByPeer { reason: CloseReason::Stopping, text: String::new() };
    assert_eq!(b.down(at_b.id).await, stopping);
    a.down(at_a.id).await;
    let (_kept, at_b) = linked(&mut a, &mut b).await;
    let address = a.endpoint.listening()[0];
    drop(a);
    assert_eq!(b.down(at_b.id).await, stopping);
    let refused = timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    refused.await.expect("no longer listening");
}

#[tokio::test]
async fn names_are_resolved_and_dials_can_be_cancelled() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let name = Address::new("localhost", b.address().port()).expect("a name");
    a.endpoint.dial(DialId(1), name, Some(b.peer), Purpose::Link);
    let _links = (a.up().await, b.up().await);
    let nobody = Address::new("name.invalid", 1).expect("a name");
    a.endpoint.dial(DialId(2), nobody, None, Purpose::Link);
    assert!(matches!(a.dial_error().await, DialError::Resolve(_) | DialError::Timeout));
    // Somebody accepts and says nothing; cancelled, the dial is never heard of again.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").into();
    a.endpoint.dial(DialId(3), address, None, Purpose::Link);
    let accepted = tokio::task::spawn_blocking(move || silent.accept()).await;
    let (mut held, _) = accepted.expect("joined").expect("dialled");
    a.endpoint.cancel(DialId(3));
    held.set_read_timeout(Some(PATIENCE)).expect("set");
    let hung_up =
        tokio::task::spawn_blocking(move || std::io::copy(&mut held, &mut std::io::sink()).is_ok());
    assert!(hung_up.await.expect("joined"), "the connection is closed");
    a.dial(4, &b);
    assert_eq!(a.up().await.dial, Some(DialId(4)));
}

#[tokio::test]
async fn a_silent_listener_is_given_up_in_time_and_a_closed_port_at_once() {
    let mut a = Node::start_with(1, Membership::Open, |config| {
        config.handshake_timeout = Duration::from_millis(100);
    })
    .await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: Address = silent.local_addr().expect("bound").into();
    a.endpoint.dial(DialId(1), address.clone(), None, Purpose::Link);
    assert_eq!(a.dial_error().await, DialError::Timeout);
    drop(silent);
    a.endpoint.dial(DialId(2), address, None, Purpose::Link);
    assert_eq!(a.dial_error().await, DialError::Connect("connection refused".to_owned()));
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = EndpointConfig::new(identity(1), Membership::Open, 1);
    config.listen = vec![taken.local_addr().expect("bound").into()];
    let address = config.listen[0].to_string();
    let error = Endpoint::start(config, mpsc::channel(1).0).await.expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.ends_with("; choose another port, or stop what listens there"), "{error}");
}

/// Waits for what became of listening elsewhere.
async fn listening(node: &mut Node) -> Result<(), crate::link::ListenError> {
    loop {
        if let Event::Listening(outcome) = node.next("listening").await {
            return outcome;
        }
    }
}

#[tokio::test]
async fn listening_elsewhere_touches_neither_what_stays_nor_links_that_are_up() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let old = a.endpoint.listening()[0];
    b.dial(1, &a);
    let (at_b, _at_a) = (b.up().await, a.up().await);
    // The port that the system chose counts as the one that is named now.
    let two: [Address; 2] = [old.into(), "127.0.0.1:0".parse().expect("an address")];
    a.endpoint.listen_at(two.to_vec());
    listening(&mut a).await.expect("both");
    let both = a.endpoint.listening();
    assert!(both.len() == 2 && both.contains(&old), "{both:?}");
    let new = *both.iter().find(|address| **address != old).expect("two");
    a.endpoint.listen_at(vec![new.into()]);
    listening(&mut a).await.expect("one of them");
    assert_eq!(a.endpoint.listening(), [new]);
    assert!(TcpStream::connect(old).await.is_err(), "nobody listens there any more");
    let c = Node::start(3).await;
    c.endpoint.dial(DialId(1), new.into(), Some(a.peer), Purpose::Link);
    let _third = a.up().await;
    at_b.handle.send(vec![envelope(b"still here")]);
    assert_eq!(a.frames(1).await.len(), 1);
    a.endpoint.listen_at(Vec::new());
    listening(&mut a).await.expect("nowhere");
    assert_eq!(a.endpoint.listening(), []);
}

#[tokio::test]
async fn where_one_address_cannot_be_listened_on_all_is_as_before() {
    let mut a = Node::start(1).await;
    let old = a.endpoint.listening();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound");
    a.endpoint.listen_at(vec!["127.0.0.1:0".parse().expect("an address"), taken.into()]);
    let error = listening(&mut a).await.expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on {taken}")), "{error}");
    assert_eq!(a.endpoint.listening(), old);
    TcpStream::connect(old[0]).await.expect("it still listens");
}

#[tokio::test]
async fn one_address_takes_the_place_of_all_at_the_same_port_and_the_other_way_round() {
    let mut a = Node::start(1).await;
    let one = a.endpoint.listening()[0];
    let all: Address = Address::new("0.0.0.0", one.port()).expect("an address");
    for wanted in [all, one.into()] {
        a.endpoint.listen_at(vec![wanted.clone()]);
        listening(&mut a).await.expect("free: we leave it ourselves");
        assert_eq!(a.endpoint.listening().len(), 1);
        assert_eq!(Address::from(a.endpoint.listening()[0]), wanted);
        TcpStream::connect(one).await.expect("it listens");
    }
}

#[tokio::test]
async fn what_was_left_for_a_place_that_is_taken_is_taken_up_again() {
    let mut a = Node::start(1).await;
    let one = a.endpoint.listening()[0];
    // Another address at the same port: all of them cannot be had.
    let _taken = TcpListener::bind(("127.0.0.2", one.port())).expect("loopback has many");
    let all: Address = Address::new("0.0.0.0", one.port()).expect("an address");
    a.endpoint.listen_at(vec![all]);
    listening(&mut a).await.expect_err("in use");
    assert_eq!(a.endpoint.listening(), [one]);
    TcpStream::connect(one).await.expect("it listens again");
}

#[tokio::test]
async fn both_families_can_listen_on_one_port() {
    let Ok(probe) = TcpListener::bind("[::1]:0") else { return };
    let port = probe.local_addr().expect("bound").port();
    drop(probe);
    let mut config = EndpointConfig::new(identity(1), Membership::Open, 1);
    let listen = ["0.0.0.0", "::"].map(|host| Address::new(host, port).expect("an address"));
    config.listen = listen.to_vec();
    match Endpoint::start(config, mpsc::channel(1).0).await {
        Ok(endpoint) => assert_eq!(endpoint.listening().len(), 2),
        // Another test may have taken the port meanwhile, but not for this reason alone.
        Err(error) => assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "{error}"),
    }
}

#[tokio::test]
async fn nothing_readable_is_on_the_wire() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let tap = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tapped: Address = tap.local_addr().expect("bound").into();
    let target = b.endpoint.listening()[0];
    let captured = tokio::spawn(async move {
        let (mut near, _) = tap.accept().await.expect("dialled");
        let mut far = TcpStream::connect(target).await.expect("listening");
        let (mut captured, mut from_near, mut from_far) = (Vec::new(), [0; 4096], [0; 4096]);
        loop {
            let (read, to) = tokio::select! {
                n = near.read(&mut from_near) => (from_near.get(..n.unwrap_or(0)), &mut far),
                n = far.read(&mut from_far) => (from_far.get(..n.unwrap_or(0)), &mut near),
            };
            let bytes = read.expect("in bounds");
            if bytes.is_empty() {
                return captured;
            }
            captured.extend_from_slice(bytes);
            to.write_all(bytes).await.expect("passed on");
        }
    });
    a.endpoint.dial(DialId(1), tapped, Some(b.peer), Purpose::Link);
    let (at_a, at_b) = (a.up().await, b.up().await);
    const MARK: &[u8] = b"the quick brown fox jumps over the lazy dog";
    at_a.handle.send(vec![envelope(MARK)]);
    at_b.handle.send(vec![envelope(MARK)]);
    assert_eq!(a.frames(1).await.len() + b.frames(1).await.len(), 2);
    at_a.handle.close(CloseReason::Operator, "");
    b.down(at_b.id).await;
    let captured = captured.await.expect("captured");
    assert!(captured.len() > 2_000, "{} bytes were captured", captured.len());
    let contains = |needle: &[u8]| captured.windows(needle.len()).any(|w| w == needle);
    assert!(!contains(MARK) && !contains(&record(1)) && !contains(&record(2)));
    // Not even who they are: TLS 1.3 hides the keys, and there is no server name.
    assert!(!contains(a.peer.as_bytes()) && !contains(b.peer.as_bytes()));
    assert!(!contains(b"distmsg.") && contains(b"distmsg/1"), "only the protocol is offered");
}
