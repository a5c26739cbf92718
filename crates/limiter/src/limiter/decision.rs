//! What a request asks of the limiter, and what it is told: values, made and read without an allocation.

use smallvec::{SmallVec, smallvec};

use super::slots::{Slot, Slots};
use crate::answer::Entry;
use crate::bucket::Outcome;
use crate::identity::Crowds;
use crate::plans::PlanNumber;
use crate::request_rules::RequestRule;
use crate::terms::{BucketSpec, MAX_BUCKETS, Terms};
use balancer_time::Moment;

/// Most buckets that an ordinary request needs tokens of: its client's and those of one rule. One whose path has several
/// readings may meet several rules, and then something is allocated.
pub const MAX_ASKED: usize = 2 * MAX_BUCKETS;

/// What is in force for a client, and what decided so. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Buckets, and the bound on requests at once.
    pub terms: Terms,
    /// Which kind of entry they come from.
    pub entry: Entry,
    /// The plan that has them.
    pub plan: Option<PlanNumber>,
}

/// What an entry, or the lack of one, comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// No limit.
    Unlimited,
    /// Never refused, whatever there is.
    Exempt,
    /// So much.
    Limited(Grant),
}

impl Granted {
    /// The limit, where there is one.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Limited(grant) => Some(grant),
            Self::Unlimited | Self::Exempt => None,
        }
    }
}

/// Where a client counts when the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// In a row of its own all the same: an entry names it, and entries bound the number of such rows.
    Own,
    /// With others.
    Shared(Crowds),
}

/// What one request needs.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's own limit.
    pub grant: Option<&'a Grant>,
    /// Rules whose buckets each give one token.
    pub rules: &'a [&'a RequestRule],
    /// Tokens of each bucket of the limit.
    pub cost: u32,
    /// Where it counts when the table is full.
    pub room: Room,
}

impl<'a> Ask<'a> {
    /// One token of each bucket of a limit. At a full table, clients without an entry count with those of the default.
    pub fn of(grant: &'a Grant) -> Self {
        let room = match grant.entry {
            Entry::Default => Room::Shared(Crowds::OF_DEFAULT),
            Entry::Client | Entry::Range => Room::Own,
        };
        Self { grant: Some(grant), rules: &[], cost: 1, room }
    }

    /// Every bucket, its cost, and whether a rule has it: those of the limit first.
    pub fn buckets(self) -> impl Iterator<Item = (&'a BucketSpec, u32, bool)> {
        let own = self.grant.map_or(&[][..], |grant| &grant.terms.buckets);
        let own = own.iter().take(MAX_BUCKETS).map(move |spec| (spec, self.cost, false));
        let of_rules = self.rules.iter().flat_map(|rule| rule.buckets().iter().take(MAX_BUCKETS));
        own.chain(of_rules.map(|spec| (spec, 1, true)))
    }

    pub(super) fn max_in_flight(self) -> Option<u32> {
        self.grant.and_then(|grant| grant.terms.max_in_flight)
    }
}

/// What one bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it had the tokens, what is left, how long to wait. With a reset the wait is the time to that, always.
    pub outcome: Outcome,
    /// It is filled at a turn of the calendar.
    pub resets: bool,
}

const UNASKED: Verdict =
    Verdict { outcome: Outcome { allowed: true, left: 0, wait_ns: None }, resets: false };

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
    pub fn first(&self) -> Outcome {
        self.verdicts[0].outcome
    }
}

impl Grant {
    /// The numbers of clients that no entry names.
    pub fn of_default(terms: Terms) -> Self {
        Self { terms, entry: Entry::Default, plan: None }
    }
}

/// By the bound on requests at once first, then by the buckets.
pub(super) fn decide(slots: &mut Slots, in_flight: u32, ask: Ask<'_>, when: Moment) -> Decision {
    let mut decision = Decision::new(ask, ask.max_in_flight().is_some_and(|most| in_flight >= most));
    if !decision.crowded {
        decision.allowed = slots.acquire(ask, when, &mut decision.verdicts);
        // Whoever was allowed was refused by none that is enforced.
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
