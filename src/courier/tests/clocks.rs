//! Time that passes, and clocks that are wrong.

use super::*;

const DAY: Span = Span::from_secs(86_400);

/// The messages that went to the inbox at once, in order.
fn delivered_keys(end: &End) -> Vec<ReceivedKey> {
    let key = |change: &Change| match change {
        Change::Deliver(message) => Some(message.key),
        _ => None,
    };
    end.rows.iter().filter_map(key).collect()
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
