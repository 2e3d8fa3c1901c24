//! What the operator knows of peers: aliases, and which ones are kept connected.

use std::collections::{BTreeMap, BTreeSet};

use super::links::verified;
use super::{Caller, Core};
use crate::control::Outgoing as ToClient;
use crate::control::protocol::{
    Discover, DiscoverCounts, DiscoveredEvent, ErrorCode, Event, Failure, PeerRef, Reply, SetAlias,
};
use crate::courier;
use crate::model::limits::KNOWN_PEERS_MAX;
use crate::model::{
    Address, Monotonic, Name, Now, Occupancy, PeerId, SignedRecord, Span, escaped, excerpt,
};
use crate::router::{self, DiscoverOutcome};
use crate::store::op::{Op, PeerRow};
use crate::wire::CloseReason;

/// Candidates that an ambiguous prefix is shown with.
const CANDIDATES_MAX: usize = 4;
/// Peers remembered as acquainted by their receipts.
const ACQUAINTED_MAX: usize = 100_000;

/// Clients that wait for a discover to end.
const DISCOVERING_MAX: usize = 1_024;

/// What the operator said of a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) alias: Option<Name>,
    /// Where it was connected: its link is kept.
    pub(super) dial: Option<Address>,
}

/// The operator's table of peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<PeerId, Known>,
    aliases: BTreeMap<Name, PeerId>,
    acquainted: BTreeSet<PeerId>,
    /// Who waits for a discover to end, and until when.
    discovering: Vec<(Caller, Monotonic)>,
}

impl Peers {
    pub(super) fn known(&self, peer: &PeerId) -> Option<&Known> {
        self.known.get(peer)
    }

    pub(super) fn alias(&self, peer: &PeerId) -> Option<&Name> {
        self.known.get(peer)?.alias.as_ref()
    }

    pub(super) fn dial(&self, peer: &PeerId) -> Option<&Address> {
        self.known.get(peer)?.dial.as_ref()
    }

    /// Peers known by the operator or not, after one, in order.
    pub(super) fn ids_after(&self, after: Option<PeerId>) -> impl Iterator<Item = PeerId> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.known.range((from, Unbounded)).map(|(peer, _)| *peer)
    }

    pub(super) fn owner_of(&self, alias: &Name) -> Option<PeerId> {
        self.aliases.get(alias).copied()
    }

    /// Notes that a peer sent a receipt; true if it had not before.
    pub(super) fn acquaint(&mut self, peer: PeerId) -> bool {
        self.acquainted.len() < ACQUAINTED_MAX && self.acquainted.insert(peer)
    }

    pub(super) fn deadline(&self) -> Monotonic {
        let deadlines = self.discovering.iter().map(|(_, deadline)| *deadline);
        deadlines.min().unwrap_or(Monotonic::NEVER)
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 4] {
        [
            Occupancy::new("peers of the operator", self.known.len(), KNOWN_PEERS_MAX),
            Occupancy::new("aliases", self.aliases.len(), self.known.len()),
            Occupancy::new("peers that sent receipts", self.acquainted.len(), ACQUAINTED_MAX),
            Occupancy::new("clients that discover", self.discovering.len(), DISCOVERING_MAX),
        ]
    }

    fn is_standing(&self, peer: &PeerId) -> bool {
        self.known.contains_key(peer) || self.acquainted.contains(peer)
    }
}

impl Core {
    pub(super) fn restore_peers(&mut self, now: Now, rows: Vec<PeerRow>) {
        for row in rows {
            let PeerRow { peer, record, alias, dial } = row;
            self.storage.note_row(peer);
            if alias.is_some() || dial.is_some() {
                if let Some(alias) = &alias {
                    self.peers.aliases.insert(alias.clone(), peer);
                }
                self.peers.known.insert(peer, Known { alias, dial: dial.clone() });
                self.router.handle(now, router::Input::Standing { peer, known: true });
            }
            // Signed, so that what the disk damaged is noticed; its peer can be asked again.
            if let Some(bytes) = record
                && let Some(record) = verified(peer, &bytes)
            {
                let record = SignedRecord { record, bytes };
                self.router.handle(now, router::Input::StoredRecord(record));
            }
            if dial.is_some() {
                self.links.keep(peer, now.mono);
            }
        }
    }

