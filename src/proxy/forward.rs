//! The second step: pick a backend, send, and again where that is safe.

mod attempt;
mod course;
mod key;
mod line;
mod refusal;
mod step;
mod sticky;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Answered, Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::clock::Clock;
use crate::error::Reject;
use crate::metrics::Metrics;
use crate::proxy::exchange::{Abort, RequestBody};
use balancer_http::fields::Fields;
use balancer_http::headers::{self, Origin};
use balancer_http::message::{Reason, RequestHead};
use balancer_limiter::identity::ClientKey;
use balancer_pool::backends::{Backends, Endpoint, Lease, Snapshot};
use balancer_pool::retry::{self, Failure};
use balancer_pool::retry_budget::RetryBudget;
use balancer_time::Nanos;
use balancer_time::nanos;

pub(super) use attempt::Flight;
use attempt::{Attempted, read};
pub(super) use course::Course;
use key::key;
use line::Unsent;
use refusal::{failed, unsent};
pub(super) use step::{Next, Received};
use sticky::{Sent, sent, set_cookie};

/// What sending needs.
pub struct Forward {
    /// Sends one request to one endpoint.
    pub upstream: Arc<dyn Upstream>,
    /// The pool.
    pub backends: Arc<Backends>,
    /// The engine's workers are free once they have an answer's head.
    pub frees_workers: bool,
    /// Most requests that may wait in line, whatever the configuration says: where they hold workers.
    pub most_waiting: usize,
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

/// What became of a request.
pub(super) enum Outcome {
    /// A backend answered.
    Answered(Forwarded),
    /// None did.
    Failed(Failed),
    /// All are full, and it waits for one that is not; or it was sent, and waits for the answer.
    Waits(Way),
}

/// How far a request is that waits, or is to go on.
pub(super) enum Way {
    /// It is with nobody.
    Before(Course),
    /// It was sent, and its answer is awaited.
    Sent(Flight),
}

/// A backend's answer, and what it took to get it.
pub(super) struct Forwarded {
    pub answered: Answered,
    /// Held until the answer is delivered.
    pub lease: Lease,
    pub effort: Effort,
    /// For a client that is to stay with that backend from now on.
    pub set_cookie: Option<String>,
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

/// How a request waits for a backend with room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Not at all.
    None,
    /// On its worker.
    Block,
    /// Put away by its frontend.
    Park,
}

impl Forward {
    /// The way of a new request, before its first step.
    pub(super) fn begin(&self, asked: &Request<'_>, snapshot: Arc<Snapshot>, in_memory: bool) -> Course {
        let policy = snapshot.policy();
        let idempotent = retry::idempotent(&asked.head.method);
        let now = self.clock.now();
        self.budget.request(now);
        Course {
            key: policy.hash_on.as_ref().map_or(0, |on| key(on, asked)),
            idempotent,
            may_probe: idempotent && in_memory,
            deadline: policy.request_timeout.map(|limit| asked.received_at.saturating_add(nanos(limit))),
            bound_to: None,
            tried: Vec::new(),
            resent: 0,
            reuse: if idempotent && in_memory { Reuse::Any } else { Reuse::Recent },
            setback: None,
            wait: None,
            effort: Effort::default(),
            now,
            snapshot,
        }
    }

