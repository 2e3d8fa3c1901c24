//! Two to twelve nodes on virtual time, from one seed: the product's own core. Frames pass
//! through the real encoding, on a network that loses, delays, reorders and cuts, and disks that
//! keep what was committed and nothing else.
//!
//! A failure names its seed; `DISTMSG_SIM_SEED=N` runs that one alone, and `DISTMSG_SIM_SEEDS=N`
//! runs N seeds of each kind. `DISTMSG_SIM_SHRINK=0` does not look for what can be left out.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness that panics is a test that fails"
)]

mod alone;
mod attacks;
mod disk;
mod failpoints;
mod hostile;
mod liars;
mod listening;
mod network;
mod plan;
mod referee;
mod rig;
mod swarm;
mod thief;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use distmsg::model::{Incarnation, PeerId, Sequence, Span};

use plan::{Options, Plan};
use world::{Faults, Told, World};

const CALM: Faults = Faults { loss: 0, delay_ms: (1, 3), cuts: false, crashes: false };

/// A message that was handed in.
struct Handed {
    from: usize,
    to: usize,
    body: Bytes,
}

fn seeds(default: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("DISTMSG_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("DISTMSG_SIM_SEEDS").unwrap_or(default)).collect(),
    }
}

/// How often the shortest part of a plan that fails is looked for: not where only the failure is
/// of interest.
fn tries() -> usize {
    let text = std::env::var("DISTMSG_SIM_SHRINK").ok();
    text.map_or(60, |text| text.parse().expect("a number"))
}

/// Connects the nodes in a line, and some of them besides.
fn wire_up(world: &mut World, nodes: usize, chords: u64) {
    for node in 1..nodes {
        world.connect(node - 1, node);
    }
    for _ in 0..chords {
        let a = world.random().below(nodes as u64) as usize;
        let b = world.random().below(nodes as u64) as usize;
        if a != b {
            world.connect(a, b);
        }
    }
}

fn body(world: &mut World, number: i64, size: usize) -> Bytes {
    let mut body = format!("message {number} ").into_bytes();
    let filler = world.random().bytes::<32>();
    while body.len() < size {
        body.extend_from_slice(&filler);
    }
    body.into()
}

/// What must be true at any time, and of everything once it is over.
fn check(world: &World, nodes: usize, handed: &BTreeMap<i64, Handed>, complete: bool) {
    let mut arrived: BTreeSet<(usize, Bytes)> = BTreeSet::new();
    for node in 0..nodes {
        let mut last: BTreeMap<(PeerId, Incarnation), Sequence> = BTreeMap::new();
        for message in world.disk(node).inbox.values() {
            let key = (message.key.sender, message.key.incarnation);
            let before = last.insert(key, message.key.sequence);
            assert!(before < Some(message.key.sequence), "out of order at node {node}");
            assert!(arrived.insert((node, message.body.clone())), "twice at node {node}");
            let real = handed.values().any(|handed| {
                handed.to == node
                    && world.peer(handed.from) == message.key.sender
                    && handed.body == message.body
            });
            assert!(real, "node {node} has a message that nobody sent it");
        }
    }
    for (number, told) in &world.told {
        let handed = &handed[number];
        // What waits for an earlier one is stored as well.
        let held = || world.disk(handed.to).held.values().any(|held| held.body == handed.body);
        let there = arrived.contains(&(handed.to, handed.body.clone())) || (!complete && held());
        match told {
            Told::Delivered => assert!(there, "message {number} was receipted, but is not there"),
            Told::NotDelivered => assert!(there || !complete, "message {number} was given up"),
            Told::Failed(why) => panic!("message {number}: {why}"),
        }
    }
    if complete {
        for node in 0..nodes {
            assert_eq!(world.disk(node).outbox.len(), 0, "node {node} has messages left");
        }
        for number in handed.keys().filter(|number| !world.unheard.contains(number)) {
            assert!(world.told.contains_key(number), "nobody was told of message {number}");
        }
    }
}

/// Runs one seed: what is drawn from it decides everything.
fn run(seed: u64, faults: Faults, messages: i64, sizes: &[usize]) -> World {
    let nodes = 2 + (seed % 7) as usize;
    let mut world = World::new(seed, nodes, CALM);
    let chords = world.random().below(4);
    wire_up(&mut world, nodes, chords);
    world.run(Span::from_secs(2));
    let mut world = world.with_faults(faults);
    let mut handed = BTreeMap::new();
    for number in 0..messages {
        let from = world.random().below(nodes as u64) as usize;
        let to = (from + 1 + world.random().below(nodes as u64 - 1) as usize) % nodes;
        let size = sizes[world.random().below(sizes.len() as u64) as usize];
        let body = body(&mut world, number, size);
        if world.is_up(from) {
            world.send(from, to, number, body.clone());
            handed.insert(number, Handed { from, to, body });
        }
        let pause = world.random().below(200);
        world.run(Span::from_millis(pause));
        check(&world, nodes, &handed, false);
    }
    world.run(Span::from_secs(20));
    check(&world, nodes, &handed, false);
    world.heal();
    let done = |world: &World| (0..nodes).all(|node| world.disk(node).outbox.is_empty());
    let arrived = world.run_until(Span::from_secs(300), done);
    let left: Vec<_> = (0..nodes).flat_map(|node| world.disk(node).outbox.values()).collect();
    assert!(arrived, "five minutes after everything is well again: {left:?}");
    world.run(Span::from_secs(25));
    check(&world, nodes, &handed, true);
    world
}

