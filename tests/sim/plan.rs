//! What a seed draws: the network, who is hostile, what goes wrong, and what is sent.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use distmsg::crypto::{Random, sha256};
use distmsg::model::Span;

use crate::hostile::{KINDS, Kind};
use crate::network::Place;

/// What the operator of the simulation asks for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Nodes in each world.
    pub(crate) nodes: usize,
    /// Hostile nodes, of a hundred; none: each seed draws it.
    pub(crate) hostile_percent: Option<u64>,
    /// The only thing that hostile nodes do; none: each seed draws it.
    pub(crate) kind: Option<Kind>,
    /// Whether nodes crash, links break, disks fill, clocks jump.
    pub(crate) faults: bool,
    /// Messages handed in one after the other, at random; of pairs that talk, so many each.
    pub(crate) messages: u64,
    /// Who talks with whom.
    pub(crate) pairs: Pairs,
    /// Bytes of the largest body.
    pub(crate) body_max: usize,
}

/// Who talks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// Each message is between any two honest nodes.
    Any,
    /// So many pairs of honest nodes talk, as they are drawn.
    Some(usize),
    /// Every honest node talks to every other.
    All,
}

impl FromStr for Pairs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            "all" => Ok(Self::All),
            number => number.parse().map(Self::Some).map_err(|_| "any, all, or how many".into()),
        }
    }
}

impl Display for Pairs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Some(pairs) => pairs.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// Something that happens at its time.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send {
        from: usize,
        to: usize,
        number: u64,
        size: usize,
    },
    Crash(usize),
    /// All links between two nodes break.
    Break(usize, usize),
    /// Ways are cut for a while.
    Cut(BTreeSet<(usize, usize)>, Span),
    /// A node is slow for a while.
    Slow(usize, Span, Span),
    /// A node's clock is set.
    Clock(usize, i64),
    /// A node's clock gains so many parts of a million from now on, or loses them.
    Drift(usize, i64),
    /// A node's disk is full for a while.
    Full(usize, Span),
    /// A node's disk fails once.
    Fail(usize),
    /// A node crashes while its disk is writing.
    Tear(usize),
}

/// All that a seed decides. The rest follows.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) edges: BTreeSet<(usize, usize)>,
    pub(crate) hostile: Vec<(usize, Vec<Kind>)>,
    pub(crate) places: Vec<Place>,
    pub(crate) steps: Vec<(Span, Step)>,
    /// When the last step is over.
    pub(crate) end: Span,
    /// Whether all tables are looked at after every input, and not now and then.
    pub(crate) looks_always: bool,
}

/// Between two messages of one pair, when pairs talk.
const TALK_PAUSE: Span = Span::from_secs(6);
/// The kind of fault that cuts the network in two.
const PARTITION: u64 = 2;
/// How much faster or slower than it should a clock runs at most: one part of twenty.
const DRIFT_MAX: u64 = 50_000;
/// When steps begin: links are up by then.
const BEGIN: Span = Span::from_secs(3);

