//! The only meeting point: a pure core that composes all rooms, and the loop that runs it.

pub mod core;
mod run;

pub use run::{Node, NodeConfig, NodeError, Stopped};
