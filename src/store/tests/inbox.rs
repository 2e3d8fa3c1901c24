//! Searching the inbox and shortening it.

use super::*;
use crate::model::limits::stored_bytes;
use crate::store::apply::{PRUNE_KEYS_MAX, PRUNE_MESSAGES_MAX};
use crate::store::ask::INBOX_SEARCH_MAX;
use crate::store::op::{Pruned, WindowRow};

/// Cursors found, and how far the search got.
fn search(rig: &Rig, what: Question) -> (Vec<u64>, u64) {
    match rig.ask(what) {
        Answer::Inbox { messages, through } => {
            (messages.iter().map(|m| m.message.cursor.0).collect(), through.0)
        }
        other => panic!("{other:?}"),
    }
}

/// Prunes and says how many messages went.
fn prune(rig: &Rig, through: u64, received_before: u64, bytes_max: u64) -> Pruned {
    let (through, received_before) = (Cursor(through), time(received_before));
    match rig.commit(vec![Op::Prune { through, received_before, bytes_max }]) {
        Completion::Committed { pruned, .. } => pruned,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_search_says_how_far_it_got() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    // Sender 1 has the odd places, sender 2 the even ones; each has 100 bytes, received at
    // 1000 + place.
    let messages = (1..=20).map(|place| incoming(place, if place % 2 == 1 { 1 } else { 2 }, 100));
    rig.commit(messages.map(|message| deliver(&message)).collect());
    let ask = |after, through, from: Option<u8>, since: Option<u64>, messages_max, bytes_max| {
        let (after, through, body_bytes_max) = (Cursor(after), Cursor(through), usize::MAX);
        let (from, since) = (from.map(peer), since.map(time));
        let what = Question::Inbox {
            after,
            through,
            from,
            since,
            messages_max,
            bytes_max,
            body_bytes_max,
        };
        search(&rig, what)
    };
    let all = usize::MAX;
    assert_eq!(ask(0, 5, None, None, all, all), (vec![1, 2, 3, 4, 5], 5));
    assert_eq!(ask(17, u64::MAX, None, None, all, all), (vec![18, 19, 20], 20));
    assert_eq!(ask(0, u64::MAX, Some(2), None, 3, all), (vec![2, 4, 6], 6));
    assert_eq!(ask(0, 7, Some(2), None, all, all), (vec![2, 4, 6], 7));
    assert_eq!(ask(0, 19, Some(3), None, all, all), (vec![], 19));
    assert_eq!(ask(0, 20, None, Some(1_019), all, all), (vec![19, 20], 20));
    assert_eq!(ask(0, 20, Some(1), Some(1_018), all, all), (vec![19], 20));
    assert_eq!(ask(0, 20, None, None, all, 350), (vec![1, 2, 3], 3));
    assert_eq!(ask(4, 20, None, None, all, 0), (vec![5], 5));
    assert_eq!(ask(4, 20, None, None, 0, all), (vec![], 4));
    assert_eq!(ask(20, u64::MAX, None, None, all, all), (vec![], 20));
    assert_eq!(ask(30, u64::MAX, None, None, all, all), (vec![], 30));
    assert_eq!(ask(8, 3, None, None, all, all), (vec![], 8));
}

#[test]
fn long_bodies_are_left_out() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let messages = [incoming(1, 1, 101), incoming(2, 1, 100), incoming(3, 1, 0)];
    rig.commit(messages.iter().map(deliver).collect());
    let Question::Inbox { after, through, from, since, messages_max, .. } = whole_inbox() else {
        unreachable!("just made")
    };
    let (bytes_max, body_bytes_max) = (100, 100);
    let what =
        Question::Inbox { after, through, from, since, messages_max, bytes_max, body_bytes_max };
    let Answer::Inbox { messages: found, .. } = rig.ask(what) else { panic!("another answer") };
    let seen: Vec<_> = found.iter().map(|m| (m.bytes, m.whole, m.message.body.len())).collect();
    assert_eq!(seen, [(101, false, 0), (100, true, 100), (0, true, 0)]);
    assert_eq!(found[0].message, Incoming { body: Bytes::new(), ..messages[0].clone() });
}

#[test]
fn one_question_looks_at_so_many_messages_and_one_prune_removes_so_many() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let count = 2 * INBOX_SEARCH_MAX + 100;
    let messages = (1..=count).map(|place| incoming(place, if place == count { 2 } else { 1 }, 1));
    rig.commit(messages.map(|message| deliver(&message)).collect());
    let mut reached = vec![0];
    let found = loop {
        let after = Cursor(*reached.last().expect("one"));
        let Question::Inbox { through, since, messages_max, bytes_max, body_bytes_max, .. } =
            whole_inbox()
        else {
            unreachable!("just made")
        };
        let from = Some(peer(2));
        let what = Question::Inbox {
            after,
            through,
            from,
            since,
            messages_max,
            bytes_max,
            body_bytes_max,
        };
        let (found, through) = search(&rig, what);
        reached.push(through);
        if !found.is_empty() {
            break found;
        }
    };
    assert_eq!(reached, [0, INBOX_SEARCH_MAX, 2 * INBOX_SEARCH_MAX, count]);
    assert_eq!(found, [count]);

    let max = u64::from(PRUNE_MESSAGES_MAX);
    let removed = [(); 4].map(|()| prune(&rig, count, u64::MAX, 0).messages);
    assert_eq!(removed, [max, max, count - 2 * max, 0]);
}

