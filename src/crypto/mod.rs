//! Keys and what is done with them: identities and signatures, sealed sessions, receipt secrets,
//! the network proof, the certificate and the token of the TCP interface port.
//!
//! Secrets are types of their own: zeroized when dropped, redacted when printed. Randomness comes
//! from a [`Random`] that the caller seeded, so that a simulation replays exactly.

mod certificate;
#[cfg(distmsg_cheap_crypto)]
mod cheap;
mod digest;
mod identity;
mod network;
#[cfg(not(distmsg_cheap_crypto))]
mod primitive;
mod random;
mod session;
mod token;

pub use certificate::peer_of_certificate;
#[cfg(distmsg_cheap_crypto)]
use cheap as primitive;
pub use digest::{message_id, sha256, short_digest};
pub use identity::{Domain, Identity, KeyError, Signature, peer_of_spki, spki_of, verify};
pub use network::{NetworkKey, ProofRole};
pub use primitive::SUITE;
pub use random::Random;
use session::Encapsulated;
pub use session::{
    ENCAPSULATION_LEN, PrekeySecret, SealError, SealingKeys, SessionContext, SessionSecret,
    TAG_LEN, commitment_of,
};
pub use token::AccessToken;
