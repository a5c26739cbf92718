//! Keys about limits of several buckets, rules, and who may see refusals.

use super::*;
use balancer_importance::Priority;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{BucketId, BucketSpec, Mode, Reset};

const FAULTS: &[(&str, &str)] = &[
    (r#""default": {"buckets": []}"#, "default.buckets: is missing; a limit has 1 to 4"),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "2mo"}]}"#,
        r#"default.buckets[0].per: must be a span such as "1s", "1m", "1h" or "1d", at most "366d", or "1mo"; found "2mo""#,
    ),
    (
        r#""default": {"buckets": [{"name": "concurrency", "amount": 1, "per": "1s"}]}"#,
        r#"default.buckets[0].name: must be 1 to 64 printable ASCII characters, and not "concurrency"; found "concurrency""#,
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 0.5, "per": "1s"}]}"#,
        "default.buckets[0].capacity: is missing: an amount that is no whole number needs one",
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "1m", "reset": "utc"}]}"#,
        r#"default.buckets[0].reset: needs a per of "1h", "1d" or "1mo""#,
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "1s"}, {"name": "a", "amount": 2, "per": "1s"}]}"#,
        r#"default.buckets[1].name: "a" names another bucket of this limit already"#,
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "1s"}], "max_in_flight": 0}"#,
        "default.max_in_flight: must be a whole number from 1 to 1000000 or null; found 0",
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "1s"}], "weight": 1001}"#,
        "default.weight: must be a whole number from 1 to 1000 or null; found 1001",
    ),
    (
        r#""default": {"buckets": [{"name": "a", "amount": 1, "per": "1s"}], "priority": "high"}"#,
        r#"default.priority: must be one of "critical", "normal", "background" or null; found "high""#,
    ),
    (
        r#""rules": [{"match": {"path": "login"}, "cost": 2}]"#,
        r#"rules[0].match.path: must be a path that begins with /, without a query, such as "/login"; found "login""#,
    ),
    (
        r#""rules": [{"match": {"path": "/a"}}]"#,
        "rules[0].limit: must stand alone: a rule has one of limit, buckets, cost and exempt",
    ),
    (
        r#""rules": [{"match": {"path": "/a"}, "cost": 2, "exempt": true}]"#,
        "rules[0].limit: must stand alone: a rule has one of limit, buckets, cost and exempt",
    ),
    (
        r#""rules": [{"match": {"path": "/a"}, "exempt": true}, {"match": {"path": "/%61/", "method": "GET"}, "cost": 1}, {"match": {"path": "//%61"}, "cost": 2}]"#,
        r#"rules[2].match: is for requests that rule "/a" is for already"#,
    ),
    (
        r#""rules": [{"name": "x", "match": {"path": "/a"}, "cost": 1}, {"name": "x", "match": {"path": "/b"}, "cost": 1}]"#,
        r#"rules[1].name: "x" names another rule already; names must differ"#,
    ),
    (
        r#""rules": [{"match": {"path": "/ä"}, "cost": 1}]"#,
        "rules[0].name: is missing: methods and path are too long for one, or not ASCII",
    ),
    (
        r#""rules": [{"match": {"paht": "/a", "path": "/a"}, "cost": 1}]"#,
        r#"rules[0].match.paht: unknown key; did you mean "path"?"#,
    ),
    (r#""cors": {}"#, r#"cors.origins: needs at least one origin, or "*""#),
    (
        r#""cors": {"origins": ["https://a.example/"]}"#,
        r#"cors.origins: must be an origin such as "https://app.example", or "*" for all; found "https://a.example/""#,
    ),
    (
        r#""cors": {"origins": "*", "credentials": true}"#,
        r#"cors.credentials: needs named origins: browsers take no "*" with it"#,
    ),
];

#[test]
fn faults_say_what_is_allowed() {
    for (keys, expected) in FAULTS {
        let text = format!("{{\n\"backends\": [{ONE}],\n\"rate_limit\": {{{keys}}}\n}}");
        let found = load_with(&text, &[]).map(|_| ()).unwrap_err();
        assert_eq!(found, format!("FILE:3: rate_limit.{expected}"), "{keys}");
    }
}

