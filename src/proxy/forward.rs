//! The second step of a request: picks the endpoint to send it to, and after a failed attempt another one where sending
//! again is safe. It does no I/O: an engine sends, and tells what came of it.

mod attempt;
mod key;
mod line;
mod refusal;
mod retry_state;
mod step;
mod sticky;

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::{Phase, Reuse, UpstreamError};
use crate::clock::Clock;
use crate::error::Reject;
use crate::proxy::pools::Pool;
use balancer_http::fields::Fields;
use balancer_http::headers::{self, Origin};
use balancer_http::message::{Reason, RequestHead};
use balancer_importance::Importance;
use balancer_limiter::identity::ClientKey;
use balancer_pool::backends::{Endpoint, Lease, Snapshot};
use balancer_pool::retry;
use balancer_time::Nanos;
use balancer_time::nanos;

use key::key;
use line::Unsent;
use refusal::{failed, unsent};
pub(super) use retry_state::RetryState;
pub(super) use step::{Next, Received};

/// What picking works with, for all requests.
pub struct Forward {
    /// The engine's workers are free once they have an answer's head.
    pub frees_workers: bool,
    /// Most requests that may wait in the lines of all pools together, whatever the configuration says. A bound of the
    /// portable engine, on which each of them holds a worker.
    pub most_waiting: usize,
    /// How many wait now, in the lines of all pools.
    pub waiting: Arc<AtomicUsize>,
    /// Makes the numbers that lines count clients by. It has a random key, so that no client can choose the number of
    /// another.
    pub client_hash: RandomState,
    /// Time.
    pub clock: Clock,
}

/// A request that was admitted.
pub(super) struct ForwardRequest<'a> {
    pub head: &'a RequestHead,
    /// The client, after the walk over trusted proxies.
    pub client: IpAddr,
    /// The id of its key or of its own entry, if it has one.
    pub client_id: Option<&'a Arc<str>>,
    /// The key that the limiter counts it by.
    pub counted_as: ClientKey,
    /// How soon it gets a place in its pool when all are taken.
    pub importance: Importance,
    pub origin: Origin<'a>,
    /// When its head was complete.
    pub received_at: Nanos,
}

/// What was spent on a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    pub pool: Option<Arc<str>>,
    pub backend: Option<Arc<str>>,
    pub retries: u32,
    pub upstream_duration: Option<Duration>,
}

/// No backend answered.
pub(super) struct NoAnswer {
    pub reject: Reject,
    /// The client has left: the refusal is only logged.
    pub client_gone: bool,
    pub spent: Spent,
}

impl Forward {
    /// The state of a new request, before its first [`Forward::step`].
    pub(super) fn begin(
        &self,
        asked: &ForwardRequest<'_>,
        (pool, snapshot): (Arc<Pool>, Arc<Snapshot>),
        in_memory: bool,
    ) -> RetryState {
        let policy = snapshot.policy();
        let idempotent = retry::idempotent(&asked.head.method);
        let now = self.clock.now();
        let time = policy.request_timeout.map(nanos);
        pool.retries.request(now);
        RetryState {
            key: policy.hash_on.as_ref().map_or(0, |on| key(on, asked)),
            client: asked.counted_as,
            client_id: asked.client_id.cloned(),
            importance: asked.importance,
            arrived: now,
            idempotent,
            may_probe: idempotent && in_memory,
            time,
            deadline: time.map(|time| asked.received_at.saturating_add(time)),
            bound_to: None,
            tried: Vec::new(),
            resent: 0,
            reuse: if idempotent && in_memory { Reuse::Any } else { Reuse::Recent },
            failed_attempt: None,
            wait: None,
            spent: Spent { pool: Some(Arc::clone(pool.name())), ..Spent::default() },
            now,
            pool,
            snapshot,
        }
    }

    /// Picks an endpoint, as [`Forward::seek`] does. For another attempt after a failed one, the retry budget must have
    /// room.
    fn next(
        &self,
        state: &mut RetryState,
        preferred: &[&[u8]],
        may_wait: bool,
    ) -> Result<Option<(Lease, Reuse)>, Unsent> {
        let found = self.seek(state, preferred, may_wait)?;
        if found.is_none() || state.charge() { Ok(found) } else { Err(Unsent::OverBudget) }
    }

    /// The end of a request that waited in line in vain.
    pub(super) fn out_of_patience(&self, state: RetryState) -> NoAnswer {
        unsent(state.too_late(), state)
    }

    /// The end of a request that waited in line, and whose client left.
    pub(super) fn left_line(&self, state: RetryState) -> NoAnswer {
        NoAnswer { spent: state.spent, ..self.left_early() }
    }

    /// The end of a request whose client left before it was sent anywhere.
    pub(super) fn left_early(&self) -> NoAnswer {
        let reject = Reject::new(Reason::BadRequest, "the client left");
        NoAnswer { reject, client_gone: true, spent: Spent::default() }
    }

    /// The end of a request whose client left while its answer was awaited.
    pub(super) fn left(&self, mut state: RetryState, mut lease: Lease) -> NoAnswer {
        let error = UpstreamError { phase: Phase::Cancelled, cause: "the client left".into() };
        self.conclude(&mut state, &mut lease, Err(&error));
        let end = failed(&error, &lease.endpoint, state.spent);
        lease.end(state.now);
        end
    }
}

/// Whether a number is in one of the inclusive ranges.
fn is_in(ranges: &[(u16, u16)], number: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

thread_local! {
    static SPARE: Cell<Option<Fields>> = const { Cell::new(None) };
}

/// The fields of a request as they go to a backend, in memory that this thread lends to one request after the other.
pub(super) struct OutgoingFields(Fields);

impl OutgoingFields {
    /// The fields for that endpoint.
    pub(super) fn of(head: &RequestHead, origin: &Origin<'_>, endpoint: &Endpoint) -> Self {
        let mut fields = SPARE.take().unwrap_or_default();
        fields.clear();
        if origin.host.is_empty() {
            // HTTP/1.0 without Host: HTTP/1.1 towards the backend needs one (RFC 9112 §3.2).
            let host = endpoint.address.to_string();
            headers::to_backend(&head.fields, &Origin { host: &host, ..*origin }, &mut fields);
        } else {
            headers::to_backend(&head.fields, origin, &mut fields);
        }
        Self(fields)
    }

    /// The fields.
    pub(super) fn fields(&self) -> &Fields {
        &self.0
    }

    /// The same, to be changed.
    pub(super) fn fields_mut(&mut self) -> &mut Fields {
        &mut self.0
    }
}

impl Drop for OutgoingFields {
    fn drop(&mut self) {
        // Fails only in a thread that is ending.
        let _ = SPARE.try_with(|spare| spare.set(Some(std::mem::take(&mut self.0))));
    }
}
