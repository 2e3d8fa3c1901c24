//! The two costly primitives as the libraries have them: Ed25519 (RFC 8032), and HPKE (RFC 9180,
//! base mode) with X-Wing (X25519 and ML-KEM-768, draft-connolly-cfrg-xwing-kem) as KEM.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, XWing};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use zeroize::Zeroizing;

use super::identity::Signature;
use super::{ENCAPSULATION_LEN, Encapsulated, Random, SealError};
use crate::model::Prekey;

/// What cryptography this is, for people.
pub const SUITE: &str = "Ed25519, X-Wing, AES-256-GCM";

/// A private key that signs.
pub(super) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed (RFC 8032 section 5.1.5).
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the only error is a seed of another length")]
        let key = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        Self(key)
    }

    /// The key in a PKCS#8 document (RFC 8410), if there is one.
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self)
    }

    /// The key as PKCS#8.
    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        #[expect(clippy::expect_used, reason = "serializing to memory fails only without memory")]
        let der = self.0.to_pkcs8v1().expect("serialized");
        Zeroizing::new(der.as_ref().to_vec())
    }

    /// Its public half.
    pub(super) fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    pub(super) fn sign(&self, signed: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(signed).as_ref());
        signature
    }
}

/// Whether the key with this public half signed this.
pub(super) fn verify(public: &[u8; 32], signed: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(signed, signature).is_ok()
}

/// The public half of the key to which secrets are encapsulated, from its seed.
pub(super) fn encapsulation_key(seed: &[u8; 32]) -> [u8; Prekey::PUBLIC_LEN] {
    let mut public = [0; Prekey::PUBLIC_LEN];
    XWing::derive_keypair(seed).1.write_exact(&mut public);
    public
}

/// A new secret, and what tells it to whoever has the private half, bound to `context`.
///
/// # Errors
/// When the public half is malformed.
pub(super) fn encapsulate(
    public: &[u8],
    context: &[u8],
    random: &mut Random,
) -> Result<Encapsulated, SealError> {
    let public =
        <XWing as hpke::Kem>::PublicKey::from_bytes(public).map_err(|_| SealError::Malformed)?;
    let (encapsulated, exporter) =
        hpke::setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, XWing>(
            &OpModeS::Base,
            &public,
            context,
            random.source(),
        )
        .map_err(|_| SealError::Malformed)?;
    let mut encapsulation = Box::new([0; ENCAPSULATION_LEN]);
    encapsulated.write_exact(&mut *encapsulation);
    let mut secret = Zeroizing::new([0; 32]);
    exporter.export(EXPORT_LABEL, &mut *secret).map_err(|_| SealError::Malformed)?;
    Ok((encapsulation, secret))
}

/// The other side of [`encapsulate`]. Any well-formed encapsulation yields a secret.
///
/// # Errors
/// When the encapsulation is malformed.
pub(super) fn decapsulate(
    seed: &[u8; 32],
    encapsulation: &[u8],
    context: &[u8],
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let private = XWing::derive_keypair(seed).0;
    let encapsulated = <XWing as hpke::Kem>::EncappedKey::from_bytes(encapsulation)
        .map_err(|_| SealError::Malformed)?;
    let exporter = hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, XWing>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        context,
    )
    .map_err(|_| SealError::Malformed)?;
    let mut secret = Zeroizing::new([0; 32]);
    exporter.export(EXPORT_LABEL, &mut *secret).map_err(|_| SealError::Malformed)?;
    Ok(secret)
}

const EXPORT_LABEL: &[u8] = b"distmsg/1 session secret";
