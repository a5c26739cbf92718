//! The first step: who is it, and may they?

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::account::LimitRecord;
use crate::config::RateLimitHeaders;
use crate::error::{Reason, Reject};
use crate::exchange::Answer;
use crate::rules::answer::{self, Concurrency, Entry, RateLimitFields, Shown, Standing, policy_name};
use crate::rules::identity::{ClientAddress, ClientKey};
use crate::rules::terms::{BucketName, CONCURRENCY};
use crate::rules::{Moment, Nanos};
use crate::state::cache::Found;
use crate::state::heavy_hitters::HeavyHitters;
use crate::state::limiter::{Ask, Decision, Granted, Limiter, MAX_ASKED, Seat, Verdict};
use crate::state::metrics::{self, Metrics, Policy};

/// Finds the entry that decides on a client.
pub trait FindLimit: Send + Sync {
    /// Who the client counts as, and what it may. `port`: the TCP peer's, when the peer is the client. Waits at most
    /// `cache.load_timeout`.
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found;
}

/// What admission needs.
pub struct Admit {
    /// The stored limits.
    pub limits: Arc<dyn FindLimit>,
    /// The buckets.
    pub limiter: Arc<Limiter>,
    /// Who asks most and who is refused most.
    pub heavy_hitters: Arc<HeavyHitters>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What the limiter says of a request.
pub(super) struct Admission {
    /// The 429, when it may not.
    pub refused: Option<Reject>,
    /// Fields for the answer, whoever gives it.
    pub fields: LimitFields,
    /// For the log.
    pub record: Option<LimitRecord>,
    /// Whom the limiter takes the client for.
    pub client: ClientKey,
    /// Counts the request as under way, until it is dropped.
    pub seat: Option<Seat>,
}

impl Admit {
    /// Takes the tokens that the request needs, if the client has a limit. `headers`: how that stands in the answer.
    pub(super) fn admit(&self, client: &ClientAddress, when: Moment, headers: RateLimitHeaders) -> Admission {
        let found = self.limits.find(client.address, client.port, when.now);
        let admission = self.decide(&found, when, headers);
        let name = found.entry.as_ref().filter(|_| found.source == Entry::Client);
        self.heavy_hitters.count(found.client, name, admission.refused.is_some(), when.now);
        admission
    }

    fn decide(&self, found: &Found, when: Moment, headers: RateLimitHeaders) -> Admission {
        let grant = match &found.granted {
            Granted::Limited(grant) => grant,
            Granted::Exempt => return self.exempt(found),
            Granted::Unlimited => {
                self.metrics.decision(Policy::None, metrics::Decision::Allowed);
                return Admission::free(found.client, None);
            }
        };
        let ask = Ask::of(grant);
        let (decision, seat) = self.limiter.admit(found.client, ask, when);
        let entry = decision.asked(ask).grant.map_or(found.source, |grant| grant.entry);
        self.metrics.decision(policy(entry), counted(&decision));
        let told = Told::of(&decision, ask, entry);
        let record = record(found, told.bucket, decision.allowed, told.fields.first);
        let refused = (!decision.allowed).then(|| {
            let mut reject = Reject::new(Reason::QuotaExceeded, detail(&decision));
            reject.retry_after_s = told.fields.retry_after_s;
            reject.violated_policies = told.violated;
            reject
        });
        let fields = LimitFields { told: told.fields, headers };
        Admission { refused, fields, record: Some(record), client: found.client, seat }
    }

    /// Counted and never refused.
    fn exempt(&self, found: &Found) -> Admission {
        self.metrics.decision(policy(found.source), metrics::Decision::Allowed);
        Admission::free(found.client, Some(record(found, None, true, None)))
    }
}

impl Admission {
    /// Nothing was asked of any bucket.
    fn free(client: ClientKey, record: Option<LimitRecord>) -> Self {
        Self { refused: None, fields: LimitFields::default(), record, client, seat: None }
    }
}

/// A decision in words.
struct Told {
    fields: RateLimitFields,
    /// The bucket that stands first in the fields.
    bucket: Option<BucketName>,
    /// The policies that refused, the longest wait first.
    violated: Vec<Cow<'static, str>>,
}

impl Told {
    fn of(decision: &Decision, ask: Ask<'_>, entry: Entry) -> Self {
        let asked = decision.asked(ask);
        let enforced = asked.buckets().zip(decision.verdicts()).filter(|((spec, ..), _)| spec.is_enforced());
        let (names, standings): (Names<'_>, Standings<'_>) = enforced
            .map(|((spec, _, of_rule), verdict)| {
                let own = spec.name.as_str();
                let policy = if of_rule { own } else { policy_name(own, entry) };
                let Verdict { outcome, resets } = *verdict;
                (&spec.name, Standing { policy, limit: spec.limit, outcome, resets })
            })
            .unzip();
        let most = asked.grant.and_then(|grant| grant.terms.max_in_flight);
        let concurrency = most.map(|most| Concurrency { most, refused: decision.crowded });
        let fields = answer::rate_limit_fields(&standings, concurrency);
        let bucket = fields.first.map(|shown| match shown.bucket {
            Some(place) => names[place].clone(),
            None => BucketName::concurrency(),
        });
        let violated = if decision.crowded {
            vec![Cow::Borrowed(CONCURRENCY)]
        } else {
            let refused = standings.iter().filter(|standing| !standing.outcome.allowed);
            refused.map(|standing| Cow::Owned(standing.policy.to_owned())).collect()
        };
        Self { fields, bucket, violated }
    }
}

type Names<'a> = SmallVec<[&'a BucketName; MAX_ASKED]>;

type Standings<'a> = SmallVec<[Standing<'a>; MAX_ASKED]>;

fn detail(decision: &Decision) -> &'static str {
    if decision.crowded {
        "this client has as many requests under way as it may"
    } else {
        "this client's quota is used up"
    }
}

fn record(found: &Found, bucket: Option<BucketName>, allowed: bool, first: Option<Shown>) -> LimitRecord {
    LimitRecord {
        names_client: found.source == Entry::Client,
        entry: found.entry.clone(),
        bucket,
        allowed,
        remaining: first.map(|shown| shown.left),
    }
}

/// What the limiter adds to an answer, whoever gives it.
#[derive(Debug, Default)]
pub(super) struct LimitFields {
    told: RateLimitFields,
    headers: RateLimitHeaders,
}

impl LimitFields {
    /// Ours come behind a backend's own.
    pub fn add_to(&self, mut answer: Answer) -> Answer {
        if self.headers == RateLimitHeaders::Draft11 {
            for (name, value) in
                [("RateLimit-Policy", &self.told.policy), ("RateLimit", &self.told.rate_limit)]
            {
                if !value.is_empty() {
                    answer.fields.push(name, value.as_bytes());
                }
            }
        }
        answer
    }
}

fn policy(entry: Entry) -> Policy {
    match entry {
        Entry::Client => Policy::Client,
        Entry::Range => Policy::Range,
        Entry::Default => Policy::Default,
    }
}

/// Every request counts once: what only a bucket that watches would have refused is not among the allowed.
fn counted(decision: &Decision) -> metrics::Decision {
    match decision {
        Decision { allowed: false, .. } => metrics::Decision::Denied,
        Decision { shadow_denied: true, .. } => metrics::Decision::ShadowDenied,
        _ => metrics::Decision::Allowed,
    }
}
