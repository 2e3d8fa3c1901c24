//! How many changes a second the store makes durable, by the size of the group.
//!
//! Each sample submits one group and waits for its completions: the time includes the sync.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so and stop")]

use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use distmsg::model::{Incarnation, MessageId, PeerId, Sequence, Timestamp};
use distmsg::store::op::{
    Answer, Completion, Cursor, Incoming, Op, Outgoing, Query, Question, ReceivedKey, Row,
    Transaction, WindowRow,
};
use distmsg::store::{Request, Store};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tempfile::TempDir;

const GROUPS: &[u64] = &[1, 16, 256, 4096];
const BODY: &[u8] = &[7; 128];
/// Windows and messages of this many senders.
const SENDERS: u64 = 16;

fn main() {
    divan::main();
}

/// A message comes into the outbox and the one before it leaves.
#[divan::bench(args = GROUPS)]
fn queue_and_unqueue(bencher: Bencher<'_, '_>, group: u64) {
    let mut fixture = Fixture::new();
    bencher.counter(ItemsCount::new(2 * group)).bench_local(|| {
        let first = fixture.next;
        fixture.next += group;
        fixture.run((first..fixture.next).map(|row| {
            vec![queue(row), Op::Unqueue { rows: vec![Row(row.saturating_sub(group))] }]
        }));
    });
}

/// A message comes into the inbox, and its sender's window moves.
#[divan::bench(args = GROUPS)]
fn deliver_and_window(bencher: Bencher<'_, '_>, group: u64) {
    let mut fixture = Fixture::new();
    bencher.counter(ItemsCount::new(2 * group)).bench_local(|| {
        let first = fixture.next;
        fixture.next += group;
        fixture.run((first..fixture.next).map(|cursor| vec![deliver(cursor), window(cursor)]));
    });
}

/// The same, with one window for sixty-four messages, as an envelope brings them.
#[divan::bench(args = [1, 4, 64])]
fn deliver_envelopes_of_64(bencher: Bencher<'_, '_>, envelopes: u64) {
    let mut fixture = Fixture::new();
    bencher.counter(ItemsCount::new(64 * envelopes)).bench_local(|| {
        let first = fixture.next;
        fixture.next += 64 * envelopes;
        fixture.run((first..fixture.next).step_by(64).map(|cursor| {
            let mut ops: Vec<_> = (cursor..cursor + 64).map(deliver).collect();
            ops.push(window(cursor));
            ops
        }));
    });
}

/// A large message comes into the outbox and the one before it leaves.
#[divan::bench(args = [64 * 1024, 1024 * 1024, 16 * 1024 * 1024])]
fn queue_and_unqueue_large(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut fixture = Fixture::new();
    let body = Bytes::from(vec![7; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let row = fixture.next;
        fixture.next += 1;
        let Op::Queue(mut message) = queue(row) else { unreachable!("just made") };
        message.body = body.clone();
        fixture.run([vec![
            Op::Queue(message),
            Op::Unqueue { rows: vec![Row(row.saturating_sub(1))] },
        ]]);
    });
}

/// A listener reads a thousand messages out of many.
#[divan::bench]
fn read_1000_of_the_inbox(bencher: Bencher<'_, '_>) {
    let mut fixture = Fixture::new();
    fixture.run((1..=50_000).map(|cursor| vec![deliver(cursor)]));
    let mut after = Cursor(0);
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        let what = Question::Inbox {
            after,
            through: Cursor(u64::MAX),
            from: None,
            since: None,
            messages_max: 1_000,
            bytes_max: usize::MAX,
            body_bytes_max: usize::MAX,
        };
        match fixture.ask(what) {
            Answer::Inbox { messages, through } if !messages.is_empty() => after = through,
            _ => after = Cursor(0),
        }
    });
}

/// A store in a directory of its own, and its completions.
struct Fixture {
    store: Store,
    completions: Receiver<Vec<Completion>>,
    next: u64,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (sender, completions) = mpsc::channel();
        let (path, own) = (directory.path().join("store.db"), PeerId::from_bytes([0; 32]));
        let (store, _) = Store::open(&path, own, move |done| {
            let _ = sender.send(done);
        })
        .expect("a new database");
        Self { store, completions, next: 1, _directory: directory }
    }

    fn run(&mut self, transactions: impl IntoIterator<Item = Vec<Op>>) {
        let requests: Vec<_> = transactions
            .into_iter()
            .map(|ops| Request::Transact(Transaction { token: 0, ops }))
            .collect();
        let mut left = requests.len();
        self.store.submit(requests);
        while left > 0 {
            let done = self.completions.recv().expect("the writer thread lives");
            assert!(done.iter().all(|c| matches!(c, Completion::Committed { .. })), "{done:?}");
            left -= done.len();
        }
    }

    fn ask(&mut self, what: Question) -> Answer {
        self.store.submit(vec![Request::Ask(Query { token: 0, what })]);
        match self.completions.recv().expect("the writer thread lives").pop() {
            Some(Completion::Answered { answer, .. }) => answer,
            other => unreachable!("{other:?}"),
        }
    }
}

fn sender(number: u64) -> PeerId {
    let mut bytes = [0; 32];
    // Real IDs are random from the first byte on.
    bytes[..8]
        .copy_from_slice(&(number % SENDERS).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn id(number: u64) -> MessageId {
    MessageId(
        u128::from(number).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15).to_be_bytes(),
    )
}

fn queue(row: u64) -> Op {
    Op::Queue(Box::new(Outgoing {
        row: Row(row),
        id: id(row),
        recipient: sender(row),
        incarnation: Incarnation(0x1234_5678_9abc_def0),
        sequence: Sequence(row),
        queued: Timestamp::from_millis(1_700_000_000_000),
        expires: Timestamp::from_millis(1_700_600_000_000),
        subject: None,
        key: None,
        body: Bytes::from_static(BODY),
    }))
}

fn deliver(cursor: u64) -> Op {
    Op::Deliver(Box::new(Incoming {
        key: ReceivedKey {
            sender: sender(cursor / 64),
            incarnation: Incarnation(0x1234_5678_9abc_def0),
            sequence: Sequence(cursor),
        },
        cursor: Cursor(cursor),
        id: id(cursor),
        sent: Timestamp::from_millis(1_700_000_000_000),
        received: Timestamp::from_millis(1_700_000_000_001),
        subject: None,
        body: Bytes::from_static(BODY),
    }))
}

fn window(cursor: u64) -> Op {
    Op::Window(Box::new(WindowRow {
        sender: sender(cursor / 64),
        incarnation: Incarnation(0x1234_5678_9abc_def0),
        base: Sequence(cursor),
        received: Bytes::from_static(&[1; 8]),
        given_up: Sequence::FIRST,
        touched: Timestamp::from_millis(1_700_000_000_001),
    }))
}
