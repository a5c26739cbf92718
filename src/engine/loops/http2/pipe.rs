//! Two buffers in memory between the `h2` crate and a client's connection. The loop fills one and empties the other,
//! and polls the crate in between. So the crate needs no socket, no TLS and no runtime.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of output that may wait for the client. Beyond that the crate writes no more.
const MOST_OUT: usize = 64 * 1024;

/// Both ends hold one. The lock is never waited for, since both are used by one thread.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<Buffered>>);

#[derive(Default)]
struct Buffered {
    /// Received. The crate has read it up to `at`.
    input: Vec<u8>,
    at: usize,
    /// The client sends no more.
    has_ended: bool,
    /// Written by the crate.
    out: Vec<u8>,
    /// The crate was told to wait for room.
    is_full: bool,
}

impl Pipe {
    /// Adds what came.
    pub fn feed(&self, bytes: &[u8]) {
        let mut own = self.0.lock();
        if own.at == own.input.len() {
            own.input.clear();
            own.at = 0;
        }
        own.input.extend_from_slice(bytes);
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.0.lock().has_ended = true;
    }

    /// Whether everything that came was read.
    pub fn is_drained(&self) -> bool {
        let own = self.0.lock();
        own.at == own.input.len()
    }

    /// Swaps what is to be sent with `out`, which is empty; true if the crate waited for the room.
    pub fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut own = self.0.lock();
        std::mem::swap(&mut own.out, out);
        std::mem::take(&mut own.is_full)
    }

    /// Gives memory back: an idle connection has no buffers.
    pub fn rest(&self) {
        let mut own = self.0.lock();
        if own.at == own.input.len() {
            (own.input, own.at) = (Vec::new(), 0);
        }
        if own.out.is_empty() {
            own.out = Vec::new();
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut own = self.0.lock();
        let left = &own.input[own.at..];
        if left.is_empty() {
            // The loop polls again when more has come.
            return if own.has_ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        own.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut own = self.0.lock();
        if own.out.len() >= MOST_OUT {
            own.is_full = true;
            return Poll::Pending;
        }
        own.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut own = self.0.lock();
        if own.out.len() >= MOST_OUT {
            own.is_full = true;
            return Poll::Pending;
        }
        pieces.iter().for_each(|piece| own.out.extend_from_slice(piece));
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
