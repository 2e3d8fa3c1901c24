//! Routers talking to each other.

mod discovering;
mod finding;
mod flooding;
mod forwarding;
mod limiting;
mod linking;
mod mending;
mod net;
