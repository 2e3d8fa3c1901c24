//! Databases whose rows are anything at all.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use distmsg::control::protocol::{InboxQuery, Listen, Page, Request as ControlRequest, Wait};
use distmsg::control::{Call, RequestId, SendRequest};
use distmsg::crypto::Identity;
use distmsg::model::{
    Incarnation, Limits, MessageId, Monotonic, NetworkId, Now, PeerId, PrekeyId, Sequence,
    SessionId, Span, Timestamp,
};
use distmsg::node::core::{About, ClientId, Core, Effect, Input, Settings};
use distmsg::store::op::{
    Answer, Completion, Cursor, Incoming, IncomingChunk, Op, Outgoing, PeerRow, PrekeyRow, Query,
    Question, ReceivedKey, Row, SessionRow, Snapshot, Transaction, WindowRow,
};
use distmsg::store::{Request, Store};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use zeroize::Zeroizing;

use super::source::Source;

/// Longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes in an answer that is as long as it may be.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Rows that are changed.
const EDITS_MAX: usize = 16;

const TABLES: &[&str] = &[
    "outbox",
    "keys",
    "inbox",
    "held",
    "partials",
    "chunks",
    "windows",
    "sessions",
    "prekeys",
    "secrets",
    "vacant_slots",
    "peers",
    "listeners",
    "acknowledged",
    "last_places",
    "owner",
    "given_up",
];

/// Runs one input: a database is altered, and a node lives from it.
pub(crate) fn database(input: &[u8]) {
    let mut source = Source::new(input);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store.db");
    let how = source.byte();
    fs::write(&path, template(how & 1 == 1)).expect("a database is written");
    if how & 2 == 2 {
        damage(&path, &mut source);
    } else {
        edit(&path, &mut source);
    }
    read(&path);
}

/// A database with something in every table; with a schema as ours, or one that keeps anything in
/// any column.
fn template(lax: bool) -> &'static [u8] {
    static OURS: OnceLock<Vec<u8>> = OnceLock::new();
    static LAX: OnceLock<Vec<u8>> = OnceLock::new();
    if !lax {
        return OURS.get_or_init(filled);
    }
    LAX.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("store.db");
        fs::write(&path, template(false)).expect("a database is written");
        let connection = Connection::open(&path).expect("it opens");
        // Every type everywhere: a disk knows of no types.
        let relaxed = "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(replace(sql, ' STRICT, ', ' '),
                 ' STRICT', ''), ' NOT NULL', '') WHERE type = 'table';
             PRAGMA writable_schema = RESET;
             VACUUM;";
        connection.execute_batch(relaxed).expect("the schema is relaxed");
        drop(connection);
        fs::read(&path).expect("a database is read")
    })
}

fn me() -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[1; 32]))
}

const fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn filled() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store.db");
    let (rig, _) = Rig::open(&path).expect("a new database opens");
    let time = Timestamp::from_millis(1_700_000_000_000);
    let key = |number| ReceivedKey {
        sender: peer(1),
        incarnation: Incarnation(1),
        sequence: Sequence(number),
    };
    let incoming = |number: u64| Incoming {
        key: key(number),
        cursor: Cursor(number),
        id: MessageId([number as u8; 16]),
        sent: time,
        received: time,
        subject: Some("subject".into()),
        body: vec![b'x'; 100 * number as usize].into(),
    };
    let outgoing = |number: u64| Outgoing {
        row: Row(number),
        id: MessageId([number as u8; 16]),
        recipient: peer(1 + (number % 2) as u8),
        incarnation: Incarnation(9),
        sequence: Sequence(number),
        queued: time,
        expires: time + Span::from_secs(86_400),
        subject: None,
        key: (number == 2).then(|| "key".into()),
        body: vec![b'y'; 3_000 * (number as usize - 1)].into(),
    };
    let secret = || Zeroizing::new([9; 32]);
    let chunk = IncomingChunk {
        key: key(60),
        index: 0,
        total: 60_000,
        sent: time,
        expires: time + Span::from_secs(3_600),
        subject: None,
        bytes: vec![b'z'; 56 * 1024].into(),
    };
    let mut ops: Vec<_> = (1..=4)
        .flat_map(|n| [Op::Queue(Box::new(outgoing(n))), Op::Deliver(Box::new(incoming(n)))])
        .collect();
    ops.extend([
        Op::Hold(Box::new(incoming(50))),
        Op::Chunk(Box::new(chunk)),
        Op::Window(Box::new(WindowRow {
            sender: peer(1),
            incarnation: Incarnation(1),
            base: Sequence(5),
            received: Bytes::from_static(&[0, 0, 0, 0, 0, 32]),
            given_up: Sequence(1),
            touched: time,
        })),
        Op::Session(Box::new(SessionRow {
            sender: peer(1),
            session: SessionId(1),
            secret: secret(),
            created: time,
        })),
        Op::Prekey(Box::new(PrekeyRow { id: PrekeyId(1), secret: secret(), created: time })),
        Op::Peer(Box::new(PeerRow {
            peer: peer(2),
            record: Some(Bytes::from_static(b"no record")),
            alias: "bob".parse().ok(),
            dial: "10.0.0.1:3000".parse().ok(),
        })),
        Op::Listener { name: "l".into(), position: Cursor(1) },
        Op::Acknowledge { name: "l".into(), first: Cursor(3), last: Cursor(3) },
    ]);
    rig.commit(ops).expect("the database is filled");
    drop(rig);
    fs::read(&path).expect("a database is read")
}

