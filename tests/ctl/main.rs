//! distmsgctl as scripts and people see it: standard output, standard error and exit code of the
//! real executable, against a daemon that answers as each test says.

#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

#[cfg(test)]
mod completions;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod listen;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod script;
#[cfg(test)]
mod send;
#[cfg(test)]
mod terminal;
