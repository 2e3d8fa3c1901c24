//! The server, with a node that answers as told.

use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
};
use tokio::sync::mpsc;

use crate::control::client::{CallError, Client};
use crate::control::codec::{Call, Outgoing, RequestId};
use crate::control::protocol::{
    DiscoveredEvent, Done, ErrorCode, Event, Failure, PeerRef, Reply, Request, Send, Sent, Wait,
};
use crate::control::server::{ClientEvent, ClientNews, Server};
use crate::model::Limits;
use crate::model::limits::CONTROL_LINE_BYTES_MAX;

/// No test takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn sent(id: String) -> Reply {
    Reply::Sent(Sent { id, state: Wait::Queued, duplicate: false })
}

/// A node that answers `send` with the body's length, `forget` with a failure, and `discover` with
/// a great many events; to `status`
/// and `disconnect` it says nothing.
fn node() -> Server {
    let limits = Limits { clients_max: 3, message_bytes_max: 1_000_000, ..Limits::default() };
    let (sender, mut events) = mpsc::channel::<ClientEvent>(16);
    tokio::spawn(async move {
        let mut handles = std::collections::BTreeMap::new();
        while let Some(ClientEvent { client, what }) = events.recv().await {
            match what {
                ClientNews::Connected(handle) => drop(handles.insert(client, handle)),
                ClientNews::Gone => drop(handles.remove(&client)),
                ClientNews::Calls(calls) => {
                    for (id, call) in calls {
                        let result = match call {
                            Call::Send(send) => Ok(sent(send.body.len().to_string())),
                            Call::Other(Request::Forget(_)) => {
                                Err(Failure::new(ErrorCode::NoSuchPeer, "nobody"))
                            }
                            Call::Other(Request::Status {} | Request::Disconnect(_)) => continue,
                            Call::Other(Request::Discover(_)) => {
                                let event = Event::Discovered(DiscoveredEvent {
                                    peer: "p".repeat(100),
                                    name: None,
                                    addresses: Vec::new(),
                                    via: String::new(),
                                    new: true,
                                });
                                let events = vec![Outgoing::Event(event); 100_000];
                                handles[&client].push(events);
                                continue;
                            }
                            Call::Other(_) => Ok(Reply::Done(Done {})),
                        };
                        handles[&client].push(vec![Outgoing::Reply { id, result }]);
                    }
                }
            }
        }
    });
    Server::new(&limits, sender)
}

fn connect(server: &Server) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move { server.serve(theirs).await });
    ours
}

fn to(peer: &str) -> Send {
    Send {
        peer: peer.into(),
        body: None,
        body_base64: None,
        upload: None,
        subject: None,
        wait: Wait::Queued,
        timeout_ms: None,
        key: None,
    }
}

async fn ask(stream: &mut BufReader<DuplexStream>, line: &str) -> serde_json::Value {
    stream.get_mut().write_all(line.as_bytes()).await.expect("written");
    let mut reply = String::new();
    stream.read_line(&mut reply).await.expect("read");
    serde_json::from_str(&reply).expect(&reply)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[tokio::test]
async fn bodies_of_every_kind_and_size_reach_the_node() {
    let server = node();
    let (client, _events) = Client::over(connect(&server));
    for body in [&b""[..], b"x", b"\xff\x00", &[b'y'; 200_000], &[0xfe; 999_999]] {
        let sent = within("a send", client.send_body(to("bob"), body)).await.expect("taken");
        assert_eq!(sent.id, body.len().to_string());
    }
    let refused = within("a send", client.send_body(to("bob"), &[0; 1_000_001])).await;
    let Err(CallError::Failure(failure)) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.code, ErrorCode::TooLarge, "{}", failure.message);
}

#[tokio::test]
async fn replies_come_in_the_order_of_pipelined_requests() {
    let server = node();
    let (client, _events) = Client::over(connect(&server));
    let pending: Vec<_> =
        (0..20_000_usize).map(|n| client.send_body(to("bob"), &vec![b'x'; n % 50])).collect();
    for (n, pending) in pending.into_iter().enumerate() {
        let sent = within("a reply", pending).await.expect("taken");
        assert_eq!(sent.id, (n % 50).to_string());
    }
}

