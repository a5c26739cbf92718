//! What a limited client is told: the fields `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-11, and `Retry-After` (RFC 9110 §10.2.3).

use super::bucket::{MICRO, TakeOutcome};
use super::limit::Limit;
use super::terms::{CONCURRENCY, DEFAULT_BUCKET};
use balancer_time::Nanos;

/// Which kind of entry decided about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// One for the client alone: its id, its address or its `ip:port`.
    Client,
    /// The longest range that holds the client's address.
    Range,
    /// The configured default.
    Default,
}

impl EntryKind {
    /// What a bucket named `default` is called in answers and metrics.
    pub const fn policy(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Range => "range",
            Self::Default => "default",
        }
    }
}

/// The policy name of a bucket: its own, unless that is `default`; then the kind of entry that decided.
pub fn policy_name(bucket: &str, entry: EntryKind) -> &str {
    if bucket == DEFAULT_BUCKET { entry.policy() } else { bucket }
}

/// One enforced bucket after a decision.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its policy name, see [`policy_name`].
    pub policy: &'a str,
    /// Capacity, and the rate as it was granted.
    pub limit: Limit,
    /// What it said; not allowed for those that refused.
    pub outcome: TakeOutcome,
    /// It is filled at a turn of the calendar, in [`TakeOutcome::wait_ns`], and at no other time.
    pub resets: bool,
}

/// A bound on requests at once, after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Most of them.
    pub most: u32,
    /// There were that many already: then no bucket was asked.
    pub refused: bool,
}

/// The fields of one answer. Values only; nothing to add where one is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitFields {
    /// `RateLimit-Policy`: every bucket, then the bound on requests at once.
    pub policy: String,
    /// `RateLimit`: everything that refused, the longest wait first; if nothing did, the bucket with the least left of
    /// its quota.
    pub rate_limit: String,
    /// `Retry-After`, in seconds: after a refusal that waiting can heal.
    pub retry_after_s: Option<u64>,
    /// The first item of `RateLimit`.
    pub first: Option<ShownLimit>,
}

/// What comes first in `RateLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownLimit {
    /// Which bucket, by its place among those that were given; `None`: the bound on requests at once.
    pub bucket: Option<usize>,
    /// q of its policy.
    pub quota: u64,
    /// r.
    pub left: u64,
    /// t.
    pub reset_s: Option<u64>,
}

/// Largest Integer of structured fields (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Long enough for one item with a short name and its parameters.
const ITEM_BYTES: usize = 48;

const MICRO_U64: u64 = MICRO as u64;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// How long somebody waits before the next try when too many requests are under way: any of them may end any time.
const CONCURRENCY_WAIT_S: u64 = 1;

