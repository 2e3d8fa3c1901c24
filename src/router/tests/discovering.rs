//! Records: how they spread, and which are refused.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::net::{BEGIN, Net, identity, record_of, signed};
use crate::model::limits::{DIGESTS_MAX, RECORDS_PER_FRAME_MAX};
use crate::model::{Limits, NetworkId, Now, PeerId, Record, SignedRecord, Span};
use crate::router::{DiscoverOutcome, Input, Output};
use crate::wire::{CloseReason, Digest, Frame};

const SECOND: Span = Span::from_secs(1);

fn learned(net: &Net, node: usize) -> Vec<(PeerId, bool, bool)> {
    let learned = net.outputs[node].iter().filter_map(|output| match output {
        Output::Learned { record, new, discovered, .. } => {
            Some((record.record.peer, *new, *discovered))
        }
        _ => None,
    });
    learned.collect()
}

fn outcomes(net: &Net, node: usize) -> Vec<DiscoverOutcome> {
    let outcomes = net.outputs[node].iter().filter_map(|output| match output {
        Output::Discovered(outcome) => Some(*outcome),
        _ => None,
    });
    outcomes.collect()
}

fn strangers(count: u64) -> Vec<SignedRecord> {
    (0..count).map(|n| record_of(&identity(1_000 + n), BEGIN)).collect()
}

#[test]
fn a_discover_merges_three_thousand_records_and_counts_them() {
    let mut net = Net::new(3);
    let strangers = strangers(3_000);
    for record in &strangers {
        net.input(0, Input::StoredRecord(record.clone()));
    }
    for record in &strangers[..10] {
        let old = Record { sequence: record.record.sequence - 5, ..record.record.clone() };
        let n = strangers.iter().position(|other| other == record).expect("it is there") as u64;
        net.input(1, Input::StoredRecord(signed(&identity(1_000 + n), old)));
    }
    net.link(0, 1);
    net.input(1, Input::Discover);
    net.input(1, Input::Discover);
    net.run(Span::from_millis(500));
    assert!(outcomes(&net, 1).is_empty(), "verification is paced");
    net.run(Span::from_secs(5));
    let outcome = DiscoverOutcome { asked: 1, answered: 1, new: 2_990, updated: 10 };
    assert_eq!(outcomes(&net, 1), [outcome], "asked twice, told once");
    assert_eq!(net.routers[1].records_len(), 3_001);
    assert!(strangers.iter().all(|r| net.routers[1].record(&r.record.peer) == Some(r)));
    assert!(learned(&net, 1).iter().filter(|(_, _, discovered)| *discovered).count() == 3_000);
    let pages = net.count(|from, _, f| {
        from == 0 && matches!(f, Frame::Digests { exchange, .. } if *exchange > 0)
    });
    assert_eq!(pages, 3_001_usize.div_ceil(DIGESTS_MAX));
    net.forget();
    net.input(1, Input::Discover);
    net.run(SECOND);
    let nothing = DiscoverOutcome { asked: 1, answered: 1, new: 0, updated: 0 };
    assert_eq!(outcomes(&net, 1), [nothing]);
    let fetched = net.count(|_, _, f| matches!(f, Frame::RecordRequest { .. }));
    assert_eq!(fetched, 0, "nothing is fetched twice");
}

#[test]
fn several_neighbours_with_the_same_table_share_the_work() {
    let mut net = Net::new(4);
    for record in &strangers(200) {
        for node in 0..3 {
            net.input(node, Input::StoredRecord(record.clone()));
        }
    }
    for node in 0..3 {
        net.link(3, node);
    }
    net.input(3, Input::Discover);
    net.run(Span::from_secs(3));
    let outcome = DiscoverOutcome { asked: 3, answered: 3, new: 200, updated: 0 };
    assert_eq!(outcomes(&net, 3), [outcome]);
    let mut records = 0;
    for (_, to, frame) in &net.frames {
        if let Frame::Records { records: some } = frame
            && *to == 3
        {
            records += some.len();
        }
    }
    assert_eq!(records, 200, "each was fetched once");
    assert_eq!(net.routers[3].exchange.fetching(), 0);
}

