//! Random choices that can be made again: a failing test prints its seed.

use std::time::{Duration, SystemTime};

/// The variable that makes a test choose the same again.
const SEED: &str = "DISTMSG_TEST_SEED";

/// SplitMix64 (Steele, Lea and Flood 2014): enough to choose moments and victims by.
pub(crate) struct Choices(u64);

impl Choices {
    /// From the seed in the environment, or else a new one; prints it either way.
    pub(crate) fn new() -> Self {
        let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.expect("after 1970").as_nanos() as u64
        });
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Lets a random time pass, for what is to happen at any moment.
    pub(crate) fn pass(&mut self, below: Duration) {
        let micros = u64::try_from(below.as_micros()).expect("short");
        std::thread::sleep(Duration::from_micros(self.below(micros)));
    }
}
