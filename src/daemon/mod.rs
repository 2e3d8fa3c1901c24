//! The daemon around the node: arguments, setup, secrets, the lock on its state, and logging.

pub mod args;
pub mod check;
pub mod exit;
pub mod import;
pub mod init;
pub mod interface;
pub mod lock;
pub mod logging;
pub mod run;
pub mod secrets;

mod activation;
mod files;
mod journal;
mod manager;
mod outlet;
mod print;
mod questions;
mod reload;
mod signals;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use args::{Args, Command};
use exit::{Stop, report};

use crate::config::Environment;

/// Does what the command line says, but for `lab`, which is a room of its own.
pub fn main(args: Args) -> ExitCode {
    report(dispatch(args))
}

fn dispatch(args: Args) -> Result<(), Stop> {
    let environment = Environment::from_process();
    let mut answers = io::stdin().lock();
    let person = init::Person { answers: &mut answers };
    let person = init::is_interactive().then_some(person);
    let (out, chatter) = (&mut io::stdout(), &mut io::stderr());
    match args.command {
        Some(Command::Init(args)) => init::init(&args, &environment, person, chatter),
        Some(Command::Check(args)) => check::check(&args, &environment, out, chatter),
        Some(Command::Import(args)) => import::import(&args, &environment, out, chatter),
        Some(Command::Lab(_)) => Err(Stop::usage("lab runs daemons, it is not run by one")),
        None => {
            let path = environment.config_path(args.run.config.as_deref())?;
            let config = init::load_or_ask(&path, &environment, person, chatter)?;
            chatter.flush()?;
            let manner = run::Manner {
                print: args.run.prints(io::stdout().is_terminal()),
                exit_with_stdin: args.run.exit_with_stdin,
            };
            drop(answers);
            run::run(config, path, &environment, manner)
        }
    }
}
