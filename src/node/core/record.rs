//! Our own record: what we tell others of ourselves.

use std::sync::Arc;

use super::{Core, Effect};
use crate::crypto::{Domain, Identity};
use crate::model::limits::{CLOCK_SKEW_MAX, RECORD_ADDRESSES_MAX, RECORD_LIFETIME_MAX};
use crate::model::{Address, Name, NetworkId, Now, Record, SignedRecord};
use crate::router;
use crate::wire::{encode_record, fit_record, record_with_signature};

/// What our record is made of.
#[derive(Debug)]
pub(super) struct OwnRecord {
    identity: Arc<Identity>,
    network: NetworkId,
    name: Option<Name>,
    advertise: Vec<Address>,
    /// The highest sequence of ours that anybody has seen.
    sequence: u64,
}

impl OwnRecord {
    pub(super) fn new(
        identity: Arc<Identity>,
        network: NetworkId,
        name: Option<Name>,
        mut advertise: Vec<Address>,
    ) -> Self {
        advertise.truncate(RECORD_ADDRESSES_MAX);
        Self { identity, network, name, advertise, sequence: 0 }
    }

    /// What it says of us from now on; whether that is something else.
    pub(super) fn describe(&mut self, name: Option<Name>, mut advertise: Vec<Address>) -> bool {
        advertise.truncate(RECORD_ADDRESSES_MAX);
        let is_new = self.name != name || self.advertise != advertise;
        (self.name, self.advertise) = (name, advertise);
        is_new
    }

    pub(super) const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub(super) const fn network(&self) -> NetworkId {
        self.network
    }

    pub(super) fn advertised(&self) -> &[Address] {
        &self.advertise
    }

    /// Others have a record of ours with this sequence: the next one must be newer.
    pub(super) fn see(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }
}

impl Core {
    /// Makes, signs and announces a new record.
    pub(super) fn renew_record(&mut self, now: Now) {
        let own = &mut self.record;
        let next = own.sequence.saturating_add(1).max(now.wall.as_millis());
        // After a clock that was far ahead, whatever follows is as void as what came before: begin
        // again. Whoever believed those records drops them when its own clock is right.
        let is_void = next > (now.wall + CLOCK_SKEW_MAX).as_millis();
        own.sequence = if is_void { now.wall.as_millis() } else { next };
        let prekeys = self.courier.prekeys();
        // The record lives as long as the prekey in it is good, and no longer than records may.
        let lifetime = now.wall + RECORD_LIFETIME_MAX;
        let expires = prekeys.iter().map(|prekey| prekey.expires).max().unwrap_or(lifetime);
        let mut record = Record {
            network: own.network,
            peer: self.me,
            sequence: own.sequence,
            expires: expires.min(lifetime),
            name: own.name.clone(),
            addresses: own.advertise.clone(),
            prekeys,
        };
        fit_record(&mut record);
        let content = encode_record(&record);
        let signature = own.identity.sign(Domain::Record, &[&content]);
        let bytes = record_with_signature(content, &signature);
        self.out.effects.push(Effect::Record(bytes.clone()));
        let signed = SignedRecord { record, bytes };
        self.router.handle(now, router::Input::OwnRecord(signed));
    }
}
