//! The manual pages in `man/`: those made of the programs' own grammar are what is committed, those
//! written by hand say what the code says, and man(1) renders all of them without a warning.
//!
//! `DISTMSG_BLESS=1 cargo test --test manuals` writes the made ones anew.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

#[cfg(test)]
mod control;
#[cfg(test)]
mod made;
#[cfg(test)]
mod page;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod rendered;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod toml;
#[cfg(test)]
mod vectors;

use std::path::{Path, PathBuf};

/// A file of the package.
fn root(inner: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(inner)
}
