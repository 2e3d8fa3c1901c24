//! Links: authenticated, encrypted connections to neighbours.
//!
//! A link is TCP with TLS 1.3, both ends known by raw Ed25519 public keys (RFC 7250): the key *is*
//! the peer ID, so there is nothing to trust but the ID itself. The only key exchange is
//! X25519MLKEM768; there is no resumption, no ticket, no early data, no server name, and the
//! application protocol is always `distmsg/1`. Inside, frames follow each other, each preceded by
//! its length.
//!
//! # The handshake
//!
//! After TLS, three frames decide whether the two belong together:
//!
//! 1. The dialler sends a hello with its proof of membership and *no record*.
//! 2. The listener checks the proof and only then answers with its own hello, proof and record.
//! 3. The dialler checks that proof and only then sends its record, as a `Records` frame with one
//!    entry. Now the link is up, at the dialler when it has sent it, at the listener when it has
//!    it.
//!
//! So somebody without the network's key learns of neither side more than the ID, the network's
//! public name and the start number; and a dial that only asks who is there ([`Purpose::Probe`])
//! never becomes a link anywhere. Who does not like what it hears sends `Close` with a reason and a
//! text that reads the same at both ends, waits a moment for it to arrive, and hangs up. Each proof
//! is bound to this TLS connection (its exporter) and to the role of its maker: neither replayed
//! nor reflected proofs are worth anything.
//!
//! # Flow
//!
//! One task serves a link. It hands over all frames of one read as one event and waits while the
//! receiver of events has no room, so that TCP holds back that peer and no other. What is to be
//! sent waits in a queue that never blocks; everything that waits leaves in as few writes as
//! possible, and an event says how many bytes have left. Whoever fills the queue keeps its bound;
//! a second, hard bound ends the link.
//!
//! What is *not* here: which of two simultaneous links stays, how many links there may be, when to
//! redial, pings. Those are decisions, and `node` makes them.

mod accept;
mod channel;
mod dial;
mod endpoint;
mod event;
mod handshake;
mod listeners;
mod queue;
mod run;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

pub use dial::DialError;
pub use endpoint::{Endpoint, EndpointConfig, Purpose};
pub use event::{DialId, Direction, Ended, Event, LinkId};
pub use handshake::Membership;
pub use listeners::ListenError;
pub use queue::LinkHandle;
