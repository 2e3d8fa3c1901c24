//! A network of real daemons on this machine, to try things out: the children are this very
//! executable, the prompt runs in this process.
//!
//! Everything is in one temporary directory, and nothing is left behind. Each child watches its
//! standard input, whose other end only this process holds: however this process ends, they end.

mod children;
mod report;
mod topology;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::ctl::api::{
    CallError, Client, Connect, Connected, Done, Event, Events, Request, Send, Sent, SetAlias,
    Status, Subscribe, Subscribed, Topic, Wait,
};
use crate::ctl::prompt;
use crate::daemon::args::LabArgs;

use children::{Child, Children};
use report::Seen;
use topology::Edge;

/// How long the message may take. The first one includes finding the way.
const DELIVERY_MAX: Duration = Duration::from_secs(30);
/// How long a link may take.
const LINK_MAX: Duration = Duration::from_secs(30);
/// Connections made at once.
const CONNECTS_AT_ONCE: usize = 16;

/// Why there is no lab.
#[derive(Debug, Error)]
enum LabError {
    /// The machine refuses.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// No socket can be made in the directory for temporary files.
    #[error(
        "sockets in {0} would have too long a path; name a shorter directory, as in \
         'TMPDIR=/tmp distmsg lab'"
    )]
    TooLong(PathBuf),
    /// A daemon does not start.
    #[error("{name} does not start; the end of its log:\n{log}")]
    Child {
        /// Which.
        name: String,
        /// What it said last.
        log: String,
    },
    /// A daemon does not do what it is asked.
    #[error("{name}: {error}")]
    Call {
        /// Which.
        name: String,
        /// Why.
        error: CallError,
    },
    /// Nobody can be shown what happened.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A signal came.
    #[error("ended by a signal")]
    Signal(u8),
}

