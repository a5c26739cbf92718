//! What one hop does to a request: which fields about the client go on, and how far OPTIONS and TRACE travel.

use std::net::IpAddr;

use serde_json::json;

use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, request};

each_engine! {
    what_strangers_say_of_the_client_is_dropped,
    what_trusted_proxies_say_of_the_client_is_kept,
    max_forwards_of_nothing_is_answered_by_us,
    max_forwards_counts_down_on_the_way,
    a_trace_gives_no_secret_away,
}

/// Each is sent with its spelling with `_`, too, which some backends take for the same.
const CLAIMS: [(&str, &str); 10] = [
    ("X-Forwarded-Port", "X_Forwarded_Port"),
    ("X-Forwarded-Prefix", "X-Forwarded_Prefix"),
    ("X-Forwarded-Ssl", "x_forwarded_ssl"),
    ("X-Forwarded-Server", "X_FORWARDED_SERVER"),
    ("X-Client-IP", "X_Client_IP"),
    ("True-Client-IP", "True_Client-IP"),
    ("CF-Connecting-IP", "CF_Connecting_IP"),
    ("X-Real-IP", "X_Real_IP"),
    ("X-Cluster-Client-IP", "X_Cluster_Client_IP"),
    ("Client-IP", "CLIENT_IP"),
];

fn what_strangers_say_of_the_client_is_dropped(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    for (name, disguised) in CLAIMS {
        let fields = [(name, "6.6.6.6"), (disguised, "6.6.6.6"), ("X-Kept", "1")];
        request(balancer.address, "GET", "/", &fields, b"").expect(200);
        let seen = backend.seen().pop().unwrap();
        assert!(seen.all(name).is_empty() && seen.all(disguised).is_empty(), "{:?}", seen.lines());
        assert!(!seen.lines().iter().any(|line| line.contains("6.6.6.6")), "{:?}", seen.lines());
        assert_eq!(seen.all("x-kept"), ["1"]);
    }
}

fn what_trusted_proxies_say_of_the_client_is_kept(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.trusted_proxies", json!(["127.0.0.9"]))
        .start();
    let mut conn = Conn::from(IpAddr::from([127, 0, 0, 9]), balancer.address);
    for (name, disguised) in CLAIMS {
        conn.ask("GET", "/", &[(name, "6.6.6.6"), (disguised, "7.7.7.7")], b"").expect(200);
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.all(name), ["6.6.6.6"], "{:?}", seen.lines());
        assert!(seen.all(disguised).is_empty(), "{:?}", seen.lines());
    }
}

fn max_forwards_of_nothing_is_answered_by_us(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0 }))
        .start();
    // No token is spent on them.
    for _ in 0..3 {
        let options = request(balancer.address, "OPTIONS", "/x", &[("Max-Forwards", "0")], b"").expect(204);
        assert!(options.field("allow").is_some_and(|allow| allow.contains("GET")), "{options:?}");
    }
    let fields = [("Max-Forwards", "0"), ("Via", "1.0 front"), ("X-Some", "thing")];
    let trace = request(balancer.address, "TRACE", "/x?y", &fields, b"").expect(200);
    assert_eq!(trace.field("content-type"), Some("message/http"));
    let text = trace.text();
    assert!(text.starts_with("TRACE /x?y HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    for line in ["\r\nMax-Forwards: 0\r\n", "\r\nVia: 1.0 front\r\n", "\r\nX-Some: thing\r\n"] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    for bad in ["", "x", "-1", "1, 0"] {
        request(balancer.address, "OPTIONS", "/x", &[("Max-Forwards", bad)], b"").problem(400);
    }
    let twice = [("Max-Forwards", "1"), ("Max-Forwards", "0")];
    request(balancer.address, "TRACE", "/x", &twice, b"").problem(400);
    assert!(backend.seen().is_empty(), "{:#?}", backend.seen());
    // For other methods it means nothing (RFC 9110 §7.6.2).
    request(balancer.address, "GET", "/x", &[("Max-Forwards", "0")], b"").expect(200);
    assert_eq!(backend.only().all("max-forwards"), ["0"]);
}

fn max_forwards_counts_down_on_the_way(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    for (sent, goes_on) in
        [("1", "0"), ("10", "9"), ("007", "6"), ("99999999999999999999", "18446744073709551614")]
    {
        for method in ["OPTIONS", "TRACE"] {
            request(balancer.address, method, "/x", &[("Max-Forwards", sent)], b"").expect(200);
            assert_eq!(backend.seen().pop().unwrap().all("max-forwards"), [goes_on], "{method} {sent}");
        }
    }
    request(balancer.address, "OPTIONS", "/x", &[], b"").expect(200);
    assert!(backend.seen().pop().unwrap().all("max-forwards").is_empty());
}

fn a_trace_gives_no_secret_away(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.key", json!(["header:X-Customer", "ip"]))
        .start();
    let fields = [
        ("Max-Forwards", "0"),
        ("Authorization", "Bearer hunter2"),
        ("Proxy-Authorization", "Basic hunter2"),
        ("Cookie", "session=hunter2"),
        ("X-Api-Key", "hunter2"),
        ("X-Origin-Secret", "hunter2"),
        ("X-Customer", "hunter2"),
    ];
    let trace = request(balancer.address, "TRACE", "/", &fields, b"").expect(200).text();
    assert!(trace.starts_with("TRACE / HTTP/1.1\r\n") && !trace.contains("hunter2"), "{trace}");
}
