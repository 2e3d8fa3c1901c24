//! Token buckets: so many a second, so many at once.

use super::{Monotonic, Span};

/// Micro-tokens in a token.
const UNIT: u64 = 1_000_000;

/// A token bucket: it holds at most `burst` tokens and gains `rate` a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens a second, which is micro-tokens a microsecond.
    rate: u64,
    /// Micro-tokens it holds at most.
    capacity: u64,
    /// Micro-tokens in it at `filled`.
    level: u64,
    filled: Monotonic,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: u32, burst: u32, now: Monotonic) -> Self {
        let capacity = burst as u64 * UNIT;
        Self { rate: rate as u64, capacity, level: capacity, filled: now }
    }

    /// Takes a token; false if there is none.
    pub fn take(&mut self, now: Monotonic) -> bool {
        self.fill(now);
        let enough = self.level >= UNIT;
        if enough {
            self.level -= UNIT;
        }
        enough
    }

    /// When a token will be there; now, if one is. Never, if the rate is zero.
    pub fn ready_at(&mut self, now: Monotonic) -> Monotonic {
        self.fill(now);
        let missing = UNIT.saturating_sub(self.level);
        match missing {
            0 => now,
            _ if self.rate == 0 => Monotonic::NEVER,
            _ => now + Span::from_micros(missing.div_ceil(self.rate)),
        }
    }

    /// Whether it is full: nothing was taken for so long that it could as well be a new one.
    pub fn is_full(&mut self, now: Monotonic) -> bool {
        self.fill(now);
        self.level == self.capacity
    }

    fn fill(&mut self, now: Monotonic) {
        let gained = now.since(self.filled).as_micros().saturating_mul(self.rate);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_burst_and_then_its_rate() {
        let mut now = Monotonic::from_micros(5);
        let mut bucket = Bucket::new(10, 3, now);
        assert!(bucket.is_full(now));
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
        assert_eq!(bucket.ready_at(now), now + Span::from_millis(100));
        now = now + Span::from_millis(99);
        assert!(!bucket.take(now));
        now = now + Span::from_millis(1);
        assert!(bucket.take(now) && !bucket.take(now));
        now = now + Span::from_secs(100);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
    }
}