    /// Sends the request until a backend answers or sending again would not be safe. `may_park`: it need not wait on its
    /// worker.
    pub(super) fn forward(
        &self,
        way: Way,
        asked: &Request<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
        may_park: bool,
    ) -> Outcome {
        let Request { head, origin, .. } = asked;
        let (mut course, mut under_way) = match way {
            Way::Before(course) => (course, None),
            Way::Sent(Flight { course, lease, awaited }) => (course, Some((lease, awaited))),
        };
        // The cookie's name must last while the course moves on.
        let sticks = course.snapshot.policy().sticky.is_some().then(|| Arc::clone(&course.snapshot));
        let sticky = sticks.as_ref().and_then(|snapshot| snapshot.policy().sticky.as_ref());
        let preferred = sticky.map_or_else(Sent::new, |sticky| sent(sticky, &head.fields));
        let mut fields = None;
        let mut found = None;
        loop {
            let (mut lease, attempt) = match under_way.take() {
                Some((lease, awaited)) => (lease, read(awaited)),
                None => {
                    let patience = patience(may_park, &*body, &course);
                    let next = found.take().map_or_else(|| self.next(&mut course, &preferred, patience), Ok);
                    let (lease, reuse) = match next {
                        Ok(next) => next,
                        Err(Unsent::Waits) => return Outcome::Waits(Way::Before(course)),
                        Err(why) => return Outcome::Failed(unsent(why, course)),
                    };
                    let outgoing = Outgoing {
                        method: &head.method,
                        target: &head.target,
                        fields: &fields.get_or_insert_with(|| Lent::of(head, origin, &lease.endpoint)).0,
                        length: head.length,
                        reuse,
                        deadline: course.deadline,
                    };
                    course.effort.backend = Some(Arc::clone(&lease.endpoint.backend));
                    let attempt =
                        self.attempt(&lease.endpoint, &outgoing, asked.protocol, body, abort, may_park);
                    (lease, attempt)
                }
            };
            let result = match attempt {
                Attempted::Sent(awaited) => {
                    return Outcome::Waits(Way::Sent(Flight { course, lease, awaited }));
                }
                Attempted::Done(result) => result,
            };
            self.conclude(&mut course, &mut lease, result.as_ref().map(Answered::status));
            match result {
                Ok(answered) => {
                    if self.frees_workers {
                        lease.free_worker();
                    }
                    found = self.after_status(&mut course, answered.status(), &lease, &preferred, &*body);
                    if found.is_none() {
                        // The answer that there is beats one that there may be.
                        let set_cookie =
                            sticky.and_then(|sticky| set_cookie(sticky, &head.fields, &lease.endpoint));
                        let effort = course.effort;
                        return Outcome::Answered(Forwarded { answered, lease, effort, set_cookie });
                    }
                    log::debug!("request {}: sent again after a {}", origin.request_id, answered.status());
                }
                Err(error) => {
                    let at = Arc::clone(&lease.endpoint);
                    // Its place may be the one that the next attempt needs.
                    drop(lease);
                    if !course.set_back(error.phase.into(), &at, is_replayable(body)) {
                        return Outcome::Failed(failed(&error, &at, course.effort));
                    }
                    log::debug!("request {}: to be sent again after {}", origin.request_id, error.cause);
                    course.failed_with(error);
                }
            }
        }
    }

    /// Whom to send it to, within the retry budget.
    fn next(
        &self,
        course: &mut Course,
        preferred: &[&[u8]],
        patience: Patience,
    ) -> Result<(Lease, Reuse), Unsent> {
        let found = self.seek(course, preferred, patience)?;
        if course.charge(self) { Ok(found) } else { Err(Unsent::OverBudget) }
    }

    /// Whom to send it to after an answer that may not be the last. Does not wait.
    fn after_status(
        &self,
        course: &mut Course,
        status: u16,
        lease: &Lease,
        preferred: &[&[u8]],
        body: &dyn RequestBody,
    ) -> Option<(Lease, Reuse)> {
        if !is_in(&course.snapshot.policy().retry_statuses, status) {
            return None;
        }
        if !course.set_back(Failure::Status, &lease.endpoint, is_replayable(body)) {
            return None;
        }
        self.next(course, preferred, Patience::None).ok()
    }
}

impl Forward {
    /// The end of a request that waited in line in vain.
    pub(super) fn out_of_patience(&self, course: Course) -> Failed {
        unsent(course.too_late(), course)
    }

    /// The end of a request whose client left before anybody was asked.
    pub(super) fn left_early(&self) -> Failed {
        let reject = Reject::new(Reason::BadRequest, "the client left");
        Failed { reject, client_gone: true, effort: Effort::default() }
    }

    /// The end of a request whose client left while its answer was awaited.
    pub(super) fn left(&self, mut course: Course, mut lease: Lease) -> Failed {
        let error = UpstreamError { phase: Phase::Cancelled, cause: "the client left".into() };
        self.conclude(&mut course, &mut lease, Err(&error));
        failed(&error, &lease.endpoint, course.effort)
    }

    /// The end of a request that waited in vain, or whose client left meanwhile.
    pub(super) fn too_late(&self, way: Way, client_gone: bool) -> Failed {
        match way {
            Way::Before(course) => Failed { client_gone, ..unsent(course.too_late(), course) },
            Way::Sent(flight) => self.give_up(flight, client_gone),
        }
    }
}

/// What streams can't be put away once it was sent: its body is not in memory.
fn patience(may_park: bool, body: &dyn RequestBody, course: &Course) -> Patience {
    match (may_park, body.buffered().is_some() || course.tried.is_empty()) {
        (false, _) => Patience::Block,
        (true, true) => Patience::Park,
        (true, false) => Patience::None,
    }
}

fn is_replayable(body: &dyn RequestBody) -> bool {
    body.buffered().is_some() || !body.consumed()
}

/// Whether a number is in one of the inclusive ranges.
fn is_in(ranges: &[(u16, u16)], number: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

thread_local! {
    static SPARE: Cell<Option<Fields>> = const { Cell::new(None) };
}

/// The fields of a request as they go to a backend, in memory that this thread lends to one request after the other.
pub(super) struct Lent(Fields);

impl Lent {
    /// Written once: a request is the same to whichever backend it goes.
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
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A thread that is ending has no place for them.
        let _ = SPARE.try_with(|spare| spare.set(Some(std::mem::take(&mut self.0))));
    }
}
