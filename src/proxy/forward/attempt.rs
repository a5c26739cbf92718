//! One attempt at an endpoint: sent, waited for or put away until its answer comes, and what it says of that endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::course::Course;
use super::refusal::failed;
use super::{Failed, Forward, is_in};
use crate::metrics::Attempt;
use crate::proxy::exchange::{Abort, Awaitable, RequestBody};
use crate::proxy::{Answered, Awaited, Begun, Outgoing, Phase, Read, UpstreamError};
use balancer_pool::backend_state;
use balancer_pool::backends::{Ejection, Endpoint, Lease};
use balancer_time::Nanos;
use balancer_time::nanos;

/// A request that was sent and that nobody waits with for the answer.
pub(in crate::proxy) struct Flight {
    pub(super) course: Course,
    pub(super) lease: Lease,
    pub(super) awaited: Box<dyn Awaited>,
}

impl Flight {
    /// Where the answer comes.
    pub fn socket(&self) -> Awaitable<'_> {
        self.awaited.socket()
    }

    /// When it must be there.
    pub fn until(&self) -> Nanos {
        self.awaited.until()
    }
}

/// How far an attempt got.
pub(super) enum Attempted {
    /// To its end.
    Done(Result<Answered, UpstreamError>),
    /// It was sent.
    Sent(Box<dyn Awaited>),
}

impl From<Result<Answered, UpstreamError>> for Attempted {
    fn from(result: Result<Answered, UpstreamError>) -> Self {
        Self::Done(result)
    }
}

/// What has come of an answer.
pub(super) fn read(awaited: Box<dyn Awaited>) -> Attempted {
    match awaited.read() {
        Ok(Read::Later(awaited)) => Attempted::Sent(awaited),
        Ok(Read::Head(incoming)) => Ok(Answered::Http(incoming)).into(),
        Err(error) => Err(error).into(),
    }
}

impl Forward {
    /// Sends it once. `may_leave`: its answer can be awaited by others, if its body can be sent again.
    pub(super) fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        outgoing: &Outgoing<'_>,
        protocol: Option<&str>,
        body: &mut dyn RequestBody,
        abort: &Abort,
        may_leave: bool,
    ) -> Attempted {
        if let Some(protocol) = protocol {
            return self.upstream.upgrade(endpoint, outgoing, protocol, abort).into();
        }
        if !may_leave || body.buffered().is_none() {
            return self.upstream.send(endpoint, outgoing, body, abort).map(Answered::Http).into();
        }
        match self.upstream.begin(endpoint, outgoing, body, abort) {
            Ok(Begun::Sent(awaited)) => Attempted::Sent(awaited),
            Ok(Begun::Answered(incoming)) => Ok(Answered::Http(incoming)).into(),
            Err(error) => Err(error).into(),
        }
    }

    /// Lets everybody know how an attempt went that began when the course stood last.
    pub(super) fn conclude(
        &self,
        course: &mut Course,
        lease: &mut Lease,
        result: Result<u16, &UpstreamError>,
    ) {
        let began = course.now;
        course.now = self.clock.now();
        let took = course.now.saturating_sub(began);
        let spent = Duration::from_nanos(took);
        course.effort.upstream_duration = Some(spent);
        let attempt = result.map_or(Attempt::Error, Attempt::Status);
        self.metrics.backend_request(&lease.endpoint.backend, attempt, spent);
        if result.is_err_and(|error| was_hurried(course, took, error.phase)) {
            return;
        }
        if let Some(failed) = verdict(result, &course.snapshot.policy().outlier_statuses) {
            let ejection = course.snapshot.observe(lease, took, failed, course.now);
            self.tell(&lease.endpoint, ejection, result);
        }
    }

    /// The end of a request whose answer did not come in time, or whose client left meanwhile.
    pub(super) fn give_up(&self, flight: Flight, client_gone: bool) -> Failed {
        let Flight { mut course, mut lease, awaited } = flight;
        drop(awaited);
        let error = if client_gone {
            UpstreamError { phase: Phase::Cancelled, cause: "the client left".into() }
        } else {
            let cause = format!("{}: no answer's head in time", lease.endpoint.address);
            UpstreamError { phase: Phase::TimedOut, cause }
        };
        self.conclude(&mut course, &mut lease, Err(&error));
        failed(&error, &lease.endpoint, course.effort)
    }

    /// One line for each change of who is ejected, with its cause.
    fn tell(&self, endpoint: &Endpoint, ejection: Option<Ejection>, result: Result<u16, &UpstreamError>) {
        let Some(ejection) = ejection else { return };
        let last = match result {
            Ok(status) => format!("status {status}"),
            Err(error) => error.cause.clone(),
        };
        let who = backend_state::label(&endpoint.backend, Some(endpoint.address));
        let (verb, cause) = match ejection {
            Ejection::Out(time, cause) => ("is", backend_state::ejected(cause, &last, time)),
            Ejection::StaysOut(time) => ("stays", backend_state::ejected("its probe failed", &last, time)),
            Ejection::Back => {
                return log::info!("{who} is no longer ejected: its probe was answered: {last}");
            }
        };
        endpoint.set_ejected_for(&cause);
        log::warn!("{who} {verb} {cause}");
        self.metrics.ejected(&endpoint.backend);
    }
}

/// Whether it was too late because the request had spent most of its time before, in line or elsewhere: that says nothing
/// about the endpoint, and under an overload everybody would be ejected for it.
fn was_hurried(course: &Course, took: Nanos, phase: Phase) -> bool {
    let own = course.snapshot.policy().request_timeout;
    matches!(phase, Phase::TimedOut | Phase::ConnectTimedOut)
        && course.deadline.is_some_and(|deadline| course.now >= deadline)
        && own.is_some_and(|own| took < nanos(own) / 2)
}

/// Whether the endpoint failed; `None`: the attempt says nothing about it.
fn verdict(result: Result<u16, &UpstreamError>, outlier_statuses: &[(u16, u16)]) -> Option<bool> {
    match result {
        Ok(status) => Some(is_in(outlier_statuses, status)),
        Err(error) => match error.phase {
            // A kept connection that was closed meanwhile is nobody's fault, and took no time.
            Phase::RequestBody(_) | Phase::Cancelled | Phase::Stale | Phase::Shortage => None,
            Phase::Connect | Phase::ConnectTimedOut | Phase::Reset | Phase::TimedOut | Phase::Malformed => {
                Some(true)
            }
        },
    }
}
