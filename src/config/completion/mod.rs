//! Completing a command line for a shell, of daemon and client alike.
//!
//! The shells' scripts call the program back with `COMPLETE=SHELL PROGRAM -- WORD...`, the words of
//! the command line up to the cursor. The answer's first line is `files`, where a path is meant,
//! which shells complete better themselves, or `words`; then follow candidates, one a line, some
//! with a tab and their meaning. Without words the answer is the script.

use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::{Arg, Command, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};

/// The variable that says which shell asks.
const ASKED: &str = "COMPLETE";

/// Marks the place of a path.
const FILES: &str = "files";

/// Comes before candidates.
const WORDS: &str = "words\n";

/// The shells there are scripts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shell {
    /// bash(1), from 4.0 on.
    Bash,
    /// zsh(1).
    Zsh,
    /// fish(1), from 3.1 on.
    Fish,
}

impl Shell {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    /// The name of its executable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }

    /// The name of the script's file, by which the shell finds it.
    pub fn file(self, program: &str) -> String {
        match self {
            Self::Bash => format!("{program}.bash"),
            Self::Zsh => format!("_{program}"),
            Self::Fish => format!("{program}.fish"),
        }
    }

    /// What makes it complete a program's command line.
    pub fn script(self, program: &str) -> String {
        let template = match self {
            Self::Bash => include_str!("bash"),
            Self::Zsh => include_str!("zsh"),
            Self::Fish => include_str!("fish"),
        };
        template.replace("NAME", program)
    }
}

/// What a shell is to be answered that completes with this process, if one does. `grammar` is
/// given the words that it asks about.
pub fn completion(
    program: &str,
    args: &[OsString],
    grammar: impl FnOnce(&[OsString]) -> Command,
) -> Option<String> {
    let asked = std::env::var_os(ASKED)?;
    let shell = Shell::ALL.into_iter().find(|shell| asked == shell.name())?;
    match args.get(1..).unwrap_or_default() {
        [] => Some(shell.script(program)),
        [separator, words @ ..] if separator == "--" && !words.is_empty() => {
            Some(candidates(grammar(words), words))
        }
        // The variable is set for something else.
        _ => None,
    }
}

/// The answer about words of which the last is to be completed.
fn candidates(grammar: Command, words: &[OsString]) -> String {
    let mut grammar = each_argument(grammar, &|arg| match arg.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => {
            arg.add(ArgValueCompleter::new(path))
        }
        _ => arg,
    });
    let index = words.len().saturating_sub(1);
    // The engine fails only where there is nothing to complete.
    let found = complete(&mut grammar, words.to_vec(), index, None).unwrap_or_default();
    let is_path = |tag: &StyledStr| tag.to_string() == FILES;
    let (paths, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|candidate| candidate.get_tag().is_some_and(is_path));
    let wants_option = words.last().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    let mut answer = String::new();
    for candidate in found {
        let Some(value) = candidate.get_value().to_str() else { continue };
        // Options are offered to who begins one: elsewhere they would hide what is meant.
        if value.starts_with('-') != wants_option {
            continue;
        }
        answer.push_str(value);
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some(meaning) = help.lines().next() {
            answer.push('\t');
            answer.push_str(meaning);
        }
        answer.push('\n');
    }
    // Where a path may stand and a word as well, the path is what does not begin like a word.
    if answer.is_empty() && !paths.is_empty() {
        format!("{FILES}\n")
    } else {
        WORDS.to_owned() + &answer
    }
}

fn path(_: &OsStr) -> Vec<CompletionCandidate> {
    vec![CompletionCandidate::new("").tag(Some(FILES.into()))]
}

/// Changes every argument of a command and its subcommands.
pub fn each_argument(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    command.mut_args(change).mut_subcommands(|inner| each_argument(inner, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar() -> Command {
        let file = Arg::new("file").long("file").value_hint(ValueHint::FilePath);
        let topic = Arg::new("topic").value_parser(["links", "messages"]);
        Command::new("prog").subcommand(
            Command::new("watch").about("Watches").arg(file.help("The file\nin full")).arg(topic),
        )
    }

    fn answer(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        candidates(grammar(), &words)
    }

    #[test]
    fn commands_values_and_options_are_offered_each_where_it_is_begun() {
        assert_eq!(answer("prog wa"), "words\nwatch\tWatches\n");
        assert_eq!(answer("prog watch "), "words\nlinks\nmessages\n");
        assert_eq!(answer("prog watch --f"), "words\n--file\tThe file\n");
        assert_eq!(answer("prog watch x y"), "words\n");
    }

    #[test]
    fn where_a_path_is_meant_the_shell_is_told_so() {
        assert_eq!(answer("prog watch --file "), "files\n");
        assert_eq!(answer("prog watch --file=a"), "files\n");
        let config = Arg::new("config").value_hint(ValueHint::FilePath);
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let both = |line: &str| candidates(grammar().arg(config.clone()), &words(line));
        assert_eq!(both("prog w"), "words\nwatch\tWatches\n");
        assert_eq!(both("prog /etc/w"), "files\n");
    }

    #[test]
    fn a_script_calls_the_program_by_its_name() {
        for shell in Shell::ALL {
            let script = shell.script("prog");
            assert!(script.contains(&format!("COMPLETE={} prog -- ", shell.name())), "{script}");
            assert!(!script.contains("NAME") && script.contains("prog"), "{script}");
        }
    }
}