impl Plan {
    pub(crate) fn draw(seed: u64, options: &Options) -> Self {
        let mut random = Random::from_seed(sha256(&[b"plan", &seed.to_be_bytes()]));
        let nodes = options.nodes;
        let edges = edges(nodes, &mut random);
        let hostile = hostile(nodes, options, &mut random);
        let places = (0..nodes).map(|_| place(&mut random)).collect();
        let (steps, looks_always) = (Vec::new(), false);
        let mut plan =
            Self { seed, nodes, edges, hostile, places, steps, end: BEGIN, looks_always };
        match options.pairs {
            Pairs::Any => plan.draw_messages(options, &mut random),
            Pairs::Some(pairs) => {
                let pairs = (0..pairs).map(|_| plan.draw_pair(&mut random)).collect();
                plan.draw_talks(pairs, options, &mut random);
            }
            Pairs::All => plan.draw_talks(plan.all_pairs(), options, &mut random),
        }
        if options.faults {
            plan.draw_faults(&mut random);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether a node plays by the rules.
    pub(crate) fn is_honest(&self, node: usize) -> bool {
        self.hostile.iter().all(|(hostile, _)| *hostile != node)
    }

    /// Links between nodes on the way from one to another that only honest ones are on; none if
    /// there is no such way.
    pub(crate) fn honest_distance(&self, from: usize, to: usize) -> Option<u64> {
        let mut reached = BTreeSet::from([from]);
        let mut edge = vec![from];
        for distance in 0.. {
            if edge.contains(&to) {
                return Some(distance);
            }
            let next: BTreeSet<usize> = edge
                .iter()
                .flat_map(|node| self.neighbours(*node))
                .filter(|node| self.is_honest(*node) && !reached.contains(node))
                .collect();
            if next.is_empty() {
                return None;
            }
            reached.extend(&next);
            edge = next.into_iter().collect();
        }
        None
    }

    /// Whether nothing goes wrong but that the network is cut in two, and whole again.
    pub(crate) fn is_only_partitioned(&self) -> bool {
        let is_fine = |step: &Step| match step {
            Step::Send { .. } => true,
            Step::Cut(ways, _) => ways.iter().all(|(a, b)| ways.contains(&(*b, *a))),
            _ => false,
        };
        self.hostile.is_empty() && self.steps.iter().all(|(_, step)| is_fine(step))
    }

    fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.iter().filter_map(move |(a, b)| match node {
            _ if node == *a => Some(*b),
            _ if node == *b => Some(*a),
            _ => None,
        })
    }

    fn pick_honest(&self, random: &mut Random) -> usize {
        loop {
            let node = random.below(self.nodes as u64) as usize;
            if self.is_honest(node) {
                return node;
            }
        }
    }

    fn draw_pair(&self, random: &mut Random) -> (usize, usize) {
        loop {
            let (from, to) = (self.pick_honest(random), self.pick_honest(random));
            if from != to {
                return (from, to);
            }
        }
    }

    fn draw_messages(&mut self, options: &Options, random: &mut Random) {
        for number in 1..=options.messages {
            self.end = self.end + Span::from_millis(random.below(600));
            let (from, to) = self.draw_pair(random);
            let size = size(options.body_max, random);
            self.steps.push((self.end, Step::Send { from, to, number, size }));
        }
    }

    /// Every honest node with every other.
    fn all_pairs(&self) -> Vec<(usize, usize)> {
        let honest: Vec<_> = (0..self.nodes).filter(|node| self.is_honest(*node)).collect();
        let with_all = |from: &usize| {
            let from = *from;
            honest.iter().filter(move |to| **to != from).map(move |to| (from, *to))
        };
        honest.iter().flat_map(with_all).collect()
    }

    /// Each pair talks at its own time, so that a message finds what the one before it left.
    fn draw_talks(&mut self, pairs: Vec<(usize, usize)>, options: &Options, random: &mut Random) {
        let mut number = 0;
        for (place, (from, to)) in (0..).zip(pairs) {
            let start = BEGIN + Span::from_millis(place * 120);
            for turn in 0..options.messages {
                number += 1;
                let at = start + TALK_PAUSE.times(turn);
                let size = size(options.body_max, random);
                self.steps.push((at, Step::Send { from, to, number, size }));
                self.end = self.end.max(at);
            }
        }
        // Numbers grow with time, as those of one sender must.
        self.steps.sort_by_key(|(at, _)| *at);
        for (place, (_, step)) in (1..).zip(&mut self.steps) {
            if let Step::Send { number, .. } = step {
                *number = place;
            }
        }
    }

    fn draw_faults(&mut self, random: &mut Random) {
        // A swarm: each seed has some kinds of faults and not others.
        let on: Vec<u64> = match random.below(10) {
            // How fast a network that was cut in two recovers is seen only where that is all.
            0 => vec![PARTITION],
            _ => (0..10).filter(|_| random.below(2) == 0).collect(),
        };
        if on.is_empty() {
            return;
        }
        // While messages are under way: what happens later puts nothing to the test.
        let messages_end = self.end;
        for _ in 0..(4 + random.below(self.nodes as u64 * 2)) {
            let at = BEGIN + Span::from_micros(random.below(messages_end.as_micros()));
            let node = random.below(self.nodes as u64) as usize;
            let some_time = Span::from_millis(200 + random.below(8_000));
            let kind = on[random.below(on.len() as u64) as usize];
            let mut lasts = some_time;
            let step = match kind {
                0 => Step::Crash(node),
                1 => {
                    let at = random.below(self.edges.len() as u64) as usize;
                    let (a, b) = *self.edges.iter().nth(at).expect("an edge");
                    Step::Break(a, b)
                }
                PARTITION => {
                    lasts = some_time.times(2);
                    Step::Cut(self.partition(random), lasts)
                }
                3 => {
                    lasts = some_time.times(4);
                    Step::Cut(self.one_way(random), lasts)
                }
                4 => Step::Slow(node, Span::from_millis(random.below(3_000)), some_time),
                5 => Step::Clock(node, random.below(500_000).cast_signed() - 250_000),
                6 => Step::Full(node, some_time),
                7 => Step::Fail(node),
                8 => Step::Tear(node),
                _ => Step::Drift(
                    node,
                    random.below(2 * DRIFT_MAX).cast_signed() - DRIFT_MAX.cast_signed(),
                ),
            };
            self.steps.push((at, step));
            self.end = self.end.max(at + lasts);
        }
    }

    /// All ways between some nodes and the others.
    fn partition(&self, random: &mut Random) -> BTreeSet<(usize, usize)> {
        let here: Vec<bool> = (0..self.nodes).map(|_| random.below(2) == 0).collect();
        let both = |(a, b): &(usize, usize)| [(*a, *b), (*b, *a)];
        let apart = self.edges.iter().filter(|(a, b)| here[*a] != here[*b]);
        apart.flat_map(both).collect()
    }

    /// Some ways in one direction.
    fn one_way(&self, random: &mut Random) -> BTreeSet<(usize, usize)> {
        let mut ways = BTreeSet::new();
        for (a, b) in &self.edges {
            if random.below(4) == 0 {
                ways.insert(if random.below(2) == 0 { (*a, *b) } else { (*b, *a) });
            }
        }
        ways
    }
}

/// A connected graph: a line or a tree, and chords.
fn edges(nodes: usize, random: &mut Random) -> BTreeSet<(usize, usize)> {
    let mut edges = BTreeSet::new();
    let is_line = random.below(4) == 0;
    for node in 1..nodes {
        let before = if is_line { node - 1 } else { random.below(node as u64) as usize };
        edges.insert((before, node));
    }
    let chords = random.below(nodes as u64 * 2 + 1);
    for _ in 0..chords {
        let (a, b) = (random.below(nodes as u64) as usize, random.below(nodes as u64) as usize);
        if a != b {
            edges.insert((a.min(b), a.max(b)));
        }
    }
    edges
}

fn hostile(nodes: usize, options: &Options, random: &mut Random) -> Vec<(usize, Vec<Kind>)> {
    let percent = options.hostile_percent.unwrap_or_else(|| match random.below(3) {
        0 => 0,
        _ => random.below(34),
    });
    let count = (nodes as u64 * percent / 100).min(nodes as u64 - 2) as usize;
    let mut hostile: BTreeSet<usize> = BTreeSet::new();
    while hostile.len() < count {
        hostile.insert(random.below(nodes as u64) as usize);
    }
    let mut kinds = |_: &usize| match options.kind {
        Some(kind) => vec![kind],
        None => {
            let first = KINDS[random.below(KINDS.len() as u64) as usize];
            let second = KINDS[random.below(KINDS.len() as u64) as usize];
            if random.below(2) == 0 { vec![first] } else { vec![first, second] }
        }
    };
    hostile.iter().map(|node| (*node, kinds(node))).collect()
}

fn place(random: &mut Random) -> Place {
    let latency = match random.below(4) {
        0 => random.below(500),
        1 | 2 => 1_000 + random.below(20_000),
        _ => 20_000 + random.below(120_000),
    };
    let bytes_per_second = match random.below(4) {
        0 => 50_000 + random.below(1_000_000),
        _ => 0,
    };
    Place {
        latency: Span::from_micros(latency),
        jitter: Span::from_micros(random.below(latency + 1)),
        bytes_per_second,
    }
}

fn size(max: usize, random: &mut Random) -> usize {
    let most = match random.below(10) {
        0 => max,
        1 | 2 => max / 10,
        _ => 300,
    };
    8 + random.below(most as u64 + 1).min(max as u64) as usize
}
