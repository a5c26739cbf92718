use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::otel::span::AskedFor;
use balancer_http::trace::TraceParent;

/// Everything that there can be.
fn whole() -> RequestSpans {
    let attempt = |id, resent, result| AttemptSpan {
        id,
        start: 1_700_000_000_000_000_010,
        end: 1_700_000_000_000_000_020,
        to: ([127, 0, 0, 1], 9001).into(),
        host: "a.test".into(),
        is_secure: true,
        backend: Arc::from("eu/a"),
        resent,
        result,
    };
    RequestSpans {
        place: TraceParent { trace: 0xa, span: 0xb, flags: 1 },
        parent: Some(0xc),
        state: "v=1".into(),
        start: 1_700_000_000_000_000_001,
        end: 1_700_000_000_000_000_099,
        asked: AskedFor {
            method: "GET".into(),
            path: "/api/x".into(),
            host: Some("[::1]:8443".into()),
            is_secure: true,
            version: Some("2"),
            client: Some("10.0.0.7".parse().unwrap()),
            peer: Some("[::ffff:10.0.0.1]:5".parse().unwrap()),
            agent: "curl/8".into(),
        },
        route: Some(("/api".into(), Arc::from("api"))),
        pool: Some(Arc::from("eu")),
        sent_path: Some("/inside".into()),
        status: Some(200),
        error: None,
        attempts: vec![attempt(0xd, 0, Some(Err("reset"))), attempt(0xe, 1, Some(Ok(404)))],
    }
}

fn spans(request: &RequestSpans) -> Vec<Value> {
    let sent = encode(std::slice::from_ref(request), "i");
    let mut sent: Value = serde_json::from_slice(&sent).expect("JSON");
    let all = &mut sent["resourceSpans"][0];
    let resource = json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": "balancer"}},
        {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
        {"key": "service.instance.id", "value": {"stringValue": "i"}},
    ]});
    assert_eq!(all["resource"], resource);
    match all["scopeSpans"][0]["spans"].take() {
        Value::Array(spans) => spans,
        other => panic!("{other}"),
    }
}

