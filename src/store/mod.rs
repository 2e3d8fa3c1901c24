//! What survives: inbox, outbox, peers, sessions and listeners, in SQLite behind one writer thread.
//!
//! The node decides everything, down to the cursor of each message; the store only makes it
//! durable, a group of transactions per commit. [`op`] is the whole vocabulary.

pub mod op;
