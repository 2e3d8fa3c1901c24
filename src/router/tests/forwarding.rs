//! Envelopes on learned routes, and what comes back for them.

use super::net::Net;
use crate::crypto::commitment_of;
use crate::model::limits::{PING_INTERVAL, SEALED_BYTES_MAX};
use crate::model::{Limits, Span};
use crate::router::flights::FLIGHTS_PER_COMMITMENT_MAX;
use crate::router::{Action, Input, Output};
use crate::wire::{Envelope, Frame, Header, NoticeKind, RejectReason};

const SECOND: Span = Span::from_secs(1);

fn is_envelope(_: usize, _: usize, frame: &Frame) -> bool {
    matches!(frame, Frame::Envelope(_))
}

fn rejects(net: &Net, reason: RejectReason) -> usize {
    net.count(|_, _, frame| matches!(frame, Frame::Reject { reason: r, .. } if *r == reason))
}

/// A network in which a node knows its ways to another.
fn found(mut net: Net, from: usize, to: usize) -> Net {
    net.locate(from, to, true);
    net.run(SECOND);
    assert_eq!(net.located(from, to), 1);
    net.forget();
    net
}

#[test]
fn an_envelope_crosses_a_line_and_its_receipt_comes_back() {
    let mut net = found(Net::line(4), 0, 3);
    net.input(1, Input::Observe(true));
    let envelope = net.envelope(0, 3, 1, 60_000);
    net.send_envelope(0, &envelope);
    net.run(SECOND);
    assert_eq!(net.delivered(3), [(1, 1)]);
    assert_eq!(net.receipts(0, &envelope), 1);
    assert_eq!(net.outputs[0][0], Output::Departed { commitment: envelope.header.commitment });
    assert_eq!(net.count(is_envelope), 3);
    for (from, via) in [(0, 1), (1, 2), (2, 3)] {
        let ways = net.ways(from, 3);
        assert_eq!((ways[0].0, ways[0].1.receipts), (via, 1), "{from} credits {via}");
        assert!(ways[0].1.score > 0.5);
        assert_eq!(net.routers[from].flights.size().1, 0, "bytes are let go");
    }
    let Some(Output::Traffic(traffic)) = net.outputs[1].first() else { panic!("no traffic") };
    assert_eq!((traffic.action, traffic.bytes), (Action::Forwarded, envelope.encoded.len()));
    assert_eq!((traffic.previous, &traffic.next), (Some(net.ids[0]), &vec![net.ids[2]]));
}

#[test]
fn without_a_way_an_envelope_is_rejected_at_once() {
    let mut net = Net::line(2);
    let envelope = net.envelope(0, 1, 1, 10);
    let stranger = Envelope::new(
        crate::wire::Header { destination: super::net::identity(77).peer(), ..envelope.header },
        1,
        &[0],
    );
    net.send_envelope(0, &stranger);
    let (commitment, reason) = (stranger.header.commitment, RejectReason::NoRoute);
    assert_eq!(net.outputs[0], [Output::Rejected { commitment, attempt: 1, reason }]);
    assert_eq!(net.routers[0].flights.size(), (0, 0));
}

