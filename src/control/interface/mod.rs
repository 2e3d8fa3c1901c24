//! The TCP interface port: the control protocol for whoever has the token.
//!
//! A connection begins with `{` and is clear text, or with a TLS 1.3 handshake that offers the
//! protocol [`PROTOCOL`]; clear text is for loopback alone. Its first line is the request
//! `authenticate` with the token. Everything else is closed without a byte in reply, so that a
//! browser, a scanner or a mistake learns nothing and starts nothing. From then on it is a control
//! connection like those of the Unix socket, within the same bounds.
//!
//! The server shows a certificate of the node's own identity key, and the client compares that key
//! with the peer ID it was told: names, dates and authorities are of no consequence. A client that
//! finds another key sends nothing.

mod admit;
mod dial;
mod gate;
mod listen;
mod tls;
mod token_file;

pub use dial::{DialError, dial};
pub use listen::{Interface, InterfaceError, InterfaceListener};
pub use token_file::{Credentials, TokenFileError, read_token};

/// The application protocol (ALPN, RFC 7301) of the interface port. Browsers offer others.
pub const PROTOCOL: &[u8] = b"distmsg-control/1";
