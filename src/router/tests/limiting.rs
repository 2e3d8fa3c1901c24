//! What hostile neighbours can make a router remember.

use super::net::{BEGIN, Net, identity, record_of};
use crate::crypto::{Domain, commitment_of};
use crate::model::limits::{FLOOD_LIFETIME, FULL_LINK_QUEUES_MAX};
use crate::model::{Limits, PeerId, SessionId, Span};
use crate::router::flights::{FLIGHTS_MAX, FLIGHTS_OF_OTHERS_MAX};
use crate::router::{Input, Output, Router};
use crate::wire::{Digest, Envelope, EnvelopeKey, Find, Flood, Frame, Header, RejectReason};

fn minted(net: &Net, n: u64, destination: usize) -> Envelope {
    let mut source = [0xee; 32];
    source[..8].copy_from_slice(&n.to_be_bytes());
    let header = Header {
        source: PeerId::from_bytes(source),
        destination: net.ids[destination],
        session: SessionId(n),
        counter: n,
        commitment: commitment_of(&source),
    };
    Envelope::new(header, 1, &[0; 20])
}

#[test]
fn a_flood_of_envelopes_is_bounded_and_spares_what_others_have_under_way() {
    let limits = Limits { link_queue_bytes_max: usize::MAX / 2, ..Limits::default() };
    let mut net = Net::with_limits(4, &limits);
    for (a, b) in [(0, 1), (1, 2), (3, 1)] {
        net.link(a, b);
    }
    net.reveals = false;
    net.run(Span::from_secs(1));
    let honest = net.envelope(0, 2, 1, 10);
    net.inject(0, 1, &Frame::Envelope(honest.clone()));
    // Straight into the router: the network around would remember all of it.
    let count = FLIGHTS_MAX as u64 + 5_000;
    for n in 0..count {
        let destination = if n % 2 == 0 { 2 } else { 0 };
        let frame = Frame::Envelope(minted(&net, n, destination));
        let from = net.ids[3];
        net.routers[1].handle(net.now, Input::Frame { from, frame });
        while net.routers[1].poll_output().is_some() {}
    }
    let (flights, bytes) = net.routers[1].flights.size();
    assert_eq!(flights, FLIGHTS_MAX);
    assert!(bytes <= limits.relay_bytes_max);
    net.inject(2, 1, &Frame::Receipt { preimage: net.preimage(&honest) });
    assert_eq!(net.count(|_, to, f| to == 0 && matches!(f, Frame::Receipt { .. })), 1);
}

#[test]
fn limits_that_shrink_leave_what_others_count_on_and_forget_the_rest() {
    let mut net = Net::ring(4);
    let now = net.now;
    for n in 100..200 {
        let record = record_of(&identity(n), now.wall);
        net.input(0, Input::StoredRecord(record));
    }
    let known = identity(100).peer();
    net.input(0, Input::Standing { peer: known, known: true });
    net.outputs[0].clear();
    let limits = Limits {
        records_max: 16,
        seen_entries_max: 1,
        relay_bytes_max: 0,
        verifications_per_second: 1,
        ..Limits::default()
    };
    net.input(0, Input::Limits(Box::new(limits.clone())));
    let is_dropped = |output: &&Output| matches!(output, Output::Dropped { .. });
    let dropped = net.outputs[0].iter().filter(is_dropped).count();
    // Those of the three others and of who is known among them.
    assert_eq!(net.routers[0].records_len(), 16);
    assert_eq!(dropped, 103 - 16);
    for kept in [known, net.ids[1], net.ids[3]] {
        assert!(net.routers[0].record(&kept).is_some(), "{kept} was forgotten");
    }
    for table in net.routers[0].occupancy() {
        assert!(table.is_within(), "{table:?}");
    }
    // Everything still works with them.
    net.locate(1, 3, false);
    net.run(Span::from_secs(5));
    let envelope = net.envelope(1, 3, 1, 10);
    net.send_envelope(1, &envelope);
    net.run(Span::from_secs(5));
    assert_eq!(net.delivered(3).len(), 1);
}

