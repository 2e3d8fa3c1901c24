//! What the shell's tab key offers: what the grammar has, and the peers and listeners that the
//! daemon knows. Where no daemon answers at once there are none, and nobody waits.

use std::ffi::{OsStr, OsString};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use super::args::{Cli, Global};
use super::context;
use crate::config::each_argument;
use crate::control::client::Client;
use crate::control::protocol::{Page, Peer, PeersPage, Request, Status};
use crate::model::{Name, PeerId};

/// How long the daemon may take, the start of this process not counted: somebody waits at the key.
const PATIENCE: Duration = Duration::from_millis(200);

/// The grammar with what the daemon knows in it; it is asked only when that is what is completed.
pub(super) fn grammar(words: &[OsString]) -> Command {
    let global = global(words);
    each_argument(Cli::command(), &|arg| completed(arg, &global))
}

/// The options of all commands in a line that is not finished.
fn global(words: &[OsString]) -> Global {
    let before = words.split_last().map_or(words, |(_, before)| before);
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(before);
    matches.ok().and_then(|found| Global::from_arg_matches(&found).ok()).unwrap_or_default()
}

/// Candidates for a word that was begun.
type Offer = fn(&Global, &OsStr) -> Vec<CompletionCandidate>;

/// An argument that offers what its value's name stands for.
fn completed(arg: Arg, global: &Global) -> Arg {
    let offer: Offer = match arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str())
    {
        Some("PEER") => peers,
        Some("PEER_ID") => ids,
        Some("LISTENER") => listeners,
        _ => return arg,
    };
    let global = global.clone();
    arg.add(ArgValueCompleter::new(move |word: &OsStr| match word.as_encoded_bytes() {
        // That is an option, and nobody need be asked.
        [b'-', ..] => Vec::new(),
        _ => offer(&global, word),
    }))
}

/// Aliases, and IDs once something was typed that they may begin with. What a peer calls itself
/// names nobody, for anybody may call himself so; it only explains.
fn peers(global: &Global, word: &OsStr) -> Vec<CompletionCandidate> {
    let known = asked(global, known_peers);
    let aliases = known.iter().filter_map(|peer| {
        let alias: Name = peer.alias.as_deref()?.parse().ok()?;
        Some(CompletionCandidate::new(alias.as_str()).help(Some(peer.peer.clone().into())))
    });
    let mut found: Vec<_> = aliases.collect();
    if !word.is_empty() || found.is_empty() {
        found.extend(known.iter().filter_map(by_id));
    }
    beginning_with(word, found)
}

fn ids(global: &Global, word: &OsStr) -> Vec<CompletionCandidate> {
    let known = asked(global, known_peers);
    beginning_with(word, known.iter().filter_map(by_id).collect())
}

fn by_id(peer: &Peer) -> Option<CompletionCandidate> {
    let id: PeerId = peer.peer.parse().ok()?;
    let name = |name: &String| name.parse::<Name>().ok();
    let about = match (peer.alias.as_ref().and_then(name), peer.name.as_ref().and_then(name)) {
        (Some(alias), _) => Some(alias.to_string()),
        (None, Some(own)) => Some(format!("calls itself {own}")),
        (None, None) => None,
    };
    Some(CompletionCandidate::new(id.to_string()).help(about.map(Into::into)))
}

/// Listeners, but for those whose name a shell would take for something else: candidates become
/// part of a command line as they are.
fn listeners(global: &Global, word: &OsStr) -> Vec<CompletionCandidate> {
    let mut names = asked(global, known_listeners);
    names.retain(|name| name.parse::<Name>().is_ok());
    beginning_with(word, names.into_iter().map(CompletionCandidate::new).collect())
}

fn beginning_with(word: &OsStr, mut all: Vec<CompletionCandidate>) -> Vec<CompletionCandidate> {
    let word = word.as_encoded_bytes();
    all.retain(|found| found.get_value().as_encoded_bytes().starts_with(word));
    all
}

/// Where what is learned goes, piece by piece: what came in time is offered.
type Learned<T> = mpsc::Sender<Vec<T>>;

/// What a question brings within [`PATIENCE`]. It is asked by another thread: what hangs, in the
/// system or in the daemon, does not hold us.
fn asked<T, F>(global: &Global, question: fn(Client, Learned<T>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let deadline = Instant::now() + PATIENCE;
    let (learned, learning) = mpsc::channel();
    let global = global.clone();
    thread::spawn(move || {
        let Ok(endpoint) = context::endpoint(&global) else { return };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if let Ok((client, _events)) = context::connect(&endpoint).await {
                question(client, learned).await;
            }
        });
    });
    let mut all = Vec::new();
    let left = || deadline.saturating_duration_since(Instant::now());
    while let Ok(some) = learning.recv_timeout(left()) {
        all.extend(some);
    }
    all
}

async fn known_peers(client: Client, learned: Learned<Peer>) {
    let mut page = Page::default();
    while let Ok(PeersPage { peers, next }) = client.call(&Request::Peers(page)).await
        && learned.send(peers).is_ok()
        && let Some(next) = next
    {
        page = Page { after: Some(next), limit: None };
    }
}

async fn known_listeners(client: Client, learned: Learned<String>) {
    if let Ok(Status { listeners, .. }) = client.call(&Request::Status {}).await {
        // Who asked may have waited long enough.
        let _ = learned.send(listeners.into_iter().map(|listener| listener.name).collect());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words of command lines, right and wrong ones.
    const WORDS: &[&str] = &[
        "",
        "-",
        "--",
        "---",
        "=",
        "send",
        "listen",
        "log",
        "connect",
        "help",
        "bogus",
        "bob",
        "é",
        "--json",
        "--wait",
        "--wait=",
        "--wait=q",
        "--from",
        "--since",
        "-1",
        "--timeout=",
        "-V",
        "--file",
        "--file=x",
        "-xyz",
        "--bogus",
        "--bogus=",
        "--socket",
        "--interface",
        "-h",
    ];

    proptest! {
        #[test]
        fn no_line_is_too_strange_to_be_completed(
            mut words in proptest::collection::vec(proptest::sample::select(WORDS), 0..8),
        ) {
            words.insert(0, "distmsgctl");
            let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
            // Nobody is asked: the grammar is that without the daemon's part.
            let _ = global(&words);
            let index = words.len() - 1;
            let _ = clap_complete::engine::complete(&mut Cli::command(), words, index, None);
        }
    }

    #[test]
    fn options_of_all_commands_are_found_in_a_line_that_is_not_finished() {
        for line in [
            "distmsgctl --socket /x send ",
            "distmsgctl send --socket=/x --wait ",
            "distmsgctl connect --socket /x ",
            "distmsgctl send bob --socket /x --bogus ",
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            assert_eq!(global(&words).socket.as_deref(), Some("/x".as_ref()), "{line}");
        }
        let line = "distmsgctl send --interface 127.0.0.1:8080 --token-file /t ";
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let found = global(&words);
        assert!(found.interface.is_some() && found.token_file.as_deref() == Some("/t".as_ref()));
    }

    #[test]
    fn who_completes_a_peer_asks_the_daemon_and_not_for_ever() {
        let global = Global { socket: Some("/nonexistent/socket".into()), ..Global::default() };
        assert!(peers(&global, OsStr::new("")).is_empty());
        // Never more than patience, whatever happens.
        let began = Instant::now();
        let all = asked(&global, |_, learned: Learned<u8>| async move {
            std::future::pending::<()>().await;
            drop(learned);
        });
        assert!(all.is_empty() && began.elapsed() < Duration::from_secs(5));
    }
}
