//! What the proxy answers by itself: what needs neither a token nor a backend.

use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::framing::request::ALLOW;
use balancer_http::headers;
use balancer_http::max_forwards::{self, MaxForwards};
use balancer_http::message::Reason;
use balancer_http::message::{RequestHead, Version};
use balancer_limiter::identity::{KeySource, Source};

/// The answer, if it is ours. `instance`: our id in `Via`. `keys`: which parts of a request hold clients' keys.
pub(super) fn answer(
    head: &RequestHead,
    instance: &str,
    keys: &[KeySource],
    request_id: &str,
) -> Option<Answer> {
    if headers::is_loop(&head.fields, instance) {
        let reject = Reject::new(
            Reason::LoopDetected,
            "this request has been here before: a backend leads back to us",
        );
        return Some(reject.answer(request_id));
    }
    // Server-wide OPTIONS (RFC 9110 §9.3.7): asks what the server can do, and we are the server.
    if head.target == "*" {
        return Some(options());
    }
    match max_forwards::of(&head.method, &head.fields) {
        MaxForwards::Unlimited | MaxForwards::Left(_) => None,
        MaxForwards::Reached if head.method == "TRACE" => Some(trace(head, keys)),
        MaxForwards::Reached => Some(options()),
        MaxForwards::Malformed => {
            Some(Reject::new(Reason::BadRequest, "the Max-Forwards is not a number").answer(request_id))
        }
    }
}

fn options() -> Answer {
    Answer::new(204, Vec::new()).with("Allow", ALLOW)
}

/// The request as it came, without what may be a secret (RFC 9110 §9.3.8): a proxy in front may have added one that its
/// client does not know.
fn trace(head: &RequestHead, keys: &[KeySource]) -> Answer {
    let version = match head.version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2",
    };
    let mut body = format!("{} {} HTTP/{version}\r\n", head.method, head.target).into_bytes();
    for (name, value) in head.fields.iter().filter(|(name, _)| !may_be_secret(name, keys)) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            body.extend_from_slice(part);
        }
    }
    body.extend_from_slice(b"\r\n");
    Answer::new(200, body).with("Content-Type", "message/http")
}

/// By its name: it is one of the configured keys, or sounds like a credential.
fn may_be_secret(name: &str, keys: &[KeySource]) -> bool {
    const WORDS: [&str; 10] =
        ["auth", "cookie", "credential", "jwt", "key", "pass", "secret", "session", "signature", "token"];
    let name = name.to_ascii_lowercase();
    let is_key = |key: &KeySource| matches!(&key.source, Source::Header(header) if *header == name);
    WORDS.iter().any(|word| name.contains(word)) || keys.iter().any(is_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_traced_back() {
        let keys = [KeySource { source: Source::Header("x-customer".into()), declared_as: None }];
        for (name, secret) in [
            ("Authorization", true),
            ("Proxy-Authorization", true),
            ("Cookie", true),
            ("X-Api-Key", true),
            ("CF-Access-Client-Secret", true),
            ("X-Amz-Security-Token", true),
            ("X-Customer", true),
            ("X-Customers", false),
            ("Via", false),
            ("Max-Forwards", false),
            ("User-Agent", false),
        ] {
            assert_eq!(may_be_secret(name, &keys), secret, "{name}");
        }
    }
}
