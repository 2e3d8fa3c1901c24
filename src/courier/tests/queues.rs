//! Queues that are longer than what is kept in memory, and recipients that stay away.

use super::*;
use crate::model::limits::MESSAGE_LIFETIME_MAX;

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
    let end = End::new(1);
    let expires = end.now.wall + Span::from_secs(60);
    starting_with(end, messages, expires)
}

/// The same, of which the first expires then.
fn starting_with(mut end: End, messages: u64, expires: Timestamp) -> End {
    let waiting = vec![Waiting { recipient: DEAD, messages, expires }];
    let stored = Stored { waiting, ..Stored::default() };
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

/// After how many hours a message for somebody whom nobody finds is given up. It was queued before
/// the start by a clock that was so far ahead, which is set right before the start or after it.
fn hours_until_given_up(ahead: Span, right_at_start: bool) -> u64 {
    let mut end = End::new(1);
    end.now.wall = end.now.wall + ahead;
    let message = row(&end, 1, MESSAGE_LIFETIME_MAX);
    let set_right = |end: &mut End| end.now.wall = end.now.wall - ahead;
    if right_at_start {
        set_right(&mut end);
    }
    let mut end = starting_with(end, 1, message.expires);
    end.handle(Input::NotFound(DEAD));
    if !right_at_start {
        set_right(&mut end);
    }
    for hours in 0..60 * 24 {
        if !end.given_up().is_empty() {
            return hours;
        }
        end.wait(Span::from_secs(3_600));
        while let Some(after) = take_load(&mut end) {
            let messages = if after == Row(0) { vec![message.clone()] } else { Vec::new() };
            end.handle(Input::Loaded { recipient: DEAD, messages });
        }
        end.handle(Input::NotFound(DEAD));
    }
    panic!("it waits for ever");
}

#[test]
fn what_a_clock_that_was_ahead_queued_waits_on_disk_for_a_week_and_no_longer() {
    let month = Span::from_secs(30 * 86_400);
    for (ahead, right_at_start) in [(Span::ZERO, true), (month, true), (month, false)] {
        let hours = hours_until_given_up(ahead, right_at_start);
        assert!((7 * 24..=7 * 24 + 1).contains(&hours), "{hours} hours, {right_at_start}");
    }
}

#[test]
fn messages_for_many_that_are_not_found_yet_do_not_all_stay_in_memory() {
    const PEERS: u8 = 100;
    for bytes in [60 * 1024, 1024 * 1024, 4 * 1024 * 1024] {
        // They share one body, so that it can be counted who has it.
        let body: Arc<[u8]> = vec![7; bytes].into();
        let in_memory = || bytes * (Arc::strong_count(&body) - 1);
        let mut end = End::new(1);
        let day = Span::from_secs(86_400);
        let peer = |number: u64| PeerId::from_bytes([u8::try_from(number).expect("few"); 32]);
        for number in 1..=u64::from(PEERS) {
            let message = |n: u64| Outgoing {
                recipient: peer(number),
                body: Bytes::from_owner(Arc::clone(&body)),
                ..row(&end, 100 * number + n, day)
            };
            let messages = (0..80.min(4 * 1024 * 1024 / bytes as u64)).map(message).collect();
            end.handle(Input::Queued(messages));
        }
        // What all may have, the last of it, and little for each.
        let most = (64 + 4) * 1024 * 1024 + usize::from(PEERS) * 64 * 1024;
        assert!(in_memory() <= most, "{} MiB by {bytes}", in_memory() / 1024 / 1024);
        assert!(in_memory() >= 60 * 1024 * 1024, "as much as may be: {}", in_memory());
        // What is on disk only is read once there is a way.
        let last = peer(u64::from(PEERS));
        let mut record = End::new(9).record();
        record.record.peer = last;
        end.located(&record);
        let is_load = |output: &Output| match output {
            Output::Load { recipient, .. } => *recipient == last,
            _ => false,
        };
        let sent = end.sent().iter().filter(|sent| sent.header.destination == last).count();
        assert!(sent > 0 || end.out.iter().any(is_load), "{bytes}");
    }
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

#[test]
fn a_true_notice_that_is_repeated_does_not_hold_a_message_on_one_way() {
    let (mut alice, _, envelope) = sealed(b"hello");
    // Whoever is on the way has the recipient's word that it was full, swallows everything that
    // comes after and says that word again.
    let commitment = envelope.header.commitment;
    let (mut attempts, mut elsewhere_or_flooded) = (0, 0);
    alice.handle(Input::Notice { commitment, kind: NoticeKind::Full });
    for _ in 0..600 {
        alice.wait(Span::from_secs(1));
        for output in std::mem::take(&mut alice.out) {
            match output {
                Output::Send { elsewhere, .. } => {
                    attempts += 1;
                    elsewhere_or_flooded += u32::from(elsewhere);
                    alice.handle(Input::Notice { commitment, kind: NoticeKind::Full });
                }
                Output::Flood(_) => {
                    attempts += 1;
                    elsewhere_or_flooded += 1;
                }
                _ => {}
            }
        }
    }
    assert!(elsewhere_or_flooded > 3, "{elsewhere_or_flooded} of {attempts}");
}

#[test]
fn a_recipient_that_is_full_gets_no_new_session_each_time() {
    let limits = Limits { inbox_bytes_max: 10, ..Limits::default() };
    let (mut alice, mut bob) = (End::new(1), End::with_limits(2, limits));
    alice.queue(bob.peer(), &[0; 50_000]);
    alice.located(&bob.record());
    let mut sessions = std::collections::BTreeSet::new();
    let mut attempts = 0;
    for _ in 0..3_000 {
        for envelope in alice.sent() {
            attempts += 1;
            sessions.insert(envelope.header.session);
            receive(&mut bob, &envelope);
            assert_eq!(bob.notices(), [NoticeKind::Full]);
            bob.out.clear();
            let commitment = envelope.header.commitment;
            alice.handle(Input::Notice { commitment, kind: NoticeKind::Full });
        }
        alice.wait(Span::from_secs(1));
        bob.wait(Span::from_secs(1));
    }
    assert!((10..40).contains(&attempts), "{attempts} attempts in 50 minutes");
    assert_eq!(sessions.len(), 1);
}

/// Lets time pass with nobody to be found: how often somebody was looked for, each second.
fn searches_in_vain(end: &mut End, seconds: usize) -> Vec<Vec<PeerId>> {
    let mut searches = Vec::new();
    for _ in 0..seconds {
        end.wait(Span::from_secs(1));
        let asked = end.out.drain(..).filter_map(|output| match output {
            Output::Locate { peer, .. } => Some(peer),
            _ => None,
        });
        let asked: Vec<_> = asked.collect();
        for peer in &asked {
            end.handle(Input::NotFound(*peer));
        }
        searches.push(asked);
    }
    searches
}

#[test]
fn searches_for_those_who_are_gone_are_one_a_second_in_all() {
    let mut alice = End::new(1);
    let peer = |number: u16| {
        let [high, low] = number.to_be_bytes();
        PeerId::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { high } else { low }))
    };
    (0..600).for_each(|number| alice.queue(peer(number), b"x"));
    // Each is looked for at once when there is something for it; then they share.
    searches_in_vain(&mut alice, 300);
    let count: usize = searches_in_vain(&mut alice, 600).iter().map(Vec::len).sum();
    assert!((550..=610).contains(&count), "{count} searches in ten minutes");
    // A link comes up, again and again: that makes it no more.
    let mut count = 0;
    for _ in 0..60 {
        alice.handle(Input::Nudge { peer: None });
        count += searches_in_vain(&mut alice, 5).iter().map(Vec::len).sum::<usize>();
    }
    assert!((250..=320).contains(&count), "{count} searches in five minutes");
    // One of them is back: it does not wait for the others.
    alice.handle(Input::Nudge { peer: Some(peer(77)) });
    let searches = searches_in_vain(&mut alice, 3).concat();
    assert!(searches.contains(&peer(77)), "{searches:?}");
}

