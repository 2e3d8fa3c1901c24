//! The client's executable: a shim into the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    distmsg::ctl::run(std::env::args_os())
}
