//! The control protocol: JSON-RPC 2.0, one object a line, over any byte stream.
//!
//! [`protocol`] defines every request, reply, event and error; [`codec`] turns them into lines and
//! back; [`server`] and [`client`] are the two ends; [`socket`] is where they meet on one machine,
//! [`interface`] the TCP port where they meet if they cannot there.

pub mod client;
pub mod codec;
pub mod interface;
pub mod plain;
pub mod protocol;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;
mod upload;

pub use codec::{Call, Outgoing, RequestId, SendRequest};
