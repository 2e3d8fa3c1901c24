//! The daemon's end of control connections, over any byte stream.
//!
//! Each connection is one task. Whole reads become batches of calls for the node; whatever waits to
//! be told is encoded into one buffer and written at once. A client that sends without reading is
//! not read from any more; one that is sent more than it reads is dropped. Nobody else notices.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, info};

use super::codec::{
    Call, Outgoing, RequestId, decode_request, encode_failure, encode_message, encode_outgoing,
};
use super::protocol::{Done, ErrorCode, Event, Failure, Reply, Request};
use super::upload::Uploads;
use crate::model::Limits;
use crate::model::limits::CONTROL_LINE_BYTES_MAX;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes encoded into one write. A client that does not read keeps so many, beside what waits.
const WRITE_BYTES: usize = 32 * 1024;
/// Requests of one client without a reply; beyond, it is not read from.
const OUTSTANDING_MAX: usize = 8_192;
/// Requests of one client for lists and bodies without a reply: each may be a few hundred
/// kibibytes, so they are served as fast as they are read.
const PAGES_MAX: usize = 8;
/// Bytes that may wait for one client.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Those among them that it shares with other subscribers: twice what arrives at once.
const SHARED_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that may wait for all clients; beyond, whoever has more waiting than its fair part is
/// dropped. What subscribers share does not count: whoever does not read has the newest messages
/// waiting, as all the others do, so that together they keep no more than one of them may.
const ALL_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An upload whose client says nothing for this long is dropped.
const UPLOAD_PAUSE: Duration = Duration::from_secs(30);
/// A write that makes no progress for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// After a client said that it will ask no more, its last replies may take this long.
const FAREWELL: Duration = Duration::from_secs(120);

/// What happens to clients, for the node.
#[derive(Debug)]
pub struct ClientEvent {
    /// Which client; numbers are never used twice.
    pub client: u64,
    /// What happened.
    pub what: ClientNews,
}

/// What happened to a client.
#[derive(Debug)]
pub enum ClientNews {
    /// It is there; this is how to tell it things.
    Connected(ClientHandle),
    /// It made requests.
    Calls(Vec<(RequestId, Call)>),
    /// It is gone.
    Gone,
}

/// Tells a client things.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    queue: mpsc::UnboundedSender<Vec<Outgoing>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait to be written, estimated: those that only this client keeps in memory.
    waiting: AtomicUsize,
    /// Those of messages that it shares with other subscribers.
    waiting_shared: AtomicUsize,
    /// The former of all clients.
    all_waiting: Arc<AtomicUsize>,
    /// What each client may have waiting, however much all have.
    fair_part: usize,
    /// Requests without a reply.
    outstanding: AtomicUsize,
    /// Which of them ask for lists and bodies; and how many these are, so that all other replies
    /// need not look.
    pages: Mutex<Vec<RequestId>>,
    pages_count: AtomicUsize,
    /// Replies were written: there may be room for more requests.
    replied: Notify,
    /// It reads too slowly.
    dropped: Notify,
}

impl Shared {
    /// Counts what waits; whether the client may have so much waiting.
    fn add(&self, weight: Weight) -> bool {
        let all = self.all_waiting.fetch_add(weight.own, Ordering::Relaxed) + weight.own;
        let own = self.waiting.fetch_add(weight.own, Ordering::Relaxed) + weight.own;
        let shared = self.waiting_shared.fetch_add(weight.shared, Ordering::Relaxed);
        own <= WAITING_BYTES_MAX
            && (shared == 0 || shared + weight.shared <= SHARED_WAITING_BYTES_MAX)
            && (all <= ALL_WAITING_BYTES_MAX || own <= self.fair_part)
    }

    /// What waits no longer.
    fn take(&self, weight: Weight) {
        self.waiting_shared.fetch_sub(weight.shared, Ordering::Relaxed);
        self.waiting.fetch_sub(weight.own, Ordering::Relaxed);
        self.all_waiting.fetch_sub(weight.own, Ordering::Relaxed);
    }

    fn pages(&self) -> MutexGuard<'_, Vec<RequestId>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a reply is one of the lists and bodies that were asked for.
    fn is_page(&self, id: &RequestId) -> bool {
        self.pages_count.load(Ordering::Relaxed) > 0 && self.pages().contains(id)
    }

