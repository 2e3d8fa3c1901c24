//! Envelopes for everybody, as a last resort.

use super::net::{BEGIN, Net, record_of};
use crate::crypto::Domain;
use crate::model::limits::{FLOOD_LIFETIME, SEALED_BYTES_MAX};
use crate::model::{Limits, Span};
use crate::router::{Input, Output};
use crate::wire::{Envelope, Flood, Found, Frame, NoticeKind, RejectReason};

const SECOND: Span = Span::from_secs(1);

const fn is_flood(_: usize, _: usize, frame: &Frame) -> bool {
    matches!(frame, Frame::Flood(_))
}

fn departed(net: &Net, node: usize) -> usize {
    net.outputs[node].iter().filter(|o| matches!(o, Output::Departed { .. })).count()
}

#[test]
fn a_large_envelope_is_flooded_in_fragments_and_its_receipt_floods_back() {
    let mut net = Net::ring(5);
    let envelope = net.envelope(0, 2, 1, SEALED_BYTES_MAX);
    net.input(0, Input::Flood { envelope: envelope.clone() });
    net.run(Span::from_secs(10));
    assert_eq!(net.delivered(2), [(1, 1)]);
    let Some(Output::Deliver { envelope: got, .. }) = net.outputs[2].first() else { panic!() };
    assert_eq!(got, &envelope, "put together as it was");
    assert_eq!((net.receipts(0, &envelope), departed(&net, 0)), (1, 1));
    let receipts = net.count(|_, _, frame| matches!(frame, Frame::Receipt { .. }));
    assert!(receipts <= 10, "each relay passes it once: {receipts}");
    assert_eq!(net.count(|from, to, f| (from, to) == (0, 1) && is_flood(0, 0, f)), 16);
    net.forget();
    net.input(0, Input::Flood { envelope: envelope.with_attempt(2) });
    net.run(SECOND);
    assert_eq!((net.receipts(0, &envelope), net.count(is_flood)), (1, 0), "known already");
}

#[test]
fn a_flood_arrives_though_a_liar_poisoned_the_routes() {
    // 1 claims to be next to 3, and drops whatever is to go there.
    let mut net = Net::linked(4, [(0, 1), (0, 2), (2, 3)]);
    net.loss = Box::new(|_, to, frame| to == 1 && matches!(frame, Frame::Envelope(_)));
    net.locate(0, 3, false);
    let nonce = net.frames.iter().find_map(|(_, _, frame)| match frame {
        Frame::Find(find) => Some(find.nonce),
        _ => None,
    });
    let record = record_of(&net.identities[3], BEGIN).bytes;
    let signed = Found::to_sign(false, &net.ids[0], nonce.expect("a find"), &record);
    let lie = Frame::decode(Found::encode(&signed, &[0; 64], 0)).expect("a found");
    net.inject(1, 0, &lie);
    net.loss = Box::new(|from, to, frame| {
        (to == 1 && matches!(frame, Frame::Envelope(_)))
            || (from == 2 && matches!(frame, Frame::Found(_)))
    });
    net.run(SECOND);
    assert_eq!(net.ways(0, 3).iter().map(|(via, _)| *via).collect::<Vec<_>>(), [1]);
    let envelope = net.envelope(0, 3, 1, 500);
    net.send_envelope(0, &envelope);
    net.run(Span::from_secs(6));
    assert_eq!(net.receipts(0, &envelope), 0);
    net.input(0, Input::Flood { envelope: envelope.with_attempt(2) });
    net.run(SECOND);
    assert_eq!(net.delivered(3), [(1, 2)]);
    assert_eq!(net.receipts(0, &envelope), 1);
}

