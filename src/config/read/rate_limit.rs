//! Keys of `rate_limit`.

use super::{MAX_LIST, NETWORK, rules, terms};
use crate::config::json::Value;
use crate::config::keys::{Shape, Spec};
use crate::config::section::Section;
use crate::config::{RateLimit, RateLimitHeaders, forms};

pub(super) fn rate_limit(mut s: Section<'_>) -> RateLimit {
    let key =
        Spec::new("key", Shape::Choice(vec!["ip"]), "\"ip\"", "What tells clients apart: their address.");
    s.value(&key, |node| match &node.value {
        Value::Text(text) if text == "ip" => Ok(()),
        Value::Text(text)
            if text == "bearer" || text.starts_with("header:") || text.starts_with("cookie:") =>
        {
            Err(Some("identities other than \"ip\" are not yet built; must be \"ip\"".into()))
        }
        Value::List(_) | Value::Object(_) => {
            Err(Some("lists of keys are not yet built; must be \"ip\"".into()))
        }
        _ => Err(None),
    });
    let trusted = Spec::new(
        "trusted_proxies",
        Shape::List { of: NETWORK, max: MAX_LIST },
        "[]",
        "Peers whose forwarding headers count.",
    );
    let headers = [
        ("draft-11", RateLimitHeaders::Draft11),
        ("legacy", RateLimitHeaders::Legacy),
        ("both", RateLimitHeaders::Both),
        ("off", RateLimitHeaders::Off),
    ];
    let limits = RateLimit {
        default: terms::terms_or_null(&mut s, "default", "What an unknown client gets; null: no limit."),
        ipv6_prefix: s.whole("ipv6_prefix", 1..=128, "64", "IPv6 clients are grouped by this many bits."),
        max_clients: s.whole("max_clients", 1..=100_000_000, "1000000", "Most buckets in memory."),
        trusted_proxies: s.list(&trusted, false, forms::network),
        headers: s
            .choice(
                "headers",
                &headers,
                &[],
                "\"draft-11\"",
                "RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, X-RateLimit ones, both, or none.",
            )
            .unwrap_or(RateLimitHeaders::Draft11),
        rules: rules::rules(&mut s),
        cors: rules::cors(&mut s),
    };
    s.later(&["unknown_keys"]);
    s.end();
    limits
}
