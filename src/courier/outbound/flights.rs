//! The sealed envelopes of one queue: on their way, or about to be sent again.

use std::collections::{BTreeMap, VecDeque};

use super::lifetimes::Setting;
use super::queue::Part;
use crate::model::{Incarnation, Monotonic, Sequence, SessionId};
use crate::wire::Envelope;

/// A sealed envelope.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) envelope: Envelope,
    pub(super) session: SessionId,
    /// What is in it.
    pub(super) parts: Vec<Part>,
    /// The ping that it is, if it is one.
    pub(super) ping: Option<u64>,
    /// The run whose lowest wanted number it tells, and that number; unless it is a ping.
    pub(super) floor: Option<(Incarnation, Sequence)>,
    /// How the clock was set when it was sealed.
    pub(super) setting: Setting,
    pub(super) first_sent: Monotonic,
    pub(super) sent: Monotonic,
    /// When it counts as lost.
    pub(super) deadline: Monotonic,
    pub(super) flooded: bool,
    /// How often it did not make it. Not the same as its attempts: a recipient that is full was
    /// reached.
    pub(super) misses: u16,
}

impl Flight {
    pub(super) const fn commitment(&self) -> [u8; 32] {
        self.envelope.header.commitment
    }
}

/// All sealed envelopes of one queue, each known by its commitment.
#[derive(Debug, Default)]
pub(super) struct Flights {
    on_their_way: BTreeMap<[u8; 32], Flight>,
    /// The bytes of those on their way: what the pace is measured against.
    bytes: usize,
    /// Those to be sent again, in the order in which they were sealed.
    lost: VecDeque<Flight>,
}

impl Flights {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.on_their_way.len() + self.lost.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on_their_way.is_empty() && self.lost.is_empty()
    }

    pub(super) fn any_on_its_way(&self) -> bool {
        !self.on_their_way.is_empty()
    }

    pub(super) fn any_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub(super) fn any_flooded(&self) -> bool {
        self.on_their_way.values().any(|flight| flight.flooded)
    }

    /// Whether one of them tells this floor or a higher one.
    pub(super) fn any_tells(&self, incarnation: Incarnation, floor: Sequence) -> bool {
        let tells = |flight: &Flight| {
            flight.floor.is_some_and(|(of, told)| of == incarnation && told >= floor)
        };
        self.on_their_way.values().any(tells) || self.lost.iter().any(tells)
    }

    /// When the first of them counts as lost.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        self.on_their_way.values().map(|flight| flight.deadline).min()
    }

    pub(super) fn get(&self, commitment: &[u8; 32]) -> Option<&Flight> {
        let is = |flight: &&Flight| flight.commitment() == *commitment;
        self.on_their_way.get(commitment).or_else(|| self.lost.iter().find(is))
    }

    pub(super) fn launch(&mut self, flight: Flight) {
        self.bytes += flight.envelope.encoded.len();
        self.on_their_way.insert(flight.commitment(), flight);
    }

    /// An envelope did not make it: it will be sent again, another way perhaps.
    pub(super) fn lose(&mut self, commitment: &[u8; 32]) {
        if let Some(flight) = self.on_their_way.get_mut(commitment) {
            flight.misses = flight.misses.saturating_add(1);
        }
        self.put_back(commitment);
    }

    /// An envelope has to be sent again, the same way.
    pub(super) fn put_back(&mut self, commitment: &[u8; 32]) {
        if let Some(flight) = self.land(commitment) {
            let counter = flight.envelope.header.counter;
            let at = self.lost.partition_point(|f| f.envelope.header.counter < counter);
            self.lost.insert(at, flight);
        }
    }

    /// Loses those whose time is up; whether there are any. Those to a recipient that is full are
    /// only put back: its notice may have been one too many for it.
    pub(super) fn lose_late(&mut self, now: Monotonic, full: bool) -> bool {
        let late = self.commitments(|flight| flight.deadline <= now);
        for commitment in &late {
            match full {
                true => self.put_back(commitment),
                false => self.lose(commitment),
            }
        }
        !late.is_empty()
    }

    /// Things changed: what is in trouble is lost at once.
    pub(super) fn hasten(&mut self, now: Monotonic) {
        for flight in self.on_their_way.values_mut() {
            if flight.misses > 0 {
                flight.deadline = flight.deadline.min(now);
            }
        }
    }

    pub(super) fn next_lost(&mut self) -> Option<Flight> {
        self.lost.pop_front()
    }

    pub(super) fn take(&mut self, commitment: &[u8; 32]) -> Option<Flight> {
        self.land(commitment).or_else(|| {
            let at = self.lost.iter().position(|flight| flight.commitment() == *commitment)?;
            self.lost.remove(at)
        })
    }

    pub(super) fn take_all(&mut self) -> Vec<Flight> {
        self.bytes = 0;
        let on_their_way = std::mem::take(&mut self.on_their_way);
        on_their_way.into_values().chain(self.lost.drain(..)).collect()
    }

    pub(super) fn take_ping(&mut self, ping: u64) -> Vec<Flight> {
        let commitments = self.commitments(|flight| flight.ping == Some(ping));
        let mut taken = self.take_lost(|flight| flight.ping == Some(ping));
        taken.extend(commitments.iter().filter_map(|commitment| self.land(commitment)));
        taken
    }

    /// Takes those that are lost and were sealed in another session.
    pub(super) fn take_stale(&mut self, current: Option<SessionId>) -> Vec<Flight> {
        self.take_lost(|flight| Some(flight.session) != current)
    }

    fn take_lost(&mut self, is_taken: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let lost = std::mem::take(&mut self.lost);
        let (taken, kept) = lost.into_iter().partition::<Vec<_>, _>(is_taken);
        self.lost = kept.into();
        taken
    }

    fn land(&mut self, commitment: &[u8; 32]) -> Option<Flight> {
        let flight = self.on_their_way.remove(commitment)?;
        self.bytes -= flight.envelope.encoded.len();
        Some(flight)
    }

    fn commitments(&self, is_meant: impl Fn(&Flight) -> bool) -> Vec<[u8; 32]> {
        let meant = self.on_their_way.iter().filter(|(_, flight)| is_meant(flight));
        meant.map(|(commitment, _)| *commitment).collect()
    }
}
