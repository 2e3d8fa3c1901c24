//! A ring of five: what happens to a stream of messages when the relay in use dies.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::daemon::{Daemon, SOON, start_all, text};
use crate::running::until;

const MESSAGES: usize = 2_000;
/// Lines given at a time.
const PIECE: usize = 25;

/// Five daemons, each linked with the next and the last with the first.
fn ring() -> Vec<Daemon> {
    let net = start_all("abcde");
    for at in 0..net.len() {
        net[at].connect(&net[(at + 1) % net.len()]);
    }
    net
}

/// The neighbour by which messages go to a destination.
fn first_hop(from: &Daemon, to: &Daemon) -> Option<String> {
    let routes = from.ctl(&["routes", "--json"]).exits(0).json();
    let route = routes.into_iter().find(|route| route["destination"] == *to.peer)?;
    route["next_hops"].get(0).map(|hop| text(hop, "peer"))
}

#[test]
fn a_stream_survives_the_death_of_the_relay_in_use() {
    let mut net = ring();
    let to = net[2].peer.clone();
    let args = ["send", &to, "--lines", "--json", "--timeout", "60s"];
    let mut send = net[0].ctl_start(&args);
    let lines: Vec<String> = (0..MESSAGES).map(|n| format!("message {n}")).collect();
    let mut killed = None;
    for (at, piece) in lines.chunks(PIECE).enumerate() {
        assert!(send.give((piece.join("\n") + "\n").as_bytes()), "send reads on");
        if at * PIECE == MESSAGES / 4 {
            until("the stream flows", SOON, || (send.lines_count() > 0).then_some(()));
            let relay = until("a route is in use", SOON, || first_hop(&net[0], &net[2]));
            let relay = net.iter_mut().find(|daemon| daemon.peer == relay).expect("of the ring");
            relay.kill();
            killed = Some(relay.peer.clone());
        }
        // Gradually: half of what was given is answered for before more is given.
        let behind = (at + 1) * PIECE / 2;
        if killed.is_none() {
            until("answers come", SOON, || (send.lines_count() >= behind).then_some(()));
        }
    }
    let sent = send.finish();
    let delivered: Vec<usize> = sent
        .json()
        .iter()
        .filter(|sent| sent["state"] == "delivered")
        .map(|sent| sent["line"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a line"))
        .collect();
    let inbox = net[2].bodies();
    let kept: BTreeSet<&String> = inbox.iter().collect();
    for line in &delivered {
        assert!(kept.contains(&lines[line - 1]), "line {line} is delivered, and not in the inbox");
    }
    assert_eq!(kept.len(), inbox.len(), "none is doubled");
    let sent = sent.exits(0);
    assert_eq!(sent.stderr, "");
    assert_eq!(delivered.len(), MESSAGES, "none is lost");
    assert!(inbox == lines, "all are there, in order");
    let killed = killed.expect("a relay was killed");
    let hop = first_hop(&net[0], &net[2]).expect("a route");
    assert_ne!(hop, killed, "the rest went by the other side");
    assert_eq!(net[0].queued(), 0);
}

#[test]
fn a_send_goes_by_the_other_side_at_once_when_the_relay_in_use_is_gone() {
    let mut net = ring();
    net[0].ctl(&["send", &net[2].peer, "first"]).exits(0);
    let relay = first_hop(&net[0], &net[2]).expect("a route in use");
    net.iter_mut().find(|daemon| daemon.peer == relay).expect("of the ring").kill();
    let begun = std::time::Instant::now();
    net[0].ctl(&["send", &net[2].peer, "second"]).exits(0);
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    assert_eq!(net[2].bodies(), ["first", "second"]);
}

#[test]
fn a_relay_that_falls_silent_is_gone_around() {
    use rustix::process::Signal;
    let net = ring();
    let (a, c) = (&net[0], &net[2]);
    a.ctl(&["send", &c.peer, "first"]).exits(0);
    let relay = first_hop(a, c).expect("a route in use");
    let relay = net.iter().find(|daemon| daemon.peer == relay).expect("of the ring");
    // Its links stay up for a while, and nothing comes back on them.
    relay.signal(Signal::STOP);
    let lines: Vec<String> = (0..50).map(|n| format!("message {n}")).collect();
    let args = ["send", &c.peer, "--lines", "--timeout", "30s"];
    a.ctl_given(&args, lines.join("\n").as_bytes()).exits(0);
    relay.signal(Signal::CONT);
    a.ctl(&["send", &c.peer, "last", "--timeout", "30s"]).exits(0);
    assert_eq!(c.bodies(), [vec!["first".to_owned()], lines, vec!["last".to_owned()]].concat());
}
