//! Stands in for the costly primitives in very large simulations: hashes where there are signatures
//! and key agreements. It is not secure: whoever knows a public half can compute what only the
//! private half should. In a simulation nobody does, so all that the product relies on holds:
//! another key, purpose, content or context gives another result, and lengths are the real ones.
//!
//! Compiled in place of `primitive.rs` by `--cfg distmsg_cheap_crypto`; the programs refuse it.

use aws_lc_rs::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use super::identity::Signature;
use super::{ENCAPSULATION_LEN, Encapsulated, Random, SealError, sha256};
use crate::model::Prekey;

/// What cryptography this is, for people.
pub const SUITE: &str = "hashes that stand in for Ed25519 and X-Wing, AES-256-GCM";

/// A private key that signs.
pub(super) struct SigningKey(Zeroizing<[u8; 32]>);

impl SigningKey {
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        // The seed is the last field (RFC 8410 section 7), unless the public half follows.
        let at = der.windows(SEED_HEAD.len()).position(|window| window == SEED_HEAD)?;
        let seed = der.get(at.checked_add(SEED_HEAD.len())?..)?.first_chunk()?;
        Some(Self::from_seed(seed))
    }

    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        #[expect(clippy::expect_used, reason = "any 32 bytes are a seed")]
        let key = Ed25519KeyPair::from_seed_unchecked(&*self.0).expect("a key");
        #[expect(clippy::expect_used, reason = "serializing to memory fails only without memory")]
        let der = key.to_pkcs8v1().expect("serialized");
        Zeroizing::new(der.as_ref().to_vec())
    }

    pub(super) fn public(&self) -> [u8; 32] {
        sha256(&[b"cheap public\0", &*self.0])
    }

    pub(super) fn sign(&self, signed: &[u8]) -> Signature {
        signature(&self.public(), signed)
    }
}

/// Two octet strings, one in the other, of 34 and 32 bytes.
const SEED_HEAD: [u8; 4] = [0x04, 0x22, 0x04, 0x20];

pub(super) fn verify(public: &[u8; 32], signed: &[u8], by: &Signature) -> bool {
    *by == signature(public, signed)
}

fn signature(public: &[u8; 32], signed: &[u8]) -> Signature {
    let half = sha256(&[b"cheap signature\0", public, signed]);
    let mut signature = [0; 64];
    signature.chunks_exact_mut(half.len()).for_each(|part| part.copy_from_slice(&half));
    signature
}

pub(super) fn encapsulation_key(seed: &[u8; 32]) -> [u8; Prekey::PUBLIC_LEN] {
    let mut public = [0; Prekey::PUBLIC_LEN];
    let part = sha256(&[b"cheap prekey\0", seed]);
    public.chunks_mut(part.len()).for_each(|to| to.copy_from_slice(&part));
    public
}

pub(super) fn encapsulate(
    public: &[u8],
    context: &[u8],
    random: &mut Random,
) -> Result<Encapsulated, SealError> {
    let public: [u8; Prekey::PUBLIC_LEN] = public.try_into().map_err(|_| SealError::Malformed)?;
    let mut encapsulation = Box::new([0; ENCAPSULATION_LEN]);
    let part = random.bytes::<32>();
    encapsulation.chunks_mut(part.len()).for_each(|to| to.copy_from_slice(&part));
    let secret = secret(&public, &encapsulation, context);
    Ok((encapsulation, secret))
}

pub(super) fn decapsulate(
    seed: &[u8; 32],
    encapsulation: &[u8],
    context: &[u8],
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let encapsulation = encapsulation.try_into().map_err(|_| SealError::Malformed)?;
    Ok(secret(&encapsulation_key(seed), encapsulation, context))
}

fn secret(
    public: &[u8; Prekey::PUBLIC_LEN],
    encapsulation: &[u8; ENCAPSULATION_LEN],
    context: &[u8],
) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(sha256(&[b"cheap secret\0", public, encapsulation, context]))
}
