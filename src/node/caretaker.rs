//! Who looks after the process that a node runs in: a service manager, signals, the log.

use std::time::Instant;

use tokio::sync::oneshot;

use super::core::Vitals;
use super::run::{Adjustable, Stopped};
use crate::link::ListenError;

/// What a running node is asked to do.
#[derive(Debug)]
pub enum Order {
    /// End.
    Stop,
    /// Take on other settings. It is told whether they are in use, or why all is as before.
    Adjust(Box<Adjustable>, oneshot::Sender<Result<(), ListenError>>),
    /// Have this among what the operator should know, in place of what was there of this kind.
    Remark(Option<String>),
}

/// Looks after the process that a node runs in. All of it is called by the node's own loop, between
/// two rounds, and must not wait.
pub trait Caretaker {
    /// The loop has gone round: this is the sign of life that nothing else can give. Returns when
    /// it is to go round again at the latest, if at any time.
    fn on_round(&mut self, now: Instant, vitals: Vitals) -> Option<Instant>;

    /// There is something that the operator should know, or no longer.
    fn on_remark(&mut self, remark: Option<&str>);

    /// The loop has ended; neighbours are told now, and the database is closed.
    fn on_stopping(&mut self, stopped: &Stopped);
}

/// Nobody looks after it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unattended;

impl Caretaker for Unattended {
    fn on_round(&mut self, _: Instant, _: Vitals) -> Option<Instant> {
        None
    }

    fn on_remark(&mut self, _: Option<&str>) {}

    fn on_stopping(&mut self, _: &Stopped) {}
}
