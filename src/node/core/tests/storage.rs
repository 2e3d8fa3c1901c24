//! What is stored, and what becomes of it while there is no room.

use super::*;
use crate::control::SendRequest;
use crate::control::protocol::{SetAlias, Wait};
use crate::model::Cursor;
use crate::model::limits::MESSAGE_LIFETIME_MAX;
use crate::store::op::ListenerRow;

fn alias(node: &mut Lone, peer: PeerId, alias: Option<&str>) {
    let alias = alias.map(ToOwned::to_owned);
    node.call(Request::Alias(SetAlias { peer: peer.to_string(), alias }));
}

fn aliases(node: &Lone) -> Vec<(PeerId, &str)> {
    let rows = node.disk.peers.values();
    rows.filter_map(|row| Some((row.peer, row.alias.as_ref()?.as_str()))).collect()
}

#[test]
fn an_alias_that_was_taken_away_is_gone_though_the_disk_was_full() {
    let (bob, carol) = (Lone::new(2), Lone::new(3));
    let (bob_id, carol_id) = (bob.core.peer(), carol.core.peer());
    let mut node = Lone::new(1);
    node.link(&bob, 1, None);
    alias(&mut node, bob_id, Some("bob"));
    node.finish();
    assert_eq!(aliases(&node), [(bob_id, "bob")]);
    node.disk.full = true;
    node.told.clear();
    alias(&mut node, bob_id, None);
    node.wait(Span::from_secs(5));
    assert!(node.told.is_empty(), "told before it is so: {:?}", node.told);
    alias(&mut node, carol_id, Some("bob"));
    node.disk.full = false;
    node.wait(Span::from_secs(2));
    assert_eq!(node.told.len(), 2);
    assert_eq!(aliases(&node), [(carol_id, "bob")]);
    assert!(node.disk.peers[&bob_id].record.is_some(), "its record stays");
}

#[test]
fn what_waits_for_room_does_not_grow_with_the_strangers_that_come_and_go() {
    let limits = Limits { records_max: 4, ..Limits::default() };
    let mut node = Lone::with(1, limits, Snapshot::default(), 0);
    let meet = |node: &mut Lone, seed: u8| {
        let stranger = Lone::new(seed);
        let link = node.link(&stranger, u64::from(seed), None);
        node.unlink(link);
        node.wait(Span::from_secs(2));
    };
    (10..20).for_each(|seed| meet(&mut node, seed));
    assert_eq!(node.disk.peers.len(), 4, "as many rows as records");
    node.disk.full = true;
    node.disk.ops_max = 0;
    (20..100).for_each(|seed| meet(&mut node, seed));
    assert!(node.disk.ops_max <= 6, "{} changes wait for room", node.disk.ops_max);
    node.disk.full = false;
    node.wait(Span::from_secs(5));
    let known = node.core.router.records_after(None, 100);
    let known: Vec<PeerId> = known.iter().map(|record| record.record.peer).collect();
    let stored: Vec<PeerId> = node.disk.peers.keys().copied().collect();
    assert_eq!(stored, known, "the disk has what is in the table");
}

const HOUR: Span = Span::from_secs(3_600);
const YEAR_MS: i64 = 365 * 86_400_000;

/// A node with a listener that has acknowledged something.
fn with_listener(limits: Limits) -> Lone {
    let listener =
        ListenerRow { name: "all".into(), position: Cursor(5), acknowledged: Vec::new() };
    let snapshot = Snapshot { listeners: vec![listener], ..Snapshot::default() };
    Lone::with(1, limits, snapshot, 0)
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_makes_nothing_go() {
    let mut node = with_listener(Limits::default());
    for _ in 0..10 {
        // Right, and ahead just when what is too old is looked for.
        node.wait(Span::from_secs(3_000));
        node.set_clock(YEAR_MS);
        node.wait(Span::from_secs(900));
        node.set_clock(0);
        node.finish();
    }
    let latest = node.now.wall;
    let Disk { keys_kept, inbox_kept, .. } = &node.disk;
    assert!(keys_kept.len() >= 5 && inbox_kept.len() >= 5, "it is looked every hour");
    for before in keys_kept {
        assert!(*before <= latest - MESSAGE_LIFETIME_MAX, "{before:?}");
    }
    for before in inbox_kept {
        assert!(*before <= latest - Limits::default().inbox_retention, "{before:?}");
    }
}

#[test]
fn what_is_too_old_goes_once_it_is_known_what_time_it_is() {
    let retention = Limits::default().inbox_retention;
    let mut node = with_listener(Limits::default());
    let start = node.now.wall;
    node.wait(HOUR.divided(2));
    assert_eq!(node.disk.keys_kept, []);
    assert_eq!(node.disk.inbox_kept, [Timestamp::default()], "for want of space only");
    node.wait(HOUR);
    assert_eq!(node.disk.keys_kept, [start - MESSAGE_LIFETIME_MAX]);
    assert_eq!(node.disk.inbox_kept[1..], [start - retention]);
    // What need not be kept at all goes whatever time it is.
    let node = with_listener(Limits { inbox_retention: Span::ZERO, ..Limits::default() });
    assert_eq!(node.disk.inbox_kept, [Timestamp::from_millis(u64::MAX)]);
}

#[test]
fn the_key_of_a_message_that_has_gone_is_kept_from_then_on() {
    // It boots without knowing the time, and is told it when it has something to send.
    let mut node = Lone::with(1, Limits::default(), Snapshot::default(), -50 * YEAR_MS);
    let request = SendRequest {
        peer: PeerId::from_bytes([9; 32]).to_string(),
        body: Bytes::from_static(b"x"),
        subject: None,
        wait: Wait::Queued,
        timeout_ms: None,
        key: Some("once".into()),
    };
    let calls = vec![(RequestId::Number(1), Call::Send(request))];
    node.input(Input::Calls { client: ClientId(1), calls });
    assert_eq!(node.disk.queued.len(), 1);
    node.set_clock(0);
    node.wait(Span::from_secs(8 * 86_400));
    let [expires] = node.disk.settled[..] else { panic!("{:?}", node.disk.settled) };
    let given_up = expires - MESSAGE_LIFETIME_MAX;
    let passed = given_up.since(time(0, 0).wall);
    assert!(given_up > time(0, 0).wall && given_up < node.now.wall, "after {passed:?}");
}
