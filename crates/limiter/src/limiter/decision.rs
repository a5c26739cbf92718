//! The limiter's decision about a request. For an ordinary request it is made without an allocation.

use smallvec::{SmallVec, smallvec};

use super::ask::{Ask, MAX_ASKED, Verdict};
use super::slots::{Sharing, Slot, Slots};
use crate::bucket::TakeOutcome;
use crate::terms::BucketSpec;
use balancer_time::Moment;

const UNASKED: Verdict =
    Verdict { outcome: TakeOutcome { allowed: true, left: 0, wait_ns: None }, resets: false };

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Too many requests of the client are under way. No bucket was asked.
    pub crowded: bool,
    /// The request was allowed, but a bucket that only watches would have refused it.
    pub shadow_denied: bool,
    /// The buckets of a crowd decided.
    pub overflow: bool,
    verdicts: SmallVec<[Verdict; MAX_ASKED]>,
}

impl Decision {
    fn new(ask: Ask<'_>, crowded: bool) -> Self {
        Self {
            allowed: false,
            crowded,
            shadow_denied: false,
            overflow: false,
            verdicts: smallvec![UNASKED; MAX_ASKED.max(ask.buckets().count())],
        }
    }

    /// The same decision, made by a crowd's buckets or not.
    pub(super) fn told_by(self, overflow: bool) -> Self {
        Self { overflow, ..self }
    }

    /// What each bucket of the [`Ask`] answered, in the order of [`Ask::buckets`]. There may be more elements behind
    /// these, which mean nothing. If the bound on requests at once refused, none of them means anything.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// What the first bucket answered.
    pub fn first(&self) -> TakeOutcome {
        self.verdicts[0].outcome
    }
}

/// Decides by the bound on requests at once, and then by the buckets.
pub(super) fn decide(
    slots: &mut Slots,
    in_flight: u32,
    ask: Ask<'_>,
    when: Moment,
    sharing: Option<&mut Sharing<'_>>,
) -> Decision {
    let mut decision = Decision::new(ask, ask.max_in_flight().is_some_and(|most| in_flight >= most));
    if !decision.crowded {
        decision.allowed = match sharing {
            None => slots.acquire(ask, when, &mut decision.verdicts),
            Some(sharing) => slots.acquire_shared(ask, when, &mut decision.verdicts, sharing),
        };
        // If the request is allowed, only buckets that watch can have refused.
        decision.shadow_denied =
            decision.allowed && decision.verdicts.iter().any(|verdict| !verdict.outcome.allowed);
    }
    decision
}

/// The decision about a request that even full buckets refuse: its client needs no row, since there is nothing to
/// remember. `None`: full buckets would allow it. Allocates nothing for an ordinary request.
pub(super) fn refused_by_full(ask: Ask<'_>, when: Moment) -> Option<Decision> {
    let crowded = ask.max_in_flight() == Some(0);
    let refuses =
        |(spec, cost, _): (&BucketSpec, u32, bool)| spec.is_enforced() && cost > spec.limit.capacity;
    if !crowded && !ask.buckets().any(refuses) {
        return None;
    }
    let mut decision = Decision::new(ask, crowded);
    if !crowded {
        for (verdict, (spec, cost, of_rule)) in decision.verdicts.iter_mut().zip(ask.buckets()) {
            *verdict = Slot::full(spec, of_rule, when).verdict(cost, cost <= spec.limit.capacity, when);
        }
    }
    Some(decision)
}

#[cfg(test)]
mod tests;
