//! Published test vectors, against the very libraries that the product uses and through its own
//! functions where they take what a vector gives: signatures, key agreement, sealing. The vectors
//! are in `tests/data/vectors`; each file names its source.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a test that panics fails")]

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod hpke_vectors;
#[cfg(test)]
mod sealing;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod table;
