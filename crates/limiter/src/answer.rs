//! The fields that tell a client about its limit: `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-11, and `Retry-After` (RFC 9110 §10.2.3).

use super::bucket::{MICRO, TakeOutcome};
use super::limit::Limit;
use super::terms::{CONCURRENCY, DEFAULT_BUCKET};
use balancer_time::Nanos;

/// The kind of entry that decided about a client.
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
    /// The policy name of a bucket named `default`, in answers and metrics.
    pub const fn policy(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Range => "range",
            Self::Default => "default",
        }
    }
}

/// The policy name of a bucket: its own name, or [`EntryKind::policy`] if that is `default`.
pub fn policy_name(bucket: &str, entry: EntryKind) -> &str {
    if bucket == DEFAULT_BUCKET { entry.policy() } else { bucket }
}

/// One enforced bucket after a decision.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its policy name, see [`policy_name`].
    pub policy: &'a str,
    /// Capacity and rate, as they were granted.
    pub limit: Limit,
    /// The bucket's own answer: it may have allowed what another bucket refused.
    pub outcome: TakeOutcome,
    /// It is filled when a period of the calendar begins, in [`TakeOutcome::wait_ns`], and at no other time.
    pub resets: bool,
}

/// A bound on requests at once, after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Most requests at once.
    pub most: u32,
    /// There were as many already, so the request was refused and no bucket was asked.
    pub refused: bool,
}

/// The values of the fields of one answer. A field whose value is empty or `None` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitFields {
    /// `RateLimit-Policy`: every bucket, then the bound on requests at once.
    pub policy: String,
    /// `RateLimit`: everything that refused, the longest wait first; if nothing did, the bucket that has the smallest
    /// part of its quota left.
    pub rate_limit: String,
    /// `Retry-After`, in seconds; only after a refusal for which waiting helps.
    pub retry_after_s: Option<u64>,
    /// The first item of `RateLimit`.
    pub first: Option<ShownLimit>,
}

/// The first item of `RateLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownLimit {
    /// The bucket's index in the given list; `None`: the bound on requests at once.
    pub bucket: Option<usize>,
    /// The parameter q of its policy: the quota, in tokens.
    pub quota: u64,
    /// The parameter r: tokens left.
    pub left: u64,
    /// The parameter t: seconds until there are more tokens.
    pub reset_s: Option<u64>,
}

/// Largest Integer of structured fields (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Room for one item with a short name and its parameters.
const ITEM_BYTES: usize = 48;

const MICRO_U64: u64 = MICRO as u64;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `Retry-After` when too many requests are under way. Any of them may end at any time.
const CONCURRENCY_WAIT_S: u64 = 1;

/// Writes the fields for the enforced buckets of one client. A client without a limit has none, and its fields are
/// empty.
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
        // Compares r/q of two buckets without a division. Of equal ones the first counts.
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

/// Writes all buckets that refused, and how long to wait for all of them.
fn refusals(fields: &mut RateLimitFields, buckets: &[Standing<'_>]) {
    let refused = |(_, bucket): &(usize, &Standing<'_>)| !bucket.outcome.allowed;
    let mut refusing: Vec<(usize, &Standing<'_>)> = buckets.iter().enumerate().filter(refused).collect();
    // `None`: waits forever. The sort is stable, so equal ones stay in the order of their limit.
    refusing.sort_by_key(|(_, bucket)| std::cmp::Reverse(bucket.outcome.wait_ns.unwrap_or(Nanos::MAX)));
    let mut longest = Some(0);
    for (place, bucket) in refusing {
        let shown = shown(place, bucket);
        limit_item(&mut fields.rate_limit, bucket.policy, shown);
        fields.first.get_or_insert(shown);
        // If one of them never refills, waiting does not help.
        longest = longest.zip(shown.reset_s).map(|(one, two)| one.max(two));
    }
    fields.retry_after_s = longest;
}

fn shown(place: usize, bucket: &Standing<'_>) -> ShownLimit {
    ShownLimit { bucket: Some(place), quota: quota(bucket), left: left(bucket), reset_s: reset_s(bucket) }
}

/// Writes `"default";q=100;w=10`: the quota, and the window in seconds in which it flows in, or after which it is
/// filled.
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

/// Writes `"default";r=42;t=5`: what is left, and in how many seconds there is more.
fn limit_item(out: &mut String, policy: &str, shown: ShownLimit) {
    name(out, policy);
    parameter(out, "r", shown.left);
    if let Some(reset_s) = shown.reset_s {
        parameter(out, "t", reset_s);
    }
}

/// The capacity, or what flows in each second if that is more. At most 10^9.
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

/// The parameter t, at least 1. With a reset: seconds until that. After a refusal: seconds until the request would be
/// allowed. If no token is left: seconds until the next one. Otherwise: seconds in which as many tokens as are left
/// flow in. `None`: waiting never helps.
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

/// In how many seconds that many tokens (at most 10^9) flow in, rounded up. The rate must not be 0.
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

/// Writes a name as a String (RFC 9651 §3.3.3), behind a comma if it is not the first item of the list.
fn name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push_str(", ");
    }
    out.push('"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            // Never happens: names were checked when they were made. A String can't hold such a byte.
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
