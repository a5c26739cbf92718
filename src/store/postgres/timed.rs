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
    alarm: Option<Pin<Box<Sleep>>>,
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
            let sleep = tokio::time::sleep(Duration::from_nanos(left_ns));
            if self.alarm.insert(Box::pin(sleep)).as_mut().poll(cx).is_pending() {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};
    use tokio::runtime::Builder;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A stream with a deadline, and the other end of its pipe. What is written stays in its buffer until it is flushed.
    fn stream(deadline: &Arc<Deadline>) -> (Timed<BufWriter<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(64);
        (Timed::new(BufWriter::new(near), Arc::clone(deadline)), far)
    }

    /// Whether a read of the stream has to wait now.
    async fn waits(stream: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut byte = [0];
        poll_fn(|cx| {
            let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_pending())
        })
        .await
    }

    /// Runs a test, which ends also where a fault would make it wait for ever.
    fn run(test: impl Future<Output = ()>) {
        let test = async { tokio::time::timeout(Duration::from_secs(30), test).await };
        Builder::new_current_thread().enable_time().build().unwrap().block_on(test).expect("it ends");
    }

    #[test]
    fn what_waits_at_the_deadline_fails_and_so_does_everything_after_it() {
        run(async {
            let deadline = Deadline::none();
            let (mut stream, _far) = stream(&deadline);
            assert!(waits(&mut stream).await, "there is none yet");
            deadline.set(HOUR);
            assert!(waits(&mut stream).await);
            // Another deadline counts at once.
            deadline.set(Duration::from_millis(1));
            let late = [
                stream.read_u8().await.map(drop),
                stream.write_u8(1).await,
                stream.flush().await,
                stream.shutdown().await,
            ];
            for late in late {
                assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            assert!(deadline.missed());
            deadline.begin(HOUR);
            assert!(!deadline.missed() && waits(&mut stream).await, "a new stream begins");
        });
    }

    #[test]
    fn an_idle_connection_has_no_deadline() {
        run(async {
            let deadline = Deadline::none();
            let (mut stream, _far) = stream(&deadline);
            deadline.set(Duration::ZERO);
            deadline.clear();
            assert!(waits(&mut stream).await && !deadline.missed());
        });
    }

    #[test]
    fn what_is_done_in_time_is_done_by_the_stream_below() {
        run(async {
            let deadline = Deadline::none();
            let (mut stream, mut far) = stream(&deadline);
            deadline.set(HOUR);
            stream.write_u8(7).await.unwrap();
            assert!(waits(&mut far).await, "it is not flushed yet");
            stream.flush().await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), 7);
            far.write_u8(8).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 8);
            stream.shutdown().await.unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "it is closed");
        });
    }
}
