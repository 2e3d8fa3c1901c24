//! The client's executable: a shim into the library.

use std::process::ExitCode;

#[cfg(distmsg_cheap_crypto)]
compile_error!("`distmsg_cheap_crypto` is for simulations: it protects nothing");

fn main() -> ExitCode {
    distmsg::ctl::run(std::env::args_os())
}
