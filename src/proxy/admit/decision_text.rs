//! The limiter's decision as a client reads it: rate limit fields, and the names of the policies that refused.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::config::RateLimitHeaders;
use crate::proxy::exchange::Answer;
use balancer_limiter::answer::{
    self, Concurrency, EntryKind, RateLimitFields, ShownLimit, Standing, policy_name,
};
use balancer_limiter::limiter::{Ask, Decision, MAX_ASKED, Verdict};
use balancer_limiter::terms::{BucketId, BucketName, BucketSpec, CONCURRENCY};

/// A decision in words.
pub(super) struct DecisionText {
    pub fields: RateLimitFields,
    /// The bucket that comes first in the fields.
    pub bucket: Option<BucketName>,
    /// The id of that bucket, if it belongs to a rule and not to the client's limit.
    pub of_rule: Option<BucketId>,
    /// The names of the policies that refused, for `violated-policies`.
    pub violated: Vec<Cow<'static, str>>,
}

impl DecisionText {
    pub fn of(decision: &Decision, ask: Ask<'_>, entry: EntryKind) -> Self {
        let enforced = ask.buckets().zip(decision.verdicts()).filter(|((spec, ..), _)| spec.is_enforced());
        let (names, standings): (Names<'_>, Standings<'_>) = enforced
            .map(|((spec, _, of_rule), verdict)| {
                let own = spec.name.as_str();
                let policy = if of_rule { own } else { policy_name(own, entry) };
                let Verdict { outcome, resets } = *verdict;
                ((spec, of_rule), Standing { policy, limit: spec.limit, outcome, resets })
            })
            .unzip();
        let most = ask.grant.and_then(|grant| grant.terms.max_in_flight);
        let concurrency = most.map(|most| Concurrency { most, refused: decision.crowded });
        let fields = answer::rate_limit_fields(&standings, concurrency);
        let (bucket, of_rule) = match fields.first {
            None => (None, None),
            Some(ShownLimit { bucket: None, .. }) => (Some(BucketName::concurrency()), None),
            Some(ShownLimit { bucket: Some(place), .. }) => {
                let (spec, of_rule) = names[place];
                (Some(spec.name.clone()), of_rule.then_some(spec.id))
            }
        };
        let violated = if decision.crowded {
            vec![Cow::Borrowed(CONCURRENCY)]
        } else {
            let refused = standings.iter().filter(|standing| !standing.outcome.allowed);
            refused.map(|standing| Cow::Owned(standing.policy.to_owned())).collect()
        };
        Self { fields, bucket, of_rule, violated }
    }
}

/// Buckets, and whether a rule has them.
type Names<'a> = SmallVec<[(&'a BucketSpec, bool); MAX_ASKED]>;

type Standings<'a> = SmallVec<[Standing<'a>; MAX_ASKED]>;

/// The fields that the limiter adds to an answer, whether a backend's or our own.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct LimitFields {
    told: RateLimitFields,
    headers: RateLimitHeaders,
}

impl LimitFields {
    /// `headers`: `rate_limit.headers`, which says in which forms they are sent.
    pub fn new(told: RateLimitFields, headers: RateLimitHeaders) -> Self {
        Self { told, headers }
    }

    /// Adds them behind the backend's own, which stay.
    pub fn add_to(&self, mut answer: Answer) -> Answer {
        if matches!(self.headers, RateLimitHeaders::Draft11 | RateLimitHeaders::Both) {
            for (name, value) in
                [("RateLimit-Policy", &self.told.policy), ("RateLimit", &self.told.rate_limit)]
            {
                if !value.is_empty() {
                    answer.fields.push(name, value.as_bytes());
                }
            }
        }
        if has_legacy(self.headers)
            && let Some(shown) = self.told.first
        {
            let fields = [
                ("X-RateLimit-Limit", Some(shown.quota)),
                ("X-RateLimit-Remaining", Some(shown.left)),
                ("X-RateLimit-Reset", shown.reset_s),
            ];
            for (name, value) in fields {
                if let Some(value) = value {
                    answer.fields.push(name, value.to_string().as_bytes());
                }
            }
        }
        answer
    }
}

/// Whether answers have the fields of the older form, `X-RateLimit-*`.
pub(in crate::proxy) fn has_legacy(headers: RateLimitHeaders) -> bool {
    matches!(headers, RateLimitHeaders::Legacy | RateLimitHeaders::Both)
}