/// Attributes as `key=value`, a number without quotes.
fn attributes(span: &Value) -> Vec<String> {
    let shown = |one: &Value| {
        let (key, value) = (one["key"].as_str().unwrap(), &one["value"]);
        let number = value.get("intValue").map(|number| number.as_str().unwrap().to_owned());
        format!("{key}={}", number.unwrap_or_else(|| value["stringValue"].to_string()))
    };
    span["attributes"].as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn a_request_and_its_attempts_in_otlps_words() {
    let all = spans(&whole());
    let [server, first, second] = &all[..] else { panic!("{all:?}") };
    let without = |span: &Value| {
        let mut span = span.clone();
        span.as_object_mut().unwrap().remove("attributes");
        span
    };
    assert_eq!(
        without(server),
        json!({
            "traceId": "0000000000000000000000000000000a", "spanId": "000000000000000b",
            "parentSpanId": "000000000000000c", "traceState": "v=1", "name": "GET /api", "kind": 2, "flags": 0x301,
            "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000000000099",
        })
    );
    let expected = [
        "http.request.method=\"GET\"",
        "url.path=\"/api/x\"",
        "url.scheme=\"https\"",
        "network.protocol.version=\"2\"",
        "user_agent.original=\"curl/8\"",
        "balancer.pool=\"eu\"",
        "http.route=\"/api\"",
        "balancer.route=\"api\"",
        "server.address=\"::1\"",
        "server.port=8443",
        "client.address=\"10.0.0.7\"",
        "network.peer.address=\"10.0.0.1\"",
        "network.peer.port=5",
        "http.response.status_code=200",
    ];
    assert_eq!(attributes(server), expected);
    assert_eq!(
        without(first),
        json!({
            "traceId": "0000000000000000000000000000000a", "spanId": "000000000000000d",
            "parentSpanId": "000000000000000b", "traceState": "v=1", "name": "GET eu/a", "kind": 3, "flags": 0x101,
            "startTimeUnixNano": "1700000000000000010", "endTimeUnixNano": "1700000000000000020",
            "status": {"code": 2},
        })
    );
    let expected = [
        "http.request.method=\"GET\"",
        "url.path=\"/inside\"",
        "url.scheme=\"https\"",
        "balancer.pool=\"eu\"",
        "balancer.backend=\"eu/a\"",
        "server.address=\"a.test\"",
        "server.port=9001",
        "network.peer.address=\"127.0.0.1\"",
        "network.peer.port=9001",
        "error.type=\"reset\"",
    ];
    assert_eq!(attributes(first), expected);
    let second = (second["spanId"].clone(), attributes(second));
    assert_eq!(second.0, "000000000000000e");
    for part in [
        "url.path=\"/inside\"",
        "http.request.resend_count=1",
        "http.response.status_code=404",
        "error.type=\"404\"",
    ] {
        assert!(second.1.iter().any(|one| one == part), "{part}: {second:?}");
    }
}

#[test]
fn names_and_errors() {
    let of = |method: &str, route: bool, pool: bool, status, error| {
        let mut request = RequestSpans { status, error, attempts: Vec::new(), ..whole() };
        request.asked.method = method.into();
        request.route = request.route.filter(|_| route);
        request.pool = request.pool.filter(|_| pool);
        let span = spans(&request).remove(0);
        let said = attributes(&span);
        let said = |key: &str| {
            said.iter().find_map(|one| one.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
        };
        let (method, error) = (said("http.request.method").unwrap(), said("error.type"));
        (span["name"].as_str().unwrap().to_owned(), method, span["status"]["code"] == 2, error)
    };
    let expect = |name: &str, method: &str, error: Option<&str>| {
        (name.into(), format!("\"{method}\""), error.is_some(), error.map(|error| format!("\"{error}\"")))
    };
    assert_eq!(of("GET", true, true, Some(200), None), expect("GET /api", "GET", None));
    assert_eq!(of("POST", false, true, Some(429), None), expect("POST eu", "POST", None));
    assert_eq!(of("PURGE", false, false, Some(404), None), expect("HTTP", "_OTHER", None));
    assert_eq!(of("get", false, true, Some(500), None), expect("HTTP eu", "_OTHER", Some("500")));
    assert_eq!(of("other", false, false, Some(204), None), expect("HTTP", "_OTHER", None));
    assert_eq!(of("", false, false, Some(400), None), expect("HTTP", "_OTHER", None));
    let full = of("GET", false, false, Some(503), Some("queue_full"));
    assert_eq!(full, expect("GET", "GET", Some("queue_full")));
    let gone = of("GET", false, true, None, Some("client_gone"));
    assert_eq!(gone, expect("GET eu", "GET", Some("client_gone")));
}

#[test]
fn hosts_are_taken_apart() {
    for (text, expected) in [
        ("a.test", ("a.test", None)),
        ("a.test:80", ("a.test", Some(80))),
        ("[::1]", ("::1", None)),
        ("[::1]:8443", ("::1", Some(8443))),
        ("a:", ("a", None)),
        ("a:99999", ("a", None)),
        ("", ("", None)),
    ] {
        assert_eq!(host_and_port(text), expected, "{text}");
    }
}

proptest! {
    /// Whatever clients send is one JSON document, out of which it comes as it was.
    #[test]
    fn texts_survive(path in ".*", agent in ".*", host in ".*", trace in 1..u128::MAX, span in 1..u64::MAX) {
        let mut request = whole();
        (request.asked.path, request.asked.agent) = (format!("/{path}"), agent.clone());
        request.asked.host = Some(host);
        request.place = TraceParent { trace, span, flags: 1 };
        let server = spans(&request).remove(0);
        let text = |key: &str| {
            let all = server["attributes"].as_array().unwrap();
            let found = all.iter().find(|one| one["key"] == key);
            found.map(|one| one["value"]["stringValue"].as_str().unwrap().to_owned())
        };
        prop_assert_eq!(text("url.path"), Some(format!("/{path}")));
        prop_assert_eq!(text("user_agent.original"), Some(agent).filter(|agent| !agent.is_empty()));
        prop_assert_eq!(u128::from_str_radix(server["traceId"].as_str().unwrap(), 16), Ok(trace));
        prop_assert_eq!(u64::from_str_radix(server["spanId"].as_str().unwrap(), 16), Ok(span));
        prop_assert_eq!(server["traceId"].as_str().unwrap().len(), 32);
    }
}