    /// A list or body was written.
    fn on_written(&self, id: &RequestId) {
        let mut pages = self.pages();
        if let Some(at) = pages.iter().position(|page| page == id) {
            pages.swap_remove(at);
            self.pages_count.store(pages.len(), Ordering::Relaxed);
        }
    }
}

impl ClientHandle {
    /// Queues replies and events, in order. Never blocks: if the client reads too slowly, it is
    /// dropped.
    pub fn push(&self, mut batch: Vec<Outgoing>) {
        // Of those who do not read a great many wait, most of them short.
        batch.shrink_to_fit();
        let weight: Weight = batch.iter().map(weight_of).sum();
        if !self.shared.add(weight) {
            self.shared.dropped.notify_one();
            self.shared.take(weight);
        } else if self.queue.send(batch).is_err() {
            // The other end is gone when the connection ends: nobody is left to be told.
            self.shared.take(weight);
        }
    }
}

/// Serves control connections. Cheap to clone; all clones share the clients.
#[derive(Debug, Clone)]
pub struct Server {
    events: mpsc::Sender<ClientEvent>,
    message_bytes_max: Arc<AtomicUsize>,
    clients_max: Arc<AtomicUsize>,
    clients: Arc<AtomicUsize>,
    last_client: Arc<AtomicU64>,
    upload_bytes: Arc<AtomicU64>,
    all_waiting: Arc<AtomicUsize>,
    reminder: Arc<Notify>,
}

impl Server {
    /// A server that tells the node through `events`.
    pub fn new(limits: &Limits, events: mpsc::Sender<ClientEvent>) -> Self {
        Self {
            events,
            message_bytes_max: Arc::new(limits.message_bytes_max.into()),
            clients_max: Arc::new(limits.clients_max.into()),
            clients: Arc::default(),
            last_client: Arc::default(),
            upload_bytes: Arc::default(),
            all_waiting: Arc::default(),
            reminder: Arc::default(),
        }
    }

    /// Keeps to these limits from now on; clients that are there stay.
    pub fn adopt_limits(&self, limits: &Limits) {
        self.message_bytes_max.store(limits.message_bytes_max, Ordering::Relaxed);
        self.clients_max.store(limits.clients_max, Ordering::Relaxed);
    }

    /// Has whoever listens for clients look after the place where it does so.
    pub fn remind(&self) {
        self.reminder.notify_one();
    }

    /// Waits for [`Server::remind`].
    pub(super) async fn reminded(&self) {
        self.reminder.notified().await;
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send) {
        let (reader, mut writer) = tokio::io::split(stream);
        match self.place() {
            Ok(place) => self.serve_until(place, reader, writer, std::future::pending()).await,
            Err(failure) => {
                let mut line = Vec::new();
                encode_failure(None, &failure, &mut line);
                let _ = tokio::time::timeout(WRITE_TIMEOUT, writer.write_all(&line)).await;
            }
        }
    }

    /// A place among the clients, or why there is none.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        let place = Place(Arc::clone(&self.clients));
        let clients_max = self.clients_max.load(Ordering::Relaxed);
        if place.0.fetch_add(1, Ordering::Relaxed) < clients_max {
            return Ok(place);
        }
        info!("a control client was refused: too many");
        let text = format!("there are {clients_max} clients already; try again");
        Err(Failure::new(ErrorCode::Busy, text))
    }

    /// Serves one connection until it ends or is to end.
    pub(super) async fn serve_until(
        &self,
        _place: Place,
        reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Unpin,
        end: impl Future<Output = ()>,
    ) {
        let client = self.last_client.fetch_add(1, Ordering::Relaxed) + 1;
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            all_waiting: Arc::clone(&self.all_waiting),
            fair_part: ALL_WAITING_BYTES_MAX / self.clients_max.load(Ordering::Relaxed).max(1),
            ..Shared::default()
        });
        let handle = ClientHandle { queue, shared: Arc::clone(&shared) };
        let connection = Reading {
            client,
            events: self.events.clone(),
            handle: handle.clone(),
            uploads: Uploads::new(
                Arc::clone(&self.message_bytes_max),
                Arc::clone(&self.upload_bytes),
            ),
            searched: 0,
        };
        let connected = ClientNews::Connected(handle);
        if self.events.send(ClientEvent { client, what: connected }).await.is_err() {
            return;
        }
        let reason = tokio::select! {
            reason = connection.run(reader) => reason,
            reason = write_all(writer, queued, &shared) => reason,
            () = shared.dropped.notified() => "it reads too slowly".to_owned(),
            () = end => "nobody listens there any more".to_owned(),
        };
        // What was not written never will be.
        let own = shared.waiting.load(Ordering::Relaxed);
        shared.take(Weight { own, shared: 0 });
        debug!(client, reason, "control client gone");
        let _ = self.events.send(ClientEvent { client, what: ClientNews::Gone }).await;
    }
}

