//! What strangers and bad peers may try.

use std::io;
use std::net::SocketAddr;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::super::channel::Channel;
use super::super::handshake::{Own, confirm, greet_listener};
use super::super::socket::Socket;
use super::super::tls::{RawKeys, Tls, client_config, provider};
use super::*;
use crate::wire::{CloseReason, Hello};

/// A client with a TLS configuration of its own: whether the handshake and one answer work.
async fn try_tls(address: SocketAddr, config: ClientConfig) -> io::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("x").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    // A client is satisfied before the server is; the alert comes with the first read.
    match timeout(PATIENCE, stream.read_u8()).await.expect("an answer") {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn client() -> ClientConfig {
    client_config(&identity(9)).expect("a configuration")
}

/// The client is refused, and for this reason: not for something else that is wrong with it.
async fn refuses(node: &mut Node, config: ClientConfig, what: &str, why: &str) {
    let outcome = try_tls(node.endpoint.listening()[0], config).await;
    assert!(outcome.is_err(), "{what} was accepted");
    let (peer, reason) = node.refused().await;
    assert_eq!((peer, reason), (None, format!("no distmsg: {why}")), "{what}");
}

#[tokio::test]
async fn other_protocols_and_key_exchanges_are_refused() {
    let mut node = Node::start(1).await;
    let mut config = client();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"distmsg/2".to_vec()];
    refuses(&mut node, config, "another protocol", "peer doesn't support any known protocol").await;
    let mut config = client();
    config.alpn_protocols.clear();
    refuses(&mut node, config, "no protocol", "the peer does not speak distmsg/1").await;
    for group in [kx_group::X25519, kx_group::SECP256R1, kx_group::MLKEM768] {
        let mut weaker = (*provider()).clone();
        weaker.kx_groups = vec![group];
        let config = ClientConfig::builder_with_provider(weaker.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RawKeys(
                provider().signature_verification_algorithms,
            )));
        let mut config = config.with_client_cert_resolver(client().client_auth_cert_resolver);
        config.alpn_protocols = client().alpn_protocols;
        refuses(
            &mut node,
            config,
            "a weaker key exchange",
            "peer is incompatible: NoKxGroupsInCommon",
        )
        .await;
    }
    // The same client with nothing changed is let in, and told nothing before it says hello.
    let tcp = TcpStream::connect(node.endpoint.listening()[0]).await.expect("listening");
    assert!(Tls::new(&identity(9)).expect("TLS").connect(Socket::new(tcp)).await.is_ok());
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mut node = Node::start(1).await;
    let mut tcp = TcpStream::connect(node.endpoint.listening()[0]).await.expect("listening");
    // A ClientHello of RFC 5246 with one cipher suite and no extensions.
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let length = hello.len() as u8;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend_from_slice(&hello);
    tcp.write_all(&record).await.expect("written");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("closed");
    assert!(read.is_ok() || !answer.is_empty());
    // A fatal alert, handshake_failure or protocol_version.
    assert_eq!(answer[0], 21, "{answer:?}");
    assert!(node.refused().await.1.starts_with("no distmsg: "), "refused with a reason");
}

/// Offers a certificate of the old kind.
#[derive(Debug)]
struct X509(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for X509 {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn clients_without_a_raw_ed25519_key_are_refused() {
    const WRONG_TYPE: &str = "peer is incompatible: IncorrectCertificateTypeExtension";
    let mut node = Node::start(1).await;
    let builder = || {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RawKeys(
                provider().signature_verification_algorithms,
            )))
    };
    let mut config = builder().with_no_client_auth();
    config.alpn_protocols = client().alpn_protocols;
    refuses(&mut node, config, "no key", WRONG_TYPE).await;
    let own = client().client_auth_cert_resolver.resolve(&[], &[]).expect("a key");
    let chain = vec![CertificateDer::from(vec![0x30, 0])];
    let certified = rustls::sign::CertifiedKey::new(chain, Arc::clone(&own.key));
    let mut config = builder().with_client_cert_resolver(Arc::new(X509(certified.into())));
    config.alpn_protocols = client().alpn_protocols;
    refuses(&mut node, config, "an X.509 certificate", WRONG_TYPE).await;
    // Somebody else's public key, without the private one.
    let chain = vec![CertificateDer::from(identity(2).to_spki())];
    let certified = rustls::sign::CertifiedKey::new(chain, Arc::clone(&own.key));
    let stolen = rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified.into());
    let mut config = builder().with_client_cert_resolver(Arc::new(stolen));
    config.alpn_protocols = client().alpn_protocols;
    refuses(&mut node, config, "a stolen key", "invalid peer certificate: BadSignature").await;
}

