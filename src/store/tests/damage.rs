//! Disks that return something else.

use std::fs;

use rusqlite::Connection;

use super::*;
use crate::store::op::{IncomingChunk, PeerRow, PrekeyRow, SessionRow, WindowRow};

const PAGE: usize = 4_096;

/// A database with something in every table, closed.
fn filled(path: &Path) {
    let (rig, _) = Rig::open(path);
    let secret = zeroize::Zeroizing::new([9; 32]);
    let created = time(1);
    let (sender, base, received) = (peer(1), Sequence(1), Bytes::from_static(&[1]));
    let mut ops: Vec<_> = (1..=40)
        .flat_map(|n| [queue(&outgoing(n, 1, 300)), deliver(&incoming(n, 1, 300))])
        .collect();
    ops.extend([
        queue(&Outgoing { key: Some("key".into()), ..outgoing(41, 2, 10_000) }),
        Op::Hold(Box::new(incoming(50, 3, 100))),
        Op::Chunk(Box::new(IncomingChunk {
            key: key(1, 60),
            index: 0,
            total: 10,
            sent: created,
            expires: created,
            subject: None,
            bytes: Bytes::from_static(b"12345"),
        })),
        Op::Window(Box::new(WindowRow {
            sender,
            incarnation: Incarnation(1),
            base,
            received,
            given_up: base,
            touched: created,
        })),
        Op::Session(Box::new(SessionRow {
            sender,
            session: crate::model::SessionId(1),
            secret: secret.clone(),
            created,
        })),
        Op::Prekey(Box::new(PrekeyRow { id: crate::model::PrekeyId(1), secret, created })),
        Op::Peer(Box::new(PeerRow {
            peer: peer(2),
            record: None,
            alias: Some("bob".parse().expect("a name")),
            dial: None,
        })),
        Op::Listener { name: "l".into(), position: Cursor(3) },
        Op::Acknowledge { name: "l".into(), first: Cursor(5), last: Cursor(6) },
        Op::GiveUp(Box::new(given_up(40))),
    ]);
    rig.commit(ops);
    rig.store.close();
}

