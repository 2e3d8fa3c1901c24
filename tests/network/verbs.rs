//! What the commands do to two or three nodes, and what they say.

use serde_json::Value;

use crate::daemon::{Daemon, SOON, line, start_all, text};
use crate::running::until;

#[test]
fn connect_without_an_id_needs_somebody_to_vouch() {
    let net = start_all("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let refused = a.ctl(&["connect", &b.address]).exits(2);
    assert!(refused.stderr.contains("--trust-on-first-use"), "{}", refused.stderr);
    assert!(a.peers().is_empty(), "nothing is kept");
    a.ctl(&["connect", &b.address, "--trust-on-first-use"]).exits(0);
    a.await_links(&[b]);
}

#[test]
fn connect_to_nobody_keeps_a_peer_with_an_id_and_nothing_without() {
    let mut net = start_all("ab");
    net[1].kill();
    let [a, b] = &mut net[..] else { panic!("two") };
    a.ctl(&["connect", &b.address, "--trust-on-first-use", "--timeout", "2s"]).exits(1);
    assert!(a.peers().is_empty(), "nothing is kept");
    let kept = a.ctl(&["connect", &b.peer, &b.address, "--timeout", "2s"]).exits(4);
    assert!(kept.stderr.contains("kept"), "{}", kept.stderr);
    assert_eq!(a.knows(b).expect("kept")["connected"], true);
    b.boot();
    a.await_links(&[b]);
}

#[test]
fn connect_to_another_key_is_an_identity_error() {
    let net = start_all("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    let output = a.ctl(&["connect", &c.peer, &b.address]).exits(6);
    assert!(output.stderr.contains(&b.peer), "it says who answered: {}", output.stderr);
    assert!(a.linked().is_empty());
    assert!(!a.peers().iter().any(|peer| peer["connected"] == true), "nothing is kept");
}

#[test]
fn an_alias_is_the_peers_own_name_if_that_is_free() {
    let mut net = start_all("abc");
    net.push(Daemon::start("b"));
    let [a, b, c, other_b] = &net[..] else { panic!("four") };
    let alias = |args: &[&str]| -> Value {
        let args = [&["connect"], args, &["--json"]].concat();
        a.ctl(&args).exits(0).json().remove(0)["alias"].clone()
    };
    assert_eq!(alias(&[&b.peer, &b.address]), "b");
    assert_eq!(alias(&[&other_b.peer, &other_b.address]), Value::Null, "'b' is taken");
    assert_eq!(alias(&[&c.peer, &c.address, "--alias", "sea"]), "sea");
    a.ctl(&["send", "sea", "by alias"]).exits(0);
    a.ctl(&["send", &b.peer[..12], "by a beginning of the ID"]).exits(0);
    assert_eq!(c.bodies(), ["by alias"]);
    a.ctl(&["send", "nobody", "x"]).exits(8);
    // Given, given again, taken away.
    a.ctl(&["alias", &other_b.peer, "bee"]).exits(0);
    a.ctl(&["send", "bee", "x"]).exits(0);
    assert_ne!(a.ctl(&["alias", "bee", "sea"]).code, Some(0), "it belongs to another");
    assert_eq!(a.knows(other_b).expect("known")["alias"], "bee");
    assert_eq!(a.knows(c).expect("known")["alias"], "sea");
}

#[test]
fn aliases_survive_a_restart_and_name_senders() {
    let mut net = line("ab");
    net[1].ctl(&["alias", &net[0].peer, "anna"]).exits(0);
    net[1].kill();
    net[1].boot();
    net[0].ctl(&["send", "b", "hello", "--timeout", "20s"]).exits(0);
    let listen = net[1].ctl(&["listen", "--count", "1", "--timeout", "20s"]).exits(0);
    assert!(listen.text().ends_with(" anna hello\n"), "{}", listen.text());
}

#[test]
fn disconnect_ends_the_link_and_its_redialling() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    a.ctl(&["disconnect", "b"]).exits(0);
    a.await_links(&[]);
    b.await_links(&[]);
    assert_eq!(a.knows(b).expect("still known")["connected"], false);
    assert_eq!(a.ctl(&["send", "b", "x", "--timeout", "1s"]).code, Some(4), "no way there");
    a.connect(b);
    until("what was queued goes out", SOON, || (b.bodies() == ["x"]).then_some(()));
}

#[test]
fn a_disconnect_from_a_peer_that_dials_says_that_it_may_not_last() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let said = b.ctl(&["disconnect", &a.peer]).exits(0).stderr;
    assert!(said.lines().count() == 1 && said.contains("its operator"), "{said:?}");
    b.await_links(&[a]);
    let json = b.ctl(&["disconnect", &a.peer, "--json"]).exits(0).json();
    assert_eq!(json, [serde_json::json!({"dialled_by_peer": true})]);
    b.await_links(&[a]);
    // Both dial now: only one link is kept, and each knows that the other wants it.
    b.connect(a);
    let dials = |node: &Daemon, other: &Daemon| {
        let json = node.ctl(&["disconnect", &other.peer, "--json"]).exits(0).json();
        json[0]["dialled_by_peer"].clone()
    };
    assert_eq!(dials(b, a), true);
    a.await_links(&[b]);
    assert_eq!(dials(a, b), false);
    a.await_links(&[]);
}

