//! `send`: bodies, and the truth about them.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Answer, BOB, Close, Failure, Fake, failure, ran, reply};

fn sent(state: &str) -> Vec<Answer> {
    reply(json!({"id": "00ff", "state": state}))
}

fn delivering() -> Fake {
    Fake::answering("send", || sent("delivered"))
}

fn not_delivered() -> Vec<Answer> {
    vec![Failure("not_delivered", "no receipt within 2s", json!({"id": "00ff", "peer": BOB}))]
}

#[test]
fn what_is_delivered_is_silent() {
    let fake = delivering();
    assert_eq!(fake.ctl(&["send", "bob", "hello"]), ran(0, "", ""));
    assert_eq!(
        fake.asked("send"),
        [json!({"peer": "bob", "body": "hello", "wait": "delivered", "timeout_ms": 10_000})]
    );
}

#[test]
fn as_json_the_message_is_named() {
    assert_eq!(
        delivering().ctl(&["send", "bob", "hello", "--json"]),
        ran(0, "{\"id\":\"00ff\",\"state\":\"delivered\"}\n", "")
    );
}

#[test]
fn the_options_reach_the_daemon() {
    let fake = Fake::answering("send", || sent("queued"));
    let args = "send bob x --wait queued --timeout 2 --id k1 --subject s".split(' ');
    assert_eq!(fake.ctl(&args.collect::<Vec<_>>()), ran(0, "", ""));
    assert_eq!(
        fake.asked("send"),
        [json!({
            "peer": "bob", "body": "x", "subject": "s", "wait": "queued", "timeout_ms": 2_000,
            "key": "k1",
        })]
    );
}

#[test]
fn an_empty_argument_is_a_body() {
    let fake = delivering();
    assert_eq!(fake.ctl_with(&["send", "bob", ""], b"not this"), ran(0, "", ""));
    assert_eq!(fake.asked("send")[0]["body"], "");
}

#[test]
fn without_a_body_it_is_standard_input_whole() {
    let fake = delivering();
    assert_eq!(fake.ctl_with(&["send", "bob"], b"two\nlines\n"), ran(0, "", ""));
    assert_eq!(fake.asked("send")[0]["body"], "two\nlines\n");
}

#[test]
fn bytes_that_are_no_text_go_as_base64() {
    let fake = delivering();
    let file = fake.path("body");
    fs::write(&file, b"\x00\xff").expect("a file");
    assert_eq!(fake.ctl(&["send", "bob", "--file", file.to_str().expect("text")]), ran(0, "", ""));
    assert_eq!(fake.asked("send")[0]["body_base64"], "AP8=");
}

