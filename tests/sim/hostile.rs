//! Nodes with a valid identity that do not play by the rules.
//!
//! Each runs the product's own core, so that it is a part of the network like any other, and alters
//! what that core says, hears, and does not say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use distmsg::crypto::{Domain, Identity, Random, sha256};
use distmsg::model::limits::{FLOOD_LIFETIME, FRAME_BYTES_MAX};
use distmsg::model::{NetworkId, Now, PeerId, Record, SessionId, Span};
use distmsg::wire::{
    Digest, Envelope, Find, Found, Frame, RejectReason, decode_record, encode_record,
    record_with_signature,
};

/// Frames kept to be said again.
const KEPT_MAX: usize = 256;
/// Finds and answers remembered, so that none is rushed twice.
const RUSHED_MAX: usize = 4_096;

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Passes no envelope on.
    DropAll,
    /// Passes some envelopes on.
    DropSome,
    /// Passes everything on, seconds later.
    Delay,
    /// Alters what it passes on.
    Corrupt,
    /// Says again what was said before.
    Replay,
    /// Passes finds and answers on at once, before and beside what its core does, says that it is
    /// next to everybody, and then passes no envelope on. Nobody is nearer or has a wider door.
    Rush,
    /// Passes no receipts back.
    SuppressReceipts,
    /// Answers envelopes with receipts of its own making.
    ForgeReceipts,
    /// Says that it cannot take any envelope further.
    Reject,
    /// Alters records, and claims to have newer ones.
    ForgeRecords,
    /// Answers every find with the target's record, or one of its own making.
    LieInFound,
    /// Floods finds as fast as it can.
    FloodFinds,
    /// Floods finds in ever new names, half of them for peers that are there.
    MintIdentities,
    /// Says what is no frame, or too long for one.
    Malformed,
    /// Passes envelopes on as other attempts, or as other envelopes.
    Relabel,
    /// Floods finds in ever new names for ever new names, and answers those of others of its kind,
    /// each time with another record. All of it is rightly signed.
    Collude,
}

pub(crate) const KINDS: [Kind; 16] = [
    Kind::DropAll,
    Kind::DropSome,
    Kind::Delay,
    Kind::Corrupt,
    Kind::Replay,
    Kind::Rush,
    Kind::SuppressReceipts,
    Kind::ForgeReceipts,
    Kind::Reject,
    Kind::ForgeRecords,
    Kind::LieInFound,
    Kind::FloodFinds,
    Kind::MintIdentities,
    Kind::Malformed,
    Kind::Relabel,
    Kind::Collude,
];

/// One hostile node's mind.
pub(crate) struct Hostile {
    pub(crate) kinds: Vec<Kind>,
    identity: Arc<Identity>,
    random: Random,
    kept: VecDeque<Bytes>,
    /// Records it has seen.
    records: BTreeMap<PeerId, Bytes>,
    /// Peers that write to each other.
    there: BTreeSet<PeerId>,
    /// Finds and answers that it passed on at once.
    rushed: BTreeSet<[u8; 32]>,
}

/// What a hostile node makes of a frame that comes, before its core does anything.
pub(crate) struct Reaction {
    /// What it answers.
    pub(crate) answers: Vec<Bytes>,
    /// What it says to all its other neighbours.
    pub(crate) rushed: Option<Bytes>,
    /// Whether its core gets to see the frame.
    pub(crate) is_heard: bool,
}

impl Hostile {
    pub(crate) fn new(kinds: Vec<Kind>, identity: Arc<Identity>, random: Random) -> Self {
        let (kept, records, there, rushed) = Default::default();
        Self { kinds, identity, random, kept, records, there, rushed }
    }

