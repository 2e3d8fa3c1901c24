//! What survives: inbox, outbox, peers, sessions and listeners, in SQLite behind one writer thread.
//!
//! The node decides everything, down to the cursor of each message; the store only makes it
//! durable, a group of transactions per commit. [`op`] is the whole vocabulary.
//!
//! In reading order: `schema` says what the tables are and refuses files that are not ours;
//! `owner` refuses those of another identity; `snapshot` reads what the node keeps in memory;
//! `writer` is the thread and its groups; `disk` keeps the files; `apply` (with `chunks`,
//! `listeners` and `secrets`) carries out one change; `ask` answers questions; `columns` is the
//! only place that trusts nothing it reads, and `sums` are by what it knows bodies again.
//!
//! Nothing else opens the database: it is locked exclusively from the first read on.

mod apply;
mod ask;
mod chunks;
mod columns;
mod disk;
mod error;
mod listeners;
pub mod op;
mod owner;
mod schema;
mod secrets;
mod snapshot;
mod sums;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use self::apply::Totals;
use self::disk::Disk;
use self::error::Fault;
pub use self::error::OpenError;
use self::op::{Completion, Query, Snapshot, Transaction};
use self::schema::Options;
use crate::model::PeerId;

/// Something for the writer thread to do.
#[derive(Debug)]
pub enum Request {
    /// Make this durable.
    Transact(Transaction),
    /// Answer this.
    Ask(Query),
}

/// The database, as the node sees it: requests go in and never wait; completions come out on the
/// writer thread, in the order of the requests.
///
/// Dropping it finishes what was submitted.
#[derive(Debug)]
pub struct Store {
    /// The way to the writer thread; none once the store is closing.
    requests: Option<mpsc::Sender<Vec<Request>>>,
    /// The writer thread, to be waited for.
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database file of this identity, or makes it, and reads everything the node keeps
    /// in memory.
    ///
    /// `on_complete` is called on the writer thread, once for each group of requests; it must not
    /// block, for nothing is written meanwhile.
    ///
    /// # Errors
    /// When the file cannot be opened safely, is not ours, is of a newer version, belongs to
    /// another identity or is damaged.
    pub fn open(
        path: &Path,
        own: PeerId,
        on_complete: impl Fn(Vec<Completion>) + Send + 'static,
    ) -> Result<(Self, Snapshot), OpenError> {
        Self::open_with(path, own, &Options::default(), on_complete)
    }

    /// [`Store::open`], with what tests change.
    fn open_with(
        path: &Path,
        own: PeerId,
        options: &Options,
        on_complete: impl Fn(Vec<Completion>) + Send + 'static,
    ) -> Result<(Self, Snapshot), OpenError> {
        let in_file = |source| OpenError::File { path: path.to_owned(), source };
        let disk = Disk::open(path).map_err(in_file)?;
        if disk.is_cut_off().map_err(in_file)? {
            let what = "it was cut off".to_owned();
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
        let connection = schema::open(path, options)?;
        owner::check(&connection, path, own)?;
        let snapshot = snapshot::load(&connection).map_err(|error| error.on_open(path))?;
        let scrubbed = match disk.scrub(&connection) {
            // Without room it is done later: the daemon must start to make some.
            Err(Fault::Full) => false,
            result => result.map(|()| true).map_err(|fault| OpenError::Unsafe {
                path: path.to_owned(),
                what: fault.to_string(),
            })?,
        };
        disk.finish_making();
        let (requests, queue) = mpsc::channel();
        let totals = Totals::of(&snapshot);
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(connection, disk, totals, scrubbed, &queue, on_complete))
            .map_err(OpenError::Thread)?;
        Ok((Self { requests: Some(requests), writer: Some(writer) }, snapshot))
    }

    /// Hands over requests, in order. Never waits. After [`Completion::Failed`] nothing happens.
    pub fn submit(&self, requests: Vec<Request>) {
        if let Some(sender) = &self.requests {
            // The thread is gone only after it said Failed, and then nothing may follow.
            let _ = sender.send(requests);
        }
    }

    /// Finishes what was submitted, moves the log into the database and waits for the thread.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked; this is a bug in distmsg");
        }
    }
}