/// Changes rows, columns and types by SQL.
fn edit(path: &Path, source: &mut Source<'_>) {
    let connection = Connection::open(path).expect("the template opens");
    connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
    let transaction = connection.unchecked_transaction().expect("a transaction");
    for _ in 0..EDITS_MAX {
        if source.is_empty() {
            break;
        }
        let table = *source.pick(TABLES);
        edit_table(&transaction, table, source);
    }
    transaction.commit().expect("rows are written");
}

/// Reads a table, changes a row of it, and writes it again. What its keys or types forbid is gone.
fn edit_table(connection: &Connection, table: &str, source: &mut Source<'_>) {
    let mut statement =
        connection.prepare(&format!("SELECT * FROM {table}")).expect("a table of ours");
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|n| row.get(n)).collect());
    let rows = rows.and_then(Iterator::collect::<Result<Vec<Vec<Value>>, _>>);
    let mut rows = rows.expect("the rows of the template");
    let at = usize::from(source.byte()) % rows.len().max(1);
    match source.byte() % 8 {
        0 if !rows.is_empty() => drop(rows.remove(at)),
        1 => rows.push((0..columns).map(|_| value(&Value::Null, source)).collect()),
        2 => {
            let Some(mut row) = rows.get(at).cloned() else { return };
            let column = usize::from(source.byte()) % columns;
            row[column] = value(&row[column], source);
            rows.push(row);
        }
        _ => {
            let column = usize::from(source.byte()) % columns;
            let Some(row) = rows.get_mut(at) else { return };
            row[column] = value(&row[column], source);
        }
    }
    connection.execute(&format!("DELETE FROM {table}"), []).expect("rows are deleted");
    let places = vec!["?"; columns].join(", ");
    let sql = format!("INSERT OR IGNORE INTO {table} VALUES ({places})");
    for row in rows {
        // A strict schema refuses what is of another type.
        let _ = connection.execute(&sql, params_from_iter(row));
    }
}

/// Another value for a column.
fn value(old: &Value, source: &mut Source<'_>) -> Value {
    let kind = source.byte() % 10;
    match (kind, old) {
        (0, _) => Value::Null,
        (1, Value::Blob(bytes)) => {
            let mut bytes = bytes.clone();
            let at = source.small() % bytes.len().max(1);
            let with = source.byte();
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= with);
            Value::Blob(bytes)
        }
        (1 | 2, Value::Integer(number)) => {
            Value::Integer(number.wrapping_add(source.byte().cast_signed().into()))
        }
        (2, Value::Blob(bytes)) => {
            let mut bytes = bytes.clone();
            bytes.resize(source.small() % 4_096, 0xff);
            Value::Blob(bytes)
        }
        (3, _) => Value::Blob(vec![source.byte(); 32]),
        (4, _) => Value::Blob(vec![source.byte(); 16]),
        (5, _) => Value::Blob(source.counted().to_vec()),
        (6, _) => Value::Text(String::from_utf8_lossy(source.counted()).into_owned()),
        (7, _) => Value::Real(f64::from_bits(source.number())),
        _ => Value::Integer(source.number().cast_signed()),
    }
}

/// Changes bytes of the file.
fn damage(path: &Path, source: &mut Source<'_>) {
    let mut file = File::options().read(true).write(true).open(path).expect("the file opens");
    let length = file.metadata().expect("it is there").len();
    for _ in 0..EDITS_MAX {
        if source.is_empty() {
            return;
        }
        let page = u64::from(source.byte()) * 4_096;
        let at = (page + u64::try_from(source.small() % 4_096).unwrap_or(0)) % length;
        let with = source.byte();
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).expect("within the file");
        file.read_exact(&mut byte).expect("within the file");
        byte[0] ^= with;
        file.seek(SeekFrom::Start(at)).expect("within the file");
        file.write_all(&byte).expect("the file is written");
    }
}

/// What the daemon does with a database: it is opened, or refused in one line, and a node lives
/// from it until it says that it is broken.
fn read(path: &Path) {
    let (rig, snapshot) = match Rig::open(path) {
        Ok(opened) => opened,
        Err(refused) => {
            assert!(!refused.is_empty() && !refused.contains('\n'), "{refused:?}");
            return;
        }
    };
    if ask_all(&rig, &snapshot).is_some() {
        live(&rig, snapshot);
    }
}