/// Runs a network, sends a message through it, and shows what every node saw. On a terminal it then
/// leaves the person at the first node's prompt.
pub fn run(args: &LabArgs) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LabError::Io("cannot start", error))
        .and_then(|runtime| runtime.block_on(interruptible(args)));
    match outcome {
        Ok(lab) => lab.explore(),
        Err(LabError::Signal(number)) => ExitCode::from(128 + number),
        // Whoever read us has seen enough.
        Err(LabError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "distmsg lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A network that runs, after its first message.
struct Lab {
    children: Arc<Children>,
    /// Removed when this is dropped.
    directory: TempDir,
}

impl Lab {
    /// Leaves the person at the prompt, if there is one.
    fn explore(self) -> ExitCode {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return ExitCode::SUCCESS;
        }
        let Some(first) = self.children.first() else { return ExitCode::SUCCESS };
        self.clean_up_on_signal();
        let others: Vec<&str> = self.children.iter().skip(1).map(|c| c.name.as_str()).collect();
        let example = others.last().copied().unwrap_or_default();
        let greeting = format!(
            "You are at {}'s prompt; the others are {}.\n\
             Try: send {example} hello, discover, peers, routes, ping {example}. \
             'exit' ends the lab.",
            first.name,
            others.join(", ")
        );
        prompt::run(&first.socket, &greeting)
    }

    /// While the prompt has the terminal, a signal that ends this process cleans up first.
    fn clean_up_on_signal(&self) {
        let (children, directory) = (Arc::clone(&self.children), self.directory.path().to_owned());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let number = runtime.block_on(async {
                let (Ok(mut terminate), Ok(mut hangup)) =
                    (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
                else {
                    return std::future::pending().await;
                };
                tokio::select! {
                    _ = terminate.recv() => 15,
                    _ = hangup.recv() => 1,
                }
            });
            children.end();
            let _ = std::fs::remove_dir_all(directory);
            std::process::exit(128 + number);
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.children.end();
    }
}

/// Builds the network and sends the message, unless a signal comes first.
async fn interruptible(args: &LabArgs) -> Result<Lab, LabError> {
    let failed = |error| LabError::Io("cannot wait for signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        outcome = build(args) => outcome,
        _ = interrupt.recv() => Err(LabError::Signal(2)),
        _ = terminate.recv() => Err(LabError::Signal(15)),
    }
}

async fn build(args: &LabArgs) -> Result<Lab, LabError> {
    let directory = tempfile::Builder::new()
        .prefix("distmsg-lab-")
        .tempdir()
        .map_err(|error| LabError::Io("cannot make a temporary directory", error))?;
    let seed = args.seed.unwrap_or_else(topology::any_seed);
    let edges = topology::edges(args.nodes, args.topology, seed);
    progress(&format!("starting {} daemons in {}", args.nodes, directory.path().display()));
    let children = Children::start(args.nodes, directory.path()).await?;
    let lab = Lab { children: Arc::new(children), directory };
    let mut nodes = Vec::new();
    for child in lab.children.iter() {
        nodes.push(Node::attach(child).await?);
    }
    let plural = if edges.len() == 1 { "" } else { "s" };
    progress(&format!("connecting them: {} link{plural}", edges.len()));
    for some in edges.chunks(CONNECTS_AT_ONCE) {
        connect(&nodes, some).await?;
    }
    name_all(&nodes).await?;
    let mut out = io::stdout();
    let names: Vec<&str> = lab.children.iter().map(|child| child.name.as_str()).collect();
    let picture = topology::picture(&names, args.topology, &edges, seed);
    writeln!(out, "{picture}").map_err(LabError::Output)?;
    let took = send(&nodes).await?;
    let mut seen = Vec::new();
    for node in &mut nodes {
        seen.push(Seen { name: node.name.clone(), events: node.drain().await? });
    }
    let table = report::table(&nodes.iter().map(Node::identity).collect::<Vec<_>>(), &seen);
    writeln!(
        out,
        "{table}\n\
         delivered: {} has it on disk and proved it to {}, {} ms after it was handed in",
        names.last().copied().unwrap_or_default(),
        names.first().copied().unwrap_or_default(),
        took.as_millis()
    )
    .and_then(|()| out.flush())
    .map_err(LabError::Output)?;
    Ok(lab)
}

/// A daemon that runs, as its client sees it.
struct Node {
    name: String,
    peer: String,
    address: String,
    client: Client,
    events: Events,
}

impl Node {
    async fn attach(child: &Child) -> Result<Self, LabError> {
        let name = child.name.clone();
        let (client, events) = child.client().await?;
        let failed = |error| LabError::Call { name: name.clone(), error };
        let status: Status = client.call(&Request::Status {}).await.map_err(failed)?;
        let topics = vec![Topic::Traffic, Topic::Messages];
        let subscribe = Request::Subscribe(Subscribe { topics });
        let _: Subscribed = client.call(&subscribe).await.map_err(failed)?;
        let address = status.listen.first().cloned().unwrap_or_default();
        Ok(Self { name, peer: status.peer, address, client, events })
    }

    fn identity(&self) -> (&str, &str) {
        (&self.name, &self.peer)
    }

    fn failed(&self, error: CallError) -> LabError {
        LabError::Call { name: self.name.clone(), error }
    }

    /// Everything it was told so far: replies come after the events before them.
    async fn drain(&mut self) -> Result<Vec<Event>, LabError> {
        let barrier = self.client.call::<Status>(&Request::Status {}).await;
        barrier.map_err(|error| self.failed(error))?;
        Ok(std::iter::from_fn(|| self.events.try_next()).collect())
    }
}

async fn connect(nodes: &[Node], edges: &[Edge]) -> Result<(), LabError> {
    let mut pending = Vec::new();
    for (from, to) in edges {
        let (Some(from), Some(to)) = (nodes.get(*from), nodes.get(*to)) else { continue };
        let request = Request::Connect(Connect {
            peer: to.peer.clone(),
            address: to.address.clone(),
            alias: Some(to.name.clone()),
            timeout_ms: u64::try_from(LINK_MAX.as_millis()).unwrap_or(u64::MAX),
        });
        pending.push((from, from.client.start::<Connected>(&request)));
    }
    for (from, pending) in pending {
        pending.await.map_err(|error| from.failed(error))?;
    }
    Ok(())
}

/// The first node gets to know all others by name, and the last one the first.
async fn name_all(nodes: &[Node]) -> Result<(), LabError> {
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return Ok(()) };
    let named = nodes.iter().skip(1).map(|node| (first, node)).chain([(last, first)]);
    for (at, node) in named {
        let alias =
            Request::Alias(SetAlias { peer: node.peer.clone(), alias: Some(node.name.clone()) });
        let done = at.client.call::<Done>(&alias).await;
        done.map_err(|error| at.failed(error))?;
    }
    Ok(())
}

/// Sends a message from the first node to the last; how long it took.
async fn send(nodes: &[Node]) -> Result<Duration, LabError> {
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else {
        return Ok(Duration::ZERO);
    };
    let request = Send {
        peer: last.peer.clone(),
        body: Some(format!("hello {}, this is {}", last.name, first.name)),
        body_base64: None,
        upload: None,
        subject: None,
        wait: Wait::Delivered,
        timeout_ms: u64::try_from(DELIVERY_MAX.as_millis()).ok(),
        key: None,
    };
    let start = Instant::now();
    let sent = first.client.call::<Sent>(&Request::Send(request)).await;
    sent.map_err(|error| first.failed(error))?;
    Ok(start.elapsed())
}

/// Says what is going on.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text} ...");
}
