//! The record table: what peers say of themselves, verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, RangeInclusive};

use bytes::Bytes;

use super::shares::Shares;
use super::timers::Timer;
use super::{Output, Router};
use crate::crypto::{self, Domain};
use crate::model::limits::{CLOCK_SKEW_MAX, DIGESTS_MAX, RECORD_LIFETIME_MAX};
use crate::model::{NetworkId, Occupancy, PeerId, Record, SignedRecord, Span, Timestamp};
use crate::wire::{self, Digest, Frame, ParsedRecord};

/// How long news wait for others to go with them.
const NEWS_DELAY: Span = Span::from_millis(50);

/// The table.
#[derive(Debug)]
pub(super) struct Directory {
    entries: BTreeMap<PeerId, Entry>,
    /// In order of expiry.
    expiring: BTreeSet<(Timestamp, PeerId)>,
    /// What may be evicted, by who brought it; the first to expire is the first to go.
    shares: Shares<(Timestamp, PeerId)>,
    records_max: usize,
    /// Peers of which there are news to tell, and the neighbour that told us.
    news: BTreeMap<PeerId, PeerId>,
    /// The highest sequence of our own record that others had and that we reported since we have
    /// the one that we have.
    ahead: u64,
}

/// A record and what its eviction depends on.
#[derive(Debug)]
struct Entry {
    record: SignedRecord,
    /// The neighbour that first brought a record of this peer: whose share it is.
    bringer: PeerId,
    /// The neighbour that brought this one; we, if it was stored and no neighbour had it yet. It
    /// had it before we did, and so on: following them leads to the peer, most often. Those that
    /// lie, are gone, or stored it as we did may lead elsewhere.
    teller: PeerId,
    /// Never evicted: a neighbour, or one the operator or a receipt made known.
    kept: bool,
}

/// How a record compares with what is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// The very same bytes: nothing needs to be verified.
    Same,
    /// Not newer.
    Older,
    /// Newer, or of a peer not known before.
    Newer,
}

/// Why a record is refused, whoever signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    OtherPeer,
    OtherNetwork,
    FromTheFuture,
    Expired,
    TooLong,
    Forged,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the record is malformed",
            Self::OtherPeer => "the record is of another peer",
            Self::OtherNetwork => "the record is of another network",
            Self::FromTheFuture => "the record is from the future; check both clocks",
            Self::Expired => "the record is expired; check both clocks",
            Self::TooLong => "the record is valid for too long; check both clocks",
            Self::Forged => "the record's signature does not hold",
        })
    }
}

/// How a record came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a hello or a find, or asked for one by one: there is room for it.
    Wanted,
    /// In a flood that everybody got.
    Flooded,
    /// In a comparison of tables.
    Exchange,
}

