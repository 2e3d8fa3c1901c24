//! Senders with an identity and a session of their own, who keep to no rule beyond.

use super::*;
use crate::courier::session::OutSession;
use crate::model::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, STORED_OVERHEAD_BYTES};
use crate::wire::{Item, PayloadWriter};

/// Somebody who seals what it likes.
struct Mallory {
    session: OutSession,
    now: Now,
}

impl Mallory {
    fn new(victim: &End) -> Self {
        Self::with_seeds(victim, 66, 66)
    }

    /// A session of its own for each second seed.
    fn with_seeds(victim: &End, identity: u8, session: u8) -> Self {
        let identity = Identity::from_seed(&[identity; 32]);
        let record = victim.record();
        let prekey = &record.record.prekeys[0];
        let mut random = Random::from_seed([session; 32]);
        let session = OutSession::open(&identity, victim.peer(), prekey, victim.now, &mut random);
        Self { session: session.expect("the prekey is good"), now: victim.now }
    }

    fn seal(&mut self, incarnation: u64, floor: u64, items: &[Item]) -> Envelope {
        let mut writer = PayloadWriter::new(Incarnation(incarnation), Sequence(floor));
        for item in items {
            assert!(writer.push(item), "{item:?} is no item");
        }
        self.session.seal(writer.finish()).expect("it seals")
    }

    fn message(&self, sequence: u64, body: &'static [u8]) -> Item {
        Item::Message {
            sequence: Sequence(sequence),
            sent: self.now.wall,
            expires: self.now.wall + Span::from_secs(60),
            subject: None,
            body: Bytes::from_static(body),
        }
    }
}

/// The last chunk of a message of two: one byte.
fn last_chunk(now: Now, sequence: u64) -> Item {
    Item::Chunk {
        sequence: Sequence(sequence),
        sent: now.wall,
        expires: now.wall + Span::from_secs(60),
        subject: None,
        total: CHUNK_BYTES as u64 + 1,
        index: 1,
        bytes: Bytes::from_static(b"x"),
    }
}

fn chunks(end: &End) -> usize {
    end.rows.iter().filter(|change| matches!(change, Change::Chunk(_))).count()
}

#[test]
fn a_sender_with_ever_new_incarnations_is_told_to_wait_and_gets_nothing_in_twice() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let item = mallory.message(1, b"hello");
    let envelopes: Vec<_> =
        (0..300).map(|run| mallory.seal(run, 1, std::slice::from_ref(&item))).collect();
    // All in one batch: what the batch itself adds counts too.
    for envelope in &envelopes {
        bob.courier.handle(bob.now, delivery(envelope.clone()));
    }
    bob.settle();
    assert_eq!(bob.bodies().len(), 256, "windows of one sender");
    assert_eq!(bob.notices(), [NoticeKind::Full; 44]);
    // No window was dropped for another one: what is there is known to be there.
    for run in 0..300 {
        let again = mallory.seal(run, 1, std::slice::from_ref(&item));
        receive(&mut bob, &again);
    }
    assert_eq!(bob.bodies().len(), 256, "nothing twice");
}

#[test]
fn a_sender_that_the_operator_knows_may_start_as_often_as_it_likes() {
    let mut bob = End::new(2);
    let mut sensor = Mallory::new(&bob);
    for start in 0..1_000 {
        let item = sensor.message(1, b"21.5 C");
        bob.handle(vouched_delivery(sensor.seal(start, 1, &[item])));
        bob.settle();
    }
    assert_eq!(bob.bodies().len(), 1_000);
    assert_eq!(bob.notices(), []);
}

#[test]
fn empty_messages_fill_the_inbox_too() {
    let room_for = 10;
    let limits = Limits { inbox_bytes_max: room_for * STORED_OVERHEAD_BYTES, ..Limits::default() };
    let mut bob = End::with_limits(2, limits);
    let mut mallory = Mallory::new(&bob);
    for sequence in 1..=20 {
        let item = mallory.message(sequence, b"");
        let envelope = mallory.seal(1, 1, &[item]);
        receive(&mut bob, &envelope);
    }
    assert_eq!(bob.bodies().len() as u64, room_for);
    assert_eq!(bob.notices(), [NoticeKind::Full; 10]);
}

