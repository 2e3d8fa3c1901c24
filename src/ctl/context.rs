//! What every command is given: the way to the daemon, and where results go.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Global;
use super::exit::{Exit, Failed, Stop};
use super::input::Input;
use super::interface;
use super::output::{Output, ask};
use super::unreachable;
use crate::config::{Endpoint, EndpointError, EndpointFlags, Environment};
use crate::control::client::{CallError, Client, Events};
use crate::control::protocol::Request;

/// How long an answer takes at most that should come at once.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What one command works with.
pub(crate) struct Context {
    pub(crate) out: Output,
    /// Results as JSON, and errors too.
    pub(crate) json: bool,
    /// The way to the daemon.
    pub(crate) endpoint: Endpoint,
    /// Whether standard input holds the commands themselves, so that no command may read it.
    pub(crate) scripted: bool,
}

impl Context {
    pub(crate) fn new(endpoint: Endpoint, json: bool, scripted: bool) -> Self {
        Self { out: Output::new(), json, endpoint, scripted }
    }

    /// A connection of its own for each command: when a command is interrupted, dropping it ends
    /// what the daemon was doing for it.
    pub(crate) async fn connect(&self) -> Result<(Client, Events), Stop> {
        Ok(connect(&self.endpoint).await?)
    }

    /// Asks the daemon one thing.
    pub(crate) async fn call<R>(&self, request: &Request) -> Result<R, Stop>
    where
        R: DeserializeOwned,
    {
        let (client, _events) = self.connect().await?;
        Ok(answered(Duration::ZERO, client.call::<R>(request)).await.map_err(failed)?)
    }

    /// Prints that something was done: as JSON the bare reply, else a line for who watches.
    pub(crate) fn done<R>(&mut self, done: &R, chat: impl FnOnce()) -> Result<Exit, Stop>
    where
        R: Serialize,
    {
        if self.json {
            self.out.object(done);
            self.out.flush()?;
        } else {
            chat();
        }
        Ok(Exit::Done)
    }

    /// Whether there is a person to ask.
    pub(crate) fn can_ask(&self) -> bool {
        !self.scripted && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks the person at the terminal; anything but yes is no.
    pub(crate) async fn confirm(&self, question: &str) -> Result<bool, Stop> {
        let stdin = |error| Failed::local(format!("cannot read standard input: {error}"));
        ask(question);
        let answer = Input::stdin().map_err(stdin)?.answer().await.unwrap_or_default();
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// Where the daemon is: flag, environment, configuration, default.
pub(crate) fn endpoint(global: &Global) -> Result<Endpoint, Failed> {
    let flags = EndpointFlags {
        socket: global.socket.as_deref(),
        interface: global.interface.as_ref(),
        token_file: global.token_file.as_deref(),
        config: global.config.as_deref(),
    };
    Environment::from_process().client_endpoint(flags).map_err(|error| match error {
        // Several problems with a file are one line here.
        EndpointError::Config(problems) => Failed::local(problems.to_string().replace('\n', "; ")),
        error => Failed::usage(error.to_string()),
    })
}

/// A connection to the daemon, or why there is none and what to do about it.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<(Client, Events), Failed> {
    match endpoint {
        Endpoint::Interface(endpoint) => interface::connect(endpoint).await,
        Endpoint::Socket(socket) => {
            let connected = Client::connect(&socket.path).await;
            connected.map_err(|error| unreachable::explain(socket, &error))
        }
    }
}

/// What a call's failure means for a person.
pub(crate) fn failed(error: CallError) -> Failed {
    match error {
        CallError::Failure(failure) => failure.into(),
        CallError::Closed => Failed::new(
            Exit::Unreachable,
            "daemon_gone",
            "the daemon closed the connection; it was stopped, or its log says why",
        ),
        CallError::Silent => Failed::new(
            Exit::Unreachable,
            "daemon_silent",
            "the daemon does not answer; it was stopped or hangs, and its log may say why",
        ),
        CallError::Protocol(what) => Failed::new(
            Exit::Failure,
            "protocol",
            format!(
                "the daemon answered what this distmsgctl does not understand ({what}); \
                 use the same version of both"
            ),
        ),
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        failed(error).into()
    }
}

/// Waits for an answer that should come within this time, and a while longer: a daemon that hangs
/// does not hold us.
pub(crate) async fn answered<R>(
    within: Duration,
    answer: impl Future<Output = Result<R, CallError>>,
) -> Result<R, CallError> {
    let most = within.saturating_add(GRACE);
    tokio::time::timeout(most, answer).await.unwrap_or(Err(CallError::Silent))
}

/// What getting so many bytes to the daemon may take beyond [`GRACE`].
pub(crate) const fn carrying(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 / 1_000)
}

/// Waits until somebody wants us to stop. It counts from this call on, not only once it is awaited.
pub(crate) fn interrupted() -> impl Future<Output = Exit> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut int), Ok(mut term)) = signals else {
            // Without handlers the signals end the process by themselves.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = int.recv() => Exit::Interrupted,
            _ = term.recv() => Exit::Terminated,
        }
    }
}
