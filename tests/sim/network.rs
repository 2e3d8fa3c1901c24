//! What lies between the nodes: time, room, order, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use distmsg::crypto::Random;
use distmsg::model::{Monotonic, Span};

/// How far off a node is, and how much fits through its door.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) latency: Span,
    /// What comes on top of it, at most.
    pub(crate) jitter: Span,
    /// Bytes a second that leave the node; 0 for any number.
    pub(crate) bytes_per_second: u64,
}

/// All ways between nodes. A link is a stream, as TCP makes it: nothing is lost or overtaken while
/// it is up, but what comes over different links is not in any order. Frames that meet a cut wait
/// for its end, as long as their link lives.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    places: Vec<Place>,
    /// Ways that are cut, each in one direction, and how often.
    cuts: BTreeMap<(usize, usize), u32>,
    /// When the last frame of each way arrives.
    busy: BTreeMap<(usize, usize), Monotonic>,
    /// Nodes that are slow for a while, and by how much.
    slow: BTreeMap<usize, Span>,
}

impl Network {
    pub(crate) fn new(places: Vec<Place>) -> Self {
        let (cuts, busy, slow) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { places, cuts, busy, slow }
    }

    /// Nobody is nearer to others, or has a wider door.
    pub(crate) fn place_next_to_all(&mut self, node: usize) {
        self.places[node] = Place { latency: Span::ZERO, jitter: Span::ZERO, bytes_per_second: 0 };
    }

    /// When a frame has left, and when it arrives.
    pub(crate) fn pass(
        &mut self,
        (from, to): (usize, usize),
        bytes: usize,
        now: Monotonic,
        random: &mut Random,
    ) -> (Monotonic, Monotonic) {
        let (here, there) = (self.places[from], self.places[to]);
        let slow = |node| self.slow.get(&node).copied().unwrap_or(Span::ZERO);
        let jitter = here.jitter + there.jitter;
        let jitter = Span::from_micros(random.below(jitter.as_micros() + 1));
        let latency = here.latency + there.latency + slow(from) + slow(to) + jitter;
        let writing = match here.bytes_per_second {
            0 => Span::from_micros(10),
            room => Span::from_micros(bytes as u64 * 1_000_000 / room),
        };
        let way = self.busy.entry((from, to)).or_insert(Monotonic::START);
        let left = now.max(*way) + writing;
        *way = left;
        // The stream keeps its order: what is late makes what follows late.
        let arrives = self.busy.entry((from + self.places.len(), to)).or_insert(Monotonic::START);
        *arrives = (*arrives).max(left + latency);
        (left, *arrives)
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0)
    }

    pub(crate) fn cut(&mut self, ways: &BTreeSet<(usize, usize)>) {
        for way in ways {
            *self.cuts.entry(*way).or_insert(0) += 1;
        }
    }

    pub(crate) fn mend(&mut self, ways: &BTreeSet<(usize, usize)>) {
        for way in ways {
            if let Some(cuts) = self.cuts.get_mut(way) {
                *cuts = cuts.saturating_sub(1);
            }
        }
    }

    pub(crate) fn set_slow(&mut self, node: usize, by: Option<Span>) {
        match by {
            Some(by) => self.slow.insert(node, by),
            None => self.slow.remove(&node),
        };
    }
}