impl Directory {
    pub(super) fn new(records_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            expiring: BTreeSet::new(),
            shares: Shares::default(),
            records_max,
            news: BTreeMap::new(),
            ahead: 0,
        }
    }

    pub(super) fn record(&self, peer: &PeerId) -> Option<&SignedRecord> {
        self.entries.get(peer).map(|entry| &entry.record)
    }

    /// Who told us what we know of a peer.
    pub(super) fn teller(&self, peer: &PeerId) -> Option<PeerId> {
        self.entries.get(peer).map(|entry| entry.teller)
    }

    /// A neighbour has the same record of a peer as we have. If no neighbour is known that told us
    /// (we stored it, or that one is gone), this one might have.
    pub(super) fn hear(&mut self, digest: &Digest, from: PeerId, is_up: impl Fn(&PeerId) -> bool) {
        if let Some(entry) = self.entries.get_mut(&digest.peer)
            && entry.record.record.sequence == digest.sequence
            && !is_up(&entry.teller)
        {
            entry.teller = from;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// With so many links at most. Records that are kept are never evicted: there are as many as
    /// peers known, and those of neighbours on top.
    pub(super) fn occupancy(&self, links_max: usize) -> [Occupancy; 3] {
        let limit = self.records_max.saturating_add(links_max).saturating_add(1);
        [
            Occupancy::new("records", self.entries.len(), limit),
            Occupancy::new("records by expiry", self.expiring.len(), self.entries.len()),
            Occupancy::new("news of records", self.news.len(), DIGESTS_MAX),
        ]
    }

    /// Records after a peer, in order.
    pub(super) fn after(&self, after: Option<PeerId>) -> impl Iterator<Item = &SignedRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|(_, entry)| &entry.record)
    }

    /// Peers of a range of IDs, in order.
    pub(super) fn within(&self, range: RangeInclusive<PeerId>) -> impl Iterator<Item = PeerId> {
        // A map refuses a range that ends before it begins.
        let range = (!range.is_empty()).then_some(range);
        range.into_iter().flat_map(|range| self.entries.range(range)).map(|(peer, _)| *peer)
    }

    /// How a record compares with the table's.
    ///
    /// A record from the future was believed by a clock that was ahead: any that is not from the
    /// future takes its place.
    pub(super) fn compare(&self, record: &ParsedRecord, wall: Timestamp) -> Compared {
        match self.record(&record.record.peer) {
            Some(known) if known.bytes == record.bytes => Compared::Same,
            Some(known)
                if known.record.sequence >= record.record.sequence
                    && !is_from_the_future(&known.record, wall) =>
            {
                Compared::Older
            }
            _ => Compared::Newer,
        }
    }

    /// Whether there is room for a record of this peer, or its bringer may have room made for it.
    /// Whoever brought most gets nothing in place of what others brought.
    pub(super) fn has_room(&self, peer: &PeerId, bringer: &PeerId) -> bool {
        if self.entries.len() < self.records_max || self.entries.contains_key(peer) {
            return true;
        }
        let greediest = self.shares.greediest();
        greediest.is_some_and(|(_, most, _)| self.shares.count(bringer) < most)
    }

    /// Puts a verified record into the table. If it is full, the greediest bringer loses one.
    pub(super) fn insert(
        &mut self,
        record: SignedRecord,
        teller: PeerId,
        kept: bool,
    ) -> Option<PeerId> {
        let peer = record.record.peer;
        let bringer = self.entries.get(&peer).map_or(teller, |entry| entry.bringer);
        self.remove(&peer);
        let mut evicted = None;
        if self.entries.len() >= self.records_max {
            evicted = self.shares.greediest().map(|(_, _, (_, peer))| peer);
            if let Some(peer) = &evicted {
                self.remove(peer);
            }
        }
        self.expiring.insert((record.record.expires, peer));
        if !kept {
            self.shares.insert(bringer, (record.record.expires, peer));
        }
        self.entries.insert(peer, Entry { record, bringer, teller, kept });
        evicted
    }

    /// Keeps no more than so many from now on, but for those that are never evicted. Returns whose
    /// records went.
    pub(super) fn shrink(&mut self, records_max: usize) -> Vec<PeerId> {
        self.records_max = records_max;
        let mut evicted = Vec::new();
        while self.entries.len() > records_max
            && let Some((_, _, (_, peer))) = self.shares.greediest()
        {
            self.remove(&peer);
            evicted.push(peer);
        }
        evicted
    }

    /// Takes a record out of the table; whether it was there.
    pub(super) fn remove(&mut self, peer: &PeerId) -> bool {
        let Some(entry) = self.entries.remove(peer) else { return false };
        let key = (entry.record.record.expires, *peer);
        self.expiring.remove(&key);
        self.shares.remove(entry.bringer, &key);
        self.news.remove(peer);
        true
    }

    /// Says whether a peer's record may be evicted.
    pub(super) fn keep(&mut self, peer: &PeerId, kept: bool) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        entry.kept = kept;
        let key = (entry.record.record.expires, *peer);
        if kept {
            self.shares.remove(entry.bringer, &key);
        } else {
            self.shares.insert(entry.bringer, key);
        }
    }

    /// Takes out a record that is void by now.
    pub(super) fn take_expired(&mut self, wall: Timestamp) -> Option<PeerId> {
        let (_, peer) = self.expiring.first().filter(|(at, _)| *at <= wall).copied()?;
        self.remove(&peer);
        Some(peer)
    }
}

/// Everything but the signature that a record must fulfil.
pub(super) fn check(record: &Record, network: NetworkId, wall: Timestamp) -> Result<(), Refusal> {
    if record.network != network {
        Err(Refusal::OtherNetwork)
    } else if is_from_the_future(record, wall) {
        Err(Refusal::FromTheFuture)
    } else if record.expires <= wall {
        Err(Refusal::Expired)
    } else if record.expires > wall + RECORD_LIFETIME_MAX + CLOCK_SKEW_MAX {
        Err(Refusal::TooLong)
    } else {
        Ok(())
    }
}

pub(super) fn is_from_the_future(record: &Record, wall: Timestamp) -> bool {
    record.sequence > (wall + CLOCK_SKEW_MAX).as_millis()
}

