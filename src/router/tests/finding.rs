//! Finding the way to a peer.

use super::net::{BEGIN, Net, identity, record_of};
use crate::crypto::{Domain, Identity};
use crate::model::limits::FLOOD_LIFETIME;
use crate::model::{Limits, PeerId, Record, Span};
use crate::router::outflow::{Rank, Sort};
use crate::router::{Input, Output};
use crate::wire::{Find, Found, Frame};

const fn is_find(_: usize, _: usize, frame: &Frame) -> bool {
    matches!(frame, Frame::Find(_))
}

#[test]
fn a_stranger_three_links_away_is_found_once_and_everybody_learns_the_way() {
    let mut net = Net::line(4);
    // Nobody on the way knows it, or could say where it is.
    for node in 0..3 {
        net.input(node, Input::Forget(net.ids[3]));
    }
    net.locate(0, 3, false);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 3), 1);
    assert_eq!(net.count(is_find), 3, "one flood");
    for (from, to, via, hops) in [(0, 3, 1, 3), (1, 3, 2, 2), (2, 0, 1, 2), (3, 0, 2, 3)] {
        let ways = net.ways(from, to);
        assert_eq!(ways.len(), 1, "{from} to {to}");
        assert_eq!((ways[0].0, ways[0].1.hops), (via, hops), "{from} to {to}");
    }
    net.locate(0, 3, false);
    assert_eq!(net.located(0, 3), 2, "known now");
    assert_eq!(net.count(is_find), 3);
    assert!(net.routers[3].record(&net.ids[0]).is_some(), "the find carries its origin's record");
}

#[test]
fn whoever_has_record_and_way_answers_but_a_direct_find_goes_to_the_target() {
    let mut net = Net::line(4);
    net.locate(1, 3, false);
    net.run(Span::from_secs(1));
    net.forget();
    net.locate(0, 3, false);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 3), 1);
    assert_eq!(net.count(is_find), 1, "1 answered");
    net.forget();
    net.locate(0, 3, true);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 3), 1);
    assert_eq!(net.count(is_find), 3);
    let direct =
        |from: usize, _, frame: &Frame| matches!(frame, Frame::Found(f) if f.direct && from == 3);
    assert_eq!(net.count(direct), 1);
}

#[test]
fn a_ring_yields_two_ways_each_way() {
    let mut net = Net::ring(5);
    net.locate(0, 2, true);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 2), 1);
    let ways: Vec<usize> = net.ways(0, 2).iter().map(|(via, _)| *via).collect();
    assert_eq!(ways, [1, 4], "the shorter first");
    assert_eq!(net.ways(2, 0).len(), 2);
}

#[test]
fn nobody_is_found_after_three_seconds_or_at_once_without_links() {
    let mut net = Net::linked(4, [(0, 1)]);
    net.locate(0, 3, false);
    net.locate(0, 3, true);
    net.run(Span::from_millis(2_900));
    assert!(net.outputs[0].is_empty());
    net.run(Span::from_millis(200));
    assert_eq!(net.outputs[0], [Output::NotFound { peer: net.ids[3] }], "asked twice, told once");
    net.locate(2, 3, false);
    assert_eq!(net.outputs[2], [Output::NotFound { peer: net.ids[3] }]);
    net.forget();
    net.link(1, 3);
    net.run(Span::from_secs(1));
    net.locate(0, 3, false);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 3), 1, "once it is there it is found");
}

#[test]
fn a_target_that_comes_while_it_is_sought_is_found_at_once() {
    let mut net = Net::linked(4, [(0, 1), (1, 2)]);
    net.locate(0, 3, true);
    net.run(Span::from_millis(500));
    assert_eq!(net.located(0, 3), 0);
    net.link(2, 3);
    net.run(Span::from_millis(500));
    assert_eq!(net.located(0, 3), 1, "2 told it of the find");
    assert_eq!(net.count(|from, to, frame| is_find(from, to, frame) && from == 0), 1, "asked once");
    // What was answered, or was asked long ago, is not told again.
    let told = |from, to, frame: &Frame| is_find(from, to, frame) && (from, to) == (2, 3);
    net.unlink(2, 3);
    net.link(2, 3);
    net.run(Span::from_millis(500));
    assert_eq!(net.count(told), 1);
    net.unlink(2, 3);
    net.locate(0, 3, true);
    net.run(Span::from_secs(4));
    net.link(2, 3);
    net.run(Span::from_secs(1));
    assert_eq!(net.count(told), 1);
}

