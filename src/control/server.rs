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

use super::codec::{Call, Outgoing, RequestId, decode_request, encode_failure, encode_outgoing};
use super::protocol::{Done, ErrorCode, Event, Failure, Reply, Request};
use super::upload::Uploads;
use crate::model::Limits;
use crate::model::limits::CONTROL_LINE_BYTES_MAX;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes encoded into one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Requests of one client without a reply; beyond, it is not read from.
const OUTSTANDING_MAX: usize = 8_192;
/// Requests of one client for lists and bodies without a reply: each may be a few hundred
/// kibibytes, so they are served as fast as they are read.
const PAGES_MAX: usize = 8;
/// Bytes that may wait for one client.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes that may wait for all clients; beyond, whoever has more waiting than its fair part is
/// dropped.
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
    /// Bytes that wait to be written, estimated.
    waiting: AtomicUsize,
    /// The same of all clients.
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
    /// Counts bytes that wait; how many there are now.
    fn add(&self, bytes: usize) -> usize {
        self.all_waiting.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Bytes wait no longer.
    fn take(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.all_waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a client may have so many bytes waiting.
    fn may_have(&self, waiting: usize) -> bool {
        let all = self.all_waiting.load(Ordering::Relaxed);
        waiting <= WAITING_BYTES_MAX && (all <= ALL_WAITING_BYTES_MAX || waiting <= self.fair_part)
    }

    fn pages(&self) -> MutexGuard<'_, Vec<RequestId>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects the replies that may be lists and bodies.
    fn note_pages(&self, batch: &[Outgoing], ids: &mut Vec<RequestId>) {
        if self.pages_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let pages = self.pages();
        ids.extend(batch.iter().filter_map(|outgoing| match outgoing {
            Outgoing::Reply { id, .. } if pages.contains(id) => Some(id.clone()),
            _ => None,
        }));
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
    pub fn push(&self, batch: Vec<Outgoing>) {
        let bytes: usize = batch.iter().map(size_of_outgoing).sum();
        let waiting = self.shared.add(bytes);
        if !self.shared.may_have(waiting) {
            self.shared.dropped.notify_one();
            self.shared.take(bytes);
        } else if self.queue.send(batch).is_err() {
            // The other end is gone when the connection ends: nobody is left to be told.
            self.shared.take(bytes);
        }
    }
}

/// Serves control connections. Cheap to clone; all clones share the clients.
#[derive(Debug, Clone)]
pub struct Server {
    events: mpsc::Sender<ClientEvent>,
    message_bytes_max: usize,
    clients_max: usize,
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
            message_bytes_max: limits.message_bytes_max,
            clients_max: limits.clients_max,
            clients: Arc::default(),
            last_client: Arc::default(),
            upload_bytes: Arc::default(),
            all_waiting: Arc::default(),
            reminder: Arc::default(),
        }
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
        let place = Place(Arc::clone(&self.clients));
        let (reader, mut writer) = tokio::io::split(stream);
        if place.0.fetch_add(1, Ordering::Relaxed) >= self.clients_max {
            let text = format!("there are {} clients already; try again", self.clients_max);
            let mut line = Vec::new();
            encode_failure(None, &Failure::new(ErrorCode::Busy, text), &mut line);
            let _ = tokio::time::timeout(WRITE_TIMEOUT, writer.write_all(&line)).await;
            info!("a control client was refused: too many");
            return;
        }
        let client = self.last_client.fetch_add(1, Ordering::Relaxed) + 1;
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            all_waiting: Arc::clone(&self.all_waiting),
            fair_part: ALL_WAITING_BYTES_MAX / self.clients_max.max(1),
            ..Shared::default()
        });
        let handle = ClientHandle { queue, shared: Arc::clone(&shared) };
        let connection = Reading {
            client,
            events: self.events.clone(),
            handle: handle.clone(),
            uploads: Uploads::new(self.message_bytes_max, Arc::clone(&self.upload_bytes)),
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
        };
        // What was not written never will be.
        shared.take(shared.waiting.load(Ordering::Relaxed));
        debug!(client, reason, "control client gone");
        let _ = self.events.send(ClientEvent { client, what: ClientNews::Gone }).await;
    }
}

/// A place among the clients, free again when dropped.
struct Place(Arc<AtomicUsize>);

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

fn too_long() -> Failure {
    let text = format!("a line has at most {CONTROL_LINE_BYTES_MAX} bytes; upload large bodies");
    Failure::new(ErrorCode::ParseError, text)
}

/// Writes what is queued until the end; returns why.
async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut queued: mpsc::UnboundedReceiver<Vec<Outgoing>>,
    shared: &Shared,
) -> String {
    let mut buffer = Vec::new();
    let mut written_ids = Vec::new();
    while let Some(batch) = queued.recv().await {
        let (mut bytes, mut replies) = encode_batch(&batch, &mut buffer);
        shared.note_pages(&batch, &mut written_ids);
        while buffer.len() < WRITE_BYTES
            && let Ok(batch) = queued.try_recv()
        {
            let more = encode_batch(&batch, &mut buffer);
            shared.note_pages(&batch, &mut written_ids);
            bytes += more.0;
            replies += more.1;
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            match tokio::time::timeout(WRITE_TIMEOUT, writer.write(rest)).await {
                Ok(Ok(0)) => return "the connection is closed".to_owned(),
                Ok(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it stopped reading".to_owned(),
            }
        }
        if let Err(error) = writer.flush().await {
            return error.to_string();
        }
        buffer.clear();
        buffer.shrink_to(2 * WRITE_BYTES);
        shared.take(bytes);
        shared.outstanding.fetch_sub(replies, Ordering::Relaxed);
        written_ids.drain(..).for_each(|id| shared.on_written(&id));
        shared.replied.notify_one();
    }
    "the daemon stops".to_owned()
}

/// Encodes a batch; returns its estimated bytes and its replies.
fn encode_batch(batch: &[Outgoing], buffer: &mut Vec<u8>) -> (usize, usize) {
    let mut replies = 0;
    for outgoing in batch {
        match outgoing {
            Outgoing::Reply { id: RequestId::Text(id), result: Err(failure) } if id.is_empty() => {
                encode_failure(None, failure, buffer);
                replies += 1;
            }
            Outgoing::Reply { .. } => {
                encode_outgoing(outgoing, buffer);
                replies += 1;
            }
            Outgoing::Event(_) => encode_outgoing(outgoing, buffer),
        }
    }
    (batch.iter().map(size_of_outgoing).sum(), replies)
}

/// Bytes that a reply or event keeps busy, roughly.
fn size_of_outgoing(outgoing: &Outgoing) -> usize {
    const SMALL: usize = 256;
    let message_size = |message: &super::protocol::Message| {
        let body = message.body.as_ref().or(message.body_base64.as_ref());
        2 * SMALL + body.map_or(0, String::len)
    };
    match outgoing {
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
    }
}

/// Where a byte stands first.
fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == byte)
}