/// Whether a record was signed by the peer it describes.
pub(super) fn is_signed(record: &ParsedRecord) -> bool {
    crypto::verify(&record.record.peer, Domain::Record, &[&record.signed], &record.signature)
}

impl Router {
    /// Reads a record and checks everything but its signature.
    pub(super) fn read_record(&self, bytes: &Bytes) -> Result<ParsedRecord, Refusal> {
        let parsed = wire::decode_record(bytes.clone()).map_err(|_| Refusal::Malformed)?;
        check(&parsed.record, self.network, self.now.wall)?;
        Ok(parsed)
    }

    /// Our own record was made or renewed.
    pub(super) fn on_own_record(&mut self, record: SignedRecord) {
        self.own = Some(record);
        self.directory.ahead = 0;
        self.announce(self.me, self.me);
    }

    /// A record from our own store.
    pub(super) fn on_stored_record(&mut self, record: SignedRecord) {
        let peer = record.record.peer;
        let newer = self.directory.record(&peer).map(|known| known.record.sequence)
            < Some(record.record.sequence);
        let valid = check(&record.record, self.network, self.now.wall).is_ok();
        if peer != self.me && valid && newer {
            let kept = self.is_kept(&peer);
            if let Some(peer) = self.directory.insert(record, self.me, kept) {
                self.output(Output::Dropped { peer });
            }
        }
    }

    /// Takes a record whose signature was verified, and that is newer, into the table, and tells
    /// everybody who should know.
    pub(super) fn learn_record(&mut self, record: ParsedRecord, via: PeerId, origin: Origin) {
        let peer = record.record.peer;
        let kept = self.is_kept(&peer);
        if !kept && origin != Origin::Wanted && !self.directory.has_room(&peer, &via) {
            return;
        }
        let record = SignedRecord { record: record.record, bytes: record.bytes };
        let new = self.directory.record(&peer).is_none();
        if let Some(peer) = self.directory.insert(record.clone(), via, kept) {
            self.output(Output::Dropped { peer });
        }
        let discovered = origin == Origin::Exchange && self.exchange.count(new);
        self.output(Output::Learned { record, via, new, discovered });
        self.announce(peer, via);
    }

    /// Somebody has a record of ours. If it is newer than what we have, our clock went back.
    pub(super) fn on_own_record_seen(&mut self, record: &ParsedRecord) {
        let sequence = record.record.sequence;
        if self.is_own_ahead(sequence) && is_signed(record) {
            self.directory.ahead = sequence;
            self.output(Output::OwnRecordAhead { sequence });
        }
    }

    /// Whether this would be news about ourselves.
    pub(super) fn is_own_ahead(&self, sequence: u64) -> bool {
        let own = self.own.as_ref().map_or(0, |own| own.record.sequence);
        sequence > own.max(self.directory.ahead)
    }

    pub(super) fn on_standing(&mut self, peer: PeerId, known: bool) {
        if !known {
            self.known.remove(&peer);
        } else if self.known.len() < self.limits.records_max {
            self.known.insert(peer);
        }
        let kept = self.is_kept(&peer);
        self.directory.keep(&peer, kept);
    }

    pub(super) fn on_forget(&mut self, peer: &PeerId) {
        self.known.remove(peer);
        self.directory.remove(peer);
        self.routes.forget(peer);
    }

    pub(super) fn is_kept(&self, peer: &PeerId) -> bool {
        self.is_known(peer) || self.neighbours.contains_key(peer)
    }

    /// Whether the operator or a receipt made it known.
    pub(super) fn is_known(&self, peer: &PeerId) -> bool {
        self.known.contains(peer)
    }

    /// The record of a peer that is not expired.
    pub(super) fn fresh_record(&self, peer: &PeerId) -> Option<&SignedRecord> {
        let record = self.directory.record(peer)?;
        (record.record.expires > self.now.wall).then_some(record)
    }

    pub(super) fn drop_void_records(&mut self) {
        while let Some(peer) = self.directory.take_expired(self.now.wall) {
            self.output(Output::Dropped { peer });
        }
    }

    /// Has a record's newness told to all neighbours but the one it came from.
    fn announce(&mut self, peer: PeerId, via: PeerId) {
        self.directory.news.insert(peer, via);
        if self.directory.news.len() >= DIGESTS_MAX {
            self.tell_news();
        } else {
            self.timers.set_by(Timer::Announce, self.now.mono + NEWS_DELAY);
        }
    }