/// Writes the fields for the enforced buckets of one client, at most a handful. Unlimited clients have none and get
/// empty fields.
pub fn rate_limit_fields(buckets: &[Standing<'_>], concurrency: Option<Concurrency>) -> RateLimitFields {
    let items = buckets.len() + usize::from(concurrency.is_some());
    let mut fields = RateLimitFields {
        policy: String::with_capacity(ITEM_BYTES * items),
        rate_limit: String::with_capacity(ITEM_BYTES),
        retry_after_s: None,
        first: None,
    };
    for bucket in buckets {
        policy_item(&mut fields.policy, bucket);
    }
    if let Some(Concurrency { most, .. }) = concurrency {
        name(&mut fields.policy, CONCURRENCY);
        parameter(&mut fields.policy, "q", most.into());
        fields.policy.push_str(";qu=\"concurrent-requests\"");
    }
    if let Some(Concurrency { most, refused: true }) = concurrency {
        let reset_s = Some(CONCURRENCY_WAIT_S);
        let shown = ShownLimit { bucket: None, quota: most.into(), left: 0, reset_s };
        limit_item(&mut fields.rate_limit, CONCURRENCY, shown);
        fields.retry_after_s = reset_s;
        fields.first = Some(shown);
    } else if buckets.iter().all(|bucket| bucket.outcome.allowed) {
        // r/q compared without a division; the first of equals.
        let tightest = buckets.iter().enumerate().min_by(|(_, a), (_, b)| {
            let (a_side, b_side) = (left(a) * quota(b), left(b) * quota(a));
            a_side.cmp(&b_side)
        });
        if let Some((place, bucket)) = tightest {
            let shown = shown(place, bucket);
            limit_item(&mut fields.rate_limit, bucket.policy, shown);
            fields.first = Some(shown);
        }
    } else {
        refusals(&mut fields, buckets);
    }
    fields
}

/// Writes every bucket that refused, and how long to wait for all of them.
fn refusals(fields: &mut RateLimitFields, buckets: &[Standing<'_>]) {
    let refused = |(_, bucket): &(usize, &Standing<'_>)| !bucket.outcome.allowed;
    let mut refusing: Vec<(usize, &Standing<'_>)> = buckets.iter().enumerate().filter(refused).collect();
    // `None` waits for ever. The sort is stable: equals stay in the order of their limit.
    refusing.sort_by_key(|(_, bucket)| std::cmp::Reverse(bucket.outcome.wait_ns.unwrap_or(Nanos::MAX)));
    let mut longest = Some(0);
    for (place, bucket) in refusing {
        let shown = shown(place, bucket);
        limit_item(&mut fields.rate_limit, bucket.policy, shown);
        fields.first.get_or_insert(shown);
        // While one of them never refills, no wait helps.
        longest = longest.zip(shown.reset_s).map(|(one, two)| one.max(two));
    }
    fields.retry_after_s = longest;
}

fn shown(place: usize, bucket: &Standing<'_>) -> ShownLimit {
    ShownLimit { bucket: Some(place), quota: quota(bucket), left: left(bucket), reset_s: reset_s(bucket) }
}

/// `"default";q=100;w=10`: the quota and the window in which it flows in, or at whose end it is there again.
fn policy_item(out: &mut String, bucket: &Standing<'_>) {
    name(out, bucket.policy);
    let quota = quota(bucket);
    parameter(out, "q", quota);
    if quota > 0 && bucket.resets {
        parameter(out, "w", per_secs(bucket.limit));
    } else if quota > 0 && bucket.limit.rate.micro > 0 {
        parameter(out, "w", seconds_for(quota, bucket.limit).max(1));
    }
}

/// `"default";r=42;t=5`: what is left, and when there will be more.
fn limit_item(out: &mut String, policy: &str, shown: ShownLimit) {
    name(out, policy);
    parameter(out, "r", shown.left);
    if let Some(reset_s) = shown.reset_s {
        parameter(out, "t", reset_s);
    }
}

/// The capacity, or what flows in each second when that is more. At most 10^9.
fn quota(bucket: &Standing<'_>) -> u64 {
    let capacity = u64::from(bucket.limit.capacity);
    if capacity == 0 || bucket.resets {
        return capacity;
    }
    let per_second = bucket.limit.rate.micro / (MICRO_U64 * per_secs(bucket.limit));
    per_second.max(capacity)
}

fn left(bucket: &Standing<'_>) -> u64 {
    u64::from(bucket.outcome.left)
}

/// Seconds until a refused request would be allowed, or until the next token when none is left, else until what is left
/// would flow in again; with a reset, until that. At least 1. `None` when waiting never helps.
fn reset_s(bucket: &Standing<'_>) -> Option<u64> {
    let Limit { capacity, rate } = bucket.limit;
    if capacity == 0 || (rate.micro == 0 && !bucket.resets) {
        return None;
    }
    if !bucket.resets && bucket.outcome.allowed && bucket.outcome.left > 0 {
        return Some(seconds_for(left(bucket), bucket.limit).max(1));
    }
    bucket.outcome.wait_ns.map(|wait_ns| wait_ns.div_ceil(NANOS_PER_SEC).max(1))
}

/// In how many seconds that many tokens (at most 10^9) flow in, rounded up. The rate is not 0.
fn seconds_for(tokens: u64, limit: Limit) -> u64 {
    match (tokens * MICRO_U64).checked_mul(per_secs(limit)) {
        Some(parts) => parts.div_ceil(limit.rate.micro),
        None => {
            let parts = u128::from(tokens * MICRO_U64) * u128::from(per_secs(limit));
            u64::try_from(parts.div_ceil(u128::from(limit.rate.micro))).unwrap_or(u64::MAX)
        }
    }
}

fn per_secs(limit: Limit) -> u64 {
    u64::from(limit.rate.per_secs.max(1))
}

/// A name as a String (RFC 9651 §3.3.3), after a comma where it is not the first of the list.
fn name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push_str(", ");
    }
    out.push('"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            // Names are checked where they are made; what could not be sent is never sent.
            _ => out.push('?'),
        }
    }
    out.push('"');
}

fn parameter(out: &mut String, key: &str, value: u64) {
    out.push(';');
    out.push_str(key);
    out.push('=');
    out.push_str(itoa::Buffer::new().format(value.min(MAX_INTEGER)));
}

#[cfg(test)]
mod tests;
