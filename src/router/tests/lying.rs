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