/// A place among the clients, free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reading half of a connection.
struct Reading {
    client: u64,
    events: mpsc::Sender<ClientEvent>,
    handle: ClientHandle,
    uploads: Uploads,
    /// Bytes of the buffer that are known to hold no line's end.
    searched: usize,
}

impl Reading {
    /// Reads until the end; returns why.
    async fn run(mut self, mut reader: impl AsyncRead + Unpin) -> String {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            let read = reader.read_buf(&mut buffer);
            // An upload takes room that others want: it goes on, or it goes.
            let patience = if self.uploads.is_empty() { Duration::MAX } else { UPLOAD_PAUSE };
            match tokio::time::timeout(patience, read).await {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => {
                    self.uploads.clear();
                    continue;
                }
            }
            let mut calls = Vec::new();
            let fault = self.take_lines(&mut buffer, &mut calls);
            if !self.pass_on(calls).await {
                return "the daemon stops".to_owned();
            }
            if let Some(failure) = fault {
                let client = self.client;
                info!(client, reason = failure.message, "a control client was closed");
                self.refuse_and_wait(failure).await;
                return "it does not speak the protocol".to_owned();
            }
        }
        // It asks no more, but may still be waiting for replies.
        let _ = tokio::time::timeout(FAREWELL, self.quiet(0)).await;
        "it closed the connection".to_owned()
    }

    /// Takes all whole lines from the buffer. A line that is no JSON, or too long, is the end.
    fn take_lines(
        &mut self,
        buffer: &mut BytesMut,
        calls: &mut Vec<(RequestId, Call)>,
    ) -> Option<Failure> {
        let mut from = 0;
        while let Some(end) = self.line_end(buffer, from) {
            let line = buffer.get(from..end).unwrap_or_default();
            if line.len() > CONTROL_LINE_BYTES_MAX {
                return Some(too_long());
            }
            if !line.trim_ascii().is_empty()
                && let Some(fault) = self.take_line(line, calls)
            {
                return Some(fault);
            }
            from = end + 1;
        }
        let _ = buffer.split_to(from);
        self.searched = buffer.len();
        (buffer.len() > CONTROL_LINE_BYTES_MAX).then(too_long)
    }

    /// Where the line that begins there ends. What was searched before is not searched again: a
    /// line may come byte by byte.
    fn line_end(&mut self, buffer: &[u8], from: usize) -> Option<usize> {
        let start = from.max(std::mem::take(&mut self.searched));
        Some(start + memchr(b'\n', buffer.get(start..)?)?)
    }

    fn take_line(&mut self, line: &[u8], calls: &mut Vec<(RequestId, Call)>) -> Option<Failure> {
        let incoming = decode_request(line);
        let Some(id) = incoming.id else { return incoming.request.err() };
        let result = match incoming.request {
            Ok(Request::Send(request)) => match self.uploads.resolve(request) {
                Ok(request) => {
                    calls.push((id, Call::Send(request)));
                    return None;
                }
                Err(failure) => Err(failure),
            },
            Ok(Request::Authenticate(_)) => Err(not_here()),
            Ok(Request::UploadBegin(request)) => self.uploads.begin(request).map(|()| done()),
            Ok(Request::UploadChunk(request)) => self.uploads.chunk(&request).map(|()| done()),
            Ok(request) => {
                calls.push((id, Call::Other(request)));
                return None;
            }
            Err(failure) => Err(failure),
        };
        self.handle.shared.outstanding.fetch_add(1, Ordering::Relaxed);
        self.handle.push(vec![Outgoing::Reply { id, result }]);
        None
    }

    /// Hands calls to the node, and waits while too many are without a reply.
    async fn pass_on(&self, calls: Vec<(RequestId, Call)>) -> bool {
        let mut batch = Vec::new();
        for (id, call) in calls {
            if is_page(&call) {
                if !self.hand_over(std::mem::take(&mut batch)).await {
                    return false;
                }
                self.begin_page(&id).await;
            }
            batch.push((id, call));
        }
        let is_taken = self.hand_over(batch).await;
        self.quiet(OUTSTANDING_MAX).await;
        is_taken
    }

    async fn hand_over(&self, calls: Vec<(RequestId, Call)>) -> bool {
        if calls.is_empty() {
            return true;
        }
        self.handle.shared.outstanding.fetch_add(calls.len(), Ordering::Relaxed);
        let what = ClientNews::Calls(calls);
        self.events.send(ClientEvent { client: self.client, what }).await.is_ok()
    }

    /// Waits until there is room for the answer to a request for a list or body.
    async fn begin_page(&self, id: &RequestId) {
        let shared = &self.handle.shared;
        loop {
            {
                let mut pages = shared.pages();
                if pages.len() < PAGES_MAX {
                    pages.push(id.clone());
                    shared.pages_count.store(pages.len(), Ordering::Relaxed);
                    return;
                }
            }
            shared.replied.notified().await;
        }
    }

    /// Waits until at most so many requests are without a reply.
    async fn quiet(&self, outstanding: usize) {
        let shared = &self.handle.shared;
        while shared.outstanding.load(Ordering::Relaxed) > outstanding {
            shared.replied.notified().await;
        }
    }

    async fn refuse_and_wait(&self, failure: Failure) {
        // An error without an ID: the line did not tell one. JSON-RPC 2.0 section 5 wants null.
        let id = RequestId::Text("".into());
        self.handle.shared.outstanding.fetch_add(1, Ordering::Relaxed);
        self.handle.push(vec![Outgoing::Reply { id, result: Err(failure) }]);
        let _ = tokio::time::timeout(WRITE_TIMEOUT, self.quiet(0)).await;
    }
}

