//! What the tab key offers: commands, options, and the peers and listeners the daemon knows.

use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::{Arg, Command};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::sync::mpsc;

/// How long the tab key waits for the newest names.
const FRESH_NAMES_WAIT: Duration = Duration::from_millis(400);

/// Asks for the newest names; to be answered when they are there.
pub(crate) type Refresh = std_mpsc::Sender<()>;

/// Names of peers and listeners, as the daemon told them last. The editor's thread reads it, the
/// prompt fills it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) aliases: Vec<String>,
    pub(crate) ids: Vec<String>,
    pub(crate) listeners: Vec<String>,
}

/// Completes a line by the grammar itself.
pub(crate) struct Completion {
    grammar: Command,
    names: Arc<Mutex<Names>>,
    refreshes: mpsc::Sender<Refresh>,
    files: FilenameCompleter,
}

/// What may stand at a place.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Verb,
    Peer,
    PeerId,
    Listener,
    File,
    Words(Vec<String>),
    Unknown,
}

impl Completion {
    pub(crate) fn new(
        mut grammar: Command,
        names: Arc<Mutex<Names>>,
        refreshes: mpsc::Sender<Refresh>,
    ) -> Self {
        // Only then do the commands know the options of all.
        grammar.build();
        Self { grammar, names, refreshes, files: FilenameCompleter::new() }
    }

    /// Gets the newest names from the daemon, or goes on with those of before.
    fn refresh(&self) {
        let (refresh, refreshed) = std_mpsc::channel();
        if self.refreshes.try_send(refresh).is_ok() {
            let _ = refreshed.recv_timeout(FRESH_NAMES_WAIT);
        }
    }

    /// The candidates for the last word of what stands before the cursor.
    fn candidates(&self, place: Place, word: &str) -> Vec<String> {
        let mut found = match place {
            Place::Verb => {
                let verbs = self.grammar.get_subcommands().filter(|verb| !verb.is_hide_set());
                verbs.map(|verb| verb.get_name().to_owned()).collect()
            }
            Place::Peer => self.peers(!word.is_empty()),
            Place::PeerId => self.names().ids.clone(),
            Place::Listener => self.names().listeners.clone(),
            Place::Words(words) => words,
            Place::File | Place::Unknown => Vec::new(),
        };
        found.retain(|candidate| candidate.starts_with(word));
        found
    }

    /// Aliases, and IDs once something was typed that they may begin with.
    fn peers(&self, with_ids: bool) -> Vec<String> {
        let names = self.names();
        let ids = names.ids.iter().filter(|_| with_ids);
        names.aliases.iter().chain(ids).cloned().collect()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may stand after these words, for a word that begins like this.
    fn place(&self, before: &[&str], word: &str) -> Place {
        let Some((verb, before)) = before.split_first() else { return Place::Verb };
        if *verb == "help" {
            return if before.is_empty() { Place::Verb } else { Place::Unknown };
        }
        let Some(verb) = self.grammar.find_subcommand(verb) else { return Place::Unknown };
        let option = |word: &str| {
            let long = word.strip_prefix("--")?;
            verb.get_arguments().find(|arg| arg.get_long() == Some(long))
        };
        let takes_value = |word: &str| option(word).filter(|arg| arg.get_action().takes_values());
        if let Some(arg) = before.last().copied().and_then(takes_value) {
            return values_of(arg);
        }
        if word.starts_with('-') {
            let options = verb.get_arguments().filter(|arg| !arg.is_hide_set());
            let longs = options.filter_map(Arg::get_long).map(|long| format!("--{long}"));
            return Place::Words(longs.collect());
        }
        // Options and their values are not counted among the positional arguments.
        let mut position = 0;
        let mut value = false;
        for word in before {
            let is_value = std::mem::replace(&mut value, takes_value(word).is_some());
            position += usize::from(!is_value && !word.starts_with('-'));
        }
        verb.get_positionals().nth(position).map_or(Place::Unknown, values_of)
    }
}

fn values_of(arg: &Arg) -> Place {
    let words: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !words.is_empty() {
        return Place::Words(words);
    }
    match arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str()) {
        Some("PEER") => Place::Peer,
        Some("PEER_ID") => Place::PeerId,
        Some("LISTENER") => Place::Listener,
        Some("FILE") => Place::File,
        _ => Place::Unknown,
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..pos).unwrap_or(line);
        let start = typed.rfind(char::is_whitespace).map_or(0, |space| {
            // The character after the space, which may be more than a byte.
            space + typed.get(space..).and_then(|s| s.chars().next()).map_or(0, char::len_utf8)
        });
        let (before, word) = typed.split_at(start);
        let before: Vec<&str> = before.split_whitespace().collect();
        let place = self.place(&before, word);
        if place == Place::File {
            return self.files.complete_path(line, pos);
        }
        if matches!(place, Place::Peer | Place::PeerId | Place::Listener) {
            self.refresh();
        }
        let pairs = self.candidates(place, word).into_iter().map(|candidate| Pair {
            display: candidate.clone(),
            replacement: format!("{candidate} "),
        });
        Ok((start, pairs.collect()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Hinter for Completion {
    type Hint = String;
}
impl Validator for Completion {}

#[cfg(test)]
mod tests {
    use rustyline::history::DefaultHistory;

    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let names = Names {
            aliases: vec!["bob".into(), "box".into()],
            ids: vec!["dm1qq".into()],
            listeners: vec!["backup".into(), "default".into()],
        };
        let completion = Completion::new(
            super::super::grammar(),
            Arc::new(Mutex::new(names)),
            mpsc::channel(1).0,
        );
        let history = DefaultHistory::new();
        let (start, pairs) = completion
            .complete(line, line.len(), &Context::new(&history))
            .expect("completing does not fail");
        pairs.into_iter().map(|pair| format!("{}{}", &line[..start], pair.replacement)).collect()
    }

    #[test]
    fn commands_are_completed() {
        assert_eq!(offered("se"), ["send "]);
        assert_eq!(offered("help lis"), ["help listen ", "help listeners "]);
        assert!(offered("").contains(&"exit ".to_owned()));
    }

    #[test]
    fn options_and_their_values_are_completed() {
        assert_eq!(offered("send --wa"), ["send --wait "]);
        assert_eq!(offered("send bob --wait q"), ["send bob --wait queued "]);
        assert_eq!(offered("peers --js"), ["peers --json "]);
    }

    #[test]
    fn peers_are_completed_where_they_stand() {
        assert_eq!(offered("send b"), ["send bob ", "send box "]);
        assert_eq!(offered("send d"), ["send dm1qq "]);
        assert_eq!(offered("send "), ["send bob ", "send box "]);
        assert_eq!(
            offered("send --timeout 2s bo"),
            ["send --timeout 2s bob ", "send --timeout 2s box "]
        );
        assert_eq!(offered("send bob b"), [""; 0]);
        assert_eq!(offered("listen --from bob"), ["listen --from bob "]);
        assert_eq!(offered("connect dm"), ["connect dm1qq "]);
    }

    #[test]
    fn listeners_are_completed_where_they_stand() {
        assert_eq!(offered("listeners --remove b"), ["listeners --remove backup "]);
        assert_eq!(offered("listen --name d"), ["listen --name default "]);
    }
}
