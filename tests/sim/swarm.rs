//! Carries out a plan, and finds the shortest faulty part of one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use distmsg::model::Span;
use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::plan::{Plan, Step};
use crate::world::{Counts, Faults, Health, Told, World};

/// After everything is well again, everything must have arrived within this.
const RECOVERY: Span = Span::from_secs(900);
/// The same if all that went wrong is that the network was cut in two.
const PARTITION_RECOVERY: Span = Span::from_secs(60);
/// Clients wait so long for their answer.
const ANSWER: Span = Span::from_secs(25);

/// How long everything is looked at once it has arrived.
const AFTERMATH: Span = Span::from_secs(5);

/// From this message on, a pair knows its ways.
const LATE: u64 = 20;

/// What came of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// A hash of everything that happened.
    pub(crate) trace: u64,
    pub(crate) counts: Counts,
    pub(crate) simulated_ms: u64,
    /// How long after the last fault everything had arrived.
    pub(crate) recovered_ms: u64,
    /// Whether all that went wrong is that the network was cut in two.
    pub(crate) only_partitioned: bool,
    pub(crate) faults: usize,
    /// Messages that arrived.
    pub(crate) delivered: usize,
    /// Of each that arrived, and whose sender and recipient are joined by a way that only honest
    /// nodes are on: attempts, and how long it took. Others depend on what the hostile are up to.
    pub(crate) attempts: Vec<u64>,
    /// The same of those that went after twenty others from the same sender to the same recipient.
    pub(crate) attempts_late: Vec<u64>,
    pub(crate) latencies_ms: Vec<u64>,
    /// Links on the shortest honest ways of all these messages.
    pub(crate) shortest: u64,
}

/// Runs a plan as a test does; the first thing that was wrong, if anything was.
pub(crate) fn run(plan: &Plan) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run_through(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "it panicked".to_owned())
    })
}

pub(crate) fn run_through(plan: &Plan) -> Outcome {
    let calm = Faults { loss: 0, delay_ms: (1, 3), cuts: false, crashes: false };
    let mut world = World::new(plan.seed, plan.nodes, calm);
    world.looks_always = plan.looks_always;
    world.enter(Network::new(plan.places.clone()));
    for (node, kinds) in &plan.hostile {
        world.corrupt(*node, kinds.clone());
    }
    for (a, b) in &plan.edges {
        world.connect(*a, *b);
    }
    let start = world.now;
    let mut ends: Vec<(Span, Step)> = Vec::new();
    let mut steps = plan.steps.iter().cloned().peekable();
    let mut faults = 0;
    let mut last_fault = Span::ZERO;
    loop {
        ends.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let next_end = ends.last().map(|(at, _)| *at);
        let next_step = steps.peek().map(|(at, _)| *at);
        let (at, step, is_end) = match (next_end, next_step) {
            (Some(end), step) if step.is_none_or(|step| end <= step) => {
                let (at, step) = ends.pop().expect("one");
                (at, step, true)
            }
            (_, Some(_)) => {
                let (at, step) = steps.next().expect("one");
                (at, step, false)
            }
            _ => break,
        };
        let passed = world.now.since(start);
        if at > passed {
            world.run(Span::from_micros(at.as_micros() - passed.as_micros()));
        }
        if !matches!(step, Step::Send { .. }) {
            faults += usize::from(!is_end);
            last_fault = last_fault.max(at);
        }
        match is_end {
            true => end(&mut world, &step),
            false => ends.extend(begin(&mut world, &step).map(|pause| (at + pause, step))),
        }
    }
    let healed = world.now;
    for node in 0..plan.nodes {
        world.set_drift(node, 0);
        world.set_clock(node, 0);
        world.set_health(node, Health::Good);
    }
    let missing = |world: &World| missing(world, plan);
    let most = if plan.is_only_partitioned() { PARTITION_RECOVERY } else { RECOVERY };
    let done = world.run_until(most, |world| missing(world).is_none());
    assert!(
        done,
        "{most:?} after everything is well again: {}",
        missing(&world).unwrap_or_default()
    );
    let recovered_after = world.now.since(healed);
    // What comes twice comes soon after.
    world.run(AFTERMATH);
    world.run_until(ANSWER, |world| untold(world).is_none());
    check_told(&world);
    outcome(&world, plan, world.now.since(start), recovered_after, faults)
}

/// Begins a step; how long it lasts, if it ends.
fn begin(world: &mut World, step: &Step) -> Option<Span> {
    match step {
        Step::Send { from, to, number, size } => {
            world.hand_in(*from, *to, *number, *size);
            None
        }
        Step::Crash(node) => {
            world.crash(*node);
            None
        }
        Step::Break(a, b) => {
            world.part(*a, *b);
            None
        }
        Step::Cut(ways, pause) => {
            world.network().cut(ways);
            Some(*pause)
        }
        Step::Slow(node, by, pause) => {
            world.network().set_slow(*node, Some(*by));
            Some(*pause)
        }
        Step::Clock(node, ahead_ms) => {
            world.set_clock(*node, *ahead_ms);
            None
        }
        Step::Full(node, pause) => {
            world.set_health(*node, Health::Full);
            Some(*pause)
        }
        Step::Fail(node) => {
            world.set_health(*node, Health::Failing);
            None
        }
        Step::Tear(node) => {
            world.set_health(*node, Health::Dying);
            None
        }
        Step::Drift(node, millionths) => {
            world.set_drift(*node, *millionths);
            None
        }
    }
}

