//! Where a node's TCP interface port is, and who must answer there.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Address, AddressError, PeerId, PeerIdError};

/// `[PEER_ID@]HOST:PORT`. Without the ID it is an address of this machine: only there may a token
/// go in clear text, and to whoever answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceAddress {
    peer: Option<PeerId>,
    address: Address,
}

impl InterfaceAddress {
    /// Who must answer; whoever does, if there is none.
    pub const fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// Where.
    pub const fn address(&self) -> &Address {
        &self.address
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{peer}@{}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Why a text is no address of an interface port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceAddressError {
    /// What stands before the `@` is no peer ID.
    #[error("what stands before the @ is no peer ID: {0}; 'distmsgctl id' prints it over there")]
    Peer(PeerIdError),
    /// What stands behind it is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody would know who answers there.
    #[error(
        "{0} is not on this machine, so the daemon there must be named; write PEER_ID@{0}, with \
         the ID that 'distmsgctl id' prints over there"
    )]
    Nameless(Address),
    /// Nobody listens on port 0.
    #[error("nobody listens on port 0; write the port that the daemon's log and 'status' name")]
    Port,
}

impl FromStr for InterfaceAddress {
    type Err = InterfaceAddressError;

    fn from_str(text: &str) -> Result<Self, InterfaceAddressError> {
        let (peer, address) = match text.rsplit_once('@') {
            Some((peer, address)) => {
                (Some(peer.parse().map_err(InterfaceAddressError::Peer)?), address)
            }
            None => (None, text),
        };
        let address: Address = address.parse()?;
        if address.port() == 0 {
            return Err(InterfaceAddressError::Port);
        }
        if peer.is_none() && !address.is_loopback() {
            return Err(InterfaceAddressError::Nameless(address));
        }
        Ok(Self { peer, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "dm1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs4lhh9s";

    #[test]
    fn an_address_elsewhere_needs_the_peer_id() {
        for text in ["127.0.0.1:8080", "[::1]:1", "localhost:8080"] {
            let parsed: InterfaceAddress = text.parse().expect(text);
            assert_eq!((parsed.peer(), parsed.to_string()), (None, text.to_owned()));
            let pinned = format!("{PEER}@{text}");
            let parsed: InterfaceAddress = pinned.parse().expect(text);
            assert_eq!((parsed.peer(), parsed.to_string()), (PEER.parse().ok(), pinned));
        }
        for text in ["192.0.2.7:8080", "example.org:8080", "0.0.0.0:8080", "[::]:8080"] {
            let error = text.parse::<InterfaceAddress>().expect_err(text).to_string();
            assert!(error.contains(&format!("write PEER_ID@{text}, ")), "{error}");
            assert!(format!("{PEER}@{text}").parse::<InterfaceAddress>().is_ok(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (text, why) in [
            ("a b:1", "neither an IP address nor a host name"),
            ("127.0.0.1", "the port is missing"),
            ("127.0.0.1:0", "nobody listens on port 0"),
            ("@127.0.0.1:1", "no peer ID: a peer ID begins with dm1"),
            ("bob@127.0.0.1:1", "no peer ID: a peer ID begins with dm1"),
            ("dm1qq@127.0.0.1:1", "no peer ID: a peer ID has 61 characters"),
        ] {
            let error = text.parse::<InterfaceAddress>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
