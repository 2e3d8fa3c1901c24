//! A client's end of a control connection.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, oneshot};

use super::codec::{ServerLine, decode_server_line, encode_request};
use super::protocol::{
    BodyPiece, Done, Event, Failure, Message, Read, Request, Send, Sent, UploadBegin, UploadChunk,
};
use super::socket;
use crate::model::limits::CONTROL_BODY_BYTES_MAX;

/// Bytes of a line that a daemon may send.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of requests that may wait to be written before [`Client::ready`] waits.
const QUEUED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes written at once, after which [`Client::unwritten`] is told anew.
const WRITE_BYTES: usize = 64 * 1024;
/// How long the reader may take to the end of what a daemon sent before it closed the connection.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Events that wait for their reader; beyond, the daemon is not read from.
const EVENTS_MAX: usize = 4_096;

/// Why there is no connection.
#[derive(Debug, Error)]
#[error("cannot reach the daemon at {}: {source}", path.display())]
pub struct ConnectError {
    /// The kind of failure.
    pub kind: ConnectErrorKind,
    /// Where it was tried.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl ConnectError {
    /// The kind of failure.
    pub const fn kind(&self) -> ConnectErrorKind {
        self.kind
    }
}

/// The kinds of failure to connect that have different remedies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// There is no socket.
    NotFound,
    /// There is a socket and nobody listens.
    Refused,
    /// The socket may not be opened by this user.
    PermissionDenied,
    /// Anything else.
    Other,
}

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum CallError {
    /// The daemon says no.
    #[error("{}", .0.message)]
    Failure(Failure),
    /// The daemon closed the connection.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon says nothing for longer than it should take.
    #[error("the daemon does not answer")]
    Silent,
    /// The daemon says something that is no reply.
    #[error("the daemon does not speak the protocol: {0}")]
    Protocol(String),
}

type Answer = Result<Box<RawValue>, CallError>;

#[derive(Debug, Default)]
struct State {
    /// Requests that wait to be written.
    out: Vec<u8>,
    /// Bytes that were taken out of it and are not written yet.
    writing: usize,
    waiting: BTreeMap<i64, oneshot::Sender<Answer>>,
    last: i64,
    /// The last clone of the client was dropped.
    abandoned: bool,
    /// The number of the last upload.
    uploads: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    written: Notify,
    /// There may be room for more.
    room: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no client any more, and nobody waits for a reply.
    fn is_unused(&self) -> bool {
        let state = self.state();
        state.abandoned && state.waiting.values().all(oneshot::Sender::is_closed)
    }

    /// Nobody will be answered any more.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
        self.written.notify_one();
        self.room.notify_waiters();
    }
}

/// A connection to a daemon. Clones share it; when the last is dropped and nobody waits for a
/// reply, it is closed, and the daemon ends what it was doing for it.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Dropped with the last clone.
    _alive: Arc<Alive>,
}

#[derive(Debug)]
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.state().abandoned = true;
        self.0.written.notify_one();
    }
}

/// The events of a connection.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

/// A reply that is on its way.
#[derive(Debug)]
pub struct Pending<R> {
    answer: oneshot::Receiver<Answer>,
    reply: PhantomData<fn() -> R>,
}

impl Client {
    /// Connects to the daemon that listens at a path.
    ///
    /// # Errors
    /// When nobody listens there, or may not be spoken to.
    pub async fn connect(path: &Path) -> Result<(Self, Events), ConnectError> {
        let failed = |source: io::Error| ConnectError {
            kind: match source.kind() {
                io::ErrorKind::NotFound => ConnectErrorKind::NotFound,
                io::ErrorKind::ConnectionRefused => ConnectErrorKind::Refused,
                io::ErrorKind::PermissionDenied => ConnectErrorKind::PermissionDenied,
                _ => ConnectErrorKind::Other,
            },
            path: path.to_owned(),
            source,
        };
        Ok(Self::over(socket::connect(path).await.map_err(failed)?))
    }

