//! A network in two halves, and whole again.

use std::time::Duration;

use crate::command::until;
use crate::net::{Net, Shape, small};
use crate::rig::{HOSTS, Ip};

/// Within this, everything that waited has arrived once a partition is healed.
const HEALED_MAX: Duration = Duration::from_secs(60);
/// Within this, nobody believes in a link to the other half any more.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// Long enough for each half to have dialled all of the other by its own choice.
const IN_VAIN: Duration = Duration::from_secs(35);
/// The variable that asks for longer partitions, in seconds more.
const LONGER: &str = "DISTMSG_TEST_HOSTS_PARTITION";
const HALF: usize = HOSTS / 2;

/// Cuts the network in two while messages are sent within each half and across.
fn cut_in_two(net: &Net) {
    net.everybody_writes(small(1));
    net.rig.switch(&["partition", "1,2,3", "4,5,6"]);
    std::thread::scope(|scope| {
        for from in 1..=HALF {
            let (here, there) = (from % HALF + 1, from + HALF);
            scope.spawn(move || net.queue(from, there, small(10)));
            scope.spawn(move || net.queue(there, from, small(10)));
            scope.spawn(move || net.deliver(from, here, small(10)));
            scope.spawn(move || net.deliver(from + HALF, here + HALF, small(10)));
        }
    });
}

/// Makes the network whole again: what waited arrives, and what is sent now does.
fn make_whole(net: &Net) {
    net.rig.heal();
    let took = net.await_empty_outboxes(HEALED_MAX).as_secs_f64();
    net.say(&format!("healed: everything that waited was delivered within {took:.1} s"));
    net.everybody_writes(small(1));
    net.assert_all_arrived();
}

#[test]
fn a_short_partition_heals() {
    let Some(net) = Net::up("short", 7, Ip::V4, Shape::Mesh) else { return };
    cut_in_two(&net);
    make_whole(&net);
}

/// Leaves the network in two until nobody believes in a link to the other half any more.
fn outlast_the_links(net: &Net) {
    let took = until("every link across is given up", SILENCE_MAX, || {
        (1..=HOSTS).all(|number| net.host(number).links() == HALF - 1)
    });
    net.say(&format!("every link across was given up after {:.1} s", took.as_secs_f64()));
    let longer = std::env::var(LONGER).map_or(0, |secs| secs.parse().expect("a number"));
    std::thread::sleep(Duration::from_secs(longer));
}

#[test]
fn a_partition_heals_after_its_links_were_given_up() {
    let Some(net) = Net::up("long", 8, Ip::V6, Shape::Mesh) else { return };
    cut_in_two(&net);
    outlast_the_links(&net);
    make_whole(&net);
}

#[test]
fn a_partition_heals_that_no_operators_link_crosses() {
    let Some(net) = Net::up("unkept", 11, Ip::V4, Shape::Mesh) else { return };
    for from in HALF + 1..=HOSTS {
        net.host(from).ctl(&["disconnect", &net.host(1).peer]).exits(0);
    }
    net.await_links(Shape::Mesh);
    cut_in_two(&net);
    outlast_the_links(&net);
    // Whoever is dialled in vain now must be dialled again soon.
    std::thread::sleep(IN_VAIN);
    make_whole(&net);
}
