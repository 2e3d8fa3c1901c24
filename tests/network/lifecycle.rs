//! How a daemon starts, prints, and stops.

use std::time::Duration;

use crate::daemon::{Daemon, SOON, line};
use crate::running::until;

#[test]
fn a_second_daemon_on_the_same_state_names_the_first() {
    let daemon = Daemon::start("a");
    let second = daemon.distmsg(&[]).exits(1);
    assert!(second.stderr.contains(&daemon.pid().to_string()), "{}", second.stderr);
    assert!(second.stderr.contains("stop it"), "{}", second.stderr);
    daemon.ctl(&["status"]).exits(0);
}

#[test]
fn a_database_whose_key_is_gone_is_not_opened_as_somebody_else() {
    let mut daemon = Daemon::start("a");
    daemon.kill();
    let key = daemon.state_dir().join("identity.pem");
    let kept = daemon.state_dir().join("kept");
    std::fs::rename(&key, &kept).expect("moved");
    // Twice: the first refusal must leave nothing behind that changes the second.
    for _ in 0..2 {
        let refused = daemon.distmsg(&[]).exits(78);
        for part in [&daemon.peer, "identity.pem is not there", "from a backup", "move /"] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        assert!(!key.exists(), "the place is free for the right key");
    }
    let other = Daemon::start("b");
    std::fs::copy(other.state_dir().join("identity.pem"), &key).expect("copied");
    let refused = daemon.distmsg(&[]).exits(78);
    assert!(refused.stderr.contains(&other.peer), "{}", refused.stderr);
    assert!(refused.stderr.contains(&daemon.peer), "{}", refused.stderr);
    std::fs::rename(&kept, &key).expect("moved back");
    daemon.boot();
}

#[test]
fn sigterm_stops_cleanly_and_removes_the_socket() {
    let mut net = line("ab");
    net[0].ctl(&["send", "b", "x"]).exits(0);
    let socket = net[0].socket();
    assert!(socket.exists());
    let status = net[0].terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!socket.exists(), "the socket is removed");
    net[1].await_links(&[]);
    let alone = net[0].ctl(&["status"]).exits(3);
    assert!(alone.stderr.contains("distmsg"), "it says what to do: {}", alone.stderr);
    net[0].boot();
    net[1].await_links(&[&net[0]]);
}

#[test]
fn the_log_tells_of_a_link_and_counts_nothing_where_there_is_nothing() {
    let net = line("ab");
    for node in &net {
        let line = until("it is logged", SOON, || {
            node.log().lines().find(|line| line.contains("link up")).map(str::to_owned)
        });
        assert!(line.contains("peer=") && !line.contains("unlogged"), "{line}");
    }
}

#[test]
fn a_socket_that_somebody_removed_is_made_again() {
    let net = line("ab");
    std::fs::remove_file(net[0].socket()).expect("removed");
    net[0].ctl(&["id"]).exits(3);
    until("it answers again", Duration::from_secs(120), || {
        (net[0].ctl(&["id"]).code == Some(0)).then_some(())
    });
    net[0].logged("made it again");
}

#[test]
fn a_stale_socket_does_not_hinder_a_start() {
    let mut daemon = Daemon::start("a");
    daemon.kill();
    assert!(daemon.socket().exists(), "kill -9 leaves it");
    daemon.ctl(&["id"]).exits(3);
    daemon.boot();
    assert_eq!(daemon.ctl(&["id"]).exits(0).text(), format!("{}\n", daemon.peer));
}