#[test]
fn an_answer_that_comes_late_is_news() {
    let mut net = Net::line(3);
    let held: std::rc::Rc<std::cell::RefCell<Vec<Frame>>> = std::rc::Rc::default();
    let hold = std::rc::Rc::clone(&held);
    net.loss = Box::new(move |_, to, frame| {
        let late = to == 0 && matches!(frame, Frame::Found(_));
        if late {
            hold.borrow_mut().push(frame.clone());
        }
        late
    });
    net.locate(0, 2, false);
    net.run(Span::from_secs(4));
    let late = held.borrow_mut().pop().expect("an answer");
    net.inject(1, 0, &late);
    let (not_found, located) =
        (Output::NotFound { peer: net.ids[2] }, Output::Located { peer: net.ids[2] });
    let told = |o: &&Output| matches!(o, Output::NotFound { .. } | Output::Located { .. });
    let told: Vec<_> = net.outputs[0].iter().filter(told).collect();
    assert_eq!(told, [&not_found, &located]);
}

#[test]
fn a_peer_that_seeks_us_is_found_by_that() {
    let mut net = Net::line(3);
    net.loss = Box::new(|from, _, frame| from == 0 && matches!(frame, Frame::Find(_)));
    net.locate(0, 2, true);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 2), 0);
    net.locate(2, 0, true);
    net.run(Span::from_secs(1));
    assert_eq!(net.located(0, 2), 1);
}

/// A find of node `origin` for `target`, signed by `signer`.
fn find(net: &Net, origin: usize, signer: usize, target: usize, nonce: u64) -> Frame {
    let [origin, signer] = [origin, signer].map(|node| &*net.identities[node]);
    find_of(net, origin, signer, &net.ids[target], nonce)
}

/// The same for anybody.
fn find_of(net: &Net, origin: &Identity, signer: &Identity, target: &PeerId, nonce: u64) -> Frame {
    let record = record_of(origin, BEGIN).bytes;
    let expires = net.now.wall + FLOOD_LIFETIME;
    let signed = Find::to_sign(false, nonce, target, expires, &record);
    let signature = signer.sign(Domain::Find, &[&signed]);
    Frame::decode(Find::encode(&signed, &signature, 0)).expect("a find")
}

#[test]
fn a_forged_find_is_not_passed_on_charged_or_remembered() {
    let mut net = Net::linked(5, [(0, 1), (1, 2)]);
    let forged = find(&net, 3, 0, 4, 1);
    for _ in 0..5 {
        net.inject(0, 1, &forged);
    }
    assert_eq!(net.count(is_find), 0);
    assert!(net.ways(1, 3).is_empty());
    assert!(net.routers[1].record(&net.ids[3]).is_none());
    assert!(!net.routers[1].origins.knows(&net.ids[3]));
    assert_eq!(net.routers[1].seen.len(), 0);
    let genuine = find(&net, 3, 3, 4, 1);
    net.inject(0, 1, &genuine);
    assert_eq!(net.count(is_find), 1, "the true one is passed on");
    assert_eq!(net.ways(1, 3).len(), 1);
    net.inject(0, 1, &genuine);
    assert_eq!(net.count(is_find), 1, "once");
}

#[test]
fn a_neighbour_that_keeps_forging_is_cut_off() {
    let mut net = Net::linked(5, [(0, 1)]);
    for nonce in 0..17 {
        assert!(net.is_linked(0, 1));
        net.inject(0, 1, &find(&net, 3, 0, 4, nonce));
    }
    assert!(!net.is_linked(0, 1));
}

#[test]
fn finds_that_expired_or_last_too_long_are_dropped() {
    let mut net = Net::linked(5, [(0, 1), (1, 2)]);
    let frame = find(&net, 3, 3, 4, 1);
    net.run(FLOOD_LIFETIME + Span::from_secs(1));
    net.forget();
    net.inject(0, 1, &frame);
    assert_eq!(net.count(is_find), 0);
    net.now.wall = BEGIN;
    net.run(Span::ZERO);
    let record = record_of(&net.identities[3], BEGIN).bytes;
    let expires = net.now.wall + Span::from_secs(1_300);
    let signed = Find::to_sign(false, 9, &net.ids[4], expires, &record);
    let signature = net.identities[3].sign(Domain::Find, &[&signed]);
    let long = Frame::decode(Find::encode(&signed, &signature, 0)).expect("a find");
    net.inject(0, 1, &long);
    assert_eq!(net.count(is_find), 0);
}

