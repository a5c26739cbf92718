//! Keys of `rate_limit`.

use super::{MAX_LIST, NETWORK};
use crate::config::json::Value;
use crate::config::keys::{Shape, Spec};
use crate::config::section::Section;
use crate::config::{RateLimit, RateLimitHeaders, forms};
use crate::rules::limit::{Limit, Rate};
use crate::rules::terms::Terms;

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
    let headers = [("draft-11", RateLimitHeaders::Draft11), ("off", RateLimitHeaders::Off)];
    let limits = RateLimit {
        default: default_limit(&mut s).map(Terms::of_numbers),
        ipv6_prefix: s.whole("ipv6_prefix", 1..=128, "64", "IPv6 clients are grouped by this many bits."),
        max_clients: s.whole("max_clients", 1..=100_000_000, "1000000", "Most buckets in memory."),
        trusted_proxies: s.list(&trusted, false, forms::network),
        headers: s
            .choice(
                "headers",
                &headers,
                &["legacy", "both"],
                "\"draft-11\"",
                "RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, or none.",
            )
            .unwrap_or(RateLimitHeaders::Draft11),
    };
    s.later(&["rules", "unknown_keys", "cors"]);
    s.end();
    limits
}

/// `null`, `"100/s burst 20"`, or an object with both numbers.
fn default_limit(s: &mut Section<'_>) -> Option<Limit> {
    let spec = Spec::new(
        "default",
        Shape::Other("a limit: \"100/s\", \"600/m burst 50\" or {\"capacity\": 100, \"rate_per_sec\": 10}"),
        "null",
        "What an unknown client gets; null: no limit.",
    )
    .or_null();
    if s.peek_object("default") {
        s.declare(&spec);
        let node = s.take("default")?;
        return Some(limit(s.open_at("default", node)));
    }
    s.value(&spec, |node| match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) => Limit::parse(text).map(Some).map_err(|fault| Some(fault.to_string())),
        _ => Err(None),
    })
}

fn limit(mut s: Section<'_>) -> Limit {
    let rate = Spec::new(
        "rate_per_sec",
        Shape::Other("a number: 0, or 0.000001 to 1000000000 with at most 6 decimals"),
        "",
        "Tokens that come back each second; 0: none.",
    );
    let capacity = s.whole_required(
        "capacity",
        0..=u64::from(Limit::MAX_CAPACITY),
        "Most tokens that a bucket holds; 0 refuses everything.",
    );
    let micro = s.value(&rate, |node| match &node.value {
        Value::Number(text) => match Rate::parse_decimal(text) {
            Ok(rate) => Ok(rate.micro),
            Err(fault) => Err(Some(format!("{fault}; found {}", node.describe(true)))),
        },
        _ => Err(None),
    });
    s.end();
    Limit { capacity, rate: Rate::per_second(micro) }
}
