//! Who is linked with whom.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::daemon::args::Topology;

/// Two nodes by number: the first dials the second.
pub(super) type Edge = (usize, usize);

/// A seed when none was given.
pub(super) fn any_seed() -> u64 {
    let mut bytes = [0; 4];
    // Without randomness every lab is the same, which harms nobody.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from(u32::from_be_bytes(bytes))
}

/// The links of a network of at least two nodes. All networks are connected.
pub(super) fn edges(nodes: usize, topology: Topology, seed: u64) -> Vec<Edge> {
    let line = (1..nodes).map(|node| (node - 1, node));
    match topology {
        Topology::Line => line.collect(),
        // Two nodes in a ring are a line: there is one link between two peers.
        Topology::Ring if nodes > 2 => line.chain([(nodes - 1, 0)]).collect(),
        Topology::Ring => line.collect(),
        // Around the second node, so that the first one's messages have a relay.
        Topology::Star => {
            let hub = usize::from(nodes > 2);
            (0..nodes).filter(|node| *node != hub).map(|node| (hub, node)).collect()
        }
        Topology::Random => random(nodes, seed),
    }
}

/// A random tree, and half as many links again.
fn random(nodes: usize, seed: u64) -> Vec<Edge> {
    let mut random = Draw(seed);
    let mut edges: BTreeSet<Edge> = (1..nodes).map(|node| (random.below(node), node)).collect();
    for _ in 0..nodes / 2 {
        let (a, b) = (random.below(nodes), random.below(nodes));
        if a != b {
            edges.insert((a.min(b), a.max(b)));
        }
    }
    edges.into_iter().collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers for the same seed, everywhere.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(mixed % end).unwrap_or(0)
    }
}

/// The network as a picture.
pub(super) fn picture(names: &[&str], topology: Topology, edges: &[Edge], seed: u64) -> String {
    let mut text = String::new();
    let line = names.join(" --- ");
    match topology {
        Topology::Ring if names.len() > 2 => {
            let width = line.chars().count().saturating_sub(2);
            let _ = write!(text, "{line}\n |{}|", " ".repeat(width.saturating_sub(2)));
            let _ = write!(text, "\n +{}+", "-".repeat(width.saturating_sub(2)));
        }
        // Two nodes in a ring are a line.
        Topology::Line | Topology::Ring => text.push_str(&line),
        Topology::Star | Topology::Random => {
            if topology == Topology::Random {
                let _ = writeln!(text, "random network, --seed {seed}:");
            }
            let name = |node: usize| names.get(node).copied().unwrap_or_default();
            let mut from: Vec<usize> = edges.iter().map(|edge| edge.0).collect();
            from.dedup();
            for node in from {
                let to: Vec<&str> =
                    edges.iter().filter(|edge| edge.0 == node).map(|edge| name(edge.1)).collect();
                let _ = writeln!(text, "{} --- {}", name(node), to.join(", "));
            }
        }
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_connected(nodes: usize, edges: &[Edge]) -> bool {
        let mut reached = BTreeSet::from([0]);
        for _ in 0..nodes {
            for (a, b) in edges {
                if reached.contains(a) || reached.contains(b) {
                    reached.extend([*a, *b]);
                }
            }
        }
        reached.len() == nodes
    }

    #[test]
    fn every_network_is_connected_without_a_link_twice() {
        for topology in [Topology::Line, Topology::Ring, Topology::Star, Topology::Random] {
            for nodes in 2..40 {
                let edges = edges(nodes, topology, nodes as u64);
                assert!(is_connected(nodes, &edges), "{topology:?} {nodes}");
                let pairs: BTreeSet<_> = edges.iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
                assert_eq!(pairs.len(), edges.len(), "{topology:?} {nodes}");
            }
        }
    }

    #[test]
    fn a_seed_makes_the_same_network_again() {
        let make = |seed| edges(20, Topology::Random, seed);
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn pictures_show_all_links() {
        let names = ["alice", "bob", "carol"];
        let show = |topology| picture(&names, topology, &edges(3, topology, 1), 1);
        assert_eq!(show(Topology::Line), "alice --- bob --- carol\n");
        assert_eq!(show(Topology::Star), "bob --- alice, carol\n");
        let ring = "alice --- bob --- carol\n |                   |\n +-------------------+\n";
        assert_eq!(show(Topology::Ring), ring);
        let two = picture(&names[..2], Topology::Ring, &edges(2, Topology::Ring, 1), 1);
        assert_eq!(two, "alice --- bob\n", "there is one link");
    }
}
