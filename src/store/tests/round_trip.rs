//! Every change, through a close and an open.

use zeroize::Zeroizing;

use super::*;
use crate::model::limits::{CHUNK_BYTES, GIVEN_UP_MAX, stored_bytes};
use crate::model::{PrekeyId, SessionId};
use crate::store::columns::PLACE_MAX;
use crate::store::op::{
    HeldRow, IncomingChunk, KeyRow, KeyState, ListenerRow, OutboxSummary, OutgoingHead, PartialRow,
    PeerRow, PrekeyRow, SessionRow, WindowRow,
};

/// Carries out the changes and opens the database again.
fn through_a_restart(ops: Vec<Op>) -> (TempDir, Rig, Snapshot) {
    let (directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit(ops);
    rig.store.close();
    let (rig, snapshot) = Rig::open(&path);
    (directory, rig, snapshot)
}

#[test]
fn a_new_database_is_empty() {
    let (_directory, path) = place();
    let (_rig, snapshot) = Rig::open(&path);
    assert_eq!(format!("{snapshot:?}"), format!("{:?}", Snapshot::default()));
}

#[test]
fn the_outbox_survives() {
    let messages = [outgoing(1, 1, 0), outgoing(2, 2, 100), outgoing(3, 1, 5_000)];
    let (_directory, rig, snapshot) = through_a_restart(messages.iter().map(queue).collect());
    assert_eq!(snapshot.last_row, Row(3));
    let summary = |recipient, messages, bytes, first: &Outgoing| {
        let expires = first.expires;
        OutboxSummary { recipient, messages, bytes, expires }
    };
    let summaries =
        [summary(peer(1), 2, 5_000, &messages[0]), summary(peer(2), 1, 100, &messages[1])];
    assert_eq!(snapshot.outbox, summaries);
    assert_eq!(outbox_of(&rig, 1), [messages[0].clone(), messages[2].clone()]);
    assert_eq!(outbox_of(&rig, 2), [messages[1].clone()]);
    assert_eq!(outbox_of(&rig, 3), []);

    let heads = |after, messages_max| match rig.ask(Question::Outbox { after, messages_max }) {
        Answer::Outbox(heads) => heads,
        other => panic!("{other:?}"),
    };
    let head = |message: &Outgoing| OutgoingHead {
        bytes: message.body.len() as u64,
        message: Outgoing { body: Bytes::new(), ..message.clone() },
    };
    assert_eq!(heads(Row(0), 2), [head(&messages[0]), head(&messages[1])]);
    assert_eq!(heads(Row(2), 9), [head(&messages[2])]);
}

#[test]
fn an_answer_ends_at_its_bounds() {
    let messages: Vec<_> = (1..=9).map(|row| outgoing(row, 1, 100)).collect();
    let (_directory, rig, _) = through_a_restart(messages.iter().map(queue).collect());
    for (after, messages_max, bytes_max, count) in [
        (0, 3, 9_999, 3),
        (7, 9, 9_999, 2),
        (0, 9, 250, 2),
        (0, 9, 200, 2),
        (0, 9, 1, 1),
        (0, 0, 1, 0),
    ] {
        let what =
            Question::OutboxOf { recipient: peer(1), after: Row(after), messages_max, bytes_max };
        match rig.ask(what) {
            Answer::OutboxOf(found) => {
                assert_eq!(found, messages[after as usize..after as usize + count]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn messages_leave_the_outbox_and_places_are_not_given_again() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit((1..=5).map(|row| queue(&outgoing(row, 1, 10))).collect());
    rig.commit(vec![Op::Unqueue { rows: vec![Row(2), Row(5), Row(77)] }]);
    rig.store.close();
    let (rig, snapshot) = Rig::open(&path);
    assert_eq!(snapshot.last_row, Row(5));
    assert_eq!(snapshot.outbox.iter().map(|o| o.messages).sum::<u64>(), 3);
    rig.commit(vec![Op::Unqueue { rows: vec![Row(1), Row(3), Row(4)] }]);
    rig.store.close();
    let (_rig, snapshot) = Rig::open(&path);
    assert_eq!((snapshot.last_row, snapshot.outbox.len()), (Row(5), 0));
}

#[test]
fn what_was_given_up_is_kept_until_enough_followed() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let count = u64::from(GIVEN_UP_MAX) + 3;
    rig.commit((1..=count + 1).map(|row| queue(&outgoing(row, 1, 10))).collect());
    // In another order than they were queued.
    let rows: Vec<u64> = (1..=count).rev().collect();
    rig.commit(rows.iter().map(|row| Op::GiveUp(Box::new(given_up(*row)))).collect());
    rig.store.close();
    let (_rig, snapshot) = Rig::open(&path);
    let kept: Vec<GivenUp> = rows.iter().skip(3).map(|row| given_up(*row)).collect();
    assert_eq!(snapshot.given_up, kept);
    assert_eq!((snapshot.last_row, snapshot.outbox[0].messages), (Row(count + 1), 1));
}

#[test]
fn a_message_that_comes_and_goes_in_one_transaction_takes_its_place_along() {
    let gone = Op::Unqueue { rows: vec![Row(1)] };
    let (_directory, _rig, snapshot) = through_a_restart(vec![queue(&outgoing(1, 1, 1)), gone]);
    assert_eq!((snapshot.last_row, snapshot.outbox.len()), (Row(1), 0));
}

#[test]
fn keys_tell_the_fate_of_their_messages() {
    let keyed = |row, key: &str, expires| {
        let message = outgoing(row, 1, 1);
        Op::Queue(Box::new(Outgoing { key: Some(key.into()), expires: time(expires), ..message }))
    };
    let state = |key: &str, state| Op::KeyState { key: key.into(), state, expires: time(1) };
    let (_directory, rig, _) = through_a_restart(vec![
        keyed(1, "queued", 100),
        keyed(2, "delivered", 100),
        keyed(3, "expired", 100),
        keyed(4, "old", 99),
        keyed(5, "again", 99),
        state("delivered", KeyState::Delivered),
        state("expired", KeyState::Expired),
        state("unknown", KeyState::Expired),
        Op::Unqueue { rows: vec![Row(2), Row(3), Row(4), Row(5)] },
        keyed(6, "again", 100),
        Op::PruneKeys { expired_before: time(100) },
    ]);
    let ask = |key: &str| match rig.ask(about_key(key, None, body(1, 1))) {
        Answer::Key(found) => found.map(|row| KeyRow { is_same: true, ..row }),
        other => panic!("{other:?}"),
    };
    for (key, row, state) in [
        ("queued", 1, KeyState::Queued),
        ("delivered", 2, KeyState::Delivered),
        ("expired", 3, KeyState::Expired),
        ("again", 6, KeyState::Queued),
    ] {
        let (id, recipient, row) = (id(row), peer(1), Row(row));
        let is_same = true;
        assert_eq!(ask(key), Some(KeyRow { key: key.into(), id, recipient, state, row, is_same }));
    }
    assert_eq!(ask("old"), None);
    assert_eq!(ask("unknown"), None);
    let with_keys = outbox_of(&rig, 1).into_iter().map(|m| m.key.expect("a key"));
    assert_eq!(with_keys.collect::<Vec<_>>(), ["queued".into(), "again".into()]);
}

#[test]
fn a_key_outlives_its_message_whatever_the_clock_said() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let keyed = |row, key: &str, expires| {
        let message = outgoing(row, 1, 1);
        Op::Queue(Box::new(Outgoing { key: Some(key.into()), expires: time(expires), ..message }))
    };
    rig.commit(vec![keyed(1, "behind", 10), keyed(2, "ahead", 1_000), keyed(3, "other", 10)]);
    let prune = |before| match rig.commit(vec![Op::PruneKeys { expired_before: time(before) }]) {
        Completion::Committed { pruned, .. } => pruned.keys,
        other => panic!("{other:?}"),
    };
    let is_known = |key: &str| match rig.ask(about_key(key, None, body(1, 1))) {
        Answer::Key(found) => found.is_some(),
        other => panic!("{other:?}"),
    };
    assert_eq!(prune(u64::MAX), 0, "all their messages wait");
    assert!(is_known("behind") && is_known("ahead") && is_known("other"));
    let delivered = |key: &str, expires| {
        let (key, state) = (key.into(), KeyState::Delivered);
        Op::KeyState { key, state, expires: time(expires) }
    };
    let gone = Op::Unqueue { rows: vec![Row(1), Row(2)] };
    rig.commit(vec![gone, delivered("behind", 500), delivered("ahead", 500)]);
    assert_eq!(prune(500), 0, "one that is delivered is known from then on for as long again");
    assert_eq!(prune(501), 1);
    assert!(!is_known("behind") && is_known("ahead"), "it is never for a shorter time");
    assert_eq!(prune(1_001), 1);
    assert!(!is_known("ahead") && is_known("other"));
}

#[test]
fn a_key_knows_its_message() {
    let message = Outgoing { key: Some("key".into()), ..outgoing(2, 1, 100) };
    let (_directory, rig, _) = through_a_restart(vec![queue(&message)]);
    let is_same = |subject: Option<&str>, body| match rig.ask(about_key("key", subject, body)) {
        Answer::Key(Some(row)) => row.is_same,
        other => panic!("{other:?}"),
    };
    let subject = message.subject.as_deref();
    assert!(is_same(subject, message.body.clone()));
    assert!(!is_same(subject, body(3, 100)));
    assert!(!is_same(subject, message.body.slice(1..)));
    assert!(!is_same(None, message.body.clone()));
}

#[test]
fn the_inbox_survives_and_held_messages_find_their_place() {
    let (first, last) = (incoming(1, 1, 0), incoming(3, 2, 3_000));
    let held = Incoming { cursor: Cursor(0), ..incoming(9, 1, 100) };
    let waits = Incoming { cursor: Cursor(0), ..incoming(10, 1, 7) };
    let (_directory, rig, snapshot) = through_a_restart(vec![
        deliver(&first),
        Op::Hold(Box::new(held.clone())),
        Op::Hold(Box::new(waits.clone())),
        Op::Release { key: held.key, cursor: Cursor(2) },
        deliver(&last),
    ]);
    let released = Incoming { cursor: Cursor(2), ..held };
    assert_eq!(inbox_of(&rig), [first, released, last]);
    assert_eq!(snapshot.held, [HeldRow { key: waits.key, received: waits.received, bytes: 7 }]);
    assert_eq!((snapshot.inbox_messages, snapshot.inbox_bytes), (3, 3_107 + 4 * stored_bytes(0)));
    assert_eq!(snapshot.last_cursor, Cursor(3));
}

fn chunk(sequence: u64, index: u16, whole: &Bytes, size: usize) -> Op {
    let start = usize::from(index) * size;
    Op::Chunk(Box::new(IncomingChunk {
        key: key(1, sequence),
        index,
        total: whole.len() as u64,
        sent: time(5),
        expires: time(u64::MAX),
        subject: Some("chunked".into()),
        bytes: whole.slice(start..whole.len().min(start + size)),
    }))
}

fn assembled(sequence: u64, cursor: Option<u64>) -> Op {
    let (key, id, received) = (key(1, sequence), id(sequence), time(6));
    Op::Assemble { key, id, cursor: cursor.map(Cursor), received }
}

#[test]
fn chunks_become_messages() {
    let whole = body(3, 1_000_000);
    let size = CHUNK_BYTES;
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    // In any order; one of them twice.
    let mut ops: Vec<_> = (0..18).rev().map(|index| chunk(1, index, &whole, size)).collect();
    ops.extend((0..18).map(|index| chunk(2, index, &whole, size)));
    ops.extend([chunk(3, 1, &whole, size), chunk(3, 4, &whole, size), chunk(3, 4, &whole, size)]);
    ops.extend([chunk(4, 0, &whole, size), Op::DropChunks(key(1, 4)), Op::DropChunks(key(1, 5))]);
    rig.commit(ops);
    rig.store.close();

    let (rig, snapshot) = Rig::open(&path);
    let partial = |sequence, indexes| PartialRow {
        key: key(1, sequence),
        total: 1_000_000,
        expires: time(u64::MAX),
        indexes,
    };
    let all: Vec<u16> = (0..18).collect();
    assert_eq!(
        snapshot.partials,
        [partial(1, all.clone()), partial(2, all), partial(3, vec![1, 4])]
    );
    assert_eq!(snapshot.inbox_bytes, 2 * stored_bytes(1_000_000) + 2 * stored_bytes(size as u64));
    rig.commit(vec![assembled(1, Some(1)), assembled(2, None)]);
    rig.store.close();

    let (rig, snapshot) = Rig::open(&path);
    assert_eq!(snapshot.partials, [partial(3, vec![1, 4])]);
    assert_eq!(snapshot.inbox_bytes, 2 * stored_bytes(1_000_000) + 2 * stored_bytes(size as u64));
    assert_eq!(snapshot.held, [HeldRow { key: key(1, 2), received: time(6), bytes: 1_000_000 }]);
    assert_eq!(snapshot.last_cursor, Cursor(1));
    rig.commit(vec![Op::Release { key: key(1, 2), cursor: Cursor(2) }]);
    let message = |number: u64| Incoming {
        key: key(1, number),
        cursor: Cursor(number),
        id: id(number),
        sent: time(5),
        received: time(6),
        subject: Some("chunked".into()),
        body: whole.clone(),
    };
    assert_eq!(inbox_of(&rig), [message(1), message(2)]);
}

#[test]
fn the_largest_message_is_assembled_and_read_in_pieces() {
    let whole = body(1, 16 * 1024 * 1024);
    let size = CHUNK_BYTES;
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let chunks = whole.len().div_ceil(size) as u16;
    for from in (0..chunks).step_by(50) {
        let to = chunks.min(from + 50);
        rig.commit((from..to).map(|index| chunk(1, index, &whole, size)).collect());
    }
    rig.commit(vec![assembled(1, Some(1))]);
    let piece = |cursor, offset, bytes_max| match rig.ask(Question::Body {
        cursor: Cursor(cursor),
        offset,
        bytes_max,
    }) {
        Answer::Body(piece) => piece,
        other => panic!("{other:?}"),
    };
    let mut read = Vec::new();
    while let Some(bytes) = piece(1, read.len() as u64, 1024 * 1024).filter(|b| !b.is_empty()) {
        read.extend_from_slice(&bytes);
    }
    assert!(read == whole, "the body differs");
    assert_eq!(piece(1, u64::MAX, 10), Some(Bytes::new()));
    assert_eq!(piece(2, 0, 10), None);
}

#[test]
fn windows_sessions_prekeys_and_peers_survive() {
    let window = |sender, base| WindowRow {
        sender: peer(sender),
        incarnation: Incarnation(u64::MAX),
        base: Sequence(base),
        received: body(base, 128),
        given_up: Sequence(base),
        touched: time(base),
    };
    let session = |session, fill| SessionRow {
        sender: peer(1),
        session: SessionId(session),
        secret: Zeroizing::new([fill; 32]),
        created: time(fill.into()),
    };
    let prekey = |id, fill| PrekeyRow {
        id: PrekeyId(id),
        secret: Zeroizing::new([fill; 32]),
        created: time(fill.into()),
    };
    let bob = PeerRow {
        peer: peer(2),
        record: Some(body(1, 3_840)),
        alias: Some("bob".parse().expect("a name")),
        dial: Some("[2001:db8::1]:3000".parse().expect("an address")),
    };
    let bare = PeerRow { peer: peer(1), record: None, alias: None, dial: None };
    let (incarnation, sender) = (Incarnation(u64::MAX), peer(3));
    let (_directory, _rig, snapshot) = through_a_restart(vec![
        Op::Window(Box::new(window(1, 1))),
        Op::Window(Box::new(window(1, 2))),
        Op::Window(Box::new(window(3, 3))),
        Op::DropWindow { sender, incarnation },
        Op::DropWindow { sender, incarnation },
        Op::Session(Box::new(session(u64::MAX, 1))),
        Op::Session(Box::new(session(5, 2))),
        Op::DropSession { sender: peer(1), session: SessionId(5) },
        Op::DropSession { sender: peer(1), session: SessionId(6) },
        Op::Prekey(Box::new(prekey(u32::MAX, 3))),
        Op::Prekey(Box::new(prekey(1, 4))),
        Op::Prekey(Box::new(prekey(1, 5))),
        Op::DropPrekey(PrekeyId(u32::MAX)),
        Op::Session(Box::new(session(7, 6))),
        Op::Peer(Box::new(bob.clone())),
        Op::Peer(Box::new(PeerRow { peer: peer(1), alias: None, ..bob.clone() })),
        Op::Peer(Box::new(bare.clone())),
        Op::Peer(Box::new(PeerRow { peer: peer(9), ..bare.clone() })),
        Op::DropPeer(peer(9)),
    ]);
    assert_eq!(snapshot.windows, [window(1, 2)]);
    assert!(snapshot.sessions == [session(u64::MAX, 1), session(7, 6)], "{:?}", snapshot.sessions);
    assert!(snapshot.prekeys == [prekey(1, 5)], "{:?}", snapshot.prekeys);
    assert_eq!(snapshot.peers, [bare, bob]);
}

#[test]
fn two_peers_cannot_have_one_alias() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let named = |number| {
        let alias = Some("bob".parse().expect("a name"));
        Op::Peer(Box::new(PeerRow { peer: peer(number), record: None, alias, dial: None }))
    };
    rig.commit(vec![named(1)]);
    rig.commit(vec![Op::DropPeer(peer(1)), named(2)]);
    assert!(rig.fail(vec![named(3)]).contains("peers.alias"));
}

#[test]
fn acknowledged_ranges_become_one_where_they_touch() {
    let listener =
        |name: &str, position| Op::Listener { name: name.into(), position: Cursor(position) };
    let acknowledge = |first, last| Op::Acknowledge {
        name: "a".into(),
        first: Cursor(first),
        last: Cursor(last),
    };
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit(vec![listener("a", 10), listener("b", 3)]);
    let mut rig = rig;
    for (ops, position, ranges) in [
        (vec![acknowledge(20, 20)], 10, vec![(20, 20)]),
        (vec![acknowledge(22, 22)], 10, vec![(20, 20), (22, 22)]),
        (vec![acknowledge(21, 21)], 10, vec![(20, 22)]),
        (vec![acknowledge(5, 9)], 10, vec![(20, 22)]),
        (vec![acknowledge(5, 12)], 10, vec![(11, 12), (20, 22)]),
        (vec![acknowledge(21, 21), acknowledge(30, 35)], 10, vec![(11, 12), (20, 22), (30, 35)]),
        (vec![acknowledge(23, 40)], 10, vec![(11, 12), (20, 40)]),
        (
            vec![acknowledge(15, 15), acknowledge(17, 17)],
            10,
            vec![(11, 12), (15, 15), (17, 17), (20, 40)],
        ),
        (vec![listener("a", 16)], 16, vec![(17, 17), (20, 40)]),
        (vec![listener("a", 30)], 30, vec![(31, 40)]),
        (vec![acknowledge(PLACE_MAX, PLACE_MAX)], 30, vec![(31, 40), (PLACE_MAX, PLACE_MAX)]),
        (vec![listener("a", PLACE_MAX)], PLACE_MAX, vec![]),
    ] {
        rig.commit(ops);
        rig.store.close();
        let (again, snapshot) = Rig::open(&path);
        rig = again;
        let row = |name: &str, position, ranges: &[(u64, u64)]| ListenerRow {
            name: name.into(),
            position: Cursor(position),
            acknowledged: ranges
                .iter()
                .map(|&(first, last)| (Cursor(first), Cursor(last)))
                .collect(),
        };
        assert_eq!(snapshot.listeners, [row("a", position, &ranges), row("b", 3, &[])]);
    }
    rig.commit(vec![
        acknowledge(40, 50),
        acknowledge(60, 60),
        Op::DropListener { name: "a".into() },
    ]);
    rig.store.close();
    let (rig, snapshot) = Rig::open(&path);
    let b = ListenerRow { name: "b".into(), position: Cursor(3), acknowledged: vec![] };
    assert_eq!(snapshot.listeners, [b]);
    let unknown = Op::Acknowledge { name: "c".into(), first: Cursor(1), last: Cursor(1) };
    assert!(rig.fail(vec![unknown]).contains("\"c\""));
}