#[test]
fn whoever_has_what_was_stored_may_lead_to_it() {
    let mut net = Net::new(3);
    let record = &strangers(1)[0];
    for node in 0..2 {
        net.input(node, Input::StoredRecord(record.clone()));
    }
    let teller = |net: &Net| net.routers[0].directory.teller(&record.record.peer);
    net.link(0, 2);
    net.run(SECOND);
    assert_eq!(teller(&net), Some(net.ids[0]), "no neighbour had it before");
    net.unlink(0, 2);
    net.link(0, 1);
    net.run(SECOND);
    assert_eq!(teller(&net), Some(net.ids[1]));
    net.link(0, 2);
    net.run(SECOND);
    assert_eq!(teller(&net), Some(net.ids[1]), "the first, whoever says so later");
    net.unlink(0, 1);
    net.link(0, 2);
    net.input(0, Input::Discover);
    net.run(SECOND);
    assert_eq!(teller(&net), Some(net.ids[2]), "the first is gone");
}

#[test]
fn a_discover_without_links_ends_at_once_and_one_with_a_mute_neighbour_soon() {
    let mut net = Net::new(3);
    net.input(0, Input::Discover);
    assert_eq!(outcomes(&net, 0), [DiscoverOutcome::default()]);
    net.link(0, 1);
    net.link(0, 2);
    net.run(SECOND);
    net.forget();
    net.loss = Box::new(|from, _, frame| from == 2 && matches!(frame, Frame::Digests { .. }));
    net.input(0, Input::Discover);
    net.run(Span::from_millis(4_900));
    assert!(outcomes(&net, 0).is_empty());
    net.run(Span::from_millis(200));
    let outcome = DiscoverOutcome { asked: 2, answered: 1, new: 0, updated: 0 };
    assert_eq!(outcomes(&net, 0), [outcome]);
    net.forget();
    net.input(0, Input::Discover);
    net.unlink(0, 2);
    net.run(SECOND);
    assert_eq!(outcomes(&net, 0), [outcome], "a link that went down is not waited for");
}

#[test]
fn news_cross_the_network_by_themselves() {
    let mut net = Net::line(5);
    net.now.wall = BEGIN + SECOND;
    let renewed = record_of(&net.identities[0], BEGIN + Span::from_millis(1_500));
    net.input(0, Input::OwnRecord(renewed.clone()));
    net.run(SECOND);
    for node in 1..5 {
        assert_eq!(net.routers[node].record(&net.ids[0]), Some(&renewed), "{node}");
    }
    let digests = net.count(|_, _, f| matches!(f, Frame::Digests { .. }));
    assert_eq!(digests, 4, "once over each link, never back");
}

#[test]
fn tables_are_compared_when_a_link_comes_up_and_now_and_then() {
    let mut net = Net::line(3);
    assert!(net.routers[0].record(&net.ids[2]).is_some(), "merged when the links came up");
    net.loss = Box::new(|_, _, f| matches!(f, Frame::Digests { exchange: 0, .. }));
    let renewed = record_of(&net.identities[2], net.now.wall);
    net.input(2, Input::OwnRecord(renewed.clone()));
    net.run(Span::from_secs(60));
    assert_ne!(net.routers[0].record(&net.ids[2]), Some(&renewed), "the news were lost");
    net.run(Span::from_secs(1_600));
    assert_eq!(net.routers[0].record(&net.ids[2]), Some(&renewed));
}

#[test]
fn records_nobody_asked_for_are_ignored() {
    let mut net = Net::line(2);
    let records = vec![record_of(&identity(99), BEGIN).bytes];
    net.inject(0, 1, &Frame::Records { records });
    assert_eq!(net.routers[1].records_len(), 1);
}