#[test]
fn minted_origins_fill_no_table_beyond_its_bound() {
    let limits = Limits {
        seen_entries_max: 100,
        records_max: 50,
        link_floods_burst: 1_000_000,
        verifications_per_second: 1_000_000,
        ..Limits::default()
    };
    let mut net = Net::with_limits(3, &limits);
    net.link(0, 1);
    net.link(1, 2);
    net.reveals = false;
    net.run(Span::from_secs(1));
    for n in 0..1_000 {
        let origin = identity(10_000 + n);
        let record = record_of(&origin, BEGIN).bytes;
        let expires = net.now.wall + FLOOD_LIFETIME;
        let target = PeerId::from_bytes([n as u8; 32]);
        let signed = Find::to_sign(false, n, &target, expires, &record);
        let signature = origin.sign(Domain::Find, &[&signed]);
        let find = Frame::decode(Find::encode(&signed, &signature, 0)).expect("a find");
        net.inject(0, 1, &find);
        let envelope = minted(&net, n, 2);
        let header = Header { source: origin.peer(), ..envelope.header };
        let envelope = Envelope::new(header, 1, &[0; 20]);
        let signed = &Flood::to_sign(&envelope, expires)[0];
        let signature = origin.sign(Domain::Flood, &[signed]);
        net.inject(0, 1, &Frame::decode(Flood::encode(signed, &signature)).expect("a flood"));
        if n % 100 == 0 {
            net.run(Span::from_millis(100));
        }
    }
    let router = &net.routers[1];
    assert_eq!(router.seen.len(), 100);
    assert!(router.records_len() <= 52);
    assert!(router.routes.len() <= 50);
    assert!(router.finds.len().1 <= 1_000 && router.flood_log.len() <= 1_000);
    assert!(router.record(&net.ids[0]).is_some() && router.record(&net.ids[2]).is_some());
    net.run(Span::from_secs(1_900));
    let router = &net.routers[1];
    assert_eq!((router.finds.len(), router.flood_log.len()), ((0, 0), 0));
    assert_eq!(router.seen.len(), 0);
}

#[test]
fn answers_about_nothing_cost_nothing() {
    let mut net = Net::line(2);
    for n in 0..10_000_u64 {
        let key = EnvelopeKey { source: net.ids[0], session: SessionId(n), counter: n, attempt: 1 };
        let frames = [
            Frame::Receipt { preimage: [n as u8; 32] },
            Frame::Reject { key, reason: RejectReason::Loop },
            Frame::Pong { nonce: n },
            Frame::Records { records: Vec::new() },
        ];
        for frame in &frames {
            net.inject(0, 1, frame);
        }
    }
    assert_eq!(net.frames.len(), 0);
    assert_eq!(net.routers[1].flights.size(), (0, 0));
}

#[test]
fn claims_to_have_records_are_bounded_and_asking_is_too() {
    let mut net = Net::line(2);
    net.loss = Box::new(|_, _, _| true);
    for n in 0..20_u8 {
        let digests = (0..1_000_u32)
            .map(|m| {
                let mut peer = [n; 32];
                peer[..4].copy_from_slice(&m.to_be_bytes());
                Digest { peer: PeerId::from_bytes(peer), sequence: 5 }
            })
            .collect();
        net.inject(0, 1, &Frame::Digests { exchange: 0, more: false, digests });
    }
    assert_eq!(net.count(|from, _, f| from == 1 && matches!(f, Frame::RecordRequest { .. })), 1);
    net.run(Span::from_secs(31));
    assert_eq!(net.routers[1].exchange.fetching(), 0, "given up");
    net.forget();
    for n in 1..1_000 {
        net.inject(0, 1, &Frame::DigestRequest { exchange: n, after: None });
        net.inject(0, 1, &Frame::RecordRequest { peers: vec![net.ids[1]] });
    }
    let answers = |is: fn(&Frame) -> bool| net.count(|from, _, f| from == 1 && is(f));
    assert_eq!(answers(|f| matches!(f, Frame::Digests { .. })), 256);
    assert_eq!(answers(|f| matches!(f, Frame::Records { .. })), 256);
}

