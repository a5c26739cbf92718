//! Keys of `rate_limit`.

use super::{MAX_LIST, identity, rules, terms};
use crate::config::{BudgetScope, RateLimit, RateLimitHeaders, forms, words};
use crate::declare::{Section, Shape, Spec};

/// `knows_certificates`: clients are asked for theirs.
pub(super) fn rate_limit(mut s: Section<'_>, knows_certificates: bool) -> RateLimit {
    let trusted = Spec::new(
        "trusted_proxies",
        Shape::List { of: words::NETWORK, max: MAX_LIST, single: false },
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
        keys: identity::keys(&mut s, knows_certificates),
        unknown_keys: identity::unknown_keys(&mut s),
        default: terms::terms_or_null(&mut s, "default", "What an unknown client gets; null: no limit."),
        ipv6_prefix: s.whole("ipv6_prefix", 1..=128, "64", "IPv6 clients are grouped by this many bits."),
        max_clients: s.whole("max_clients", 1..=100_000_000, "1000000", "Most buckets in memory."),
        shared_budget: s
            .choice(
                "shared_budget",
                &[("auto", BudgetScope::Auto), ("off", BudgetScope::Off)],
                "\"auto\"",
                "Whether all instances on one PostgreSQL take from one budget: auto: they do; off: each counts alone, as on SQLite.",
            )
            .unwrap_or_default(),
        trusted_proxies: s.list(&trusted, forms::network),
        headers: s
            .choice(
                "headers",
                &headers,
                "\"draft-11\"",
                "RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, X-RateLimit ones, both, or none.",
            )
            .unwrap_or(RateLimitHeaders::Draft11),
        rules: rules::rules(&mut s),
        cors: rules::cors(&mut s),
    };
    s.end();
    limits
}
