//! Links of our own choice: enough of them, and spread.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{LinkState, Purpose};
use crate::model::{Address, Now, PeerId, Record};
use crate::node::core::Core;

/// Dials of our own choice at once.
pub(super) const AUTO_DIALS_MAX: usize = 2;
/// Records looked at for a candidate.
const AUTO_SAMPLE: usize = 64;

impl Core {
    /// Dials peers of our own choice while there are too few: of the table, at random, spread over
    /// address prefixes; at least half of such links are to be our own dials.
    pub(super) fn dial_others(&mut self, now: Now) {
        let others: Vec<&LinkState> = self
            .links
            .active
            .iter()
            .filter(|(peer, _)| self.peers.dial(peer).is_none())
            .filter_map(|(_, link)| self.links.up.get(link))
            .collect();
        let dialling: BTreeSet<PeerId> = self
            .links
            .dials
            .values()
            .filter_map(|dialling| match dialling.purpose {
                Purpose::Auto(peer) => Some(peer),
                _ => None,
            })
            .collect();
        let outbound = others.iter().filter(|link| link.outbound).count() + dialling.len();
        let total = others.len() + dialling.len();
        let enough = total >= self.links.auto && outbound * 2 >= self.links.auto;
        if enough || dialling.len() >= AUTO_DIALS_MAX {
            return;
        }
        let prefixes: BTreeSet<Prefix> =
            self.links.up.values().filter_map(|link| prefix_of(&link.address)).collect();
        self.links.auto_paused.retain(|_, until| *until > now.mono);
        let start = PeerId::from_bytes(self.random.bytes());
        let mut candidates = self.router.records_after(Some(start), AUTO_SAMPLE);
        if candidates.len() < AUTO_SAMPLE {
            candidates.extend(self.router.records_after(None, AUTO_SAMPLE - candidates.len()));
        }
        let reachable = |record: &Record| -> Option<Address> {
            let peer = record.peer;
            let busy = peer == self.me
                || self.links.active.contains_key(&peer)
                || self.links.auto_paused.contains_key(&peer)
                || self.links.kept.contains_key(&peer)
                || dialling.contains(&peer);
            let usable = |address: &&Address| self.may_dial(address);
            record.addresses.iter().find(usable).filter(|_| !busy).cloned()
        };
        let found: Vec<(PeerId, Address)> = candidates
            .iter()
            .filter_map(|record| Some((record.record.peer, reachable(&record.record)?)))
            .collect();
        // A new prefix is preferred, an old one is better than none.
        let fresh = found.iter().find(|(_, address)| {
            prefix_of(address).is_none_or(|prefix| !prefixes.contains(&prefix))
        });
        let Some((peer, address)) = fresh.or(found.first()).cloned() else { return };
        let (_, effect) = self.links.dial(Purpose::Auto(peer), address);
        self.out.effects.push(effect);
    }

    /// Strangers' records may name any address: those of this machine itself are only dialled by a
    /// node that has no other itself.
    fn may_dial(&self, address: &Address) -> bool {
        !address.is_loopback() || self.record.advertised().iter().all(Address::is_loopback)
    }
}

/// The part of an address that one operator is likely to own whole.
type Prefix = Vec<u8>;

fn prefix_of(address: &Address) -> Option<Prefix> {
    Some(match address.ip()? {
        IpAddr::V4(ip) => ip.octets().iter().take(2).copied().collect(),
        IpAddr::V6(ip) => ip.octets().iter().take(4).copied().collect(),
    })
}
