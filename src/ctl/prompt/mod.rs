//! The prompt: the shell's grammar with line editing, completion, and messages as they come. From a
//! pipe the same lines are a script.

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use super::args::{Cli, Global, Verb};
use super::exit::{Exit, Failed, Stop};
use super::output::{Output, explain};
use crate::config::{Endpoint, usage_line};

mod complete;
mod editor;
mod script;
mod session;
mod split;
mod watch;

pub(crate) use script::run as run_script;
pub(crate) use session::run as run_session;

/// A prompt on this process's terminal, for the daemon behind a socket, with a greeting above it.
/// Returns when the person leaves it.
///
/// It blocks, and may be called from anywhere: it has its own thread and its own runtime.
#[must_use]
pub fn run(socket: &Path, greeting: &str) -> ExitCode {
    let shell = Shell { endpoint: Endpoint::socket(socket.to_owned()), json: false };
    let inside = || super::block_on(run_session(&shell, Some(greeting)));
    thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What all lines of a prompt or script share.
pub(crate) struct Shell {
    pub(crate) endpoint: Endpoint,
    /// JSON for every line, not only for those that ask for it.
    pub(crate) json: bool,
}

/// What a line asks for.
#[derive(Debug)]
enum Asked {
    /// Nothing: it is blank or a comment.
    Nothing,
    /// To leave.
    Exit,
    /// Help, which is this text.
    Help(String),
    /// A command, and whether its results are to be JSON.
    Run(Verb, bool),
}

/// The grammar of a line: that of the shell, without the program's name and with `exit`.
fn grammar() -> Command {
    const TEMPLATE: &str = "{subcommands}";
    Cli::command()
        .no_binary_name(true)
        .bin_name("")
        .subcommand_required(true)
        .subcommand_value_name("COMMAND")
        .help_template(TEMPLATE)
        .after_help(None::<&str>)
        .disable_version_flag(true)
        .mut_arg("socket", |arg| arg.hide(true))
        .mut_arg("interface", |arg| arg.hide(true))
        .mut_arg("token_file", |arg| arg.hide(true))
        .mut_arg("config", |arg| arg.hide(true))
        .subcommand(
            Command::new("exit").visible_alias("quit").about("Leave the prompt, as ctrl-D does"),
        )
}

/// Parses a line once, at the edge.
fn parse(line: &str) -> Result<Asked, Failed> {
    let words = split::split(line).map_err(|error| Failed::usage(error.to_string()))?;
    if words.is_empty() {
        return Ok(Asked::Nothing);
    }
    let wrong = |error: clap::Error| {
        let help = "'help' lists the commands";
        Failed::usage(format!("{}; {help}", usage_line(&error)))
    };
    let matches = match grammar().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(text) if !text.use_stderr() => return Ok(Asked::Help(help(&text))),
        Err(error) => return Err(wrong(error)),
    };
    if matches.subcommand_name() == Some("exit") {
        return Ok(Asked::Exit);
    }
    let Cli { global: Global { json, socket, interface, token_file, config }, verb } =
        Cli::from_arg_matches(&matches).map_err(wrong)?;
    let paths = [socket, token_file, config];
    if interface.is_some() || paths.iter().any(Option::is_some) {
        let why = "which daemon it is, is said when the prompt is started; leave it, and start it \
                   with --socket, --interface, --token-file or --config";
        return Err(Failed::usage(why));
    }
    Ok(verb.map_or(Asked::Nothing, |verb| Asked::Run(verb, json)))
}

/// Help as clap writes it, but for the space where the program's name would be.
fn help(text: &clap::Error) -> String {
    text.to_string().replace("Usage:  ", "Usage: ")
}

/// Writes help.
fn show_help(text: &str, json: bool) -> Exit {
    let mut out = Output::new();
    out.line(text.trim_end());
    match out.flush() {
        Ok(()) => Exit::Done,
        Err(Stop::Quiet(exit)) => exit,
        Err(Stop::Failed(failed)) => {
            explain(&failed, json);
            failed.exit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed_as_by_the_shell() {
        assert!(matches!(
            parse("send bob 'hi there' --wait queued"),
            Ok(Asked::Run(Verb::Send(_), false))
        ));
        assert!(matches!(parse("peers --json"), Ok(Asked::Run(Verb::Peers(_), true))));
        assert!(matches!(parse("  # nothing"), Ok(Asked::Nothing)));
        assert!(matches!(parse("exit"), Ok(Asked::Exit)));
        assert!(matches!(parse("quit"), Ok(Asked::Exit)));
    }

    #[test]
    fn help_is_text() {
        let Ok(Asked::Help(all)) = parse("help") else { panic!("help is help") };
        assert!(all.contains("discover") && all.contains("exit"), "{all}");
        let Ok(Asked::Help(send)) = parse("help send") else { panic!("help is help") };
        assert!(send.contains("--lines") && send.contains("Examples:"), "{send}");
    }

    #[test]
    fn mistakes_are_one_line() {
        for line in
            ["snd bob", "send", "send bob x y", "send bob --wat", "peers --socket /x", "say 'x"]
        {
            let failed = parse(line).expect_err(line);
            assert_eq!(failed.exit, Exit::Usage, "{line}");
            assert!(!failed.message.contains('\n'), "{}", failed.message);
        }
    }
}