    /// Speaks with a daemon over any byte stream.
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + std::marker::Send + 'static,
    ) -> (Self, Events) {
        let shared = Arc::new(Shared::default());
        let alive = Arc::new(Alive(Arc::clone(&shared)));
        let client = Self { shared: Arc::clone(&shared), _alive: alive };
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (reader, writer) = tokio::io::split(stream);
        let mut reading = tokio::spawn(read_all(reader, Arc::clone(&shared), events));
        tokio::spawn(async move {
            match write_all(writer, &shared).await {
                Ok(()) => reading.abort(),
                // Before it closed the connection, the daemon may have said why.
                Err(_) => {
                    let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
                    shared.close();
                }
            }
        });
        (client, Events(received))
    }

    /// Makes a request; its reply can be awaited later. Requests go out in the order of these
    /// calls.
    pub fn start<R>(&self, request: &Request) -> Pending<R> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.shared.state();
        if !state.closed {
            state.last += 1;
            let id = state.last;
            encode_request(id, request, &mut state.out);
            state.waiting.insert(id, sender);
            self.shared.written.notify_one();
        }
        Pending { answer, reply: PhantomData }
    }

    /// Like [`Client::start`]: for those who await the reply at once.
    pub fn call<R: DeserializeOwned>(&self, request: &Request) -> Pending<R> {
        self.start(request)
    }

    /// Sends a message with a body of any size and kind: as text, as base64 or by upload. The
    /// request's own `body`, `body_base64` and `upload` are overwritten. Messages keep the order in
    /// which this was called.
    pub fn send_body(&self, mut request: Send, body: &[u8]) -> Pending<Sent> {
        (request.body, request.body_base64, request.upload) = (None, None, None);
        if body.len() > CONTROL_BODY_BYTES_MAX {
            request.upload = Some(self.upload(body));
        } else if let Ok(text) = std::str::from_utf8(body) {
            request.body = Some(text.to_owned());
        } else {
            request.body_base64 = Some(STANDARD.encode(body));
        }
        self.start(&Request::Send(request))
    }

    /// Uploads a body; its number. What is wrong with it is said of the send.
    fn upload(&self, body: &[u8]) -> u64 {
        let upload = {
            let mut state = self.shared.state();
            state.uploads += 1;
            state.uploads
        };
        let begin = UploadBegin { upload, bytes: body.len() as u64 };
        drop(self.start::<Done>(&Request::UploadBegin(begin)));
        for chunk in body.chunks(CONTROL_BODY_BYTES_MAX) {
            let data_base64 = STANDARD.encode(chunk);
            let chunk = UploadChunk { upload, data_base64 };
            drop(self.start::<Done>(&Request::UploadChunk(chunk)));
        }
        upload
    }

    /// Waits until little enough is queued for the daemon that more may be sent: whoever streams
    /// requests calls this before each.
    ///
    /// # Errors
    /// When the daemon closed the connection.
    pub async fn ready(&self) -> Result<(), CallError> {
        loop {
            let room = self.shared.room.notified();
            {
                let state = self.shared.state();
                if state.closed {
                    return Err(CallError::Closed);
                }
                if state.out.len() < QUEUED_BYTES_MAX {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Bytes of requests that the daemon has not taken yet.
    pub fn unwritten(&self) -> usize {
        let state = self.shared.state();
        state.out.len().saturating_add(state.writing)
    }

    /// The whole body of a message: what came with it, or else fetched with `read`.
    ///
    /// # Errors
    /// When there is no such message any more, or the daemon goes away.
    pub async fn whole_body(&self, message: &Message) -> Result<Vec<u8>, CallError> {
        let protocol = |error: base64::DecodeError| CallError::Protocol(error.to_string());
        match (&message.body, &message.body_base64) {
            (Some(text), _) => return Ok(text.clone().into_bytes()),
            (None, Some(packed)) => return STANDARD.decode(packed).map_err(protocol),
            (None, None) => {}
        }
        let mut body = Vec::new();
        while (body.len() as u64) < message.bytes {
            let piece_max = u32::try_from(CONTROL_BODY_BYTES_MAX).unwrap_or(u32::MAX);
            let (cursor, offset) = (message.cursor, body.len() as u64);
            let read = Request::Read(Read { cursor, offset, bytes: piece_max });
            let piece: BodyPiece = self.call(&read).await?;
            let piece = STANDARD.decode(piece.data_base64).map_err(protocol)?;
            if piece.is_empty() {
                return Err(CallError::Protocol("a body is shorter than it should be".to_owned()));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl Events {
    /// The next event; none once the connection is closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event, if it is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

impl<R: DeserializeOwned> Future for Pending<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            let raw = answer.map_err(|_| CallError::Closed)??;
            serde_json::from_str(raw.get()).map_err(|error| CallError::Protocol(error.to_string()))
        })
    }
}

/// Writes until nobody needs the connection any more, or it breaks.
async fn write_all(mut writer: impl AsyncWrite + Unpin, shared: &Shared) -> io::Result<()> {
    loop {
        let out = {
            let mut state = shared.state();
            if state.closed && state.out.is_empty() {
                return Ok(());
            }
            state.writing = state.out.len();
            std::mem::take(&mut state.out)
        };
        shared.room.notify_waiters();
        if out.is_empty() {
            if shared.is_unused() {
                return writer.shutdown().await;
            }
            shared.written.notified().await;
        } else {
            for piece in out.chunks(WRITE_BYTES) {
                writer.write_all(piece).await?;
                let mut state = shared.state();
                state.writing = state.writing.saturating_sub(piece.len());
            }
            writer.flush().await?;
        }
    }
}

async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let mut from = 0;
        while let Some(length) =
            buffer.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let line = buffer.get(from..from + length).unwrap_or_default();
            from += length + 1;
            match decode_server_line(line) {
                Ok(ServerLine::Reply(id, result)) => {
                    let mut state = shared.state();
                    if let Some(waiting) = state.waiting.remove(&id) {
                        let _ = waiting.send(result.map_err(CallError::Failure));
                    }
                    if state.abandoned {
                        shared.written.notify_one();
                    }
                }
                Ok(ServerLine::Event(event)) => {
                    // Whoever does not want events has dropped the other end.
                    let _ = events.send(event).await;
                }
                Ok(ServerLine::Fault(failure)) => {
                    fail_all(&shared, || CallError::Failure(failure.clone()))
                }
                Err(error) => {
                    fail_all(&shared, || CallError::Protocol(error.clone()));
                    return shared.close();
                }
            }
        }
        let _ = buffer.split_to(from);
        if buffer.len() > LINE_BYTES_MAX {
            fail_all(&shared, || CallError::Protocol("a line is too long".to_owned()));
            break;
        }
    }
    shared.close();
}

fn fail_all(shared: &Shared, error: impl Fn() -> CallError) {
    for (_, waiting) in std::mem::take(&mut shared.state().waiting) {
        let _ = waiting.send(Err(error()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader, duplex};

    use super::super::protocol::Status;
    use super::*;

    #[tokio::test]
    async fn the_connection_is_closed_when_nobody_needs_it() {
        let (ours, theirs) = duplex(1024);
        let (client, _events) = Client::over(ours);
        let pending: Pending<Status> = client.start(&Request::Status {});
        let mut lines = BufReader::new(theirs).lines();
        lines.next_line().await.expect("no error").expect("a request");
        drop(client.clone());
        // Somebody still waits for the reply.
        drop(client);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), lines.next_line()).await.is_err(),
            "closed too early"
        );
        drop(pending);
        // Nobody does now, which is found out when something else happens.
        lines
            .get_mut()
            .get_mut()
            .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n")
            .await
            .expect("written");
        assert_eq!(lines.next_line().await.expect("no error"), None);
    }

    #[tokio::test]
    async fn an_interrupted_call_ends_with_its_client() {
        let (ours, theirs) = duplex(1024);
        let (client, _events) = Client::over(ours);
        let pending: Pending<Status> = client.start(&Request::Status {});
        let mut lines = BufReader::new(theirs).lines();
        lines.next_line().await.expect("no error").expect("a request");
        drop(pending);
        drop(client);
        assert_eq!(lines.next_line().await.expect("no error"), None);
    }

    #[tokio::test]
    async fn what_the_daemon_said_before_it_closed_is_heard() {
        let (ours, mut theirs) = duplex(1024);
        let refusal = b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\
            \"message\":\"too many\",\"data\":{\"code\":\"busy\",\"message\":\"too many\"}}}\n";
        theirs.write_all(refusal).await.expect("written");
        drop(theirs);
        let (client, _events) = Client::over(ours);
        match client.call::<Status>(&Request::Status {}).await {
            Err(CallError::Failure(failure)) => assert_eq!(failure.message, "too many"),
            other => panic!("{other:?}"),
        }
    }
}
