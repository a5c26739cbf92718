//! Spans of requests, as a collector of ours gets them.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::backend::{OK, Seen, Then, refusing};
use crate::support::engine::each_engine;
use crate::support::secure::Papers;
use crate::support::tls_ends::SecureBackend;
use crate::support::{Backend, Balancer, Engine, Setup, request, until};

each_engine! {
    a_request_is_a_span_and_so_is_each_attempt,
    what_is_refused_has_a_span_and_calls_of_ours_have_none,
    a_parent_that_is_not_sampled_goes_on_as_it_came,
    the_rest_is_sent_at_the_end,
    a_collector_that_fails_holds_up_neither_a_request_nor_the_end,
    a_reload_names_another_collector,
    a_replaced_collector_gets_the_rest_at_the_end,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn collector() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
}

fn traced(engine: Engine, collector: &Backend) -> Setup {
    Setup::on(engine).set("otel.endpoint", json!(collector.url()))
}

/// All spans that a collector has.
fn spans(collector: &Backend) -> Vec<Value> {
    let of = |seen: Seen| {
        assert_eq!(seen.request_line(), "POST /v1/traces HTTP/1.1");
        let mut body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].take();
        spans.as_array().expect("a list").clone()
    };
    collector.seen().into_iter().flat_map(of).collect()
}

/// Waits for so many spans of that kind, 2 of requests, 3 of attempts. There are no more then.
#[track_caller]
fn wait_for(collector: &Backend, kind: u8, count: usize) -> Vec<Value> {
    until("the spans are there", || {
        let mut spans = spans(collector);
        spans.retain(|span| span["kind"] == kind);
        assert!(spans.len() <= count, "{spans:#?}");
        (spans.len() == count).then_some(spans)
    })
}

fn said(span: &Value, key: &str) -> Value {
    let all = span["attributes"].as_array().expect("a list");
    let value = all.iter().find(|one| one["key"] == key).map_or(&Value::Null, |one| &one["value"]);
    value.get("stringValue").or(value.get("intValue")).cloned().unwrap_or_default()
}

fn spans_sent(balancer: &Balancer) -> f64 {
    balancer.metric("balancer_otel_spans_sent_total")
}

fn a_request_is_a_span_and_so_is_each_attempt(engine: Engine) {
    let (collector, backend) = (collector(), Backend::named("b"));
    let balancer = traced(engine, &collector)
        .backend(refusing())
        .backend(backend.address())
        .set("balancing.strategy", json!("first"))
        .set("log.access", json!(true))
        .start();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let fields = [("traceparent", &*parent), ("tracestate", "a=1"), ("User-Agent", "probe/1")];
    request(balancer.address, "GET", "/x?key=secret", &fields, b"").expect(200);

    let server = wait_for(&collector, 2, 1).remove(0);
    let attempts = wait_for(&collector, 3, 2);
    assert_eq!((&server["traceId"], &server["parentSpanId"]), (&json!(TRACE), &json!("00f067aa0ba902b7")));
    assert_eq!((&server["name"], &server["traceState"]), (&json!("GET default"), &json!("a=1")));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/x"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("user_agent.original", "probe/1"),
        ("client.address", "127.0.0.1"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(said(&server, key), value, "{key}");
    }
    assert!(!server.to_string().contains("secret"), "{server}");
    for (attempt, (name, error, status, resent)) in attempts.iter().zip([
        ("GET a", json!("connect"), json!(null), json!(null)),
        ("GET b", json!(null), json!("200"), json!("1")),
    ]) {
        assert_eq!((&attempt["name"], &attempt["traceId"]), (&json!(name), &json!(TRACE)));
        assert_eq!(attempt["parentSpanId"], server["spanId"]);
        assert_eq!(said(attempt, "error.type"), error);
        assert_eq!(said(attempt, "http.response.status_code"), status);
        assert_eq!(said(attempt, "http.request.resend_count"), resent);
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        let (start, end) = (time(attempt, "startTimeUnixNano"), time(attempt, "endTimeUnixNano"));
        let outer = (time(&server, "startTimeUnixNano"), time(&server, "endTimeUnixNano"));
        assert!(outer.0 <= start && start <= end && end <= outer.1, "{attempt} in {server}");
    }
    // The backend's own spans hang below the attempt.
    let seen = backend.only();
    let told = format!("00-{TRACE}-{}-01", attempts[1]["spanId"].as_str().unwrap());
    assert_eq!((seen.all("traceparent"), seen.all("tracestate")), (vec![told], vec!["a=1".to_owned()]));

    // Without a parent the trace begins here, and the log knows it.
    request(balancer.address, "GET", "/root", &[], b"").expect(200);
    let server = wait_for(&collector, 2, 2).remove(1);
    assert_eq!(server["parentSpanId"], json!(null));
    let line: Value = serde_json::from_str(&balancer.proc.wait_out("\"path\":\"/root\"")).expect("JSON");
    assert_eq!(line["trace_id"], server["traceId"]);
    until("what was taken is counted", || (spans_sent(&balancer) >= 5.0).then_some(()));
}

