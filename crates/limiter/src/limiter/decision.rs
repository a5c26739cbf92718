//! What a request is told, and how that is found: made and read without an allocation.

use smallvec::{SmallVec, smallvec};

use super::ask::{Ask, MAX_ASKED, Verdict};
use super::slots::{Sharing, Slot, Slots};
use crate::bucket::TakeOutcome;
use crate::terms::BucketSpec;
use balancer_time::Moment;

const UNASKED: Verdict =
    Verdict { outcome: TakeOutcome { allowed: true, left: 0, wait_ns: None }, resets: false };

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Too many requests of the client are under way; no bucket was asked.
    pub crowded: bool,
    /// The request was allowed, and a bucket that only watches would have refused it.
    pub shadow_denied: bool,
    /// A shared overflow bucket decided.
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

    /// By a crowd's buckets, or not.
    pub(super) fn told_by(self, overflow: bool) -> Self {
        Self { overflow, ..self }
    }

    /// What each bucket of the [`Ask`] said, in its order, and more that say nothing; all of them say nothing when
    /// the request was refused by the bound on requests at once.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// What the first bucket said.
    pub fn first(&self) -> TakeOutcome {
        self.verdicts[0].outcome
    }
}

/// By the bound on requests at once first, then by the buckets.
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
        // An allowed request was refused by no bucket that is enforced.
        decision.shadow_denied =
            decision.allowed && decision.verdicts.iter().any(|verdict| !verdict.outcome.allowed);
    }
    decision
}

/// What a client without a row hears whom even full buckets refuse: there is nothing to remember of it, so it needs no row.
/// `None`: full buckets would let it pass. Allocates nothing.
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
