//! The daemon's executable: a shim into the library.

use std::process::ExitCode;

use distmsg::daemon::args::{Args, Command, parse};
use distmsg::{daemon, lab};

#[cfg(distmsg_cheap_crypto)]
compile_error!("`distmsg_cheap_crypto` is for simulations: it protects nothing");

fn main() -> ExitCode {
    match parse() {
        Ok(Args { command: Some(Command::Lab(args)), .. }) => lab::run(&args),
        Ok(args) => daemon::main(args),
        Err(end) => end,
    }
}
