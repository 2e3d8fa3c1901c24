//! What the daemon is asked from outside by signals, or by the end of its standard input.

use std::io::IsTerminal as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::info;

use super::exit::Stop;
use super::reload::Reload;
use crate::node::Order;

/// The signals that we handle, from the moment on that this exists.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Handled at all, it leaves a write with an error instead of ending the process: setrlimit(2).
    _file_too_large: Signal,
}

impl Signals {
    /// Handles them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn new() -> Result<Self, Stop> {
        let file_too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(Stop::failure)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Stop::failure)?,
            hangup: signal(SignalKind::hangup()).map_err(Stop::failure)?,
            _file_too_large: signal(file_too_large).map_err(Stop::failure)?,
        })
    }

    /// Turns signals into orders, until one of them is to stop.
    pub(super) async fn obey(
        mut self,
        orders: mpsc::Sender<Order>,
        mut reload: Reload,
        exit_with_stdin: bool,
    ) {
        let terminal = Terminal::of_stdin();
        let hangs_up = async {
            while self.hangup.recv().await.is_some() {
                if terminal.is_some_and(|terminal| terminal.is_gone()) {
                    return;
                }
                info!("SIGHUP: reading the configuration again");
                reload.reload(&orders).await;
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => info!("SIGINT: stopping"),
            () = end_of_stdin(), if exit_with_stdin => info!("end of input: stopping"),
            () = hangs_up => info!("the terminal is gone: stopping"),
        }
        // A loop that has ended needs no order.
        let _ = orders.send(Order::Stop).await;
    }
}

/// The terminal that we run on. Who closes it expects that we end, as without a handler for SIGHUP.
#[derive(Debug, Clone, Copy)]
struct Terminal;

impl Terminal {
    fn of_stdin() -> Option<Self> {
        std::io::stdin().is_terminal().then_some(Self)
    }

    /// A terminal that was hung up answers nothing any more: termios(3), EIO.
    fn is_gone(self) -> bool {
        rustix::termios::tcgetattr(std::io::stdin()).is_err()
    }
}

/// Waits until nobody holds the other end of standard input any more.
async fn end_of_stdin() {
    let mut ignored = tokio::io::sink();
    // An error is an end as well.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut ignored).await;
}
