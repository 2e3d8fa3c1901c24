//! Control clients that misbehave: nobody else notices, and nothing of them stays.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::daemon::{Daemon, SOON, line};
use crate::hostile::{GROWTH_KB_MAX, resident_kb};
use crate::running::until;

/// Control clients at once, by default.
const CLIENTS_MAX: usize = 256;
/// Longer than this, and others notice. Commands take a hundredth of it on an idle machine.
const NOTICED: Duration = Duration::from_secs(5);

fn client(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream
}

/// The reply to one request.
fn ask(stream: &UnixStream, request: &str) -> String {
    let mut writer = stream;
    writer.write_all(format!("{request}\n").as_bytes()).expect("written");
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).expect("a reply");
    reply
}

/// Everything works, and fast enough.
#[track_caller]
fn is_served(a: &Daemon) {
    let start = Instant::now();
    a.ctl(&["send", "b", "served", "--timeout", "30s"]).exits(0);
    let took = start.elapsed();
    assert!(took < NOTICED, "another client's send took {took:?}");
}

#[test]
fn more_clients_than_allowed_are_told_and_the_others_served() {
    let net = line("ab");
    let [a, _] = &net[..] else { panic!("two") };
    let status = r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#;
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..CLIENTS_MAX {
        let client = client(a);
        assert!(ask(&client, status).contains("result"));
        clients.push(client);
    }
    let mut reply = String::new();
    let mut late = client(a);
    late.read_to_string(&mut reply).expect("told, and closed");
    assert!(reply.contains("busy") && reply.contains("256"), "{reply}");
    let refused = a.ctl(&["status"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("256"), "{}", refused.stderr);
    assert!(clients.iter().all(|client| ask(client, status).contains("result")));
    clients.clear();
    until("there is room again", SOON, || (a.ctl(&["status"]).code == Some(0)).then_some(()));
    is_served(a);
    assert!(a.log().contains("too many"), "the log says nothing of it");
}

#[test]
fn uploads_that_are_never_finished_leave_nothing() {
    let net = line("ab");
    let [a, _] = &net[..] else { panic!("two") };
    let chunk = STANDARD.encode(vec![7; 128 * 1024]);
    let chunk = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"upload_chunk","params":{{"upload":1,{}}}}}"#,
        format_args!(r#""data_base64":"{chunk}""#)
    );
    let round = |clients: usize| {
        let half_done: Vec<UnixStream> =
            std::iter::repeat_with(|| client(a)).take(clients).collect();
        for client in &half_done {
            let begin = concat!(
                r#"{"jsonrpc":"2.0","id":1,"method":"upload_begin","#,
                r#""params":{"upload":1,"bytes":8000000}}"#
            );
            assert!(ask(client, begin).contains("result"));
            for _ in 0..16 {
                assert!(ask(client, &chunk).contains("result"));
            }
        }
        is_served(a);
    };
    round(4);
    let before = resident_kb(a);
    // 2 MiB each: 64 MiB in all, if they stayed.
    for _ in 0..8 {
        round(4);
    }
    let after = resident_kb(a);
    assert!(after < before + GROWTH_KB_MAX, "grown from {before} kB to {after} kB");
}

#[test]
fn a_client_that_asks_much_and_reads_nothing_costs_little_and_nobody_notices() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let large = vec![b'x'; 200_000];
    for _ in 0..20 {
        b.ctl_given(&["send", &a.peer, "--timeout", "30s"], &large).exits(0);
    }
    let before = resident_kb(a);
    let mut greedy = client(a);
    greedy.set_write_timeout(Some(Duration::from_millis(500))).expect("set");
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"inbox","params":{}}"#;
    let all = format!("{ask}\n").repeat(20_000);
    // It is not read from while what it asked for is not read.
    let taken = greedy.write_all(all.as_bytes());
    assert!(taken.is_err(), "a megabyte of requests was taken");
    for _ in 0..3 {
        is_served(a);
        let after = resident_kb(a);
        assert!(after < before + 16 * 1024, "grown from {before} kB to {after} kB");
    }
}

#[test]
fn a_subscriber_that_reads_nothing_holds_nobody_up() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let deaf = client(a);
    let listen =
        r#"{"jsonrpc":"2.0","id":1,"method":"listen","params":{"name":"deaf","window":64}}"#;
    assert!(ask(&deaf, listen).contains("subscription"));
    let large = vec![b'x'; 100_000];
    let lines: Vec<u8> = [&large[..], b"\n"].concat().repeat(40);
    b.ctl_given(&["send", &a.peer, "--lines", "--timeout", "30s"], &lines).exits(0);
    is_served(a);
    let heard = a.ctl(&["listen", "--count", "40", "--timeout", "30s", "--raw"]).exits(0);
    assert_eq!(heard.stdout.len(), 40 * large.len());
    drop(deaf);
    // What it was leased is free for another of its name.
    a.ctl(&["listen", "--name", "deaf", "--count", "40", "--timeout", "30s"]).exits(0);
}
