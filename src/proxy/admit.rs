//! The first step: who is it, and may they?

use std::net::IpAddr;
use std::sync::Arc;

use super::account::LimitRecord;
use crate::config::RateLimitHeaders;
use crate::error::{Reason, Reject};
use crate::rules::Nanos;
use crate::rules::answer::{self, DEFAULT_BUCKET, Entry, RateLimitFields};
use crate::rules::identity::{ClientAddress, ClientKey};
use crate::state::cache::{Found, Source};
use crate::state::limiter::{Grant, Limiter};
use crate::state::metrics::{Decision, Metrics, Policy};

/// Finds the entry that decides on a client.
pub trait FindLimit: Send + Sync {
    /// Who the client counts as, and by which numbers. `port`: the TCP peer's, when the peer is the client. Waits at most
    /// `cache.load_timeout`.
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found;
}

/// What admission needs.
pub struct Admit {
    /// The stored limits.
    pub limits: Arc<dyn FindLimit>,
    /// The buckets.
    pub limiter: Arc<Limiter>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What the limiter says of a request.
pub(super) struct Admission {
    /// The 429, when it may not.
    pub refused: Option<Reject>,
    /// Fields for the answer, whoever gives it.
    pub fields: Option<RateLimitFields>,
    /// For the log.
    pub record: Option<LimitRecord>,
    /// Whom the limiter takes the client for.
    pub client: ClientKey,
}

impl Admit {
    /// Takes a token of the client's bucket, if it has one. `headers`: how that stands in the answer.
    pub(super) fn admit(&self, client: &ClientAddress, now: Nanos, headers: RateLimitHeaders) -> Admission {
        let found = self.limits.find(client.address, client.port, now);
        let entry = match found.source {
            Source::Client => Entry::Client,
            Source::Range => Entry::Range,
            Source::Default => Entry::Default,
        };
        let Some(limit) = found.limit else {
            self.metrics.decision(Policy::None, Decision::Allowed);
            return Admission { refused: None, fields: None, record: None, client: found.client };
        };
        let decision = self.limiter.acquire(found.client, Grant { limit, entry }, 1, now);
        let outcome = decision.outcome;
        self.metrics.decision(
            policy(decision.grant.entry),
            if outcome.allowed { Decision::Allowed } else { Decision::Denied },
        );
        let standing = decision.standing();
        let told = answer::rate_limit_fields(&[standing]);
        let refused = (!outcome.allowed).then(|| {
            let mut reject = Reject::new(Reason::QuotaExceeded, "this client's quota is used up");
            reject.retry_after_s = told.retry_after_s;
            reject.violated_policies = vec![standing.policy.into()];
            reject
        });
        let fields = (headers == RateLimitHeaders::Draft11).then_some(told);
        let record = Some(LimitRecord {
            names_client: entry == Entry::Client,
            entry: found.entry,
            bucket: DEFAULT_BUCKET,
            allowed: outcome.allowed,
            remaining: Some(outcome.left.into()),
        });
        Admission { refused, fields, record, client: found.client }
    }
}

fn policy(entry: Entry) -> Policy {
    match entry {
        Entry::Client => Policy::Client,
        Entry::Range => Policy::Range,
        Entry::Default => Policy::Default,
    }
}
