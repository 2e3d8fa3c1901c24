//! Which links are made, and when.

use super::*;
use crate::control::protocol::{Discover, ErrorCode, PeerRef, SetAlias};
use crate::model::limits::KNOWN_PEERS_MAX;
use crate::node::core::links::{BRIEF_LINK_MAX, KEPT_DIALS_MAX};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_kept_peer_is_dialled_again_after_its_record_was_refused() {
    let bob = Lone::new(2);
    let keeping = keeping(bob.core.peer());
    let mut node = Lone::with(1, Limits::default(), keeping, -HOUR_MS);
    let link = node.reach(&bob, 1);
    assert_eq!(node.closed, [link], "a record from the future is refused");
    node.set_clock(0);
    node.wait(Span::from_secs(60));
    assert!(!node.dials.is_empty(), "the clock is right for a minute, and nobody is dialled");
}

#[test]
fn who_waits_for_a_link_that_we_refuse_is_told_at_once_and_the_peer_is_kept() {
    let bob = Lone::new(2);
    let mut node = Lone::with(1, Limits::default(), Snapshot::default(), -HOUR_MS);
    node.connect(bob.core.peer());
    node.told.clear();
    node.reach(&bob, 1);
    let told = std::mem::take(&mut node.told);
    let [ToClient::Reply { result: Err(failure), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(failure.code, ErrorCode::Unreachable, "it is not the peer that refuses");
    assert!(failure.message.contains("check both clocks"), "{}", failure.message);
    assert!(failure.message.contains("dialled again"), "{}", failure.message);
    node.set_clock(0);
    node.wait(Span::from_secs(60));
    node.reach(&bob, 2);
    assert_eq!(node.core.links.link_of(&bob.core.peer()), Some(LinkId(2)));
}

#[test]
fn a_dial_of_our_own_that_was_refused_for_want_of_room_is_not_repeated_at_once() {
    let (bob, carol) = (Lone::new(2), Lone::new(3));
    let limits = Limits { links_max: 1, ..Limits::default() };
    let mut node = Lone::with(1, limits, keeping(bob.core.peer()), 0);
    // Our own dial to Bob is under way when the operator's other peer takes the only place.
    let dial = node.dials.remove(0);
    node.connect(carol.core.peer());
    node.reach(&carol, 1);
    let link = node.link(&bob, 2, Some(dial));
    assert_eq!(node.closed, [link]);
    node.wait(Span::from_millis(400));
    assert!(node.dials.is_empty(), "dialled again at once");
    node.wait(Span::from_secs(2));
    assert!(!node.dials.is_empty(), "never dialled again");
}

#[test]
fn a_peer_that_ends_every_link_at_once_is_not_dialled_in_haste() {
    let bob = Lone::new(2);
    let mut node = Lone::with(1, Limits::default(), keeping(bob.core.peer()), 0);
    let end = node.now.mono + Span::from_secs(600);
    let mut links = 0;
    while node.pass(end) {
        if !node.dials.is_empty() {
            links += 1;
            let link = node.reach(&bob, links);
            node.unlink(link);
        }
    }
    assert!((10..40).contains(&links), "{links} handshakes in ten minutes");
}

#[test]
fn a_link_that_lasted_is_made_again_at_once_however_many_failed_before() {
    let bob = Lone::new(2);
    let mut node = Lone::with(1, Limits::default(), keeping(bob.core.peer()), 0);
    for link in 1..10 {
        let link = node.reach(&bob, link);
        node.unlink(link);
        node.wait(Span::from_secs(45));
    }
    let link = node.reach(&bob, 10);
    node.wait(BRIEF_LINK_MAX);
    node.unlink(link);
    node.wait(Span::from_millis(200));
    assert_eq!(node.dials.len(), 1, "it is dialled within 200 ms");
}

/// A disk with so many connected peers that nobody ever heard of.
fn crowd(peers: usize) -> Snapshot {
    let row = |n: usize| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let dial = "192.0.2.1:3000".parse().ok();
        PeerRow { peer: PeerId::from_bytes(bytes), record: None, alias: None, dial }
    };
    Snapshot { peers: (0..peers).map(row).collect(), ..Snapshot::default() }
}

#[test]
fn some_kept_peers_are_dialled_at_once_and_all_in_turn() {
    let mut node = Lone::with(1, Limits::default(), crowd(300), 0);
    let mut dialled = 0;
    for _ in 0..5 {
        assert!(node.dials.len() <= KEPT_DIALS_MAX, "{} at once", node.dials.len());
        let dials = std::mem::take(&mut node.dials);
        dialled += dials.len();
        node.wait(Span::from_millis(400));
        assert!(node.dials.is_empty(), "more than {KEPT_DIALS_MAX} at once");
        for dial in dials {
            let failure = DialFailure::Unreachable { reason: "no answer".to_owned() };
            node.core.handle(node.now, Input::DialFailed { dial, failure });
        }
        node.finish();
    }
    assert!(dialled >= 300, "{dialled} dials");
    let untried = node.core.peers.ids_after(None);
    let untried = untried.filter(|peer| node.core.links.last_error(peer).is_none());
    assert_eq!(untried.count(), 0, "not everybody had a turn");
}

#[test]
fn the_operator_has_no_more_peers_than_the_limit() {
    let mut node = Lone::with(1, Limits::default(), crowd(KNOWN_PEERS_MAX), 0);
    let before = node.dials.len();
    let one_more = Lone::new(2).core.peer();
    node.told.clear();
    node.connect(one_more);
    let alias = Some("bob".to_owned());
    node.call(Request::Alias(SetAlias { peer: one_more.to_string(), alias: alias.clone() }));
    let told = std::mem::take(&mut node.told);
    assert_eq!((told.len(), node.dials.len()), (2, before));
    for told in told {
        let ToClient::Reply { result: Err(failure), .. } = told else { panic!("{told:?}") };
        assert_eq!(failure.code, ErrorCode::TooLarge);
        assert!(failure.message.contains("distmsgctl forget"), "{}", failure.message);
    }
    // One that is among them may have an alias, and makes room when it is forgotten.
    let known = node.core.peers.ids_after(None).next().expect("one").to_string();
    node.call(Request::Alias(SetAlias { peer: known.clone(), alias: Some("al".to_owned()) }));
    node.call(Request::Forget(PeerRef { peer: known }));
    node.call(Request::Alias(SetAlias { peer: one_more.to_string(), alias }));
    let done = |told: &&ToClient| matches!(told, ToClient::Reply { result: Ok(_), .. });
    assert_eq!(node.told.iter().filter(done).count(), 3, "{:?}", node.told);
}

#[test]
fn so_many_clients_wait_for_a_discover_and_no_more() {
    let bob = Lone::new(2);
    let keeping = keeping(bob.core.peer());
    let mut node = Lone::with(1, Limits::default(), keeping, 0);
    node.reach(&bob, 1);
    node.told.clear();
    // Its neighbour never answers.
    for _ in 0..2_000 {
        node.call(Request::Discover(Discover { timeout_ms: 60_000 }));
    }
    let tables = node.core.occupancy();
    let waiting = tables.iter().find(|table| table.table == "clients that discover");
    assert!(waiting.is_some_and(|table| table.is_within() && table.used > 0), "{waiting:?}");
    let busy = |told: &&ToClient| {
        let ToClient::Reply { result: Err(failure), .. } = told else { return false };
        failure.code == ErrorCode::Busy
    };
    let refused = node.told.iter().filter(busy).count() as u64;
    assert_eq!(refused + waiting.map_or(0, |table| table.used), 2_000);
}

#[test]
fn a_peer_that_was_disconnected_is_not_linked_by_a_dial_that_was_under_way() {
    let bob = Lone::new(2);
    let mut node = Lone::with(1, Limits::default(), keeping(bob.core.peer()), 0);
    let dial = node.dials.remove(0);
    node.call(Request::Disconnect(PeerRef { peer: bob.core.peer().to_string() }));
    let link = node.link(&bob, 1, Some(dial));
    assert_eq!(node.closed, [link]);
    node.wait(Span::from_secs(3_600));
    assert!(node.dials.is_empty(), "dialled again");
    // The operator wants it again: then its dial is welcome.
    node.connect(bob.core.peer());
    node.reach(&bob, 2);
    assert_eq!(node.core.links.link_of(&bob.core.peer()), Some(LinkId(2)));
}
