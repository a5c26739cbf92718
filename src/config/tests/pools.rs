//! Pools: what they take over from the top, and what is wrong with them.

use super::*;
use balancer_pool::strategy::{HashOn, Strategy};

const TOP: &str = r#""backends": ["http://10.0.0.3"],
    "balancing": {"strategy": "hash", "hash_on": "uri", "queue_size": 7},
    "upstream": {"retries": 5, "response_timeout": "9s", "tls": {"server_name": "top.test"}},
    "health_check": {"path": "/up", "rise": 4}, "outlier": null"#;

fn load(pools: &str) -> Result<Config, String> {
    load_with(&format!("{{{TOP}, \"pools\": {pools}}}"), &[])
}

#[test]
fn a_pool_takes_over_single_keys_and_the_top_stays_as_it_is() {
    let config = load(
        r#"{"api": {"backends": ["http://10.0.0.1:9001", "http://10.0.0.2:9001"]},
            "img": {"backends": [{"name": "a", "url": "http://10.0.0.4", "weight": 3}],
                    "balancing": {"strategy": "round_robin"}, "outlier": {},
                    "upstream": {"response_timeout": "5s", "tls": {"insecure_skip_verify": true}, "max_head_bytes": 9000},
                    "health_check": null},
            "own": {"backends": ["http://10.0.0.5"], "health_check": {"path": "/own"}}}"#,
    )
    .unwrap();
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["default", "api", "img", "own"]);
    let [top, api, img, own] = &config.pools[..] else { panic!() };
    let backends: Vec<_> = api.backends.iter().map(|one| (one.name.as_str(), one.port)).collect();
    assert_eq!(backends, [("10.0.0.1:9001", 9001), ("10.0.0.2:9001", 9001)]);
    assert_eq!((top.backends[0].name.as_str(), top.backends[0].port), ("10.0.0.3", 80));
    for pool in [top, api] {
        assert_eq!((pool.balancing.strategy, &pool.balancing.hash_on), (Strategy::Hash, &HashOn::Uri));
        assert_eq!((pool.upstream.retries, pool.upstream.response_timeout), (5, Duration::from_secs(9)));
        assert_eq!(pool.upstream.tls.server_name.as_deref(), Some("top.test"));
        assert_eq!(
            pool.health_check.as_ref().map(|check| (check.path.as_str(), check.rise)),
            Some(("/up", 4))
        );
        assert!(pool.outlier.is_none());
    }
    assert_eq!((img.balancing.strategy, img.balancing.queue_size), (Strategy::RoundRobin, 7));
    assert_eq!((img.upstream.retries, img.upstream.response_timeout), (5, Duration::from_secs(5)));
    assert_eq!(img.upstream.tls.server_name.as_deref(), Some("top.test"));
    assert!(img.upstream.tls.insecure_skip_verify && !top.upstream.tls.insecure_skip_verify);
    assert!(img.health_check.is_none() && img.outlier.is_some());
    let check = own.health_check.as_ref().unwrap();
    assert_eq!((check.path.as_str(), check.rise, check.head_rules.max_head_bytes), ("/own", 4, 32_768));
}

