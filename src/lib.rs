//! distmsg: messages between machines, with no broker.
//!
//! The rooms, in reading order:
//!
//! - [`model`]: values that everybody shares: peer IDs, messages, records, time, and every bound.
//! - [`crypto`]: keys and what is done with them.
//! - [`wire`]: bytes to values and back.
//! - [`router`]: pure: who our neighbours are and how to reach everybody else through them.
//! - [`courier`]: pure: end to end: sessions, ordering, receipts, retries.
//! - [`store`]: what survives, in SQLite.
//! - [`control`]: the protocol that clients speak with the daemon.
//! - [`config`]: the configuration file, and where things are.
//! - [`daemon`]: what the daemon is told, and the secrets and locks it starts with.

pub mod config;
pub mod control;
pub mod courier;
pub mod crypto;
pub mod daemon;
pub mod model;
pub mod router;
pub mod store;
pub mod wire;
