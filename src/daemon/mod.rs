//! The daemon around the node: arguments, setup, secrets, the lock on its state, and logging.

pub mod args;
pub mod check;
pub mod exit;
pub mod import;
pub mod init;
pub mod lock;
pub mod logging;
pub mod secrets;

mod files;
mod questions;
