//! `listen`: what is printed, and what is acknowledged.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Answer, BOB, Close, EVE, Event, Fake, ran, reply, wait_until};

fn message(cursor: u64, from: &str, alias: Option<&str>, body: &str) -> Value {
    json!({
        "cursor": cursor, "id": format!("{cursor:032x}"), "from": from,
        "alias": alias, "subject": null, "sent": "2026-01-02T03:04:05Z",
        "received": "2026-01-02T03:04:06.7Z", "bytes": body.len(), "body": body,
    })
}

fn event(message: Value) -> Answer {
    Event("message", json!({"subscription": 5, "message": message}))
}

/// A daemon with these messages for whoever listens.
fn with_messages(messages: Vec<Value>) -> Fake {
    Fake::start(move |method, params| match method {
        "listen" => {
            let mut answers = reply(json!({"subscription": 5}));
            answers.extend(messages.iter().map(|m| event(m.clone())));
            answers
        }
        "ack" => {
            assert_eq!(params["subscription"], 5);
            reply(json!({}))
        }
        "read" => {
            let offset = params["offset"].as_u64().expect("an offset");
            let bytes =
                200_000_u64.saturating_sub(offset).min(params["bytes"].as_u64().expect("bytes"));
            reply(json!({"data_base64": "AAAA".repeat(bytes as usize / 3)}))
        }
        other => panic!("asked for {other}"),
    })
}

fn three() -> Vec<Value> {
    vec![
        message(1, BOB, Some("bob"), "one"),
        message(2, EVE, None, "t\nwo\u{1b}[2J\\"),
        message(3, BOB, Some("bob"), "three"),
    ]
}

fn acknowledged(fake: &Fake) -> Vec<u64> {
    let acks = fake.asked("ack");
    let cursors = acks.iter().flat_map(|ack| ack["cursors"].as_array().expect("cursors").clone());
    cursors.filter_map(|cursor| cursor.as_u64()).collect()
}

#[test]
fn a_line_is_time_sender_and_body_with_everything_escaped() {
    let fake = with_messages(three());
    let expected = format!(
        "2026-01-02T03:04:06+00:00 bob one\n\
         2026-01-02T03:04:06+00:00 {EVE} t\\nwo\\u{{1b}}[2J\\\\\n\
         2026-01-02T03:04:06+00:00 bob three\n"
    );
    assert_eq!(fake.ctl(&["listen", "--count", "3"]), ran(0, &expected, ""));
    assert_eq!(acknowledged(&fake), [1, 2, 3]);
}

#[test]
fn nothing_beyond_the_count_is_printed_or_acknowledged() {
    let fake = with_messages(three());
    assert_eq!(
        fake.ctl(&["listen", "--count", "1"]),
        ran(0, "2026-01-02T03:04:06+00:00 bob one\n", "")
    );
    assert_eq!(acknowledged(&fake), [1]);
    assert_eq!(fake.asked("listen"), [json!({"name": "default", "window": 1})]);
}

#[test]
fn the_options_reach_the_daemon() {
    let fake = with_messages(three());
    let args = "listen --name n --from bob --since 2026-01-02T00:00:00Z --count 1";
    assert_eq!(fake.ctl(&args.split(' ').collect::<Vec<_>>()).code, 0);
    assert_eq!(
        fake.asked("listen"),
        [json!({"name": "n", "from": "bob", "since": "2026-01-02T00:00:00Z", "window": 1})]
    );
}

#[test]
fn raw_is_the_bytes_of_the_bodies() {
    let fake = with_messages(three());
    assert_eq!(fake.ctl(&["listen", "--count", "2", "--raw"]), ran(0, "onet\nwo\u{1b}[2J\\", ""));
}

#[test]
fn json_is_the_whole_message_a_line() {
    let fake = with_messages(three());
    let ran = fake.ctl(&["listen", "--count", "1", "--json"]);
    let expected = message(1, BOB, Some("bob"), "one");
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).expect("JSON"), expected);
}

#[test]
fn a_large_body_is_fetched() {
    let mut large = message(1, BOB, None, "");
    large.as_object_mut().expect("an object").remove("body");
    large["bytes"] = 199_998.into();
    let fake = with_messages(vec![large]);
    let ran = fake.ctl(&["listen", "--count", "1", "--raw"]);
    assert_eq!((ran.code, ran.stdout.len()), (0, 199_998));
    assert_eq!(acknowledged(&fake), [1]);
}

#[test]
fn raw_and_json_exclude_each_other() {
    assert_eq!(with_messages(three()).ctl(&["listen", "--raw", "--json"]).code, 2);
}

#[test]
fn nothing_in_time_is_exit_5() {
    let fake = with_messages(Vec::new());
    assert_eq!(
        fake.ctl(&["listen", "--timeout", "0.1"]),
        ran(5, "", "distmsgctl: no message came within 0.1s\n")
    );
}