/// Offers a record to node 1 the way its neighbour would: news, request, answer.
fn offer(net: &mut Net, peer: PeerId, record: &SignedRecord) {
    let digest = Digest { peer, sequence: record.record.sequence };
    let news = Frame::Digests { exchange: 0, more: false, digests: vec![digest] };
    net.forget();
    net.inject(0, 1, &news);
    let asked = net.count(|from, _, f| from == 1 && matches!(f, Frame::RecordRequest { .. }));
    if asked > 0 {
        net.inject(0, 1, &Frame::Records { records: vec![record.bytes.clone()] });
    }
    net.run(Span::from_millis(1));
}

/// News of some records that nobody has.
fn invented(net: &Net, peers: std::ops::Range<u64>) -> Vec<Digest> {
    let sequence = net.now.wall.as_millis();
    peers.map(|n| Digest { peer: identity(2_000 + n).peer(), sequence }).collect()
}

fn news(digests: Vec<Digest>) -> Frame {
    Frame::Digests { exchange: 0, more: false, digests }
}

#[test]
fn news_that_are_told_again_and_again_are_looked_at_once() {
    let mut net = Net::linked(3, [(0, 1), (0, 2)]);
    let digests = invented(&net, 0..RECORDS_PER_FRAME_MAX as u64);
    // One neighbour is asked for all of it, and does not answer.
    net.loss = Box::new(|_, to, frame| to == 1 && matches!(frame, Frame::RecordRequest { .. }));
    net.inject(1, 0, &news(digests.clone()));
    assert_eq!(net.routers[0].exchange.fetching(), digests.len());
    let before = net.routers[0].exchange.looked_at();
    let many: Vec<Digest> = digests.iter().cycle().take(DIGESTS_MAX).copied().collect();
    for _ in 0..4 {
        net.inject(2, 0, &news(many.clone()));
    }
    for _ in 0..1_000 {
        net.inject(2, 0, &news(Vec::new()));
    }
    let looked_at = net.routers[0].exchange.looked_at() - before;
    assert_eq!(looked_at, digests.len(), "each is looked at when it is told first");
    // They are asked for here when the other has been waited for long enough.
    net.forget();
    net.run(Span::from_secs(6));
    let asked = |from, to, frame: &Frame| match frame {
        Frame::RecordRequest { peers } => from == 0 && to == 2 && peers.len() == digests.len(),
        _ => false,
    };
    assert_eq!(net.count(asked), 1);
}

#[test]
fn a_small_frame_makes_us_look_at_few_of_the_records_that_others_are_asked_for() {
    let neighbours = 21;
    let mut net = Net::linked(neighbours + 1, (1..=neighbours).map(|n| (0, n)));
    net.loss = Box::new(|_, _, frame| matches!(frame, Frame::RecordRequest { .. }));
    let batch = RECORDS_PER_FRAME_MAX as u64;
    for n in 1..neighbours as u64 {
        let digests = invented(&net, n * batch..(n + 1) * batch);
        net.inject(n as usize, 0, &news(digests));
    }
    // The last one says that it has all of it too, at first at once and then bit by bit.
    let all = invented(&net, batch..neighbours as u64 * batch);
    let (most, rest) = all.split_at(300);
    net.inject(neighbours, 0, &news(most.to_vec()));
    let before = net.routers[0].exchange.looked_at();
    for digest in rest {
        net.inject(neighbours, 0, &news(vec![*digest]));
    }
    let looked_at = net.routers[0].exchange.looked_at() - before;
    assert!(looked_at <= rest.len() * 64, "{looked_at} looked at for {} frames", rest.len());
    // Each of them is asked for here in the end.
    net.forget();
    net.loss = Box::new(move |from, to, frame| {
        matches!(frame, Frame::RecordRequest { .. }) && (from, to) != (0, neighbours)
    });
    net.run(Span::from_secs(20));
    let mut asked = BTreeSet::new();
    for (from, to, frame) in &net.frames {
        if let (0, Frame::RecordRequest { peers }) = (*from, frame)
            && *to == neighbours
        {
            asked.extend(peers.iter().copied());
        }
    }
    assert!(all.iter().all(|digest| asked.contains(&digest.peer)), "{} asked for", asked.len());
}

