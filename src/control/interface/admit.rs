//! From a connection that could be anything to a control client, or to nothing.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::super::codec::{Outgoing, RequestId, decode_request, encode_failure, encode_outgoing};
use super::super::protocol::{Done, ErrorCode, Failure, Reply, Request};
use super::super::server::{self, Server};
use super::PROTOCOL;
use super::gate::{Gate, Noise, Place};
use crate::crypto::AccessToken;

/// From the connection to the end of its first line.
pub(super) const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of that line, newline included.
const FIRST_LINE_BYTES_MAX: usize = 4 * 1024;
/// How long whoever shows a wrong token waits for the answer. Others wait for nothing.
const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);
/// How long somebody who is told something may take to hear it.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are read and forgotten meanwhile: what is unread when a connection is closed may
/// destroy what was written to it.
const IGNORED_BYTES_MAX: u64 = 64 * 1024;
/// The first byte of a TLS record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Bytes of TLS records that may wait for the kernel.
const RECORDS_BYTES_MAX: usize = 64 * 1024;

/// What the connections of an interface port share.
#[derive(Debug)]
pub(super) struct Access {
    token: AccessToken,
    tls: Arc<ServerConfig>,
    /// Clear text is taken, too.
    clear: bool,
    pub(super) server: Server,
    pub(super) gate: Arc<Gate>,
    /// The paces at which wrong tokens, and everything else, are logged: neither hides the other.
    wrong_tokens: Noise,
    others: Noise,
    running: watch::Receiver<()>,
}

impl Access {
    pub(super) fn new(
        token: AccessToken,
        tls: Arc<ServerConfig>,
        clear: bool,
        server: Server,
        running: watch::Receiver<()>,
    ) -> Self {
        let (gate, wrong_tokens, others) = (Arc::default(), Noise::new(), Noise::new());
        Self { token, tls, clear, server, gate, wrong_tokens, others, running }
    }

    /// Waits until the interface port is closed.
    pub(super) async fn stopped(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }
}

/// A byte stream, clear or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Somebody who showed the token.
pub(super) struct Admitted {
    /// Their place among the clients.
    pub(super) client: server::Place,
    /// What they say from then on.
    pub(super) reader: tokio::io::Chain<Cursor<Vec<u8>>, ReadHalf<Box<dyn Stream>>>,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
}