#[test]
fn fragments_of_several_attempts_complete_each_other() {
    let mut net = Net::line(3);
    let lost = std::cell::Cell::new(0);
    // Of the first attempt every second fragment is lost.
    net.loss = Box::new(move |from, _, frame| {
        let Frame::Flood(flood) = frame else { return false };
        lost.set(lost.get() + 1);
        from == 0 && flood.attempt == 1 && flood.fragment % 2 == 1
    });
    let envelope = net.envelope(0, 2, 1, 20_000);
    net.input(0, Input::Flood { envelope: envelope.clone() });
    net.run(Span::from_secs(20));
    assert!(net.delivered(2).is_empty());
    net.input(0, Input::Flood { envelope: envelope.with_attempt(2) });
    net.run(Span::from_secs(20));
    assert_eq!(net.delivered(2), [(1, 2)]);
    assert_eq!(net.receipts(0, &envelope), 1);
}

#[test]
fn a_newer_attempt_goes_on_where_the_older_one_was() {
    let mut net = Net::line(2);
    let first = net.envelope(0, 1, 1, SEALED_BYTES_MAX);
    let second = net.envelope(0, 1, 2, SEALED_BYTES_MAX);
    net.reveals = false;
    net.input(0, Input::Flood { envelope: first.clone() });
    net.input(0, Input::Flood { envelope: second.clone() });
    assert_eq!(net.count(is_flood), 18, "the burst");
    net.run(Span::from_secs(3));
    net.input(0, Input::Flood { envelope: second.with_attempt(2) });
    net.run(Span::from_secs(10));
    assert_eq!(net.delivered(1), [(1, 1), (2, 2)]);
}

#[test]
fn own_floods_are_paced_bounded_and_settled() {
    let mut net = Net::line(2);
    net.reveals = false;
    for counter in 0..100 {
        let envelope = net.envelope(0, 1, counter, 10);
        net.input(0, Input::Flood { envelope });
    }
    let is_congested =
        |o: &&Output| matches!(o, Output::Rejected { reason: RejectReason::Congested, .. });
    assert_eq!(net.outputs[0].iter().filter(is_congested).count(), 100 - 18 - 64);
    net.run(Span::from_millis(10_100));
    assert_eq!(net.delivered(1).len(), 18 + 20, "two a second, and none is lost on its way");
    for counter in 0..100 {
        let commitment = net.envelope(0, 1, counter, 10).header.commitment;
        net.input(0, Input::Settled { commitment });
    }
    net.run(Span::from_secs(10));
    assert_eq!(net.delivered(1).len(), 38);
    let mut alone = Net::new(2);
    let envelope = alone.envelope(0, 1, 1, 10);
    alone.input(0, Input::Flood { envelope });
    let no_route = |o: &Output| matches!(o, Output::Rejected { reason: RejectReason::NoRoute, .. });
    assert!(alone.outputs[0].iter().any(no_route));
}

/// The fragments of a node's envelope, signed by another.
fn floods(net: &Net, envelope: &Envelope, signer: usize) -> Vec<Frame> {
    let signed = Flood::to_sign(envelope, net.now.wall + FLOOD_LIFETIME);
    let frames = signed.iter().map(|signed| {
        let signature = net.identities[signer].sign(Domain::Flood, &[signed]);
        Frame::decode(Flood::encode(signed, &signature)).expect("a flood")
    });
    frames.collect()
}

#[test]
fn a_forged_flood_goes_nowhere_and_the_true_one_is_not_suppressed() {
    let mut net = Net::linked(4, [(0, 1), (1, 2)]);
    let envelope = net.envelope(3, 2, 1, 10);
    let forged = floods(&net, &envelope, 0);
    net.inject(0, 1, &forged[0]);
    assert_eq!((net.count(is_flood), net.routers[1].seen.len()), (0, 0));
    assert!(!net.routers[1].origins.knows(&net.ids[3]));
    let genuine = floods(&net, &envelope, 3);
    net.inject(0, 1, &genuine[0]);
    net.inject(0, 1, &genuine[0]);
    assert_eq!(net.count(is_flood), 1);
    net.run(SECOND);
    assert_eq!(net.delivered(2), [(1, 1)]);
}