/// Asks for everything there is; none if the database is broken.
fn ask_all(rig: &Rig, snapshot: &Snapshot) -> Option<()> {
    let mut after = Cursor(0);
    loop {
        let answer = rig.ask(Question::Inbox {
            after,
            through: snapshot.last_cursor,
            from: None,
            since: None,
            messages_max: 3,
            bytes_max: ANSWER_BYTES_MAX,
            body_bytes_max: 200,
        })?;
        let Answer::Inbox { messages, through } = answer else { panic!("another answer") };
        assert!(messages.len() <= 3);
        for stored in &messages {
            assert!(stored.message.cursor > after && stored.message.cursor <= through);
            let cursor = stored.message.cursor;
            rig.ask(Question::Body { cursor, offset: 0, bytes_max: ANSWER_BYTES_MAX })?;
        }
        if messages.is_empty() || through <= after {
            break;
        }
        after = through;
    }
    rig.ask(Question::Outbox { after: Row(0), messages_max: 100 })?;
    for summary in &snapshot.outbox {
        let answer = rig.ask(Question::OutboxOf {
            recipient: summary.recipient,
            after: Row(0),
            messages_max: 100,
            bytes_max: ANSWER_BYTES_MAX,
        })?;
        let Answer::OutboxOf(messages) = answer else { panic!("another answer") };
        assert!(messages.iter().all(|message| message.recipient == summary.recipient));
    }
    rig.ask(Question::Key {
        key: "key".into(),
        subject: None,
        body: Bytes::from_static(b"hello"),
    })?;
    Some(())
}

/// A node starts, is asked this and that, and time passes.
fn live(rig: &Rig, snapshot: Snapshot) {
    let wall = Timestamp::from_millis(1_700_000_100_000);
    let mut now = Now { mono: Monotonic::from_micros(1_000_000), wall };
    let settings = Settings {
        identity: me(),
        network: NetworkId::OPEN,
        name: None,
        advertise: Vec::new(),
        links_auto: 2,
        limits: Limits::default(),
        about: About::default(),
    };
    let mut core = Core::new(settings, snapshot, now, [7; 32]);
    let page = || Page { after: None, limit: None };
    let send = |to: u8| {
        Call::Send(SendRequest {
            peer: peer(to).to_string(),
            body: Bytes::from_static(b"hello"),
            subject: None,
            wait: Wait::Queued,
            timeout_ms: None,
            key: Some("key".into()),
        })
    };
    let calls = [
        send(1),
        send(2),
        Call::Other(ControlRequest::Listen(Listen {
            name: "l".to_owned(),
            from: None,
            since: None,
            window: 100,
        })),
        Call::Other(ControlRequest::Peers(page())),
        Call::Other(ControlRequest::Status {}),
        Call::Other(ControlRequest::Outbox(page())),
        Call::Other(ControlRequest::Inbox(InboxQuery::default())),
    ];
    let calls = (1..).zip(calls).map(|(n, call)| (RequestId::Number(n), call)).collect();
    core.handle(now, Input::Calls { client: ClientId(1), calls });
    for step in 0..12 {
        for _ in 0..8 {
            if !carry_out(rig, &mut core, now) {
                return;
            }
        }
        let span = match step % 4 {
            3 => Span::from_secs(86_400),
            _ => core.deadline().since(now.mono),
        };
        now = Now { mono: now.mono + span, wall: now.wall + span };
    }
}

/// Does what the node wants done; false once it wants to stop.
fn carry_out(rig: &Rig, core: &mut Core, now: Now) -> bool {
    let mut requests = Vec::new();
    for effect in core.finish(now) {
        match effect {
            Effect::Transact(transaction) => requests.push(Request::Transact(transaction)),
            Effect::Ask(query) => requests.push(Request::Ask(query)),
            Effect::Stop { .. } => return false,
            _ => {}
        }
    }
    let count = requests.len();
    rig.store.submit(requests);
    rig.hear(count).into_iter().for_each(|completion| core.handle(now, Input::Store(completion)));
    true
}

/// An open store and what it says.
struct Rig {
    store: Store,
    completions: Receiver<Vec<Completion>>,
}

impl Rig {
    /// Opens a database, or says why not.
    fn open(path: &Path) -> Result<(Self, Snapshot), String> {
        let (sender, completions) = mpsc::channel();
        let opened = Store::open(path, me().peer(), move |done| {
            let _ = sender.send(done);
        });
        let (store, snapshot) = opened.map_err(|error| error.to_string())?;
        Ok((Self { store, completions }, snapshot))
    }

    /// Waits for that many completions, or fewer if the store has failed.
    fn hear(&self, count: usize) -> Vec<Completion> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let more = self.completions.recv_timeout(DEADLINE).expect("the store answers");
            heard.extend(more);
            if let Some(Completion::Failed { reason }) = heard.last() {
                assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
                break;
            }
        }
        heard
    }

    fn commit(&self, ops: Vec<Op>) -> Option<()> {
        self.store.submit(vec![Request::Transact(Transaction { token: 1, ops })]);
        matches!(self.hear(1).pop(), Some(Completion::Committed { .. })).then_some(())
    }

    /// The answer; none if the database is broken.
    fn ask(&self, what: Question) -> Option<Answer> {
        self.store.submit(vec![Request::Ask(Query { token: 7, what })]);
        match self.hear(1).pop() {
            Some(Completion::Answered { token: 7, answer }) => Some(answer),
            Some(Completion::Failed { .. }) => None,
            other => panic!("a question should be answered: {other:?}"),
        }
    }
}
