//! The attempts of one request: which endpoint it may go to next, and what came of the ones before. The state is owned
//! data, so that it can be stored while the request waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Spent;
use crate::clock::Clock;
use crate::metrics::{PoolMetrics, Retry};
use crate::proxy::pools::Pool;
use crate::proxy::{Reuse, UpstreamError};
use balancer_importance::{Importance, Priority};
use balancer_limiter::identity::ClientKey;
use balancer_pool::backends::{Endpoint, Lease, Snapshot, Unavailable, Wanted};
use balancer_pool::policy::CallPolicy;
use balancer_pool::queue::QueuePlace;
use balancer_pool::retry::{self, Again, Failure};
use balancer_time::Nanos;

/// See the module.
pub(in crate::proxy) struct RetryState {
    pub(super) pool: Arc<Pool>,
    /// The pool's endpoints and policy, as they were when it began, or when it last tried from the line.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) key: u64,
    /// The key that the limiter counts its client by.
    pub(super) client: ClientKey,
    /// The id of its client's key or own entry, if there is one.
    pub(super) client_id: Option<Arc<str>>,
    pub(super) importance: Importance,
    /// When it first looked for an endpoint. Sent again, it joins the line in front of what came later.
    pub(super) arrived: Nanos,
    pub(super) idempotent: bool,
    /// It can be sent again whatever happens, so it may probe whether an ejected endpoint works again.
    pub(super) may_probe: bool,
    /// How long it may take in all, in nanoseconds.
    pub(super) time: Option<Nanos>,
    pub(super) deadline: Option<Nanos>,
    /// Id of the endpoint to which the client's connection is bound.
    pub(super) bound_to: Option<u64>,
    /// Ids of the endpoints that it was sent to and that failed.
    pub(super) tried: Vec<u64>,
    /// How often it was sent again, refused connections not counted.
    pub(super) resent: u32,
    pub(super) reuse: Reuse,
    /// The last attempt, if it failed and the request is to be sent again.
    pub(super) failed_attempt: Option<FailedAttempt>,
    pub(super) wait: Option<Wait>,
    pub(super) spent: Spent,
    pub(super) now: Nanos,
}

/// A failed attempt that is not the last.
pub(super) struct FailedAttempt {
    pub failure: Failure,
    pub again: Again,
    pub at: Arc<Endpoint>,
    /// `None`: there was an answer, only not a good one.
    pub error: Option<UpstreamError>,
}

/// A request's place in the line.
pub(super) struct Wait {
    pub place: QueuePlace,
    pub until: Nanos,
    /// Whether `until` is the request's own deadline, and not the end of `queue_timeout`.
    pub until_deadline: bool,
    pub _counted: QueuedCount,
}

/// Counts a request as queued while it lives.
pub(super) struct QueuedCount {
    pub metrics: Arc<PoolMetrics>,
    pub clock: Clock,
    pub since: Nanos,
    pub priority: Priority,
    pub _one: WaitingCount,
}

/// Counts a request among those that wait in any line, until it is dropped.
pub(super) struct WaitingCount(Arc<AtomicUsize>);

impl WaitingCount {
    /// `None`: `most` wait already.
    pub fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |count: usize| (count < most).then_some(count + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(waiting)))
    }
}

impl Drop for WaitingCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for QueuedCount {
    fn drop(&mut self) {
        let waited = self.clock.now().saturating_sub(self.since);
        self.metrics.unqueued(self.priority, Duration::from_nanos(waited));
    }
}

impl RetryState {
    /// When all of the request must be over.
    pub(in crate::proxy) fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Gives it `most` nanoseconds in all, whatever `upstream.request_timeout` says. `since`: when its head was
    /// complete.
    pub(in crate::proxy) fn end_within(&mut self, most: Nanos, since: Nanos) {
        self.time = Some(most);
        self.deadline = Some(since.saturating_add(most));
    }

    /// When its endpoint was picked.
    pub(in crate::proxy) fn picked_at(&self) -> Nanos {
        self.now
    }

