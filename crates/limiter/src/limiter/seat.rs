//! Requests at once: who is inside holds a seat, and gives it back by leaving scope, whatever way it takes.

use std::sync::Arc;

use super::{Ask, Decision, Limiter};
use crate::identity::ClientKey;
use balancer_time::Moment;

/// Counts a request as under way until it is dropped. Dropping takes one shard's lock.
#[must_use]
pub struct Seat {
    limiter: Arc<Limiter>,
    place: CountedRow,
}

/// The row in which a request is counted: its client's, or that of a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedRow {
    pub client: ClientKey,
    pub hash: u64,
}

impl Limiter {
    /// Lets a request in, or refuses it: first by the bound on requests at once, then by its buckets. Who is let in holds
    /// a seat until the request is over. Takes one shard's lock.
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