#[test]
fn an_answer_nobody_asked_for_or_by_the_wrong_peer_teaches_nothing() {
    let mut net = Net::linked(5, [(0, 1), (0, 2)]);
    let found = |net: &Net, nonce: u64, peer: usize, signer: Option<usize>| {
        let record = record_of(&net.identities[peer], BEGIN).bytes;
        let signed = Found::to_sign(signer.is_some(), &net.ids[0], nonce, &record);
        let signature =
            signer.map_or([0; 64], |signer| net.identities[signer].sign(Domain::Found, &[&signed]));
        Frame::decode(Found::encode(&signed, &signature, 0)).expect("a found")
    };
    let unasked = found(&net, 5, 3, None);
    net.inject(1, 0, &unasked);
    assert!(net.ways(0, 3).is_empty());
    net.locate(0, 3, true);
    let nonce = net.frames.iter().find_map(|(_, _, frame)| match frame {
        Frame::Find(find) => Some(find.nonce),
        _ => None,
    });
    let nonce = nonce.expect("a find left");
    for (peer, signer) in [(4, Some(4)), (3, None), (3, Some(1))] {
        let wrong = found(&net, nonce, peer, signer);
        net.inject(1, 0, &wrong);
        assert!(net.ways(0, 3).is_empty() && net.ways(0, 4).is_empty());
    }
    let right = found(&net, nonce, 3, Some(3));
    net.inject(2, 0, &right);
    assert_eq!(net.located(0, 3), 1);
    assert_eq!(net.ways(0, 3)[0].0, 2);
}

#[test]
fn the_record_of_a_find_must_be_valid() {
    let mut net = Net::linked(5, [(0, 1), (1, 2)]);
    let template = record_of(&net.identities[3], BEGIN).record;
    let day = Span::from_secs(24 * 3600);
    let bad = [
        Record { network: crate::model::NetworkId::from_bytes([1; 16]), ..template.clone() },
        Record { sequence: (BEGIN + Span::from_secs(700)).as_millis(), ..template.clone() },
        Record { expires: BEGIN, ..template.clone() },
        Record { expires: BEGIN + day.times(15), ..template },
    ];
    for (record, nonce) in bad.into_iter().zip(0..) {
        let record = super::net::signed(&net.identities[3], record).bytes;
        let expires = net.now.wall + FLOOD_LIFETIME;
        let signed = Find::to_sign(false, nonce, &net.ids[4], expires, &record);
        let signature = net.identities[3].sign(Domain::Find, &[&signed]);
        let frame = Frame::decode(Find::encode(&signed, &signature, 0)).expect("a find");
        net.inject(0, 1, &frame);
        assert_eq!(net.count(is_find), 0, "{nonce}");
        assert!(net.routers[1].record(&net.ids[3]).is_none(), "{nonce}");
    }
}

#[test]
fn a_peer_that_becomes_a_neighbour_is_located() {
    let mut net = Net::linked(3, [(0, 1)]);
    net.locate(0, 2, true);
    net.link(0, 2);
    assert_eq!(net.located(0, 2), 1);
    net.input(0, Input::Forget(net.ids[2]));
    assert!(net.routers[0].record(&net.ids[2]).is_none());
}

#[test]
fn who_has_spent_its_allowance_costs_no_verification() {
    let limits = Limits { verifications_per_second: 30, ..Limits::default() };
    let mut net = Net::with_limits(5, &limits);
    [0, 2].iter().for_each(|neighbour| net.link(*neighbour, 1));
    net.run(Span::from_secs(5));
    net.forget();
    for nonce in 0..100 {
        let greedy = find(&net, 0, 0, 4, nonce);
        net.inject(0, 1, &greedy);
    }
    let burst = usize::try_from(limits.origin_floods_burst).expect("small");
    assert_eq!(net.count(is_find), burst);
    let other = find(&net, 3, 3, 4, 1);
    net.inject(2, 1, &other);
    assert_eq!(net.count(is_find), burst + 1, "at once: there were verifications left");
}

/// Two nodes in a row whose links somebody fills with finds of these origins, for nobody who is
/// there, until they are full and it is enough; then whether a node before them finds one behind
/// them.
fn finds_through_full_links(
    net: &mut Net,
    origin: impl Fn(u64) -> u64,
    mut is_enough: impl FnMut(&mut Net) -> bool,
) -> bool {
    let mut made = 0;
    let mut flood = |net: &mut Net| {
        for to in [1, 2] {
            for _ in 0..4 {
                made += 1;
                let origin = identity(origin(made));
                let target = identity(made + 1_000_000).peer();
                let find = find_of(net, &origin, &origin, &target, made);
                net.inject(5, to, &find);
            }
        }
        net.run(Span::from_millis(200));
    };
    // Until what may go at once is used up, and what waits on each link is as much as may.
    let from_2 = |net: &Net| net.routers[2].neighbours[&net.ids[3]].outflow.waiting();
    let mut rounds = 0;
    while from_2(net) < 120 || !is_enough(net) {
        flood(net);
        rounds += 1;
        assert!(rounds < 1_000, "the links do not fill");
    }
    net.forget();
    net.locate(0, 4, true);
    (0..15).for_each(|_| flood(net));
    net.located(0, 4) == 1
}

