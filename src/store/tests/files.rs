//! Which files are opened, how they are kept, and what is left in them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use rusqlite::Connection;
use zeroize::Zeroizing;

use super::*;
use crate::model::{PrekeyId, SessionId};
use crate::store::op::{PrekeyRow, SessionRow};

fn refused(path: &Path, options: &Options) -> OpenError {
    match Rig::open_with(path, options) {
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains("store.db"), "{text}");
            error
        }
        Ok(_) => panic!("it should not open"),
    }
}

/// The schema of today and steps after it.
fn with_steps(steps: &[&'static str]) -> Options {
    let today = Options::default().migrations;
    let migrations: Vec<_> = today.iter().chain(steps).copied().collect();
    Options { migrations: migrations.leak(), ..Options::default() }
}

#[test]
fn an_older_schema_is_brought_up_to_date_step_by_step() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit(vec![queue(&outgoing(1, 1, 100))]);
    rig.store.close();
    let newer = with_steps(&[
        "ALTER TABLE peers ADD COLUMN note TEXT;",
        "UPDATE last_places SET row = 9; CREATE TABLE more (a INTEGER) STRICT;",
    ]);
    let (rig, snapshot) = Rig::open_with(&path, &newer).expect("it is migrated");
    assert_eq!(snapshot.last_row, Row(9));
    assert_eq!(outbox_of(&rig, 1), [outgoing(1, 1, 100)]);
    rig.store.close();
    // Once is enough: the steps would fail a second time.
    let (rig, _) = Rig::open_with(&path, &newer).expect("it opens again");
    rig.store.close();
    let error = refused(&path, &Options::default());
    assert!(matches!(error, OpenError::Newer { found: 7, known: 5, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("newer distmsg") && text.contains("install that version"), "{text}");
}

/// A file as the first schema's version of distmsg made it, with a message in it.
fn of_the_first_schema(path: &Path) {
    let (rig, _) = Rig::open(path);
    rig.commit(vec![queue(&outgoing(1, 1, 100))]);
    rig.store.close();
    let file = Connection::open(path).expect("sqlite opens");
    let back = "DROP TABLE owner; DROP TABLE given_up; ALTER TABLE keys DROP COLUMN sum;
                ALTER TABLE windows DROP COLUMN given_up; PRAGMA user_version = 1;";
    file.execute_batch(back).expect("sqlite writes");
}

#[test]
fn windows_of_messages_in_the_inbox_come_back_with_the_fifth_schema() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit((1..=3).map(|place| deliver(&incoming(place, 1, 10))).collect());
    rig.store.close();
    let file = Connection::open(&path).expect("sqlite opens");
    let back = "ALTER TABLE windows DROP COLUMN given_up; PRAGMA user_version = 4;";
    file.execute_batch(back).expect("sqlite writes");
    drop(file);
    let (_rig, snapshot) = Rig::open(&path);
    let ReceivedKey { sender, incarnation, .. } = key(1, 1);
    let windows: Vec<_> =
        snapshot.windows.iter().map(|row| (row.sender, row.incarnation, row.base)).collect();
    assert_eq!(windows, [(sender, incarnation, Sequence(4))]);
}

#[test]
fn a_database_belongs_to_one_identity() {
    let (_directory, path) = place();
    let open = |own| Rig::open_as(peer(own), &path, &Options::default());
    let (rig, _) = open(1).expect("it is new");
    rig.commit(vec![queue(&outgoing(1, 1, 100))]);
    rig.store.close();
    let Err(error) = open(2) else { panic!("it belongs to somebody else") };
    let OpenError::OtherIdentity { owner, own, .. } = &error else { panic!("{error}") };
    assert_eq!((*owner, *own), (peer(1), peer(2)));
    let text = error.to_string();
    assert!(text.contains("from a backup") && text.contains("move the database away"), "{text}");
    let (rig, _) = open(1).expect("it is still the first one's");
    assert_eq!(outbox_of(&rig, 1), [outgoing(1, 1, 100)]);
}

#[test]
fn a_database_that_knows_no_owner_takes_the_identity_of_today() {
    let (_directory, path) = place();
    of_the_first_schema(&path);
    let open = |own| Rig::open_as(peer(own), &path, &Options::default());
    let (rig, _) = open(5).expect("an old one has no owner");
    assert_eq!(outbox_of(&rig, 1), [outgoing(1, 1, 100)]);
    rig.store.close();
    assert!(open(6).is_err(), "now it has");
    assert!(open(5).is_ok());
}

#[test]
fn a_step_that_fails_leaves_the_schema_before_it() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit(vec![queue(&outgoing(1, 1, 100))]);
    rig.store.close();
    let broken = with_steps(&[
        "CREATE TABLE good (a INTEGER);",
        "UPDATE outbox SET subject = 'half'; CREATE TABLE good (a INTEGER);",
    ]);
    refused(&path, &broken);
    let (rig, _) = Rig::open_with(&path, &with_steps(&["unused: the good step was taken"]))
        .expect("the good step is in force");
    assert_eq!(outbox_of(&rig, 1), [outgoing(1, 1, 100)]);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let (_directory, path) = place();
    let others = Connection::open(&path).expect("sqlite opens");
    others.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1);").expect("sqlite writes");
    drop(others);
    let before = fs::read(&path).expect("readable");
    assert!(matches!(refused(&path, &Options::default()), OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).expect("readable"), before);

    fs::write(&path, "this is a diary. ".repeat(1_000)).expect("writable");
    assert!(matches!(refused(&path, &Options::default()), OpenError::Foreign { .. }));

    fs::remove_file(&path).expect("removable");
    fs::create_dir(&path).expect("a directory in its place");
    refused(&path, &Options::default());
    let nowhere = path.join("no/such/store.db");
    assert!(matches!(refused(&nowhere, &Options::default()), OpenError::File { .. }));
}

