//! Who is looked for again, and when.

use std::collections::BTreeSet;

use crate::model::{Bucket, Monotonic, PeerId};

/// Searches for those whom the last one did not find, for all of them together: a second, and at
/// once. Each is a flood.
const SEARCHES_PER_SECOND: u32 = 1;
const SEARCHES_BURST: u32 = 10;

/// A place in the line: whoever was searched for in vain least often comes first, then whoever has
/// waited longest. So one that comes back does not wait for all that never do.
pub(super) type Place = (u32, Monotonic);

/// The line of those who want to be looked for again.
#[derive(Debug)]
pub(super) struct Searches {
    allowance: Bucket,
    line: BTreeSet<(Place, PeerId)>,
    /// When the first of them may be looked for.
    next: Monotonic,
}

impl Searches {
    pub(super) fn new(now: Monotonic) -> Self {
        let allowance = Bucket::new(SEARCHES_PER_SECOND, SEARCHES_BURST, now);
        Self { allowance, line: BTreeSet::new(), next: Monotonic::NEVER }
    }

    /// When [`Searches::take`] has somebody.
    pub(super) const fn deadline(&self) -> Monotonic {
        self.next
    }

    /// Somebody's place is another one, or none.
    pub(super) fn replace(&mut self, recipient: PeerId, old: Option<Place>, new: Option<Place>) {
        if let Some(old) = old {
            self.line.remove(&(old, recipient));
        }
        self.line.extend(new.map(|new| (new, recipient)));
    }

    /// The next one to be looked for now, if it is time.
    pub(super) fn take(&mut self, now: Monotonic) -> Option<PeerId> {
        let is_time = !self.line.is_empty() && self.allowance.take(now);
        let first = if is_time { self.line.pop_first() } else { None };
        self.next = match self.line.is_empty() {
            true => Monotonic::NEVER,
            false => self.allowance.ready_at(now),
        };
        first.map(|(_, recipient)| recipient)
    }
}
