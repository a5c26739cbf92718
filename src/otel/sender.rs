//! The thread that sends spans: gathers a batch, encodes it, and posts it until the collector has it or its time is
//! over. One batch is under way at a time; what comes meanwhile waits in the queue.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, select};

use super::QUEUE;
use super::collector::{Collector, PostFault};
use super::encode::encode;
use super::outcome::Outcome;
use super::span::RequestSpans;
use crate::clock::Clock;
use crate::log::repeats::LogLimit;
use crate::metrics::{Metrics, SpanDrop};
use balancer_time::{Nanos, nanos};

/// A batch is sent once it has so many spans; its last request may bring a few more. At less than 7 KB a span it stays
/// below the 4 MiB that every collector takes.
const BATCH: u64 = 512;

/// Or once its first request has waited for so long.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// How often it looks whether there is more: each look wakes it once, where each request would.
const LOOK: Duration = Duration::from_millis(50);

/// How long one try may take.
const POST_TIME: Duration = Duration::from_secs(10);

/// How long a batch is tried again for. Later ones are worth more then.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The first pause between two tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The longest that a collector may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How long the rest may take when the collector is another one from now on.
const LAST_TIME: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct SpanSender {
    queue: Receiver<Box<RequestSpans>>,
    /// Until when the rest may be sent.
    stop: Receiver<Nanos>,
    /// What that said.
    until: Option<Nanos>,
    collector: Collector,
    /// This process's own id.
    instance: String,
    metrics: Arc<Metrics>,
    log_limit: Arc<LogLimit>,
    clock: Clock,
    /// Nothing is sent before.
    not_before: Nanos,
    /// The next pause, where the collector names none.
    pause: Duration,
    /// Why the last batch was not taken whole, and whether the log has it.
    trouble: Option<(String, bool)>,
}

/// Requests that are sent together.
#[derive(Default)]
struct Batch {
    requests: Vec<RequestSpans>,
    spans: u64,
}

impl Batch {
    fn push(&mut self, request: RequestSpans) {
        self.spans += request.count();
        self.requests.push(request);
    }
}

impl SpanSender {
    pub fn new(
        (queue, stop): (Receiver<Box<RequestSpans>>, Receiver<Nanos>),
        collector: Collector,
        instance: String,
        (metrics, log_limit): (Arc<Metrics>, Arc<LogLimit>),
        clock: Clock,
    ) -> Self {
        Self {
            queue,
            stop,
            until: None,
            collector,
            instance,
            metrics,
            log_limit,
            clock,
            not_before: 0,
            pause: FIRST_PAUSE,
            trouble: None,
        }
    }

    /// Until it is stopped, and the queue is empty or the time is over.
    pub fn run(mut self) {
        loop {
            let batch = self.gather();
            if batch.requests.is_empty() && self.until.is_some() {
                return;
            }
            if !batch.requests.is_empty() {
                self.deliver(&batch);
            }
        }
    }

    /// Waits for the first request, and then for as many as make a batch, or for a while.
    fn gather(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.until.is_none() {
            select! {
                recv(self.queue) -> request => match request {
                    Ok(request) => batch.push(*request),
                    Err(_) => self.end(),
                },
                recv(self.stop) -> until => match until {
                    Ok(until) => self.until = Some(until),
                    Err(_) => self.end(),
                },
            }
        }
        let due = self.clock.now().saturating_add(nanos(BATCH_TIME));
        loop {
            while batch.spans < BATCH {
                match self.queue.try_recv() {
                    Ok(request) => batch.push(*request),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            if batch.spans >= BATCH || self.until.is_some() || self.clock.now() >= due {
                return batch;
            }
            self.rest(LOOK);
        }
    }

    /// Nobody records for this collector any more: a reload named another one.
    fn end(&mut self) {
        self.until = Some(self.clock.now().saturating_add(nanos(LAST_TIME)));
    }

    /// Waits that long, unless it is stopped.
    fn rest(&mut self, time: Duration) {
        match self.stop.recv_timeout(time) {
            Ok(until) => self.until = Some(until),
            Err(RecvTimeoutError::Disconnected) => self.end(),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }

    fn deliver(&mut self, batch: &Batch) {
        let body = encode(&batch.requests, &self.instance);
        let give_up = self.clock.now().saturating_add(nanos(GIVE_UP));
        loop {
            let now = self.clock.now();
            if self.until.is_none() {
                // It was asked for, or a batch before this one has waited as long. Where nothing is left of that, this
                // still sees whether it is to stop.
                let left = self.not_before.saturating_sub(now);
                self.rest(Duration::from_nanos(left));
                if left > 0 {
                    continue;
                }
            }
            let deadline = now.saturating_add(nanos(POST_TIME)).min(self.until.unwrap_or(Nanos::MAX));
            if now >= deadline {
                return self.dropped(SpanDrop::Stopped, batch.spans);
            }
            let outcome = match self.collector.post(&body, deadline) {
                Ok(answer) => Outcome::of(&answer, self.clock.wall()),
                Err(PostFault::Unreachable(cause)) => Outcome::Again(cause, None),
                Err(PostFault::NotHttp(cause)) => Outcome::Refused(cause),
            };
            match outcome {
                Outcome::Taken { refused, said } => return self.taken(batch.spans, refused, said),
                Outcome::Refused(cause) => {
                    self.trouble("refuses spans", cause);
                    return self.dropped(SpanDrop::Refused, batch.spans);
                }
                Outcome::Again(cause, after) => {
                    self.trouble("does not take spans", cause);
                    self.put_off(after);
                    if self.until.is_some() {
                        return self.dropped(SpanDrop::Stopped, batch.spans);
                    }
                    if self.not_before >= give_up {
                        return self.dropped(SpanDrop::Unreachable, batch.spans);
                    }
                }
            }
        }
    }

    fn taken(&mut self, spans: u64, refused: u64, said: Option<String>) {
        let refused = refused.min(spans);
        self.metrics.spans_sent(spans - refused);
        (self.pause, self.not_before) = (FIRST_PAUSE, 0);
        if refused > 0 || said.is_some() {
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            self.trouble("takes not all spans", format!("it refused {refused} of {spans}{said}"));
            self.dropped(SpanDrop::Refused, refused);
        } else if let Some((_, true)) = self.trouble.take() {
            log::info!("otel: {} takes spans again", self.collector.url());
        }
    }

    /// Nothing is sent for a pause that doubles: between half of it and all of it, so that many instances do not come
    /// back at once. Nor for as long as the collector asks for, where that is longer: what asks for no pause at all
    /// gets one, too.
    fn put_off(&mut self, asked: Option<Duration>) {
        let own = self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let pause = asked.map_or(own, |asked| asked.min(MAX_RETRY_AFTER).max(own));
        self.not_before = self.clock.now().saturating_add(nanos(pause));
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    fn dropped(&self, why: SpanDrop, spans: u64) {
        self.metrics.spans_dropped(why, spans);
    }

    /// The operator reads a cause once, until it is another one or over.
    fn trouble(&mut self, what: &str, cause: String) {
        if self.trouble.as_ref().is_some_and(|(before, _)| *before == cause) {
            return;
        }
        let was_told = self.trouble.take().is_some_and(|(_, told)| told);
        let line = self.log_limit.admit(&format!("otel: the collector {what}"), self.clock.now());
        if let Some(suppressed) = line {
            log::warn!(
                "otel: {} {what}: {cause}; at most {QUEUE} requests wait, and balancer_otel_spans_dropped_total counts what \
                 is dropped{suppressed}",
                self.collector.url()
            );
        }
        self.trouble = Some((cause, was_told || line.is_some()));
    }
}
