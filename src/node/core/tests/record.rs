//! Our own record.

use super::*;
use crate::wire::decode_record;

const DAY: Span = Span::from_secs(24 * 60 * 60);

#[test]
fn our_record_is_believed_again_after_a_clock_that_was_a_month_ahead() {
    let mut node = Lone::new(1);
    node.set_clock(30 * DAY.as_millis() as i64);
    node.wait(Span::from_secs(30 * 60));
    let sequence = |node: &Lone| decode_record(node.record.clone()).expect("ours").record.sequence;
    assert!(sequence(&node) > (time(0, 0).wall + DAY).as_millis(), "made by the wrong clock");
    node.set_clock(0);
    node.wait(Span::from_secs(90 * 60));
    assert!(sequence(&node) <= node.now.wall.as_millis(), "still from the future");
    let before = sequence(&node);
    node.wait(DAY + DAY);
    assert!(sequence(&node) > before, "the next one is newer");
}