/// A fault between a bucket's keys hides none of a key's own.
#[test]
fn all_faults_of_a_bucket_are_told_at_once() {
    let text = format!(
        r#"{{"backends": [{ONE}], "rate_limit": {{"default": {{"buckets": [{{"name": "a", "amount": 0.5, "per": "1s", "mood": "x"}}]}}}}}}"#
    );
    let found = load_with(&text, &[]).map(|_| ()).unwrap_err();
    for fault in ["buckets[0].capacity: is missing", "buckets[0].mood: unknown key; did you mean \"mode\"?"] {
        assert!(found.contains(fault), "{found}");
    }
}

fn read(keys: &str) -> RateLimit {
    let text = format!(r#"{{"backends": [{ONE}], "rate_limit": {{{keys}}}}}"#);
    load_with(&text, &[]).unwrap().rate_limit
}

#[test]
fn a_default_of_several_buckets_is_read() {
    let terms = read(
        r#""default": {"buckets": [{"name": "second", "amount": 2.5, "per": "1s", "capacity": 10},
            {"name": "month", "amount": 1000, "per": "1mo", "reset": "utc", "mode": "shadow"}], "max_in_flight": 20,
            "weight": 3, "priority": "background"}"#,
    );
    let terms = terms.default.unwrap();
    let limit = |capacity, micro, per_secs| Limit { capacity, rate: Rate { micro, per_secs } };
    let seen =
        |bucket: &BucketSpec| (bucket.name.as_str().to_owned(), bucket.limit, bucket.mode, bucket.reset);
    assert_eq!(
        terms.buckets.iter().map(seen).collect::<Vec<_>>(),
        [
            ("second".into(), limit(10, 2_500_000, 1), Mode::Enforced, None),
            ("month".into(), limit(1000, 1_000_000_000, 2_592_000), Mode::Shadow, Some(Reset::Month)),
        ]
    );
    assert_eq!(terms.max_in_flight, Some(20));
    let importance = GivenImportance { weight: Some(3), priority: Some(Priority::Background) };
    assert_eq!(terms.importance, importance);
}

#[test]
fn rules_are_read_and_their_buckets_are_nobody_elses() {
    let rules = read(
        r#""rules": [
            {"match": {"method": "POST", "path": "/login"}, "limit": "5/m"},
            {"name": "export", "match": {"path": "/%65xport"}, "cost": 10},
            {"match": {"method": ["GET", "HEAD"], "path": "/static/"}, "exempt": true},
            {"name": "search", "match": {"path": "/search"},
             "buckets": [{"name": "default", "amount": 1, "per": "1s"}, {"name": "day", "amount": 9, "per": "1d"}]}]"#,
    )
    .rules;
    let needs = |method: &str, path: &str| {
        let needs = rules.needs(method, path)?;
        let buckets = needs.rules.iter().flat_map(|rule| rule.buckets()).cloned();
        Some((buckets.collect::<Vec<_>>(), needs.cost))
    };
    assert_eq!(needs("GET", "/export/x"), Some((Vec::new(), 10)));
    assert_eq!(needs("HEAD", "/static/x"), None);
    assert_eq!(needs("GET", "/login"), Some((Vec::new(), 1)));
    let (login, _) = needs("POST", "/login").expect("its buckets");
    assert_eq!((login[0].name.as_str(), login[0].limit.capacity), ("POST /login", 5));
    assert_ne!(login[0].id, BucketId::of("default"));
    let (search, _) = needs("GET", "/search").expect("its buckets");
    assert_eq!((search[0].name.as_str(), search[1].name.as_str()), ("search", "day"));
    assert_ne!(search[1].id, BucketId::of("day"));
}

#[test]
fn origins_and_the_form_of_the_fields_are_read() {
    let limits = read(r#""cors": {"origins": ["HTTPS://App.example:8443"]}, "headers": "both""#);
    assert_eq!(limits.cors.unwrap().origins, Some(vec!["https://app.example:8443".to_owned()]));
    assert_eq!(limits.headers, RateLimitHeaders::Both);
    assert_eq!(read(r#""cors": {"origins": "*"}"#).cors.unwrap().origins, None);
    assert_eq!(read("").cors, None);
}
