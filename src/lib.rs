//! distmsg: messages between machines, with no broker.
//!
//! The rooms, in reading order:
//!
//! - [`model`]: values that everybody shares: peer IDs, messages, records, time, and every bound.
//! - [`store`]: what survives, in SQLite.
//! - [`control`]: the protocol that clients speak with the daemon.

pub mod control;
pub mod crypto;
pub mod model;
pub mod store;
pub mod wire;
