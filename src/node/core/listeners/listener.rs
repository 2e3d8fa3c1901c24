//! One listener: what it has acknowledged, what is leased, and to whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Listening;
use crate::model::{Cursor, PeerId, Timestamp};

/// A named listener.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// Everything up to here is acknowledged.
    pub(super) position: Cursor,
    /// Acknowledged beyond: first to last, not touching each other.
    pub(super) acknowledged: BTreeMap<Cursor, Cursor>,
    /// Leased to some client.
    pub(super) leased: BTreeSet<Cursor>,
    /// Who listens, in turn.
    pub(super) clients: VecDeque<Listening>,
    /// When the last of them left.
    pub(super) left: Option<Timestamp>,
}

/// What one client wants of a listener.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) name: Box<str>,
    pub(super) from: Option<PeerId>,
    pub(super) since: Option<Timestamp>,
    pub(super) window: usize,
    pub(super) leased: BTreeSet<Cursor>,
    /// Everything up to here was offered to it, or is not for it.
    pub(super) scan: Cursor,
    pub(super) asking: bool,
}

impl Attached {
    /// Messages that may be leased to it now.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.leased.len())
    }
}

impl Listener {
    pub(super) fn has(&self, cursor: Cursor) -> bool {
        cursor <= self.position
            || self.acknowledged.range(..=cursor).next_back().is_some_and(|(_, l)| *l >= cursor)
    }

    /// Notes one acknowledgement.
    pub(super) fn acknowledge(&mut self, cursor: Cursor) {
        if self.has(cursor) {
            return;
        }
        let mut range = (cursor, cursor);
        let before = self.acknowledged.range(..cursor).next_back().map(|(f, l)| (*f, *l));
        if let Some((first, last)) = before
            && last.0 + 1 == cursor.0
        {
            self.acknowledged.remove(&first);
            range.0 = first;
        }
        let after = Cursor(cursor.0.saturating_add(1));
        if let Some(last) = self.acknowledged.remove(&after) {
            range.1 = last;
        }
        if range.0.0 == self.position.0 + 1 {
            self.position = range.1;
        } else {
            self.acknowledged.insert(range.0, range.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_merge_and_move_the_position() {
        let mut listener = Listener::default();
        for cursor in [3, 5, 4, 9, 2] {
            listener.acknowledge(Cursor(cursor));
        }
        assert_eq!(listener.position, Cursor(0));
        let ranges: Vec<_> = listener.acknowledged.iter().map(|(f, l)| (f.0, l.0)).collect();
        assert_eq!(ranges, [(2, 5), (9, 9)]);
        assert!(listener.has(Cursor(4)) && !listener.has(Cursor(6)));
        listener.acknowledge(Cursor(1));
        assert_eq!(listener.position, Cursor(5));
        assert_eq!(listener.acknowledged.len(), 1);
        listener.acknowledge(Cursor(1));
        assert_eq!(listener.position, Cursor(5), "twice is once");
    }
}
