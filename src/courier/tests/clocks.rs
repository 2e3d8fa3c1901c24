//! Time that passes, and clocks that are wrong.

use super::*;
use crate::model::limits::MESSAGE_LIFETIME_MAX;

const DAY: Span = Span::from_secs(86_400);
/// How often what is too old is looked for.
const TICK: Span = Span::from_secs(600);

/// The messages that went to the inbox at once, in order.
fn delivered_keys(end: &End) -> Vec<ReceivedKey> {
    let key = |change: &Change| match change {
        Change::Deliver(message) => Some(message.key),
        _ => None,
    };
    end.rows.iter().filter_map(key).collect()
}

/// By which messages seem to have expired, but prekeys do not.
const AHEAD: Span = Span::from_secs(7 * 86_400 + 3_600);

/// Sets an end's clock so far ahead, lets it be for a while, and sets it right again.
fn ahead(end: &mut End, by: Span, ticks: u64) {
    end.now.wall = end.now.wall + by;
    for _ in 0..ticks {
        end.wait(TICK);
        end.settle();
    }
    end.now.wall = end.now.wall - by;
}

/// The second of two messages arrives; the recipient's clock is ahead for a while; the first one
/// arrives. Whether that is receipted, and whether it is stored.
fn first_after_second(ticks: u64) -> (bool, bool) {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.lifetime = MESSAGE_LIFETIME_MAX;
    alice.queue(bob.peer(), b"first");
    alice.located(&bob.record());
    alice.queue(bob.peer(), b"second");
    let sent = alice.sent();
    receive(&mut bob, &sent[1]);
    ahead(&mut bob, AHEAD, ticks);
    bob.out.clear();
    receive(&mut bob, &sent[0].with_attempt(2));
    (!bob.reveals().is_empty(), !delivered_keys(&bob).is_empty())
}

#[test]
fn a_clock_that_is_ahead_for_a_while_closes_no_gap() {
    assert_eq!(first_after_second(3), (true, true));
}

#[test]
fn a_gap_that_was_closed_by_a_wrong_clock_is_not_receipted() {
    assert_eq!(first_after_second(20), (false, false));
}

/// A message of three chunks; after the first the recipient's clock is ahead for a while. What of
/// it is delivered, and whether it is whole.
fn chunks_around(ticks: u64) -> (Vec<Row>, bool) {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.lifetime = MESSAGE_LIFETIME_MAX;
    alice.queue(bob.peer(), &[7; 3 * CHUNK_BYTES]);
    alice.located(&bob.record());
    for (number, envelope) in alice.sent().iter().enumerate() {
        if number == 1 {
            ahead(&mut bob, AHEAD, ticks);
        }
        bob.out.clear();
        receive(&mut bob, envelope);
        for preimage in bob.reveals() {
            alice.handle(Input::Receipt { commitment: commitment_of(&preimage) });
        }
    }
    let is_whole = bob.rows.iter().any(|change| matches!(change, Change::Assemble { .. }));
    (alice.delivered(), is_whole)
}

#[test]
fn a_clock_that_is_ahead_for_a_while_drops_no_chunks() {
    assert_eq!(chunks_around(3), (vec![Row(1)], true));
}

#[test]
fn a_message_whose_chunks_were_dropped_by_a_wrong_clock_is_not_receipted() {
    assert_eq!(chunks_around(20), (vec![], false));
}

#[test]
fn a_message_in_the_inbox_does_not_come_in_again_however_late() {
    let (_, mut bob, envelope) = sealed(b"once");
    receive(&mut bob, &envelope);
    for _ in 0..30 {
        bob.wait(DAY);
        bob.settle();
    }
    let mut again = End::new(1);
    again.now = bob.now;
    again.queue(bob.peer(), b"twice");
    again.located(&bob.record());
    let envelope = again.sent().pop().expect("an envelope");
    bob.out.clear();
    receive(&mut bob, &envelope);
    assert_eq!(delivered_keys(&bob).len(), 1);
    assert_eq!(bob.reveals().len(), 1, "it is there, and that is said");
}

