//! A crash at every single step of a short exchange: before and after each commit, each frame, each
//! receipt, at the sender, at the relay, and at the recipient.

use distmsg::model::Span;

use crate::network::{Network, Place};
use crate::world::{Faults, Told, World};

const CALM: Faults = Faults { loss: 0, delay_ms: (1, 3), cuts: false, crashes: false };
const NODES: usize = 3;

/// A line of three, with links up: what happens from here on is counted.
fn begin() -> World {
    let mut world = World::new(3, NODES, CALM);
    let place =
        Place { latency: Span::from_millis(3), jitter: Span::from_millis(1), bytes_per_second: 0 };
    world.enter(Network::new(vec![place; NODES]));
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(Span::from_secs(2));
    (world.happened, world.committed) = (0, 0);
    world
}

/// Messages there and back, small ones, and one in chunks.
fn exchange(world: &mut World) {
    for (number, size) in [(1, 20), (2, 3_000), (3, 130_000), (4, 20)] {
        world.hand_in(0, 2, number, size);
        world.hand_in(2, 0, 100 + number, 20);
        world.run(Span::from_millis(20));
    }
    world.run(Span::from_secs(3));
}

/// Everything that was accepted arrives, and everybody was told the truth.
fn end(mut world: World, what: &str) {
    let is_empty = |world: &World| (0..NODES).all(|node| world.disk(node).outbox.is_empty());
    let done = world.run_until(Span::from_secs(300), is_empty);
    assert!(done, "{what}: something is still queued five minutes later");
    world.run(Span::from_secs(25));
    let referee = world.referee.as_ref().expect("a referee");
    for number in referee.handed().keys() {
        let told = world.told.get(&number.cast_signed());
        let is_there = referee.arrived().contains_key(number);
        match told {
            // Its client heard nothing: it may have been accepted or not.
            None => {
                let unheard = world.unheard.contains(&number.cast_signed());
                assert!(unheard, "{what}: nobody was told of message {number}");
            }
            Some(Told::Delivered | Told::NotDelivered) => {
                assert!(is_there, "{what}: message {number} was accepted and is not there");
            }
            Some(Told::Failed(why)) => panic!("{what}: message {number}: {why}"),
        }
    }
}

#[test]
fn a_crash_at_any_step_of_any_node_loses_and_doubles_nothing() {
    let mut calm = begin();
    exchange(&mut calm);
    let steps = calm.happened;
    end(calm, "without a crash");
    assert!(steps > 100, "only {steps} steps");
    for node in 0..NODES {
        for step in 1..=steps {
            let mut world = begin();
            world.crash_at = Some((step, node));
            exchange(&mut world);
            end(world, &format!("node {node} crashed at step {step} of {steps}"));
        }
    }
}

#[test]
fn a_crash_between_a_commit_and_its_consequences_loses_and_doubles_nothing() {
    let mut calm = begin();
    exchange(&mut calm);
    let commits = calm.committed;
    end(calm, "without a crash");
    assert!(commits > 10, "only {commits} commits");
    for commit in 1..=commits {
        let mut world = begin();
        world.crash_after_commit = Some(commit);
        exchange(&mut world);
        end(world, &format!("its node crashed right after commit {commit} of {commits}"));
    }
}
