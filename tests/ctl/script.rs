//! The script that the prompt is without a terminal.

use serde_json::json;

use crate::fake::{Fake, failure, ran, reply};

fn daemon() -> Fake {
    Fake::start(|method, params| match method {
        "send" if params["peer"] == "nobody" => {
            failure("no_such_peer", "no peer is called 'nobody'")
        }
        "send" => reply(json!({"id": "00ff", "state": "delivered"})),
        "alias" => reply(json!({})),
        other => panic!("asked for {other}"),
    })
}

#[test]
fn a_script_runs_its_lines() {
    let fake = daemon();
    let script = b"# greet\n\nalias dm1qy bob\nsend bob 'hello there' --json\nsend bob \"\"";
    assert_eq!(
        fake.ctl_with(&[], script),
        ran(0, "{\"id\":\"00ff\",\"state\":\"delivered\"}\n", "")
    );
    assert_eq!(fake.asked("send")[0]["body"], "hello there");
    assert_eq!(fake.asked("send")[1]["body"], "");
}

#[test]
fn a_script_stops_at_the_first_failure_with_its_code() {
    let fake = daemon();
    assert_eq!(
        fake.ctl_with(&[], b"send bob 1\nsend nobody 2\nsend bob 3\n"),
        ran(8, "", "distmsgctl: line 2: no peer is called 'nobody'\n")
    );
    assert_eq!(fake.asked("send").len(), 2);
}

#[test]
fn a_script_stops_at_a_mistake() {
    let fake = daemon();
    assert_eq!(
        fake.ctl_with(&[], b"send bob 'x\nsend bob y\n"),
        ran(
            2,
            "",
            "distmsgctl: line 1: a quote is not closed; close it, or write \\' for the character \
             itself\n"
        )
    );
}

#[test]
fn a_script_may_leave_early() {
    let fake = daemon();
    assert_eq!(fake.ctl_with(&[], b"exit\nsend nobody x\n"), ran(0, "", ""));
}

#[test]
fn a_script_is_not_read_by_its_commands() {
    let fake = daemon();
    let ran = fake.ctl_with(&[], b"send bob\nnot a body\n");
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("line 1: standard input is the script itself"), "{}", ran.stderr);
}

#[test]
fn an_empty_script_is_done() {
    assert_eq!(daemon().ctl(&[]), ran(0, "", ""));
}

#[test]
fn exit_is_for_the_prompt() {
    assert_eq!(daemon().ctl(&["exit"]).code, 2);
}

#[test]
fn json_can_be_for_the_whole_script() {
    assert_eq!(
        daemon().ctl_with(&["--json"], b"send bob x\n"),
        ran(0, "{\"id\":\"00ff\",\"state\":\"delivered\"}\n", "")
    );
}