#[test]
fn what_was_receipted_of_a_large_message_is_not_sent_again_after_an_outage() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    let body = vec![7; 4 * CHUNK_BYTES];
    alice.queue(bob.peer(), &body);
    alice.located(&bob.record());
    let sent = alice.sent();
    for envelope in &sent[..3] {
        receive(&mut bob, envelope);
        alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    }
    // The way is lost with the last one, and nobody knows another for two minutes.
    let (commitment, reason) = (sent[3].header.commitment, RejectReason::NoRoute);
    alice.handle(Input::Rejected { commitment, attempt: 1, reason });
    alice.handle(Input::NotFound(bob.peer()));
    alice.wait(Span::from_secs(120));
    alice.located(&bob.record());
    assert_eq!(take_load(&mut alice), Some(Row(0)), "nothing is in memory");
    let recipient = bob.peer();
    let message = Outgoing { recipient, body: body.into(), ..row(&alice, 1, alice.lifetime) };
    let message = Outgoing { incarnation: Incarnation(7), ..message };
    alice.handle(Input::Loaded { recipient, messages: vec![message] });
    let again = alice.sent();
    assert_eq!(again.len(), 1, "one chunk was missing");
    receive(&mut bob, &again[0]);
    alice.handle(Input::Receipt { commitment: again[0].header.commitment });
    assert_eq!(alice.delivered(), [Row(1)]);
    assert!(bob.rows.iter().any(|change| matches!(change, Change::Assemble { .. })));
}