#[test]
fn what_is_wrong_with_a_pool_is_told_once_and_where_it_stands() {
    for (pools, expected) in [
        (
            r#"{"Api": {"backends": ["http://a"]}}"#,
            "pools.Api: is no name for a pool: it must be 1 to 63 of a to z",
        ),
        (r#"{"": {"backends": ["http://a"]}}"#, "is no name for a pool"),
        (
            r#"{"default": {"backends": ["http://a"]}}"#,
            "pools.default: is what the pool of the backends at the top is called",
        ),
        (r#"{"a": {"backends": ["http://a"]}, "a": {"backends": ["http://b"]}}"#, "pools.a: doubled key"),
        (r#"{"a": {}}"#, "pools.a.backends: is missing; must be a list of 1 to 1024 backends"),
        (r#"{"a": {"backends": []}}"#, "pools.a.backends: must be a list of 1 to 1024 backends"),
        (r#"{"a": []}"#, "pools.a: must be an object; found an empty list"),
        ("[]", "pools: must be an object of pools by their names; found an empty list"),
        (r#"{"a": {"backends": ["ftp://a"]}}"#, "pools.a.backends[0].url: must be http://HOST"),
        (
            r#"{"a": {"backends": ["http://a", "http://a"]}}"#,
            "pools.a.backends[1].name: \"a\" names another backend already",
        ),
        (r#"{"a": {"backends": ["http://127.0.0.1:8080"]}}"#, "pools.a.backends[0].url: is our own listener"),
        (
            r#"{"a": {"backends": ["http://a"], "upstream": {"retry": 1}}}"#,
            "pools.a.upstream.retry: unknown key",
        ),
        (
            r#"{"a": {"backends": ["http://a"], "upstream": {"retries": "x"}}}"#,
            "pools.a.upstream.retries: must be",
        ),
        (r#"{"a": {"backends": ["http://a"], "rate_limit": {}}}"#, "pools.a.rate_limit: unknown key"),
    ] {
        let told = load(pools).unwrap_err();
        assert!(told.contains(expected) && told.lines().count() == 1, "{pools}\n{told}");
        assert!(told.contains("FILE:4: "), "the line of it: {told}");
    }
}

#[test]
fn what_is_wrong_at_the_top_is_told_of_the_top_alone() {
    let text = r#"{"backends": ["http://a"], "upstream": {"retries": "x", "retry": 1},
                   "pools": {"b": {"backends": ["http://b"]}, "c": {"backends": ["http://c"], "upstream": {"retries": 2}}}}"#;
    let told = load_with(text, &[]).unwrap_err();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("upstream.retries: must be") && told.contains("upstream.retry: unknown"), "{told}");
    assert!(!told.contains("pools."), "{told}");
}

#[test]
fn a_default_that_is_given_over_something_else_is_a_change() {
    let text = |more: &str| {
        let top = r#""backends": ["http://a"], "upstream": {"retries": 5}"#;
        format!(r#"{{{top}, "pools": {{"b": {{"backends": ["http://b"]{more}}}}}}}"#)
    };
    let with = load_with(&text(r#", "upstream": {"retries": 1}"#), &[]).unwrap();
    let without = load_with(&text(""), &[]).unwrap();
    assert_eq!((with.pools[1].upstream.retries, without.pools[1].upstream.retries), (1, 5));
    assert_eq!(with.given.differing(&without.given), ["pools.b.upstream.retries"]);
}

#[test]
fn a_cookie_that_a_pool_does_not_name_is_called_by_it() {
    let text = r#"{"backends": ["http://a"], "balancing": {"sticky": {"secret": "0123456789abcdef", "cookie": "at"}},
        "pools": {"b": {"backends": ["http://b"]},
                  "c": {"backends": ["http://c"], "balancing": {"sticky": {"cookie": "own"}}},
                  "d": {"backends": ["http://d"], "balancing": {"sticky": null}}}}"#;
    let config = load_with(text, &[]).unwrap();
    let cookies: Vec<_> = config
        .pools
        .iter()
        .map(|pool| pool.balancing.sticky.as_ref().map(|one| one.cookie.as_str()))
        .collect();
    assert_eq!(cookies, [Some("at"), Some("at_b"), Some("own"), None]);
}

#[test]
fn no_part_of_a_password_is_shown() {
    for url in ["http://user:hunter2?x@h", "http://user:hunter2/@h", "http://user:hunter2#@h"] {
        let told = load_with(&format!(r#"{{"backends": ["{url}"]}}"#), &[]).unwrap_err();
        assert!(!told.contains("hunter") && told.contains("backends[0].url"), "{told}");
    }
}

#[test]
fn there_must_be_somewhere_to_go() {
    for text in
        [r#"{"backends": []}"#, "{}", r#"{"backends": [], "pools": {}, "routes": []}"#, r#"{"pools": {}}"#]
    {
        assert!(load_with(text, &[]).unwrap_err().contains("backends: "), "{text}");
    }
    for text in [
        r#"{"pools": {"a": {"backends": ["http://a"]}}}"#,
        r#"{"backends": [], "pools": {"a": {"backends": ["http://a"]}}}"#,
    ] {
        let config = load_with(text, &[]).unwrap();
        assert!(config.default_pool().backends.is_empty() && config.pools.len() == 2, "{text}");
    }
}

#[test]
fn a_variable_reaches_into_a_pool_and_what_was_taken_over_is_not_given() {
    let text = r#"{"backends": ["http://a"], "upstream": {"retries": 2}, "pools": {"b": {"backends": ["http://b"]}}}"#;
    let config = load_with(
        text,
        &[
            ("BALANCER__POOLS__B__UPSTREAM", r#"{"response_timeout": "3s"}"#),
            ("BALANCER__UPSTREAM__RETRIES", "4"),
        ],
    )
    .unwrap();
    let pool = &config.pools[1];
    assert_eq!((pool.upstream.retries, pool.upstream.response_timeout), (4, Duration::from_secs(3)));
    let before = load_with(text, &[]).unwrap();
    assert_eq!(
        config.given.differing(&before.given),
        ["pools.b.upstream.response_timeout", "upstream.retries"]
    );
}

#[test]
fn a_secret_of_a_pool_may_stand_in_a_file() {
    let secret = file("0123456789abcdef-of-the-pool");
    let text = r#"{"backends": ["http://a"], "pools": {"b": {"backends": ["http://b"]}}}"#;
    let path = secret.path.display().to_string();
    let config = load_with(text, &[("BALANCER__POOLS__B__BALANCING__STICKY__SECRET_FILE", &path)]).unwrap();
    let sticky = config.pools[1].balancing.sticky.as_ref().unwrap();
    assert_eq!(
        (sticky.secret.reveal(), sticky.cookie.as_str()),
        ("0123456789abcdef-of-the-pool", "balancer_b")
    );
    assert!(config.default_pool().balancing.sticky.is_none());
}
