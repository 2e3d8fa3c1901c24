//! A link that goes silent: nobody is told, packets are just not there any more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::command::until;
use crate::net::{LINKS_MAX, Net, Shape, small};
use crate::rig::{HOSTS, Ip};

/// The variable that asks for more cuts.
const ROUNDS: &str = "DISTMSG_TEST_HOSTS_ROUNDS";
const ROUNDS_DEFAULT: u32 = 3;

/// So often are a few messages sent while a link is cut.
const BATCHES: usize = 25;
/// What takes longer had to find out that a link is silent.
const SLOW: Duration = Duration::from_millis(500);
/// How long all of them may take in a round.
const GOES_ROUND_MAX: Duration = Duration::from_secs(60);

/// Within this a link on which nothing comes any more is given up.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// What a busy machine adds to it, and what we add by looking now and then.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn messages_go_round_when_the_link_in_use_is_cut() {
    let rounds = std::env::var(ROUNDS).map_or(ROUNDS_DEFAULT, |n| n.parse().expect("a number"));
    let Some(net) = Net::up("cut", 5, Ip::V4, Shape::Mesh) else { return };
    net.everybody_writes(small(1));
    let streams = [Stream::new(1, 6), Stream::new(6, 1)];
    std::thread::scope(|scope| {
        // Ends the streams even if a round fails.
        let done = Done(&streams);
        for stream in &streams {
            scope.spawn(|| stream.flow(&net));
        }
        for round in 1..=rounds {
            cut_the_link_in_use(&net, &streams, round);
        }
        drop(done);
    });
    net.assert_all_arrived();
}

/// Cuts the link by which messages from host 1 to host 6 go, while they flow, and heals it.
fn cut_the_link_in_use(net: &Net, streams: &[Stream], round: u32) {
    let mut hop = None;
    until("a route is in use", LINKS_MAX, || {
        hop = net.first_hop(1, 6);
        hop.is_some()
    });
    let hop = hop.expect("found");
    for stream in streams {
        stream.times.lock().expect("not poisoned").clear();
    }
    net.rig.cut(1, hop);
    let took = until("both streams flow on", GOES_ROUND_MAX, || {
        streams.iter().all(|stream| stream.times.lock().expect("not poisoned").len() >= BATCHES)
    });
    for Stream { from, to, times, .. } in streams {
        let times = times.lock().expect("not poisoned");
        let longest = times.iter().max().expect("some").as_secs_f64();
        let slow = times.iter().filter(|time| **time >= SLOW).count();
        net.say(&format!(
            "round {round}, cut between 1 and {hop}: of {} times 20 messages from {from} to {to}, \
             {slow} took {SLOW:?} or more, {longest:.1} s at most",
            times.len()
        ));
    }
    net.say(&format!("round {round} took {:.1} s", took.as_secs_f64()));
    until("routes tell of another way", GOES_ROUND_MAX, || net.first_hop(1, 6) != Some(hop));
    net.rig.heal();
}

/// Messages that flow all the time, a few after the other.
struct Stream {
    from: usize,
    to: usize,
    /// How long each few took.
    times: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

impl Stream {
    fn new(from: usize, to: usize) -> Self {
        Self { from, to, times: Mutex::default(), over: AtomicBool::new(false) }
    }

    fn flow(&self, net: &Net) {
        while !self.over.load(Ordering::Relaxed) {
            let took = net.deliver(self.from, self.to, small(20));
            self.times.lock().expect("not poisoned").push(took);
        }
    }
}

/// Ends the streams when dropped.
struct Done<'a>(&'a [Stream]);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|stream| stream.over.store(true, Ordering::Relaxed));
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