#[test]
fn strangers_leave_a_quarter_of_the_inbox_to_those_the_operator_knows() {
    let messages = 100;
    let inbox_bytes_max = messages * STORED_OVERHEAD_BYTES;
    let limits = Limits { inbox_bytes_max, message_bytes_max: 4_096, ..Limits::default() };
    let mut bob = End::with_limits(2, limits);
    let mut stranger = Mallory::with_seeds(&bob, 66, 1);
    let mut friend = Mallory::with_seeds(&bob, 67, 2);
    for sequence in 1..=messages {
        let item = stranger.message(sequence, b"");
        receive(&mut bob, &stranger.seal(1, 1, &[item]));
    }
    assert_eq!(bob.bodies().len(), 75);
    for sequence in 1..=messages {
        let item = friend.message(sequence, b"");
        bob.handle(vouched_delivery(friend.seal(1, 1, &[item])));
        bob.settle();
    }
    assert_eq!(bob.bodies().len(), 100);
}

#[test]
fn what_expired_chunks_counted_for_is_given_back_and_no_more() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let whole = mallory.message(1, b"this stays");
    let envelope = mallory.seal(1, 1, &[whole]);
    receive(&mut bob, &envelope);
    let before = bob.courier.inbox_bytes();
    // The last chunk of a message, of one byte: it must not count as a whole one when it goes.
    let chunk = last_chunk(mallory.now, 2);
    let envelope = mallory.seal(1, 1, &[chunk]);
    receive(&mut bob, &envelope);
    assert_eq!(bob.courier.inbox_bytes(), before + 1 + STORED_OVERHEAD_BYTES);
    for _ in 0..2 {
        bob.wait(MESSAGE_LIFETIME_MAX);
        bob.settle();
    }
    assert_eq!(bob.courier.inbox_bytes(), before);
}

#[test]
fn numbers_beyond_the_last_are_not_read() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let last = Sequence::LAST.0;
    for floor in [last + 1, u64::MAX] {
        let envelope = mallory.seal(1, floor, &[]);
        receive(&mut bob, &envelope);
        assert_eq!(bob.reveals().len(), 0, "floor {floor}");
    }
    // The last number itself is a message like all others: once in the inbox.
    for _ in 0..2 {
        let item = mallory.message(last, b"the last one");
        let envelope = mallory.seal(1, last, &[item]);
        receive(&mut bob, &envelope);
    }
    assert_eq!(bob.bodies(), [b"the last one"]);
}

#[test]
fn nothing_is_due_while_a_batch_is_under_way() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let item = mallory.message(1, b"hello");
    let envelope = mallory.seal(1, 1, &[item]);
    bob.handle(delivery(envelope));
    assert!(bob.out.iter().any(|output| matches!(output, Output::Store(_))), "a batch");
    bob.wait(Span::from_secs(3600));
    assert!(bob.courier.deadline() > bob.now.mono, "a loop over this deadline would spin");
}

#[test]
fn a_floor_alone_is_not_remembered() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    for run in 0..1_000 {
        let envelope = mallory.seal(run, 2, &[]);
        receive(&mut bob, &envelope);
    }
    let windows = bob.rows.iter().filter(|change| matches!(change, Change::Window(_))).count();
    assert_eq!(windows, 0);
}

#[test]
fn messages_begun_and_never_finished_are_few() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    for round in 0..50 {
        for sequence in 1..=20 {
            let item = last_chunk(mallory.now, sequence);
            let envelope = mallory.seal(round, 1, &[item]);
            receive(&mut bob, &envelope);
        }
    }
    assert_eq!(chunks(&bob), 256, "of one sender");
    assert!(bob.notices().contains(&NoticeKind::Full));
}

#[test]
fn what_was_begun_below_the_floor_is_dropped() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    // The floor goes along, so that the window does not bound them.
    for sequence in 1..=1_000 {
        let item = last_chunk(mallory.now, sequence);
        let envelope = mallory.seal(1, sequence, &[item]);
        receive(&mut bob, &envelope);
    }
    assert_eq!(chunks(&bob), 1_000, "each had its time");
    assert_eq!(bob.courier.inbox_bytes(), 1 + STORED_OVERHEAD_BYTES, "the last one is left");
}

#[test]
fn openings_that_nobody_signed_do_not_keep_anybody_out() {
    let mut bob = End::new(2);
    let mut alice = Mallory::with_seeds(&bob, 1, 1);
    let item = alice.message(1, b"me");
    let genuine = alice.seal(8, 1, &[item]);
    let mut session = 0;
    let mut garbage = || {
        session += 1;
        with_header(&genuine, |header| header.session = SessionId(session))
    };
    let via = Identity::from_seed(&[98; 32]).peer();
    // Somebody names her as the source of garbage, over another link and over hers too.
    let mut flood = |bob: &mut End| {
        for _ in 0..2_000 {
            let envelope = garbage();
            let delivery = Delivery { envelope, via, via_vouched: false, vouched: false };
            bob.handle(Input::Envelope(delivery));
        }
        (0..200).for_each(|_| bob.handle(delivery(garbage())));
    };
    // In the first second it is not known yet how many links bring something.
    flood(&mut bob);
    bob.wait(Span::from_secs(1));
    flood(&mut bob);
    receive(&mut bob, &genuine);
    assert_eq!(bob.bodies(), [b"me"]);
}

