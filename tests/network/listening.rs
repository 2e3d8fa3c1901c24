//! Named listeners: who gets which message, how often, and what is remembered.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::daemon::{Daemon, SOON, line, start_all, text};
use crate::running::until;

/// Two linked daemons: the first has sent these to the second.
fn received(bodies: &[&str]) -> Vec<Daemon> {
    let net = line("ab");
    let lines = bodies.join("\n");
    net[0].ctl_given(&["send", "b", "--lines"], lines.as_bytes()).exits(0);
    net
}

/// What a listener gets until it has `count` messages.
fn listen(daemon: &Daemon, name: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = ["listen", "--name", name, "--count", &count, "--timeout", "20s", "--json"];
    daemon.ctl(&args).exits(0).json().iter().map(|message| text(message, "body")).collect()
}

fn unread(daemon: &Daemon, name: &str) -> Option<u64> {
    let status = daemon.status();
    let listeners = status["listeners"].as_array().expect("a list");
    listeners.iter().find(|listener| listener["name"] == name)?["unread"].as_u64()
}

#[test]
fn nothing_beyond_count_is_acknowledged() {
    let net = received(&["one", "two", "three", "four"]);
    assert_eq!(listen(&net[1], "default", 1), ["one"]);
    assert_eq!(unread(&net[1], "default"), Some(3));
    assert_eq!(listen(&net[1], "default", 2), ["two", "three"]);
    let last = net[1].ctl(&["listen", "--count", "1", "--timeout", "20s", "--raw"]).exits(0);
    assert_eq!(last.stdout, b"four");
    assert_eq!(unread(&net[1], "default"), Some(0));
}

#[test]
fn a_listeners_position_survives_kill_9() {
    let mut net = received(&["one", "two", "three"]);
    assert_eq!(listen(&net[1], "default", 2), ["one", "two"]);
    net[1].kill();
    net[1].boot();
    assert_eq!(listen(&net[1], "default", 1), ["three"]);
    net[1].kill();
    net[1].boot();
    assert_eq!(unread(&net[1], "default"), Some(0));
}

#[test]
fn every_name_gets_everything_from_the_oldest_kept() {
    let net = received(&["one", "two"]);
    assert_eq!(listen(&net[1], "first", 2), ["one", "two"]);
    net[0].ctl(&["send", "b", "three"]).exits(0);
    assert_eq!(listen(&net[1], "first", 1), ["three"]);
    assert_eq!(listen(&net[1], "second", 3), ["one", "two", "three"]);
}

#[test]
fn processes_on_one_name_share_its_messages() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let shared = ["listen", "--name", "shared", "--json"];
    let (one, other) = (b.ctl_start(&shared), b.ctl_start(&shared));
    let attached = || -> Option<()> {
        let status = b.status();
        let listener = status["listeners"].as_array()?.iter().find(|l| l["name"] == "shared")?;
        (listener["clients"] == 2).then_some(())
    };
    until("both listen", SOON, attached);
    let all: Vec<String> = (0..2_000).map(|n| format!("{n}")).collect();
    a.ctl_given(&["send", "b", "--lines", "--timeout", "30s"], all.join("\n").as_bytes()).exits(0);
    until("all is printed", SOON, || {
        (one.lines_count() + other.lines_count() >= all.len()).then_some(())
    });
    until("all is acknowledged", SOON, || (unread(b, "shared") == Some(0)).then_some(()));
    for running in [&one, &other] {
        running.signal(rustix::process::Signal::TERM);
    }
    let bodies = |output: crate::running::Output| -> Vec<usize> {
        let number = |message: &Value| text(message, "body").parse().expect("a number");
        output.exits(0).json().iter().map(number).collect()
    };
    let (one, other) = (bodies(one.finish()), bodies(other.finish()));
    assert!(!one.is_empty() && !other.is_empty(), "{} and {}", one.len(), other.len());
    let mut both = [one, other].concat();
    both.sort_unstable();
    assert!(both == (0..all.len()).collect::<Vec<_>>(), "each message went to one of them");
}

#[test]
fn what_a_stopped_process_holds_is_its_own_until_it_is_gone() {
    use rustix::process::Signal;
    let net = line("ab");
    let b = &net[1];
    let holder = b.ctl_start(&["listen", "--name", "n"]);
    until("it listens", SOON, || unread(b, "n"));
    holder.signal(Signal::STOP);
    net[0].ctl_given(&["send", "b", "--lines"], b"one\ntwo\n").exits(0);
    b.ctl(&["listen", "--name", "n", "--timeout", "300ms"]).exits(5);
    drop(holder);
    assert_eq!(listen(b, "n", 2), ["one", "two"]);
}

#[test]
fn a_timeout_is_exit_5_unless_something_came() {
    let net = received(&["one"]);
    let b = &net[1];
    b.ctl(&["listen", "--timeout", "300ms"]).exits(0);
    let nothing = b.ctl(&["listen", "--timeout", "300ms"]).exits(5);
    assert!(nothing.stderr.contains("no message came"), "{}", nothing.stderr);
    let fewer = ["listen", "--name", "n", "--count", "2", "--timeout", "300ms"];
    let fewer = b.ctl(&fewer).exits(5);
    assert_eq!(fewer.lines().len(), 1, "what came is printed: {}", fewer.text());
    assert_eq!(unread(b, "n"), Some(0), "and acknowledged");
}