#[test]
fn a_file_that_is_not_there_is_exit_1() {
    assert_eq!(
        delivering().ctl(&["send", "bob", "--file", "/nonexistent"]),
        ran(
            1,
            "",
            "distmsgctl: cannot read /nonexistent: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn not_in_time_is_exit_4_and_names_what_is_queued() {
    let fake = Fake::answering("send", not_delivered);
    assert_eq!(
        fake.ctl(&["send", "bob", "x", "--timeout", "2"]),
        ran(4, "", "distmsgctl: no receipt within 2s; still queued as 00ff\n")
    );
}

#[test]
fn an_unknown_alias_is_exit_8() {
    let fake = Fake::answering("send", || failure("no_such_peer", "no peer is called 'bob'"));
    assert_eq!(
        fake.ctl(&["send", "bob", "x"]),
        ran(8, "", "distmsgctl: no peer is called 'bob'\n")
    );
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let fake = Fake::start(|method, params| match method {
        "upload_begin" if params["bytes"].as_u64() > Some(16 << 20) => {
            failure("too_large", "a body has at most 16 MiB")
        }
        other => panic!("asked for {other}"),
    });
    // Not an end of it would come.
    let args = ["send", "bob", "--file", "/dev/zero"];
    assert_eq!(fake.ctl(&args), ran(7, "", "distmsgctl: a body has at most 16 MiB\n"));
    let file = fake.path("large");
    fs::File::create(&file).expect("a file").set_len((16 << 20) + 1).expect("a length");
    let args = ["send", "bob", "--file", file.to_str().expect("text")];
    assert_eq!(fake.ctl(&args), ran(7, "", "distmsgctl: a body has at most 16 MiB\n"));
    assert_eq!(fake.asked("upload_begin")[1], json!({"upload": 1, "bytes": (16 << 20) + 1}));
}

#[test]
fn lines_are_messages_in_order() {
    let fake = delivering();
    assert_eq!(fake.ctl_with(&["send", "bob", "--lines"], b"a\n\r\n\nlast"), ran(0, "", ""));
    let bodies: Vec<Value> = fake.asked("send").iter().map(|send| send["body"].clone()).collect();
    assert_eq!(bodies, ["a", "\r", "", "last"]);
}

#[test]
fn lines_as_json_are_named_each() {
    assert_eq!(
        delivering().ctl_with(&["send", "bob", "--lines", "--json"], b"a\nb\n"),
        ran(
            0,
            "{\"line\":1,\"id\":\"00ff\",\"state\":\"delivered\"}\n\
             {\"line\":2,\"id\":\"00ff\",\"state\":\"delivered\"}\n",
            ""
        )
    );
}

#[test]
fn each_line_has_its_own_key() {
    let fake = delivering();
    fake.ctl_with(&["send", "bob", "--lines", "--id", "k"], b"a\nb\n");
    let keys: Vec<Value> = fake.asked("send").iter().map(|send| send["key"].clone()).collect();
    assert_eq!(keys, ["k-1", "k-2"]);
}

#[test]
fn a_line_that_fails_is_named_and_the_stream_goes_on() {
    let fake = Fake::answering_sends(|params| match params["body"].as_str() {
        Some("late") => not_delivered(),
        Some("large") => failure("too_large", "too large"),
        _ => sent("delivered"),
    });
    assert_eq!(
        fake.ctl_with(&["send", "bob", "--lines"], b"a\nlarge\nlate\nb\n"),
        ran(
            7,
            "",
            "distmsgctl: line 2: too large\n\
             distmsgctl: line 3: no receipt within 2s; still queued as 00ff\n"
        )
    );
    assert_eq!(fake.asked("send").len(), 4);
}

#[test]
fn lines_to_nobody_are_refused_before_the_first_comes() {
    let fake = Fake::answering("inbox", || failure("no_such_peer", "no peer is called 'bob'"));
    for lines in [&b"a\nb\n"[..], b""] {
        assert_eq!(
            fake.ctl_with(&["send", "bob", "--lines"], lines),
            ran(8, "", "distmsgctl: no peer is called 'bob'\n")
        );
    }
    assert_eq!(fake.asked("inbox")[0]["from"], "bob");
    assert_eq!(fake.asked("send"), [Value::Null; 0]);
}

#[test]
fn lines_to_somebody_who_is_forgotten_meanwhile_end_at_the_first() {
    let fake = Fake::answering("send", || failure("no_such_peer", "no peer is called 'bob'"));
    assert_eq!(
        fake.ctl_with(&["send", "bob", "--lines"], b"a\nb\n"),
        ran(8, "", "distmsgctl: no peer is called 'bob'\n")
    );
}

#[test]
fn a_daemon_that_hangs_is_exit_3_and_said_to_hang() {
    let silent = Fake::answering("send", Vec::new);
    let send = silent.ctl(&["send", "bob", "x", "--timeout", "10ms"]);
    assert_eq!(
        send,
        ran(
            3,
            "",
            "distmsgctl: the daemon does not answer; it was stopped or hangs, and its log may say \
             why; the message may be queued, which 'distmsgctl outbox' shows\n"
        )
    );
}

#[test]
fn lines_to_a_daemon_that_hangs_are_exit_3() {
    let silent = Fake::answering("send", Vec::new);
    assert_eq!(
        silent.ctl_with(&["send", "bob", "--lines", "--timeout", "10ms"], b"a\nb\n"),
        ran(
            3,
            "",
            "distmsgctl: the daemon does not answer; it was stopped or hangs, and its log may say \
             why; 2 lines unanswered, from line 1 on\n"
        )
    );
}

#[test]
fn lines_to_a_daemon_that_does_not_read_are_exit_3() {
    let deaf = Fake::answering_sends(|_| {
        loop {
            std::thread::park();
        }
    });
    // Far more than socket and queue hold.
    let lines = format!("{}\n", "x".repeat(100_000)).repeat(40);
    let sent = deaf.ctl_with(&["send", "bob", "--lines", "--timeout", "10ms"], lines.as_bytes());
    assert_eq!((sent.code, &*sent.stdout), (3, ""), "{}", sent.stderr);
    assert!(sent.stderr.contains("the daemon does not answer"), "{}", sent.stderr);
}

#[test]
fn a_daemon_that_leaves_the_stream_tells_what_is_unknown() {
    let fake = Fake::answering_sends(|params| match params["body"].as_str() {
        Some("c") => vec![Close],
        _ => sent("delivered"),
    });
    assert_eq!(
        fake.ctl_with(&["send", "bob", "--lines"], b"a\nb\nc\nd\n"),
        ran(
            3,
            "",
            "distmsgctl: the daemon closed the connection; it was stopped, or its log says why; \
             2 lines unanswered, from line 3 on\n"
        )
    );
}

#[test]
fn many_lines_arrive_complete_and_in_order() {
    let fake = delivering();
    let lines: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(fake.ctl_with(&["send", "bob", "--lines"], lines.as_bytes()), ran(0, "", ""));
    let asked = fake.asked("send");
    assert_eq!(asked.len(), 20_000);
    assert!(
        asked.iter().enumerate().all(|(n, send)| send["body"].as_str() == Some(&*n.to_string()))
    );
}

#[test]
fn the_body_comes_from_one_place() {
    let fake = delivering();
    for args in [&["send", "bob", "x", "--lines"][..], &["send", "bob", "x", "--file", "f"]] {
        assert_eq!(fake.ctl(args).code, 2, "{args:?}");
    }
}

#[test]
fn what_is_sent_does_not_end_with_whoever_reads_of_it() {
    let fake = delivering();
    let lines: String = (0..5_000).map(|n| format!("{n}\n")).collect();
    let mut command = fake.command(&["send", "bob", "--lines", "--json"]);
    // Nobody reads what it prints.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().expect("distmsgctl starts");
    drop(command);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(lines.as_bytes()).expect("it reads on");
    drop(stdin);
    let output = child.wait_with_output().expect("distmsgctl ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(fake.asked("send").len(), 5_000, "every line was sent");
}