fn sweep(count: u64, faults: Faults, messages: i64, sizes: &[usize]) {
    for seed in seeds(count) {
        let outcome = std::panic::catch_unwind(|| run(seed, faults, messages, sizes));
        assert!(outcome.is_ok(), "seed {seed} failed; DISTMSG_SIM_SEED={seed} runs it alone");
    }
}

#[test]
fn messages_arrive_on_a_calm_network() {
    sweep(7, CALM, 40, &[0, 1, 128, 5_000]);
}

#[test]
fn messages_arrive_in_spite_of_loss_and_reordering() {
    let faults = Faults { loss: 30, delay_ms: (1, 200), cuts: false, crashes: false };
    sweep(14, faults, 40, &[0, 1, 128, 5_000]);
}

#[test]
fn messages_arrive_in_spite_of_cuts() {
    let faults = Faults { loss: 5, delay_ms: (1, 50), cuts: true, crashes: false };
    sweep(14, faults, 40, &[1, 128, 5_000]);
}

#[test]
fn messages_arrive_in_spite_of_crashes() {
    let faults = Faults { loss: 5, delay_ms: (1, 50), cuts: true, crashes: true };
    sweep(28, faults, 40, &[1, 128, 5_000]);
}

#[test]
fn large_messages_arrive_in_spite_of_everything() {
    let faults = Faults { loss: 10, delay_ms: (1, 50), cuts: true, crashes: true };
    sweep(7, faults, 8, &[100_000, 1_000_000]);
}

#[test]
fn nodes_make_links_by_themselves_and_one_to_each_peer() {
    for seed in seeds(5) {
        let mut world = World::with_links_auto(seed, 8, CALM, 3);
        for node in 1..8 {
            // Both dial at once.
            world.connect(node - 1, node);
            world.connect(node, node - 1);
        }
        world.run(Span::from_secs(180));
        for node in 0..8 {
            let mut neighbours = world.neighbours(node);
            neighbours.sort_unstable();
            let links = neighbours.len();
            neighbours.dedup();
            assert_eq!(neighbours.len(), links, "seed {seed}: node {node} has two links to one");
            // Its own dials and the operator's; others' come on top.
            assert!((3..=7).contains(&links), "seed {seed}: node {node} has {links} links");
        }
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    let faults = Faults { loss: 20, delay_ms: (1, 100), cuts: true, crashes: true };
    let traces: Vec<_> = (0..2).map(|_| run(5, faults, 20, &[128]).trace()).collect();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], run(12, faults, 20, &[128]).trace());
    let plan = Plan::draw(5, &swarm_options(8));
    let traces = [swarm::run(&plan), swarm::run(&plan)].map(|outcome| outcome.map(|o| o.trace));
    assert_eq!(traces[0], traces[1], "with hostile nodes and all kinds of faults");
    assert!(traces[0].is_ok(), "{traces:?}");
}

/// Twelve nodes with hostile ones among them, and all kinds of faults.
fn swarm_options(nodes: usize) -> Options {
    Options {
        nodes,
        hostile_percent: None,
        kind: None,
        faults: true,
        messages: 40,
        pairs: plan::Pairs::Any,
        body_max: 8_000,
    }
}

#[test]
fn no_table_is_beyond_its_limit_after_any_input() {
    for seed in seeds(3) {
        let plan = Plan { looks_always: true, ..Plan::draw(seed, &swarm_options(12)) };
        if let Err(why) = swarm::run(&plan) {
            panic!(
                "seed {seed}: {why}\nDISTMSG_SIM_SEED={seed} cargo test --test sim table runs it"
            );
        }
    }
}

#[test]
fn swarms_of_faults_and_hostile_nodes_break_no_promise() {
    for seed in seeds(12) {
        let plan = Plan::draw(seed, &swarm_options(12));
        if let Err(why) = swarm::run(&plan) {
            let part = swarm::shrink(&plan, tries(), |part| swarm::run(&part.of(&plan)).is_err());
            panic!(
                "seed {seed}: {why}\nthe shortest part that fails: {:#?}\n\
                 DISTMSG_SIM_SEED={seed} cargo test --test sim swarms runs it alone",
                part.of(&plan)
            );
        }
    }
}
