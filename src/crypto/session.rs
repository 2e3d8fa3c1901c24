//! Sealing from one node to another.
//!
//! A session begins with HPKE (RFC 9180, base mode) to a prekey of the recipient, with X-Wing
//! (X25519 and ML-KEM-768, draft-connolly-cfrg-xwing-kem) as KEM. Only its exporter is used: the
//! exported secret gives the AES-256-GCM key that seals envelopes, each under its own counter, and
//! the key that receipt secrets derive from. Envelopes may so be lost, reordered and repeated.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Random, primitive, sha256};
use crate::model::{PeerId, Prekey, PrekeyId, SessionId};

/// Bytes of an X-Wing encapsulation.
pub const ENCAPSULATION_LEN: usize = 1120;

/// Bytes that sealing adds: the authentication tag.
pub const TAG_LEN: usize = 16;

/// The private half of a prekey.
#[derive(Clone, PartialEq, Eq)]
pub struct PrekeySecret {
    id: PrekeyId,
    seed: Zeroizing<[u8; 32]>,
}

impl PrekeySecret {
    /// A new prekey.
    pub fn generate(id: PrekeyId, random: &mut Random) -> Self {
        Self { id, seed: Zeroizing::new(random.bytes()) }
    }

    /// A stored prekey.
    pub const fn from_seed(id: PrekeyId, seed: Zeroizing<[u8; 32]>) -> Self {
        Self { id, seed }
    }

    /// Its name.
    pub const fn id(&self) -> PrekeyId {
        self.id
    }

    /// What to store.
    pub const fn seed(&self) -> &Zeroizing<[u8; 32]> {
        &self.seed
    }

    /// The public half, for the record.
    pub fn public(&self) -> [u8; Prekey::PUBLIC_LEN] {
        primitive::encapsulation_key(&self.seed)
    }
}

impl fmt::Debug for PrekeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrekeySecret({:?})", self.id)
    }
}

/// Everything a session is bound to: it enters the key schedule and the opening's signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionContext {
    /// Who opens it.
    pub sender: PeerId,
    /// Who it is opened to.
    pub recipient: PeerId,
    /// Its name.
    pub session: SessionId,
    /// The recipient's prekey.
    pub prekey: PrekeyId,
}

impl SessionContext {
    /// The context as bytes; every part has a fixed length.
    pub fn to_bytes(&self) -> Vec<u8> {
        [
            b"distmsg/1 session\0",
            &self.sender.as_bytes()[..],
            self.recipient.as_bytes(),
            &self.session.0.to_be_bytes(),
            &self.prekey.0.to_be_bytes(),
        ]
        .concat()
    }
}

/// What both ends of a session share and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionSecret(Zeroizing<[u8; 32]>);

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The public key or encapsulation is malformed.
    #[error("malformed key material")]
    Malformed,
    /// The seal is not the sender's: altered, or for somebody else.
    #[error("the seal does not hold")]
    Forged,
}

/// What to tell the recipient, and the secret.
pub(super) type Encapsulated = (Box<[u8; ENCAPSULATION_LEN]>, Zeroizing<[u8; 32]>);

impl SessionSecret {
    /// Opens a session to a prekey: what to tell the recipient, and the secret.
    ///
    /// # Errors
    /// When the prekey is malformed.
    pub fn open(
        prekey: &Prekey,
        context: &SessionContext,
        random: &mut Random,
    ) -> Result<(Box<[u8; ENCAPSULATION_LEN]>, Self), SealError> {
        let (encapsulation, secret) =
            primitive::encapsulate(&prekey.public, &context.to_bytes(), random)?;
        Ok((encapsulation, Self(secret)))
    }

    /// The recipient's side of [`SessionSecret::open`]. Any well-formed encapsulation yields a
    /// secret; only the right one opens what the sender sealed.
    ///
    /// # Errors
    /// When the encapsulation is malformed.
    pub fn accept(
        prekey: &PrekeySecret,
        encapsulation: &[u8],
        context: &SessionContext,
    ) -> Result<Self, SealError> {
        primitive::decapsulate(&prekey.seed, encapsulation, &context.to_bytes()).map(Self)
    }

