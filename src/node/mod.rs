//! The only meeting point: a pure core that composes all rooms, and the loop that runs it.

mod adjust;
mod caretaker;
pub mod core;
mod run;

pub use caretaker::{Caretaker, Order, Unattended};
pub use core::Vitals;
pub use run::{Adjustable, Node, NodeConfig, NodeError, Stopped};
