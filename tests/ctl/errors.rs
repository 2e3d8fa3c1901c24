//! What all commands have in common when something is wrong.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::fake::{Close, Failure, Fake, bare_command, failure, ran, reply, run};

/// A user and group that own nothing.
const NOBODY: u32 = 65_533;

#[test]
fn an_absent_daemon_is_explained() {
    let ran = run(bare_command(&["id", "--socket", "/nonexistent/socket"]), b"");
    assert_eq!(ran.code, 3);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "distmsgctl: cannot reach the daemon at /nonexistent/socket: no such file; start it with \
         'distmsg', or name the socket of one that runs with --socket\n"
    );
}

#[test]
fn both_places_are_named_where_nobody_said_where_to_look() {
    let system = "/run/distmsg/socket";
    // Where the system's daemon runs, it would answer.
    if std::path::Path::new(system).exists() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = bare_command(&["status"]);
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    let ran = run(command, b"");
    assert_eq!((ran.code, &*ran.stdout), (3, ""));
    let own = home.path().join("distmsg/socket");
    let places = format!("none of yours at {}, none of the system's at {system};", own.display());
    assert!(ran.stderr.contains(&places), "{}", ran.stderr);

    let fake = Fake::start(|_, _| Vec::new());
    let mut command = fake.command(&["status"]);
    command.env("DISTMSG_SOCKET", fake.path("none"));
    let ran = run(command, b"");
    assert!(ran.stderr.contains("none (named by DISTMSG_SOCKET): no such"), "{}", ran.stderr);
}

#[test]
fn an_absent_daemon_is_explained_as_json() {
    let ran = run(bare_command(&["id", "--json", "--socket", "/nonexistent/socket"]), b"");
    assert_eq!((ran.code, &*ran.stdout), (3, ""));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect("one JSON object");
    assert_eq!(error["error"]["code"], "daemon_unreachable");
}

#[test]
fn a_socket_nobody_listens_on_is_explained() {
    let fake = Fake::start(|_, _| Vec::new());
    let stale = fake.path("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket"));
    let ran = run(fake.command(&["id", "--socket", stale.to_str().expect("text")]), b"");
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("nobody answers there; start it with"), "{}", ran.stderr);
}

#[test]
fn a_socket_that_may_not_be_opened_says_who_may() {
    let fake = Fake::start(|_, _| Vec::new());
    let (socket, dir) = (fake.socket(), fake.path(""));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    // The superuser may open everything, but can be somebody else.
    let root = fs::metadata(&dir).expect("there").uid() == 0;
    let stderr = || {
        let mut command = fake.command(&["id"]);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let ran = run(command, b"");
        assert_eq!((ran.code, &*ran.stdout), (3, ""), "{}", ran.stderr);
        ran.stderr
    };
    if !root {
        mode(&socket, 0o000);
        let said = stderr();
        assert!(said.contains("permission denied; it is yours, but has the mode 000"), "{said}");
        return;
    }
    mode(&dir, 0o755);
    mode(&socket, 0o600);
    let said = stderr();
    assert!(said.contains("permission denied; it is for the user 'root' alone"), "{said}");
    assert!(!said.contains("usermod"), "{said}");
    mode(&socket, 0o660);
    let said = stderr();
    assert!(said.contains("it is for the group 'root': join it"), "{said}");
    mode(&dir, 0o700);
    let said = stderr();
    assert!(said.contains("its directory is for the user 'root' alone"), "{said}");
}

#[test]
fn the_flag_wins_over_the_environment() {
    let fake = Fake::answering("status", || failure("busy", "busy"));
    let socket = fake.socket();
    let mut command = bare_command(&["id", "--socket", socket.to_str().expect("text")]);
    command.env("DISTMSG_SOCKET", "/nonexistent/socket");
    assert_eq!(run(command, b""), ran(1, "", "distmsgctl: busy\n"));
}

#[test]
fn a_daemon_that_goes_away_is_exit_3() {
    let fake = Fake::answering("status", || vec![Close]);
    assert_eq!(
        fake.ctl(&["id"]),
        ran(
            3,
            "",
            "distmsgctl: the daemon closed the connection; it was stopped, or its log says why\n"
        )
    );
}

