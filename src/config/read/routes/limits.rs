//! `limit` and `buckets`: what each request by a route needs a token of, beside its client's limit.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::read::terms;
use crate::config::words;
use crate::declare::{Section, Spec};
use balancer_limiter::request_rules::{Effect, RequestRule};
use balancer_limiter::terms::{BucketId, BucketName, BucketSpec};

/// Buckets with names, each with the route that named it first.
#[derive(Default)]
pub(super) struct SharedBuckets(HashMap<BucketName, (Arc<RequestRule>, String)>);

/// One rule for each bucket. `name` is the route's, if that is known.
pub(super) fn rules(
    s: &mut Section<'_>,
    name: Option<&str>,
    shared: &mut SharedBuckets,
) -> Vec<Arc<RequestRule>> {
    let about = "One bucket for each client, beside those of its own limit.";
    let limit = s.text(&Spec::of("limit", words::RULE_LIMIT, "null", about).or_null(), terms::written);
    let buckets = terms::buckets(s);
    if limit.is_some() && !buckets.is_empty() {
        s.fault("limit", "must stand alone: a route has limit or buckets");
        return Vec::new();
    }
    if let (Some(limit), Some(name)) = (limit, name) {
        let Ok(bucket) = BucketName::parse(name) else {
            let text =
                "is missing: host and path are too long for the name of its limit's bucket, or not ASCII";
            s.fault("name", text);
            return Vec::new();
        };
        let id = BucketId::of_route(bucket.as_str());
        return vec![rule(BucketSpec { id, ..BucketSpec::new(bucket, limit) })];
    }
    let mut rules = Vec::with_capacity(buckets.len());
    for (index, bucket) in buckets.into_iter().enumerate() {
        let bucket = BucketSpec { id: BucketId::of_shared(bucket.name.as_str()), ..bucket };
        let route = name.unwrap_or_default().to_owned();
        let (known, of) =
            shared.0.entry(bucket.name.clone()).or_insert_with(|| (rule(bucket.clone()), route));
        if known.buckets().first() != Some(&bucket) {
            let text = format!(
                "{:?} has other numbers in the route {of:?}: a bucket that several routes name is one bucket",
                bucket.name.as_str()
            );
            s.fault(&format!("buckets[{index}]"), text);
        }
        rules.push(Arc::clone(known));
    }
    rules
}

/// A rule with the name of its bucket, for every request of the routes that have it.
fn rule(bucket: BucketSpec) -> Arc<RequestRule> {
    let name = bucket.name.clone();
    Arc::new(RequestRule::new(name.as_str(), Vec::new(), "/", Effect::Buckets(Arc::new([bucket]))))
}