#[test]
fn forget_removes_a_peer_but_not_its_messages() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    b.ctl(&["send", &a.peer, "kept"]).exits(0);
    a.ctl(&["forget", "b"]).exits(0);
    a.await_links(&[]);
    assert!(a.knows(b).is_none(), "{:?}", a.peers());
    assert_eq!(a.inbox(), [(b.peer.clone(), "kept".to_owned())]);
    a.ctl(&["forget", "b"]).exits(8);
}

#[test]
fn ping_is_answered_by_the_peer_itself_or_not_at_all() {
    let mut net = line("abc");
    let far = net[2].peer.clone();
    let pong = net[0].ctl(&["ping", &far, "--json"]).exits(0).json().remove(0);
    assert_eq!(text(&pong, "peer"), far);
    assert!(pong["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{pong}");
    net[2].kill();
    net[0].ctl(&["ping", &far, "--timeout", "1s"]).exits(5);
    net[0].ctl(&["ping", "nobody"]).exits(8);
    assert!(net[1].bodies().is_empty() && net[0].queued() == 0, "a ping is no message");
}

#[test]
fn routes_show_the_neighbour_in_use_and_its_receipts() {
    let net = line("abc");
    let [a, b, c] = &net[..] else { panic!("three") };
    for _ in 0..3 {
        a.ctl(&["send", &c.peer, "x"]).exits(0);
    }
    let routes = a.ctl(&["routes", "--json"]).exits(0).json();
    let route = routes.iter().find(|route| route["destination"] == *c.peer).expect("a route");
    let hop = &route["next_hops"][0];
    assert_eq!((&hop["peer"], &hop["alias"]), (&b.peer.clone().into(), &"b".into()));
    assert!(hop["receipts"].as_u64().is_some_and(|n| n >= 2), "{hop}");
    assert!(a.ctl(&["routes"]).exits(0).text().contains("RECEIPTS"));
}

#[test]
fn a_key_is_sent_once_before_and_after_delivery_and_a_restart() {
    let mut net = line("ab");
    let to = net[1].peer.clone();
    let send = |from: &Daemon, body: &str, wait: &str| -> Value {
        let args = ["send", &to, body, "--id", "key", "--wait", wait, "--timeout", "20s", "--json"];
        from.ctl(&args).exits(0).json().remove(0)
    };
    net[1].kill();
    let first = send(&net[0], "once", "queued");
    let queued = send(&net[0], "once", "queued");
    net[1].boot();
    let delivered = send(&net[0], "once", "delivered");
    let after = send(&net[0], "once", "delivered");
    net[0].kill();
    net[0].boot();
    let restarted = send(&net[0], "once", "delivered");
    assert_eq!(first["duplicate"], Value::Null, "{first}");
    for again in [&queued, &delivered, &after, &restarted] {
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &true.into()), "{again}");
    }
    assert_eq!(restarted["state"], "delivered");
    net[0].ctl(&["send", &to, "last", "--timeout", "20s"]).exits(0);
    assert_eq!(net[1].bodies(), ["once", "last"]);
}

#[test]
fn a_key_with_another_message_is_refused_and_a_retry_is_not() {
    let net = line("ab");
    let a = &net[0];
    let send = |body: &str, more: &[&str]| {
        a.ctl(&[&["send", "b", body, "--id", "key", "--timeout", "20s"], more].concat())
    };
    send("first", &[]).exits(0);
    for output in [send("second", &[]), send("first", &["--subject", "new"])] {
        let refused = output.exits(7).stderr;
        assert!(refused.contains("another subject or body"), "{refused}");
    }
    let json = send("second", &["--json"]).exits(7).stderr;
    assert!(json.contains("\"code\":\"key_conflict\"") && json.contains("\"id\":"), "{json}");
    send("first", &[]).exits(0);
    let lines = |text: &[u8]| a.ctl_given(&["send", "b", "--lines", "--id", "l"], text);
    lines(b"one\ntwo\n").exits(0);
    // What is the same is told of as before, and the stream goes on.
    let refused = lines(b"one\n2\nthree\n").exits(7).stderr;
    assert!(refused.contains("line 2: ") && refused.lines().count() == 1, "{refused}");
    assert_eq!(net[1].bodies(), ["first", "one", "two", "three"]);
}

