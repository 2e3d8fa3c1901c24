//! A node's identity key (Ed25519, RFC 8032) and what it signs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Random;
use super::primitive::{self, SigningKey};
use crate::model::PeerId;

/// A detached signature.
pub type Signature = [u8; 64];

/// What a signature is for. It is part of what is signed, so that a signature of one kind never
/// passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// A peer's record of itself.
    Record,
    /// A find's origin.
    Find,
    /// A target's own answer to a find.
    Found,
    /// A flooded envelope's source.
    Flood,
    /// The opening of a session.
    Opening,
    /// A recipient's word on an envelope it did not take.
    Notice,
}

impl Domain {
    /// The tag that is signed before the content. All have different lengths or letters, and end
    /// with a byte that none contains, so that no tag is another's beginning.
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Record => b"distmsg/1 record\0",
            Self::Find => b"distmsg/1 find\0",
            Self::Found => b"distmsg/1 found\0",
            Self::Flood => b"distmsg/1 flood\0",
            Self::Opening => b"distmsg/1 opening\0",
            Self::Notice => b"distmsg/1 notice\0",
        }
    }
}

/// A node's own key pair.
pub struct Identity {
    key: SigningKey,
    peer: PeerId,
}

/// Why a text is no identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("it is not a PEM file with one private key")]
    Pem,
    /// PEM, but no Ed25519 key in PKCS#8.
    #[error("it holds no Ed25519 key in PKCS#8")]
    Key,
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PEM_COLUMNS: usize = 64;

impl Identity {
    /// A new identity.
    pub fn generate(random: &mut Random) -> Self {
        let seed = Zeroizing::new(random.bytes::<32>());
        Self::from_seed(&seed)
    }

    /// The identity whose private key is this seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_key(SigningKey::from_seed(seed))
    }

    /// Reads a PKCS#8 private key (RFC 8410) in PEM (RFC 7468).
    ///
    /// # Errors
    /// When the text is something else.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let inner = text.trim().strip_prefix(PEM_BEGIN).and_then(|t| t.strip_suffix(PEM_END));
        let packed: Zeroizing<String> =
            Zeroizing::new(inner.ok_or(KeyError::Pem)?.split_ascii_whitespace().collect());
        let der = Zeroizing::new(STANDARD.decode(&*packed).map_err(|_| KeyError::Pem)?);
        SigningKey::from_pkcs8(&der).map(Self::from_key).ok_or(KeyError::Key)
    }

    /// The private key as PKCS#8 in PEM: what stands in the identity file.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let packed = Zeroizing::new(STANDARD.encode(&*self.to_pkcs8()));
        let mut text = Zeroizing::new(format!("{PEM_BEGIN}\n"));
        for (at, c) in packed.chars().enumerate() {
            if at > 0 && at % PEM_COLUMNS == 0 {
                text.push('\n');
            }
            text.push(c);
        }
        text.push('\n');
        text.push_str(PEM_END);
        text.push('\n');
        text
    }

    /// The private key as PKCS#8, for TLS.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.key.to_pkcs8()
    }

    /// The public key as SubjectPublicKeyInfo (RFC 8410), for TLS.
    pub fn to_spki(&self) -> Vec<u8> {
        spki_of(&self.peer)
    }

    /// Who this is.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Signs the parts, one after the other, for one purpose.
    pub fn sign(&self, domain: Domain, parts: &[&[u8]]) -> Signature {
        self.key.sign(&tagged(domain, parts))
    }

    /// Signs a TLS 1.3 handshake (RFC 8446 section 4.4.3). Nothing else begins with 64 spaces; what
    /// does not is not signed.
    pub fn sign_handshake(&self, message: &[u8]) -> Option<Signature> {
        message.starts_with(&[b' '; 64]).then(|| self.sign_foreign(message))
    }

    /// Signs what another standard defines. What it defines must not begin like what is signed for
    /// a [`Domain`].
    pub(super) fn sign_foreign(&self, signed: &[u8]) -> Signature {
        debug_assert!(!signed.starts_with(b"distmsg/"), "that is what tags begin with");
        self.key.sign(signed)
    }

    fn from_key(key: SigningKey) -> Self {
        let peer = PeerId::from_bytes(key.public());
        Self { key, peer }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer)
    }
}

/// Whether the peer signed these parts for this purpose. Strict: besides what RFC 8032 section
/// 5.1.7 asks for, nobody signs with a key of small order.
pub fn verify(peer: &PeerId, domain: Domain, parts: &[&[u8]], signature: &Signature) -> bool {
    !is_of_small_order(peer.as_bytes())
        && primitive::verify(peer.as_bytes(), &tagged(domain, parts), signature)
}