/// The bytes that a sender asks its disk for within ninety minutes of its start, if none of 256
/// recipients is found, and if they all are.
fn asked_for(expires: Span, are_found: bool) -> usize {
    let mut end = End::new(1);
    let expires = end.now.wall + expires;
    let peers = (0..=255_u8).map(|number| PeerId::from_bytes([number; 32]));
    let waiting = peers.map(|recipient| Waiting { recipient, messages: 4, expires });
    let stored = Stored { waiting: waiting.collect(), ..Stored::default() };
    let random = Random::from_seed([1; 32]);
    let identity = Arc::clone(&end.identity);
    end.courier = Courier::new(identity, &end.limits, stored, end.now, random);
    end.collect();
    let mut record = End::new(9).record();
    let mut asked = 0;
    for _ in 0..90 {
        for output in std::mem::take(&mut end.out) {
            match output {
                Output::Load { bytes_max, .. } => asked += bytes_max,
                Output::Locate { peer, .. } if are_found => {
                    record.record.peer = peer;
                    end.handle(Input::Located(record.clone()));
                }
                Output::Locate { peer, .. } => end.handle(Input::NotFound(peer)),
                _ => {}
            }
        }
        end.wait(Span::from_secs(60));
    }
    asked
}

#[test]
fn a_start_does_not_load_all_that_waits() {
    let (hour, day) = (Span::from_secs(3_600), Span::from_secs(86_400));
    assert_eq!(asked_for(day, false), 0, "it is not sent, and has not expired");
    let most = 64 << 20;
    let expired = asked_for(hour.divided(2), false);
    assert!((1..=most + (16 << 20)).contains(&expired), "{} MiB", expired >> 20);
    let found = asked_for(day, true);
    assert!((most / 2..=most + (16 << 20)).contains(&found), "{} MiB", found >> 20);
}

#[test]
fn limits_that_shrink_let_what_was_begun_be_finished_and_take_nothing_more() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    alice.queue(bob.peer(), &vec![7; 4 * CHUNK_BYTES]);
    alice.located(&bob.record());
    let sent = alice.sent();
    let (before, after) = sent.split_at(2);
    before.iter().for_each(|envelope| receive(&mut bob, envelope));
    let limits = Limits { message_bytes_max: 100, inbox_bytes_max: 1, ..Limits::default() };
    bob.courier.adopt_limits(&limits);
    after.iter().for_each(|envelope| receive(&mut bob, envelope));
    assert!(bob.rows.iter().any(|change| matches!(change, Change::Assemble { .. })));
    for envelope in &sent {
        alice.handle(Input::Receipt { commitment: envelope.header.commitment });
    }
    assert_eq!(alice.delivered(), [Row(1)]);
    let mut notices = |body: &[u8]| {
        alice.queue(bob.peer(), body);
        bob.out.clear();
        alice.sent().iter().for_each(|envelope| receive(&mut bob, envelope));
        let kinds = bob.out.iter().filter_map(|output| match output {
            Output::Notify { kind, .. } => Some(*kind),
            _ => None,
        });
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(notices(b"small"), [NoticeKind::Full]);
}

#[test]
fn a_message_larger_than_a_limit_that_shrank_is_refused_as_too_large() {
    let (mut alice, mut bob) = (End::new(1), End::new(2));
    let limits = Limits { message_bytes_max: 100, ..Limits::default() };
    bob.courier.adopt_limits(&limits);
    alice.queue(bob.peer(), &[0; 200]);
    let talked = talk(&mut alice, &mut bob, 2);
    assert_eq!(talked.given_up, [1]);
    bob.courier.adopt_limits(&Limits::default());
    alice.queue(bob.peer(), &[0; 200]);
    assert_eq!(talk(&mut alice, &mut bob, 2).delivered, [2], "and taken when it has grown again");
}