#[test]
fn a_well_formed_id_that_nobody_answers_for_is_not_delivered() {
    let mut net = line("ab");
    let gone = Daemon::start("c").peer.clone();
    let output = net[0].ctl(&["send", &gone, "x", "--timeout", "1s"]).exits(4);
    assert!(output.stderr.contains("queued"), "{}", output.stderr);
    // Looked for, by the link that there is.
    let listed = |a: &Daemon| {
        until("it is looked for", SOON, || {
            let outbox = a.ctl(&["outbox", "--json"]).exits(0).json();
            (outbox.first()?["state"] == "finding").then_some(outbox)
        })
    };
    let outbox = listed(&net[0]);
    assert_eq!((outbox.len(), text(&outbox[0], "to")), (1, gone.clone()));
    net[0].kill();
    net[0].boot();
    assert_eq!(listed(&net[0]), outbox, "as it was before");
}

#[test]
fn bodies_arrive_byte_by_byte() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let every: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let bodies: [&[u8]; 6] = [b"", b"x", b"a\0b\n", b"\xff\xfe", &every, &large];
    for body in bodies {
        a.ctl_given(&["send", &b.peer, "--timeout", "30s"], body).exits(0);
        let raw = b.ctl(&["listen", "--raw", "--count", "1", "--timeout", "30s"]).exits(0);
        assert!(raw.stdout == body, "{} B in, {} B out", body.len(), raw.stdout.len());
    }
}

#[test]
fn sends_with_one_key_at_the_same_time_are_one_message() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    for round in 0..3 {
        let key = format!("key-{round}");
        let all: Vec<_> =
            (0..8).map(|_| a.ctl_start(&["send", "b", "once", "--id", &key])).collect();
        for one in all {
            one.finish().exits(0);
        }
        assert_eq!(b.bodies().len(), round + 1);
    }
}

#[test]
fn a_mistyped_connect_does_not_cost_the_address_that_works() {
    let net = line("ab");
    let [a, b] = &net[..] else { panic!("two") };
    let wrong = a.ctl(&["connect", &b.peer, "127.0.0.1:1", "--timeout", "5s"]).exits(4);
    assert!(wrong.stderr.contains("stays"), "{}", wrong.stderr);
    assert_eq!(a.knows(b).expect("known")["dial"], *b.address);
    a.await_links(&[b]);
}

#[test]
fn a_message_that_is_given_up_leaves_word_for_who_did_not_wait() {
    let mut net = start_all("ab");
    let [a, b] = &mut net[..] else { panic!("two") };
    assert!(b.terminate().success());
    let config = std::fs::read_to_string(b.config()).expect("its configuration");
    b.configure(&format!("{config}\n[limits]\nmessage_bytes_max = 4096\n"));
    b.boot();
    let body = "no good for the log ".repeat(500);
    let queue = ["send", &b.peer, &body, "--wait", "queued", "--subject", "photos", "--json"];
    let id = text(&a.ctl(&queue).exits(0).json()[0], "id");
    a.connect(b);
    until("it is given up", SOON, || (a.queued() == 0).then_some(()));
    let is_told = |a: &Daemon| {
        let status = a.status();
        assert_eq!(status["given_up"], 1, "{status}");
        let last = &status["last_given_up"];
        assert_eq!(last["id"], *id, "{last}");
        assert_eq!((&last["to"], &last["subject"]), (&b.peer.clone().into(), &"photos".into()));
        assert_eq!((&last["reason"], &last["bytes"]), (&"too_large".into(), &10_000.into()));
        let listed = a.ctl(&["outbox", "--json"]).exits(0).json();
        assert_eq!((listed.len(), &listed[0]), (1, last));
        let shown = a.ctl(&["outbox"]).exits(0).text();
        assert!(shown.contains("given up: too large for the recipient"), "{shown}");
    };
    is_told(a);
    let line = a.logged("given up");
    for part in ["WARN", &id, &b.peer, "messages=1", "too large for the recipient"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!a.log().contains("no good for the log"), "bodies are nobody's business");
    a.kill();
    a.boot();
    is_told(a);
}

#[test]
fn a_node_that_dials_itself_is_told_so_plainly() {
    let a = Daemon::start("a");
    let refused = a.ctl(&["connect", &a.address, "--trust-on-first-use"]).exits(7);
    assert!(refused.stderr.contains("that is this node itself"), "{}", refused.stderr);
    assert!(!refused.stderr.contains('('), "nothing is in parentheses: {}", refused.stderr);
}
