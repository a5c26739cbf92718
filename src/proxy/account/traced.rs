//! The end of a request that is recorded. Of its head goes into a span what [`AskedFor`] names, and nothing else.

use std::sync::Arc;

use super::{BAD_GATEWAY, RequestSummary};
use crate::otel::RequestTrace;
use crate::otel::Tracer;
use crate::otel::span::AskedFor;
use crate::otel::text::{bounded, path_of};
use crate::proxy::exchange::DeliveryOutcome;
use balancer_http::fields::Fields;
use balancer_http::message::{RequestHead, Version};
use balancer_time::Nanos;

/// The word of a request whose client did not wait for all of its answer.
const CLIENT_GONE: &str = "client_gone";
/// The word of one whose answer the backend did not end.
const BROKE_OFF: &str = "backend_broke_off";

impl RequestSummary {
    /// Has it recorded, where that is wanted. Its trace is known from then on, also when it began here.
    pub(in crate::proxy) fn record(&mut self, tracer: Option<&Arc<Tracer>>, fields: &Fields) {
        if let Some(trace) = tracer.and_then(|tracer| tracer.begin(fields, self.received_at)) {
            self.ids.trace_id = trace.trace_id();
            self.trace = Some(trace);
        }
    }
}

/// Its answer is ready, with that status.
pub(super) fn answered(
    mut trace: Box<RequestTrace>,
    head: &RequestHead,
    summary: &RequestSummary,
    status: u16,
) -> Box<RequestTrace> {
    let version = match head.version {
        // The target is taken apart when the version has been read.
        _ if head.target.is_empty() => None,
        Version::Http10 => Some("1.0"),
        Version::Http11 => Some("1.1"),
        Version::Http2 => Some("2"),
    };
    let asked = AskedFor {
        method: bounded(head.method.as_bytes()),
        path: path_of(&head.target),
        host: head.host.as_deref().map(|host| bounded(host.as_bytes())),
        is_secure: head.secure.is_some(),
        version,
        client: Some(summary.client_addr),
        peer: Some(head.peer),
        agent: bounded(head.fields.get("User-Agent").unwrap_or_default()),
    };
    let (status, error) =
        if summary.client_gone { (None, Some(CLIENT_GONE)) } else { (Some(status), summary.cause_word) };
    trace.answered(asked, summary.spent.pool.as_ref(), status, error);
    trace
}

/// How its delivery ended.
pub(super) fn delivered(trace: Box<RequestTrace>, delivery: &DeliveryOutcome, now: Nanos) {
    let (replaced, error) = match delivery {
        DeliveryOutcome::Complete => (None, None),
        DeliveryOutcome::ClientGone => (None, Some(CLIENT_GONE)),
        DeliveryOutcome::BackendBroke(_) => (None, Some(BROKE_OFF)),
        DeliveryOutcome::Replaced(_) => (Some(BAD_GATEWAY), Some(BROKE_OFF)),
    };
    trace.finish(now, replaced, error);
}