#[test]
fn a_daemon_that_hangs_is_exit_3_whatever_the_timeout() {
    let silent = Fake::answering("listen", Vec::new);
    assert_eq!(
        silent.ctl(&["listen", "--timeout", "10ms"]),
        ran(
            3,
            "",
            "distmsgctl: the daemon does not answer; it was stopped or hangs, and its log may say \
             why\n"
        )
    );
}

#[test]
fn fewer_than_the_count_in_time_is_exit_5_and_they_are_acknowledged() {
    let fake = with_messages(three());
    let ran = fake.ctl(&["listen", "--timeout", "0.5", "--count", "4"]);
    assert_eq!(ran.code, 5);
    assert_eq!(ran.stdout.lines().count(), 3);
    assert_eq!(ran.stderr, "distmsgctl: 3 of 4 messages came within 0.5s\n");
    assert_eq!(acknowledged(&fake), [1, 2, 3]);
}

#[test]
fn some_in_time_without_a_count_is_done() {
    let fake = with_messages(three());
    let ran = fake.ctl(&["listen", "--timeout", "0.5"]);
    assert_eq!((ran.code, ran.stdout.lines().count(), &*ran.stderr), (0, 3, ""));
}

#[test]
fn an_acknowledgement_that_fails_is_told() {
    let fake = Fake::start(|method, _| match method {
        "listen" => {
            let mut answers = reply(json!({"subscription": 5}));
            answers.push(event(message(1, BOB, None, "x")));
            answers
        }
        _ => vec![Close],
    });
    let ran = fake.ctl(&["listen", "--count", "1"]);
    assert_eq!(ran.code, 3);
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn a_line_is_out_before_it_is_acknowledged() {
    // The second message comes only after the first is acknowledged, and that only once it can be
    // read here.
    let fake = with_messages(three());
    let mut child = fake
        .command(&["listen"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("distmsgctl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for _ in 0..3 {
        lines.next().expect("a line").expect("text");
    }
    wait_until("all three are acknowledged", || acknowledged(&fake).len() == 3);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn what_nobody_would_see_is_not_acknowledged() {
    let fake = with_messages(three());
    let run = |redirection: &str| {
        let line = format!("exec \"$0\" listen --timeout 0.1 {redirection}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_distmsgctl")]);
        shell.env_clear().env("DISTMSG_SOCKET", fake.socket()).env("TZ", "UTC");
        crate::fake::run(shell, b"")
    };
    let closed = run(">&-");
    assert_eq!(closed.code, 1, "{}", closed.stderr);
    assert!(closed.stderr.contains("standard output is closed"), "{}", closed.stderr);
    assert_eq!(acknowledged(&fake), [0; 0]);
    // To throw them away is a choice.
    assert_eq!(run(">/dev/null"), ran(0, "", ""));
    assert_eq!(acknowledged(&fake), [1, 2, 3]);
}

#[test]
fn what_could_not_be_written_is_not_acknowledged() {
    let fake = with_messages(three());
    let mut command = fake.command(&["listen"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().expect("distmsgctl starts");
    drop(command);
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(stderr, "");
    assert_eq!(acknowledged(&fake), [0; 0]);
}

#[test]
fn a_signal_ends_it_in_order() {
    use rustix::process::Signal;
    // Whoever set a time wants to know that it was not kept.
    for (args, signal, code) in [
        (&["listen"][..], Signal::INT, 130),
        (&["listen"], Signal::TERM, 0),
        (&["listen", "--timeout", "1m"], Signal::TERM, 143),
    ] {
        let fake = with_messages(three());
        let mut child = fake
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("distmsgctl starts");
        wait_until("all three are acknowledged", || acknowledged(&fake).len() == 3);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
    }
}

#[test]
fn thousands_are_printed_and_acknowledged_once_each() {
    let messages: Vec<Value> = (1..=5_000).map(|n| message(n, BOB, None, "x")).collect();
    let fake = with_messages(messages);
    let ran = fake.ctl(&["listen", "--count", "5000"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 5_000));
    assert_eq!(acknowledged(&fake), (1..=5_000).collect::<Vec<u64>>());
    assert!(
        fake.asked("ack")
            .iter()
            .all(|ack| ack["cursors"].as_array().is_some_and(|c| c.len() <= 1_024))
    );
}

#[test]
fn a_signal_while_it_writes_lets_it_finish_and_acknowledge() {
    // Larger than a pipe: it is still writing when the signal comes.
    let body = "x".repeat(300_000);
    let fake = with_messages(vec![message(1, BOB, None, &body)]);
    let mut child = fake
        .command(&["listen"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("distmsgctl starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0; 1];
    stdout.read_exact(&mut first).expect("it writes");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(130));
    assert!(rest.len() > 300_000, "the line is whole");
    assert_eq!(acknowledged(&fake), [1]);
}
