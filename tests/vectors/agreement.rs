//! X25519, ML-KEM-768 and X-Wing, which is made of both.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use distmsg::crypto::{Random, SealError, SessionContext, SessionSecret, sha256};
use distmsg::model::{PeerId, Prekey, PrekeyId, SessionId, Timestamp};
use ml_kem::{Decapsulate as _, FromSeed as _, KeyExport as _, MlKem768, TryKeyInit as _};
use rand_core::{TryCryptoRng, TryRng, utils};
use x_wing::Encapsulate as _;

use crate::table::vectors;

/// X25519 within X-Wing: the secret is a number whatever the point is, and what is not contributory
/// comes out as zeros.
#[test]
fn wycheproof_x25519_as_x_wing_uses_it() {
    for row in vectors("x25519.txt", 518) {
        let shared = x25519_dalek::x25519(row.array(2), row.array(3));
        let expected = if row.text(4) == "zero" { [0; 32] } else { row.array(4) };
        assert_eq!(shared, expected, "test {}", row.text(0));
    }
}

/// X25519 within TLS: the same, but zeros are refused (RFC 8446 section 7.4.2).
#[test]
fn wycheproof_x25519_as_tls_uses_it() {
    for row in vectors("x25519.txt", 518) {
        let own = PrivateKey::from_private_key(&X25519, &row.bytes(2)).expect("a key");
        let other = UnparsedPublicKey::new(&X25519, row.bytes(3));
        let shared = agreement::agree(&own, other, (), |shared| Ok(shared.to_vec())).ok();
        let expected = (row.text(4) != "zero").then(|| row.bytes(4));
        assert_eq!(shared, expected, "test {}", row.text(0));
    }
}

#[test]
fn wycheproof_ml_kem_768() {
    let (mut agreed, mut malformed) = (0, 0);
    for row in vectors("ml_kem_768.txt", 111) {
        let seed: Option<[u8; 64]> = row.bytes(2).try_into().ok();
        let sealed = row.bytes(4);
        let (Some(seed), Ok(sealed)) = (seed, sealed.as_slice().try_into()) else {
            assert!(!row.is_valid(), "test {}", row.text(0));
            malformed += 1;
            continue;
        };
        let (private, public) = MlKem768::from_seed(&seed.into());
        assert_eq!(sha256(&[&public.to_bytes()]).to_vec(), row.bytes(3), "test {}", row.text(0));
        // What does not fit is rejected implicitly: by a secret of its own, which is in the vector.
        let shared = private.decapsulate(sealed);
        assert_eq!(shared.to_vec(), row.bytes(5), "test {}", row.text(0));
        assert!(row.is_valid(), "test {}", row.text(0));
        agreed += 1;
    }
    assert_eq!((agreed, malformed), (71, 40));
}

fn context() -> SessionContext {
    SessionContext {
        sender: PeerId::from_bytes([1; 32]),
        recipient: PeerId::from_bytes([2; 32]),
        session: SessionId(3),
        prekey: PrekeyId(7),
    }
}

/// A public ML-KEM key whose numbers are not reduced, or of another length: as part of a prekey it
/// is refused, and nothing is sealed to it.
#[test]
fn wycheproof_malformed_keys_are_no_prekeys() {
    let mut random = Random::from_seed([1; 32]);
    for row in vectors("ml_kem_768_keys.txt", 44) {
        let key = row.bytes(2);
        assert!(ml_kem::ml_kem_768::EncapsulationKey::new_from_slice(&key).is_err());
        assert!(!row.is_valid(), "test {}", row.text(0));
        // The other half: the base point of X25519.
        let mut half = [0; 32];
        half[0] = 9;
        let public = [&key[..], &half].concat().into();
        let prekey = Prekey { id: PrekeyId(7), expires: Timestamp::from_millis(1), public };
        let opened = SessionSecret::open(&prekey, &context(), &mut random);
        assert_eq!(opened.err(), Some(SealError::Malformed), "test {}", row.text(0));
    }
}

/// Yields what a vector says was drawn.
struct Drawn(Vec<u8>);

impl TryRng for Drawn {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[test]
fn x_wing_of_the_draft() {
    for row in vectors("x_wing.txt", 3) {
        let private = x_wing::DecapsulationKey::from(row.array::<32>(0));
        let public = x_wing::Decapsulator::encapsulation_key(&private);
        assert_eq!(public.to_bytes().to_vec(), row.bytes(2));
        let (sealed, shared) = public.encapsulate_with_rng(&mut Drawn(row.bytes(1)));
        assert_eq!(sealed.to_vec(), row.bytes(3));
        assert_eq!(shared.to_vec(), row.bytes(4));
        let sealed = row.bytes(3).as_slice().try_into().expect("as long as one");
        assert_eq!(x_wing::Decapsulate::decapsulate(&private, &sealed).to_vec(), row.bytes(4));
    }
}
