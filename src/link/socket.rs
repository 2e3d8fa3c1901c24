//! A TCP socket that reads much at once and counts what it writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes asked of the kernel at once. The TLS library above reads 4 KiB at a time; without this
/// buffer each of those reads would be a system call. Zeroed memory is not touched until used, so
/// an idle link costs next to nothing.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A connected TCP socket under TLS.
pub(super) struct Socket {
    tcp: TcpStream,
    buffer: Vec<u8>,
    /// Where unread bytes begin and end in `buffer`.
    start: usize,
    end: usize,
    progress: Progress,
}

/// Bytes that the kernel has taken so far: tells a slow neighbour from a dead one.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.0.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        // Frames are coalesced before they are written: waiting for more would only delay them. A
        // socket that refuses the option still works.
        let _ = tcp.set_nodelay(true);
        let buffer = vec![0; READ_BUFFER_BYTES];
        Self { tcp, buffer, start: 0, end: 0, progress: Progress::default() }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads and forgets until the other end hangs up. Closing a socket that has unread bytes would
    /// reset the connection and could destroy a last word that is still on its way.
    pub(super) async fn drain(&mut self) {
        loop {
            match self.tcp.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            let mut space = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut space))?;
            (this.start, this.end) = (0, space.filled().len());
        }
        let unread = this.buffer.get(this.start..this.end).unwrap_or_default();
        let taken = unread.len().min(out.remaining());
        out.put_slice(unread.get(..taken).unwrap_or_default());
        this.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, bytes);
        this.progress.add(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, slices);
        this.progress.add(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