/// Whether a call asks for a list or a body.
const fn is_page(call: &Call) -> bool {
    matches!(
        call,
        Call::Other(
            Request::Inbox(_)
                | Request::Outbox(_)
                | Request::Peers(_)
                | Request::Routes(_)
                | Request::Read(_)
                | Request::Status {}
        )
    )
}

const fn done() -> Reply {
    Reply::Done(Done {})
}

fn not_here() -> Failure {
    let text = "authenticate is the first request on the TCP interface port, and none elsewhere; \
                leave it out";
    Failure::new(ErrorCode::InvalidRequest, text)
}

fn too_long() -> Failure {
    let text = format!("a line has at most {CONTROL_LINE_BYTES_MAX} bytes; upload large bodies");
    Failure::new(ErrorCode::ParseError, text)
}

/// Writes what is queued until the end; returns why.
async fn write_all(
    writer: impl AsyncWrite + Unpin,
    mut queued: mpsc::UnboundedReceiver<Vec<Outgoing>>,
    shared: &Shared,
) -> String {
    let mut writing = Writing::new(writer, shared);
    while let Some(batch) = queued.recv().await {
        if let Err(reason) = writing.write(batch, &mut queued).await {
            return reason;
        }
    }
    "the daemon stops".to_owned()
}

/// The writing half of a connection.
struct Writing<'a, W> {
    writer: W,
    shared: &'a Shared,
    /// What is encoded and not written.
    buffer: Vec<u8>,
    /// What waits no longer once that is written: bytes, replies, and which are lists and bodies.
    weight: Weight,
    replies: usize,
    pages: Vec<RequestId>,
}

impl<'a, W: AsyncWrite + Unpin> Writing<'a, W> {
    fn new(writer: W, shared: &'a Shared) -> Self {
        let (weight, pages) = (Weight::default(), Vec::new());
        Self { writer, shared, buffer: Vec::new(), weight, replies: 0, pages }
    }

