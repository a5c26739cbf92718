//! Two configurations side by side.

use super::*;
use crate::config::given::is_live;

fn differing(before: &str, after: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let text = |more: &str| format!(r#"{{"backends": [{ONE}]{more}}}"#);
    let before = load_with(&text(before), &[]).unwrap();
    let after = load_with(&text(after), pairs).unwrap();
    let told = before.given.differing(&after.given);
    assert_eq!(after.given.differing(&before.given), told, "either way round");
    assert!(after.given.differing(&after.clone().given).is_empty(), "nothing differs from itself");
    told
}

#[test]
fn keys_that_differ_are_named_once() {
    /// Before, after, the environment after, the keys.
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let table: &[Row] = &[
        ("", "", &[], &[]),
        // The default, written out, is no difference.
        ("", r#", "upstream": {"retries": 1}, "health_check": {}, "outlier": null"#, &[], &["outlier"]),
        ("", r#", "upstream": {"retries": 2}"#, &[], &["upstream.retries"]),
        ("", "", &[("BALANCER__UPSTREAM__RETRIES", "2")], &["upstream.retries"]),
        (r#", "upstream": {"retries": 2}"#, "", &[("BALANCER__UPSTREAM__RETRIES", "2")], &[]),
        ("", "", &[("BALANCER__BACKENDS__0__WEIGHT", "2")], &["backends"]),
        ("", "", &[("BALANCER__BACKENDS", r#"[{"name": "a", "url": "http://127.0.0.1:9001"}]"#)], &[]),
        (r#", "health_check": null"#, r#", "health_check": {"rise": 9}"#, &[], &["health_check"]),
        (r#", "health_check": {"rise": 9}"#, r#", "health_check": {"rise": 8}"#, &[], &["health_check.rise"]),
        (
            r#", "rate_limit": {"default": "1/s"}"#,
            r#", "rate_limit": {"default": {"capacity": 1, "rate_per_sec": 1}}"#,
            &[],
            &["rate_limit.default"],
        ),
        (
            r#", "rate_limit": {"default": {"capacity": 2, "rate_per_sec": 1}}"#,
            r#", "rate_limit": {"default": {"capacity": 1, "rate_per_sec": 1}}"#,
            &[],
            &["rate_limit.default.capacity"],
        ),
        ("", r#", "balancing": {"sticky": {"secret": "0123456789abcdef"}}"#, &[], &["balancing.sticky"]),
        (
            r#", "balancing": {"sticky": {"secret": "0123456789abcdef"}}"#,
            r#", "balancing": {"sticky": {"secret": "fedcba9876543210"}}"#,
            &[],
            &["balancing.sticky.secret"],
        ),
        (
            "",
            r#", "admin": {"allow": ["127.0.0.1"]}, "listen": "127.0.0.1:1""#,
            &[],
            &["admin.allow", "listen"],
        ),
    ];
    for (before, after, pairs, expected) in table {
        assert_eq!(differing(before, after, pairs), *expected, "{before} {after} {pairs:?}");
    }
}

#[test]
fn what_needs_a_restart_stays_as_it_was() {
    let text = |more: &str| load_with(&format!(r#"{{"backends": [{ONE}]{more}}}"#), &[]).unwrap().given;
    let before = text(r#", "frontend": {"workers": 3}"#);
    let after = text(r#", "frontend": {"workers": 2}, "upstream": {"retries": 3}"#);
    let in_force = after.in_force_after(&before);
    assert_eq!(before.differing(&in_force), ["upstream.retries"]);
    assert_eq!(after.differing(&in_force), ["frontend.workers"]);
}

#[test]
fn every_live_key_is_a_key_and_no_value_shows() {
    let file = file(&format!(r#"{{"backends": [{ONE}], "admin": {{"token": "topsecret-of-the-api"}}}}"#));
    let options = Options { file: Some(file.path.clone()), ..Options::default() };
    let loaded = load(&options, &[]).unwrap();
    for live in crate::config::given::live_keys() {
        assert!(loaded.keys.iter().any(|key| key.path == *live), "{live} is no key");
    }
    assert!(is_live("backends[0].url") && is_live("upstream.retries") && is_live("admin.token"));
    assert!(!is_live("backends_of") && !is_live("admin.listen") && !is_live("rate_limit.default_of"));
    assert!(!format!("{:?}", loaded.config).contains("topsecret-of-the-api"));
}
