//! The writer thread: takes what waits, makes it durable with one sync, says so, and begins again.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::store::Request;
use crate::store::apply::{Applier, Done, PRUNE_MESSAGES_MAX, Totals};
use crate::store::ask::{self, Ends};
use crate::store::disk::Disk;
use crate::store::error::Fault;
use crate::store::op::{Completion, Op, Transaction};

/// Changes in one group, counted in messages: some 20 ms of work. A single transaction may have
/// more.
const GROUP_CHANGES_MAX: usize = 8_192;

/// Bytes of bodies in one group.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Questions in one group.
const GROUP_QUESTIONS_MAX: usize = 32;

/// How long the log may show a secret that was dropped. Many drops then share one overwriting.
const SCRUB_DELAY: Duration = Duration::from_secs(1);

/// What became of a transaction that did not fail.
type Outcome = Result<Done, NoRoom>;

/// The transaction alone was too much.
struct NoRoom;

/// Serves the queue until its other end is dropped or the database fails.
pub(super) fn run(
    connection: Connection,
    disk: Disk,
    totals: Totals,
    scrubbed: bool,
    queue: &Receiver<Vec<Request>>,
    on_complete: impl Fn(Vec<Completion>),
) {
    let scrub_at = (!scrubbed).then(|| Instant::now() + SCRUB_DELAY);
    let served = Applier::new(&connection, totals).and_then(|applier| {
        Writer { applier, disk: &disk, scrub_at, refused: false }.serve(queue, &on_complete)
    });
    // Before the file's other handle is closed, and before anybody is told.
    drop(connection);
    drop(disk);
    if let Err(fault) = served {
        tracing::error!(%fault, "the store has failed");
        on_complete(vec![Completion::Failed { reason: fault.to_string() }]);
    }
}

/// The state of the thread.
struct Writer<'connection> {
    applier: Applier<'connection>,
    disk: &'connection Disk,
    /// When the log must be overwritten, because a dropped secret is in it.
    scrub_at: Option<Instant>,
    /// Whether a transaction was ever refused: a later one may build on it, and is refused as well.
    refused: bool,
}

