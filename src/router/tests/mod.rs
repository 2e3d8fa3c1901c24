//! Routers talking to each other.

mod discovering;
mod finding;
mod flooding;
mod forwarding;
mod limiting;
mod linking;
mod lying;
mod mending;
mod net;
