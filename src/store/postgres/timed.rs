//! A socket with a deadline. The `postgres` crate waits for an answer for as long as it takes, and a paused server never
//! answers, although its kernel acknowledges every keepalive. So each connection has a deadline. A read or write that is
//! pending when the deadline passes fails, and so does every later one: the store thread is free again, and the connection
//! is dropped.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::clock::Clock;
use balancer_time::Nanos;
use balancer_time::nanos;

/// When the present call on a connection must be over. Shared by the connection and its caller. Always in real time.
#[derive(Debug)]
pub struct Deadline {
    clock: Clock,
    /// 0: there is no deadline.
    at_ns: AtomicU64,
    missed: AtomicBool,
}

impl Deadline {
    /// No deadline yet.
    pub fn none() -> Arc<Self> {
        let (at_ns, missed) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { clock: Clock::real(), at_ns, missed })
    }

    /// A new stream begins. The one before may have failed, since a host with several addresses is tried at each of them.
    pub fn begin(&self, within: Duration) {
        self.missed.store(false, Ordering::Release);
        self.set(within);
    }

    /// Sets the deadline: that long from now.
    pub fn set(&self, within: Duration) {
        self.at_ns.store(self.clock.now().saturating_add(nanos(within)), Ordering::Release);
    }

    /// Removes the deadline: an idle connection has none.
    pub fn clear(&self) {
        self.at_ns.store(0, Ordering::Release);
    }

    /// Whether the deadline passed while something was pending. Then the connection can't be used any more.
    pub fn missed(&self) -> bool {
        self.missed.load(Ordering::Acquire)
    }
}

/// A stream with a [`Deadline`].
pub struct Timed<S> {
    stream: S,
    deadline: Arc<Deadline>,
    alarm: Option<(Nanos, Pin<Box<Sleep>>)>,
}

impl<S> Timed<S> {
    /// Gives the stream that deadline.
    pub fn new(stream: S, deadline: Arc<Deadline>) -> Self {
        Self { stream, deadline, alarm: None }
    }

    fn dead(&self) -> Option<io::Error> {
        self.deadline
            .missed()
            .then(|| io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time"))
    }

    /// To be called when the stream is pending: `Ready` with an error when the deadline has passed, else `Pending`, with an
    /// alarm that wakes the task at the deadline. Must run inside the runtime that the `postgres` crate has for each
    /// connection.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let at_ns = self.deadline.at_ns.load(Ordering::Acquire);
        if at_ns == 0 {
            self.alarm = None;
            return Poll::Pending;
        }
        loop {
            let left_ns = at_ns.saturating_sub(self.deadline.clock.now());
            if left_ns == 0 {
                self.deadline.missed.store(true, Ordering::Release);
                return self.dead().map_or(Poll::Pending, Poll::Ready);
            }
            let alarm = match &mut self.alarm {
                Some((at, alarm)) if *at == at_ns && !alarm.is_elapsed() => alarm,
                other => {
                    let sleep = tokio::time::sleep(Duration::from_nanos(left_ns));
                    &mut other.insert((at_ns, Box::pin(sleep))).1
                }
            };
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<S: Unpin> Timed<S> {
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Some(error) = self.dead() {
            return Poll::Ready(Err(error));
        }
        match act(Pin::new(&mut self.stream), cx) {
            Poll::Pending => self.overdue(cx).map(Err),
            done => done,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().guard(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().guard(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().guard(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().guard(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
