//! A request that is recorded, while it is under way.

use std::sync::Arc;

use super::span::{AskedFor, AttemptSpan, RequestSpans};
use super::text::{bounded, path_of};
use super::{Tracer, new_id};
use balancer_http::fields::Fields;
use balancer_http::trace::TraceParent;
use balancer_pool::backends::Endpoint;
use balancer_time::Nanos;

/// Most attempts of one request that are recorded: refused connections may lead to each backend there is.
pub const MAX_ATTEMPTS: usize = 32;

/// Longest `tracestate` (W3C Trace Context §3.3.1.5: at least so much is passed on).
const MAX_STATE: usize = 512;

/// See the module.
pub struct RequestTrace {
    tracer: Arc<Tracer>,
    /// What makes a time since the epoch out of one of the clock. The same for all of a request: no span sticks out of
    /// its parent where the wall clock is set meanwhile.
    epoch: Nanos,
    spans: RequestSpans,
}

impl RequestTrace {
    /// What is not known yet is empty. `place`: the server span's own, its parent's id, and `tracestate`.
    pub(super) fn new(
        tracer: Arc<Tracer>,
        (place, parent, state): (TraceParent, Option<u64>, String),
        received_at: Nanos,
        epoch: Nanos,
    ) -> Self {
        let start = received_at.saturating_add(epoch);
        let spans = RequestSpans {
            place,
            parent,
            state,
            start,
            end: start,
            asked: AskedFor::default(),
            route: None,
            pool: None,
            sent_path: None,
            status: None,
            error: None,
            attempts: Vec::new(),
        };
        Self { tracer, epoch, spans }
    }

    /// The trace's id as logs have it: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.spans.place.trace)
    }

    /// What `traceparent` says in the attempt that is under way.
    pub fn traceparent(&self) -> TraceParent {
        let under_way = self.spans.attempts.last().filter(|attempt| attempt.result.is_none());
        under_way.map_or(self.spans.place, |attempt| self.spans.place.with_span(attempt.id))
    }

    /// The route that it goes by.
    pub fn goes_by(&mut self, path: &str, name: &Arc<str>) {
        self.spans.route = Some((bounded(path.as_bytes()), Arc::clone(name)));
    }

    /// It is sent to a backend that was picked then. `target`: what its route has made of its own one.
    pub fn sent(&mut self, to: &Endpoint, target: Option<&str>, now: Nanos) {
        let resent = self.spans.attempts.len();
        if resent == MAX_ATTEMPTS {
            return self.tracer.too_many_attempts();
        }
        if resent == 0 {
            self.spans.sent_path = target.map(path_of);
        }
        let start = self.since_epoch(now);
        self.spans.attempts.push(AttemptSpan {
            id: new_id(),
            start,
            end: start,
            to: to.address,
            host: to.group.host.clone(),
            is_secure: to.group.is_tls,
            backend: Arc::clone(&to.group.title),
            resent: u32::try_from(resent).unwrap_or(u32::MAX),
            result: None,
        });
    }

    /// What came of the attempt that is under way: the answer's status, or a word for why there is none.
    pub fn concluded(&mut self, result: Result<u16, &'static str>, now: Nanos) {
        let end = self.since_epoch(now);
        if let Some(attempt) = self.spans.attempts.last_mut().filter(|attempt| attempt.result.is_none()) {
            (attempt.end, attempt.result) = (end, Some(result));
        }
    }

    /// Its answer is ready. `status`: `None` where none is sent, since the client has left. `error`: a word where the
    /// status does not say it all.
    pub fn answered(
        &mut self,
        asked: AskedFor,
        pool: Option<&Arc<str>>,
        status: Option<u16>,
        error: Option<&'static str>,
    ) {
        (self.spans.asked, self.spans.pool) = (asked, pool.cloned());
        (self.spans.status, self.spans.error) = (status, error);
    }

    /// Its last byte was sent, or its delivery broke off for the reason that the word names. `replaced`: the status
    /// that was sent instead of its own.
    pub fn finish(mut self: Box<Self>, now: Nanos, replaced: Option<u16>, error: Option<&'static str>) {
        self.spans.end = self.since_epoch(now);
        self.spans.status = replaced.or(self.spans.status);
        self.spans.error = error.or(self.spans.error);
        let Self { tracer, spans, .. } = *self;
        tracer.hand_over(Box::new(spans));
    }

    fn since_epoch(&self, now: Nanos) -> Nanos {
        now.saturating_add(self.epoch)
    }
}

/// All of `tracestate`; empty where it is too long or not what it may be: half of a list says something else.
pub(super) fn state(fields: &Fields) -> String {
    let mut state = String::new();
    for value in fields.all("tracestate") {
        let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if !state.is_empty() {
            state.push(',');
        }
        if !is_text || state.len() + value.len() > MAX_STATE {
            return String::new();
        }
        state.extend(value.iter().copied().map(char::from));
    }
    state
}