#[tokio::test]
async fn garbage_is_refused_and_silence_is_not_waited_for() {
    let mut node = Node::start_with(1, Membership::Open, |config| {
        config.handshake_timeout = Duration::from_millis(200);
    })
    .await;
    let address = node.endpoint.listening()[0];
    let mut tcp = TcpStream::connect(address).await.expect("listening");
    tcp.write_all(&[0xff; 4096]).await.expect("written");
    assert!(node.refused().await.1.starts_with("no distmsg: "));
    // Connected, and not a word.
    let begun = Instant::now();
    let mut tcp = TcpStream::connect(address).await.expect("listening");
    let end = timeout(PATIENCE, tcp.read(&mut [0])).await.expect("closed");
    assert!(matches!(end, Ok(0) | Err(_)) && begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(node.refused().await, (None, "no handshake within 200 ms".to_owned()));
    // TLS, and then not a word. On a machine that is busy TLS itself may take too long.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tcp = TcpStream::connect(address).await.expect("listening");
        let secured = Tls::new(&identity(9)).expect("TLS").connect(Socket::new(tcp)).await;
        if let Ok(secured) = secured {
            let mut channel = Channel::new(secured);
            assert!(channel.reader.read_handshake_frame().await.is_err());
        }
        let (peer, reason) = node.refused().await;
        assert_eq!(reason, "no handshake within 200 ms");
        if peer.is_some() {
            assert_eq!(peer, Some(identity(9).peer()));
            break;
        }
        assert!(Instant::now() < deadline, "TLS always takes too long");
    }
}

#[tokio::test]
async fn handshakes_in_progress_are_bounded() {
    let mut node = Node::start_with(1, Membership::Open, |config| {
        config.handshakes_per_source_max = 2;
    })
    .await;
    let address = node.endpoint.listening()[0];
    let _first = TcpStream::connect(address).await.expect("listening");
    let _second = TcpStream::connect(address).await.expect("listening");
    let mut third = TcpStream::connect(address).await.expect("listening");
    let end = timeout(PATIENCE, third.read(&mut [0])).await.expect("closed at once");
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(node.refused().await, (None, "too many handshakes are in progress".to_owned()));
}

/// A peer with the right key and its own ideas: a channel on which hello has yet to be said.
async fn rogue(node: &Node, seed: u8) -> (Channel, [u8; 32]) {
    let tcp = TcpStream::connect(node.endpoint.listening()[0]).await.expect("listening");
    let secured = Tls::new(&identity(seed)).expect("TLS").connect(Socket::new(tcp)).await;
    let secured = secured.expect("secured");
    let exporter = secured.exporter;
    (Channel::new(secured), exporter)
}

/// A rogue that has said hello properly: the link is up.
async fn linked_rogue(node: &mut Node, seed: u8) -> (Channel, Up) {
    let (mut channel, exporter) = rogue(node, seed).await;
    let own = Own {
        membership: &Membership::Open,
        instance: 1,
        record: Bytes::new(),
        exporter: &exporter,
    };
    greet_listener(&mut channel, &own).await.expect("satisfied");
    confirm(&mut channel, &own).await.expect("sent");
    let up = node.up().await;
    (channel, up)
}

fn hello(network: &Membership, proof: [u8; 32], record: Bytes) -> Hello {
    Hello { version: 1, features: 0, instance: 1, network: network.network(), proof, record }
}

