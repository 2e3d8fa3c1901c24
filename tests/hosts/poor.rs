//! Hosts with a slow or lossy line.

use std::time::Duration;

use crate::net::{Bodies, Net, Shape, small};
use crate::rig::Ip;

/// More than one envelope each.
const LARGE: Bodies = Bodies { count: 3, bytes: 150_000 };

#[test]
fn messages_pass_a_slow_host_and_a_lossy_one() {
    let Some(net) = Net::up("poor", 9, Ip::V4, Shape::Line) else { return };
    // In the middle of the line, so that most of what is sent goes through both.
    if !net.rig.impair(3, 100, 0) || !net.rig.impair(4, 0, 5) {
        return;
    }
    let seconds = |took: Duration| took.as_secs_f64();
    let first = net.deliver(1, 6, small(1));
    let next = net.deliver(1, 6, small(1));
    net.say(&format!("a message: {:.1} s, the next: {:.1} s", seconds(first), seconds(next)));
    // 100 ms are added on the way to host 2, and again where a receipt goes back to it.
    assert!(next >= Duration::from_millis(100), "host 3 is slow");
    let many = net.deliver(1, 6, small(200));
    let large = net.deliver(6, 1, LARGE);
    net.say(&format!("200 messages: {:.1} s, 3 large: {:.1} s", seconds(many), seconds(large)));
    net.everybody_writes(small(3));
    net.assert_all_arrived();
}
