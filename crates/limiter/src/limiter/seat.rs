//! Requests under way: each holds a [`Seat`], and is counted until that is dropped, however it ends.

use std::sync::Arc;

use super::{Ask, Decision, Limiter};
use crate::identity::ClientKey;
use balancer_time::Moment;

/// A request counts as under way until its seat is dropped. Dropping takes one shard's lock.
#[must_use]
pub struct Seat {
    limiter: Arc<Limiter>,
    place: CountedRow,
}

/// The row in which a request is counted: that of its client, or of a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedRow {
    pub client: ClientKey,
    pub hash: u64,
}

impl Limiter {
    /// Decides about a request as [`Limiter::acquire`] does. An allowed request gets a seat, to be held until it ends.
    /// Takes the same locks.
    pub fn admit(
        self: &Arc<Self>,
        client: ClientKey,
        ask: Ask<'_>,
        when: Moment,
    ) -> (Decision, Option<Seat>) {
        let (decision, place) = self.decide(client, ask, when, true);
        let seat = decision.allowed.then(|| Seat { limiter: Arc::clone(self), place });
        (decision, seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.limiter.leave(self.place);
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.place).finish()
    }
}

#[cfg(test)]
mod tests;