#[test]
fn bad_records_are_refused() {
    let mut net = Net::line(2);
    let (victim, liar) = (identity(50), identity(51));
    let good = record_of(&victim, BEGIN);
    offer(&mut net, victim.peer(), &good);
    assert_eq!(net.routers[1].record(&victim.peer()), Some(&good));
    let newer = Record { sequence: good.record.sequence + 10, ..good.record.clone() };
    let day = Span::from_secs(24 * 3600);
    let future = (net.now.wall + Span::from_secs(660)).as_millis();
    let bad = [
        ("spoofed", signed(&liar, newer.clone())),
        ("older", {
            let sequence = good.record.sequence - 10;
            signed(&victim, Record { sequence, ..newer.clone() })
        }),
        ("expired", signed(&victim, Record { expires: net.now.wall, ..newer.clone() })),
        ("future", signed(&victim, Record { sequence: future, ..newer.clone() })),
        ("eternal", {
            signed(&victim, Record { expires: net.now.wall + day.times(15), ..newer.clone() })
        }),
        ("foreign", {
            let network = NetworkId::from_bytes([1; 16]);
            signed(&victim, Record { network, ..newer.clone() })
        }),
        ("other peer", record_of(&liar, BEGIN)),
        ("garbage", SignedRecord { bytes: Bytes::from_static(&[1; 200]), ..good.clone() }),
    ];
    for (what, record) in &bad {
        offer(&mut net, victim.peer(), record);
        assert_eq!(net.routers[1].record(&victim.peer()), Some(&good), "{what}");
        assert!(learned(&net, 1).is_empty(), "{what}");
    }
    assert_eq!(net.routers[1].record(&liar.peer()), None);
    let newer = signed(&victim, newer);
    offer(&mut net, victim.peer(), &newer);
    assert_eq!(net.routers[1].record(&victim.peer()), Some(&newer));
    assert_eq!(learned(&net, 1), [(victim.peer(), false, false)]);
}

#[test]
fn a_record_from_the_future_makes_room_for_the_true_one_when_our_clock_is_right_again() {
    let mut net = Net::line(2);
    let author = identity(50);
    let ahead = Now { wall: net.now.wall + Span::from_secs(24 * 3600), ..net.now };
    let future = record_of(&author, ahead.wall);
    net.routers[1].handle(ahead, Input::StoredRecord(future.clone()));
    assert_eq!(net.routers[1].record(&author.peer()), Some(&future));
    net.run(Span::from_secs(61));
    assert_eq!(net.routers[1].record(&author.peer()), Some(&future), "until a better one comes");
    let today = record_of(&author, net.now.wall);
    offer(&mut net, author.peer(), &today);
    assert_eq!(net.routers[1].record(&author.peer()), Some(&today));
}

#[test]
fn a_clock_that_is_behind_for_a_while_forgets_nobody() {
    let mut net = Net::line(2);
    let author = identity(50);
    let record = record_of(&author, net.now.wall);
    net.routers[1].handle(net.now, Input::StoredRecord(record.clone()));
    let behind = |now: Now| Now {
        wall: crate::model::Timestamp::from_millis(now.wall.as_millis() - 24 * 3_600_000),
        ..now
    };
    net.outputs[1].clear();
    for _ in 0..3 {
        net.now.mono = net.now.mono + Span::from_secs(61);
        let now = behind(net.now);
        net.routers[1].tick(now);
        while let Some(output) = net.routers[1].poll_output() {
            let is_loss = matches!(output, Output::Dropped { .. });
            assert!(!is_loss, "{output:?}");
        }
    }
    assert_eq!(net.routers[1].record(&author.peer()), Some(&record));
}

#[test]
fn a_hello_must_carry_the_neighbours_own_valid_record() {
    let mut net = Net::new(3);
    let own = record_of(&net.identities[1], BEGIN);
    let spoofed = signed(&net.identities[2], own.record.clone());
    let foreign = Record { network: NetworkId::from_bytes([1; 16]), ..own.record };
    let hellos = [
        record_of(&net.identities[2], BEGIN).bytes,
        spoofed.bytes,
        signed(&net.identities[1], foreign).bytes,
        Bytes::new(),
    ];
    for record in hellos {
        net.forget();
        net.input(0, Input::LinkUp { neighbour: net.ids[1], record });
        let is_refused =
            |o: &Output| matches!(o, Output::Disconnect { reason: CloseReason::Protocol, .. });
        assert!(net.outputs[0].len() == 1 && is_refused(&net.outputs[0][0]));
        assert_eq!((net.routers[0].neighbours().count(), net.routers[0].records_len()), (0, 0));
    }
}

