use super::*;
use crate::bucket::Bucket;
use crate::limit::Rate;

const SEC: Nanos = NANOS_PER_SEC;

fn limit(capacity: u32, micro: u64, per_secs: u32) -> Limit {
    Limit { capacity, rate: Rate { micro, per_secs } }
}

/// The fields after a full bucket gave `taken` at once and was then asked for one more.
fn after(limit: Limit, taken: u32, idle: Nanos) -> RateLimitFields {
    let mut bucket = Bucket::full(limit, 0);
    assert!(taken == 0 || bucket.acquire(taken, 0).allowed);
    let outcome = bucket.acquire(1, idle);
    rate_limit_fields(&[Standing { policy: "default", limit, outcome, resets: false }], None)
}

#[test]
fn one_bucket_says_quota_window_rest_and_reset() {
    const M: u64 = 1_000_000;
    // capacity, micro, per_secs, taken before, idle; then what the next request is told
    type Row = (u32, u64, u32, u32, Nanos, &'static str, &'static str, Option<u64>);
    let rows: &[Row] = &[
        (100, 10 * M, 1, 57, 0, "q=100;w=10", "r=42;t=5", None),
        (1000, 500 * M, 1, 0, 0, "q=1000;w=2", "r=999;t=2", None),
        (1000, 500 * M, 1, 999, 0, "q=1000;w=2", "r=0;t=1", None),
        (1000, 500 * M, 1, 1000, 0, "q=1000;w=2", "r=0;t=1", Some(1)),
        (10, M, 1, 8, 0, "q=10;w=10", "r=1;t=1", None),
        (10, M, 1, 0, 0, "q=10;w=10", "r=9;t=9", None),
        (10, M, 1, 10, 0, "q=10;w=10", "r=0;t=1", Some(1)),
        (10, M, 1, 10, SEC - 1, "q=10;w=10", "r=0;t=1", Some(1)),
        (10, 3 * M, 1, 0, 0, "q=10;w=4", "r=9;t=3", None),
        (10, 3 * M, 1, 2, 0, "q=10;w=4", "r=7;t=3", None),
        // Slower than a token a second: the time to the next one.
        (1, 500_000, 1, 0, 0, "q=1;w=2", "r=0;t=2", None),
        (1, 500_000, 1, 1, SEC / 2, "q=1;w=2", "r=0;t=2", Some(2)),
        (1, 500_000, 1, 1, SEC, "q=1;w=2", "r=0;t=1", Some(1)),
        (5, 100_000, 1, 5, 0, "q=5;w=50", "r=0;t=10", Some(10)),
        (5, 5 * M, 60, 5, 0, "q=5;w=60", "r=0;t=12", Some(12)),
        (50, 600 * M, 60, 0, 0, "q=50;w=5", "r=49;t=5", None),
        (10_000, 10_000 * M, 86_400, 0, 0, "q=10000;w=86400", "r=9999;t=86392", None),
        (10_000, 10_000 * M, 86_400, 10_000, 0, "q=10000;w=86400", "r=0;t=9", Some(9)),
        // A capacity below the rate: the quota is what a second brings.
        (1, 1_500_000, 1, 0, 0, "q=1;w=1", "r=0;t=1", None),
        (1, 2 * M, 1, 0, 0, "q=2;w=1", "r=0;t=1", None),
        (5, 500 * M, 1, 1, 0, "q=500;w=1", "r=3;t=1", None),
        (5, 7_900_000, 1, 0, 0, "q=7;w=1", "r=4;t=1", None),
        (5, 500 * M, 60, 0, 0, "q=8;w=1", "r=4;t=1", None),
        (5, 300 * M, 60, 0, 0, "q=5;w=1", "r=4;t=1", None),
        // Never refills.
        (3, 0, 1, 0, 0, "q=3", "r=2", None),
        (3, 0, 1, 2, 0, "q=3", "r=0", None),
        (3, 0, 1, 3, 9 * SEC, "q=3", "r=0", None),
        // Refuses altogether.
        (0, 0, 1, 0, 0, "q=0", "r=0", None),
        (0, 500 * M, 1, 0, 0, "q=0", "r=0", None),
        // The ends of the numbers.
        (1_000_000_000, 1_000_000_000 * M, 1, 0, 0, "q=1000000000;w=1", "r=999999999;t=1", None),
        (1_000_000_000, 10, 1, 0, 0, "q=1000000000;w=100000000000000", "r=999999999;t=99999999900000", None),
        (1_000_000_000, 1, 1, 0, 0, "q=1000000000;w=999999999999999", "r=999999999;t=999999999000000", None),
        (1, 1, 1, 1, 0, "q=1;w=1000000", "r=0;t=1000000", Some(1_000_000)),
    ];
    for (capacity, micro, per_secs, taken, idle, policy, rate_limit, retry) in rows {
        let got = after(limit(*capacity, *micro, *per_secs), *taken, *idle);
        let expected = RateLimitFields {
            policy: format!("\"default\";{policy}"),
            rate_limit: format!("\"default\";{rate_limit}"),
            retry_after_s: *retry,
            first: got.first,
        };
        assert_eq!(got, expected, "{capacity} {micro}/{per_secs} − {taken}, {idle} ns later");
    }
}