    /// Tells all neighbours what is new, as digests: they fetch what they miss.
    pub(super) fn tell_news(&mut self) {
        let news = std::mem::take(&mut self.directory.news);
        let digests: Vec<(Digest, PeerId)> = news
            .into_iter()
            .filter_map(|(peer, via)| Some((self.digest_of(&peer)?, via)))
            .collect();
        let neighbours: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for neighbour in neighbours {
            let tell = |(digest, via): &(Digest, PeerId)| {
                (*via != neighbour && digest.peer != neighbour).then_some(*digest)
            };
            let digests: Vec<Digest> = digests.iter().filter_map(tell).collect();
            if !digests.is_empty() {
                let frame = Frame::Digests { exchange: 0, more: false, digests };
                self.send_traffic(&neighbour, frame.encode());
            }
        }
    }

    fn digest_of(&self, peer: &PeerId) -> Option<Digest> {
        let record = if *peer == self.me { self.own.as_ref() } else { self.fresh_record(peer) };
        Some(Digest { peer: *peer, sequence: record?.record.sequence })
    }

    /// One page of what we have after a peer, our own record included, and whether there is more.
    pub(super) fn digests_after(&self, after: Option<PeerId>) -> (Vec<Digest>, bool) {
        let own = self.own.as_ref().filter(|_| after.is_none_or(|after| self.me > after));
        let wall = self.now.wall;
        let fresh = self.directory.after(after).filter(|record| record.record.expires > wall);
        let mut digests: Vec<Digest> = fresh.take(DIGESTS_MAX + 1).map(digest).collect();
        if let Some(own) = own {
            let at = digests.partition_point(|digest| digest.peer < self.me);
            digests.insert(at, digest(own));
        }
        let more = digests.len() > DIGESTS_MAX;
        digests.truncate(DIGESTS_MAX);
        (digests, more)
    }
}

fn digest(record: &SignedRecord) -> Digest {
    Digest { peer: record.record.peer, sequence: record.record.sequence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn record(n: u8, expires: u64) -> SignedRecord {
        let record = Record {
            network: NetworkId::OPEN,
            peer: peer(n),
            sequence: 1,
            expires: Timestamp::from_millis(expires),
            name: None,
            addresses: Vec::new(),
            prekeys: Vec::new(),
        };
        SignedRecord { record, bytes: Bytes::new() }
    }

    #[test]
    fn the_greediest_bringer_loses_what_expires_first_but_never_what_is_kept() {
        let (greedy, modest) = (peer(200), peer(201));
        let mut directory = Directory::new(4);
        for (n, expires) in [(1, 10), (2, 20), (3, 30)] {
            assert_eq!(directory.insert(record(n, expires), greedy, n == 1), None);
        }
        assert_eq!(directory.insert(record(4, 5), modest, false), None);
        assert!(!directory.has_room(&peer(5), &greedy));
        assert!(directory.has_room(&peer(3), &greedy), "an update needs no room");
        assert!(directory.has_room(&peer(5), &modest));
        assert_eq!(directory.insert(record(5, 50), modest, false), Some(peer(2)));
        assert_eq!(directory.len(), 4);
        directory.keep(&peer(1), false);
        directory.keep(&peer(4), true);
        assert_eq!(directory.insert(record(6, 60), modest, false), Some(peer(1)));
        let expired = std::iter::from_fn(|| directory.take_expired(Timestamp::from_millis(50)));
        assert_eq!(expired.collect::<Vec<_>>(), [peer(4), peer(3), peer(5)]);
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn only_a_higher_sequence_is_news() {
        let mut directory = Directory::new(4);
        let mut known = record(1, 10);
        (known.record.sequence, known.bytes) = (5, Bytes::from_static(b"five"));
        assert_eq!(directory.insert(known.clone(), peer(200), false), None);
        let compared = |sequence, bytes: &'static [u8]| {
            let bytes = Bytes::from_static(bytes);
            let record = Record { sequence, ..known.record.clone() };
            let signed = Bytes::new();
            let parsed = ParsedRecord { record, bytes, signed, signature: [0; 64] };
            directory.compare(&parsed, Timestamp::from_millis(10))
        };
        assert_eq!(compared(5, b"five"), Compared::Same);
        assert_eq!(compared(4, b"four"), Compared::Older);
        assert_eq!(compared(5, b"five too"), Compared::Older);
        assert_eq!(compared(6, b"six"), Compared::Newer);
    }
}