#[test]
fn a_stranger_is_found_though_invented_ones_fill_every_link() {
    let mut net = Net::linked(6, [(0, 1), (1, 2), (2, 3), (3, 4), (5, 1), (5, 2)]);
    assert!(finds_through_full_links(&mut net, |made| 1_000 + made, |_| true));
}

#[test]
fn a_stranger_is_found_by_anybody_though_many_flood_as_much_as_each_may() {
    let mut net = Net::linked(6, [(0, 1), (1, 2), (2, 3), (3, 4), (5, 1), (5, 2)]);
    // No link is where they would look for it.
    for node in 0..3 {
        net.input(node, Input::Forget(net.ids[4]));
    }
    let origin = |made| 1_000 + made % 19;
    // What came before they were busy has gone by then.
    let all_are_busy = |net: &mut Net| {
        let (to, now, relay) = (net.ids[3], net.now.mono, &mut net.routers[2]);
        let outflow = relay.neighbours.get_mut(&to).map(|there| &mut there.outflow);
        outflow.is_some_and(|outflow| !outflow.waits(Sort::Unknown))
            && (0..19).all(|n| relay.origins.is_busy(&identity(origin(n)).peer(), now))
    };
    assert!(finds_through_full_links(&mut net, origin, all_are_busy));
}

#[test]
fn neighbours_that_answer_each_other_hold_up_nobody_elses_find() {
    let limits = Limits { verifications_per_second: 20, ..Limits::default() };
    let mut net = Net::with_limits(7, &limits);
    (0..7).filter(|node| *node != 1).for_each(|node| net.link(node, 1));
    net.run(Span::from_secs(1));
    let (origin, target) = (|n| identity(1_000 + n), |n| identity(2_000 + n));
    for n in 0..160 {
        let find = find_of(&net, &origin(n), &origin(n), &target(n).peer(), n);
        net.inject(2 + n as usize % 4, 1, &find);
        net.run(Span::from_millis(125));
    }
    let mut tables = net.routers[1].occupancy().into_iter();
    let asked = tables.find(|table| table.table == "finds passed on");
    assert!(asked.as_ref().is_some_and(|asked| asked.used >= 160), "{asked:?}");
    // Two signatures each, and 24 seconds if each were verified at once.
    for (n, teller) in (0..160).flat_map(|n| (2..6).map(move |teller| (n, teller))) {
        let record = record_of(&target(n), BEGIN + Span::from_millis(teller as u64)).bytes;
        let signed = Found::to_sign(true, &origin(n).peer(), n, &record);
        let signature = target(n).sign(Domain::Found, &[&signed]);
        let answer = Frame::decode(Found::encode(&signed, &signature, 0)).expect("a found");
        net.inject(teller, 1, &answer);
    }
    net.forget();
    net.locate(0, 6, true);
    net.run(Span::from_millis(2_900));
    assert_eq!(net.located(0, 6), 1);
}

#[test]
fn a_neighbour_that_floods_much_is_as_good_as_a_stranger_unless_it_is_known() {
    let mut net = Net::linked(5, [(0, 1), (1, 2)]);
    let rank = |net: &Net, of: usize| net.routers[1].rank_of(&net.ids[of], net.ids[0]);
    let of = |sort, net: &Net| Rank::Theirs(sort, net.ids[0]);
    assert_eq!(rank(&net, 0), of(Sort::Known, &net));
    assert_eq!(rank(&net, 3), of(Sort::Unknown, &net));
    for nonce in 0..40 {
        for origin in [0, 3] {
            let find = find(&net, origin, origin, 4, nonce);
            net.inject(0, 1, &find);
        }
        net.run(Span::from_secs(1));
    }
    assert_eq!(rank(&net, 0), of(Sort::Unknown, &net));
    assert_eq!(rank(&net, 3), of(Sort::Busy, &net));
    for node in [0, 3] {
        net.input(1, Input::Standing { peer: net.ids[node], known: true });
        assert_eq!(rank(&net, node), of(Sort::Known, &net));
    }
}