/// All encodings of the y coordinates of the eight points whose order divides the cofactor, the
/// ones above the field's prime included.
const SMALL_ORDER: [[u8; 32]; 7] = [
    // 0, of order 4.
    [0; 32],
    // 1, the neutral element.
    ends_with(1, 0, 0),
    // The four points of order 8.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // -1, of order 2; then 0 and 1 once more, not reduced.
    ends_with(0xec, 0xff, 0x7f),
    ends_with(0xed, 0xff, 0x7f),
    ends_with(0xee, 0xff, 0x7f),
];

/// 32 bytes: one, thirty of one kind, one.
const fn ends_with(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    let [head, .., tail] = &mut bytes;
    *head = first;
    *tail = last;
    bytes
}

/// Whether a public key is a point of small order: under such a key anybody can make signatures
/// that hold, so that it is nobody's identity (Chalkias, Garillot, Nikolaenko: Taming the many
/// EdDSAs, 2020).
fn is_of_small_order(key: &[u8; 32]) -> bool {
    let mut y = *key;
    let [.., last] = &mut y;
    // The uppermost bit is the sign of x.
    *last &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// The fixed head of an Ed25519 SubjectPublicKeyInfo (RFC 8410 section 4); the key follows.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// A peer's public key as SubjectPublicKeyInfo (RFC 8410).
pub fn spki_of(peer: &PeerId) -> Vec<u8> {
    [&SPKI_HEAD[..], peer.as_bytes()].concat()
}

/// The peer whose public key this SubjectPublicKeyInfo holds, if it is an Ed25519 key that can be
/// somebody's: see [`verify`].
pub fn peer_of_spki(spki: &[u8]) -> Option<PeerId> {
    let key: [u8; 32] = spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()?;
    (!is_of_small_order(&key)).then(|| PeerId::from_bytes(key))
}

fn tagged(domain: Domain, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut signed = Vec::with_capacity(domain.tag().len().saturating_add(length));
    signed.extend_from_slice(domain.tag());
    for part in parts {
        signed.extend_from_slice(part);
    }
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(distmsg_cheap_crypto))]
    #[test]
    fn the_key_of_rfc_8032_test_1_is_read_as_its_peer() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let peer = Identity::from_seed(&seed).peer();
        assert_eq!(peer.as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn pem_round_trips_and_other_texts_are_refused() {
        let identity = Identity::generate(&mut Random::from_seed([3; 32]));
        let pem = identity.to_pem();
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert_eq!(Identity::from_pem(&pem).map(|i| i.peer()).ok(), Some(identity.peer()));
        assert_eq!(Identity::from_pem("").err(), Some(KeyError::Pem));
        let empty = format!("{PEM_BEGIN}\nAAAA\n{PEM_END}\n");
        assert_eq!(Identity::from_pem(&empty).err(), Some(KeyError::Key));
        assert_eq!(peer_of_spki(&identity.to_spki()), Some(identity.peer()));
        assert_eq!(peer_of_spki(&identity.to_spki()[1..]), None);
    }

    #[test]
    fn a_signature_holds_for_its_signer_purpose_and_content_only() {
        let mut random = Random::from_seed([4; 32]);
        let (a, b) = (Identity::generate(&mut random), Identity::generate(&mut random));
        let signature = a.sign(Domain::Find, &[b"con", b"tent"]);
        assert!(verify(&a.peer(), Domain::Find, &[b"content"], &signature));
        assert!(!verify(&b.peer(), Domain::Find, &[b"content"], &signature));
        assert!(!verify(&a.peer(), Domain::Found, &[b"content"], &signature));
        assert!(!verify(&a.peer(), Domain::Find, &[b"contend"], &signature));
    }

    #[test]
    fn as_a_handshake_nothing_else_is_signed() {
        let identity = Identity::generate(&mut Random::from_seed([5; 32]));
        let handshake =
            [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 48]].concat();
        assert!(identity.sign_handshake(&handshake).is_some());
        for other in [&b""[..], b"distmsg/1 record\0", &handshake[1..]] {
            assert_eq!(identity.sign_handshake(other), None);
        }
    }

    #[test]
    fn a_key_of_small_order_is_no_identity() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = y;
                key[31] |= sign;
                let peer = PeerId::from_bytes(key);
                assert_eq!(peer_of_spki(&spki_of(&peer)), None, "{key:?}");
            }
        }
    }
}