    /// Writes a batch and whatever else is queued by then, in as few writes as possible. Fails with
    /// the reason for which the connection is over.
    async fn write(
        &mut self,
        batch: Vec<Outgoing>,
        queued: &mut mpsc::UnboundedReceiver<Vec<Outgoing>>,
    ) -> Result<(), String> {
        let mut next = Some(batch);
        while let Some(batch) = next {
            for outgoing in batch {
                self.encode(&outgoing).await?;
                self.weight = self.weight + weight_of(&outgoing);
                self.flush_if_large().await?;
            }
            next = queued.try_recv().ok();
        }
        self.flush().await
    }

    /// Messages that are shared are never all encoded at once.
    async fn encode(&mut self, outgoing: &Outgoing) -> Result<(), String> {
        match outgoing {
            Outgoing::Reply { id, result } => {
                match (id, result) {
                    (RequestId::Text(none), Err(failure)) if none.is_empty() => {
                        encode_failure(None, failure, &mut self.buffer);
                    }
                    _ => encode_outgoing(outgoing, &mut self.buffer),
                }
                self.replies += 1;
                if self.shared.is_page(id) {
                    self.pages.push(id.clone());
                }
            }
            Outgoing::Event(_) => encode_outgoing(outgoing, &mut self.buffer),
            Outgoing::Messages { subscription, messages } => {
                for message in messages.iter() {
                    encode_message(*subscription, message, &mut self.buffer);
                    self.flush_if_large().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush_if_large(&mut self) -> Result<(), String> {
        if self.buffer.len() >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Writes what is encoded, and says what waits no longer.
    async fn flush(&mut self) -> Result<(), String> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match tokio::time::timeout(WRITE_TIMEOUT, self.writer.write(rest)).await {
                Ok(Ok(0)) => return Err("the connection is closed".to_owned()),
                Ok(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("it stopped reading".to_owned()),
            }
        }
        self.writer.flush().await.map_err(|error| error.to_string())?;
        self.buffer.clear();
        self.buffer.shrink_to(2 * WRITE_BYTES);
        let shared = self.shared;
        shared.take(std::mem::take(&mut self.weight));
        shared.outstanding.fetch_sub(std::mem::take(&mut self.replies), Ordering::Relaxed);
        self.pages.drain(..).for_each(|id| shared.on_written(&id));
        shared.replied.notify_one();
        Ok(())
    }
}

/// Bytes that something keeps in memory until it is written, roughly.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// For one client alone.
    own: usize,
    /// For all subscribers together.
    shared: usize,
}

impl std::ops::Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { own: self.own + other.own, shared: self.shared + other.shared }
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// What a reply or event keeps in memory.
fn weight_of(outgoing: &Outgoing) -> Weight {
    const SMALL: usize = 256;
    let message_size = |message: &super::protocol::Message| {
        let body = message.body.as_ref().or(message.body_base64.as_ref());
        2 * SMALL + body.map_or(0, String::len)
    };
    let own = match outgoing {
        Outgoing::Messages { messages, .. } => {
            return Weight { own: SMALL, shared: messages.iter().map(message_size).sum() };
        }
        Outgoing::Event(Event::Message(event)) => message_size(&event.message),
        Outgoing::Event(_) => 2 * SMALL,
        Outgoing::Reply { result: Ok(Reply::Inbox(page)), .. } => {
            SMALL + page.messages.iter().map(message_size).sum::<usize>()
        }
        Outgoing::Reply { result: Ok(Reply::Peers(page)), .. } => {
            SMALL + page.peers.len() * 4 * SMALL
        }
        Outgoing::Reply { result: Ok(Reply::Routes(page)), .. } => {
            SMALL + page.routes.len() * 2 * SMALL
        }
        Outgoing::Reply { result: Ok(Reply::Outbox(page)), .. } => {
            SMALL + (page.messages.len() + page.given_up.len()) * 2 * SMALL
        }
        Outgoing::Reply { result: Ok(Reply::Body(piece)), .. } => SMALL + piece.data_base64.len(),
        Outgoing::Reply { .. } => SMALL,
    };
    Weight { own, shared: 0 }
}

/// Where a byte stands first.
fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == byte)
}