    /// Binds it to the endpoint of that id, if there is one.
    pub(in crate::proxy) fn bind(&mut self, endpoint: Option<u64>) {
        self.bound_to = endpoint;
    }

    /// Time-outs and bounds for calls of its endpoint.
    pub(in crate::proxy) fn call_policy(&self) -> CallPolicy {
        self.snapshot.policy().call
    }

    /// Notes a failed attempt, if the policy, the request and its deadline allow another one. False: they do not. The
    /// retry budget is asked later, by [`Self::charge`].
    pub(super) fn try_again_after(&mut self, failure: Failure, at: &Arc<Endpoint>, replayable: bool) -> bool {
        let request = retry::Request { idempotent: self.idempotent, replayable, retries_done: self.resent };
        let again = retry::again(failure, request, self.snapshot.policy().retry);
        if again == Again::No || self.deadline.is_some_and(|deadline| self.now >= deadline) {
            return false;
        }
        self.resent += u32::from(failure != Failure::Connect);
        self.tried.push(at.id);
        self.failed_attempt = Some(FailedAttempt { failure, again, at: Arc::clone(at), error: None });
        true
    }

    /// Adds the error to the failed attempt that was noted.
    pub(super) fn failed_with(&mut self, error: UpstreamError) {
        if let Some(failed_attempt) = &mut self.failed_attempt {
            failed_attempt.error = Some(error);
        }
    }

    /// Picks an endpoint: after a failed attempt another one, or the same one where only a connection was bad.
    pub(super) fn pick(&self, preferred: &[&[u8]]) -> Result<(Lease, Reuse), Unavailable> {
        let elsewhere = self.pick_untried(&self.tried, preferred).map(|lease| (lease, self.reuse));
        match (&self.failed_attempt, elsewhere) {
            (Some(FailedAttempt { again: Again::ElsewhereOrFresh, .. }), Err(why)) => {
                let fresh = self.pick_untried(self.ruled_out(), preferred).map(|lease| (lease, Reuse::Never));
                // Of the two causes `Full` is told, because then waiting helps.
                fresh.map_err(|same| if why == Unavailable::Full { why } else { same })
            }
            (_, elsewhere) => elsewhere,
        }
    }

    fn pick_untried(&self, tried: &[u64], preferred: &[&[u8]]) -> Result<Lease, Unavailable> {
        self.snapshot.pick(&self.wanted(tried, preferred))
    }

    fn wanted<'a>(&self, tried: &'a [u64], preferred: &'a [&'a [u8]]) -> Wanted<'a> {
        let may_probe = self.may_probe && self.resent < self.snapshot.policy().retry.retries;
        let Self { key, now, bound_to, .. } = *self;
        Wanted { tried, key, now, may_probe, preferred, bound_to }
    }

    /// Whether there is room that this request can't take and another might.
    pub(super) fn leaves_room(&self) -> bool {
        self.snapshot.leaves_room(&self.wanted(self.ruled_out(), &[]))
    }

    /// Whether any endpoint could take it once there is room.
    pub(super) fn has_somebody(&self) -> bool {
        self.snapshot.knows_any(&self.wanted(self.ruled_out(), &[]))
    }

    /// Ids of endpoints that it may not go to again.
    fn ruled_out(&self) -> &[u64] {
        match &self.failed_attempt {
            Some(FailedAttempt { again: Again::ElsewhereOrFresh, .. }) => &self.tried[..self.tried.len() - 1],
            _ => &self.tried,
        }
    }

    /// Takes a place in the retry budget for the attempt after a failed one, and forgets the failed one. False: there
    /// is no place.
    pub(super) fn charge(&mut self) -> bool {
        let Some(failed_attempt) = &self.failed_attempt else { return true };
        let share = self.snapshot.policy().retry_budget;
        if retry::costs(failed_attempt.failure) && !self.pool.retries.retry(share, self.now) {
            return false;
        }
        self.pool.metrics.retry(reason_of(failed_attempt.failure));
        failed_attempt.at.group.count_resent();
        self.spent.retries += 1;
        self.failed_attempt = None;
        true
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
