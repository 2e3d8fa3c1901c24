//! Who looks after the process that a node runs in: a service manager, signals, the log.

use std::time::Instant;

use tokio::sync::oneshot;

use super::core::Vitals;
use super::run::{Adjustable, Stopped};
use crate::link::ListenError;
use crate::model::Level;

/// What a running node is asked to do.
#[derive(Debug)]
pub enum Order {
    /// End.
    Stop,
    /// Take on other settings. It is told whether they are in use, or why all is as before.
    Adjust(Box<Adjustable>, oneshot::Sender<Result<(), ListenError>>),
    /// The configuration was read again; the reason, if it was refused and all is as before.
    Reloaded(Option<String>),
}

/// Looks after the process that a node runs in. All of it is called by the node's own loop, between
/// two rounds, and must not wait.
pub trait Caretaker {
    /// The loop has gone round: this is the sign of life that nothing else can give. Returns when
    /// it is to go round again at the latest, if at any time.
    fn on_round(&mut self, now: Instant, vitals: Vitals) -> Option<Instant>;

    /// The configuration was read again; the reason, if it was refused and all is as before.
    fn on_reloaded(&mut self, refusal: Option<&str>);

    /// Has so much logged from now on, if a level is given; how much is logged.
    fn log(&mut self, level: Option<Level>) -> String;

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

    fn on_reloaded(&mut self, _: Option<&str>) {}

    fn log(&mut self, _: Option<Level>) -> String {
        "nothing".to_owned()
    }

    fn on_stopping(&mut self, _: &Stopped) {}
}