fn what_is_refused_has_a_span_and_calls_of_ours_have_none(engine: Engine) {
    let (collector, backend) = (collector(), Backend::named("a"));
    let balancer = traced(engine, &collector)
        .backend(backend.address())
        .set("rate_limit.default", json!("1/d"))
        .set(
            "routes",
            json!([{ "path": "/api", "pool": "default" }, { "path": "/gone", "respond": { "status": 410 } }]),
        )
        .start();
    for path in ["/-/livez", "/-/readyz", "/-/metrics", "/-/v1/status", "/-/dashboard", "/limits"] {
        balancer.get(path);
    }
    balancer.get("/api/1").expect(200);
    balancer.get("/gone/2").expect(429);
    balancer.limit("127.0.0.1", 9, 1);
    balancer.get("/gone/3").expect(410);
    let told = |span: &Value| {
        (
            said(span, "url.path"),
            said(span, "http.response.status_code"),
            said(span, "http.route"),
            span["name"].clone(),
        )
    };
    let mut all: Vec<_> = wait_for(&collector, 2, 3).iter().map(told).collect();
    // They come from several threads.
    all.sort_by_key(|(path, ..)| path.to_string());
    let expect =
        |path, status, route| (json!(path), json!(status), json!(route), json!(format!("GET {route}")));
    assert_eq!(
        all,
        [
            expect("/api/1", "200", "/api"),
            expect("/gone/2", "429", "/gone"),
            expect("/gone/3", "410", "/gone")
        ]
    );
    assert_eq!(wait_for(&collector, 3, 1).len(), 1);
}

fn a_parent_that_is_not_sampled_goes_on_as_it_came(engine: Engine) {
    let (collector, backend) = (collector(), Backend::named("a"));
    let balancer = traced(engine, &collector).backend(backend.address()).start();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let fields = [("traceparent", &*parent), ("tracestate", "a=1")];
    request(balancer.address, "GET", "/not", &fields, b"").expect(200);
    let seen = backend.only();
    assert_eq!((seen.all("traceparent"), seen.all("tracestate")), (vec![parent], vec!["a=1".to_owned()]));
    // Spans come in order: that of the first would be before this one.
    balancer.get("/is").expect(200);
    assert_eq!(said(&wait_for(&collector, 2, 1)[0], "url.path"), "/is");
}

fn the_rest_is_sent_at_the_end(engine: Engine) {
    let (collector, backend) = (collector(), Backend::named("a"));
    let mut balancer = traced(engine, &collector).backend(backend.address()).start();
    balancer.get("/last").expect(200);
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0));
    assert_eq!(said(&wait_for(&collector, 2, 1)[0], "url.path"), "/last");
}