#[tokio::test]
async fn a_failure_comes_with_its_code() {
    let server = node();
    let (client, _events) = Client::over(connect(&server));
    let forget = Request::Forget(PeerRef { peer: "x".into() });
    match within("a reply", client.call::<Done>(&forget)).await {
        Err(CallError::Failure(failure)) => assert_eq!(failure.code, ErrorCode::NoSuchPeer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_json_is_answered_and_the_connection_closed() {
    let server = node();
    let mut stream = BufReader::new(connect(&server));
    let reply = within("a reply", ask(&mut stream, "GET / HTTP/1.1\r\n")).await;
    assert_eq!(reply["error"]["code"], -32_700);
    assert_eq!(reply["error"]["data"]["code"], "parse_error");
    assert!(reply["id"].is_null());
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest)).await.expect("read");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_line_may_come_byte_by_byte_but_not_be_too_long() {
    let server = node();
    let mut stream = connect(&server);
    let line = br#"{"jsonrpc":"2.0","id":1,"method":"send","params":{"peer":"b","body":"xyz"}}"#;
    for byte in line.iter().chain(b"\n") {
        stream.write_all(&[*byte]).await.expect("written");
    }
    let mut stream = BufReader::new(stream);
    let reply = within("a reply", ask(&mut stream, "")).await;
    assert_eq!(reply["result"]["id"], "3");
    let long = vec![b' '; CONTROL_LINE_BYTES_MAX + 2];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move { writer.write_all(&long).await });
    let mut reply = Vec::new();
    within("the end", reader.read_to_end(&mut reply)).await.expect("read");
    let reply: serde_json::Value = serde_json::from_slice(&reply).expect("a reply");
    assert_eq!(reply["error"]["data"]["code"], "parse_error");
    drop(writing);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_dropped_and_nobody_else_notices() {
    let server = node();
    let mut lazy = connect(&server);
    let line =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"discover\",\"params\":{\"timeout_ms\":1}}\n";
    lazy.write_all(line.as_bytes()).await.expect("written");
    let (client, _events) = Client::over(connect(&server));
    let sent = within("another's send", client.send_body(to("bob"), b"abc")).await.expect("taken");
    assert_eq!(sent.id, "3");
    // 100,000 events are more than may wait for a client: what was written comes, then the end.
    let mut rest = Vec::new();
    within("the end", lazy.read_to_end(&mut rest)).await.expect("read");
    assert!(rest.len() < 100_000 * 100, "everything was kept for it");
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_not_read_without_end() {
    let server = node();
    let mut greedy = connect(&server);
    let line = br#"{"jsonrpc":"2.0","id":1,"method":"disconnect","params":{"peer":"b"}}"#;
    let line = [line, &b"\n"[..]].concat().repeat(1_000);
    // Nothing is ever answered: after some thousands of requests nothing more is taken.
    let mut taken = 0;
    while taken < 100
        && let Ok(written) =
            tokio::time::timeout(Duration::from_millis(500), greedy.write_all(&line)).await
    {
        written.expect("written");
        taken += 1;
    }
    assert!((8..20).contains(&taken), "{taken} thousand requests were taken");
}

#[tokio::test]
async fn lists_are_served_as_fast_as_they_are_read() {
    let (sender, mut events) = mpsc::channel::<ClientEvent>(16);
    let server = Server::new(&Limits::default(), sender);
    let mut greedy = connect(&server);
    let inbox = br#"{"jsonrpc":"2.0","id":1,"method":"inbox","params":{}}"#;
    let send = br#"{"jsonrpc":"2.0","id":2,"method":"send","params":{"peer":"b","body":""}}"#;
    let lines = [inbox, &b"\n"[..]].concat().repeat(100);
    greedy.write_all(&[send, &b"\n"[..], &lines].concat()).await.expect("written");
    let mut handle = None;
    let mut pages = 0;
    // What comes without a pause: a send and some lists.
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(300), events.recv()).await {
        match event.expect("the server runs").what {
            ClientNews::Connected(client) => handle = Some(client),
            ClientNews::Calls(calls) => {
                pages += calls.iter().filter(|(_, call)| matches!(call, Call::Other(_))).count();
            }
            ClientNews::Gone => panic!("it is still there"),
        }
    }
    assert_eq!(pages, 8);
    // An answer that is written makes room for the next, also if it is a failure.
    let handle = handle.expect("a client");
    let failure = Err(Failure::new(ErrorCode::Busy, "later"));
    handle.push(vec![Outgoing::Reply { id: RequestId::Number(1), result: failure }]);
    let next = within("another call", events.recv()).await.expect("the server runs");
    assert!(matches!(next.what, ClientNews::Calls(calls) if calls.len() == 1));
}

#[tokio::test]
async fn there_are_only_so_many_clients() {
    let server = node();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, events) = Client::over(connect(&server));
        within("a send", client.send_body(to("bob"), b"x")).await.expect("taken");
        clients.push((client, events));
    }
    let mut surplus = BufReader::new(connect(&server));
    let reply = within("a reply", ask(&mut surplus, "")).await;
    assert_eq!(reply["error"]["data"]["code"], "busy");
    drop(clients.pop());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (client, _events) = Client::over(connect(&server));
        if client.send_body(to("bob"), b"x").await.is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "a place never became free");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_asks_no_more_still_gets_its_replies() {
    let server = node();
    let mut stream = connect(&server);
    let line = br#"{"jsonrpc":"2.0","id":9,"method":"send","params":{"peer":"b","body":""}}"#;
    stream.write_all(&[line, &b"\n"[..]].concat()).await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut reply = Vec::new();
    within("the reply", stream.read_to_end(&mut reply)).await.expect("read");
    let reply: serde_json::Value = serde_json::from_slice(&reply).expect("a reply");
    assert_eq!((reply["id"].as_i64(), reply["result"]["id"].as_str()), (Some(9), Some("0")));
}