    fn is(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    fn chance(&mut self, of_a_hundred: u64) -> bool {
        self.random.below(100) < of_a_hundred
    }

    /// What leaves the node in place of a frame, each with how much later.
    pub(crate) fn outgoing(&mut self, frame: Bytes) -> Vec<(Span, Bytes)> {
        let Ok(decoded) = Frame::decode(frame.clone()) else { return vec![(Span::ZERO, frame)] };
        let me = self.identity.peer();
        let is_relayed = match &decoded {
            Frame::Envelope(envelope) => envelope.header.source != me,
            Frame::Flood(flood) => flood.header.source != me,
            _ => false,
        };
        if is_relayed {
            let swallows =
                self.is(Kind::DropAll) || self.is(Kind::Rush) || self.is(Kind::LieInFound);
            if swallows || (self.is(Kind::DropSome) && self.chance(50)) {
                return Vec::new();
            }
        }
        let is_answer = matches!(&decoded, Frame::Receipt { .. } | Frame::Notice(_));
        if is_answer && self.is(Kind::SuppressReceipts) {
            return Vec::new();
        }
        let nearer = if self.is(Kind::Rush) { next_door(&decoded) } else { None };
        let mut frame = match (&decoded, nearer) {
            (_, Some((_, nearer))) => nearer,
            (Frame::Records { records }, None) if self.is(Kind::ForgeRecords) => {
                let records = records.iter().map(|record| self.altered(record)).collect();
                Frame::Records { records }.encode()
            }
            _ => frame,
        };
        if self.is(Kind::Corrupt) && (is_relayed || is_answer) && self.chance(50) {
            frame = self.altered(&frame);
        }
        if let Frame::Envelope(envelope) = &decoded
            && is_relayed
            && self.is(Kind::Relabel)
            && self.chance(50)
        {
            frame = self.relabelled(envelope);
        }
        let mut later = Span::ZERO;
        if self.is(Kind::Delay) && (is_relayed || is_answer) {
            later = Span::from_millis(500 + self.random.below(8_000));
        }
        let mut all = vec![(later, frame.clone())];
        if self.is(Kind::Replay) {
            if self.kept.len() >= KEPT_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(frame);
            if self.chance(30) {
                let at = self.random.below(self.kept.len() as u64) as usize;
                all.extend(self.kept.get(at).map(|old| (Span::ZERO, old.clone())));
            }
        }
        all
    }

    /// What it does at once when a frame comes.
    pub(crate) fn incoming(&mut self, now: Now, frame: &Frame) -> Reaction {
        self.learn(frame);
        let (answers, is_heard) = self.answers(now, frame);
        Reaction { answers, rushed: self.rushed(frame), is_heard }
    }

    /// What it passes on at once, if it did not yet.
    fn rushed(&mut self, frame: &Frame) -> Option<Bytes> {
        if !self.is(Kind::Rush) {
            return None;
        }
        let (signed, rushed) = next_door(frame)?;
        if self.rushed.len() >= RUSHED_MAX {
            self.rushed.pop_first();
        }
        self.rushed.insert(sha256(&[signed])).then_some(rushed)
    }

    /// What it answers at once, and whether its core gets to see the frame.
    fn answers(&mut self, now: Now, frame: &Frame) -> (Vec<Bytes>, bool) {
        let me = self.identity.peer();
        match frame {
            Frame::Envelope(envelope) if envelope.header.destination != me => {
                if self.is(Kind::ForgeReceipts) {
                    // Anything, or what everybody sees in the header.
                    let preimage = match self.chance(50) {
                        true => self.random.bytes(),
                        false => envelope.header.commitment,
                    };
                    return (vec![Frame::Receipt { preimage }.encode()], false);
                }
                if self.is(Kind::Reject) {
                    let reason = match self.random.below(3) {
                        0 => RejectReason::NoRoute,
                        1 => RejectReason::Loop,
                        _ => RejectReason::Congested,
                    };
                    return (vec![Frame::Reject { key: envelope.key(), reason }.encode()], false);
                }
            }
            Frame::Find(find) if self.is(Kind::LieInFound) && find.target != me => {
                return (self.lie(find), true);
            }
            Frame::Find(find) if self.is(Kind::Collude) => {
                return (self.colluded(now, find).into_iter().collect(), true);
            }
            _ => {}
        }
        (Vec::new(), true)
    }

    fn learn(&mut self, frame: &Frame) {
        let record = match frame {
            Frame::Envelope(envelope) => {
                self.there.extend([envelope.header.source, envelope.header.destination]);
                return;
            }
            Frame::Find(find) => &find.record,
            Frame::Found(found) => &found.record,
            _ => return,
        };
        if let Ok(parsed) = decode_record(record.clone()) {
            self.records.insert(parsed.record.peer, record.clone());
        }
    }

    fn lie(&mut self, find: &Find) -> Vec<Bytes> {
        let Ok(origin) = decode_record(find.record.clone()) else { return Vec::new() };
        let record = match self.records.get(&find.target) {
            Some(record) => record.clone(),
            None => self.forged(find.target),
        };
        let signed = Found::to_sign(find.direct, &origin.record.peer, find.nonce, &record);
        let signature = match find.direct {
            true => self.identity.sign(Domain::Found, &[&signed]),
            false => [0; 64],
        };
        vec![Found::encode(&signed, &signature, 0)]
    }

    /// The answer to a find of another of its kind.
    fn colluded(&mut self, now: Now, find: &Find) -> Option<Bytes> {
        let target = agreed(find.nonce);
        if target.peer() != find.target {
            return None;
        }
        let origin = decode_record(find.record.clone()).ok()?.record.peer;
        let at = Now { wall: now.wall + Span::from_millis(self.random.below(1_000)), ..now };
        let signed = Found::to_sign(true, &origin, find.nonce, &record_of(at, &target));
        Some(Found::encode(&signed, &target.sign(Domain::Found, &[&signed]), 0))
    }

    /// A record in somebody's name, signed by this node.
    fn forged(&mut self, peer: PeerId) -> Bytes {
        let content = encode_record(&Record {
            network: NetworkId::OPEN,
            peer,
            sequence: u64::MAX >> 8,
            expires: distmsg::model::Timestamp::from_millis(u64::MAX >> 8),
            name: None,
            addresses: Vec::new(),
            prekeys: Vec::new(),
        });
        let signature = self.identity.sign(Domain::Record, &[&content]);
        record_with_signature(content, &signature)
    }

    /// What it says to everybody, ten times a second, unasked.
    pub(crate) fn unasked(&mut self, now: Now, record: &Bytes) -> Vec<Bytes> {
        let mut said = Vec::new();
        if self.is(Kind::FloodFinds) {
            for _ in 0..10 {
                let target = PeerId::from_bytes(self.random.bytes());
                let nonce = self.random.number();
                said.push(find(now, &self.identity, record, target, nonce, false));
            }
        }
        if self.is(Kind::Collude) {
            let identity = Identity::generate(&mut self.random);
            let nonce = self.random.number();
            let record = record_of(now, &identity);
            said.push(find(now, &identity, &record, agreed(nonce).peer(), nonce, true));
        }
        if self.is(Kind::MintIdentities) {
            for _ in 0..2 {
                let identity = Identity::generate(&mut self.random);
                let target = self.target();
                let record = record_of(now, &identity);
                let direct = self.chance(50);
                let nonce = self.random.number();
                said.push(find(now, &identity, &record, target, nonce, direct));
            }
        }
        if self.is(Kind::ForgeRecords) && self.chance(10) {
            let claimed = self.records.keys().take(16).copied().collect::<Vec<_>>();
            let digests =
                claimed.iter().map(|peer| Digest { peer: *peer, sequence: u64::MAX >> 8 });
            let digests = digests.collect();
            said.push(Frame::Digests { exchange: 0, more: false, digests }.encode());
            let records = claimed.into_iter().map(|peer| self.forged(peer)).collect();
            said.push(Frame::Records { records }.encode());
        }
        if self.is(Kind::Malformed) && self.chance(3) {
            let length = match self.random.below(3) {
                0 => FRAME_BYTES_MAX + 1,
                1 => 1 + self.random.below(200) as usize,
                _ => 0,
            };
            let mut garbage = BytesMut::with_capacity(length);
            while garbage.len() < length {
                garbage.put_slice(&self.random.bytes::<16>());
            }
            said.push(garbage.freeze());
        }
        if self.is(Kind::Replay) {
            let at = self.random.below(self.kept.len() as u64 + 1) as usize;
            said.extend(self.kept.get(at).cloned());
        }
        said
    }

    /// Somebody to look for: who is known to be there, or nobody.
    fn target(&mut self) -> PeerId {
        let there = self.there.len() as u64;
        let at = self.random.below(2 * there.max(1)) as usize;
        let there = self.there.iter().nth(at).copied();
        there.unwrap_or_else(|| PeerId::from_bytes(self.random.bytes()))
    }

    /// An envelope with something else in its header that relays go by.
    fn relabelled(&mut self, envelope: &Envelope) -> Bytes {
        let (mut header, mut attempt) = (envelope.header, envelope.attempt);
        match self.random.below(4) {
            0 => header.commitment = self.random.bytes(),
            1 => header.counter = self.random.number(),
            2 => header.session = SessionId(self.random.number()),
            _ => attempt = attempt.wrapping_add(1 + self.random.below(8) as u16),
        }
        Envelope::new(header, attempt, &envelope.tail).encoded
    }

    /// The same bytes but for one bit, which is not in the first byte.
    fn altered(&mut self, bytes: &Bytes) -> Bytes {
        let mut altered = BytesMut::from(&bytes[..]);
        if altered.len() > 1 {
            let at = 1 + self.random.below(altered.len() as u64 - 1) as usize;
            altered[at] ^= 1 << self.random.below(8);
        }
        altered.freeze()
    }
}

fn find(
    now: Now,
    by: &Identity,
    record: &Bytes,
    target: PeerId,
    nonce: u64,
    direct: bool,
) -> Bytes {
    let expires = now.wall + FLOOD_LIFETIME;
    let signed = Find::to_sign(direct, nonce, &target, expires, record);
    Find::encode(&signed, &by.sign(Domain::Find, &[&signed]), 0)
}

/// A find or an answer as if its origin were a neighbour, after what of it is signed.
fn next_door(frame: &Frame) -> Option<(&Bytes, Bytes)> {
    match frame {
        Frame::Find(find) => Some((&find.signed, Find::encode(&find.signed, &find.signature, 0))),
        Frame::Found(found) => {
            Some((&found.signed, Found::encode(&found.signed, &found.signature, 0)))
        }
        _ => None,
    }
}

/// Whom those that collude look for, by a find's number.
fn agreed(nonce: u64) -> Identity {
    Identity::from_seed(&sha256(&[b"agreed", &nonce.to_be_bytes()]))
}

fn record_of(now: Now, identity: &Identity) -> Bytes {
    let content = encode_record(&Record {
        network: NetworkId::OPEN,
        peer: identity.peer(),
        sequence: now.wall.as_millis(),
        expires: now.wall + Span::from_secs(3_600),
        name: None,
        addresses: Vec::new(),
        prekeys: Vec::new(),
    });
    let signature = identity.sign(Domain::Record, &[&content]);
    record_with_signature(content, &signature)
}