#[test]
fn one_prune_forgets_so_many_keys_those_that_expired_first() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let max = u64::from(PRUNE_KEYS_MAX);
    let count = 2 * max + 100;
    let keyed = |row: u64| Outgoing { key: Some(row.to_string().into()), ..outgoing(row, 1, 0) };
    rig.commit((1..=count).map(|row| queue(&keyed(row))).collect());
    rig.commit(vec![Op::Unqueue { rows: (1..=count).map(Row).collect() }]);
    let is_known = |row: u64| {
        let key = row.to_string().into();
        let (subject, body) = (None, Bytes::new());
        matches!(rig.ask(Question::Key { key, subject, body }), Answer::Key(Some(_)))
    };
    let prune = || {
        // The messages expire at 9000 and so on: the last one stays.
        let expired_before = time(9_000 + count);
        match rig.commit(vec![Op::PruneKeys { expired_before }]) {
            Completion::Committed { pruned, .. } => pruned.keys,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(prune(), max);
    assert!(!is_known(max) && is_known(max + 1));
    assert_eq!([prune(), prune(), prune()], [max, 99, 0]);
    assert!(!is_known(count - 1) && is_known(count));
}

#[test]
fn the_oldest_messages_go_by_age_and_by_size() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let held = Incoming { cursor: Cursor(0), ..incoming(77, 1, 500) };
    rig.commit((1..=10).map(|place| deliver(&incoming(place, 1, 100))).collect());
    rig.commit(vec![Op::Hold(Box::new(held.clone()))]);
    let gone = |messages| Pruned { messages, bytes: messages * stored_bytes(100), keys: 0 };
    // By age alone: received at 1001 and so on.
    assert_eq!(prune(&rig, 10, 1_001, u64::MAX), gone(0));
    assert_eq!(prune(&rig, 10, 1_003, u64::MAX), gone(2));
    // Not what somebody has not acknowledged.
    assert_eq!(prune(&rig, 3, 9_999, 0), gone(1));
    // By size: seven are left, and the one that is held.
    let left = 7 * stored_bytes(100) + stored_bytes(500);
    assert_eq!(prune(&rig, 10, 0, left), gone(0));
    assert_eq!(prune(&rig, 10, 0, left - stored_bytes(100) - 1), gone(2));
    let places = inbox_of(&rig).iter().map(|m| m.cursor.0).collect::<Vec<_>>();
    assert_eq!(places, [6, 7, 8, 9, 10]);
    assert_eq!(prune(&rig, u64::MAX, u64::MAX, 0), gone(5));
    rig.store.close();
    let (rig, snapshot) = Rig::open(&path);
    assert_eq!((snapshot.inbox_messages, snapshot.inbox_bytes), (0, stored_bytes(500)));
    assert_eq!(snapshot.last_cursor, Cursor(10));
    // A search knows where the inbox ends even when it is empty.
    assert_eq!(search(&rig, whole_inbox()), (vec![], 10));
}

#[test]
fn a_window_stays_while_messages_of_its_run_are_in_the_inbox() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let message = incoming(1, 1, 10);
    let window = |sender| {
        let ReceivedKey { sender, incarnation, .. } = key(sender, 1);
        let (received, touched) = (Bytes::new(), time(1));
        Op::Window(Box::new(WindowRow {
            sender,
            incarnation,
            base: Sequence(2),
            received,
            given_up: Sequence(1),
            touched,
        }))
    };
    let drop_window = |sender| {
        let ReceivedKey { sender, incarnation, .. } = key(sender, 1);
        Op::DropWindow { sender, incarnation }
    };
    let kept = |completion| match completion {
        Completion::Committed { kept_windows, .. } => kept_windows,
        other => panic!("{other:?}"),
    };
    rig.commit(vec![deliver(&message), window(1), window(2)]);
    let left = kept(rig.commit(vec![drop_window(1), drop_window(2)]));
    assert_eq!(left, [(message.key.sender, message.key.incarnation)]);
    rig.store.close();
    let (rig, snapshot) = Rig::open(&path);
    assert_eq!(snapshot.windows.len(), 1);
    prune(&rig, 1, u64::MAX, 0);
    assert_eq!(kept(rig.commit(vec![drop_window(1)])), []);
    rig.store.close();
    assert_eq!(Rig::open(&path).1.windows, []);
}
