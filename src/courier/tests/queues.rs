//! Queues that are longer than what is kept in memory, and recipients that stay away.

use super::*;

const DEAD: PeerId = PeerId::from_bytes([9; 32]);

fn row(end: &End, row: u64, lifetime: Span) -> Outgoing {
    Outgoing {
        row: Row(row),
        id: MessageId([0; 16]),
        recipient: DEAD,
        incarnation: Incarnation(1),
        sequence: Sequence(row),
        queued: end.now.wall,
        expires: end.now.wall + lifetime,
        subject: None,
        key: None,
        body: Bytes::from_static(b"x"),
    }
}

/// A sender with that many messages for somebody on disk.
fn with_waiting(messages: u64) -> End {
    let mut end = End::new(1);
    let stored = Stored { waiting: vec![(DEAD, messages)], ..Stored::default() };
    let random = Random::from_seed([1; 32]);
    let identity = Arc::clone(&end.identity);
    end.courier = Courier::new(identity, &end.limits, stored, end.now, random);
    end.collect();
    end
}

fn take_load(end: &mut End) -> Option<Row> {
    let at = end.out.iter().position(|output| matches!(output, Output::Load { .. }))?;
    match end.out.remove(at) {
        Output::Load { after, .. } => Some(after),
        _ => unreachable!("only this was looked for"),
    }
}

#[test]
fn what_has_expired_goes_however_much_it_is() {
    let count = 10_000;
    let mut end = with_waiting(count);
    let messages: Vec<_> = (1..=count).map(|n| row(&end, n, Span::from_secs(60))).collect();
    // Nobody finds the recipient, and time passes.
    for _ in 0..8 {
        end.handle(Input::NotFound(DEAD));
        end.wait(Span::from_secs(900));
        while let Some(after) = take_load(&mut end) {
            let gone = end.given_up().len() as u64;
            let first = after.0.max(gone) as usize;
            let page = messages[first..messages.len().min(first + 1_024)].to_vec();
            end.handle(Input::Loaded { recipient: DEAD, messages: page });
        }
    }
    assert_eq!(end.given_up().len() as u64, count);
}

#[test]
fn an_answer_from_the_disk_that_comes_late_leaves_no_gap() {
    let mut end = with_waiting(3_000);
    let day = Span::from_secs(86_400);
    let page = |end: &End, first: u64| (first..first + 1_000).map(|n| row(end, n, day)).collect();
    // Found: the first page is read, the next is asked for; then the recipient is gone.
    let mut record = End::new(9).record();
    record.record.peer = DEAD;
    end.located(&record);
    assert_eq!(take_load(&mut end), Some(Row(0)));
    let first = page(&end, 1);
    end.handle(Input::Loaded { recipient: DEAD, messages: first });
    let pending = take_load(&mut end);
    assert_eq!(pending, Some(Row(1_000)), "the next page");
    for envelope in end.sent() {
        let commitment = envelope.header.commitment;
        let reason = RejectReason::NoRoute;
        end.handle(Input::Rejected { commitment, attempt: 1, reason });
    }
    end.handle(Input::NotFound(DEAD));
    // Only now the disk answers.
    let second = page(&end, 1_001);
    end.handle(Input::Loaded { recipient: DEAD, messages: second });
    end.wait(Span::from_secs(60));
    end.located(&record);
    let mut loaded = Vec::new();
    while let Some(after) = take_load(&mut end) {
        loaded.push(after.0);
        let next = if after.0 < 3_000 { page(&end, after.0 + 1) } else { Vec::new() };
        end.handle(Input::Loaded { recipient: DEAD, messages: next });
    }
    assert_eq!(loaded.first(), Some(&0), "from the start: {loaded:?}");
    assert_eq!(end.courier.queued(&DEAD), 3_000);
}

/// What became of messages in a conversation.
#[derive(Default, Debug, PartialEq)]
struct Talked {
    floods: usize,
    delivered: Vec<u64>,
    given_up: Vec<u64>,
    arrived: usize,
}

/// Two ends, and a way between them that loses nothing, for some minutes.
fn talk(alice: &mut End, bob: &mut End, minutes: u64) -> Talked {
    let mut talked = Talked::default();
    for _ in 0..minutes {
        loop {
            alice.settle();
            bob.settle();
            let (to_bob, to_alice) = (std::mem::take(&mut alice.out), std::mem::take(&mut bob.out));
            if to_bob.is_empty() && to_alice.is_empty() {
                break;
            }
            for output in to_bob {
                match output {
                    Output::Locate { .. } => alice.handle(Input::Located(bob.record())),
                    Output::Send { envelope, .. } => bob.handle(delivery(envelope)),
                    Output::Flood(envelope) => {
                        talked.floods += 1;
                        bob.handle(delivery(envelope));
                    }
                    Output::Delivered { rows, .. } => {
                        talked.delivered.extend(rows.iter().map(|row| row.0));
                    }
                    Output::GivenUp(messages) => {
                        talked.given_up.extend(messages.iter().map(|message| message.row.0));
                    }
                    _ => {}
                }
            }
            for output in to_alice {
                match output {
                    Output::Reveal { preimage } => {
                        let commitment = commitment_of(&preimage);
                        alice.handle(Input::Receipt { commitment });
                    }
                    Output::Notify { kind, header } => {
                        let commitment = header.commitment;
                        alice.handle(Input::Notice { commitment, kind });
                    }
                    Output::Arrived(arrivals) => talked.arrived += arrivals.len(),
                    _ => {}
                }
            }
        }
        alice.wait(Span::from_secs(60));
        bob.wait(Span::from_secs(60));
    }
    talked
}

fn after_a_large_one(small: usize) -> Talked {
    let limits = Limits { message_bytes_max: 100_000, ..Limits::default() };
    let (mut alice, mut bob) = (End::new(1), End::with_limits(2, limits));
    alice.queue(bob.peer(), &vec![0; 2 * CHUNK_BYTES]);
    alice.queue(bob.peer(), &vec![0; small]);
    talk(&mut alice, &mut bob, 10)
}

#[test]
fn a_small_message_beside_the_last_chunk_of_a_too_large_one_is_not_given_up() {
    let talked = after_a_large_one(5);
    let expected = Talked { floods: 0, delivered: vec![2], given_up: vec![1], arrived: 1 };
    assert_eq!(talked, expected);
}

#[test]
fn a_message_that_is_too_large_does_not_hold_back_the_next_one() {
    let talked = after_a_large_one(5_000);
    let expected = Talked { floods: 0, delivered: vec![2], given_up: vec![1], arrived: 1 };
    assert_eq!(talked, expected);
}

#[test]
fn a_number_that_was_never_sent_leaves_no_gap() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.queue(bob.peer(), b"first");
    alice.located(&bob.record());
    // The second did not make it to a full disk: its number is gone. The third is sealed while the
    // first is still wanted.
    alice.last_row += 1;
    alice.queue(bob.peer(), b"third");
    let talked = talk(&mut alice, &mut bob, 10);
    let expected = Talked { floods: 0, delivered: vec![1, 3], given_up: vec![], arrived: 2 };
    assert_eq!(talked, expected);
}

#[test]
fn a_recipient_that_is_full_is_not_flooded() {
    let limits = Limits { inbox_bytes_max: 10, ..Limits::default() };
    let (mut alice, mut bob) = (End::new(1), End::with_limits(2, limits));
    alice.queue(bob.peer(), &[0; 50_000]);
    let talked = talk(&mut alice, &mut bob, 50);
    assert_eq!(talked, Talked::default());
    assert_eq!(alice.courier.queued(&bob.peer()), 1, "it is still tried");
}