#[test]
fn a_costly_request_is_told_when_it_would_pass() {
    let limit = limit(10, 1_000_000, 1);
    let mut bucket = Bucket::full(limit, 0);
    bucket.acquire(8, 0);
    let fields = rate_limit_fields(
        &[Standing { policy: "a", limit, outcome: bucket.acquire(5, 0), resets: false }],
        None,
    );
    assert_eq!((fields.rate_limit.as_str(), fields.retry_after_s), ("\"a\";r=2;t=3", Some(3)));
    // More than the bucket can ever hold.
    let fields = rate_limit_fields(
        &[Standing { policy: "a", limit, outcome: bucket.acquire(11, 0), resets: false }],
        None,
    );
    assert_eq!((fields.rate_limit.as_str(), fields.retry_after_s), ("\"a\";r=2", None));
}

fn standing(policy: &'static str, capacity: u32, per_sec: u64, taken: u32, ask: bool) -> Standing<'static> {
    let limit = limit(capacity, per_sec * 1_000_000, 1);
    let mut bucket = Bucket::full(limit, 0);
    bucket.acquire(taken, 0);
    Standing { policy, limit, outcome: bucket.acquire(u32::from(ask), 0), resets: false }
}

#[test]
fn of_several_buckets_all_stand_in_the_policy_and_the_tightest_in_the_rest() {
    let fields = rate_limit_fields(
        &[
            standing("second", 10, 10, 4, true),
            standing("day", 100, 1, 60, true),
            standing("month", 1000, 1, 300, true),
        ],
        None,
    );
    assert_eq!(fields.policy, "\"second\";q=10;w=1, \"day\";q=100;w=100, \"month\";q=1000;w=1000");
    assert_eq!((fields.rate_limit.as_str(), fields.retry_after_s), ("\"day\";r=39;t=39", None));
}

#[test]
fn every_bucket_that_refuses_stands_there_with_the_longest_wait_first() {
    let fields = rate_limit_fields(
        &[
            standing("second", 10, 10, 10, true),
            standing("free", 10, 1, 0, false),
            standing("slow", 10, 0, 10, true),
            standing("minute", 60, 1, 60, true),
        ],
        None,
    );
    assert_eq!(fields.rate_limit, "\"slow\";r=0, \"minute\";r=0;t=1, \"second\";r=0;t=1");
    assert_eq!(fields.retry_after_s, None);
    let fields =
        rate_limit_fields(&[standing("second", 10, 10, 10, true), standing("minute", 60, 1, 60, true)], None);
    assert_eq!(fields.retry_after_s, Some(1));
    assert_eq!(rate_limit_fields(&[], None), RateLimitFields::default());
}

#[test]
fn requests_at_once_have_a_policy_item_and_stand_in_the_rest_when_they_refuse() {
    let day = standing("day", 100, 1, 60, true);
    let at_once = |refused| Some(Concurrency { most: 20, refused });
    let allowed = rate_limit_fields(&[day], at_once(false));
    assert_eq!(allowed.policy, r#""day";q=100;w=100, "concurrency";q=20;qu="concurrent-requests""#);
    assert_eq!((allowed.rate_limit.as_str(), allowed.retry_after_s), (r#""day";r=39;t=39"#, None));
    let refused = rate_limit_fields(&[day], at_once(true));
    assert_eq!(refused.policy, allowed.policy);
    assert_eq!((refused.rate_limit.as_str(), refused.retry_after_s), (r#""concurrency";r=0;t=1"#, Some(1)));
    assert_eq!(refused.first, Some(ShownLimit { bucket: None, quota: 20, left: 0, reset_s: Some(1) }));
    // A limit whose buckets only watch.
    let alone = rate_limit_fields(&[], at_once(false));
    assert_eq!((alone.policy.as_str(), alone.rate_limit.as_str()), (&allowed.policy[19..], ""));
}

#[test]
fn a_bucket_with_a_reset_names_its_period_and_the_time_to_its_turn() {
    let limit = limit(3, 5_000_000, 86_400);
    let at = |left, allowed| {
        let outcome = TakeOutcome { allowed, left, wait_ns: Some(7 * SEC - 1) };
        rate_limit_fields(&[Standing { policy: "day", limit, outcome, resets: true }], None)
    };
    for (left, allowed, retry) in [(2, true, None), (0, true, None), (0, false, Some(7))] {
        let fields = at(left, allowed);
        assert_eq!(fields.policy, r#""day";q=3;w=86400"#);
        assert_eq!(fields.rate_limit, format!(r#""day";r={left};t=7"#));
        assert_eq!(fields.retry_after_s, retry);
    }
}

#[test]
fn a_reset_alone_makes_the_quota_the_capacity_and_the_wait_that_to_the_turn() {
    // capacity, micro, per_secs, left; the policy and the rest of an answer 7 s before the turn
    for (capacity, micro, per_secs, left, policy, rest) in [
        (3, 36_000_000_000, 3_600, 2, "q=3;w=3600", "r=2;t=7"),
        (3, 0, 86_400, 2, "q=3;w=86400", "r=2;t=7"),
        (0, 5_000_000, 86_400, 0, "q=0", "r=0"),
    ] {
        let outcome = TakeOutcome { allowed: left > 0, left, wait_ns: Some(7 * SEC) };
        let bucket = Standing { policy: "a", limit: limit(capacity, micro, per_secs), outcome, resets: true };
        let fields = rate_limit_fields(&[bucket], None);
        assert_eq!(
            (fields.policy, fields.rate_limit, fields.retry_after_s),
            (format!(r#""a";{policy}"#), format!(r#""a";{rest}"#), None)
        );
    }
}

#[test]
fn names_follow_the_entry_and_are_strings_of_structured_fields() {
    assert_eq!(policy_name("default", EntryKind::Client), "client");
    assert_eq!(policy_name("default", EntryKind::Range), "range");
    assert_eq!(policy_name("default", EntryKind::Default), "default");
    assert_eq!(policy_name("day", EntryKind::Default), "day");
    let mut out = String::new();
    name(&mut out, "a\"b\\c\nd🦀");
    assert_eq!(out, r#""a\"b\\c?d????""#);
}

#[test]
fn seconds_are_rounded_up_also_where_64_bits_do_not_hold_what_is_divided() {
    const MOST: u64 = 1_000_000_000;
    for (tokens, micro, per_secs, seconds) in [
        (0, 1, 1, 0),
        (1, 2_000_000, 1, 1),
        (3, 2_000_000, 1, 2),
        (3, 1_000_000, 60, 180),
        (MOST, 1_000_000, 86_400, 86_400_000_000_000),
        (MOST, 7, 30_000, 4_285_714_285_714_285_715),
        (MOST, 1, 86_400, u64::MAX),
    ] {
        assert_eq!(seconds_for(tokens, limit(1, micro, per_secs)), seconds, "{tokens} {micro} {per_secs}");
    }
}
