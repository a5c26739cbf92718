//! What a request asks of the limiter, and what each bucket says.

use crate::answer::EntryKind;
use crate::bucket::TakeOutcome;
use crate::identity::Crowds;
use crate::importance::GivenImportance;
use crate::plans::PlanNumber;
use crate::request_rules::RequestRule;
use crate::terms::{BucketSpec, MAX_BUCKETS, Terms};
use balancer_importance::Importance;

/// Most buckets that an ordinary request needs tokens of: its client's and those of one rule. One whose path has several
/// readings may meet several rules, and then something is allocated.
pub const MAX_ASKED: usize = 2 * MAX_BUCKETS;

/// What is in force for a client, and what decided so. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Buckets, and the bound on requests at once.
    pub terms: Terms,
    /// Which kind of entry they come from.
    pub entry: EntryKind,
    /// The plan that has them.
    pub plan: Option<PlanNumber>,
    /// Each instance counts alone.
    pub per_instance: bool,
}

impl Grant {
    /// The numbers of clients that no entry names.
    pub fn of_default(terms: Terms) -> Self {
        Self { terms, entry: EntryKind::Default, plan: None, per_instance: false }
    }
}

/// What an entry, or the lack of one, comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// No limit.
    Unlimited,
    /// Never refused, whatever there is. It may have to wait for a place all the same.
    Exempt(GivenImportance),
    /// So much.
    Limited(Grant),
}

impl Granted {
    /// The limit, where there is one.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Limited(grant) => Some(grant),
            Self::Unlimited | Self::Exempt(_) => None,
        }
    }

    /// Whether it is never refused by a limit.
    pub fn is_exempt(&self) -> bool {
        matches!(self, Self::Exempt(_))
    }

    /// How important the client's requests are where they wait for a place.
    pub fn importance(&self) -> Importance {
        match self {
            Self::Limited(grant) => grant.terms.importance.in_force(),
            Self::Exempt(given) => given.in_force(),
            Self::Unlimited => Importance::default(),
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
            EntryKind::Default => Room::Shared(Crowds::OF_DEFAULT),
            EntryKind::Client | EntryKind::Range => Room::Own,
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

    /// Whether the others hear of what is taken of such a bucket.
    pub(super) fn is_shared(self, of_rule: bool) -> bool {
        of_rule || self.grant.is_some_and(|grant| !grant.per_instance)
    }

    pub(super) fn max_in_flight(self) -> Option<u32> {
        self.grant.and_then(|grant| grant.terms.max_in_flight)
    }
}

/// What one bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it had the tokens, what is left, how long to wait. With a reset the wait is the time to that, always.
    pub outcome: TakeOutcome,
    /// It is filled at a turn of the calendar.
    pub resets: bool,
}
