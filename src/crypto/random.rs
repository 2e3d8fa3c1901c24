//! A seeded source of random bytes.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::sha256;

/// Cryptographic random bytes from a seed (ChaCha20, RFC 8439).
///
/// The daemon seeds it from the operating system, and again every now and then with
/// [`Random::mix`]; a simulation seeds it with a number and replays exactly.
pub struct Random(ChaCha20Rng);

impl Random {
    /// A source that yields the same bytes for the same seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Adds fresh entropy: whoever learned the state before cannot predict what follows.
    pub fn mix(&mut self, entropy: &[u8; 32]) {
        let own = Zeroizing::new(self.bytes::<32>());
        self.0 = ChaCha20Rng::from_seed(sha256(&[b"distmsg random", &*own, entropy]));
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, or 0 if `end` is 0. The bias of at most 2^-32 for small ends is of no
    /// consequence where this is used: jitter and choices among peers.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(end);
        // The upper half of a 64 by 64 bit product (Lemire 2019) fits 64 bits.
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// For libraries that draw by themselves.
    #[cfg(not(distmsg_cheap_crypto))]
    pub(super) fn source(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_yield_equal_bytes_until_entropy_is_mixed_in() {
        let (mut a, mut b) = (Random::from_seed([7; 32]), Random::from_seed([7; 32]));
        assert_eq!(a.bytes::<40>(), b.bytes::<40>());
        a.mix(&[1; 32]);
        b.mix(&[2; 32]);
        assert_ne!(a.bytes::<40>(), b.bytes::<40>());
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::from_seed([1; 32]);
        assert_eq!(random.below(0), 0);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| random.below(5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
