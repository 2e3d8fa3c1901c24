//! Frames on a TLS stream: reading in batches, writing in batches.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

use super::socket::{Progress, Socket};
use super::tls::Secured;
use crate::model::limits::FRAME_BYTES_MAX;
use crate::wire::{CloseReason, Frame, WireError, split_frames};

/// Bytes of frames handed over at once, and written at once.
pub(super) const BATCH_BYTES: usize = 256 * 1024;
/// Frames handed over at once: the smallest frames grow most when they are decoded.
const BATCH_FRAMES: usize = 1_024;
/// Bytes asked of TLS at once: one of its records.
const READ_BYTES: usize = 16 * 1024;
/// Bytes of a frame during the handshake, when nothing is known of the other end: more than a hello
/// with the largest record.
const HANDSHAKE_BYTES_MAX: usize = 8 * 1024;
/// Above this a buffer is given back when the link falls idle.
const IDLE_BUFFER_BYTES: usize = 4 * 1024;
/// How long a last word may take to leave, and how long we then wait for the other end to hang up.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Both directions of a connection.
pub(super) struct Channel {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

impl Channel {
    pub(super) fn new(secured: Secured) -> Self {
        let progress = secured.stream.get_ref().0.progress();
        let (read, write) = tokio::io::split(secured.stream);
        let reader = FrameReader { read, buffer: BytesMut::new() };
        Self { reader, writer: FrameWriter { write, batch: Vec::new(), written: 0, progress } }
    }

    /// Says why the connection ends, after what was being written, within [`CLOSE_TIMEOUT`].
    pub(super) async fn say_close(&mut self, reason: CloseReason, text: &str) {
        self.writer.put(&Frame::Close { reason, text: text.into() }.encode());
        // Whether it arrives is the other end's concern; ours is not to wait forever.
        let _ = timeout(CLOSE_TIMEOUT, self.writer.finish()).await;
    }

    /// Waits, at most [`CLOSE_TIMEOUT`], until the other end has taken the last word and hung up.
    pub(super) async fn linger(self) {
        let mut stream = self.reader.read.unsplit(self.writer.write);
        let (socket, _) = stream.get_mut();
        let _ = timeout(CLOSE_TIMEOUT, socket.drain()).await;
    }

    /// [`Self::say_close`], then [`Self::linger`].
    pub(super) async fn close(mut self, reason: CloseReason, text: &str) {
        self.say_close(reason, text).await;
        self.linger().await;
    }
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// The other end said why it closes.
    Close(CloseReason, Box<str>),
    /// It closed properly but without a reason.
    Eof,
    /// The connection broke.
    Lost(io::Error),
    /// What came is no frame.
    Malformed(WireError),
}

/// Frames of one read and, if it was the last, why.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: Vec<Frame>,
    pub(super) end: Option<ReadEnd>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.frames.len() >= BATCH_FRAMES || self.end.is_some()
    }
}

/// Reads frames.
pub(super) struct FrameReader {
    read: ReadHalf<TlsStream<Socket>>,
    /// What was read and is not a whole frame yet: at most one frame and one TLS record.
    buffer: BytesMut,
}