#[test]
fn the_files_are_private_even_if_they_were_not() {
    let (directory, path) = place();
    Rig::open(&path).0.store.close();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
    let (rig, _) = Rig::open(&path);
    rig.commit(vec![queue(&outgoing(1, 1, 100))]);
    for entry in fs::read_dir(directory.path()).expect("readable") {
        let entry = entry.expect("readable");
        let mode = entry.metadata().expect("readable").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn an_empty_file_is_damage_unless_it_was_being_made() {
    let (_directory, path) = place();
    let making = path.with_extension("db-making");
    fs::write(&making, "").expect("written");
    fs::write(&path, "").expect("written");
    let (rig, _) = Rig::open(&path);
    assert!(!making.exists(), "it is made");
    rig.commit(vec![queue(&outgoing(1, 1, 10))]);
    rig.store.close();
    fs::write(&path, "").expect("written");
    let error = Rig::open_with(&path, &Options::default()).err().expect("refused").to_string();
    assert!(error.ends_with("or move it away to start empty"), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), b"", "and left as it is");
    fs::remove_file(&path).expect("moved away");
    let (_, snapshot) = Rig::open(&path);
    assert!(snapshot.outbox.is_empty());
    assert!(!making.exists());
}

#[test]
fn a_second_opener_is_told_so() {
    let (_directory, path) = place();
    let (_rig, _) = Rig::open(&path);
    assert!(matches!(refused(&path, &Options::default()), OpenError::Busy { .. }));
}

/// Copies the files as a power failure would leave them.
fn copy(path: &Path, to: &Path) {
    fs::copy(path, to).expect("copied");
    let log = |path: &Path| path.with_extension("db-wal");
    fs::copy(log(path), log(to)).expect("copied");
}

#[test]
fn what_is_committed_survives_without_a_close() {
    let (directory, path) = place();
    let (rig, _) = Rig::open(&path);
    // More than the log holds, so that it has begun anew in between.
    for row in 1..=40 {
        rig.commit(vec![queue(&outgoing(row, 1, 200_000))]);
    }
    let copied = directory.path().join("copy.db");
    copy(&path, &copied);
    let (copied, snapshot) = Rig::open(&copied);
    assert_eq!(snapshot.last_row, Row(40));
    assert!(outbox_of(&copied, 1) == outbox_of(&rig, 1), "the copies differ");
}

/// What all secrets of the test have around their numbers.
const MARK: [u8; 14] = [0x5a; 14];

fn secret(number: u32) -> Zeroizing<[u8; 32]> {
    let mut bytes = [0x5a; 32];
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    Zeroizing::new(bytes)
}

/// The numbers of the secrets that are anywhere in the database's files.
fn secrets_on_disk(path: &Path) -> BTreeSet<u32> {
    let files = [path.to_owned(), path.with_extension("db-wal")].map(fs::read);
    let mut found = BTreeSet::new();
    for bytes in files.into_iter().flatten() {
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + 32) {
            // No two secrets overlap, and none begins where the last byte cannot be in its mark.
            match window[13] == MARK[13] && window[..14] == MARK && window[18..] == MARK {
                true => {
                    found.insert(u32::from_be_bytes(window[14..18].try_into().expect("four")));
                    at += 32;
                }
                false => at += 1,
            }
        }
    }
    found
}