#[test]
fn in_a_ring_the_other_way_is_taken_after_a_reject() {
    let mut net = found(Net::ring(5), 0, 2);
    net.unlink(1, 2);
    net.input(1, Input::Forget(net.ids[2]));
    let envelope = net.envelope(0, 2, 1, 1_000);
    net.send_envelope(0, &envelope);
    net.run(SECOND);
    assert_eq!(rejects(&net, RejectReason::NoRoute), 1);
    assert_eq!(net.delivered(2), [(1, 1)], "the same attempt, by another way");
    assert_eq!(net.receipts(0, &envelope), 1);
    let ways = net.ways(0, 2);
    assert_eq!(ways.iter().map(|(via, _)| *via).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn what_is_on_a_link_that_goes_down_is_tried_elsewhere() {
    let mut net = found(Net::ring(5), 0, 2);
    let envelope = net.envelope(0, 2, 1, 1_000);
    net.send_envelope(0, &envelope);
    net.run(Span::from_micros(1_500));
    assert_eq!(net.count(|from, to, f| (from, to) == (1, 2) && is_envelope(1, 2, f)), 1);
    net.unlink(1, 2);
    net.run(SECOND);
    assert_eq!(net.delivered(2), [(1, 1)]);
    assert_eq!(net.receipts(0, &envelope), 1);
}

#[test]
fn when_every_next_hop_rejects_the_source_is_told_the_last_reason() {
    let mut net = found(Net::line(4), 0, 3);
    net.unlink(2, 3);
    let envelope = net.envelope(0, 3, 1, 10);
    net.send_envelope(0, &envelope);
    net.run(SECOND);
    assert_eq!(rejects(&net, RejectReason::NoRoute), 2, "2 to 1, 1 to 0");
    let (commitment, reason) = (envelope.header.commitment, RejectReason::NoRoute);
    let rejected = Output::Rejected { commitment, attempt: 1, reason };
    assert!(net.outputs[0].contains(&rejected));
}

#[test]
fn an_attempt_that_comes_again_is_a_loop_but_its_receipt_is_not_lost() {
    let mut net = found(Net::linked(4, [(0, 1), (3, 1), (1, 2)]), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    net.inject(3, 1, &Frame::Envelope(envelope.clone()));
    net.run(SECOND);
    assert_eq!(net.count(is_envelope), 1, "passed on once");
    let to_3 = net.count(|_, to, frame| to == 3 && matches!(frame, Frame::Reject { .. }));
    assert_eq!((to_3, rejects(&net, RejectReason::Loop)), (1, 1));
    let preimage = net.preimage(&envelope);
    net.input(2, Input::Reveal { preimage });
    net.run(SECOND);
    for node in [0, 3] {
        assert_eq!(
            net.count(|_, to, frame| to == node && *frame == Frame::Receipt { preimage }),
            1
        );
    }
    // Another attempt of what was receipted needs not be passed on.
    net.inject(3, 1, &Frame::Envelope(envelope.with_attempt(2)));
    assert_eq!(net.count(is_envelope), 1);
    assert_eq!(net.count(|_, to, frame| to == 3 && *frame == Frame::Receipt { preimage }), 2);
}

#[test]
fn a_forged_copy_does_not_make_the_true_attempt_a_loop() {
    let mut net = found(Net::linked(4, [(0, 1), (3, 1), (1, 2)]), 0, 2);
    let envelope = net.envelope(0, 2, 1, 10);
    let forged = Envelope::new(envelope.header, 1, &[6; 10]);
    net.reveals = false;
    net.inject(3, 1, &Frame::Envelope(forged));
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    net.run(SECOND);
    assert_eq!(net.delivered(2).len(), 2, "the courier will know which is true");
    net.input(2, Input::Reveal { preimage: net.preimage(&envelope) });
    net.run(SECOND);
    assert_eq!(net.count(|_, to, frame| to == 0 && matches!(frame, Frame::Receipt { .. })), 1);
}

#[test]
fn many_forged_copies_do_not_make_a_relay_forget_the_true_one() {
    let mut net = found(Net::linked(4, [(0, 1), (3, 1), (1, 2)]), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    for n in 0..50 {
        net.inject(3, 1, &Frame::Envelope(Envelope::new(envelope.header, 1, &[n; 10])));
    }
    // As many as may be of one neighbour, and the true one.
    let flights = net.routers[1].flights.size().0;
    assert_eq!(flights, FLIGHTS_PER_COMMITMENT_MAX + 1);
    net.run(SECOND);
    net.input(2, Input::Reveal { preimage: net.preimage(&envelope) });
    net.run(SECOND);
    assert_eq!(net.count(|_, to, frame| to == 0 && matches!(frame, Frame::Receipt { .. })), 1);
}

#[test]
fn an_attempt_that_was_let_go_for_altered_copies_does_not_pass_again() {
    let mut net = found(Net::linked(4, [(0, 1), (3, 1), (1, 2)]), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.inject(3, 1, &Frame::Envelope(envelope.clone()));
    for n in 0..50 {
        net.inject(3, 1, &Frame::Envelope(Envelope::new(envelope.header, 1, &[n; 10])));
    }
    let passed = |net: &Net| {
        let true_one = Frame::Envelope(envelope.clone());
        net.count(|from, to, frame| (from, to) == (1, 2) && *frame == true_one)
    };
    assert_eq!(passed(&net), 1);
    let rejects = |net: &Net| {
        net.count(|from, to, frame| (from, to) == (1, 3) && matches!(frame, Frame::Reject { .. }))
    };
    let before = rejects(&net);
    net.inject(3, 1, &Frame::Envelope(envelope.clone()));
    assert_eq!(passed(&net), 1, "an attempt crosses a link once");
    assert_eq!(rejects(&net), before + 1, "whoever brings it again hears that at once");
}

/// A network in which node 1 knows two ways from 0 to 4: by 2 and by 3.
fn two_ways() -> Net {
    found(Net::linked(5, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)]), 1, 4)
}

/// To whom node 1 sent envelopes, in order.
fn sent_by_1(net: &Net) -> impl Iterator<Item = usize> {
    let sent = net.frames.iter().filter(|(from, to, f)| *from == 1 && is_envelope(1, *to, f));
    sent.map(|(_, to, _)| *to)
}

/// Has every next hop that node 1 sent an envelope to reject it, until it sends no more; how many
/// it sent in all.
fn reject_all(net: &mut Net, envelope: &Envelope) -> usize {
    let mut rejected = 0;
    loop {
        let Some(to) = sent_by_1(net).nth(rejected) else { return rejected };
        rejected += 1;
        let (key, reason) = (envelope.key(), RejectReason::NoRoute);
        net.inject(to, 1, &Frame::Reject { key, reason });
    }
}

#[test]
fn altered_copies_of_an_attempt_take_of_its_next_hops() {
    let links = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5)];
    let mut net = found(Net::linked(6, links), 1, 5);
    net.loss = Box::new(|_, to, frame| to == 5 && is_envelope(0, 0, frame));
    let envelope = net.envelope(0, 5, 1, 10);
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    assert_eq!(reject_all(&mut net, &envelope), 3, "the only copy has all ways");
    net.forget();
    // Many, so that the first are let go for the last.
    for n in 0..50 {
        net.inject(0, 1, &Frame::Envelope(Envelope::new(envelope.header, 1, &[n; 11])));
    }
    assert_eq!(net.routers[1].flights.size().1, 0, "what may go nowhere else is not held");
    let sent = reject_all(&mut net, &envelope);
    assert_eq!(sent, 50, "each had its first, and that was one too many for another");
    let back = net.count(|_, to, f| to == 0 && matches!(f, Frame::Reject { .. }));
    let loops = rejects(&net, RejectReason::Loop);
    assert_eq!(
        (back, loops),
        (16, 16),
        "of those still known; there may be a way for the true one"
    );
    net.forget();
    let later = envelope.with_attempt(2);
    net.inject(0, 1, &Frame::Envelope(later.clone()));
    assert_eq!(reject_all(&mut net, &later), 3, "another attempt has its own");
}

#[test]
fn an_envelope_that_is_given_up_goes_back_once_to_each_that_brought_it() {
    let mut net = found(Net::linked(4, [(0, 1), (3, 1), (1, 2)]), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    net.inject(3, 1, &Frame::Envelope(envelope.clone()));
    let told = |net: &Net| {
        let to = |node| net.count(|_, to, f| to == node && matches!(f, Frame::Reject { .. }));
        (to(0), to(3))
    };
    assert_eq!(told(&net), (0, 1), "whoever comes second hears that at once");
    net.inject(3, 1, &Frame::Envelope(envelope.clone()));
    assert_eq!(told(&net), (0, 2), "and again, if it lost it meanwhile");
    let (key, reason) = (envelope.key(), RejectReason::NoRoute);
    net.inject(2, 1, &Frame::Reject { key, reason });
    assert_eq!(told(&net), (1, 2));
}

#[test]
fn copies_by_others_take_nothing_of_our_own_attempt() {
    let mut net = two_ways();
    net.loss = Box::new(|_, to, frame| to == 4 && is_envelope(0, 0, frame));
    let envelope = net.envelope(1, 4, 1, 10);
    for n in 0..5 {
        let header = Header { source: net.ids[0], ..envelope.header };
        net.inject(0, 1, &Frame::Envelope(Envelope::new(header, 1, &[n; 10])));
    }
    net.forget();
    net.send_envelope(1, &envelope);
    assert_eq!(reject_all(&mut net, &envelope), 2, "both ways");
}

#[test]
fn an_attempt_crosses_no_link_twice_within_a_minute_whenever_it_crossed_first() {
    let mut net = two_ways();
    net.loss = Box::new(|_, to, frame| to == 4 && is_envelope(0, 0, frame));
    let envelope = net.envelope(0, 4, 1, 10);
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    net.run(SECOND.times(4));
    assert_eq!(reject_all(&mut net, &envelope), 2, "both ways, the second after seconds");
    net.run(SECOND.times(58));
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    assert_eq!(reject_all(&mut net, &envelope), 2, "no more than before");
    net.run(SECOND.times(10));
    net.forget();
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    assert!(reject_all(&mut net, &envelope) > 0, "it is forgotten");
}

#[test]
fn an_altered_copy_does_not_make_the_best_way_the_last() {
    let mut net = two_ways();
    net.reveals = false;
    let best = net.ways(1, 4)[0].0;
    let sent = |net: &Net| sent_by_1(net).collect::<Vec<_>>();
    let envelope = net.envelope(0, 4, 1, 10);
    net.inject(0, 1, &Frame::Envelope(Envelope::new(envelope.header, 1, &[1; 11])));
    net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    assert_eq!(sent(&net), [best, best]);
    net.inject(0, 1, &Frame::Envelope(envelope.with_attempt(2)));
    assert_eq!(sent(&net), [best, best, 5 - best], "another attempt, another way");
}

#[test]
fn the_same_attempt_is_delivered_once_and_receipted_every_way_it_came() {
    let mut net = found(Net::ring(4), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.inject(1, 2, &Frame::Envelope(envelope.clone()));
    net.inject(3, 2, &Frame::Envelope(envelope.clone()));
    net.inject(1, 2, &Frame::Envelope(envelope.with_attempt(2)));
    assert_eq!(net.delivered(2), [(1, 1), (1, 2)]);
    let preimage = net.preimage(&envelope);
    net.input(2, Input::Reveal { preimage });
    let receipts = |net: &Net, to| {
        net.count(|from, t, frame| (from, t) == (2, to) && matches!(frame, Frame::Receipt { .. }))
    };
    assert_eq!((receipts(&net, 1), receipts(&net, 3)), (1, 1));
    net.inject(3, 2, &Frame::Envelope(envelope.with_attempt(3)));
    assert_eq!(net.delivered(2).len(), 2);
    assert_eq!(receipts(&net, 3), 2, "late copies are answered at once");
}

#[test]
fn a_grey_relay_is_demoted_by_misses() {
    let mut net = found(Net::linked(4, [(0, 1), (1, 3), (0, 2), (2, 3)]), 0, 3);
    net.loss = Box::new(|from, _, frame| from == 1 && is_envelope(0, 0, frame));
    let first = net.envelope(0, 3, 1, 10);
    net.send_envelope(0, &first);
    let grey_first = net.count(|_, to, frame| to == 1 && is_envelope(0, 0, frame)) == 1;
    net.run(Span::from_secs(6));
    for counter in 2..6 {
        let envelope = net.envelope(0, 3, counter, 10);
        net.send_envelope(0, &envelope);
        net.run(Span::from_secs(6));
        assert_eq!(net.receipts(0, &envelope), 1, "{counter}");
    }
    assert!(grey_first, "with equal scores the order is that of IDs; the test relies on it");
    assert_eq!(net.ways(0, 3).iter().map(|(via, _)| *via).collect::<Vec<_>>(), [2, 1]);
    assert!(net.ways(0, 3)[1].1.score < 0.5);
}

#[test]
fn elsewhere_takes_another_way_and_the_silent_one_is_judged_though_all_is_settled() {
    let mut net = found(Net::linked(4, [(0, 1), (1, 3), (0, 2), (2, 3)]), 0, 3);
    net.loss = Box::new(|from, _, frame| from == 1 && is_envelope(0, 0, frame));
    let envelope = net.envelope(0, 3, 1, 10);
    net.send_envelope(0, &envelope);
    net.run(SECOND);
    assert_eq!(net.receipts(0, &envelope), 0);
    let again = envelope.with_attempt(2);
    net.input(0, Input::Send { envelope: again, elsewhere: true });
    net.run(SECOND);
    assert_eq!(net.delivered(3), [(1, 2)]);
    assert_eq!(net.receipts(0, &envelope), 1);
    net.input(0, Input::Settled { commitment: envelope.header.commitment });
    net.run(Span::from_secs(5));
    let ways = net.ways(0, 3);
    assert!(ways[0].0 == 2 && ways[0].1.score > 0.5);
    assert!(ways[1].0 == 1 && ways[1].1.score < 0.5, "1 missed");
    net.run(Span::from_secs(60));
    assert_eq!(net.routers[0].flights.size(), (0, 0));
}

#[test]
fn a_neighbour_that_fell_silent_is_asked_last_until_it_is_heard() {
    let mut net = Net::linked(3, [(0, 1), (1, 2), (0, 2)]);
    net.run(SECOND);
    let direct =
        |net: &Net| net.count(|from, to, frame| is_envelope(0, 0, frame) && (from, to) == (0, 2));
    net.loss = Box::new(|from, to, _| (from, to) == (0, 2) || (from, to) == (2, 0));
    let [first, second, third] = [1, 2, 3].map(|counter| net.envelope(0, 2, counter, 10));
    net.send_envelope(0, &first);
    net.run(SECOND);
    net.input(0, Input::Send { envelope: first.with_attempt(2), elsewhere: true });
    net.locate(0, 2, true);
    net.run(SECOND);
    net.input(0, Input::Send { envelope: first.with_attempt(3), elsewhere: true });
    net.run(SECOND);
    assert_eq!((net.receipts(0, &first), direct(&net)), (1, 2), "found anew, it goes around");
    net.send_envelope(0, &second);
    net.run(SECOND);
    assert_eq!((net.receipts(0, &second), direct(&net)), (1, 2), "around at once");
    assert_eq!(net.ways(0, 2).iter().map(|(via, _)| *via).collect::<Vec<_>>(), [1, 2]);
    net.loss = Box::new(|_, _, _| false);
    net.run(PING_INTERVAL + SECOND);
    net.send_envelope(0, &third);
    net.run(SECOND);
    assert_eq!((net.receipts(0, &third), direct(&net)), (1, 3), "it is heard again");
}

#[test]
fn elsewhere_with_one_way_takes_it() {
    let mut net = found(Net::line(3), 0, 2);
    let envelope = net.envelope(0, 2, 1, 10);
    net.reveals = false;
    net.send_envelope(0, &envelope);
    net.input(0, Input::Send { envelope: envelope.with_attempt(2), elsewhere: true });
    net.run(SECOND);
    assert_eq!(net.delivered(2), [(1, 1), (1, 2)]);
}

#[test]
fn a_forged_receipt_is_ignored_and_only_who_was_asked_is_credited() {
    let mut net = found(Net::linked(4, [(0, 1), (0, 2), (1, 3), (2, 3)]), 0, 3);
    net.reveals = false;
    let envelope = net.envelope(0, 3, 1, 10);
    net.send_envelope(0, &envelope);
    let asked = net.frames.iter().find(|(_, _, f)| is_envelope(0, 0, f)).expect("sent").1;
    let other = 3 - asked;
    net.inject(asked, 0, &Frame::Receipt { preimage: [66; 32] });
    assert_eq!(net.receipts(0, &envelope), 0);
    let preimage = net.preimage(&envelope);
    net.inject(other, 0, &Frame::Receipt { preimage });
    assert_eq!(net.receipts(0, &envelope), 1, "it proves itself");
    assert!(net.ways(0, 3).iter().all(|(_, hop)| hop.receipts == 0), "but earns no credit");
    net.inject(asked, 0, &Frame::Receipt { preimage });
    assert_eq!(net.receipts(0, &envelope), 1, "told once");
    let credited: Vec<_> = net.ways(0, 3).iter().map(|(via, hop)| (*via, hop.receipts)).collect();
    assert_eq!(credited, [(asked, 1), (other, 0)]);
    net.inject(asked, 0, &Frame::Receipt { preimage });
    assert_eq!(net.ways(0, 3)[0].1.receipts, 1, "and credited once");
    assert_ne!(commitment_of(&[66; 32]), envelope.header.commitment);
}

#[test]
fn a_reject_counts_only_from_the_hop_that_has_the_envelope() {
    let mut net = found(Net::linked(4, [(0, 1), (0, 2), (1, 3), (2, 3)]), 0, 3);
    let envelope = net.envelope(0, 3, 1, 10);
    net.send_envelope(0, &envelope);
    let asked = net.frames.iter().find(|(_, _, f)| is_envelope(0, 0, f)).expect("sent").1;
    let (key, reason) = (envelope.key(), RejectReason::NoRoute);
    net.inject(3 - asked, 0, &Frame::Reject { key, reason });
    assert_eq!(net.count(is_envelope), 1);
    net.inject(asked, 0, &Frame::Reject { key, reason });
    assert_eq!(net.count(is_envelope), 2);
}

#[test]
fn a_notice_comes_back_verified_and_a_forged_one_does_not() {
    let mut net = found(Net::line(3), 0, 2);
    net.reveals = false;
    let envelope = net.envelope(0, 2, 1, 10);
    net.send_envelope(0, &envelope);
    net.run(SECOND);
    let header = envelope.header;
    let (commitment, kind) = (header.commitment, NoticeKind::Full);
    let forged = crate::wire::Notice { kind: NoticeKind::Reset, commitment, signature: [1; 64] };
    net.inject(1, 0, &Frame::Notice(forged));
    net.input(2, Input::Notify { kind, header });
    net.run(SECOND);
    let notices: Vec<_> =
        net.outputs[0].iter().filter(|o| matches!(o, Output::Notice { .. })).collect();
    assert_eq!(notices, [&Output::Notice { commitment, kind }]);
    for _ in 0..5 {
        net.input(2, Input::Notify { kind, header });
    }
    net.run(SECOND);
    let passed = net.count(|from, to, f| (from, to) == (1, 0) && matches!(f, Frame::Notice(_)));
    assert_eq!(passed, 2, "a relay passes few");
}

#[test]
fn a_slow_neighbour_loses_envelopes_but_hears_of_what_became_of_others() {
    let limits = Limits { link_queue_bytes_max: 200_000, ..Limits::default() };
    let mut net = Net::with_limits(3, &limits);
    net.link(0, 1);
    net.link(1, 2);
    net.run(SECOND);
    net.locate(0, 2, false);
    net.run(SECOND);
    net.forget();
    // Nothing is written for a while: frames pile up on 1's way to 2.
    let sent: Vec<Envelope> = (0..6).map(|n| net.envelope(0, 2, n, SEALED_BYTES_MAX)).collect();
    for envelope in &sent {
        net.inject(0, 1, &Frame::Envelope(envelope.clone()));
    }
    assert_eq!(net.count(|from, to, f| (from, to) == (1, 2) && is_envelope(1, 2, f)), 3);
    assert_eq!(rejects(&net, RejectReason::Congested), 3);
    assert!(net.routers[1].neighbour(&net.ids[2]).expect("up").queued_bytes <= 200_000);
    net.inject(2, 1, &Frame::Ping { nonce: 5 });
    assert_eq!(net.count(|_, to, f| to == 2 && *f == Frame::Pong { nonce: 5 }), 1);
    net.run(SECOND);
    assert_eq!(net.routers[1].neighbour(&net.ids[2]).expect("up").queued_bytes, 0);
}

#[test]
fn held_envelopes_are_bounded_in_bytes() {
    let limits = Limits {
        relay_bytes_max: 500_000,
        link_queue_bytes_max: usize::MAX / 2,
        ..Limits::default()
    };
    let mut net = Net::with_limits(3, &limits);
    net.link(0, 1);
    net.link(1, 2);
    net.reveals = false;
    net.run(SECOND);
    for n in 0..100 {
        let envelope = net.envelope(0, 2, n, 50_000);
        net.inject(0, 1, &Frame::Envelope(envelope));
    }
    let (flights, bytes) = net.routers[1].flights.size();
    assert!(flights == 100 && bytes <= 500_000 && bytes > 400_000, "{flights} {bytes}");
    net.run(Span::from_secs(6));
    assert_eq!(net.routers[1].flights.size(), (100, 0), "patience is over");
    net.run(Span::from_secs(60));
    assert_eq!(net.routers[1].flights.size(), (0, 0));
}