impl FrameReader {
    /// All frames that are there, at least one unless it is the end; waits for the first. May be
    /// dropped while it waits: nothing is lost.
    pub(super) async fn read_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        poll_fn(|cx| self.poll_batch(cx, &mut batch)).await;
        batch
    }

    /// One frame of a handshake.
    pub(super) async fn read_handshake_frame(&mut self) -> Result<Frame, ReadEnd> {
        loop {
            if let Some(frame) = split_frames(&mut self.buffer).map_err(ReadEnd::Malformed)? {
                return Frame::decode(frame).map_err(ReadEnd::Malformed);
            }
            if self.buffer.len() >= HANDSHAKE_BYTES_MAX {
                return Err(ReadEnd::Malformed(WireError::TooLarge("hello")));
            }
            self.buffer.reserve(HANDSHAKE_BYTES_MAX - self.buffer.len());
            match self.read.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ReadEnd::Eof),
                Ok(_) => {}
                Err(error) => return Err(ReadEnd::Lost(error)),
            }
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<()> {
        loop {
            self.take_frames(batch);
            if batch.is_full() {
                return Poll::Ready(());
            }
            self.buffer.reserve(READ_BYTES);
            let read = pin!(self.read.read_buf(&mut self.buffer)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => batch.end = Some(ReadEnd::Eof),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => batch.end = Some(ReadEnd::Lost(error)),
                Poll::Pending if batch.frames.is_empty() => {
                    self.release_idle_memory();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(()),
            }
        }
    }

    fn take_frames(&mut self, batch: &mut Batch) {
        while !batch.is_full() {
            let frame = match split_frames(&mut self.buffer) {
                Ok(Some(bytes)) => {
                    batch.bytes += 4 + bytes.len();
                    Frame::decode(bytes)
                }
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match frame {
                Ok(Frame::Close { reason, text }) => {
                    batch.end = Some(ReadEnd::Close(reason, text));
                }
                Ok(Frame::Hello(_)) => {
                    batch.end = Some(ReadEnd::Malformed(WireError::Invalid("second hello")));
                }
                Ok(frame) => batch.frames.push(frame),
                Err(error) => batch.end = Some(ReadEnd::Malformed(error)),
            }
        }
    }

    fn release_idle_memory(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BUFFER_BYTES {
            self.buffer = BytesMut::new();
        }
    }
}

/// Writes frames.
pub(super) struct FrameWriter {
    write: WriteHalf<TlsStream<Socket>>,
    /// Frames with their lengths, as one piece.
    batch: Vec<u8>,
    /// How much of the batch TLS has taken.
    written: usize,
    progress: Progress,
}

impl FrameWriter {
    /// Adds a frame to what will be written.
    pub(super) fn put(&mut self, frame: &[u8]) {
        debug_assert!((1..=FRAME_BYTES_MAX).contains(&frame.len()), "no frame has this length");
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.batch.extend_from_slice(&length.to_be_bytes());
        self.batch.extend_from_slice(frame);
    }

    /// Adds bytes that are no frame.
    #[cfg(test)]
    pub(super) fn put_raw(&mut self, bytes: &[u8]) {
        self.batch.extend_from_slice(bytes);
    }

    /// Whether a frame of this size still goes into the batch; the first always does.
    pub(super) fn has_room_for(&self, frame: &[u8]) -> bool {
        self.batch.is_empty() || self.batch.len() + 4 + frame.len() <= BATCH_BYTES
    }

    /// Hands everything to the kernel. May be dropped and called again: nothing is written twice.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.batch.get(self.written..)
            && !rest.is_empty()
        {
            self.written += self.write.write(rest).await?;
        }
        self.write.flush().await?;
        self.written = 0;
        self.batch.clear();
        Ok(())
    }

    /// [`Self::flush`], but gives up when nothing at all moves for so long.
    pub(super) async fn flush_unless_stalled(&mut self, stall: Duration) -> io::Result<()> {
        loop {
            let before = self.progress.bytes();
            match timeout(stall, self.flush()).await {
                Ok(flushed) => return flushed,
                Err(_) if self.progress.bytes() > before => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Gives a large buffer back; for when there is nothing to write.
    pub(super) fn release_idle_memory(&mut self) {
        if self.batch.is_empty() && self.batch.capacity() > IDLE_BUFFER_BYTES {
            self.batch = Vec::new();
        }
    }

    /// One frame of a handshake.
    pub(super) async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.put(&frame.encode());
        self.flush().await
    }

    /// Writes what is left and says that nothing follows.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.write.shutdown().await
    }
}

/// Runs until a deadline; `None` when it passed first.
pub(super) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    timeout_at(deadline, future).await.ok()
}
