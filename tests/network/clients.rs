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
    a.logged("too many");
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

/// Kilobytes by which a daemon may grow for all its subscribers together, however many there are.
const SUBSCRIBERS_KB_MAX: u64 = 64 * 1024;

/// The same for its listeners, who share nothing.
const LISTENERS_KB_MAX: u64 = 128 * 1024;

/// Messages of 16 KiB in a stream: more than any client may have waiting.
const STREAM: usize = 1_600;

/// Streams messages to `a`, and watches how large its daemon becomes meanwhile.
fn largest_under_a_stream(a: &Daemon, b: &Daemon) -> u64 {
    let body = [&[b'x'; 16 * 1024][..], b"\n"].concat();
    let mut stream = b.ctl_start(&["send", &a.peer, "--lines", "--timeout", "60s"]);
    let (mut largest, mut given) = (0, 0);
    while given < STREAM {
        assert!(stream.give(&body.repeat(32)), "it reads its input");
        given += 32;
        largest = largest.max(resident_kb(a));
    }
    stream.close();
    while !stream.is_over() {
        largest = largest.max(resident_kb(a));
        std::thread::sleep(Duration::from_millis(2));
    }
    stream.finish().exits(0);
    largest
}

#[test]
fn subscribers_that_read_nothing_share_what_waits_for_them() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    // What the stream alone takes: buffers, the newest messages, pages of the database.
    let alone = largest_under_a_stream(a, b);
    let mut streamed = STREAM;
    for silent in [20, 200] {
        let subscribe =
            r#"{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"topics":["messages"]}}"#;
        let deaf: Vec<UnixStream> = std::iter::repeat_with(|| client(a)).take(silent).collect();
        assert!(deaf.iter().all(|client| ask(client, subscribe).contains("subscription")));
        let hearing = client(a);
        assert!(ask(&hearing, subscribe).contains("subscription"));
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(hearing).lines().map_while(Result::ok);
            lines.take(STREAM).count()
        });
        let largest = largest_under_a_stream(a, b);
        eprintln!("{silent} silent subscribers: {alone} kB before, {largest} kB at most");
        assert!(
            largest < alone + SUBSCRIBERS_KB_MAX,
            "grown from {alone} kB to {largest} kB for {silent} silent subscribers"
        );
        assert_eq!(reader.join().expect("it reads"), STREAM, "who reads is told of everything");
        streamed += STREAM;
        assert_eq!(a.status()["inbox_messages"], streamed);
    }
    is_served(a);
}

#[test]
fn listeners_that_read_nothing_take_a_common_part_and_no_more() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let alone = largest_under_a_stream(a, b);
    let deaf: Vec<UnixStream> = std::iter::repeat_with(|| client(a)).take(200).collect();
    for (number, client) in deaf.iter().enumerate() {
        // Each has everything to read, and may have a great deal at once.
        let listen = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"listen","params":{{"name":"n{number}",{}}}}}"#,
            r#""window":1024"#
        );
        assert!(ask(client, &listen).contains("subscription"));
    }
    let largest = largest_under_a_stream(a, b);
    eprintln!("200 silent listeners: {alone} kB before, {largest} kB at most");
    assert!(largest < alone + LISTENERS_KB_MAX, "grown from {alone} kB to {largest} kB");
    is_served(a);
}
