//! Waiting for a backend with room, when every one that could take a request is full.

use std::sync::Arc;

use super::Forward;
use super::retry_state::{QueuedCount, RetryState, Wait, WaitingCount};
use crate::proxy::Reuse;
use balancer_pool::backends::{Lease, Unavailable};
use balancer_pool::queue::Waker;
use balancer_time::Nanos;
use balancer_time::nanos;

/// Why a request is not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// No endpoint can take it.
    Nobody,
    /// All are full, and so is the line, or there is none.
    LineFull,
    /// All were full for `balancing.queue_timeout`.
    QueueTimeout,
    /// All were full until `upstream.request_timeout` was over.
    Deadline,
    /// All are full, and this request can't wait.
    Full,
    /// It was sent before, and too many are sent again.
    OverBudget,
    /// It waits; its retry state holds the place.
    Waits,
}

impl Forward {
    /// An endpoint to send it to, waited for in line if need be. New requests don't overtake those in line; a request that goes
    /// to another backend after a failure came before them, and tries first.
    pub(super) fn seek(
        &self,
        state: &mut RetryState,
        preferred: &[&[u8]],
        may_wait: bool,
    ) -> Result<(Lease, Reuse), Unsent> {
        if state.wait.is_none() && (state.failed_attempt.is_some() || state.pool.backends.queue().is_empty())
        {
            match state.pick(preferred) {
                Ok(found) => return Ok(found),
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) => {}
            }
        }
        if !may_wait {
            return Err(Unsent::Full);
        }
        let mut wait = match state.wait.take() {
            Some(wait) => wait,
            None => self.join(state)?,
        };
        loop {
            if !wait.place.may_try() {
                state.wait = Some(wait);
                return Err(Unsent::Waits);
            }
            state.now = self.clock.now();
            if state.deadline.is_some_and(|deadline| state.now >= deadline) {
                return Err(Unsent::Deadline);
            }
            // What came or changed meanwhile counts.
            state.snapshot = state.pool.backends.snapshot();
            match state.pick(preferred) {
                Ok(found) => {
                    wait.place.leave();
                    return Ok(found);
                }
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) if state.now >= wait.until => return Err(wait.too_late()),
                Err(Unavailable::Full) => {}
            }
            let choosy = !state.tried.is_empty();
            // False: something was freed between its try and its sleep.
            let _ = wait.place.sleep(choosy);
        }
    }

    fn join(&self, state: &RetryState) -> Result<Wait, Unsent> {
        let policy = state.snapshot.policy();
        // Of all pools together: what waits holds a worker there, and no pool has workers of its own.
        let one = WaitingCount::take(&self.waiting, self.most_waiting).ok_or(Unsent::LineFull)?;
        let place = state.pool.backends.queue().join(policy.queue_size).ok_or(Unsent::LineFull)?;
        let metrics = Arc::clone(&state.pool.metrics);
        metrics.queued();
        let since = self.clock.now();
        let patience = since.saturating_add(nanos(policy.queue_timeout));
        let until = state.deadline.map_or(patience, |deadline| deadline.min(patience));
        let counted = QueuedCount { metrics, clock: self.clock.clone(), since, _one: one };
        Ok(Wait { place, until, until_deadline: until < patience, _counted: counted })
    }
}

impl Wait {
    fn too_late(&self) -> Unsent {
        if self.until_deadline { Unsent::Deadline } else { Unsent::QueueTimeout }
    }
}

/// A request that waits in line.
impl RetryState {
    /// When it has waited long enough.
    pub fn waits_until(&self) -> Nanos {
        self.wait.as_ref().map_or(0, |wait| wait.until)
    }

    /// Names whom to tell that it can go on. False: it can already.
    pub fn on_turn(&self, waker: Waker) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.place.on_turn(waker))
    }

    /// Why it is given up.
    pub(super) fn too_late(&self) -> Unsent {
        self.wait.as_ref().map_or(Unsent::QueueTimeout, Wait::too_late)
    }
}
