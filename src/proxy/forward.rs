//! The second step: pick a backend, send, and again where that is safe.

mod key;
mod refusal;
mod sticky;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Answered, Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::clock::{Clock, nanos};
use crate::error::Reject;
use crate::exchange::{Abort, RequestBody, RequestHead};
use crate::rules::Nanos;
use crate::rules::fields::Fields;
use crate::rules::headers::{self, Origin};
use crate::rules::identity::ClientKey;
use crate::rules::retry::{self, Again, Failure};
use crate::state::backends::{Backends, Ejection, Endpoint, Lease, Snapshot, Unavailable, Wanted};
use crate::state::metrics::{Attempt, Metrics, Retry};
use crate::state::retry_budget::RetryBudget;

use key::key;
use refusal::{failed, unavailable};
use sticky::sent;
pub(super) use sticky::set_cookie;

/// What sending needs.
pub struct Forward {
    /// Sends one request to one endpoint.
    pub upstream: Arc<dyn Upstream>,
    /// The pool.
    pub backends: Arc<Backends>,
    /// The engine's workers are free once they have an answer's head.
    pub frees_workers: bool,
    /// Time.
    pub clock: Clock,
    /// Bounds how much sending again adds to the load.
    pub budget: RetryBudget,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A request that was admitted.
pub(super) struct Request<'a> {
    pub head: &'a RequestHead,
    /// The pool and how to serve, from the request's beginning to its end.
    pub snapshot: &'a Arc<Snapshot>,
    /// The client, after the walk over trusted proxies.
    pub client: IpAddr,
    /// Whom the limiter takes it for.
    pub counted_as: ClientKey,
    pub origin: Origin<'a>,
    /// The protocol to go on in, should the backend agree.
    pub protocol: Option<&'a str>,
    /// When its head was complete.
    pub received_at: Nanos,
}

/// A backend's answer, and what it took to get it.
pub(super) struct Forwarded {
    pub answered: Answered,
    /// Held until the answer is delivered.
    pub lease: Lease,
    pub effort: Effort,
}

/// What was spent on a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effort {
    pub backend: Option<Arc<str>>,
    pub retries: u32,
    pub upstream_duration: Option<Duration>,
}

/// No backend answered.
pub(super) struct Failed {
    pub reject: Reject,
    /// Nobody is left to read the refusal.
    pub client_gone: bool,
    pub effort: Effort,
}

impl Forward {
    /// Sends the request until a backend answers or sending again would not be safe.
    pub(super) fn forward(
        &self,
        asked: &Request<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Forwarded, Failed> {
        let Request { head, origin, received_at, .. } = asked;
        let serving = asked.snapshot.serving();
        let idempotent = retry::idempotent(&head.method);
        let in_memory = body.buffered().is_some();
        let mut course = Course {
            forward: self,
            snapshot: asked.snapshot,
            key: serving.hash_on.as_ref().map_or(0, |on| key(on, asked)),
            preferred: serving.sticky.as_ref().and_then(|sticky| sent(sticky, &head.fields)),
            idempotent,
            may_probe: idempotent && in_memory,
            deadline: serving.request_timeout.map(|limit| received_at.saturating_add(nanos(limit))),
            tried: Vec::new(),
            resent: 0,
            effort: Effort::default(),
            now: self.clock.now(),
        };
        self.budget.request(course.now);
        let mut lease = match course.pick(&[]) {
            Ok(lease) => lease,
            Err(why) => {
                return Err(Failed { reject: unavailable(why), client_gone: false, effort: course.effort });
            }
        };
        let fields = Lent::of(head, origin, &lease);
        let mut reuse = if idempotent && in_memory { Reuse::Any } else { Reuse::Recent };
        loop {
            let outgoing = Outgoing {
                method: &head.method,
                target: &head.target,
                fields: &fields.0,
                length: head.length,
                reuse,
                deadline: course.deadline,
            };
            let result = course.attempt(&mut lease, &outgoing, asked.protocol, body, abort);
            let endpoint = Arc::clone(&lease.endpoint);
            let next = match result {
                Ok(answered) => {
                    if self.frees_workers {
                        lease.free_worker();
                    }
                    let again = is_in(&serving.retry_statuses, answered.status());
                    let next =
                        if again { course.next(Failure::Status, &endpoint, body, reuse) } else { None };
                    // The answer that there is beats one that there may be.
                    let Some(next) = next else {
                        return Ok(Forwarded { answered, lease, effort: course.effort });
                    };
                    log::debug!("request {}: sent again after a {}", origin.request_id, answered.status());
                    next
                }
                Err(error) => {
                    // Its place may be the one that the next attempt needs.
                    drop(lease);
                    let next = course.next(error.phase.into(), &endpoint, body, reuse);
                    let Some(next) = next else { return Err(failed(&error, &endpoint, course.effort)) };
                    log::debug!("request {}: sent again after {}", origin.request_id, error.cause);
                    next
                }
            };
            (lease, reuse) = next;
        }
    }

    /// One line for each change of who is ejected, with its cause.
    fn tell(
        &self,
        endpoint: &Endpoint,
        ejection: Option<Ejection>,
        result: &Result<Answered, UpstreamError>,
    ) {
        let Some(ejection) = ejection else { return };
        let who = format_args!("backend {} ({})", endpoint.backend, endpoint.address);
        let last = match result {
            Ok(answered) => format!("status {}", answered.status()),
            Err(error) => error.cause.clone(),
        };
        match ejection {
            Ejection::Out(time, cause) => {
                log::warn!("{who} is ejected for {time:?}: {cause}; the last: {last}")
            }
            Ejection::StaysOut(time) => {
                log::warn!("{who} stays ejected for {time:?}: its probe failed: {last}")
            }
            Ejection::Back => log::info!("{who} is no longer ejected: its probe was answered: {last}"),
        }
        if !matches!(ejection, Ejection::Back) {
            self.metrics.ejected(&endpoint.backend);
        }
    }
}

/// One request's way over the endpoints.
struct Course<'a> {
    forward: &'a Forward,
    snapshot: &'a Snapshot,
    key: u64,
    preferred: Option<&'a [u8]>,
    idempotent: bool,
    /// It can be sent again, whatever becomes of it: it may find out whether an endpoint is well again.
    may_probe: bool,
    deadline: Option<Nanos>,
    /// Ids of endpoints.
    tried: Vec<u64>,
    /// How often it was sent again, refused connections not counted.
    resent: u32,
    effort: Effort,
    now: Nanos,
}

