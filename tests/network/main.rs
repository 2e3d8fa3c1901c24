//! Networks of real daemons, each in a process of its own with directories of its own, used as
//! people use them: by distmsgctl's standard output, standard error and exit codes.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]
#![allow(clippy::print_stderr, reason = "a test that fails shows the daemons' logs")]
#![allow(dead_code, reason = "a harness offers more than is used of it")]

#[cfg(test)]
mod bodies;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod closed;
#[cfg(test)]
mod control_hostile;
#[cfg(test)]
mod corruption;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod import;
#[cfg(test)]
mod interface;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod line;
#[cfg(test)]
mod listening;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod minted;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod random;
#[cfg(test)]
mod ring;
#[cfg(test)]
mod running;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod service;
mod shells;
#[cfg(test)]
mod siege;
#[cfg(test)]
mod silent;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod verbs;
