//! What a story tells of its attempts where it is recorded; where it is not, each of these is one look at a pointer
//! that is null.

use super::Story;
use crate::proxy::Phase;
use balancer_http::fields::Fields;
use balancer_pool::backends::Endpoint;
use balancer_time::Nanos;

impl Story {
    /// It is about to be sent to an endpoint that was picked then.
    pub(super) fn attempt_begins(&mut self, endpoint: &Endpoint, now: Nanos) {
        if let Some(trace) = &mut self.admitted.summary.trace {
            trace.sent(endpoint, self.admitted.rewritten.target.as_deref(), now);
        }
    }

    /// An answer of that status came of it, or none did.
    pub(super) fn attempt_ended(&mut self, result: Result<u16, Phase>) {
        if let Some(trace) = &mut self.admitted.summary.trace {
            trace.concluded(result.map_err(word), self.proxy.accounts.clock.now());
        }
    }

    /// The backend's span is a child of this attempt's. Before a route sets fields: it may take this one out.
    pub(super) fn trace_on(&self, fields: &mut Fields) {
        if let Some(trace) = &self.admitted.summary.trace {
            fields.set("traceparent", trace.traceparent().to_string().as_bytes());
        }
    }
}

/// Why an attempt brought no answer, in one of a few words (`error.type`).
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::ConnectTimedOut => "connect_timeout",
        Phase::Stale | Phase::Reset => "reset",
        Phase::TimedOut => "timeout",
        Phase::Malformed => "malformed",
        Phase::RequestBody(_) => "request_body",
        Phase::Cancelled => "client_gone",
        Phase::Shortage => "shortage",
    }
}