impl Course<'_> {
    fn pick(&self, tried: &[u64]) -> Result<Lease, Unavailable> {
        let may_probe = self.may_probe && self.resent < self.snapshot.serving().retry.retries;
        let Self { key, now, preferred, .. } = *self;
        self.snapshot.pick(&Wanted { tried, key, now, may_probe, preferred })
    }

    /// Sends it once, and lets everybody know how that went.
    fn attempt(
        &mut self,
        lease: &mut Lease,
        outgoing: &Outgoing<'_>,
        protocol: Option<&str>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Answered, UpstreamError> {
        let forward = self.forward;
        self.effort.backend = Some(Arc::clone(&lease.endpoint.backend));
        let began = self.now;
        let result = match protocol {
            Some(protocol) => forward.upstream.upgrade(&lease.endpoint, outgoing, protocol, abort),
            None => forward.upstream.send(&lease.endpoint, outgoing, body, abort).map(Answered::Http),
        };
        self.now = forward.clock.now();
        let took = self.now.saturating_sub(began);
        let spent = Duration::from_nanos(took);
        self.effort.upstream_duration = Some(spent);
        let attempt = result.as_ref().map_or(Attempt::Error, |answered| Attempt::Status(answered.status()));
        forward.metrics.backend_request(&lease.endpoint.backend, attempt, spent);
        if let Some(failed) = verdict(&result, &self.snapshot.serving().outlier_statuses) {
            let ejection = self.snapshot.observe(lease, took, failed, self.now);
            forward.tell(&lease.endpoint, ejection, &result);
        }
        result
    }

    /// Whom to send it to after it failed there: on another endpoint, while it is safe, there is time, and the budget has
    /// room.
    fn next(
        &mut self,
        failure: Failure,
        at: &Endpoint,
        body: &dyn RequestBody,
        reuse: Reuse,
    ) -> Option<(Lease, Reuse)> {
        let (forward, serving) = (self.forward, self.snapshot.serving());
        let request = retry::Request {
            idempotent: self.idempotent,
            replayable: body.buffered().is_some() || !body.consumed(),
            retries_done: self.resent,
        };
        let again = retry::again(failure, request, serving.retry);
        if again == Again::No || self.deadline.is_some_and(|deadline| self.now >= deadline) {
            return None;
        }
        self.resent += u32::from(failure != Failure::Connect);
        self.tried.push(at.id);
        let elsewhere = self.pick(&self.tried).ok().map(|lease| (lease, reuse));
        let next = match again {
            // Only a connection was bad: with nobody else to ask, the same endpoint on a new one.
            Again::ElsewhereOrFresh => elsewhere.or_else(|| {
                let others = &self.tried[..self.tried.len() - 1];
                self.pick(others).ok().map(|lease| (lease, Reuse::Never))
            }),
            Again::Elsewhere | Again::No => elsewhere,
        };
        let next =
            next.filter(|_| !retry::costs(failure) || forward.budget.retry(serving.retry_budget, self.now));
        if next.is_some() {
            forward.metrics.retry(reason_of(failure));
            self.effort.retries += 1;
        }
        next
    }
}

/// Whether the endpoint failed; `None`: the attempt says nothing about it.
fn verdict(result: &Result<Answered, UpstreamError>, outlier_statuses: &[(u16, u16)]) -> Option<bool> {
    match result {
        Ok(answered) => Some(is_in(outlier_statuses, answered.status())),
        Err(error) => match error.phase {
            // A kept connection that was closed meanwhile is nobody's fault, and took no time.
            Phase::RequestBody(_) | Phase::Cancelled | Phase::Stale => None,
            Phase::Connect | Phase::ConnectTimedOut | Phase::Reset | Phase::TimedOut | Phase::Malformed => {
                Some(true)
            }
        },
    }
}

fn reason_of(failure: Failure) -> Retry {
    match failure {
        Failure::Connect | Failure::ConnectTimedOut => Retry::Connect,
        Failure::TimedOut => Retry::Timeout,
        Failure::Status => Retry::Status,
        Failure::Stale | Failure::Reset | Failure::Malformed | Failure::Client => Retry::Reset,
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
struct Lent(Fields);

impl Lent {
    /// Written once: a request is the same to whichever backend it goes.
    fn of(head: &RequestHead, origin: &Origin<'_>, lease: &Lease) -> Self {
        let mut fields = SPARE.take().unwrap_or_default();
        fields.clear();
        if origin.host.is_empty() {
            // HTTP/1.0 without Host: HTTP/1.1 towards the backend needs one (RFC 9112 §3.2).
            let host = lease.endpoint.address.to_string();
            headers::to_backend(&head.fields, &Origin { host: &host, ..*origin }, &mut fields);
        } else {
            headers::to_backend(&head.fields, origin, &mut fields);
        }
        Self(fields)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A thread that is ending has no place for them.
        let _ = SPARE.try_with(|spare| spare.set(Some(std::mem::take(&mut self.0))));
    }
}
