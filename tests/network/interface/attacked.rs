//! Who is no client of ours gets nothing, not one byte, and disturbs nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{ask, authenticate, connect, connect_to, interface_of, token_of, with_interface};
use crate::daemon::{Daemon, SOON};
use crate::random::Choices;
use crate::running::until;

/// Whoever has not authenticated is given up after five seconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longer than this, and others notice.
const NOTICED: Duration = Duration::from_secs(5);
/// Connections that have not authenticated, of one address.
const WAITING_PER_SOURCE_MAX: usize = 64;

#[track_caller]
fn is_served(daemon: &Daemon) {
    let start = Instant::now();
    daemon.ctl(&["--interface", &way_of(daemon), "id"]).exits(0);
    daemon.ctl(&["id"]).exits(0);
    assert!(start.elapsed() < NOTICED, "served after {:?}", start.elapsed());
}

/// The way that a client of this machine takes.
fn way_of(daemon: &Daemon) -> String {
    let address = interface_of(daemon);
    match address.strip_prefix("0.0.0.0:") {
        Some(port) => format!("{}@127.0.0.1:{port}", daemon.peer),
        None => address,
    }
}

/// All that comes back before the connection is closed.
#[track_caller]
fn answer_to(mut stream: TcpStream, bytes: &[u8], what: &str) -> Vec<u8> {
    // It may be closed while we still write.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answer,
            Err(error) => panic!("still open after {what}: {error}"),
        }
    }
}

/// What a browser says first to a place that should be secure.
fn browsers_hello() -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

#[test]
fn what_is_no_client_gets_not_one_byte_and_disturbs_nobody() {
    let mut choices = Choices::new();
    let mut random = |length: usize| -> Vec<u8> {
        (0..length).map(|_| u8::try_from(choices.below(256)).expect("a byte")).collect()
    };
    let status = br#"{"jsonrpc":"2.0","id":1,"method":"status"}"#;
    let long = [&b"{"[..], &[b' '; 5_000], b"\n"].concat();
    let mut handshake = random(400);
    handshake[..5].copy_from_slice(&[22, 3, 1, 1, 0x80]);
    let browser = browsers_hello();
    let sent: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n".to_vec()),
        ("HTTP with JSON", b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a browser's TLS", browser.clone()),
        ("half of a browser's TLS", browser[..browser.len() / 2].to_vec()),
        ("random bytes", random(1)),
        ("random bytes", random(300)),
        ("random bytes", random(100_000)),
        ("random bytes in a handshake's record", handshake),
        ("an alert", vec![21, 3, 3, 0, 2, 1, 0]),
        ("an empty line", b"\n".to_vec()),
        ("another request", [&status[..], b"\n"].concat()),
        ("a list", b"[]\n".to_vec()),
        ("a request without an id", authenticate("x").replace("\"id\":0,", "").into_bytes()),
        ("no JSON", b"{\n".to_vec()),
        ("half a line", authenticate("x").into_bytes()),
        ("a line that is too long", long.clone()),
        ("a line without an end", vec![b'{'; 1_000_000]),
        ("nothing", Vec::new()),
    ];
    for address in ["127.0.0.2:0", "0.0.0.0:0"] {
        let a = with_interface("a", address);
        let port = interface_of(&a).replace("0.0.0.0", "127.0.0.1");
        std::thread::scope(|scope| {
            for (what, bytes) in &sent {
                let (stream, a) = (connect_to(&port), &a);
                scope.spawn(move || {
                    let start = Instant::now();
                    let bytes = [&bytes[..], b"\n"].concat();
                    let bytes =
                        if what.starts_with("half") { &bytes[..bytes.len() - 1] } else { &bytes };
                    let answer = answer_to(stream, bytes, what);
                    assert!(answer.is_empty(), "{what} is answered on {}: {answer:?}", a.name);
                    let took = start.elapsed();
                    assert!(took < DEADLINE + NOTICED, "{what} was open for {took:?}");
                });
            }
        });
        is_served(&a);
        let log = a.log();
        assert!(log.contains("closed a connection to the interface port"), "{log}");
        assert!(!log.contains("GET /") && !log.contains("SSH-2.0"), "what they said is not logged");
    }
}

#[test]
fn half_a_line_that_is_ended_gets_nothing() {
    let a = with_interface("a", "127.0.0.2:0");
    let right = authenticate(&token_of(&a));
    for half in [&right[..], &right[..40], ""] {
        let mut stream = connect(&a);
        stream.write_all(half.as_bytes()).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(answer_to(stream, b"", "half a line"), b"");
    }
}

#[test]
fn two_hundred_connections_that_say_nothing_keep_nobody_out_and_few_of_them_stay() {
    let a = with_interface("a", "127.0.0.2:0");
    let port = interface_of(&a);
    let start = Instant::now();
    let mut open: Vec<TcpStream> = (0..200).map(|_| connect_to(&port)).collect();
    until("few of them are left", SOON, || {
        open.retain(|stream| {
            stream.set_nonblocking(true).expect("set");
            let mut stream = stream;
            match stream.read(&mut [0]) {
                Ok(0) => false,
                Ok(_) => panic!("something was said to it"),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        (open.len() <= WAITING_PER_SOURCE_MAX).then_some(())
    });
    if start.elapsed() < DEADLINE / 2 {
        assert_eq!(open.len(), WAITING_PER_SOURCE_MAX, "those that came last stay for a while");
    }
    // They are there, and more come all the time; who has the token gets in.
    for _ in 0..10 {
        open.extend((0..WAITING_PER_SOURCE_MAX).map(|_| connect_to(&port)));
        is_served(&a);
    }
    for mut stream in open {
        stream.set_nonblocking(false).expect("set");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{said:?}");
    }
    a.logged("others want to be heard");
    let lines = a.log().matches("closed a connection to the interface port").count();
    assert!(lines < 100, "{lines} lines of the log tell of them");
}

#[test]
fn a_client_that_leaves_without_a_word_is_forgotten() {
    let a = with_interface("a", "127.0.0.2:0");
    for _ in 0..300 {
        let client = connect(&a);
        assert!(ask(&client, &authenticate(&token_of(&a))).contains("result"));
    }
    // More than may be served at once came, one after the other.
    is_served(&a);
}