    /// The peer that a client means: an alias, a full ID, or the beginning of exactly one known ID.
    pub(super) fn resolve(&self, text: &str) -> Result<PeerId, Failure> {
        if let Ok(name) = text.parse::<Name>() {
            return self.peers.owner_of(&name).ok_or_else(|| {
                let text = format!(
                    "no peer has the alias '{}'; see 'distmsgctl peers', or give a full peer ID",
                    escaped(text)
                );
                Failure::new(ErrorCode::NoSuchPeer, text)
            });
        }
        let error = match text.parse::<PeerId>() {
            Ok(peer) => return Ok(peer),
            Err(error) => error,
        };
        let Some(range) = PeerId::range_of_prefix(text) else {
            let text = format!("'{}' is no alias and no peer ID: {error}", excerpt(text, 80));
            return Err(Failure::new(ErrorCode::NoSuchPeer, text));
        };
        let mut found: Vec<PeerId> = self
            .peers
            .known
            .range(range.clone())
            .map(|(peer, _)| *peer)
            .take(CANDIDATES_MAX)
            .collect();
        let records = self.router.records_in(range, CANDIDATES_MAX);
        found.extend(records);
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [peer] => Ok(*peer),
            [] => {
                let text = "no known peer ID begins with this; give the full ID".to_owned();
                Err(Failure::new(ErrorCode::NoSuchPeer, text))
            }
            _ => {
                let text = format!(
                    "{} and others begin with this; give more of the ID",
                    found_text(&found)
                );
                Err(Failure::new(ErrorCode::AmbiguousPeer, text))
            }
        }
    }

    /// Puts what the operator said of a peer into the table, and on disk.
    pub(super) fn set_known(&mut self, now: Now, peer: PeerId, known: Known) {
        if let Some(old) = self.peers.known.get(&peer).and_then(|old| old.alias.clone()) {
            self.peers.aliases.remove(&old);
        }
        if let Some(alias) = &known.alias {
            self.peers.aliases.insert(alias.clone(), peer);
        }
        if known.alias.is_some() || known.dial.is_some() {
            self.peers.known.insert(peer, known);
        } else {
            self.peers.known.remove(&peer);
        }
        let standing = self.peers.is_standing(&peer);
        self.router.handle(now, router::Input::Standing { peer, known: standing });
        // At once, in order: an alias may be taken from one peer for another.
        self.storage.later(self.peer_op(peer));
    }

    /// The change that stores everything known of a peer.
    pub(super) fn peer_op(&self, peer: PeerId) -> Op {
        let known = self.peers.known.get(&peer).cloned().unwrap_or_default();
        let record = self.router.record(&peer).map(|record| record.bytes.clone());
        if record.is_none() && known.alias.is_none() && known.dial.is_none() {
            Op::DropPeer(peer)
        } else {
            Op::Peer(Box::new(PeerRow { peer, record, alias: known.alias, dial: known.dial }))
        }
    }

    pub(super) fn on_alias(&mut self, now: Now, caller: Caller, request: SetAlias) {
        let peer = match self.resolve(&request.peer) {
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        let alias = match request.alias.as_deref().map(|alias| self.free_alias(alias, peer)) {
            None => None,
            Some(Ok(alias)) => Some(alias),
            Some(Err(failure)) => return self.fail(caller, failure),
        };
        if alias.is_some()
            && let Err(failure) = self.room_for_known(&peer)
        {
            return self.fail(caller, failure);
        }
        let mut known = self.peers.known(&peer).cloned().unwrap_or_default();
        known.alias = alias;
        self.set_known(now, peer, known);
        self.done_later(caller);
    }

    /// Whether the operator may have one more peer, unless this one is among them.
    pub(super) fn room_for_known(&self, peer: &PeerId) -> Result<(), Failure> {
        if self.peers.known.len() < KNOWN_PEERS_MAX || self.peers.known.contains_key(peer) {
            return Ok(());
        }
        let text = format!(
            "{KNOWN_PEERS_MAX} peers have an alias or are connected, and there may be no more; \
             forget one with 'distmsgctl forget PEER'"
        );
        Err(Failure::new(ErrorCode::TooLarge, text))
    }

    /// An alias that the peer may have.
    pub(super) fn free_alias(&self, alias: &str, peer: PeerId) -> Result<Name, Failure> {
        let name: Name = alias.parse().map_err(|error| {
            let text = format!("'{}' is no alias: {error}", excerpt(alias, 80));
            Failure::new(ErrorCode::InvalidParams, text)
        })?;
        match self.peers.owner_of(&name) {
            Some(owner) if owner != peer => {
                let text = format!(
                    "the alias '{name}' belongs to {owner}; take it away with \
                     'distmsgctl alias {name} --remove', or choose another"
                );
                Err(Failure::new(ErrorCode::AliasTaken, text))
            }
            _ => Ok(name),
        }
    }

    pub(super) fn on_forget(&mut self, now: Now, caller: Caller, request: &PeerRef) {
        let peer = match self.resolve(&request.peer) {
            Ok(peer) => peer,
            Err(failure) => return self.fail(caller, failure),
        };
        if self.peers.known(&peer).is_none() && self.router.record(&peer).is_none() {
            let text = "nothing is known of this peer; there is nothing to forget";
            return self.fail(caller, Failure::new(ErrorCode::NoSuchPeer, text));
        }
        self.links.let_go(&peer);
        self.close_link(now, &peer, CloseReason::Operator, "forgotten by the operator");
        self.peers.acquainted.remove(&peer);
        self.router.handle(now, router::Input::Forget(peer));
        self.courier.handle(now, courier::Input::Forget(peer));
        self.set_known(now, peer, Known::default());
        self.done_later(caller);
    }

    pub(super) fn on_learned(
        &mut self,
        now: Now,
        record: &SignedRecord,
        via: PeerId,
        new: bool,
        discovered: bool,
    ) {
        let peer = record.record.peer;
        self.storage.record_learned(peer);
        self.courier.handle(now, courier::Input::Nudge { peer: Some(peer) });
        if discovered {
            let event = Event::Discovered(DiscoveredEvent {
                peer: peer.to_string(),
                name: record.record.name.as_ref().map(ToString::to_string),
                addresses: record.record.addresses.iter().map(ToString::to_string).collect(),
                via: via.to_string(),
                new,
            });
            for (caller, _) in &self.peers.discovering {
                self.out.tell(caller.client, ToClient::Event(event.clone()));
            }
        }
    }

    pub(super) fn on_discover(&mut self, now: Now, caller: Caller, request: &Discover) {
        if self.peers.discovering.len() >= DISCOVERING_MAX {
            let text = "many clients wait for a discover already; try again";
            return self.fail(caller, Failure::new(ErrorCode::Busy, text));
        }
        let deadline = now.mono + Span::from_millis(request.timeout_ms);
        self.peers.discovering.push((caller, deadline));
        self.router.handle(now, router::Input::Discover);
    }

    pub(super) fn on_discovered(&mut self, outcome: DiscoverOutcome) {
        let counts = DiscoverCounts {
            asked: outcome.asked,
            answered: outcome.answered,
            new: outcome.new,
            updated: outcome.updated,
            known: self.router.records_len() as u64,
        };
        for (caller, _) in std::mem::take(&mut self.peers.discovering) {
            self.reply(caller, Reply::Discover(counts));
        }
    }

    /// Tells those who waited long enough; the discover itself goes on.
    pub(super) fn tick_peers(&mut self, now: Now) {
        let late = |(_, deadline): &(Caller, Monotonic)| *deadline <= now.mono;
        while let Some(at) = self.peers.discovering.iter().position(late) {
            let (caller, _) = self.peers.discovering.swap_remove(at);
            let text =
                "not every neighbour has told all it knows in time; what was learned is kept";
            self.fail(caller, Failure::new(ErrorCode::Timeout, text));
        }
    }

    /// A client is gone: it waits for nothing any more.
    pub(super) fn forget_discoverer(&mut self, client: super::ClientId) {
        self.peers.discovering.retain(|(caller, _)| caller.client != client);
    }
}

fn found_text(found: &[PeerId]) -> String {
    found.iter().take(2).map(PeerId::short).collect::<Vec<_>>().join(", ")
}