#[test]
fn a_gap_stays_open_as_long_as_its_sender_may_fill_it() {
    let mut bob = End::new(2);
    let behind = Span::from_secs(300);
    let queued = bob.now.wall - behind;
    let week = |sequence: u64| Item::Message {
        sequence: Sequence(sequence),
        sent: queued,
        expires: queued + MESSAGE_LIFETIME_MAX,
        subject: None,
        body: Bytes::from_static(b"x"),
    };
    let mut alice = Mallory::with_seeds(&bob, 1, 1);
    let second = alice.seal(7, 1, &[week(2)]);
    receive(&mut bob, &second);
    // Then nobody hears of the other for a week. By the sender's clock there are minutes left.
    bob.wait(MESSAGE_LIFETIME_MAX);
    bob.settle();
    let mut alice = Mallory::with_seeds(&bob, 1, 2);
    let first = alice.seal(7, 1, &[week(1)]);
    receive(&mut bob, &first);
    let stored = |sequence: u64| {
        let is = |key: &ReceivedKey| key.sequence == Sequence(sequence);
        bob.rows.iter().any(|change| match change {
            Change::Deliver(message) | Change::Hold(message) => is(&message.key),
            _ => false,
        })
    };
    assert!(stored(2) && stored(1), "receipted, and nowhere to be found");
}

