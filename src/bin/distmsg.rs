//! The daemon's executable: a shim into the library.

use std::process::ExitCode;

use clap::Parser as _;
use distmsg::daemon::{self, args::Args};

fn main() -> ExitCode {
    daemon::main(Args::parse())
}