/// Opens it and reads and changes all there is. Says what was noticed.
fn noticed(path: &Path) -> Option<String> {
    let (rig, _) = match Rig::open_with(path, &Options::default()) {
        Ok(opened) => opened,
        Err(error) => return Some(error.to_string()),
    };
    let outbox_of = |recipient| Question::OutboxOf {
        recipient: peer(recipient),
        after: Row(0),
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    let questions =
        [outbox_of(1), outbox_of(2), whole_inbox(), about_key("key", None, Bytes::new())];
    for question in questions {
        if let Err(reason) = rig.try_ask(question) {
            return Some(reason);
        }
    }
    rig.submit(vec![vec![
        Op::Unqueue { rows: (1..=41).map(Row).collect() },
        Op::Release { key: key(3, 50), cursor: Cursor(50) },
        Op::DropChunks(key(1, 60)),
        Op::PruneKeys { expired_before: time(u64::MAX) },
        Op::Prune { through: Cursor(u64::MAX), received_before: time(u64::MAX), bytes_max: 0 },
    ]]);
    match rig.hear(1).pop() {
        Some(Completion::Failed { reason }) => Some(reason),
        _ => None,
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let (_directory, path) = place();
    filled(&path);
    let whole = fs::read(&path).expect("readable");
    assert_eq!(noticed(&path), None, "the test itself is sound");
    for length in [whole.len() - 1, whole.len() / 2, PAGE, 600, 90] {
        fs::write(&path, &whole[..length]).expect("writable");
        let noticed = noticed(&path).expect("it is noticed");
        assert!(noticed.contains("backup"), "{length}: {noticed}");
    }
}

#[test]
fn a_page_overwritten_is_noticed() {
    let (_directory, path) = place();
    filled(&path);
    let whole = fs::read(&path).expect("readable");
    for page in 0..whole.len() / PAGE {
        // The file's own header is on the first page.
        let start = page * PAGE + if page == 0 { 100 } else { 0 };
        let mut bytes = whole.clone();
        bytes[start..start + 12].fill(0xa5);
        fs::write(&path, bytes).expect("writable");
        let Some(noticed) = noticed(&path) else { panic!("page {} is not missed", page + 1) };
        assert!(!noticed.contains('\n'), "one line for the operator: {noticed}");
    }
}

#[test]
fn a_bit_that_flips_never_panics() {
    let (_directory, path) = place();
    filled(&path);
    let whole = fs::read(&path).expect("readable");
    let mut seen = 0;
    // Steps that share no factor with the page size visit all parts of pages.
    for (round, at) in (0..whole.len()).step_by(whole.len() / 61).enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        fs::write(&path, bytes).expect("writable");
        seen += usize::from(noticed(&path).is_some());
    }
    // Much of a file is empty space, which nothing has sums over.
    println!("{seen} of 62 flips were noticed");
}

#[test]
fn a_damaged_row_is_named() {
    for (sql, names) in [
        ("UPDATE outbox SET recipient = x'00' WHERE row = 7", ["outbox", "row 7"]),
        ("UPDATE outbox SET id = x'00' WHERE row = 7", ["outbox", "row 7"]),
        ("UPDATE inbox SET sender = x'00' WHERE cursor = 7", ["inbox", "row 7"]),
        ("UPDATE held SET sender = x'00'", ["held", "row 1"]),
        ("UPDATE partials SET sender = x'abcd'", ["partials", "row abcd"]),
        ("UPDATE chunks SET sender = x'abcd'", ["chunks", "row abcd"]),
        ("UPDATE chunks SET number = 70000", ["chunks", "number"]),
        ("UPDATE partials SET total = -1", ["partials", "total"]),
        ("UPDATE partials SET total = 4611686018427387904", ["partials", "total"]),
        ("UPDATE partials SET total = total + 1", ["partials", "not what was written"]),
        ("UPDATE last_places SET cursor = -1", ["last_places", "cursor"]),
        ("UPDATE last_places SET row = -9223372036854775807", ["last_places", "row"]),
        ("UPDATE outbox SET row = 9223372036854775807 WHERE row = 7", ["outbox", "row"]),
        ("UPDATE inbox SET cursor = -7 WHERE cursor = 7", ["inbox", "cursor"]),
        ("UPDATE held SET sequence = -1", ["held", "sequence"]),
        ("UPDATE windows SET base = -1", ["windows", "base"]),
        ("UPDATE windows SET given_up = -1", ["windows", "given_up"]),
        ("UPDATE listeners SET position = -1", ["listeners", "position"]),
        ("UPDATE given_up SET row = -1", ["given_up", "row"]),
        ("UPDATE windows SET sender = x'abcd'", ["windows", "row abcd"]),
        ("UPDATE sessions SET sender = x'abcd'", ["sessions", "row abcd"]),
        ("UPDATE secrets SET bytes = x'00'", ["prekeys", "bytes is not 32 bytes"]),
        ("DELETE FROM secrets", ["prekeys", "bytes is not bytes"]),
        ("UPDATE prekeys SET id = -1", ["prekeys", "row -1"]),
        ("UPDATE peers SET alias = 'a b'", ["peers", "alias"]),
        ("UPDATE peers SET dial = 'nowhere'", ["peers", "dial"]),
        ("UPDATE acknowledged SET last = 0", ["acknowledged", "row \"l\""]),
        ("UPDATE acknowledged SET name = 'k'", ["acknowledged", "row \"k\""]),
        ("UPDATE given_up SET recipient = x'00'", ["given_up", "row 1"]),
        ("UPDATE given_up SET why = 9", ["given_up", "reason 9"]),
        ("DELETE FROM last_places", ["last_places", "missing"]),
        ("UPDATE owner SET peer = x'00'", ["owner", "peer is not 32 bytes"]),
    ] {
        let (_directory, path) = place();
        filled(&path);
        let file = Connection::open(&path).expect("sqlite opens");
        file.execute_batch(sql).expect("sqlite writes");
        drop(file);
        let noticed = noticed(&path).expect("it is noticed");
        for name in names.iter().chain(&["backup"]) {
            assert!(noticed.contains(name), "{sql}: {noticed}");
        }
    }
}
