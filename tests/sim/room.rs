//! No room on a node's disk.

use distmsg::model::Span;
use distmsg::wire::Frame;

use crate::rig::Side::{Alice, Bob};
use crate::rig::{Rig, Told};

const SECOND: Span = Span::from_secs(1);

fn delivered(rig: &Rig, number: i64) -> usize {
    rig.told(Alice).iter().filter(|told| **told == (number, Told::Delivered)).count()
}

#[test]
fn what_cannot_be_removed_from_a_full_disk_makes_nothing_else_be_forgotten() {
    let mut rig = Rig::new();
    rig.send(Alice, 1, b"first");
    rig.wait(SECOND);
    assert_eq!(delivered(&rig, 1), 1, "there is a session");
    // The second goes through, the third is kept back.
    rig.send(Alice, 2, b"second");
    rig.set_full(Alice, true);
    rig.wait(Span::from_millis(100));
    assert_eq!(delivered(&rig, 2), 1);
    assert_eq!(rig.outbox_len(Alice), 1, "it could not be removed");
    rig.set_full(Alice, false);
    let is_envelope = |_, frame: &Frame| matches!(frame, Frame::Envelope(_) | Frame::Flood(_));
    rig.send(Alice, 3, b"third");
    rig.set_full(Alice, true);
    for _ in 0..3 {
        // The recipient goes away, and comes back a while later; the third is kept back each time.
        rig.wait_but(SECOND, is_envelope);
        rig.cut(Alice);
        rig.wait(Span::from_secs(90));
        rig.link(Alice);
        rig.link(Bob);
        rig.wait_but(SECOND, is_envelope);
    }
    rig.set_full(Alice, false);
    rig.wait(Span::from_secs(900));
    assert!(rig.inbox(Bob).iter().any(|(_, body)| body == &b"third"[..]), "it was forgotten");
    assert_eq!(rig.inbox(Bob).len(), 3);
    assert_eq!(rig.outbox_len(Alice), 0);
}
