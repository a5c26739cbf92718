//! Spans of requests for OpenTelemetry: a request that is recorded gathers them by itself ([`RequestTrace`]), puts them
//! into a bounded queue at its end, and one thread sends them on in batches (OTLP 1.x over HTTP, as JSON).
//!
//! What records is a loop: it waits for nothing, and what does not fit into the queue is dropped and counted. Whether a
//! request is recorded its parent says; one without a parent is (OpenTelemetry's sampler `parentbased_always_on`).

mod collector;
pub mod encode;
mod outcome;
mod recording;
mod sender;
pub mod span;
#[cfg(test)]
mod tests;
pub mod text;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, after, bounded, select};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::OtelConfig;
use crate::log::repeats::LogLimit;
use crate::metrics::{Metrics, SpanDrop};
use balancer_http::fields::Fields;
use balancer_http::headers;
use balancer_http::trace::{SAMPLED, TraceParent};
use balancer_time::{Nanos, nanos};

use collector::Collector;
pub use recording::RequestTrace;
use sender::SpanSender;
use span::RequestSpans;

/// Most requests that wait to be sent. One of them is about 1 KB, and 18 KB at most: 6 values of what a client may
/// choose, and 32 attempts.
pub const QUEUE: usize = 4_096;

/// Records requests, and sends what is known of them to one collector.
pub struct Tracer {
    queue: Sender<Box<RequestSpans>>,
    /// Until when the rest may be sent.
    stop: Sender<Nanos>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// The threads of all tracers there were: one that was replaced may still send what it has.
#[derive(Clone, Default)]
pub struct TracerThreads(Arc<Mutex<Vec<Receiver<Infallible>>>>);

impl TracerThreads {
    /// `ended` ends when the thread has.
    fn add(&self, ended: Receiver<Infallible>) {
        let mut threads = self.0.lock();
        threads.retain(|ended| ended.try_recv() == Err(TryRecvError::Empty));
        threads.push(ended);
    }

    /// Waits until all of them have ended, at most so long.
    pub fn wait(&self, most: Duration) {
        let over = after(most);
        for ended in std::mem::take(&mut *self.0.lock()) {
            select! {
                recv(ended) -> _ => {},
                recv(over) -> _ => return,
            }
        }
    }
}

impl Tracer {
    /// Starts the thread, which ends when this is dropped and all has been sent that can be, and adds it to `threads`.
    /// `instance`: this process's own id.
    ///
    /// # Errors
    /// The thread can't be had.
    pub fn start(
        config: &OtelConfig,
        instance: &str,
        threads: &TracerThreads,
        (metrics, log_limit): (&Arc<Metrics>, &Arc<LogLimit>),
        clock: &Clock,
    ) -> io::Result<Arc<Self>> {
        let ((queue, queued), (stop, stopped), (running, ended)) =
            (bounded(QUEUE), bounded(1), bounded::<Infallible>(0));
        let collector = Collector::new(config.endpoint.clone(), clock.clone());
        let sender = SpanSender::new(
            (queued, stopped),
            collector,
            instance.to_owned(),
            (Arc::clone(metrics), Arc::clone(log_limit)),
            clock.clone(),
        );
        thread::Builder::new().name("otel".into()).spawn(move || {
            sender.run();
            drop(running);
        })?;
        threads.add(ended);
        Ok(Arc::new(Self { queue, stop, metrics: Arc::clone(metrics), clock: clock.clone() }))
    }

    /// Records into a queue of that many requests which a test reads.
    #[cfg(test)]
    pub(crate) fn into_queue(
        places: usize,
        metrics: &Arc<Metrics>,
        clock: &Clock,
    ) -> (Arc<Self>, Receiver<Box<RequestSpans>>) {
        let (queue, queued) = bounded(places);
        let (metrics, clock) = (Arc::clone(metrics), clock.clone());
        (Arc::new(Self { queue, stop: bounded(1).0, metrics, clock }), queued)
    }

    /// Begins to record a request whose head was complete then; `None`: its parent says that it is not recorded.
    pub fn begin(self: &Arc<Self>, fields: &Fields, received_at: Nanos) -> Option<Box<RequestTrace>> {
        let parent = headers::traceparent(fields).and_then(TraceParent::read);
        let place = match parent {
            Some(parent) if !parent.is_sampled() => return None,
            Some(parent) => parent.with_span(new_id()),
            None => TraceParent { trace: new_trace(), span: new_id(), flags: SAMPLED },
        };
        let wall = self.clock.wall().duration_since(UNIX_EPOCH).map_or(0, nanos);
        let epoch = wall.saturating_sub(self.clock.now());
        let state = if parent.is_some() { recording::state(fields) } else { String::new() };
        let parent = parent.map(|parent| parent.span);
        Some(Box::new(RequestTrace::new(Arc::clone(self), (place, parent, state), received_at, epoch)))
    }

    /// Has the thread send the rest and end, at most `within` that time. Waits for nothing.
    pub fn stop(&self, within: Duration) {
        // Full: it was told before.
        let _ = self.stop.try_send(self.clock.now().saturating_add(nanos(within)));
    }

    /// Queues what is known of a request that has ended. Never waits.
    fn hand_over(&self, spans: Box<RequestSpans>) {
        let (why, spans) = match self.queue.try_send(spans) {
            Ok(()) => return,
            Err(TrySendError::Full(spans)) => (SpanDrop::QueueFull, spans),
            Err(TrySendError::Disconnected(spans)) => (SpanDrop::Stopped, spans),
        };
        self.metrics.spans_dropped(why, spans.count());
    }

    /// An attempt is not recorded.
    fn too_many_attempts(&self) {
        self.metrics.spans_dropped(SpanDrop::Attempts, 1);
    }
}

/// An id tells spans apart, it keeps no secret.
fn new_id() -> u64 {
    fastrand::u64(1..)
}

fn new_trace() -> u128 {
    fastrand::u128(1..)
}
