//! Waiting for a backend with room, when every one that could take a request is full.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::Forward;
use super::retry_state::{QueuedCount, RetryState, Wait, WaitingCount};
use crate::metrics::QueueRefusal;
use crate::proxy::Reuse;
use balancer_importance::Importance;
use balancer_pool::backends::{Lease, Unavailable};
use balancer_pool::fair::Who;
use balancer_pool::queue::{LineMember, LineStanding, QueueOrder, Waker};
use balancer_time::Nanos;
use balancer_time::nanos;

/// Why a request is not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// No endpoint can take it.
    Nobody,
    /// All are full, and it may wait no longer, or not at all.
    Refused(QueueRefusal),
    /// All were full until `upstream.request_timeout` was over.
    Deadline,
    /// It would be sent again, and the retry budget has no room.
    OverBudget,
}

impl Forward {
    /// Picks an endpoint. `None`: all are full, and it has taken a place in line, which its retry state holds, if it
    /// may. No request overtakes the line: one that is sent again after a failure joins it, too, in front of what its
    /// client sent later. Only a request that can't wait (`may_wait`) tries without regard to the line.
    pub(super) fn seek(
        &self,
        state: &mut RetryState,
        preferred: &[&[u8]],
        may_wait: bool,
    ) -> Result<Option<(Lease, Reuse)>, Unsent> {
        let queue = state.pool.backends.queue();
        if state.wait.is_none() && (queue.is_empty() || !may_wait) {
            match state.pick(preferred) {
                Ok((mut lease, reuse)) => {
                    if lease.is_of_few() && state.snapshot.policy().queue.order == QueueOrder::Fair {
                        lease.came_by(queue.went_straight(self.who(state)), state.now);
                    }
                    return Ok(Some((lease, reuse)));
                }
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) => {}
            }
        }
        if !may_wait {
            return Ok(None);
        }
        let mut wait = match state.wait.take() {
            Some(wait) => wait,
            None if !state.has_somebody() => return Err(Unsent::Nobody),
            None => self.join(state)?,
        };
        loop {
            match wait.place.standing() {
                LineStanding::Trying => {}
                LineStanding::Refused(why) => return Err(Unsent::Refused(why.into())),
                LineStanding::Asleep => {
                    state.wait = Some(wait);
                    return Ok(None);
                }
            }
            state.now = self.clock.now();
            if state.deadline.is_some_and(|deadline| state.now >= deadline) {
                return Err(Unsent::Deadline);
            }
            // Endpoints may have come, gone or changed while it waited.
            state.snapshot = state.pool.backends.snapshot();
            match state.pick(preferred) {
                Ok((mut lease, reuse)) => {
                    lease.came_by(wait.place.leave(lease.is_probe()), state.now);
                    return Ok(Some((lease, reuse)));
                }
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) if state.now >= wait.until => return Err(wait.too_late()),
                Err(Unavailable::Full) => {}
            }
            // `false` means that a place was freed between the try and the sleep: it is still trying, and the loop goes
            // on.
            let _ = wait.place.sleep(state.leaves_room(), state.now);
        }
    }

    /// As what the line counts a request. Made where it is asked for: most requests meet no line.
    fn who(&self, state: &RetryState) -> Who {
        let client = self.client_hash.hash_one(state.client.words());
        Who { client, priority: state.importance.priority }
    }

    fn join(&self, state: &RetryState) -> Result<Wait, Unsent> {
        let full = Unsent::Refused(QueueRefusal::Full);
        // Counted over all pools: where a waiting request holds a worker, the pools share the workers.
        let one = WaitingCount::take(&self.waiting, self.most_waiting).ok_or(full)?;
        let since = self.clock.now();
        let Importance { weight, priority } = state.importance;
        let member = LineMember {
            who: self.who(state),
            weight,
            arrived: state.arrived,
            name: state.client_id.clone().unwrap_or_else(|| state.client.to_string().into()),
        };
        let place = state.pool.backends.queue().join(member, since);
        let place = place.map_err(|why| Unsent::Refused(why.into()))?;
        let metrics = Arc::clone(&state.pool.metrics);
        metrics.queued();
        let patience = since.saturating_add(nanos(state.snapshot.policy().queue_timeout));
        let until = state.deadline.map_or(patience, |deadline| deadline.min(patience));
        let counted = QueuedCount { metrics, clock: self.clock.clone(), since, priority, _one: one };
        Ok(Wait { place, until, until_deadline: until < patience, _counted: counted })
    }
}

impl Wait {
    fn too_late(&self) -> Unsent {
        match self.place.standing() {
            LineStanding::Refused(why) => Unsent::Refused(why.into()),
            _ if self.until_deadline => Unsent::Deadline,
            _ => Unsent::Refused(QueueRefusal::Timeout),
        }
    }
}

/// A request that waits in line.
impl RetryState {
    /// When its wait ends in vain, in nanoseconds of the clock; 0 if it does not wait.
    pub fn waits_until(&self) -> Nanos {
        self.wait.as_ref().map_or(0, |wait| wait.until)
    }

    /// Whether it can go on: it is its turn, or it is refused.
    pub fn is_told(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.place.standing() != LineStanding::Asleep)
    }

    /// Has `waker` called when it can go on. False: it can already, and `waker` is dropped.
    pub fn on_turn(&self, waker: Waker) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.place.on_turn(waker))
    }

    /// Why it is refused when its wait ends in vain.
    pub(super) fn too_late(&self) -> Unsent {
        self.wait.as_ref().map_or(Unsent::Refused(QueueRefusal::Timeout), Wait::too_late)
    }
}
