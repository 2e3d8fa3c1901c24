//! Six hosts with their daemons, and a record of what was sent between them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::command::until;
use crate::host::Host;
use crate::rig::{HOSTS, Ip, Rig, say};

/// How long links may take to come up where nothing hinders them.
pub(crate) const LINKS_MAX: Duration = Duration::from_secs(60);
/// Links that a node makes by itself in a mesh.
const LINKS_AUTO: usize = 8;

/// Who is linked with whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Each with the next, and with nobody else.
    Line,
    /// All with all: everybody is told of the first, and finds the others by itself.
    Mesh,
}

/// Hosts, daemons, and what is expected of them. Hosts are counted from 1, as on the switch.
pub(crate) struct Net {
    // Before the rig, so that daemons are gone when their hosts are taken down.
    hosts: Vec<Host>,
    pub(crate) rig: Rig,
    scenario: &'static str,
    /// The bodies that were queued from one host to another, in this order.
    sent: Mutex<BTreeMap<(usize, usize), Vec<String>>>,
}

impl Net {
    /// Daemons in a shape, all links up. None where there can be no hosts.
    pub(crate) fn up(scenario: &'static str, number: u8, ip: Ip, shape: Shape) -> Option<Self> {
        let net = Self::alone(scenario, number, ip, shape)?;
        let begun = Instant::now();
        match shape {
            Shape::Line => (1..HOSTS).for_each(|host| net.connect(host, host + 1)),
            Shape::Mesh => (2..=HOSTS).for_each(|host| net.connect(host, 1)),
        }
        net.await_links(shape);
        net.say(&format!("all links up in {:.1} s", begun.elapsed().as_secs_f64()));
        Some(net)
    }

    /// Waits until everybody has the links of a shape.
    #[track_caller]
    pub(crate) fn await_links(&self, shape: Shape) {
        let wanted = |number| match shape {
            Shape::Line if number == 1 || number == HOSTS => 1,
            Shape::Line => 2,
            Shape::Mesh => HOSTS - 1,
        };
        for host in &self.hosts {
            let what = format!("host {} has its links", host.number);
            until(&what, LINKS_MAX, || host.links() == wanted(host.number));
        }
    }

    /// Daemons that are linked with nobody.
    pub(crate) fn alone(scenario: &'static str, number: u8, ip: Ip, shape: Shape) -> Option<Self> {
        let rig = Rig::up(scenario, number)?;
        let auto = if shape == Shape::Mesh { LINKS_AUTO } else { 0 };
        let start = |number| Host::start(&rig, number, rig.ip(ip, number), auto);
        let hosts = std::thread::scope(|scope| {
            let starting: Vec<_> = (1..=HOSTS).map(|n| scope.spawn(move || start(n))).collect();
            starting.into_iter().map(|host| host.join().expect("it starts")).collect()
        });
        Some(Self { hosts, rig, scenario, sent: Mutex::default() })
    }

    /// A host by its number.
    pub(crate) fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// A host whose daemon is to be stopped or started.
    pub(crate) fn host_mut(&mut self, number: usize) -> (&mut Host, &Rig) {
        (&mut self.hosts[number - 1], &self.rig)
    }

    /// Says something that is seen even if the test passes.
    pub(crate) fn say(&self, what: &str) {
        say(self.scenario, what);
    }

    /// Lets one host dial another, verified.
    #[track_caller]
    pub(crate) fn connect(&self, from: usize, to: usize) {
        let to = self.host(to);
        let args = ["connect", &to.peer, &to.address(), "--timeout", "30s"];
        self.host(from).ctl(&args).exits(0);
    }

