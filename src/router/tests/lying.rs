//! What liars on the way achieve.

use super::net::Net;
use crate::model::Span;
use crate::router::Input;
use crate::wire::Frame;

const SECOND: Span = Span::from_secs(1);

/// 0 is Alice, 1 her relay, 2 and 3 two others, 4 Bob, 5 the enemy's second identity. The enemy is
/// the one of the two that the relay happens to try first (a smaller ID, a lower number of hops
/// claimed: it can see to that).
fn net() -> (Net, usize) {
    let mut net = Net::linked(6, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (5, 1)]);
    net.locate(0, 4, true);
    net.locate(5, 4, true);
    net.run(SECOND);
    net.forget();
    let enemy = net.ways(1, 4)[0].0;
    (net, enemy)
}

#[test]
fn a_relay_sends_another_attempt_another_way() {
    let (mut net, enemy) = net();
    net.loss = Box::new(move |from, to, frame| {
        from == enemy && to == 4 && matches!(frame, Frame::Envelope(_))
    });
    // The enemy's way is the better one, by receipts of what it did carry, or says it did.
    for counter in 0..20 {
        let envelope = net.envelope(5, 4, counter, 10);
        let preimage = net.preimage(&envelope);
        net.send_envelope(5, &envelope);
        net.run(Span::from_millis(5));
        net.inject(enemy, 1, &Frame::Receipt { preimage });
    }
    net.forget();
    let envelope = net.envelope(0, 4, 1, 10);
    for attempt in 1..=2 {
        net.input(
            0,
            Input::Send { envelope: envelope.with_attempt(attempt), elsewhere: attempt > 1 },
        );
        net.run(SECOND);
    }
    assert_eq!(net.receipts(0, &envelope), 1, "both attempts went to the enemy");
}

#[test]
fn the_receipt_of_a_flood_speaks_for_nobody_that_dropped_an_attempt_before() {
    let (mut net, enemy) = net();
    net.reveals = true;
    net.loss = Box::new(move |from, _, frame| from == enemy && matches!(frame, Frame::Envelope(_)));
    let of = |net: &Net, node: usize, via: usize| {
        net.ways(node, 4).iter().find(|(v, _)| *v == via).map(|(_, hop)| hop.receipts)
    };
    for counter in 0..5 {
        let envelope = net.envelope(0, 4, counter, 10);
        net.input(0, Input::Send { envelope: envelope.clone(), elsewhere: false });
        net.run(SECOND);
        net.input(0, Input::Flood { envelope: envelope.with_attempt(2) });
        net.run(SECOND);
        assert!(net.receipts(0, &envelope) > 0, "the flood gets there");
    }
    net.run(Span::from_secs(10));
    // The relay's own next choice, once it knows, is the honest one; nobody was credited for it.
    assert_eq!(of(&net, 1, enemy), Some(0), "it brought receipts of floods and nothing else");
    let honest = 5 - enemy;
    net.forget();
    let envelope = net.envelope(0, 4, 9, 10);
    net.input(0, Input::Send { envelope: envelope.clone(), elsewhere: false });
    net.run(SECOND);
    assert_eq!(net.receipts(0, &envelope), 1, "it went the honest way at once");
    assert!(of(&net, 1, honest) > Some(0));
}