/// Sends what is to be sent and looks for whoever is to be found, hour by hour; whether the message
/// arrived.
fn hourly(alice: &mut End, bob: &mut End, hours: usize) -> bool {
    for _ in 0..hours {
        if alice.out.iter().any(|output| matches!(output, Output::Locate { .. })) {
            alice.located(&bob.record());
        }
        for envelope in alice.sent() {
            receive(bob, &envelope);
        }
        for end in [&mut *alice, &mut *bob] {
            end.wait(Span::from_secs(3_600));
            end.settle();
        }
    }
    !delivered_keys(bob).is_empty()
}

#[test]
fn a_message_queued_by_a_clock_that_was_ahead_arrives_once_it_is_right() {
    for is_sealed in [false, true] {
        let (mut alice, mut bob) = (End::new(1), End::new(2));
        alice.lifetime = MESSAGE_LIFETIME_MAX;
        let ahead = DAY.times(30);
        let record = bob.record();
        alice.now.wall = alice.now.wall + ahead;
        alice.queue(bob.peer(), b"from the future");
        if is_sealed {
            let mut record = record;
            record.record.prekeys[0].expires = alice.now.wall + DAY;
            alice.located(&record);
            let envelope = alice.sent().pop().expect("an envelope");
            receive(&mut bob, &envelope);
            assert!(delivered_keys(&bob).is_empty(), "it cannot have been queued yet");
        }
        alice.now.wall = alice.now.wall - ahead;
        assert!(hourly(&mut alice, &mut bob, 12), "sealed: {is_sealed}");
    }
}

#[test]
fn a_message_queued_by_a_clock_that_was_ahead_is_given_up_after_a_week() {
    let (mut alice, bob) = (End::new(1), End::new(2));
    alice.lifetime = MESSAGE_LIFETIME_MAX;
    alice.now.wall = alice.now.wall + DAY.times(30);
    alice.queue(bob.peer(), b"to nobody");
    alice.now.wall = alice.now.wall - DAY.times(30);
    for _ in 0..7 * 24 {
        assert_eq!(alice.given_up(), []);
        alice.wait(Span::from_secs(3_600));
    }
    alice.wait(Span::from_secs(3_600));
    assert_eq!(alice.given_up(), [(Row(1), WhyGivenUp::Expired)]);
}

#[test]
fn a_clock_that_is_set_forward_gives_up_nothing_that_is_young() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.lifetime = MESSAGE_LIFETIME_MAX;
    let behind = DAY.times(400);
    alice.now.wall = alice.now.wall - behind;
    alice.queue(bob.peer(), b"accepted");
    alice.now.wall = alice.now.wall + behind;
    alice.wait(Span::from_secs(3_700));
    assert_eq!(alice.given_up(), []);
    assert!(hourly(&mut alice, &mut bob, 12), "and its recipient takes it");
}

#[test]
fn windows_that_are_too_old_are_dropped_some_at_a_time_however_many_they_are() {
    let count = 10_000_u64;
    let mut bob = End::new(2);
    let window = |n: u64| WindowRow {
        sender: PeerId::from_bytes([9; 32]),
        incarnation: Incarnation(n),
        base: Sequence(2),
        received: Bytes::new(),
        given_up: Sequence::FIRST,
        touched: bob.now.wall,
    };
    let windows = (0..count).map(window).collect();
    let stored = Stored { windows, ..Stored::default() };
    let random = Random::from_seed([2; 32]);
    let identity = Arc::clone(&bob.identity);
    bob.courier = Courier::new(identity, &bob.limits, stored, bob.now, random);
    bob.now.wall = bob.now.wall + DAY.times(10);
    let mut dropped = Vec::new();
    for _ in 0..24 {
        bob.rows.clear();
        bob.wait(TICK);
        bob.settle();
        let is_drop = |change: &&Change| matches!(change, Change::DropWindow { .. });
        dropped.push(bob.rows.iter().filter(is_drop).count());
    }
    assert!(dropped.iter().all(|dropped| *dropped <= 5_000), "{dropped:?}");
    assert_eq!(dropped.iter().sum::<usize>(), count as usize, "{dropped:?}");
}
