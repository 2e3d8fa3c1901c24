//! What is fuzzed: each target takes any bytes, and panics if the product breaks a promise.

mod config;
mod database;
#[expect(dead_code, reason = "the simulator's disk, of which this uses a part")]
mod disk;
mod node;
mod request;
mod source;
mod wire;

/// A target.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its name, and that of its folder in the corpus.
    pub(crate) name: &'static str,
    /// Runs one input.
    pub(crate) run: fn(&[u8]),
}

/// Every target.
pub(crate) const ALL: &[Target] = &[
    Target { name: "frame", run: wire::frame },
    Target { name: "envelope", run: wire::envelope },
    Target { name: "record", run: wire::record },
    Target { name: "find", run: wire::find },
    Target { name: "hello", run: wire::hello },
    Target { name: "request", run: request::request },
    Target { name: "config", run: config::config },
    Target { name: "database", run: database::database },
    Target { name: "node", run: node::node },
];
