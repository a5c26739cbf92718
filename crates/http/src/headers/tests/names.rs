//! Which names are treated in a way of their own.

use super::*;

#[test]
fn fields_are_known_by_their_whole_names_in_any_case() {
    const OF_CONNECTION: &[&str] = &[
        "TE",
        "Trailer",
        "Upgrade",
        "Connection",
        "Keep-Alive",
        "HTTP2-Settings",
        "Proxy-Connection",
        "Transfer-Encoding",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Content-Length",
        "Expect",
    ];
    const CLAIMS: &[&str] = &[
        "Forwarded",
        "X-Real-IP",
        "Client-IP",
        "X-Client-IP",
        "X-Forwarded",
        "X-Forwarded-",
        "X-Forwarded-Anything",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "CF-Connecting-IPv6",
        "X-Cluster-Client-IP",
        "X-Original-Forwarded-For",
    ];
    const IN_REQUESTS: &[&str] = &[
        "Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Prefix",
        "Via",
        "X-Balancer-Instance",
        "Max-Forwards",
        "X-Request-Id",
    ];
    const IN_ANSWERS: &[&str] = &[
        "Date",
        "X-Request-Id",
        "RateLimit",
        "RateLimit-Policy",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ];
    type Kind = (&'static str, fn(&str) -> bool, &'static [&'static str]);
    let kinds: [Kind; 4] = [
        ("of a connection", is_of_connection, OF_CONNECTION),
        ("a claim", |name| is_claim(name.as_bytes()), CLAIMS),
        ("ours in requests", is_own_in_requests, IN_REQUESTS),
        ("ours in answers", is_own_in_answers, IN_ANSWERS),
    ];
    let all: Vec<&str> = kinds.iter().flat_map(|kind| kind.2).copied().collect();
    for (what, is_one, names) in kinds {
        for name in &all {
            let expected = names.contains(name) || what == "a claim" && name.starts_with("X-Forwarded");
            for name in [(*name).to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(is_one(&name), expected, "{name} is {what}");
            }
            // As long, and longer.
            for other in [format!("Q{}", &name[1..]), format!("Q{name}")] {
                assert!(!is_one(&other), "{other} is {what}");
            }
        }
        assert!(!is_one(""), "no name is {what}");
    }
}

#[test]
fn a_connection_that_names_fields_is_told_from_one_that_says_how_long_it_stays() {
    for (value, names) in
        [("", false), ("close", false), ("Keep-Alive, Close", false), ("close, x", true), ("upgrade", true)]
    {
        assert_eq!(names_fields(&fields(&[("Connection", value)])), names, "{value:?}");
    }
}