fn end(world: &mut World, step: &Step) {
    match step {
        Step::Cut(ways, _) => {
            world.network().mend(ways);
            world.release();
        }
        Step::Slow(node, ..) => world.network().set_slow(*node, None),
        Step::Full(node, _) => world.set_health(*node, Health::Good),
        _ => {}
    }
}

/// A message that has to arrive and has not.
fn missing(world: &World, plan: &Plan) -> Option<String> {
    let referee = world.referee.as_ref().expect("a referee");
    let missing = referee.handed().iter().find(|(number, handed)| {
        // Of what is in no outbox, on disk, the client was told so, or the daemon crashed.
        let is_lost = !referee.is_queued(**number)
            && (world.unheard.contains(&number.cast_signed())
                || matches!(world.told.get(&number.cast_signed()), Some(Told::Failed(_))));
        !referee.arrived().contains_key(number)
            && !is_lost
            && plan.honest_distance(handed.from, handed.to).is_some()
    });
    missing.map(|(number, handed)| {
        format!("message {number} from node {} has not come to node {}", handed.from, handed.to)
    })
}

/// A message that nobody was told of.
fn untold(world: &World) -> Option<i64> {
    let referee = world.referee.as_ref().expect("a referee");
    let mut all = referee.handed().keys().map(|number| number.cast_signed());
    all.find(|number| !world.told.contains_key(number) && !world.unheard.contains(number))
}

fn check_told(world: &World) {
    if let Some(number) = untold(world) {
        panic!("nobody was told of message {number}");
    }
    let referee = world.referee.as_ref().expect("a referee");
    for number in referee.handed().keys() {
        let number = number.cast_signed();
        if let Some(Told::Failed(why)) = world.told.get(&number) {
            assert!(why.contains("StorageFull"), "message {number}: {why}");
        }
    }
}

fn outcome(
    world: &World,
    plan: &Plan,
    simulated: Span,
    recovered_after: Span,
    faults: usize,
) -> Outcome {
    let referee = world.referee.as_ref().expect("a referee");
    let distance = |number: &u64| {
        let handed = &referee.handed()[number];
        plan.honest_distance(handed.from, handed.to)
    };
    let arrived = referee.arrived().iter();
    let joined = arrived.filter_map(|(number, arrived)| Some((distance(number)?, *arrived)));
    let joined: Vec<_> = joined.collect();
    let late = joined.iter().filter(|(_, arrived)| arrived.turn >= LATE);
    Outcome {
        trace: world.trace(),
        counts: world.counts,
        simulated_ms: simulated.as_millis(),
        recovered_ms: recovered_after.as_millis(),
        only_partitioned: faults > 0 && plan.is_only_partitioned(),
        faults,
        delivered: referee.arrived().len(),
        attempts_late: late.map(|(_, arrived)| arrived.attempts).collect(),
        attempts: joined.iter().map(|(_, arrived)| arrived.attempts).collect(),
        latencies_ms: joined.iter().map(|(_, arrived)| arrived.after.as_millis()).collect(),
        shortest: joined.iter().map(|(distance, _)| distance).sum(),
    }
}

/// The part of a plan that is carried out, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) steps: Vec<usize>,
    pub(crate) hostile: Vec<usize>,
}

impl Part {
    /// All of it.
    pub(crate) fn whole(plan: &Plan) -> Self {
        Self { steps: (0..plan.steps.len()).collect(), hostile: (0..plan.hostile.len()).collect() }
    }

    pub(crate) fn of(&self, plan: &Plan) -> Plan {
        let mut part = plan.clone();
        part.steps = self.steps.iter().filter_map(|at| plan.steps.get(*at).cloned()).collect();
        part.hostile =
            self.hostile.iter().filter_map(|at| plan.hostile.get(*at).cloned()).collect();
        part
    }
}

/// The shortest part of a plan that still fails, found by leaving steps and hostile nodes out:
/// halves first, then smaller parts (Zeller and Hildebrandt, "Simplifying and isolating
/// failure-inducing input", 2002).
pub(crate) fn shrink(plan: &Plan, mut budget: usize, mut fails: impl FnMut(&Part) -> bool) -> Part {
    let mut shortest = Part::whole(plan);
    let mut size = shortest.steps.len().div_ceil(2);
    while size > 0 && budget > 0 {
        let mut from = 0;
        let mut any = false;
        while from < shortest.steps.len() && budget > 0 {
            let mut candidate = shortest.clone();
            candidate.steps.drain(from..(from + size).min(shortest.steps.len()));
            budget -= 1;
            if fails(&candidate) {
                shortest = candidate;
                any = true;
            } else {
                from += size;
            }
        }
        if !any {
            size /= 2;
        }
    }
    for at in (0..shortest.hostile.len()).rev().take(budget) {
        let mut candidate = shortest.clone();
        candidate.hostile.remove(at);
        if fails(&candidate) {
            shortest = candidate;
        }
    }
    shortest
}
