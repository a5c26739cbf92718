//! What a limited client is told: the fields `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-11, and `Retry-After` (RFC 9110 §10.2.3).

use super::Nanos;
use super::bucket::{MICRO, Outcome};
use super::limit::Limit;

/// The name of the bucket that a limit has when its numbers were given without one.
pub const DEFAULT_BUCKET: &str = "default";

/// Which kind of entry decided about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// One for the client alone: its id, its address or its `ip:port`.
    Client,
    /// The longest range that holds the client's address.
    Range,
    /// The configured default.
    Default,
}

impl Entry {
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
pub fn policy_name(bucket: &str, entry: Entry) -> &str {
    if bucket == DEFAULT_BUCKET { entry.policy() } else { bucket }
}

/// One enforced bucket after a decision.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its policy name, see [`policy_name`].
    pub policy: &'a str,
    /// The numbers in force.
    pub limit: Limit,
    /// What it said; not allowed for those that refused.
    pub outcome: Outcome,
}

/// The fields of one answer. Values only; nothing to add where one is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitFields {
    /// `RateLimit-Policy`: every bucket.
    pub policy: String,
    /// `RateLimit`: every bucket that refused, the longest wait first; if none did, the one with the least left of
    /// its quota.
    pub rate_limit: String,
    /// `Retry-After`, in seconds: after a refusal that waiting can heal.
    pub retry_after_s: Option<u64>,
}

/// Largest Integer of structured fields (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// Long enough for one item with a short name and its parameters.
const ITEM_BYTES: usize = 48;

const MICRO_U64: u64 = MICRO as u64;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Writes the fields for the enforced buckets of one client, at most a handful. Unlimited clients have none and get
/// empty fields.
pub fn rate_limit_fields(buckets: &[Standing<'_>]) -> RateLimitFields {
    let mut fields = RateLimitFields {
        policy: String::with_capacity(ITEM_BYTES * buckets.len()),
        rate_limit: String::with_capacity(ITEM_BYTES * buckets.len()),
        retry_after_s: None,
    };
    for bucket in buckets {
        policy_item(&mut fields.policy, bucket);
    }
    if buckets.iter().all(|bucket| bucket.outcome.allowed) {
        // r/q compared without a division; the first of equals.
        let tightest = buckets.iter().min_by(|a, b| {
            let (a_side, b_side) = (left(a) * quota(b.limit), left(b) * quota(a.limit));
            a_side.cmp(&b_side)
        });
        if let Some(bucket) = tightest {
            limit_item(&mut fields.rate_limit, bucket, reset_s(bucket));
        }
        return fields;
    }
    fields.retry_after_s = refusals(&mut fields.rate_limit, buckets);
    fields
}

/// Writes every bucket that refused, and returns how long to wait for all of them.
fn refusals(out: &mut String, buckets: &[Standing<'_>]) -> Option<u64> {
    let mut refusing: Vec<&Standing<'_>> = buckets.iter().filter(|bucket| !bucket.outcome.allowed).collect();
    // `None` waits for ever. The sort is stable: equals stay in the order of their limit.
    refusing.sort_by_key(|bucket| std::cmp::Reverse(bucket.outcome.wait_ns.unwrap_or(Nanos::MAX)));
    let mut longest = Some(0);
    for bucket in refusing {
        let reset_s = reset_s(bucket);
        limit_item(out, bucket, reset_s);
        // While one of them never refills, no wait helps.
        longest = longest.zip(reset_s).map(|(one, two)| one.max(two));
    }
    longest
}

/// `"default";q=100;w=10`: the quota and the window in which it flows in.
fn policy_item(out: &mut String, bucket: &Standing<'_>) {
    name(out, bucket.policy);
    let quota = quota(bucket.limit);
    parameter(out, "q", quota);
    if quota > 0 && bucket.limit.rate.micro > 0 {
        parameter(out, "w", seconds_for(quota, bucket.limit).max(1));
    }
}

/// `"default";r=42;t=5`: what is left, and when there will be more.
fn limit_item(out: &mut String, bucket: &Standing<'_>, reset_s: Option<u64>) {
    name(out, bucket.policy);
    parameter(out, "r", left(bucket));
    if let Some(reset_s) = reset_s {
        parameter(out, "t", reset_s);
    }
}

/// The capacity, or what flows in each second when that is more. At most 10^9.
fn quota(limit: Limit) -> u64 {
    if limit.capacity == 0 {
        return 0;
    }
    let per_second = limit.rate.micro / (MICRO_U64 * per_secs(limit));
    per_second.max(u64::from(limit.capacity))
}

fn left(bucket: &Standing<'_>) -> u64 {
    u64::from(bucket.outcome.left)
}

/// Seconds until a refused request would be allowed, or until the next token when none is left, else until what is left
/// would flow in again; at least 1. `None` when nothing ever flows in.
fn reset_s(bucket: &Standing<'_>) -> Option<u64> {
    let Limit { capacity, rate } = bucket.limit;
    if capacity == 0 || rate.micro == 0 {
        return None;
    }
    if bucket.outcome.allowed && bucket.outcome.left > 0 {
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
    let mut digits = [b'0'; 15];
    let mut at = digits.len();
    let mut rest = value.min(MAX_INTEGER);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    // Digits are ASCII.
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"));
}

#[cfg(test)]
mod tests;
