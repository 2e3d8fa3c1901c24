//! distmsgctl: the client. It speaks with the daemon of this machine through [`control`] and with
//! people and scripts through arguments, lines and exit codes.
//!
//! [`control`]: crate::control

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

mod args;
mod body;
mod completing;
mod context;
mod exit;
mod input;
mod interface;
mod lines;
mod message;
mod output;
mod progress;
mod table;
mod text;
mod unreachable;
mod verb;
mod when;

pub mod api;
pub mod prompt;

use args::{Cli, Verb};
use context::{Context, interrupted};
use exit::{Exit, Failed, Stop};
use output::{Output, explain};
use prompt::Shell;

use crate::config::{completion, usage_line};

/// The program's name.
const PROGRAM: &str = "distmsgctl";

/// The whole grammar, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the arguments say; the first is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(answer) = completion(PROGRAM, &args, completing::grammar) {
        let mut out = Output::new();
        out.line(answer.trim_end());
        return conclude(out.flush().map(|()| Exit::Done), false).into();
    }
    // Where the arguments are wrong, they still say how they want to be told.
    let json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            let mut out = Output::new();
            out.line(error.to_string().trim_end());
            return conclude(out.flush().map(|()| Exit::Done), json).into();
        }
        Err(error) => {
            let help = match args.iter().filter_map(|arg| arg.to_str()).find(|arg| is_verb(arg)) {
                Some(verb) => format!("'distmsgctl {verb} --help' tells more"),
                None => "'distmsgctl --help' tells more".to_owned(),
            };
            let failed = Failed::usage(format!("{}; {help}", usage_line(&error)));
            return conclude(Err(failed.into()), json).into();
        }
    };
    let json = cli.global.json;
    let endpoint = match context::endpoint(&cli.global) {
        Ok(endpoint) => endpoint,
        Err(failed) => return conclude(Err(failed.into()), json).into(),
    };
    let Some(verb) = cli.verb else {
        let shell = Shell { endpoint, json };
        return match (io::stdin().is_terminal(), io::stdout().is_terminal()) {
            (false, _) => block_on(prompt::run_script(&shell)),
            (true, true) => block_on(prompt::run_session(&shell, None)),
            (true, false) => {
                let why = "no command was given, and a prompt needs a terminal to write to";
                conclude(Err(Failed::usage(why).into()), json).into()
            }
        };
    };
    block_on(async {
        let mut context = Context::new(endpoint, json, false);
        conclude(perform(verb, &mut context).await, json)
    })
}

fn is_verb(word: &str) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

/// Runs to the end on a runtime of its own.
fn block_on(future: impl Future<Output = Exit>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failed = Failed::local(format!("cannot wait for input and output: {error}"));
            return conclude(Err(failed.into()), false).into();
        }
    };
    let exit = runtime.block_on(future);
    // A writer may still wait for somebody to read; we do not wait for it.
    runtime.shutdown_background();
    exit.into()
}

/// Explains a failure, and gives the exit code.
fn conclude(result: Result<Exit, Stop>, json: bool) -> Exit {
    match result {
        Ok(exit) | Err(Stop::Quiet(exit)) => exit,
        Err(Stop::Failed(failed)) => {
            explain(&failed, json);
            failed.exit
        }
    }
}

/// Does what a command says. Those that have something to finish or to say when they are
/// interrupted see to it themselves; the others just end.
async fn perform(verb: Verb, context: &mut Context) -> Result<Exit, Stop> {
    match verb {
        Verb::Id(args) => brief(verb::id::run(args, context)).await,
        Verb::Status(args) => brief(verb::status::run(args, context)).await,
        Verb::Connect(args) => brief(verb::connect::run(args, context)).await,
        Verb::Disconnect(args) => brief(verb::disconnect::run(args, context)).await,
        Verb::Forget(args) => brief(verb::forget::run(args, context)).await,
        Verb::Alias(args) => brief(verb::alias::run(args, context)).await,
        Verb::Peers(args) => brief(verb::peers::run(args, context)).await,
        Verb::Routes(args) => brief(verb::routes::run(args, context)).await,
        Verb::Ping(args) => brief(verb::ping::run(args, context)).await,
        Verb::Discover(args) => brief(verb::discover::run(args, context)).await,
        Verb::Inbox(args) => brief(verb::inbox::run(args, context)).await,
        Verb::Outbox(args) => brief(verb::outbox::run(args, context)).await,
        Verb::Listeners(args) => brief(verb::listeners::run(args, context)).await,
        Verb::Log(args) => brief(verb::log::run(args, context)).await,
        Verb::Send(args) => verb::send::run(args, context).await,
        Verb::Listen(args) => verb::listen::run(args, context).await,
    }
}

/// Runs until done or interrupted.
async fn brief(run: impl Future<Output = Result<Exit, Stop>>) -> Result<Exit, Stop> {
    tokio::select! {
        result = run => result,
        exit = interrupted() => Ok(exit),
    }
}
