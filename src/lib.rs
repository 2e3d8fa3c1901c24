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
//! - [`link`]: authenticated, encrypted connections to neighbours.
//! - [`control`]: the protocol that clients speak with the daemon.
//! - [`node`]: the only meeting point: a pure core that composes all rooms, and its loop.
//! - [`config`]: the configuration file and where things are.
//! - [`ctl`]: distmsgctl: its commands, its output and its prompt.
//! - [`daemon`]: arguments, secrets, logging, signals: what makes a node a daemon.
//! - [`lab`]: a network of daemons on this machine, to try things out.

pub mod config;
pub mod control;
pub mod courier;
pub mod crypto;
pub mod ctl;
pub mod daemon;
pub mod lab;
pub mod link;
pub mod model;
pub mod node;
pub mod router;
pub mod store;
pub mod wire;