    /// A stored secret.
    pub const fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// What to store.
    pub const fn as_bytes(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    /// The keys that work for this session.
    ///
    /// # Panics
    /// Never: both lengths are allowed by HKDF.
    pub fn keys(&self) -> SealingKeys {
        let sealing = Zeroizing::new(self.derive(b"distmsg/1 seal"));
        let receipts = Zeroizing::new(self.derive(b"distmsg/1 receipts"));
        #[expect(clippy::expect_used, reason = "the only error is a key of another length")]
        let key = UnboundKey::new(&AES_256_GCM, &*sealing).expect("a key has 32 bytes");
        SealingKeys {
            seal: LessSafeKey::new(key),
            receipts: hmac::Key::new(hmac::HMAC_SHA256, &*receipts),
        }
    }

    /// HKDF-Expand (RFC 5869 section 2.3): the exported secret is uniformly random already.
    fn derive(&self, label: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*self.0);
        #[expect(clippy::expect_used, reason = "fails only for more than 255 hashes of output")]
        prk.expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are one hash");
        key
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

/// A session's working keys.
pub struct SealingKeys {
    seal: LessSafeKey,
    receipts: hmac::Key,
}

impl SealingKeys {
    /// Seals in place and appends the tag. A counter must never seal two different contents.
    ///
    /// # Errors
    /// Only for contents of many gigabytes.
    pub fn seal(&self, counter: u64, aad: &[u8], content: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal
            .seal_in_place_append_tag(nonce(counter), Aad::from(aad), content)
            .map_err(|_| SealError::Malformed)
    }

    /// Opens in place: the content, without the tag.
    ///
    /// # Errors
    /// When anything was altered or the session is another.
    pub fn open<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        self.seal
            .open_in_place(nonce(counter), Aad::from(aad), sealed)
            .map_err(|_| SealError::Forged)
    }

    /// What the recipient reveals to prove that it opened and stored the envelope of this counter.
    pub fn receipt(&self, counter: u64) -> [u8; 32] {
        let mut preimage = [0; 32];
        preimage.copy_from_slice(hmac::sign(&self.receipts, &counter.to_be_bytes()).as_ref());
        preimage
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKeys(..)")
    }
}

/// What an envelope's header shows of its receipt beforehand: everybody on the way can check the
/// receipt against it with one hash.
pub fn commitment_of(preimage: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"distmsg/1 receipt\0", preimage])
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (_, low) = bytes.split_at_mut(4);
    low.copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn context(session: u64) -> SessionContext {
        SessionContext {
            sender: PeerId::from_bytes([1; 32]),
            recipient: PeerId::from_bytes([2; 32]),
            session: SessionId(session),
            prekey: PrekeyId(7),
        }
    }

    fn prekey(random: &mut Random) -> (PrekeySecret, Prekey) {
        let secret = PrekeySecret::generate(PrekeyId(7), random);
        let public = secret.public().to_vec().into();
        (secret, Prekey { id: PrekeyId(7), expires: Timestamp::from_millis(1), public })
    }

    #[test]
    fn what_one_seals_the_other_opens() {
        let mut random = Random::from_seed([5; 32]);
        let (secret, public) = prekey(&mut random);
        let (encapsulation, ours) =
            SessionSecret::open(&public, &context(1), &mut random).expect("opened");
        let theirs = SessionSecret::accept(&secret, &*encapsulation, &context(1)).expect("valid");
        assert!(ours == theirs);
        let mut content = b"hello".to_vec();
        ours.keys().seal(3, b"header", &mut content).expect("sealed");
        assert_eq!(content.len(), 5 + TAG_LEN);
        let keys = theirs.keys();
        assert_eq!(keys.open(3, b"header", &mut content.clone()), Ok(&mut b"hello".to_vec()[..]));
        assert!(keys.open(4, b"header", &mut content.clone()).is_err(), "another counter");
        assert!(keys.open(3, b"other", &mut content.clone()).is_err(), "another header");
        let last = content.len() - 1;
        content[last] ^= 1;
        assert!(keys.open(3, b"header", &mut content).is_err(), "altered");
        assert_eq!(ours.keys().receipt(3), keys.receipt(3));
        assert_ne!(keys.receipt(3), keys.receipt(4));
    }

    #[test]
    fn a_session_is_bound_to_its_context() {
        let mut random = Random::from_seed([6; 32]);
        let (secret, public) = prekey(&mut random);
        let (encapsulation, ours) =
            SessionSecret::open(&public, &context(1), &mut random).expect("opened");
        let other = SessionSecret::accept(&secret, &*encapsulation, &context(2)).expect("valid");
        assert!(ours != other);
        let (stranger, _) = prekey(&mut random);
        let wrong = SessionSecret::accept(&stranger, &*encapsulation, &context(1)).expect("valid");
        assert!(ours != wrong);
        assert!(SessionSecret::accept(&secret, &encapsulation[1..], &context(1)).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut random = Random::from_seed([6; 32]);
        let (secret, _) = prekey(&mut random);
        assert_eq!(format!("{secret:?}"), "PrekeySecret(PrekeyId(7))");
        let session = SessionSecret::from_bytes(Zeroizing::new([0xab; 32]));
        assert_eq!(
            format!("{session:?} {:?}", session.keys()),
            "SessionSecret(..) SealingKeys(..)"
        );
    }
}
