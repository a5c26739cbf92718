//! What a request asks of the limiter, and what each bucket answers.

use crate::answer::EntryKind;
use crate::bucket::TakeOutcome;
use crate::identity::Crowds;
use crate::importance::GivenImportance;
use crate::plans::PlanNumber;
use crate::request_rules::RequestRule;
use crate::terms::{BucketSpec, MAX_BUCKETS, Terms};
use balancer_importance::Importance;

/// Most buckets of an ordinary request: those of its client and of one rule. A request may have more, if the readings
/// of its path meet several rules; then the limiter has to allocate.
pub const MAX_ASKED: usize = 2 * MAX_BUCKETS;

/// The limit in force for a client, and where it comes from. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Buckets, and the bound on requests at once.
    pub terms: Terms,
    /// The kind of entry that they come from.
    pub entry: EntryKind,
    /// The plan that they come from, if any.
    pub plan: Option<PlanNumber>,
    /// Each instance counts alone.
    pub per_instance: bool,
}

impl Grant {
    /// The limit of clients without an entry.
    pub fn of_default(terms: Terms) -> Self {
        Self { terms, entry: EntryKind::Default, plan: None, per_instance: false }
    }
}

/// What is granted to a client by its entry, or by the lack of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The client has no limit; rules still hold for it.
    Unlimited,
    /// The client is never refused, not even by a rule. Its requests may still have to wait for a backend.
    Exempt(GivenImportance),
    /// The client has this limit.
    Limited(Grant),
}

impl Granted {
    /// The limit, if there is one.
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Limited(grant) => Some(grant),
            Self::Unlimited | Self::Exempt(_) => None,
        }
    }

    /// Whether the client is never refused.
    pub fn is_exempt(&self) -> bool {
        matches!(self, Self::Exempt(_))
    }

    /// How important the client's requests are while they wait for a backend.
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
    /// In a row of its own all the same, since an entry names it. The number of entries bounds the number of such rows.
    Own,
    /// In one of these crowds.
    Shared(Crowds),
}

/// What one request needs.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's limit, if it has one.
    pub grant: Option<&'a Grant>,
    /// Rules; the request needs one token of each of their buckets.
    pub rules: &'a [&'a RequestRule],
    /// How many tokens it needs of each bucket of the limit.
    pub cost: u32,
    /// Where the client counts when the table is full.
    pub room: Room,
}

impl<'a> Ask<'a> {
    /// Asks for one token of each bucket of a limit. When the table is full, a client without an entry counts with a
    /// crowd of the default.
    pub fn of(grant: &'a Grant) -> Self {
        let room = match grant.entry {
            EntryKind::Default => Room::Shared(Crowds::OF_DEFAULT),
            EntryKind::Client | EntryKind::Range => Room::Own,
        };
        Self { grant: Some(grant), rules: &[], cost: 1, room }
    }

    /// All buckets, those of the limit first, each with its cost and whether it is a rule's.
    pub fn buckets(self) -> impl Iterator<Item = (&'a BucketSpec, u32, bool)> {
        let own = self.grant.map_or(&[][..], |grant| &grant.terms.buckets);
        let own = own.iter().take(MAX_BUCKETS).map(move |spec| (spec, self.cost, false));
        let of_rules = self.rules.iter().flat_map(|rule| rule.buckets().iter().take(MAX_BUCKETS));
        own.chain(of_rules.map(|spec| (spec, 1, true)))
    }

    /// Whether what is taken from such a bucket is reported to other instances.
    pub(super) fn is_shared(self, of_rule: bool) -> bool {
        of_rule || self.grant.is_some_and(|grant| !grant.per_instance)
    }

    pub(super) fn max_in_flight(self) -> Option<u32> {
        self.grant.and_then(|grant| grant.terms.max_in_flight)
    }
}

/// The answer of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it had the tokens, what is left, how long to wait. With a reset the wait is always the time until that.
    pub outcome: TakeOutcome,
    /// The bucket is filled when a period of the calendar begins.
    pub resets: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Rate};

    #[test]
    fn only_who_is_exempt_is_never_refused() {
        let grant = Grant::of_default(Terms::of_numbers(Limit { capacity: 1, rate: Rate::per_second(0) }));
        for (granted, has_limit, is_exempt) in [
            (Granted::Unlimited, false, false),
            (Granted::Exempt(GivenImportance::default()), false, true),
            (Granted::Limited(grant), true, false),
        ] {
            assert_eq!(
                (granted.grant().is_some(), granted.is_exempt()),
                (has_limit, is_exempt),
                "{granted:?}"
            );
        }
    }
}
