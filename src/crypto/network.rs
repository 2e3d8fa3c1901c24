//! The key of a closed network and the proof of having it.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::short_digest;
use crate::model::NetworkId;

/// What every member of a closed network knows and nobody else.
#[derive(Clone)]
pub struct NetworkKey(Zeroizing<[u8; 32]>);

/// Which end of a link proves: a proof may not be reflected to its maker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProofRole {
    /// The end that dialled.
    Dialler,
    /// The end that was dialled.
    Listener,
}

impl ProofRole {
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"distmsg/1 network proof, dialler\0",
            Self::Listener => b"distmsg/1 network proof, listener\0",
        }
    }
}

impl NetworkKey {
    /// A network key from its 32 bytes.
    pub const fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public name of the network; it does not reveal the key.
    pub fn network(&self) -> NetworkId {
        NetworkId::from_bytes(short_digest(&[b"distmsg/1 network\0", &*self.0]))
    }

    /// Proves membership on one link: an HMAC-SHA-256 (RFC 2104) over what only its two ends know
    /// (the TLS exporter, RFC 8446 section 7.5), so that it is worth nothing on any other link.
    pub fn prove(&self, role: ProofRole, exporter: &[u8; 32]) -> [u8; 32] {
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&self.hmac_key(), &proven(role, exporter)).as_ref());
        proof
    }

    /// Whether the other end, in its role, proved membership; in constant time.
    pub fn verify(&self, role: ProofRole, exporter: &[u8; 32], proof: &[u8; 32]) -> bool {
        hmac::verify(&self.hmac_key(), &proven(role, exporter), proof).is_ok()
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.0)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(..)")
    }
}

fn proven(role: ProofRole, exporter: &[u8; 32]) -> Vec<u8> {
    [role.tag(), exporter].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_key_role_and_link_only() {
        let key = NetworkKey::from_bytes(Zeroizing::new([1; 32]));
        let other = NetworkKey::from_bytes(Zeroizing::new([2; 32]));
        let proof = key.prove(ProofRole::Dialler, &[9; 32]);
        assert!(key.verify(ProofRole::Dialler, &[9; 32], &proof));
        assert!(!key.verify(ProofRole::Listener, &[9; 32], &proof), "reflected");
        assert!(!key.verify(ProofRole::Dialler, &[8; 32], &proof), "another link");
        assert!(!other.verify(ProofRole::Dialler, &[9; 32], &proof), "another key");
        assert_ne!(key.network(), other.network());
        assert_eq!(format!("{key:?}"), "NetworkKey(..)");
    }
}