fn session(number: u32) -> SessionRow {
    SessionRow {
        sender: peer((number % 7) as u8),
        session: SessionId(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        secret: secret(number),
        created: time(1),
    }
}

fn prekey(id: u32, number: u32) -> PrekeyRow {
    PrekeyRow { id: PrekeyId(id), secret: secret(number), created: time(1) }
}

#[test]
fn a_secret_that_is_dropped_leaves_the_disk_and_the_others_stay() {
    let (directory, path) = place();
    let (rig, _) = Rig::open(&path);
    // In several commits, so that pages are rewritten and split; the order of keys is mixed.
    for first in (0..600).step_by(50) {
        rig.commit((first..first + 50).map(|n| Op::Session(Box::new(session(n)))).collect());
    }
    rig.commit((1_000..1_010).map(|n| Op::Prekey(Box::new(prekey(n, n)))).collect());
    let mut stay: BTreeSet<u32> = (0..600).chain(1_000..1_010).collect();
    assert_eq!(secrets_on_disk(&path), stay);

    // Nine of ten sessions are dropped; one prekey is dropped and one is replaced.
    let dropped: Vec<_> = (0..600).filter(|n| n % 10 != 3).collect();
    let sessions = dropped.iter().map(|n| session(*n));
    let mut ops: Vec<_> =
        sessions.map(|s| Op::DropSession { sender: s.sender, session: s.session }).collect();
    ops.extend([Op::DropPrekey(PrekeyId(1_005)), Op::Prekey(Box::new(prekey(1_006, 2_000)))]);
    rig.commit(ops);
    stay.retain(|n| !dropped.contains(n) && *n != 1_005 && *n != 1_006);
    stay.insert(2_000);
    let deadline = Instant::now() + DEADLINE;
    while secrets_on_disk(&path) != stay {
        assert!(Instant::now() < deadline, "dropped secrets are still there");
        std::thread::sleep(Duration::from_millis(20));
    }

    // The power fails now, and after one more commit to the log that was overwritten.
    let copied = directory.path().join("copy.db");
    let after_power_failure = || {
        copy(&path, &copied);
        let (_rig, snapshot) = Rig::open(&copied);
        let sessions = snapshot.sessions.iter().map(|s| &s.secret);
        sessions.chain(snapshot.prekeys.iter().map(|p| &p.secret)).cloned().collect::<Vec<_>>()
    };
    let all_there = |secrets: &[_]| stay.iter().all(|n| secrets.contains(&secret(*n)));
    let secrets = after_power_failure();
    assert!(all_there(&secrets) && secrets.len() == stay.len());
    rig.commit(vec![Op::Session(Box::new(session(601)))]);
    let secrets = after_power_failure();
    assert!(all_there(&secrets) && secrets.contains(&secret(601)));

    rig.store.close();
    let file = Connection::open(&path).expect("sqlite opens");
    let slots: i64 =
        file.query_row("SELECT count(*) FROM secrets", [], |row| row.get(0)).expect("counted");
    assert_eq!(slots, 610, "vacant slots are used again");
}