#[test]
fn a_session_that_has_to_go_while_the_disk_is_full_goes_later() {
    let mut bob = End::new(2);
    for seed in 1..=8 {
        let mut mallory = Mallory::with_seeds(&bob, 66, seed);
        let item = mallory.message(u64::from(seed), b"x");
        let envelope = mallory.seal(1, 1, &[item]);
        receive(&mut bob, &envelope);
        bob.wait(Span::from_millis(10));
    }
    let sessions: Vec<SessionId> = bob
        .rows
        .iter()
        .filter_map(|change| match change {
            Change::Session(row) => Some(row.session),
            _ => None,
        })
        .collect();
    assert_eq!(sessions.len(), 8);
    // A batch is under way when the ninth comes, for which the first goes.
    let mut last = Mallory::with_seeds(&bob, 66, 9);
    let items = [last.message(20, b"x"), last.message(21, b"x")];
    let mut other = Mallory::with_seeds(&bob, 67, 10);
    let item = other.message(1, b"x");
    bob.handle(delivery(other.seal(1, 1, &[item])));
    bob.handle(delivery(last.seal(1, 1, &items)));
    bob.out.retain(|output| !matches!(output, Output::Store(_)));
    bob.handle(Input::StoreFull);
    bob.wait(Span::from_secs(1));
    bob.settle();
    let first = sessions[0];
    let gone: Vec<_> = bob
        .rows
        .iter()
        .filter_map(|change| match change {
            Change::DropSession { session, .. } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(gone, [first], "its secret stays on disk");
}

#[test]
fn chores_that_were_refused_are_not_tried_again_at_once() {
    let (_, mut bob, envelope) = sealed(b"x");
    receive(&mut bob, &envelope);
    bob.out.clear();
    let transactions = |bob: &mut End| {
        let is_one = |output: &Output| matches!(output, Output::Store(_));
        let count = bob.out.iter().filter(|output| is_one(output)).count();
        bob.out.clear();
        count
    };
    bob.wait(Span::from_secs(3 * 86_400));
    assert_eq!(transactions(&mut bob), 1, "its session is over");
    bob.handle(Input::StoreFull);
    assert_eq!(transactions(&mut bob), 0);
    // It is due again when the courier says so.
    let pause = bob.courier.deadline().since(bob.now.mono);
    assert!((Span::from_millis(500)..Span::from_secs(5)).contains(&pause), "{pause:?}");
    bob.wait(pause);
    assert_eq!(transactions(&mut bob), 1);
    // A message does not have to wait for that, nor it for a message.
    bob.handle(Input::StoreFull);
    let mut alice = Mallory::with_seeds(&bob, 1, 2);
    let item = alice.message(1, b"me");
    bob.handle(delivery(alice.seal(9, 1, &[item])));
    bob.settle();
    assert_eq!(bob.bodies(), [b"me"]);
}

#[test]
fn messages_begun_leave_room_for_others_and_for_their_own_end() {
    let limits = Limits { inbox_bytes_max: 1_000_000, ..Limits::default() };
    let mut bob = End::with_limits(2, limits);
    let body = vec![7; 112_000];
    let chunk = |sequence: u64, index: u16| Item::Chunk {
        sequence: Sequence(sequence),
        sent: Timestamp::from_millis(START_MS),
        expires: Timestamp::from_millis(START_MS) + Span::from_secs(3_600),
        subject: None,
        total: body.len() as u64,
        index,
        bytes: Bytes::copy_from_slice(
            &body[usize::from(index) * CHUNK_BYTES..]
                [..CHUNK_BYTES.min(body.len() - usize::from(index) * CHUNK_BYTES)],
        ),
    };
    // One identity begins what it can, then others one each.
    for seed in 60..80 {
        let mut mallory = Mallory::with_seeds(&bob, seed, seed);
        for sequence in 1..=20 {
            let envelope = mallory.seal(1, 1, &[chunk(sequence, 0)]);
            receive(&mut bob, &envelope);
        }
    }
    assert!(bob.courier.inbox_bytes() < 500_000, "{}", bob.courier.inbox_bytes());
    // Who is whole is let in; and whoever began can end.
    let mut alice = Mallory::with_seeds(&bob, 1, 1);
    let whole = alice.message(1, b"me");
    let envelope = alice.seal(1, 1, &[whole]);
    receive(&mut bob, &envelope);
    assert_eq!(bob.bodies(), [b"me"]);
    let mut first = Mallory::with_seeds(&bob, 60, 61);
    let before = bob.reveals().len();
    let envelope = first.seal(1, 1, &[chunk(1, 1)]);
    receive(&mut bob, &envelope);
    assert_eq!(bob.reveals().len(), before + 1);
    assert!(bob.rows.iter().any(|change| matches!(change, Change::Assemble { .. })));
}

#[test]
fn sessions_that_come_while_the_disk_is_full_leave_nothing_behind() {
    let mut bob = End::new(2);
    for seed in 0..=u8::MAX {
        // Each pushes the oldest of the same sender out.
        let mut mallory = Mallory::with_seeds(&bob, 66, seed);
        let item = mallory.message(1, b"hello");
        let envelope = mallory.seal(u64::from(seed), 1, &[item]);
        bob.wait(Span::from_secs(1));
        bob.handle(delivery(envelope));
        bob.out.clear();
        bob.handle(Input::StoreFull);
    }
    let tables = bob.courier.occupancy(&bob.limits);
    let chores = tables.iter().find(|table| table.table == "chores").expect("it is there");
    assert_eq!(chores.used, 0, "what was never written needs no removal");
    assert!(tables.iter().all(crate::model::Occupancy::is_within), "{tables:?}");
}

#[test]
fn a_chunk_that_says_another_length_is_not_one_of_the_message() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let last = last_chunk(mallory.now, 1);
    let Item::Chunk { sequence, sent, expires, total, .. } = last.clone() else {
        panic!("{last:?} is no chunk")
    };
    let first = |total| Item::Chunk {
        sequence,
        sent,
        expires,
        subject: None,
        total,
        index: 0,
        bytes: Bytes::from(vec![b'x'; CHUNK_BYTES]),
    };
    let is_whole = |bob: &End| bob.rows.iter().any(|row| matches!(row, Change::Assemble { .. }));
    for (item, kept) in [(last, 1), (first(total + 1), 1), (first(total), 2)] {
        let envelope = mallory.seal(1, 1, &[item]);
        receive(&mut bob, &envelope);
        assert_eq!((chunks(&bob), is_whole(&bob)), (kept, kept == 2));
    }
}

#[test]
fn what_has_expired_is_taken_no_more_but_for_a_clock_that_is_a_little_off() {
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let message = mallory.message(1, b"late");
    let envelope = mallory.seal(1, 1, &[message]);
    bob.wait(Span::from_secs(60) + CLOCK_SKEW_MAX + Span::from_secs(1));
    receive(&mut bob, &envelope);
    assert_eq!((bob.bodies().len(), bob.reveals().len()), (0, 0), "it expired long ago");
    let mut bob = End::new(2);
    let mut mallory = Mallory::new(&bob);
    let message = mallory.message(1, b"just in time");
    let envelope = mallory.seal(1, 1, &[message]);
    bob.wait(Span::from_secs(59) + CLOCK_SKEW_MAX);
    receive(&mut bob, &envelope);
    assert_eq!(bob.bodies(), [b"just in time"]);
}