#[test]
fn from_and_since_choose_and_leave_the_rest_unread() {
    let net = start_all("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    a.connect(b);
    c.connect(b);
    a.ctl(&["send", "b", "of a"]).exits(0);
    c.ctl(&["send", "b", "of c"]).exits(0);
    let of_c = ["listen", "--name", "n", "--from", &c.peer, "--count", "1", "--timeout", "20s"];
    assert!(b.ctl(&of_c).exits(0).text().ends_with(&format!(" {} of c\n", c.peer)));
    b.ctl(&["listen", "--from", "nobody", "--timeout", "1s"]).exits(8);
    let second = &b.ctl(&["inbox", "--json"]).exits(0).json()[1];
    let since = text(second, "received");
    let since = ["listen", "--name", "s", "--since", &since, "--timeout", "500ms", "--json"];
    let since = b.ctl(&since).exits(0).json();
    assert_eq!(since.iter().map(|m| text(m, "body")).collect::<Vec<_>>(), ["of c"]);
    assert_eq!(listen(b, "n", 1), ["of a"], "what was not chosen is still unread");
}

#[test]
fn a_body_cannot_forge_a_line_nor_reach_the_terminal() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let evil = "x\n2026-01-01T00:00:00Z boss pay him\r\x1b[2J\u{202e}";
    a.ctl_given(&["send", "b"], evil.as_bytes()).exits(0);
    let plain = b.ctl(&["listen", "--count", "1", "--timeout", "20s"]).exits(0);
    assert_eq!(plain.lines().len(), 1, "{:?}", plain.text());
    assert!(!plain.text().contains(['\r', '\x1b', '\u{202e}']), "{:?}", plain.text());
    let json = b.ctl(&["inbox", "--json"]).exits(0).json();
    assert_eq!(text(&json[0], "body"), evil, "JSON has it whole");
    assert_eq!(b.ctl(&["inbox"]).exits(0).lines().len(), 1);
}

#[test]
fn a_listener_is_removed_unless_somebody_listens_and_stays_removed() {
    let mut net = received(&["one", "two"]);
    let b = &mut net[1];
    assert_eq!(listen(b, "old", 1), ["one"]);
    let holder = b.ctl_start(&["listen", "--name", "old"]);
    let row = |b: &Daemon| -> Option<Value> {
        let rows = b.ctl(&["listeners", "--json"]).exits(0).json();
        rows.into_iter().find(|row| row["name"] == "old")
    };
    let is_read = |row: &Value| row["clients"] == 1 && row["position"] == 2 && row["leased"] == 0;
    let held = until("it listens and has all", SOON, || row(b).filter(is_read));
    assert_eq!((&held["unread"], &held["last_seen"]), (&0.into(), &Value::Null));
    let refused = b.ctl(&["listeners", "--remove", "old"]).exits(7);
    assert!(refused.stderr.contains("somebody listens"), "{}", refused.stderr);
    drop(holder);
    let left = until("it has left", SOON, || row(b).filter(|row| row["clients"] == 0));
    assert!(left["last_seen"].is_string(), "{left}");
    b.ctl(&["listeners", "--remove", "old"]).exits(0);
    assert_eq!(row(b), None);
    let unknown = b.ctl(&["listeners", "--remove", "old"]).exits(8);
    assert!(unknown.stderr.contains("distmsgctl listeners"), "{}", unknown.stderr);
    b.kill();
    b.boot();
    assert_eq!(row(b), None);
    assert_eq!(listen(b, "old", 2), ["one", "two"], "the name begins anew");
}

#[test]
fn what_only_a_removed_listener_kept_may_go() {
    let mut net = received(&["one", "two"]);
    let b = &mut net[1];
    assert!(b.terminate().success());
    let config = std::fs::read_to_string(b.config()).expect("its configuration");
    b.configure(&format!("{config}\n[limits]\ninbox_retention_s = 0\n"));
    b.boot();
    assert_eq!(listen(b, "quick", 2), ["one", "two"]);
    assert_eq!(listen(b, "slow", 1), ["one"]);
    // At its start a daemon removes what may go.
    let after_a_start = |b: &mut Daemon| {
        assert!(b.terminate().success());
        b.boot();
        until("what may go has gone", SOON, || {
            let bodies = b.bodies();
            (bodies.len() < 2).then_some(bodies)
        })
    };
    assert_eq!(after_a_start(b), ["two"]);
    b.ctl(&["listeners", "--remove", "slow"]).exits(0);
    assert_eq!(unread(b, "slow"), None);
    assert!(b.terminate().success());
    b.boot();
    until("nobody keeps the other", SOON, || b.bodies().is_empty().then_some(()));
}

#[test]
fn names_run_out_with_a_remedy_that_helps() {
    let b = Daemon::start("b");
    let mut stream = UnixStream::connect(b.socket()).expect("connected");
    let mut replies = BufReader::new(stream.try_clone().expect("cloned")).lines();
    let mut ask = |method: &str, params: String| -> Value {
        let request =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        writeln!(stream, "{request}").expect("written");
        let reply = replies.next().expect("a reply").expect("read");
        serde_json::from_str(&reply).expect("JSON")
    };
    for number in 0..256 {
        let reply = ask("listen", format!(r#"{{"name":"n{number}"}}"#));
        let subscription = &reply["result"]["subscription"];
        ask("unsubscribe", format!(r#"{{"subscription":{subscription}}}"#));
    }
    let refused = b.ctl(&["listen", "--name", "late", "--timeout", "20s"]);
    assert!(refused.stderr.contains("listeners --remove"), "{refused:?}");
    b.ctl(&["listeners", "--remove", "n7"]).exits(0);
    let late = b.ctl_start(&["listen", "--name", "late"]);
    until("it listens", SOON, || unread(&b, "late"));
    drop(late);
}
