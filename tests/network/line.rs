//! A line a-b-c-d: what the ends can do, and what those between them see.

use std::collections::BTreeSet;
use std::fs;

use crate::daemon::{Daemon, SOON, line, start_all, text};
use crate::memory;
use crate::proxy::{Proxy, contains};
use crate::running::until;

/// The IDs of daemons, as a set.
fn ids(daemons: &[&Daemon]) -> BTreeSet<String> {
    daemons.iter().map(|daemon| daemon.peer.clone()).collect()
}

/// Fails if there is any link but those of a line.
fn assert_line(net: &[Daemon]) {
    for (at, daemon) in net.iter().enumerate() {
        let mut wanted = BTreeSet::new();
        if at > 0 {
            wanted.insert(net[at - 1].peer.clone());
        }
        wanted.extend(net.get(at + 1).map(|next| next.peer.clone()));
        let linked: BTreeSet<String> = daemon.linked().into_iter().collect();
        assert_eq!(linked, wanted, "{} is linked with its neighbours only", daemon.name);
    }
}

#[test]
fn a_message_reaches_a_node_never_heard_of_and_names_its_verified_sender() {
    let net = start_all("abcd");
    let (a, d) = (&net[0], &net[3]);
    let listen = d.ctl_start(&["listen", "--count", "2", "--timeout", "60s"]);
    // Once there is a way, news of d come to a by themselves.
    let first = a.ctl_start(&["send", &d.peer, "hello from far", "--timeout", "60s"]);
    until("it is queued", SOON, || (a.queued() == 1).then_some(()));
    assert!(a.knows(d).is_none_or(|peer| peer["record_made"].is_null()), "a never heard of d");
    for pair in net.windows(2).rev() {
        pair[0].connect(&pair[1]);
    }
    first.finish().exits(0);
    let sent = a.ctl(&["send", &d.peer, "again", "--json"]).exits(0).json().remove(0);
    assert_eq!(sent["state"], "delivered");
    let lines = listen.finish().exits(0).lines();
    let sender = format!(" {} ", a.peer);
    assert!(lines[0].contains(&sender) && lines[0].ends_with(" hello from far"), "{lines:?}");
    let message = &d.ctl(&["inbox", "--json"]).exits(0).json()[1];
    assert_eq!(text(message, "id"), text(&sent, "id"), "the same ID at both ends");
    assert_eq!(text(message, "from"), a.peer);
    assert_eq!((&message["alias"], message["bytes"].as_u64()), (&serde_json::Value::Null, Some(5)));
    assert_line(&net);
}

#[test]
fn relays_never_hold_the_plaintext() {
    const SECRET: &str = "xyzzy-the-cellar-key-is-under-the-third-flowerpot";
    let net = start_all("abcd");
    let [a, b, c, d] = &net[..] else { panic!("four") };
    let (ab, bc) = (Proxy::to(&b.address), Proxy::to(&c.address));
    a.connect_by(b, &ab.address);
    b.connect_by(c, &bc.address);
    c.connect(d);
    let body = SECRET.repeat(100);
    // Routed, and again from a file, and back.
    a.ctl_given(&["send", &d.peer], body.as_bytes()).exits(0);
    a.ctl(&["send", &d.peer, SECRET, "--subject", SECRET]).exits(0);
    d.ctl(&["send", &a.peer, SECRET]).exits(0);
    assert_line(&net);
    assert_eq!(a.knows(b).expect("linked")["link"]["address"], *ab.address);
    assert_eq!(b.knows(c).expect("linked")["link"]["address"], *bc.address);
    for proxy in [&ab, &bc] {
        assert!(proxy.bytes() > body.len(), "the message passed here: {} B", proxy.bytes());
        assert!(!proxy.saw(SECRET.as_bytes()), "the plaintext passed in clear");
    }
    for relay in [b, c] {
        for file in relay.files() {
            let found = contains(&fs::read(&file).unwrap_or_default(), SECRET.as_bytes());
            assert!(!found, "{}: the plaintext is in {}", relay.name, file.display());
        }
        let in_memory = memory::holds(relay.pid(), SECRET.as_bytes());
        assert_ne!(in_memory, Some(true), "{}: the plaintext is in its memory", relay.name);
    }
    // The search would have found it.
    let kept = |daemon: &Daemon| {
        let mut files = daemon.files().into_iter();
        files.any(|file| contains(&fs::read(file).unwrap_or_default(), SECRET.as_bytes()))
    };
    assert!(kept(d), "the recipient has it on its disk");
    assert_ne!(memory::holds(b.pid(), b.peer.as_bytes()), Some(false), "memory can be searched");
    assert_eq!(d.bodies(), [body, SECRET.to_owned()]);
}

#[test]
fn a_thousand_lines_arrive_complete_once_and_in_order() {
    let net = line("abcd");
    let (a, d) = (&net[0], &net[3]);
    let lines: Vec<String> = (0..1_000).map(|n| format!("line {n} of 1000")).collect();
    let args = ["send", &d.peer, "--lines", "--json", "--timeout", "60s"];
    let sent = a.ctl_given(&args, (lines.join("\n") + "\n").as_bytes()).exits(0).json();
    assert_eq!(sent.len(), 1_000, "each line is answered for");
    assert!(sent.iter().all(|sent| sent["state"] == "delivered"));
    let listened = d.ctl(&["listen", "--count", "1000", "--timeout", "30s", "--json"]).exits(0);
    let listened: Vec<String> = listened.json().iter().map(|m| text(m, "body")).collect();
    assert!(listened == lines, "a listener gets them complete, once and in order");
    assert!(d.bodies() == lines, "and so they stand in the inbox");
    assert_eq!(a.queued(), 0);
    assert_line(&net);
}

#[test]
fn after_connect_each_side_knows_the_other_and_discover_brings_the_rest() {
    let net = line("abcd");
    let [a, b, c, d] = &net[..] else { panic!("four") };
    for (one, other) in [(a, b), (b, c), (c, d)] {
        let there = one.knows(other).expect("who connected knows the other");
        assert_eq!(
            (&there["connected"], &there["link"]["direction"]),
            (&true.into(), &"outbound".into())
        );
        let here = until("the other side has it too", SOON, || {
            other.knows(one).filter(|peer| !peer["record_made"].is_null())
        });
        assert_eq!(
            (&here["connected"], &here["link"]["direction"]),
            (&false.into(), &"inbound".into())
        );
        assert_eq!(here["alias"], serde_json::Value::Null, "nobody gets an alias by itself");
        assert_eq!(here["name"], *one.name);
    }
    let output = a.ctl(&["discover", "--json"]).exits(0);
    let counts = output.json().pop().expect("the counts");
    assert_eq!((&counts["asked"], &counts["answered"]), (&1.into(), &1.into()), "{counts}");
    // A relay learns of its other side when that link comes up, so d may be news to b itself.
    until("a knows everybody by discover", SOON, || {
        let known: BTreeSet<String> = a.peers().iter().map(|peer| text(peer, "peer")).collect();
        if known == ids(&[b, c, d]) {
            return Some(());
        }
        a.ctl(&["discover"]).exits(0);
        None
    });
    for other in [b, c, d] {
        let peer = a.knows(other).expect("known");
        assert_eq!(peer["addresses"], serde_json::json!([other.address]), "{peer}");
        assert_eq!(peer["name"], *other.name);
        assert!(!peer["record_made"].is_null(), "verified: {peer}");
    }
    assert_line(&net);
}
