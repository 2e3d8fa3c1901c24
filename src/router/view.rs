//! What operators may read of a router's tables.

use std::ops::RangeInclusive;

use super::Router;
use super::neighbour::Neighbour;
use super::route::Hop;
use crate::model::{Monotonic, PeerId, SignedRecord, Span};

/// The ways known to one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteView {
    /// Whom they lead to.
    pub destination: PeerId,
    /// The best first; only through neighbours that are linked now.
    pub next_hops: Vec<NextHopView>,
}

/// One way to a destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextHopView {
    /// The neighbour.
    pub neighbour: PeerId,
    /// Links to the destination, by hearsay; 1 is the neighbour itself.
    pub hops: u8,
    /// From 0 (only misses) to 1 (only verified receipts).
    pub score: f64,
    /// Verified receipts that came back this way.
    pub receipts: u64,
    /// When it was learned first.
    pub learned: Monotonic,
    /// When it was last learned or confirmed by a receipt.
    pub confirmed: Monotonic,
}

/// A link that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourView {
    /// Who is at its other end.
    pub peer: PeerId,
    /// When it came up.
    pub up_since: Monotonic,
    /// Round trip of the last ping that was answered.
    pub rtt_last: Option<Span>,
    /// Moving average of round trips.
    pub rtt: Option<Span>,
    /// Bytes handed to the link that were not written yet.
    pub queued_bytes: usize,
}

impl Router {
    /// The record of a peer.
    pub fn record(&self, peer: &PeerId) -> Option<&SignedRecord> {
        self.directory.record(peer)
    }

    /// At most so many records of peers after one, in order of their IDs. Our own is not among
    /// them.
    pub fn records_after(&self, after: Option<PeerId>, count: usize) -> Vec<&SignedRecord> {
        self.directory.after(after).take(count).collect()
    }

    /// At most so many peers of a range of IDs whose records there are.
    pub fn records_in(&self, range: RangeInclusive<PeerId>, count: usize) -> Vec<PeerId> {
        self.directory.within(range).take(count).collect()
    }

    /// How many records there are, our own not counted.
    pub fn records_len(&self) -> usize {
        self.directory.len()
    }

    /// At most so many destinations after one, in order, with the ways to them. Destinations that
    /// no way leads to at present are left out.
    pub fn routes_after(&self, after: Option<PeerId>, count: usize) -> Vec<RouteView> {
        let routes = self.routes.after(after, self.now.mono).filter_map(|(destination, hops)| {
            let mut next_hops: Vec<NextHopView> =
                hops.filter(|hop| self.neighbours.contains_key(&hop.via)).map(view_of).collect();
            // As they are tried: those that fell silent last, else in the order that they have.
            next_hops.sort_by_key(|hop| self.is_doubted(&hop.neighbour));
            (!next_hops.is_empty()).then_some(RouteView { destination: *destination, next_hops })
        });
        routes.take(count).collect()
    }

    /// The link to a neighbour.
    pub fn neighbour(&self, peer: &PeerId) -> Option<NeighbourView> {
        self.neighbours.get(peer).map(|neighbour| neighbour.view(*peer))
    }

    /// Moving average of a neighbour's round trips.
    pub fn rtt(&self, peer: &PeerId) -> Option<Span> {
        self.neighbours.get(peer)?.rtt_smoothed
    }

    /// All links, in order of their peers' IDs.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourView> {
        self.neighbours.iter().map(|(peer, neighbour)| neighbour.view(*peer))
    }
}

impl Neighbour {
    const fn view(&self, peer: PeerId) -> NeighbourView {
        NeighbourView {
            peer,
            up_since: self.up_since,
            rtt_last: self.rtt_last,
            rtt: self.rtt_smoothed,
            queued_bytes: self.queued,
        }
    }
}

fn view_of(hop: &Hop) -> NextHopView {
    NextHopView {
        neighbour: hop.via,
        hops: hop.hops,
        score: hop.score(),
        receipts: hop.receipts,
        learned: hop.learned,
        confirmed: hop.confirmed,
    }
}
