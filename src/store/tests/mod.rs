//! The store as the node uses it: submit, hear back, close, open again.

mod damage;
mod files;
mod groups;
mod inbox;
mod room;
mod round_trip;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::model::{Incarnation, MessageId, PeerId, Sequence, Timestamp, WhyGivenUp};
use crate::store::op::{
    Answer, Completion, Cursor, GivenUp, Incoming, Op, Outgoing, Query, Question, ReceivedKey, Row,
    Snapshot, Transaction,
};
use crate::store::schema::Options;
use crate::store::{OpenError, Request, Store};

/// Longer than anything here takes on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// An open store and what it says.
struct Rig {
    store: Store,
    completions: Receiver<Vec<Completion>>,
}

impl Rig {
    /// Opens a database with the schema of today.
    fn open(path: &Path) -> (Self, Snapshot) {
        Self::open_with(path, &Options::default()).expect("the database opens")
    }

    fn open_with(path: &Path, options: &Options) -> Result<(Self, Snapshot), OpenError> {
        Self::open_as(peer(0), path, options)
    }

    /// Opens it for an identity.
    fn open_as(own: PeerId, path: &Path, options: &Options) -> Result<(Self, Snapshot), OpenError> {
        let (sender, completions) = mpsc::channel();
        let (store, snapshot) = Store::open_with(path, own, options, move |done| {
            let _ = sender.send(done);
        })?;
        Ok((Self { store, completions }, snapshot))
    }

    /// Submits transactions at once, one for each list, numbered from 0.
    fn submit(&self, transactions: Vec<Vec<Op>>) {
        let numbered = (0..).zip(transactions);
        let requests =
            numbered.map(|(token, ops)| Request::Transact(Transaction { token, ops })).collect();
        self.store.submit(requests);
    }

    /// Waits for that many completions, or fewer if the store has failed.
    fn hear(&self, count: usize) -> Vec<Completion> {
        let mut heard = Vec::new();
        while heard.len() < count {
            heard.extend(self.completions.recv_timeout(DEADLINE).expect("a completion in time"));
            if let Some(Completion::Failed { .. }) = heard.last() {
                break;
            }
        }
        heard
    }

    /// Makes changes durable, in one transaction.
    fn commit(&self, ops: Vec<Op>) -> Completion {
        self.submit(vec![ops]);
        let mut heard = self.hear(1);
        let completion = heard.pop().expect("one completion");
        assert!(matches!(completion, Completion::Committed { .. }), "{completion:?}");
        completion
    }

    /// Makes changes that must fail, and returns the reason.
    fn fail(&self, ops: Vec<Op>) -> String {
        self.submit(vec![ops]);
        match self.hear(1).pop() {
            Some(Completion::Failed { reason }) => reason,
            other => panic!("this should fail the store: {other:?}"),
        }
    }

    fn try_ask(&self, what: Question) -> Result<Answer, String> {
        self.store.submit(vec![Request::Ask(Query { token: 7, what })]);
        match self.hear(1).pop() {
            Some(Completion::Answered { token: 7, answer }) => Ok(answer),
            Some(Completion::Failed { reason }) => Err(reason),
            other => panic!("a question should be answered: {other:?}"),
        }
    }

    fn ask(&self, what: Question) -> Answer {
        self.try_ask(what).expect("the store lives")
    }
}

/// A directory and a database file in it that is not there yet.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store.db");
    (directory, path)
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn key(sender: u8, sequence: u64) -> ReceivedKey {
    // Strangers choose incarnations: the highest bit must survive.
    let incarnation = Incarnation(u64::MAX - u64::from(sender));
    ReceivedKey { sender: peer(sender), incarnation, sequence: Sequence(sequence) }
}

fn id(number: u64) -> MessageId {
    MessageId(u128::from(number).to_be_bytes())
}

/// A message for a peer, with a body of that many bytes.
fn outgoing(row: u64, recipient: u8, bytes: usize) -> Outgoing {
    Outgoing {
        row: Row(row),
        id: id(row),
        recipient: peer(recipient),
        incarnation: Incarnation(u64::MAX),
        sequence: Sequence(row),
        queued: time(1_000 + row),
        expires: time(9_000 + row),
        subject: row.is_multiple_of(2).then(|| "über".into()),
        key: None,
        body: body(row, bytes),
    }
}

/// What is kept of a message that was given up.
fn given_up(row: u64) -> GivenUp {
    GivenUp {
        row: Row(row),
        id: id(row),
        recipient: peer(1),
        queued: time(1_000 + row),
        subject: row.is_multiple_of(2).then(|| "über".into()),
        bytes: 10,
        at: time(u64::MAX),
        why: if row.is_multiple_of(2) { WhyGivenUp::TooLarge } else { WhyGivenUp::Expired },
    }
}

/// A message from a peer, at that place in the inbox.
fn incoming(cursor: u64, sender: u8, bytes: usize) -> Incoming {
    Incoming {
        key: key(sender, cursor),
        cursor: Cursor(cursor),
        id: id(cursor),
        sent: time(u64::MAX),
        received: time(1_000 + cursor),
        subject: cursor.is_multiple_of(2).then(|| "über".into()),
        body: body(cursor, bytes),
    }
}

fn queue(message: &Outgoing) -> Op {
    Op::Queue(Box::new(message.clone()))
}

fn deliver(message: &Incoming) -> Op {
    Op::Deliver(Box::new(message.clone()))
}

/// Bytes that differ from message to message and within one.
fn body(number: u64, bytes: usize) -> Bytes {
    let words = (0..bytes.div_ceil(8) as u64).flat_map(|at| (number << 40 | at).to_be_bytes());
    words.take(bytes).collect()
}

/// A question whether a key was used for this.
fn about_key(key: &str, subject: Option<&str>, body: Bytes) -> Question {
    Question::Key { key: key.into(), subject: subject.map(Into::into), body }
}

/// A question for all of the inbox.
fn whole_inbox() -> Question {
    Question::Inbox {
        after: Cursor(0),
        through: Cursor(u64::MAX),
        from: None,
        since: None,
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
        body_bytes_max: usize::MAX,
    }
}

/// Every message of the inbox, in order.
fn inbox_of(rig: &Rig) -> Vec<Incoming> {
    match rig.ask(whole_inbox()) {
        Answer::Inbox { messages, .. } => messages.into_iter().map(|m| m.message).collect(),
        other => panic!("{other:?}"),
    }
}

/// Every message for one recipient, in order.
fn outbox_of(rig: &Rig, recipient: u8) -> Vec<Outgoing> {
    let what = Question::OutboxOf {
        recipient: peer(recipient),
        after: Row(0),
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    match rig.ask(what) {
        Answer::OutboxOf(messages) => messages,
        other => panic!("{other:?}"),
    }
}
