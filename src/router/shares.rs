//! Who takes how much of a bounded table.
//!
//! A table that evicts the oldest when it is full belongs to whoever writes to it fastest. Here
//! whoever owns most loses first, so that one neighbour cannot push out what others brought.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::PeerId;

/// Keys by owner. The first key of an owner is the one it can spare most.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// What each owner has.
    owned: BTreeMap<PeerId, BTreeSet<K>>,
    /// How much each owner has: the last is the greediest.
    sizes: BTreeSet<(usize, PeerId)>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { owned: BTreeMap::new(), sizes: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Shares<K> {
    /// Adds a key to its owner's share.
    pub(super) fn insert(&mut self, owner: PeerId, key: K) {
        let keys = self.owned.entry(owner).or_default();
        let before = keys.len();
        if keys.insert(key) {
            self.sizes.remove(&(before, owner));
            self.sizes.insert((before + 1, owner));
        }
    }

    /// Takes a key from its owner's share.
    pub(super) fn remove(&mut self, owner: PeerId, key: &K) {
        let Some(keys) = self.owned.get_mut(&owner) else { return };
        let before = keys.len();
        if !keys.remove(key) {
            return;
        }
        self.sizes.remove(&(before, owner));
        if before > 1 {
            self.sizes.insert((before - 1, owner));
        } else {
            self.owned.remove(&owner);
        }
    }

    /// How much an owner has.
    pub(super) fn count(&self, owner: &PeerId) -> usize {
        self.owned.get(owner).map_or(0, BTreeSet::len)
    }

    /// The owner that has most, how much, and what it can spare most.
    pub(super) fn greediest(&self) -> Option<(PeerId, usize, K)> {
        let (count, owner) = self.sizes.last()?;
        let key = self.owned.get(owner)?.first()?;
        Some((*owner, *count, *key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_owns_most_loses_first() {
        let (a, b) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let mut shares = Shares::default();
        (0..3).for_each(|key| shares.insert(a, key));
        (10..12).for_each(|key| shares.insert(b, key));
        shares.insert(b, 11);
        assert_eq!(shares.greediest(), Some((a, 3, 0)));
        shares.remove(a, &0);
        shares.remove(a, &0);
        shares.remove(a, &1);
        assert_eq!(shares.greediest(), Some((b, 2, 10)));
        assert_eq!(shares.count(&a), 1);
        shares.remove(a, &2);
        shares.remove(b, &10);
        shares.remove(b, &11);
        assert_eq!(shares.greediest(), None);
    }
}
