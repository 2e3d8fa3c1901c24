//! A disk without room refuses what is too much, and nothing else.

use super::*;
use crate::model::limits::stored_bytes;
use crate::store::op::PeerRow;

/// A database that may have that many pages of four kibibytes.
fn with_pages(path: &Path, pages: u32) -> (Rig, Snapshot) {
    let options = Options { pages_max: Some(pages), ..Options::default() };
    Rig::open_with(path, &options).expect("the database opens")
}

/// C for committed, F for full.
fn fates(completions: &[Completion]) -> String {
    completions
        .iter()
        .map(|completion| match completion {
            Completion::Committed { .. } => 'C',
            Completion::Full { .. } => 'F',
            other => panic!("{other:?}"),
        })
        .collect()
}

fn rows(rig: &Rig) -> Vec<u64> {
    outbox_of(rig, 1).iter().map(|message| message.row.0).collect()
}

#[test]
fn only_the_culprit_is_refused_and_room_can_be_made() {
    let (_directory, path) = place();
    let (rig, _) = with_pages(&path, 200);
    // One group. Each of the large ones fits alone, but not beside the other.
    let large = 450_000;
    rig.submit(vec![
        vec![queue(&outgoing(1, 1, 10))],
        vec![queue(&outgoing(2, 1, large))],
        vec![queue(&outgoing(3, 1, 10))],
        vec![
            queue(&outgoing(4, 1, 10)),
            queue(&outgoing(5, 1, large)),
            deliver(&incoming(1, 1, 9)),
        ],
        vec![queue(&outgoing(6, 1, 10))],
        vec![queue(&outgoing(7, 1, 2_000_000))],
    ]);
    assert_eq!(fates(&rig.hear(6)), "CCCFCF");
    assert_eq!(rows(&rig), [1, 2, 3, 6], "nothing of the refused ones is there");
    assert_eq!(inbox_of(&rig), []);

    // Still no room; then there is.
    let again = || vec![queue(&outgoing(8, 1, large)), deliver(&incoming(1, 1, 9))];
    rig.submit(vec![again()]);
    assert_eq!(fates(&rig.hear(1)), "F");
    rig.submit(vec![vec![Op::Unqueue { rows: vec![Row(2)] }], again()]);
    assert_eq!(fates(&rig.hear(2)), "CC");
    assert_eq!(rows(&rig), [1, 3, 6, 8]);
    rig.store.close();

    let (rig, snapshot) = with_pages(&path, 200);
    assert_eq!(rows(&rig), [1, 3, 6, 8]);
    assert_eq!((snapshot.inbox_messages, snapshot.inbox_bytes), (1, stored_bytes(9)));
    assert_eq!((snapshot.last_row, snapshot.last_cursor), (Row(8), Cursor(1)));
}

#[test]
fn sums_follow_what_was_undone() {
    let (_directory, path) = place();
    let (rig, _) = with_pages(&path, 100);
    let too_much = || queue(&outgoing(9, 1, 1_000_000));
    rig.submit(vec![
        vec![deliver(&incoming(1, 1, 100))],
        vec![deliver(&incoming(2, 1, 100)), too_much()],
    ]);
    assert_eq!(fates(&rig.hear(2)), "CF");
    // Were the refused bytes counted, this would remove the message.
    let by_size =
        Op::Prune { through: Cursor(9), received_before: time(0), bytes_max: stored_bytes(100) };
    rig.commit(vec![by_size]);
    assert_eq!(inbox_of(&rig).len(), 1);
}

#[test]
fn what_builds_on_something_refused_is_refused_too() {
    let (_directory, path) = place();
    let (rig, _) = with_pages(&path, 100);
    let held = Incoming { cursor: Cursor(0), ..incoming(5, 1, 10) };
    let hold = Op::Hold(Box::new(held.clone()));
    let too_much = queue(&outgoing(9, 1, 1_000_000));
    let release = Op::Release { key: held.key, cursor: Cursor(1) };
    let listener = Op::Listener { name: "a".into(), position: Cursor(0) };
    let acknowledge = Op::Acknowledge { name: "a".into(), first: Cursor(1), last: Cursor(1) };
    rig.submit(vec![
        vec![hold.clone(), listener.clone(), too_much],
        vec![release.clone()],
        vec![queue(&outgoing(1, 1, 1))],
        vec![acknowledge.clone()],
    ]);
    assert_eq!(fates(&rig.hear(4)), "FFCF");
    rig.commit(vec![hold, listener, release, acknowledge]);
    assert_eq!(inbox_of(&rig), [Incoming { cursor: Cursor(1), ..held }]);
}

#[test]
fn many_transactions_beyond_the_room_are_sorted_out() {
    let (_directory, path) = place();
    let (rig, _) = with_pages(&path, 150);
    // Every third is too much; the others fit.
    let transactions = (1..=90).map(|row| {
        let bytes = if row % 3 == 0 { 700_000 } else { 100 };
        vec![queue(&outgoing(row, 1, bytes))]
    });
    rig.submit(transactions.collect());
    assert_eq!(fates(&rig.hear(90)), "CCF".repeat(30));
    let record = Some(body(1, 1_000));
    let peer = PeerRow { peer: peer(1), record, alias: None, dial: None };
    rig.commit(vec![Op::Peer(Box::new(peer))]);
}