impl Writer<'_> {
    /// Serves until there is nothing more to come, and puts the log in order.
    fn serve(
        mut self,
        queue: &Receiver<Vec<Request>>,
        on_complete: &impl Fn(Vec<Completion>),
    ) -> Result<(), Fault> {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.wait(queue) {
                    Ok(requests) => waiting.extend(requests),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            waiting.extend(queue.try_iter().flatten());
            if !waiting.is_empty() {
                self.handle(&take_group(&mut waiting), on_complete)?;
            }
            self.scrub_if_due()?;
        }
        // SQLite does the same when it closes the file, but would not say when it fails.
        match self.disk.scrub(self.applier.connection) {
            Err(Fault::Full) => Ok(()),
            result => result,
        }
    }

    /// Waits for requests, but not past the time at which the log must be overwritten.
    fn wait(&self, queue: &Receiver<Vec<Request>>) -> Result<Vec<Request>, RecvTimeoutError> {
        match self.scrub_at {
            Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Commits the transactions of a group, answers its questions, and reports all of it at once,
    /// in order. After a fault what was committed may go unreported; it is durable all the same.
    fn handle(
        &mut self,
        group: &[Request],
        on_complete: &impl Fn(Vec<Completion>),
    ) -> Result<(), Fault> {
        let before = self.applier.totals;
        let transactions: Vec<&Transaction> = group.iter().filter_map(transaction).collect();
        let mut outcomes = Vec::with_capacity(transactions.len());
        let committed = self.commit(&transactions, &mut outcomes);
        let full = outcomes.iter().any(Result::is_err);
        let mut completions = Vec::with_capacity(group.len());
        let completed = committed.and_then(|()| {
            self.complete(group, before, &mut outcomes.into_iter(), &mut completions)
        });
        if !completions.is_empty() {
            on_complete(completions);
        }
        completed?;
        if self.applier.secret_dropped && self.scrub_at.is_none() {
            self.scrub_at = Some(Instant::now() + SCRUB_DELAY);
        }
        // Without room, moving the log lets its space be used again, so that removals can go
        // through.
        match self.disk.checkpoint(self.applier.connection, full) {
            Err(Fault::Full) => Ok(()),
            result => result,
        }
    }

    /// Makes the completions of a group that was committed.
    fn complete(
        &self,
        group: &[Request],
        before: Totals,
        outcomes: &mut impl Iterator<Item = Outcome>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Fault> {
        let mut ends = Ends { row: before.last_row, cursor: before.last_cursor };
        for request in group {
            completions.push(match request {
                Request::Transact(Transaction { token, ops }) => {
                    advance(&mut ends, ops);
                    match outcomes.next() {
                        Some(Ok(Done { pruned, kept_windows })) => {
                            Completion::Committed { token: *token, pruned, kept_windows }
                        }
                        Some(Err(NoRoom)) => Completion::Full { token: *token },
                        None => return Err(Fault::Bug("a transaction without an outcome".into())),
                    }
                }
                Request::Ask(query) => Completion::Answered {
                    token: query.token,
                    answer: ask::answer(self.applier.connection, &query.what, ends)?,
                },
            });
        }
        Ok(())
    }

    /// Commits transactions together. Without room it tries each half for itself, down to those
    /// that are too much even alone: only they are refused.
    fn commit(
        &mut self,
        transactions: &[&Transaction],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Fault> {
        if transactions.is_empty() {
            return Ok(());
        }
        let before = (self.applier.totals, outcomes.len());
        let Err(fault) = self.attempt(transactions, outcomes) else {
            return Ok(());
        };
        outcomes.truncate(before.1);
        self.applier.totals = before.0;
        // SQLite rolls back by itself after some errors.
        if !self.applier.connection.is_autocommit() {
            self.applier.connection.execute_batch("ROLLBACK")?;
        }
        match self.disk.explain(fault) {
            Fault::Full => {}
            // What it builds on was refused, perhaps.
            Fault::Missing(_) if self.refused => {}
            fault => return Err(fault),
        }
        if transactions.len() == 1 {
            self.refused = true;
            outcomes.push(Err(NoRoom));
            return Ok(());
        }
        let (first, second) = transactions.split_at(transactions.len() / 2);
        self.commit(first, outcomes)?;
        self.commit(second, outcomes)
    }

    /// Carries out transactions in one of SQLite's.
    fn attempt(
        &mut self,
        transactions: &[&Transaction],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Fault> {
        let connection = self.applier.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for transaction in transactions {
            let mut done = Done::default();
            for op in &transaction.ops {
                self.applier.apply(op, &mut done)?;
            }
            outcomes.push(Ok(done));
        }
        self.applier.note_last_places()?;
        self.disk.reserve(connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Overwrites the log if it is time. Without room it is tried again later.
    fn scrub_if_due(&mut self) -> Result<(), Fault> {
        if self.scrub_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.scrub_at = None;
        match self.disk.scrub(self.applier.connection) {
            Err(Fault::Full) => self.scrub_at = Some(Instant::now() + SCRUB_DELAY),
            result => {
                result?;
                self.applier.secret_dropped = false;
            }
        }
        Ok(())
    }
}

/// Takes requests from the front, at least one, until the group is large enough.
fn take_group(waiting: &mut VecDeque<Request>) -> Vec<Request> {
    let (mut changes, mut bytes, mut questions, mut count) = (0, 0, 0, 0);
    for request in waiting.iter() {
        match request {
            Request::Transact(transaction) => {
                for op in &transaction.ops {
                    let (more_changes, more_bytes) = weight(op);
                    changes += more_changes;
                    bytes += more_bytes;
                }
            }
            Request::Ask(_) => questions += 1,
        }
        let large = changes > GROUP_CHANGES_MAX
            || bytes > GROUP_BYTES_MAX
            || questions > GROUP_QUESTIONS_MAX;
        if large && count > 0 {
            break;
        }
        count += 1;
    }
    waiting.drain(..count).collect()
}

/// What a change costs: messages touched, and bytes of bodies.
fn weight(op: &Op) -> (usize, usize) {
    match op {
        Op::Unqueue { rows } => (rows.len(), 0),
        Op::Queue(message) => (1, message.body.len()),
        Op::Deliver(message) | Op::Hold(message) => (1, message.body.len()),
        Op::Chunk(chunk) => (1, chunk.bytes.len()),
        // How long the body is, only the database knows; most that come in pieces are long.
        Op::Assemble { .. } => (1, GROUP_BYTES_MAX / 8),
        Op::Prune { .. } | Op::PruneKeys { .. } => (usize::from(PRUNE_MESSAGES_MAX) / 16, 0),
        _ => (1, 0),
    }
}

/// Where outbox and inbox end after these changes.
fn advance(ends: &mut Ends, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Queue(message) => ends.row = ends.row.max(message.row),
            Op::Deliver(message) => ends.cursor = ends.cursor.max(message.cursor),
            Op::Release { cursor, .. } | Op::Assemble { cursor: Some(cursor), .. } => {
                ends.cursor = ends.cursor.max(*cursor);
            }
            _ => {}
        }
    }
}

fn transaction(request: &Request) -> Option<&Transaction> {
    match request {
        Request::Transact(transaction) => Some(transaction),
        Request::Ask(_) => None,
    }
}
