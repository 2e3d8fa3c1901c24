//! The daemon's executable: a shim into the library.

use std::process::ExitCode;

use clap::Parser as _;
use distmsg::daemon::args::{Args, Command};
use distmsg::{daemon, lab};

fn main() -> ExitCode {
    match Args::parse() {
        Args { command: Some(Command::Lab(args)), .. } => lab::run(&args),
        args => daemon::main(args),
    }
}