#[test]
fn mistakes_are_one_line_and_exit_2() {
    let fake = Fake::start(|_, _| Vec::new());
    let line = |args: &[&str]| {
        let ran = fake.ctl(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        ran.stderr
    };
    assert_eq!(
        line(&["snd"]),
        "distmsgctl: unrecognized subcommand 'snd'; a similar subcommand exists: 'send'; \
         'distmsgctl --help' tells more\n"
    );
    assert_eq!(
        line(&["send"]),
        "distmsgctl: the following required arguments were not provided: <PEER>; \
         'distmsgctl send --help' tells more\n"
    );
    assert!(line(&["ping", "bob", "--timeout", "soon"]).contains("write a duration like 10s"));
    assert!(line(&["alias", "bob", "no spaces"]).contains("a name has only letters"));
    assert!(line(&["listen", "--count", "0"]).contains("write a whole number from 1 on"));
    for (args, why) in [
        (["ping", "bob", "--timeout", "-1"], "write a duration like 10s"),
        (["ping", "bob", "--timeout", "-1s"], "write a duration like 10s"),
        (["send", "bob", "--timeout", "-0.5"], "write a duration like 10s"),
        (["listen", "--raw", "--since", "-1h"], "write a time like"),
        (["listen", "--raw", "--count", "-1"], "write a whole number from 1 on"),
        (["inbox", "--from", "bob", "--limit=-1"], "write a whole number"),
        (["inbox", "--from=bob", "--after", "-1"], "write a whole number"),
    ] {
        let said = line(&args);
        assert!(said.contains(why) && !said.contains("'-- -"), "{args:?}: {said}");
    }
}

#[test]
fn mistakes_are_json_where_json_is_asked_for() {
    let fake = Fake::start(|_, _| Vec::new());
    let ran = fake.ctl(&["send", "--json"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect("one JSON object");
    assert_eq!(error["error"]["code"], "usage");
}

#[test]
fn each_code_of_the_daemon_has_its_exit() {
    for (code, exit) in [
        ("invalid_params", 2),
        ("stopping", 3),
        ("not_delivered", 4),
        ("timeout", 5),
        ("identity_mismatch", 6),
        ("refused", 7),
        ("too_large", 7),
        ("outbox_full", 7),
        ("storage_full", 7),
        ("busy", 1),
        ("no_such_peer", 8),
        ("ambiguous_peer", 8),
        ("no_such_message", 8),
        ("alias_taken", 1),
        ("unreachable", 1),
        ("expired", 1),
        ("storage_failed", 1),
        ("method_not_found", 1),
    ] {
        let fake = Fake::answering("disconnect", move || failure(code, "why; what to do"));
        assert_eq!(
            fake.ctl(&["disconnect", "bob"]),
            ran(exit, "", "distmsgctl: why; what to do\n"),
            "{code}"
        );
    }
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let fake = Fake::answering("forget", || {
        vec![Failure("no_such_peer", "who is bob?", json!({"peer": "bob"}))]
    });
    assert_eq!(
        fake.ctl(&["forget", "bob", "--json"]),
        ran(
            8,
            "",
            "{\"error\":{\"code\":\"no_such_peer\",\"message\":\"who is bob?\",\"peer\":\"bob\"}}\n"
        )
    );
}

#[test]
fn a_daemons_error_cannot_reach_the_terminal() {
    let fake = Fake::answering("forget", || failure("no_such_peer", "a\u{1b}[2J\nb"));
    assert_eq!(fake.ctl(&["forget", "x"]).stderr, "distmsgctl: a\\u{1b}[2J\\nb\n");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let fake = Fake::answering("peers", || reply(json!({"peers": [], "next": "again"})));
    // Pages without end, to a reader that is gone.
    let fake_page = Fake::answering("peers", || {
        reply(json!({"peers": [crate::lists::peer(crate::fake::BOB, None)], "next": "again"}))
    });
    drop(fake);
    let mut command = fake_page.command(&["peers"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("distmsgctl starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("distmsgctl ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_is_a_result() {
    let fake = Fake::start(|_, _| Vec::new());
    for args in [&["--help"][..], &["help"], &["help", "send"], &["send", "--help"]] {
        let ran = fake.ctl(args);
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
        assert!(ran.stdout.contains("Usage: distmsgctl"), "{args:?}: {}", ran.stdout);
    }
    // What is in a pipe is acknowledged, seen or not: people must know before they lose messages.
    let help = fake.ctl(&["--help"]).stdout;
    assert!(help.contains("'distmsgctl listen --count 1', not"), "{help}");
}

#[test]
fn every_command_has_examples() {
    let command = distmsg::ctl::command();
    for verb in command.get_subcommands() {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:\n  "), "{} has none", verb.get_name());
    }
}
