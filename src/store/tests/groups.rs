//! Requests in order, many in one commit; and what must never be stored.

use std::sync::Mutex;

use super::*;

#[test]
fn what_waits_is_committed_together_and_reported_in_order() {
    let (_directory, path) = place();
    let (sender, completions) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (store, _) = Store::open(&path, peer(0), move |done| {
        let first = done.iter().any(|c| matches!(c, Completion::Committed { token: 0, .. }));
        let _ = sender.send(done);
        if first {
            // While the first is being reported the others gather.
            let _ = gate.lock().expect("the only lock").recv_timeout(DEADLINE);
        }
    })
    .expect("the database opens");
    let submit = |token| {
        let ops = vec![queue(&outgoing(token + 1, 1, 10))];
        store.submit(vec![Request::Transact(Transaction { token, ops })]);
    };
    submit(0);
    assert_eq!(completions.recv_timeout(DEADLINE).expect("the first").len(), 1);
    (1..=100).for_each(submit);
    release.send(()).expect("the callback waits");
    let done = completions.recv_timeout(DEADLINE).expect("the others");
    let tokens: Vec<_> = done
        .iter()
        .map(|completion| match completion {
            Completion::Committed { token, .. } => *token,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tokens, (1..=100).collect::<Vec<_>>(), "one group, in order");
}

#[test]
fn an_answer_knows_what_came_before_it_and_nothing_later() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    let transact = |token, op| Request::Transact(Transaction { token, ops: vec![op] });
    let ask = |token, what| Request::Ask(Query { token, what });
    let outbox = || Question::Outbox { after: Row(0), messages_max: 99 };
    rig.store.submit(vec![
        ask(0, outbox()),
        transact(1, queue(&outgoing(1, 1, 1))),
        ask(2, outbox()),
        ask(3, whole_inbox()),
        transact(4, deliver(&incoming(1, 1, 1))),
        transact(5, queue(&outgoing(2, 1, 1))),
        ask(6, outbox()),
        ask(7, whole_inbox()),
    ]);
    let seen: Vec<_> = rig
        .hear(8)
        .into_iter()
        .map(|completion| match completion {
            Completion::Committed { token, .. } => (token, None),
            Completion::Answered { token, answer: Answer::Outbox(heads) } => {
                (token, Some(heads.len()))
            }
            Completion::Answered { token, answer: Answer::Inbox { messages, through } } => {
                assert_eq!(through.0, messages.len() as u64);
                (token, Some(messages.len()))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let (none, some) = (None, Some);
    assert_eq!(
        seen,
        [
            (0, some(0)),
            (1, none),
            (2, some(1)),
            (3, some(0)),
            (4, none),
            (5, none),
            (6, some(2)),
            (7, some(1))
        ]
    );
}

#[test]
fn everything_submitted_is_done_before_the_store_closes() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    for row in 1..=20_000 {
        rig.submit(vec![vec![queue(&outgoing(row, 1, 10))]]);
    }
    let Rig { store, completions } = rig;
    store.close();
    assert_eq!(completions.iter().map(|group| group.len()).sum::<usize>(), 20_000);
    let (_rig, snapshot) = Rig::open(&path);
    assert_eq!(snapshot.outbox.iter().map(|o| o.messages).sum::<u64>(), 20_000);
}

#[test]
fn an_empty_transaction_is_committed() {
    let (_directory, path) = place();
    let (rig, _) = Rig::open(&path);
    rig.commit(vec![]);
    rig.commit(vec![Op::Unqueue { rows: vec![] }]);
}

#[test]
fn nothing_is_stored_twice_and_nothing_follows_a_failure() {
    let message = incoming(1, 1, 10);
    let other_place = Incoming { cursor: Cursor(2), ..message.clone() };
    let other_message = Incoming { cursor: Cursor(1), ..incoming(2, 1, 10) };
    let held = Op::Hold(Box::new(other_place.clone()));
    let complete = |cursor| Op::Assemble { key: key(5, 5), id: id(5), cursor, received: time(1) };
    for (first, second, named) in [
        (deliver(&message), deliver(&other_place), "delivered twice"),
        (deliver(&message), deliver(&other_message), "delivered twice"),
        (held.clone(), held.clone(), "held twice"),
        (deliver(&message), held, "is in the inbox at 1"),
        (deliver(&message), Op::Release { key: key(9, 9), cursor: Cursor(2) }, "but not held"),
        (deliver(&message), complete(Some(Cursor(2))), "has no chunks"),
        (queue(&outgoing(1, 1, 1)), queue(&outgoing(1, 2, 1)), "outbox.row"),
    ] {
        let (_directory, path) = place();
        let (rig, _) = Rig::open(&path);
        rig.commit(vec![first]);
        // The transaction as a whole leaves no trace.
        let reason = rig.fail(vec![queue(&outgoing(50, 9, 1)), second]);
        assert!(reason.contains(named) && reason.contains("bug"), "{reason}");
        rig.submit(vec![vec![queue(&outgoing(51, 9, 1))]]);
        assert!(rig.completions.recv_timeout(DEADLINE).is_err(), "nothing follows");
        rig.store.close();
        let (_rig, snapshot) = Rig::open(&path);
        assert!(snapshot.outbox.iter().all(|o| o.recipient != peer(9)), "{snapshot:?}");
    }
}
