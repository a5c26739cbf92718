//! Requests that the proxy answers by itself, without taking a token or asking a backend.

use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::fields::{Fields, tokens};
use balancer_http::framing::request::ALLOW;
use balancer_http::headers;
use balancer_http::max_forwards::{self, MaxForwards};
use balancer_http::message::Reason;
use balancer_http::message::{RequestHead, Version};
use balancer_limiter::identity::{KeySource, Source};

/// The answer, if the proxy gives it by itself. `instance`: our id in `Via`. `keys`: which parts of a request hold
/// clients' keys.
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

/// The redirect for a request that has to come by TLS and did not. `to`: the TLS port; `None`: TLS is not asked for.
/// `peer_trusted`: the peer is a trusted proxy, whose word on how the request came counts.
pub(super) fn redirect(
    head: &RequestHead,
    to: Option<u16>,
    peer_trusted: bool,
    request_id: &str,
) -> Option<Answer> {
    let port = to.filter(|_| head.secure.is_none() && !(peer_trusted && came_by_tls(&head.fields)))?;
    // All paths below `/-/` are our own, those that do not exist as well.
    if head.target.starts_with("/-/") {
        return None;
    }
    let Some(host) = head.host.as_deref().map(without_port) else {
        let detail =
            "this port only leads to https://, and the request does not say to which host: Host is missing";
        return Some(Reject::new(Reason::BadRequest, detail).answer(request_id));
    };
    let port = if port == HTTPS { String::new() } else { format!(":{port}") };
    Some(Answer::new(308, Vec::new()).with("Location", format!("https://{host}{port}{}", head.target)))
}

/// The default port of `https`, which a URL leaves out.
const HTTPS: u16 = 443;

/// The host of an authority that was checked before. The brackets of an IPv6 address stay.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// Whether a proxy in front says that its client spoke TLS. Of several values the first counts: it comes from the proxy
/// nearest to the client.
fn came_by_tls(fields: &Fields) -> bool {
    let says_https = |name: &str| {
        fields.all(name).flat_map(tokens).next().is_some_and(|first| first.eq_ignore_ascii_case(b"https"))
    };
    let pair_is_https = |pair: &[u8]| {
        let pair = pair.trim_ascii();
        pair.eq_ignore_ascii_case(b"proto=https") || pair.eq_ignore_ascii_case(b"proto=\"https\"")
    };
    let forwarded = fields.all("Forwarded").flat_map(tokens).next();
    says_https("X-Forwarded-Proto")
        || forwarded.is_some_and(|first| first.split(|byte| *byte == b';').any(pair_is_https))
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

/// Judges a field by its name: it is one of the configured keys, or sounds like a credential.
fn may_be_secret(name: &str, keys: &[KeySource]) -> bool {
    const WORDS: [&str; 10] =
        ["auth", "cookie", "credential", "jwt", "key", "pass", "secret", "session", "signature", "token"];
    let name = name.to_ascii_lowercase();
    let is_key = |key: &KeySource| matches!(&key.source, Source::Header(header) if *header == name);
    WORDS.iter().any(|word| name.contains(word)) || keys.iter().any(is_key)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use balancer_http::message::TlsSession;

    use super::*;

    fn session() -> Arc<TlsSession> {
        Arc::new(TlsSession {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            sni: None,
            certificate: None,
        })
    }

    #[test]
    fn what_did_not_come_by_tls_is_sent_there() {
        let rows: &[(&str, &str, u16, &str)] = &[
            ("a.test", "/", 443, "https://a.test/"),
            ("a.test:80", "/x?y=%20&z", 443, "https://a.test/x?y=%20&z"),
            ("a.test:80", "//x", 8443, "https://a.test:8443//x"),
            ("a.test:", "/", 443, "https://a.test/"),
            ("[::1]:80", "/", 8443, "https://[::1]:8443/"),
            ("[::1]", "/", 443, "https://[::1]/"),
            ("10.0.0.1:1", "/-", 443, "https://10.0.0.1/-"),
        ];
        for (host, target, port, expected) in rows {
            let mut head = RequestHead::blank("192.0.2.1:5".parse().unwrap());
            (head.host, head.target) = (Some((*host).into()), (*target).into());
            let answer = redirect(&head, Some(*port), false, "id").unwrap();
            assert_eq!((answer.status, answer.fields.get("Location")), (308, Some(expected.as_bytes())));
            assert!(redirect(&head, None, false, "id").is_none(), "nothing is redirected");
            head.secure = Some(session());
            assert!(redirect(&head, Some(*port), false, "id").is_none(), "it came by TLS");
        }
    }

    #[test]
    fn what_a_trusted_proxy_took_by_tls_is_not_sent_round_and_round() {
        let rows: &[(&str, &str, bool)] = &[
            ("X-Forwarded-Proto", "https", true),
            ("X-Forwarded-Proto", "HTTPS, http", true),
            ("X-Forwarded-Proto", "http, https", false),
            ("X-Forwarded-Proto", "http", false),
            ("Forwarded", "for=192.0.2.1;proto=https;by=10.0.0.1, for=x;proto=http", true),
            ("Forwarded", "for=192.0.2.1; Proto=\"https\"", true),
            ("Forwarded", "for=192.0.2.1, proto=https", false),
            ("X-Forwarded-For", "192.0.2.1", false),
        ];
        for (name, value, by_tls) in rows {
            let mut head = RequestHead::blank("192.0.2.1:5".parse().unwrap());
            (head.host, head.target) = (Some("a.test".into()), "/".into());
            head.fields.push(name, value.as_bytes());
            assert_eq!(redirect(&head, Some(443), true, "id").is_none(), *by_tls, "{name}: {value}");
            assert!(redirect(&head, Some(443), false, "id").is_some(), "{name}: {value} of a stranger");
        }
    }

    #[test]
    fn what_is_ours_is_answered_and_a_request_for_no_host_is_refused() {
        let mut head = RequestHead::blank("192.0.2.1:5".parse().unwrap());
        head.target = "/-/x".into();
        assert!(redirect(&head, Some(443), false, "id").is_none());
        head.target = "/x".into();
        assert_eq!(redirect(&head, Some(443), false, "id").map(|answer| answer.status), Some(400));
    }

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
