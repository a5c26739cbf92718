//! One attempt at an endpoint, and what it says of that endpoint.

use std::time::Duration;

use super::retry_state::RetryState;
use super::{Forward, is_in};
use crate::metrics::Attempt;
use crate::proxy::pools::Pool;
use crate::proxy::{Phase, UpstreamError};
use balancer_pool::backend_state;
use balancer_pool::backends::{Ejection, Endpoint, Lease};
use balancer_time::Nanos;

impl Forward {
    /// Counts an attempt that began at `state.now`, tells the pool what it says about the endpoint, and sets
    /// `state.now` to the present.
    pub(super) fn conclude(
        &self,
        state: &mut RetryState,
        lease: &mut Lease,
        result: Result<u16, &UpstreamError>,
    ) {
        let began = state.now;
        state.now = self.clock.now();
        let took = state.now.saturating_sub(began);
        let spent = Duration::from_nanos(took);
        state.spent.upstream_duration = Some(spent);
        let attempt = result.map_or(Attempt::Error, Attempt::Status);
        state.pool.metrics.attempt(&lease.endpoint.backend, attempt, spent);
        if result.is_err_and(|error| was_hurried(state, took, error.phase)) {
            return;
        }
        if let Some(failed) = verdict(result, &state.snapshot.policy().outlier_statuses) {
            let ejection = state.snapshot.observe(lease, took, failed, state.now);
            tell(&state.pool, &lease.endpoint, ejection, result);
        }
    }
}

/// Whether an attempt ran out of time only because the request had spent more than half of its time before, in line or
/// elsewhere. That says nothing about the endpoint, and under overload it would eject every endpoint.
fn was_hurried(state: &RetryState, took: Nanos, phase: Phase) -> bool {
    matches!(phase, Phase::TimedOut | Phase::ConnectTimedOut)
        && state.deadline.is_some_and(|deadline| state.now >= deadline)
        && state.time.is_some_and(|time| took < time / 2)
}

/// Whether the endpoint failed; `None`: the attempt says nothing about it.
fn verdict(result: Result<u16, &UpstreamError>, outlier_statuses: &[(u16, u16)]) -> Option<bool> {
    match result {
        Ok(status) => Some(is_in(outlier_statuses, status)),
        Err(error) => match error.phase {
            // A kept connection that was closed meanwhile says nothing about the backend, and took no time.
            Phase::RequestBody(_) | Phase::Cancelled | Phase::Stale | Phase::Shortage => None,
            Phase::Connect | Phase::ConnectTimedOut | Phase::Reset | Phase::TimedOut | Phase::Malformed => {
                Some(true)
            }
        },
    }
}

/// Logs each ejection, and its end, with the cause.
fn tell(pool: &Pool, endpoint: &Endpoint, ejection: Option<Ejection>, result: Result<u16, &UpstreamError>) {
    let Some(ejection) = ejection else { return };
    let last = match result {
        Ok(status) => format!("status {status}"),
        Err(error) => error.cause.clone(),
    };
    let who = backend_state::label(&endpoint.group.title, Some(endpoint.address));
    let (verb, cause) = match ejection {
        Ejection::Out(time, cause) => ("is", backend_state::ejected(cause, &last, time)),
        Ejection::StaysOut(time) => ("stays", backend_state::ejected("its probe failed", &last, time)),
        Ejection::Back => {
            return log::info!("{who} is no longer ejected: its probe was answered: {last}");
        }
    };
    endpoint.set_ejected_for(&cause);
    log::warn!("{who} {verb} {cause}");
    pool.metrics.ejected(&endpoint.backend);
}
