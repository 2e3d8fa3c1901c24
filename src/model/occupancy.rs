//! How full tables are.

/// How full one table is. Nothing in a node may grow without a bound: a simulation asks for these
/// all the time, and stops when one is above its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Which table, for people.
    pub table: &'static str,
    /// Entries, or bytes if its name says so.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

impl Occupancy {
    /// A table that has so many entries (or bytes) of so many.
    pub fn new(table: &'static str, used: usize, limit: usize) -> Self {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self { table, used: wide(used), limit: wide(limit) }
    }

    /// Of several that have the same tables, the fullest of each.
    pub fn fullest<const N: usize>(all: impl Iterator<Item = [Self; N]>) -> Option<[Self; N]> {
        all.reduce(|mut fullest, tables| {
            for (one, other) in fullest.iter_mut().zip(tables) {
                if other.used > one.used {
                    *one = other;
                }
            }
            fullest
        })
    }

    /// Whether it is as full as it may be, or less.
    pub const fn is_within(&self) -> bool {
        self.used <= self.limit
    }
}
