//! Six daemons, each on a host of its own: a network namespace with its own address, on a switch
//! that can be cut, slowed and made lossy. What is sent arrives exactly once and in order, and
//! every exit code is true; the times that it takes are printed.
//!
//! It needs root, iproute2 and nftables. Where it cannot run it says so, and counts as passed;
//! with `DISTMSG_TEST_HOSTS=required` it fails instead.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]
#![allow(clippy::print_stderr, reason = "a test that fails shows the daemons' logs")]

#[cfg(test)]
mod apart;
#[cfg(test)]
mod command;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod host;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod net;
#[cfg(test)]
mod poor;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod shapes;
