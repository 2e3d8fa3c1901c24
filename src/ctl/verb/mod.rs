//! The commands: each file holds one, its arguments and what it does.

pub(crate) mod alias;
pub(crate) mod connect;
pub(crate) mod disconnect;
pub(crate) mod discover;
pub(crate) mod forget;
pub(crate) mod id;
pub(crate) mod inbox;
pub(crate) mod listen;
pub(crate) mod listeners;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod ping;
pub(crate) mod routes;
pub(crate) mod send;
pub(crate) mod status;
