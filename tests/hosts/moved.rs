//! A host that gets another address.

use crate::command::until;
use crate::net::{LINKS_MAX, Net, Shape, small};
use crate::rig::Ip;

#[test]
fn a_host_that_moved_is_found_again_by_its_record() {
    // Nobody makes links by itself: whoever dials the new address has it from the record.
    let Some(mut net) = Net::alone("moved", 10, Ip::V4, Shape::Line) else { return };
    for (from, to) in [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 1)] {
        net.connect(from, to);
    }
    net.everybody_writes(small(1));
    let ip = net.rig.ip(Ip::V4, 106);
    let (host, rig) = net.host_mut(6);
    host.kill();
    let old = std::mem::replace(&mut host.ip, ip.clone());
    rig.readdress(6, &old, &ip);
    net.queue(5, 6, small(10));
    let (host, rig) = net.host_mut(6);
    host.boot(rig);
    // Host 6 dials host 1 and tells its record there; host 5 only ever knew the old address.
    let address = net.host(6).address();
    let took = until("host 5 dials the new address", LINKS_MAX, || {
        let link = net.host(5).link(net.host(6));
        link.is_some_and(|link| link["direction"] == "outbound" && link["address"] == *address)
    });
    net.say(&format!("found at its new address after {:.1} s", took.as_secs_f64()));
    net.await_empty_outboxes(LINKS_MAX);
    net.everybody_writes(small(2));
    net.assert_all_arrived();
}