/// Why somebody is closed without a word.
enum Refusal {
    /// Neither a request nor a TLS handshake of ours, or too much of it, or nothing.
    Other(&'static str),
    /// The connection broke, or the handshake did.
    Broken(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What the first line was.
enum First {
    /// The right token.
    Right(RequestId),
    /// Another one.
    Wrong(RequestId),
}

/// Lets in who shows the token in time. Everybody else is logged and closed.
pub(super) async fn admit(
    access: &Access,
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
) -> Option<Admitted> {
    let admitted = tokio::select! {
        biased;
        () = place.given_up.notified() => Err(Refusal::Other("others want to be heard")),
        admitted = hear(access, stream, address, &place) => admitted,
    };
    match admitted {
        Ok(admitted) => return admitted,
        Err(refusal) => {
            if let Some(unlogged) = access.others.allow() {
                // What it said is not repeated: part of it could be a token.
                let reason = match refusal {
                    Refusal::Other(reason) => reason.to_owned(),
                    Refusal::Broken(error) => crate::model::escaped(&error.to_string()),
                };
                info!(%address, reason, unlogged, "closed a connection to the interface port");
            }
        }
    }
    None
}

async fn hear(
    access: &Access,
    stream: TcpStream,
    address: SocketAddr,
    place: &Place,
) -> Result<Option<Admitted>, Refusal> {
    let deadline = Instant::now() + FIRST_LINE_TIMEOUT;
    let first = async {
        let mut stream = open(access, stream, place).await?;
        let (line, rest) = first_line(&mut stream).await?;
        Ok::<_, Refusal>((stream, first_of(&access.token, &line)?, rest))
    };
    let late = |_| Refusal::Other("it did not authenticate in time");
    let (mut stream, first, rest) = timeout_at(deadline, first).await.map_err(late)??;
    match first {
        First::Right(id) => {
            let mut line = Vec::new();
            let client = match access.server.place() {
                Ok(client) => client,
                Err(failure) => {
                    encode_failure(Some(&id), &failure, &mut line);
                    let _ = timeout(LAST_WORD_TIMEOUT, last_word(stream, &line)).await;
                    return Ok(None);
                }
            };
            let result = Ok(Reply::Done(Done {}));
            encode_outgoing(&Outgoing::Reply { id, result }, &mut line);
            timeout(LAST_WORD_TIMEOUT, say(&mut stream, &line)).await.map_err(late)??;
            let (reader, writer) = tokio::io::split(stream);
            Ok(Some(Admitted { client, reader: Cursor::new(rest).chain(reader), writer }))
        }
        First::Wrong(id) => {
            if let Some(unlogged) = access.wrong_tokens.allow() {
                warn!(%address, unlogged, "a wrong token was shown on the interface port");
            }
            sleep(WRONG_TOKEN_DELAY).await;
            let text = "that is not this daemon's token; use the one in its state directory";
            let mut line = Vec::new();
            encode_failure(Some(&id), &Failure::new(ErrorCode::Unauthorized, text), &mut line);
            let _ = timeout(LAST_WORD_TIMEOUT, last_word(stream, &line)).await;
            Ok(None)
        }
    }
}

/// Clear text where that is allowed, or TLS with the right protocol.
async fn open(
    access: &Access,
    stream: TcpStream,
    place: &Place,
) -> Result<Box<dyn Stream>, Refusal> {
    let mut first = [0];
    match (stream.peek(&mut first).await?, first) {
        (0, _) => Err(Refusal::Other("it said nothing")),
        (_, [TLS_HANDSHAKE]) => secure(access, stream, place).await,
        (_, [b'{']) if access.clear => {
            place.speaks();
            Ok(Box::new(stream))
        }
        (_, [b'{']) => Err(Refusal::Other("it speaks clear text, and only TLS is taken here")),
        _ => Err(Refusal::Other("it does not speak the protocol")),
    }
}

async fn secure(
    access: &Access,
    stream: TcpStream,
    place: &Place,
) -> Result<Box<dyn Stream>, Refusal> {
    let mute = Mute { stream, mute: true };
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), mute).await?;
    let offered = hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == PROTOCOL));
    if !offered {
        return Err(Refusal::Other("it speaks TLS, but not for this protocol"));
    }
    // It knows of us: from here on it is told what is wrong.
    hello.io.mute = false;
    place.speaks();
    let roomy = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(RECORDS_BYTES_MAX));
    Ok(Box::new(hello.into_stream_with(Arc::clone(&access.tls), roomy).await?))
}

/// The first line, and what came with it.
async fn first_line(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Refusal> {
    // It never grows: growing would leave a copy of the token behind.
    let mut line = Zeroizing::new(Vec::with_capacity(FIRST_LINE_BYTES_MAX));
    loop {
        let room = FIRST_LINE_BYTES_MAX.saturating_sub(line.len());
        if room == 0 {
            return Err(Refusal::Other("its first line is too long"));
        }
        let room = u64::try_from(room).unwrap_or(0);
        if (&mut *stream).take(room).read_buf(&mut *line).await? == 0 {
            return Err(Refusal::Other("it said half a line"));
        }
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end);
            return Ok((line, rest.into_iter().skip(1).collect()));
        }
    }
}

/// Whether a line is the right token, or another.
fn first_of(token: &AccessToken, line: &[u8]) -> Result<First, Refusal> {
    let incoming = decode_request(line);
    match (incoming.id, incoming.request) {
        (Some(id), Ok(Request::Authenticate(shown))) => {
            let is_right = token.is(shown.token.as_str());
            Ok(if is_right { First::Right(id) } else { First::Wrong(id) })
        }
        _ => Err(Refusal::Other("it did not authenticate first")),
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> io::Result<()> {
    stream.write_all(line).await?;
    stream.flush().await
}

/// Says something so that it is heard, and closes.
async fn last_word(mut stream: impl Stream, line: &[u8]) -> io::Result<()> {
    say(&mut stream, line).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(IGNORED_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
}

/// A connection that says nothing until it may. The TLS library answers what is no TLS with an
/// alert; whoever sent that is to learn nothing.
struct Mute {
    stream: TcpStream,
    mute: bool,
}

impl AsyncRead for Mute {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Mute {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.mute {
            true => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            false => Pin::new(&mut this.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