#[test]
fn many_searches_are_bounded() {
    let mut net = Net::line(2);
    for n in 0..2_000 {
        let peer = identity(5_000 + n).peer();
        net.input(0, Input::Locate { peer, anew: false });
    }
    assert_eq!(net.routers[0].finds.len(), (1_024, 18), "the rest was told that it is not found");
    assert_eq!(net.outputs[0].len(), 2_000 - 1_024);
    net.unlink(0, 1);
    net.run(Span::from_secs(4));
    assert_eq!(net.routers[0].finds.len().0, 0);
    assert_eq!(net.outputs[0].len(), 2_000);
}

#[test]
fn neighbours_that_do_not_read_have_bounded_bytes_waiting_and_others_get_theirs() {
    let queue = 8 * 1024;
    let limits = Limits { link_queue_bytes_max: queue, ..Limits::default() };
    let neighbours = 100;
    let mut net = Net::with_limits(neighbours + 1, &limits);
    for n in 1..=neighbours {
        net.link(0, n);
    }
    net.run(Span::from_secs(2));
    let ids = net.ids.clone();
    let router = &mut net.routers[0];
    // Each asks for all there is, again and again, and nothing is ever written.
    let mut waiting = 0;
    let mut frame_max = 0;
    let mut ask = |router: &mut Router, n: usize| {
        let mut got = 0;
        let inputs = [Frame::DigestRequest { exchange: 7, after: None }, Frame::Ping { nonce: 1 }];
        for frame in inputs {
            router.handle(net.now, Input::Frame { from: ids[n], frame });
            while let Some(output) = router.poll_output() {
                if let Output::Send { frame, .. } = output {
                    got += frame.len();
                    frame_max = frame_max.max(frame.len());
                }
            }
        }
        waiting += got;
        got
    };
    for _ in 0..100 {
        for n in 1..neighbours {
            ask(router, n);
        }
    }
    assert!(ask(router, neighbours) > 1_000, "the modest one gets its page");
    assert_eq!(router.queued, waiting, "all of it is counted");
    // Three times the bound at most: what was there, fair parts and as much for control frames.
    let most = 3 * FULL_LINK_QUEUES_MAX * queue + neighbours * frame_max;
    assert!(waiting < most, "{waiting} bytes wait, {most} is the bound");
    assert!(waiting < neighbours * queue, "{waiting} bytes wait: as if each were alone");
    // Their links go down, or they read after all: nothing is left.
    for neighbour in ids.iter().copied().skip(1) {
        router.handle(net.now, Input::Written { neighbour, bytes: 1_000 });
        router.handle(net.now, Input::LinkDown { neighbour });
    }
    assert_eq!(router.queued, 0);
}

#[test]
fn copies_under_one_commitment_are_few_however_many_neighbours_bring_them() {
    // 0 sends to 2 by way of 1, whose other neighbours have seen the commitment.
    let copiers = 3..13;
    let mut links = vec![(0, 1), (1, 2)];
    links.extend(copiers.clone().map(|n| (n, 1)));
    let mut net = Net::linked(13, links);
    net.reveals = false;
    let honest = net.envelope(0, 2, 1, 10);
    let own = net.envelope(1, 2, 1, 10);
    net.inject(0, 1, &Frame::Envelope(honest.clone()));
    net.send_envelope(1, &own);
    for copy in 0..20_u64 {
        for copier in copiers.clone() {
            for of in [&honest, &own] {
                let source = PeerId::from_bytes([copier as u8; 32]);
                let header = Header { source, ..of.header };
                let copy = Envelope::new(header, 1, &copy.to_be_bytes());
                net.inject(copier, 1, &Frame::Envelope(copy));
            }
        }
    }
    let of = |net: &Net, envelope: &Envelope| {
        net.routers[1].flights.of_commitment(&envelope.header.commitment).len()
    };
    assert_eq!(of(&net, &honest), FLIGHTS_OF_OTHERS_MAX);
    assert_eq!(of(&net, &own), FLIGHTS_OF_OTHERS_MAX + 1, "others' beside our own");
    net.inject(2, 1, &Frame::Receipt { preimage: net.preimage(&honest) });
    assert_eq!(net.count(|_, to, f| to == 0 && matches!(f, Frame::Receipt { .. })), 1);
    net.inject(2, 1, &Frame::Receipt { preimage: net.preimage(&own) });
    assert_eq!(net.receipts(1, &own), 1);
}
