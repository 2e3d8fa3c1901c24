//! A link that goes silent: nobody is told, packets are just not there any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::command::until;
use crate::net::{LINKS_MAX, Net, Shape, small};
use crate::rig::{HOSTS, Ip};

/// The variable that asks for more cuts.
const ROUNDS: &str = "DISTMSG_TEST_HOSTS_ROUNDS";
const ROUNDS_DEFAULT: u32 = 3;

/// Within this a link on which nothing comes any more is given up.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// What a busy machine adds to it, and what we add by looking now and then.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn messages_go_round_when_the_link_in_use_is_cut() {
    let rounds = std::env::var(ROUNDS).map_or(ROUNDS_DEFAULT, |n| n.parse().expect("a number"));
    let Some(net) = Net::up("cut", 5, Ip::V4, Shape::Mesh) else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stream = |from, to| {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                longest = longest.max(net.deliver(from, to, small(20)));
            }
            longest
        };
        let ends = [(1, 6), (6, 1)].map(|(from, to)| (from, scope.spawn(move || stream(from, to))));
        // Ends the streams even if a round fails.
        let done = Done(&over);
        for round in 1..=rounds {
            cut_the_link_in_use(&net, round);
        }
        drop(done);
        for (from, longest) in ends {
            let longest = longest.join().expect("its messages are delivered").as_secs_f64();
            net.say(&format!("from host {from}, 20 messages took {longest:.1} s at most"));
        }
    });
    net.assert_all_arrived();
}

/// Cuts the link by which messages from host 1 to host 6 go, waits until others take another way
/// and heals it.
fn cut_the_link_in_use(net: &Net, round: u32) {
    let mut hop = None;
    until("a route is in use", LINKS_MAX, || {
        hop = net.first_hop(1, 6);
        hop.is_some()
    });
    let hop = hop.expect("found");
    net.rig.cut(1, hop);
    let around = until("another way is taken", SILENCE_MAX, || {
        net.first_hop(1, 6).is_some_and(|now| now != hop)
    });
    let delivered = net.deliver(1, 5, small(1));
    net.say(&format!(
        "round {round}: cut between 1 and {hop}, another way after {:.1} s, a message elsewhere \
         took {:.1} s",
        around.as_secs_f64(),
        delivered.as_secs_f64()
    ));
    net.rig.heal();
}

/// Sets its flag when dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_silent_link_is_given_up_in_time_and_made_again() {
    let Some(net) = Net::up("silent", 6, Ip::V6, Shape::Mesh) else { return };
    net.everybody_writes(small(2));
    // Host 6 dialled host 1, and keeps that link.
    net.rig.cut(1, 6);
    let begun = Instant::now();
    let delivered = [(1, 6), (6, 1)].map(|(from, to)| net.deliver(from, to, small(10)));
    let delivered = delivered.map(|took| took.as_secs_f64());
    net.say(&format!(
        "10 messages around the cut: {:.1} s and {:.1} s",
        delivered[0], delivered[1]
    ));
    let (one, other) = (net.host(1), net.host(HOSTS));
    until(
        "both ends give the link up",
        (SILENCE_MAX + SLACK).saturating_sub(begun.elapsed()),
        || one.link(other).is_none() && other.link(one).is_none(),
    );
    net.say(&format!("both ends gave it up after {:.1} s", begun.elapsed().as_secs_f64()));
    net.deliver(1, 6, small(1));
    net.rig.heal();
    let healed = until("it is made again", LINKS_MAX, || net.linked(1, 6));
    net.say(&format!("healed, it was made again after {:.1} s", healed.as_secs_f64()));
    net.everybody_writes(small(1));
    net.assert_all_arrived();
}
