//! The daemon's end of control connections, over any byte stream.
//!
//! Each connection is one task. Whole reads become batches of calls for the node; whatever waits to
//! be told is encoded into one buffer and written at once. A client that sends without reading is
//! not read from any more; one that is sent more than it reads is dropped. Nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
/// Bytes that may wait for one client.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
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
    /// Requests without a reply.
    outstanding: AtomicUsize,
    /// Replies were written: there may be room for more requests.
    replied: Notify,
    /// It reads too slowly.
    dropped: Notify,
}

impl ClientHandle {
    /// Queues replies and events, in order. Never blocks: if the client reads too slowly, it is
    /// dropped.
    pub fn push(&self, batch: Vec<Outgoing>) {
        let bytes: usize = batch.iter().map(size_of_outgoing).sum();
        let waiting = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting.saturating_add(bytes) > WAITING_BYTES_MAX {
            self.shared.dropped.notify_one();
            return;
        }
        // The other end is gone when the connection ends: nobody is left to be told.
        let _ = self.queue.send(batch);
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
        }
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
        let shared = Arc::new(Shared::default());
        let handle = ClientHandle { queue, shared: Arc::clone(&shared) };
        let connection = Reading {
            client,
            events: self.events.clone(),
            handle: handle.clone(),
            uploads: Uploads::new(self.message_bytes_max, Arc::clone(&self.upload_bytes)),
            looked_at: 0,
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
    /// Bytes of a line that has not ended: a line that comes by the byte is looked through once.
    looked_at: usize,
}

impl Reading {
    /// Reads until the end; returns why.
    async fn run(mut self, mut reader: impl AsyncRead + Unpin) -> String {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return error.to_string(),
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
        while let Some(at) = buffer.get(self.looked_at..).and_then(|rest| memchr(b'\n', rest)) {
            let end = self.looked_at + at;
            let length = end - from;
            if length > CONTROL_LINE_BYTES_MAX {
                return Some(too_long());
            }
            let line = buffer.get(from..end).unwrap_or_default();
            if !line.trim_ascii().is_empty()
                && let Some(fault) = self.take_line(line, calls)
            {
                return Some(fault);
            }
            from = end + 1;
            self.looked_at = from;
        }
        let _ = buffer.split_to(from);
        self.looked_at = buffer.len();
        (buffer.len() > CONTROL_LINE_BYTES_MAX).then(too_long)
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
        if !calls.is_empty() {
            self.handle.shared.outstanding.fetch_add(calls.len(), Ordering::Relaxed);
            let what = ClientNews::Calls(calls);
            if self.events.send(ClientEvent { client: self.client, what }).await.is_err() {
                return false;
            }
        }
        self.quiet(OUTSTANDING_MAX).await;
        true
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
    while let Some(batch) = queued.recv().await {
        let (mut bytes, mut replies) = encode_batch(&batch, &mut buffer);
        while buffer.len() < WRITE_BYTES
            && let Ok(batch) = queued.try_recv()
        {
            let more = encode_batch(&batch, &mut buffer);
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
        shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        shared.outstanding.fetch_sub(replies, Ordering::Relaxed);
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
            SMALL + page.messages.len() * 2 * SMALL
        }
        Outgoing::Reply { result: Ok(Reply::Body(piece)), .. } => SMALL + piece.data_base64.len(),
        Outgoing::Reply { .. } => SMALL,
    }
}

/// Where a byte stands first.
fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == byte)
}