    /// Whether both of two hosts are linked with the other.
    #[track_caller]
    pub(crate) fn linked(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.host(one), self.host(other));
        one.link(other).is_some() && other.link(one).is_some()
    }

    /// The number of the host by which messages between two go first.
    #[track_caller]
    pub(crate) fn first_hop(&self, from: usize, to: usize) -> Option<usize> {
        let hop = self.host(from).first_hop(self.host(to))?;
        self.hosts.iter().find(|host| host.peer == hop).map(|host| host.number)
    }

    /// Sends messages, all of which are to be delivered in time, and tells how long that took.
    #[track_caller]
    pub(crate) fn deliver(&self, from: usize, to: usize, bodies: Bodies) -> Duration {
        let begun = Instant::now();
        let delivered = self.send(from, to, bodies, "60s", 0);
        assert_eq!(delivered, bodies.count, "exit 0 means that all were delivered");
        begun.elapsed()
    }

    /// Sends messages, none of which can be delivered in time: they stay queued.
    #[track_caller]
    pub(crate) fn queue(&self, from: usize, to: usize, bodies: Bodies) {
        let before = self.host(from).queued_for(self.host(to));
        let delivered = self.send(from, to, bodies, "1s", 4);
        assert_eq!(delivered, 0, "nothing gets there");
        let queued = self.host(from).queued_for(self.host(to));
        assert_eq!(queued, before + bodies.count, "exit 4 means that all are kept");
    }

    /// Sends messages one after the other, and tells how many were reported as delivered.
    #[track_caller]
    fn send(&self, from: usize, to: usize, bodies: Bodies, timeout: &str, code: i32) -> usize {
        let lines: Vec<String> = {
            let mut sent = self.sent.lock().expect("not poisoned");
            let sent = sent.entry((from, to)).or_default();
            let first = sent.len();
            let padding = "x".repeat(bodies.bytes);
            let place = first..first + bodies.count;
            sent.extend(place.clone().map(|n| format!("{from} to {to}: {n} {padding}")));
            sent[place].to_vec()
        };
        let to = &self.host(to).peer;
        let args = ["send", to, "--lines", "--json", "--timeout", timeout];
        let output = self.host(from).ctl_given(&args, &lines.join("\n")).exits(code);
        let answers = output.json();
        answers.iter().filter(|answer| answer["state"] == "delivered").count()
    }

    /// Everybody sends to everybody else at once, and everything is delivered.
    pub(crate) fn everybody_writes(&self, bodies: Bodies) {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for from in 1..=HOSTS {
                scope.spawn(move || {
                    for to in (1..=HOSTS).filter(|to| *to != from) {
                        self.deliver(from, to, bodies);
                    }
                });
            }
        });
        self.say(&format!(
            "{} pairs with {} messages each: all delivered in {:.1} s",
            HOSTS * (HOSTS - 1),
            bodies.count,
            begun.elapsed().as_secs_f64()
        ));
    }

    /// Waits until nobody holds a message for anybody any more, and tells how long that took.
    #[track_caller]
    pub(crate) fn await_empty_outboxes(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        for host in &self.hosts {
            let left = within.saturating_sub(begun.elapsed());
            let what = format!("all that waits at host {} is delivered", host.number);
            until(&what, left, || host.queued() == 0);
        }
        begun.elapsed()
    }

    /// Every inbox holds what was sent there, each once, in the order of each sender, and no more.
    #[track_caller]
    pub(crate) fn assert_all_arrived(&self) {
        let mut arrived: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
        for to in &self.hosts {
            for message in to.inbox() {
                let from = self.hosts.iter().find(|host| message["from"] == *host.peer);
                let from = from.unwrap_or_else(|| panic!("from a stranger: {message}"));
                let body = message["body"].as_str().expect("text").to_owned();
                arrived.entry((from.number, to.number)).or_default().push(body);
            }
            assert_eq!(to.queued(), 0, "nothing is left at host {}", to.number);
        }
        let sent = self.sent.lock().expect("not poisoned");
        let pairs: Vec<_> = sent.keys().chain(arrived.keys()).collect();
        for pair in pairs {
            let (sent, arrived) = (sent.get(pair), arrived.get(pair));
            assert!(sent == arrived, "{pair:?}: sent {sent:?}, arrived {arrived:?}");
        }
        let count: usize = sent.values().map(Vec::len).sum();
        self.say(&format!("{count} messages arrived, each once and in order"));
    }
}

/// Messages of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bodies {
    pub(crate) count: usize,
    /// How large each is, about.
    pub(crate) bytes: usize,
}

/// So many small messages.
pub(crate) const fn small(count: usize) -> Bodies {
    Bodies { count, bytes: 20 }
}