#[tokio::test]
async fn a_stranger_learns_nothing_but_the_reason() {
    let mut node = Node::start_with(1, closed(1), |_| {}).await;
    let guesses = [[0; 32], [1; 32]];
    for proof in guesses {
        let (mut channel, _) = rogue(&node, 9).await;
        let hello = Frame::Hello(hello(&closed(1), proof, Bytes::new()));
        channel.writer.write(&hello).await.expect("sent");
        match channel.reader.read_handshake_frame().await {
            Ok(Frame::Close { reason: CloseReason::Network, text }) => {
                assert_eq!(&*text, "this node did not prove that it has the network's key")
            }
            other => panic!("{other:?} instead of Close"),
        }
        assert!(channel.reader.read_handshake_frame().await.is_err(), "nothing follows");
        assert_eq!(node.refused().await.0, Some(identity(9).peer()));
    }
}

#[tokio::test]
async fn a_reflected_and_a_replayed_proof_are_refused_and_no_record_is_shown() {
    let mut node = Node::start_with(1, closed(1), |_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: Address = listener.local_addr().expect("bound").into();
    let tls = Tls::new(&identity(9)).expect("TLS");
    let mut recorded = None;
    for (at, what) in ["reflected", "replayed"].into_iter().enumerate() {
        node.endpoint.dial(DialId(at as u64), address.clone(), None, Purpose::Link);
        let (tcp, _) = listener.accept().await.expect("dialled");
        let mut channel = Channel::new(tls.accept(Socket::new(tcp)).await.expect("secured"));
        let Ok(Frame::Hello(said)) = channel.reader.read_handshake_frame().await else {
            panic!("no hello");
        };
        assert!(said.record.is_empty(), "the record comes only after our proof");
        let proof = *recorded.get_or_insert(said.proof);
        let answer = Frame::Hello(hello(&closed(1), proof, record(9)));
        channel.writer.write(&answer).await.expect("sent");
        match node.dial_error().await {
            DialError::Refused { reason: CloseReason::Network, text, .. } => {
                assert_eq!(text, "the peer did not prove that it has the network's key", "{what}")
            }
            other => panic!("{what}: {other:?}"),
        }
        let last = channel.reader.read_handshake_frame().await;
        assert!(matches!(last, Ok(Frame::Close { .. })), "{what}: {last:?}");
    }
    // Replayed to the one who did not make it, on another connection.
    let (mut channel, _) = rogue(&node, 9).await;
    let proof = recorded.expect("recorded");
    let hello = Frame::Hello(hello(&closed(1), proof, Bytes::new()));
    channel.writer.write(&hello).await.expect("sent");
    let answer = channel.reader.read_handshake_frame().await;
    assert!(matches!(answer, Ok(Frame::Close { reason: CloseReason::Network, .. })));
}

#[tokio::test]
async fn another_version_and_other_first_frames_are_refused_with_a_reason() {
    let mut node = Node::start(1).await;
    let mut later = hello(&Membership::Open, [0; 32], Bytes::new());
    later.version = 2;
    let oversize = Bytes::from(vec![1; 9_000]);
    let cases: [(Bytes, CloseReason, &str); 4] = [
        (later.encode(), CloseReason::Version, "this node speaks version 2, the peer version 1"),
        (ping(1), CloseReason::Protocol, "not a hello as first frame"),
        (Bytes::from_static(&[0xee]), CloseReason::Protocol, "invalid frame type"),
        (oversize, CloseReason::Protocol, "hello is over its limit"),
    ];
    for (first, expected, expected_text) in cases {
        let (mut channel, _) = rogue(&node, 9).await;
        channel.writer.put(&first);
        channel.writer.flush().await.expect("sent");
        match channel.reader.read_handshake_frame().await {
            Ok(Frame::Close { reason, text }) => {
                assert_eq!((reason, &*text), (expected, expected_text));
            }
            other => panic!("{other:?} instead of {expected:?}"),
        }
        let (_, reason) = node.refused().await;
        // Who "this node" is depends on who reads.
        let here = match expected {
            CloseReason::Version => "this node speaks version 1, the peer version 2",
            _ => expected_text,
        };
        assert_eq!(reason, format!("{expected}: {here}"));
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_the_link_with_a_reason_and_no_other() {
    let (mut node, mut friend) = (Node::start(1).await, Node::start(2).await);
    let (at_node, _at_friend) = linked(&mut node, &mut friend).await;
    let mut second_hello = hello(&Membership::Open, [0; 32], Bytes::new());
    second_hello.instance = 2;
    let prefixed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes(), frame].concat();
    let cases: [(Vec<u8>, &str); 5] = [
        (vec![0, 1, 0, 1, 0x10], "frame is over its limit"),
        (vec![0, 0, 0, 0], "truncated frame"),
        (prefixed(&[0x10, 1]), "truncated frame"),
        (prefixed(&[0xee]), "invalid frame type"),
        (prefixed(&second_hello.encode()), "invalid second hello"),
    ];
    for (bytes, expected) in cases {
        let (channel, up) = linked_rogue(&mut node, 9).await;
        let Channel { mut reader, mut writer } = channel;
        writer.put(&ping(5));
        writer.flush().await.expect("sent");
        writer.put_raw(&bytes);
        writer.flush().await.expect("sent");
        // What came before still counts.
        assert_eq!(node.frames(1).await, [Frame::Ping { nonce: 5 }]);
        let reason = CloseReason::Protocol;
        let text = expected.to_owned();
        assert_eq!(node.down(up.id).await, Ended::ByUs { reason, text });
        match reader.read_handshake_frame().await {
            Ok(Frame::Close { reason, text }) => {
                assert_eq!((reason, &*text), (CloseReason::Protocol, expected));
            }
            other => panic!("{other:?} instead of Close"),
        }
    }
    at_node.handle.send(vec![ping(6)]);
    assert_eq!(friend.frames(1).await, [Frame::Ping { nonce: 6 }]);
}

#[tokio::test]
async fn half_a_frame_and_a_broken_connection_end_the_link() {
    let mut node = Node::start(1).await;
    for properly in [true, false] {
        let (mut channel, up) = linked_rogue(&mut node, 9).await;
        channel.writer.put_raw(&[0, 0, 0, 9, 0x10, 0]);
        channel.writer.flush().await.expect("sent");
        if properly {
            channel.writer.finish().await.expect("sent");
        }
        drop(channel);
        let why = if properly { "the peer hung up without a word" } else { "connection lost" };
        assert_eq!(node.down(up.id).await, Ended::Lost(why.to_owned()));
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody_and_is_given_up() {
    const QUEUED: usize = 24 * 1024 * 1024;
    let mut node = Node::start_with(1, Membership::Open, |config| {
        config.stall_timeout = Duration::from_secs(5);
    })
    .await;
    let (_deaf, to_deaf) = linked_rogue(&mut node, 9).await;
    let (mut reading, to_reading) = linked_rogue(&mut node, 8).await;
    let large = envelope(&vec![1; 60_000]);
    to_deaf.handle.send(vec![large.clone(); QUEUED / large.len()]);
    let conversation = async {
        for nonce in 0..100 {
            to_reading.handle.send(vec![ping(nonce)]);
            let got = timeout(PATIENCE, reading.reader.read_handshake_frame()).await;
            assert_eq!(got.expect("not held up").expect("a frame"), Frame::Ping { nonce });
        }
    };
    let events = async {
        while let Event::Written { .. } = node.next("Written").await {}
        panic!("the deaf one was given up too early");
    };
    tokio::select! {
        () = conversation => {}
        () = events => {}
    }
    assert_eq!(node.down(to_deaf.id).await, Ended::Lost("the peer took nothing for 5s".to_owned()));
    to_reading.handle.send(vec![ping(1)]);
    assert!(timeout(PATIENCE, reading.reader.read_handshake_frame()).await.is_ok());
}

#[tokio::test]
async fn more_than_the_hard_bound_in_a_queue_ends_the_link() {
    let mut node = Node::start_with(1, Membership::Open, |config| {
        config.queue_bytes_max = 1024 * 1024;
    })
    .await;
    let (_deaf, up) = linked_rogue(&mut node, 9).await;
    let large = envelope(&vec![1; 60_000]);
    let pump = async {
        loop {
            up.handle.send(vec![large.clone()]);
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::select! {
        () = pump => unreachable!(),
        ended = node.down(up.id) => ended,
    };
    let Ended::Lost(why) = &ended else { panic!("{ended:?}") };
    assert!(why.starts_with("congested: "), "{why}");
}

#[tokio::test]
async fn a_receiver_of_events_that_does_not_keep_up_holds_back_the_sender() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (at_a, _at_b) = linked(&mut a, &mut b).await;
    let large = envelope(&vec![1; 60_000]);
    let frames = 28 * 1024 * 1024 / large.len();
    at_a.handle.send(vec![large.clone(); frames]);
    // b handles nothing: what a can write is bounded by b's events and the kernel's buffers.
    let mut written = 0;
    while let Ok(event) = timeout(Duration::from_millis(500), a.events.recv()).await {
        match event.expect("running") {
            Event::Written { bytes, .. } => written += bytes,
            other => panic!("{other:?}"),
        }
    }
    assert!(written < frames * large.len(), "all of {written} bytes went out");
    // When it does, everything comes.
    let (got, ()) = tokio::join!(b.frames(frames), async {
        while written < frames * large.len() {
            if let Event::Written { bytes, .. } = a.next("Written").await {
                written += bytes;
            }
        }
    });
    assert_eq!(got.len(), frames);
}

#[tokio::test]
async fn the_record_must_follow_hello() {
    let mut node = Node::start(1).await;
    for wrong in [Frame::Records { records: vec![] }, Frame::Ping { nonce: 1 }] {
        let (mut channel, exporter) = rogue(&node, 9).await;
        let own = Own {
            membership: &Membership::Open,
            instance: 1,
            record: Bytes::new(),
            exporter: &exporter,
        };
        greet_listener(&mut channel, &own).await.expect("satisfied");
        channel.writer.write(&wrong).await.expect("sent");
        let answer = channel.reader.read_handshake_frame().await;
        assert!(matches!(answer, Ok(Frame::Close { reason: CloseReason::Protocol, .. })));
        assert!(node.refused().await.1.starts_with("protocol violation: not "));
    }
}

/// Says in the environment that this process is the child of the test below.
const CHILD: &str = "DISTMSG_TEST_DESCRIPTORS";

#[cfg(target_os = "linux")]
#[test]
fn without_descriptors_the_listener_neither_spins_nor_dies() {
    if std::env::var_os(CHILD).is_some() {
        return tokio::runtime::Runtime::new().expect("a runtime").block_on(starve());
    }
    // The limit is the process's: a child of its own leaves the other tests alone.
    let name = "link::tests::hostile::without_descriptors_the_listener_neither_spins_nor_dies";
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
}

async fn starve() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let (mut a, b) = (Node::start(1).await, Node::start(2).await);
    let address = b.endpoint.listening()[0];
    let mut stat = std::fs::File::open("/proc/self/stat").expect("Linux");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).expect("set");
    // Our ends use up all descriptors; then there is none for the listener's ends.
    let mut held = Vec::new();
    while let Ok(Ok(tcp)) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        held.push(tcp);
    }
    let before = processor_ticks(&mut stat);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = processor_ticks(&mut stat) - before;
    assert!(used < 25, "{used} ticks of 10 ms in half a second of waiting");
    drop(held);
    a.dial(1, &b);
    loop {
        match a.next("Up").await {
            Event::Up { .. } => return drop(b.events),
            Event::DialFailed { .. } => a.dial(1, &b),
            other => panic!("{other:?}"),
        }
    }
}

/// Processor time that this process has used (proc(5), fields 14 and 15).
fn processor_ticks(stat: &mut std::fs::File) -> u64 {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    stat.rewind().expect("rewound");
    stat.read_to_string(&mut text).expect("read");
    let fields = text.rsplit(')').next().expect("fields").split_ascii_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}
