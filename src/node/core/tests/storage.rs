//! What is stored, and what becomes of it while there is no room.

use super::*;
use crate::control::protocol::SetAlias;

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