fn a_collector_that_fails_holds_up_neither_a_request_nor_the_end(engine: Engine) {
    let backend = Backend::named("a");
    let (deaf, refuses) = (Backend::deaf(), refusing());
    let garbage = Backend::answering("\0\0\x12\x04garbage\r\n\r\n");
    let wrong = Backend::answering("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
    for (url, cause) in [
        (deaf.url(), None),
        (format!("http://{refuses}"), Some("does not take spans: connection refused")),
        (garbage.url(), Some("is not HTTP/1.1")),
        (wrong.url(), Some("refuses spans: it answered 400")),
    ] {
        let setup = Setup::on(engine).backend(backend.address()).set("otel.endpoint", json!(url));
        let mut balancer = setup.start();
        (0..3).for_each(|_| drop(balancer.get("/").expect(200)));
        if let Some(cause) = cause {
            balancer.proc.wait_err(0, cause, |line| line.contains(cause));
            balancer.get("/").expect(200);
        }
        if cause.is_some_and(|cause| cause.contains("400")) {
            let dropped = "balancer_otel_spans_dropped_total{reason=\"refused\"}";
            // A request and its attempt.
            until("what was refused is counted", || (balancer.metric(dropped) >= 2.0).then_some(()));
        }
        if url == deaf.url() {
            until("a post is under way", || (!deaf.seen().is_empty()).then_some(()));
        }
        let since = Instant::now();
        balancer.proc.signal(Signal::TERM);
        assert_eq!(balancer.proc.wait().code(), Some(0), "{url}");
        // 2 s are for the spans; a try may take 10 s.
        assert!(since.elapsed().as_secs() < 9, "{url}: {:?}", since.elapsed());
        let lines = balancer.proc.err();
        let told = lines.lines().filter(|line| line.contains("otel: ") && line.contains("WARN")).count();
        assert!(told <= 1, "{url}: {lines}");
    }
}

fn a_reload_names_another_collector(engine: Engine) {
    let (one, other, backend) = (collector(), collector(), Backend::named("a"));
    let setup = traced(engine, &one).backend(backend.address());
    let mut balancer = setup.start();
    balancer.get("/one").expect(200);
    let reload = |setup: &Setup| {
        setup.write();
        let told = balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200).json();
        assert_eq!(told["needs_restart"], json!([]), "{told}");
        told["changed"].clone()
    };
    let changed = reload(&setup.clone().set("otel.endpoint", json!(other.url())));
    assert_eq!(changed, json!(["otel.endpoint"]));
    balancer.get("/other").expect(200);
    // What the first was to get it gets.
    assert_eq!(said(&wait_for(&one, 2, 1)[0], "url.path"), "/one");
    assert_eq!(said(&wait_for(&other, 2, 1)[0], "url.path"), "/other");
    reload(&setup.clone().set("otel", Value::Null));
    balancer.get("/none").expect(200);
    assert_eq!(backend.seen().pop().expect("asked").all("traceparent"), [""; 0]);
    // Nothing is sent after its end.
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0));
    assert_eq!((wait_for(&one, 2, 1).len(), wait_for(&other, 2, 1).len()), (1, 1));
}

/// It is still busy with the batch before when the process is to end.
fn a_replaced_collector_gets_the_rest_at_the_end(engine: Engine) {
    let slow = Backend::scripted(|_, stream| {
        thread::sleep(Duration::from_millis(500));
        stream.write_all(OK).map_or(Then::Close, |()| Then::Keep)
    });
    let backend = Backend::named("a");
    let setup = traced(engine, &slow).backend(backend.address());
    let mut balancer = setup.start();
    balancer.get("/first").expect(200);
    until("a post is under way", || (!slow.seen().is_empty()).then_some(()));
    balancer.get("/last").expect(200);
    setup.set("otel", Value::Null).write();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0));
    assert_eq!(said(&wait_for(&slow, 2, 2)[1], "url.path"), "/last");
}

/// Known by the system's roots, of which there is one of ours here.
#[test]
fn a_collector_is_spoken_to_by_tls() {
    let setup = Setup::auto();
    let folder = setup.folder().to_owned();
    Papers::named(&folder, "ca").pair("collector", &["localhost"]);
    let (collector, backend) = (SecureBackend::echoing(&folder, "collector"), Backend::named("a"));
    let roots = folder.join("ca.pem");
    let setup = setup.backend(backend.address()).env("SSL_CERT_FILE", roots.to_str().expect("UTF-8"));
    for (host, cause) in [("localhost", None), ("127.0.0.1", Some("not valid for name"))] {
        let url = format!("https://{host}:{}", collector.address.port());
        let balancer = setup.clone().set("otel.endpoint", json!(url)).start();
        balancer.get("/").expect(200);
        match cause {
            None => until("it has the spans", || (spans_sent(&balancer) >= 2.0).then_some(())),
            Some(cause) => {
                balancer.proc.wait_err(0, cause, |line| line.contains(cause));
                assert_eq!(spans_sent(&balancer), 0.0);
            }
        }
    }
}

/// Roots are read again after a session that failed.
#[test]
fn a_collector_is_trusted_once_the_system_has_its_root() {
    let setup = Setup::auto();
    let folder = setup.folder().to_owned();
    Papers::named(&folder, "ca").pair("collector", &["localhost"]);
    Papers::named(&folder, "other");
    let roots = folder.join("roots.pem");
    std::fs::copy(folder.join("other.pem"), &roots).expect("copied");
    let (collector, backend) = (SecureBackend::echoing(&folder, "collector"), Backend::named("a"));
    let url = format!("https://localhost:{}", collector.address.port());
    let setup = setup.backend(backend.address()).set("otel.endpoint", json!(url));
    let balancer = setup.env("SSL_CERT_FILE", roots.to_str().expect("UTF-8")).start();
    balancer.get("/").expect(200);
    balancer.proc.wait_err(0, "the root is unknown", |line| line.contains("UnknownIssuer"));
    std::fs::copy(folder.join("ca.pem"), &roots).expect("copied");
    until("it has the spans", || (spans_sent(&balancer) >= 2.0).then_some(()));
}