#[test]
fn a_listener_is_told_that_its_daemon_has_gone() {
    let mut daemon = Daemon::start("a");
    let listen = daemon.ctl_start(&["listen"]);
    until("it listens", SOON, || {
        daemon.status()["listeners"].as_array().is_some_and(|all| !all.is_empty()).then_some(())
    });
    assert!(daemon.terminate().success());
    let output = listen.finish().exits(3);
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_headless_daemon_prints_what_arrives_once() {
    let mut net = line("ab");
    assert!(net[1].terminate().success());
    net[1].boot_with(&["--print"]);
    net[0].ctl(&["send", "b", "first", "--timeout", "20s"]).exits(0);
    until("it is printed", SOON, || net[1].printed().ends_with(" first\n").then_some(()));
    net[1].ctl(&["listen", "--count", "1", "--timeout", "20s"]).exits(0);
    let acknowledged = || {
        let status = net[1].status();
        let all = status["listeners"].as_array()?.clone();
        (all.iter().find(|l| l["name"] == "print")?["unread"] == 0).then_some(())
    };
    until("it is acknowledged", SOON, acknowledged);
    net[1].kill();
    net[1].boot_with(&["--print"]);
    net[0].ctl(&["send", "b", "second", "--timeout", "20s"]).exits(0);
    until("it is printed", SOON, || net[1].printed().ends_with(" second\n").then_some(()));
    assert_eq!(net[1].printed().lines().count(), 2, "{}", net[1].printed());
}

#[test]
fn a_printed_message_can_neither_forge_a_line_nor_reach_the_terminal() {
    let mut b = Daemon::prepare("b");
    b.boot_with(&["--print"]);
    let a = Daemon::start("a");
    a.connect(&b);
    let evil = "x\n2026-01-01T00:00:00Z boss pay him\r\x1b]0;root\x07\x1b[2J\u{9b}2J\u{202e}\x7f\0";
    let file = a.state_dir().join("evil");
    std::fs::write(&file, evil).expect("written");
    a.ctl(&["send", &b.peer, "--file", file.to_str().expect("a name")]).exits(0);
    a.ctl(&["send", &b.peer, "done"]).exits(0);
    until("it is printed", SOON, || b.printed().ends_with(" done\n").then_some(()));
    let printed = b.printed();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed:?}");
    assert!(lines[0].contains("pay him") && !lines[1].contains("pay him"), "{printed:?}");
    assert!(lines[0].contains(&a.peer[..10]) || lines[0].contains(" a "), "{printed:?}");
    let raw = printed.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
    assert_eq!(raw, None, "{printed:?}");
}

#[test]
fn what_was_delivered_has_left_the_outbox_when_the_daemon_stops() {
    let mut net = line("ab");
    for round in 0..5 {
        // What became of the message waits for company, and the end comes first.
        net[0].ctl(&["send", "b", "x"]).exits(0);
        assert!(net[0].terminate().success());
        let database = net[0].database();
        let left: i64 = database
            .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
            .expect("there is an outbox");
        assert_eq!(left, 0, "round {round}");
        drop(database);
        net[0].boot();
        net[0].await_links(&[&net[1]]);
    }
}

#[test]
fn whoever_does_not_read_what_a_daemon_prints_holds_nobody_up() {
    let mut net = line("ab");
    assert!(net[1].terminate().success());
    // Its standard output and its log are pipes that nobody reads.
    let (_unread, writer) = std::io::pipe().expect("a pipe");
    let (_unread_log, log) = std::io::pipe().expect("a pipe");
    net[1].launch_to(&["--print"], writer.into(), log.into());
    net[1].answer();
    net[0].await_links(&[&net[1]]);
    let body = "x".repeat(60_000);
    for _ in 0..4 {
        net[0].ctl(&["send", "b", &body]).exits(0);
    }
    // Each of these is a line of the log.
    for _ in 0..600 {
        let mut stream =
            std::os::unix::net::UnixStream::connect(net[1].socket()).expect("connected");
        let _ = std::io::Write::write_all(&mut stream, b"no request\n");
    }
    net[1].ctl(&["id"]).exits(0);
    net[0].ctl(&["send", "b", "still here"]).exits(0);
    assert!(net[1].terminate().success(), "it stops when it is asked to");
}