#[test]
fn a_newer_record_of_ours_means_that_our_clock_went_back() {
    let mut net = Net::line(2);
    let ahead = record_of(&net.identities[1], BEGIN + Span::from_secs(300));
    let forged = signed(&net.identities[0], ahead.record.clone());
    let told = |net: &Net| {
        net.outputs[1].iter().filter(|o| matches!(o, Output::OwnRecordAhead { .. })).count()
    };
    let peer = net.ids[1];
    offer(&mut net, peer, &forged);
    assert_eq!(told(&net), 0);
    offer(&mut net, peer, &ahead);
    let sequence = ahead.record.sequence;
    assert!(net.outputs[1].contains(&Output::OwnRecordAhead { sequence }));
    offer(&mut net, peer, &ahead);
    assert_eq!(told(&net), 0, "told once");
}

#[test]
fn expired_records_are_dropped() {
    let mut net = Net::line(2);
    let soon = Record {
        expires: net.now.wall + Span::from_secs(30),
        ..record_of(&identity(50), BEGIN).record
    };
    let soon = signed(&identity(50), soon);
    offer(&mut net, soon.record.peer, &soon);
    assert!(net.routers[1].record(&soon.record.peer).is_some());
    net.run(Span::from_secs(120));
    assert!(net.outputs[1].contains(&Output::Dropped { peer: soon.record.peer }));
    assert!(net.routers[1].record(&soon.record.peer).is_none());
}

#[test]
fn a_full_table_keeps_who_is_known_and_refuses_more_of_the_greediest() {
    let limits = Limits { records_max: 50, ..Limits::default() };
    let mut net = Net::with_limits(3, &limits);
    let all = strangers(200);
    for record in &all[..100] {
        net.input(0, Input::StoredRecord(record.clone()));
    }
    assert_eq!(net.routers[0].records_len(), 50, "the store is not exempt");
    net.link(0, 1);
    net.run(Span::from_secs(5));
    assert_eq!(net.routers[1].records_len(), 50);
    let known = net.routers[1].records_after(None, 50)[7].record.peer;
    net.input(1, Input::Standing { peer: known, known: true });
    net.link(1, 2);
    for record in &all[100..] {
        net.input(2, Input::StoredRecord(record.clone()));
    }
    net.run(Span::from_secs(1_000));
    let router = &net.routers[1];
    assert!(router.records_len() <= 52);
    assert!(router.record(&known).is_some());
    let of_2 = |peer: &PeerId| all[100..].iter().any(|record| record.record.peer == *peer);
    let brought = router.records_after(None, 99).iter().filter(|r| of_2(&r.record.peer)).count();
    assert!((20..=30).contains(&brought), "about half each: {brought}");
    assert!(
        net.routers[1].record(&net.ids[0]).is_some()
            && net.routers[1].record(&net.ids[2]).is_some()
    );
}

#[test]
fn digests_out_of_order_end_the_link() {
    let mut net = Net::new(2);
    net.loss = Box::new(|_, _, f| matches!(f, Frame::Digests { .. }));
    net.link(0, 1);
    net.run(SECOND);
    let exchange = net.frames.iter().find_map(|(from, _, frame)| match frame {
        Frame::DigestRequest { exchange, .. } if *from == 1 => Some(*exchange),
        _ => None,
    });
    let digest = |n: u8| Digest { peer: PeerId::from_bytes([n; 32]), sequence: 1 };
    let digests = vec![digest(2), digest(1)];
    net.inject(0, 1, &Frame::Digests { exchange: exchange.expect("asked"), more: true, digests });
    assert_eq!(net.disconnects(1), 1);
}
