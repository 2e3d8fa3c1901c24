//! Putting flooded fragments together again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::model::{Monotonic, Occupancy, PeerId, Span};
use crate::wire::{Envelope, Flood, Header, Tail};

/// Envelopes of which some fragments are there, in all and of one source.
const PARTIALS_MAX: usize = 64;
const PARTIALS_PER_SOURCE_MAX: usize = 8;
/// How long the other fragments are waited for.
const PARTIAL_LIFETIME: Span = Span::from_secs(600);

// What is kept of them is bounded by their number.
const _: () = assert!(PARTIALS_MAX * Tail::BYTES_MAX <= 4 * 1024 * 1024);

/// What tells an envelope from all others: every field of its header but the destination.
type PartialKey = (PeerId, u64, u64, [u8; 32]);

/// Envelopes for us of which some fragments are there.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partials: BTreeMap<PartialKey, Partial>,
}

/// An envelope of which some fragments are there. Fragments of all attempts fit together: only the
/// attempt's number differs.
#[derive(Debug)]
struct Partial {
    began: Monotonic,
    /// The last attempt that brought a fragment.
    attempt: u16,
    parts: Vec<Option<Bytes>>,
    missing: usize,
}

impl Reassembly {
    /// Takes a verified fragment; the envelope, if it was the last one missing. When there is no
    /// room, sources that are not known go first.
    pub(super) fn add(
        &mut self,
        flood: &Flood,
        now: Monotonic,
        known: &BTreeSet<PeerId>,
    ) -> Option<Envelope> {
        if flood.fragments == 1 {
            return Some(Envelope::new(flood.header, flood.attempt, &flood.part));
        }
        let key = key_of(&flood.header);
        let count = usize::from(flood.fragments);
        if self.partials.get(&key).is_some_and(|partial| partial.parts.len() != count) {
            self.partials.remove(&key);
        }
        if !self.partials.contains_key(&key) {
            self.make_room(&key, known);
        }
        let partial = self.partials.entry(key).or_insert_with(|| Partial {
            began: now,
            attempt: flood.attempt,
            parts: vec![None; count],
            missing: count,
        });
        partial.attempt = partial.attempt.max(flood.attempt);
        let slot = partial.parts.get_mut(usize::from(flood.fragment))?;
        if slot.is_none() {
            *slot = Some(flood.part.clone());
            partial.missing -= 1;
        }
        if partial.missing > 0 {
            return None;
        }
        let partial = self.partials.remove(&key)?;
        let tail: Vec<u8> = partial.parts.into_iter().flatten().flatten().collect();
        Some(Envelope::new(flood.header, partial.attempt, &tail))
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now: Monotonic) {
        self.partials.retain(|_, partial| now.since(partial.began) <= PARTIAL_LIFETIME);
    }

    pub(super) fn occupancy(&self) -> [Occupancy; 2] {
        let parts = self.partials.values().flat_map(|partial| partial.parts.iter().flatten());
        let bytes = parts.map(Bytes::len).sum();
        [
            Occupancy::new("envelopes in fragments", self.partials.len(), PARTIALS_MAX),
            Occupancy::new("fragment bytes", bytes, PARTIALS_MAX * Tail::BYTES_MAX),
        ]
    }

    fn make_room(&mut self, key: &PartialKey, known: &BTreeSet<PeerId>) {
        let of_source = || self.partials.iter().filter(|(other, _)| other.0 == key.0);
        if of_source().count() >= PARTIALS_PER_SOURCE_MAX {
            let oldest = of_source().min_by_key(|(_, partial)| partial.began).map(|(k, _)| *k);
            oldest.and_then(|oldest| self.partials.remove(&oldest));
        }
        while self.partials.len() >= PARTIALS_MAX {
            // The oldest of a source that is not known, else the oldest.
            let by_worth =
                |(key, partial): &(&PartialKey, &Partial)| (known.contains(&key.0), partial.began);
            let victim = self.partials.iter().min_by_key(by_worth).map(|(key, _)| *key);
            victim.and_then(|victim| self.partials.remove(&victim));
        }
    }
}

const fn key_of(header: &Header) -> PartialKey {
    (header.source, header.session.0, header.counter, header.commitment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SessionId, Timestamp};
    use crate::wire::{FRAGMENT_BYTES_MAX, Frame};

    fn envelope(source: u8, counter: u64, length: usize) -> Envelope {
        let header = Header {
            source: PeerId::from_bytes([source; 32]),
            destination: PeerId::from_bytes([255; 32]),
            session: SessionId(1),
            counter,
            commitment: [3; 32],
        };
        let tail: Vec<u8> = (0..length).map(|n| n as u8).collect();
        Envelope::new(header, 1, &tail)
    }

    fn fragments(envelope: &Envelope) -> Vec<Flood> {
        let expires = Timestamp::from_millis(1);
        let floods =
            Flood::to_sign(envelope, expires).into_iter().map(|signed| {
                match Frame::decode(Flood::encode(&signed, &[0; 64])) {
                    Ok(Frame::Flood(flood)) => flood,
                    other => panic!("{other:?}"),
                }
            });
        floods.collect()
    }

    #[test]
    fn fragments_of_several_attempts_in_any_order_make_the_envelope() {
        let (mut reassembly, known) = (Reassembly::default(), BTreeSet::new());
        let first = envelope(1, 1, 3 * FRAGMENT_BYTES_MAX + 5);
        let second = first.with_attempt(2);
        let mut floods = fragments(&first);
        floods.truncate(3);
        floods.extend(fragments(&second).pop());
        floods.reverse();
        floods.insert(1, floods[0].clone());
        let done: Vec<Envelope> = floods
            .iter()
            .filter_map(|flood| reassembly.add(flood, Monotonic::START, &known))
            .collect();
        assert_eq!(done, [second]);
        assert!(reassembly.partials.is_empty());
    }

    #[test]
    fn a_flood_of_beginnings_is_bounded_and_spares_known_sources() {
        let mut reassembly = Reassembly::default();
        let known = BTreeSet::from([PeerId::from_bytes([0; 32])]);
        let at = |n: u64| Monotonic::from_micros(n);
        for counter in 0..20 {
            let flood = &fragments(&envelope(0, counter, 2 * FRAGMENT_BYTES_MAX))[0];
            assert_eq!(reassembly.add(flood, at(counter), &known), None);
        }
        assert_eq!(reassembly.partials.len(), PARTIALS_PER_SOURCE_MAX);
        for n in 1..200 {
            for flood in &fragments(&envelope(n, 0, 16 * FRAGMENT_BYTES_MAX))[1..] {
                assert_eq!(reassembly.add(flood, at(100 + u64::from(n)), &known), None);
            }
        }
        assert_eq!(reassembly.partials.len(), PARTIALS_MAX);
        let last = &fragments(&envelope(0, 19, 2 * FRAGMENT_BYTES_MAX))[1];
        assert!(reassembly.add(last, at(500), &known).is_some(), "the known one was spared");
        reassembly.sweep(at(500) + PARTIAL_LIFETIME);
        assert!(reassembly.partials.is_empty());
    }
}
