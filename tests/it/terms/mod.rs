//! Limits with several buckets, bounds on requests at once, rules for some requests, and what answers say about them.

mod buckets;
mod in_flight;
mod plans;
mod rules;

use serde_json::{Value, json};

use crate::support::Response;

/// A bucket that nothing flows into within a test.
pub fn bucket(name: &str, capacity: u64) -> Value {
    json!({ "name": name, "amount": capacity, "per": "1d", "capacity": capacity })
}

/// `RateLimit-Policy` and `RateLimit`.
fn fields(answer: &Response) -> (Option<&str>, Option<&str>) {
    assert!(answer.all("ratelimit").len() <= 1 && answer.all("ratelimit-policy").len() <= 1, "{answer:?}");
    (answer.field("ratelimit-policy"), answer.field("ratelimit"))
}

/// `"day";r=3`, without the time.
fn rest(answer: &Response) -> Option<&str> {
    fields(answer).1.map(|item| item.split(";t=").next().unwrap_or(item))
}

/// The policies that a refusal names.
pub fn violated(answer: &Response) -> Value {
    answer.problem(429)["violated-policies"].clone()
}