#[test]
fn an_origin_that_floods_too_much_is_not_passed_on_but_others_are() {
    let mut net = Net::linked(5, [(0, 1), (1, 2)]);
    for counter in 0..40 {
        let envelope = net.envelope(3, 2, counter, 10);
        let frames = floods(&net, &envelope, 3);
        net.inject(0, 1, &frames[0]);
    }
    assert_eq!(net.count(is_flood), 20, "the origin's burst");
    let envelope = net.envelope(4, 2, 1, 10);
    let frames = floods(&net, &envelope, 4);
    net.inject(0, 1, &frames[0]);
    assert_eq!(net.count(is_flood), 21);
}

#[test]
fn one_link_may_bring_so_many_floods_and_verification_is_shared() {
    let limits =
        Limits { verifications_per_second: 20, origin_floods_burst: 10_000, ..Limits::default() };
    let mut net = Net::with_limits(6, &limits);
    for node in [0, 2, 3] {
        net.link(node, 1);
    }
    net.run(SECOND);
    net.forget();
    for counter in 0..300 {
        let envelope = net.envelope(4, 5, counter, 10);
        let frames = floods(&net, &envelope, 4);
        net.inject(0, 1, &frames[0]);
    }
    let passed = |net: &Net| net.count(|_, to, frame| to == 3 && is_flood(0, 0, frame));
    assert_eq!((passed(&net), net.routers[1].verifier.waiting(&net.ids[0])), (20, 32));
    let envelope = net.envelope(5, 4, 1, 10);
    let other = floods(&net, &envelope, 5);
    net.inject(2, 1, &other[0]);
    net.run(Span::from_millis(150));
    let mut floods = net.frames.iter().filter_map(|(_, _, frame)| match frame {
        Frame::Flood(flood) => Some(flood.header),
        _ => None,
    });
    assert!(floods.any(|header| header == envelope.header), "another link does not wait for 32");
    drop(floods);
    net.run(Span::from_secs(5));
    assert_eq!(passed(&net), 20 + 32 + 1);
    assert_eq!(net.disconnects(1), 0);
}

#[test]
fn known_origins_are_verified_first() {
    let limits = Limits { verifications_per_second: 4, ..Limits::default() };
    let mut net = Net::with_limits(6, &limits);
    for node in [0, 2] {
        net.link(node, 1);
    }
    net.input(1, Input::Standing { peer: net.ids[5], known: true });
    net.run(SECOND);
    net.forget();
    for (source, count) in [(4, 12), (5, 3)] {
        for counter in 0..count {
            let envelope = net.envelope(source, 3, counter, 10);
            let frames = floods(&net, &envelope, source);
            net.inject(0, 1, &frames[0]);
        }
    }
    net.run(SECOND);
    let passed: Vec<usize> = net
        .frames
        .iter()
        .filter_map(|(_, to, frame)| match frame {
            Frame::Flood(flood) if *to == 2 => Some(net.index(&flood.header.source)),
            _ => None,
        })
        .collect();
    assert_eq!(passed, [4, 4, 4, 4, 5, 5, 5, 4]);
}

#[test]
fn a_notice_on_a_flood_comes_back() {
    let mut net = Net::line(4);
    net.reveals = false;
    let envelope = net.envelope(0, 3, 1, 10);
    net.input(0, Input::Flood { envelope: envelope.clone() });
    net.run(SECOND);
    let (header, kind) = (envelope.header, NoticeKind::Reset);
    let commitment = header.commitment;
    let forged = crate::wire::Notice { kind, commitment, signature: [3; 64] };
    net.inject(3, 2, &Frame::Notice(forged));
    assert_eq!(net.count(|_, _, frame| matches!(frame, Frame::Notice(_))), 0);
    net.input(3, Input::Notify { kind, header });
    net.run(SECOND);
    assert!(net.outputs[0].contains(&Output::Notice { commitment, kind }));
}
