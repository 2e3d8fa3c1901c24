//! Senders with an identity and a session of their own, who keep to no rule beyond.

use super::*;
use crate::courier::session::OutSession;
use crate::model::limits::{MESSAGE_LIFETIME_MAX, STORED_OVERHEAD_BYTES};
use crate::wire::{Item, PayloadWriter};

/// Somebody who seals what it likes.
struct Mallory {
    session: OutSession,
    now: Now,
}

impl Mallory {
    fn new(victim: &End) -> Self {
        let identity = Identity::from_seed(&[66; 32]);
        let record = victim.record();
        let prekey = &record.record.prekeys[0];
        let mut random = Random::from_seed([66; 32]);
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

fn notices(end: &mut End) -> Vec<NoticeKind> {
    let mut kinds = Vec::new();
    end.out.retain(|output| match output {
        Output::Notify { kind, .. } => {
            kinds.push(*kind);
            false
        }
        _ => true,
    });
    kinds
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
    assert_eq!(notices(&mut bob), [NoticeKind::Full; 44]);
    // No window was dropped for another one: what is there is known to be there.
    for run in 0..300 {
        let again = mallory.seal(run, 1, std::slice::from_ref(&item));
        receive(&mut bob, &again);
    }
    assert_eq!(bob.bodies().len(), 256, "nothing twice");
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
    assert_eq!(notices(&mut bob), [NoticeKind::Full; 10]);
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
    let chunk = Item::Chunk {
        sequence: Sequence(2),
        sent: mallory.now.wall,
        expires: mallory.now.wall + Span::from_secs(60),
        subject: None,
        total: CHUNK_BYTES as u64 + 1,
        index: 1,
        bytes: Bytes::from_static(b"x"),
    };
    let envelope = mallory.seal(1, 1, &[chunk]);
    receive(&mut bob, &envelope);
    assert_eq!(bob.courier.inbox_bytes(), before + 1 + STORED_OVERHEAD_BYTES);
    bob.wait(MESSAGE_LIFETIME_MAX);
    bob.settle();
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
