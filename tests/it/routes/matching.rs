//! Which route a request goes by.

use serde_json::{Value, json};

use super::{named, routed};
use crate::support::engine::each_engine;
use crate::support::frames::{Frames, fields};
use crate::support::{Conn, Engine, request, until};

each_engine! {
    the_host_decides_and_then_the_longest_path,
    a_request_without_a_host_goes_by_routes_for_any,
    what_no_route_takes_goes_to_the_backends_at_the_top,
    our_own_paths_and_calls_stay_ours,
    a_host_that_some_take_for_another_is_400,
    a_reload_swaps_all_routes,
}

fn table() -> Value {
    json!([
        named("any", Value::Null, "/x/"),
        named("api", json!("API.example.com."), "/"),
        named("api v2", json!("api.example.com"), "/v2"),
        named("below", json!("*.example.com"), "/"),
        named("deeper", json!("*.b.example.com"), "/"),
        named("v6", json!("[2001:db8::1]"), "/"),
        named("v4", json!("192.0.2.1"), "/"),
        named("bare", json!("bare.test"), "/only"),
    ])
}

fn the_host_decides_and_then_the_longest_path(engine: Engine) {
    let (_backend, balancer) = routed(engine, table());
    let rows = [
        ("api.example.com", "/", "api"),
        ("api.example.com:8080", "/v3", "api"),
        ("API.EXAMPLE.COM.", "/v2", "api v2"),
        ("api.example.com", "/v2/deep?x=/", "api v2"),
        ("api.example.com", "/v22", "api"),
        ("api.example.com", "//x/..//%762", "api v2"),
        ("api.example.com", "/x/y", "api"),
        ("www.example.com", "/", "below"),
        ("a.b.example.com:1", "/", "deeper"),
        ("a.a.b.example.com", "/", "deeper"),
        ("b.example.com", "/", "below"),
        ("[2001:db8:0:0::1]:80", "/", "v6"),
        ("192.0.2.1:80", "/", "v4"),
        // None of its host's own routes takes it.
        ("bare.test", "/x/y", "any"),
        ("bare.test", "/only/x", "bare"),
        ("else.test", "/x/y", "any"),
        ("example.com", "/x/", "any"),
        ("else.test", "/x", "a"),
        ("bare.test", "/", "a"),
        ("example.com", "/", "a"),
    ];
    let mut conn = Conn::open(balancer.address);
    for (host, target, expected) in rows {
        let answer = conn.ask("GET", target, &[("Host", host)], b"").expect(200);
        assert_eq!(answer.text(), expected, "{host} {target}");
    }
}

fn a_request_without_a_host_goes_by_routes_for_any(engine: Engine) {
    let (_backend, balancer) = routed(engine, table());
    for (target, expected) in [("/x/1", "any"), ("/", "a")] {
        let mut conn = Conn::open(balancer.address);
        conn.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!(conn.read("GET").expect("an answer").text(), expected, "{target}");
    }
    // The target's own host counts (RFC 9112 §3.2.2).
    let mut conn = Conn::open(balancer.address);
    conn.send("GET http://api.example.com/v2 HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    assert_eq!(conn.read("GET").expect("an answer").text(), "api v2");
}

fn what_no_route_takes_goes_to_the_backends_at_the_top(engine: Engine) {
    let (backend, balancer) =
        routed(engine, json!([{ "host": "a.test", "pool": "default", "add_prefix": "/of-a" }]));
    let ask = |host: &str| request(balancer.address, "GET", "/p", &[("Host", host)], b"").expect(200);
    ask("a.test");
    ask("b.test");
    let lines: Vec<String> = backend.seen().iter().map(|seen| seen.request_line()).collect();
    assert_eq!(lines, ["GET /of-a/p HTTP/1.1", "GET /p HTTP/1.1"]);
}

/// A route for everything takes neither the API nor what is about the server, or about the way to it.
fn our_own_paths_and_calls_stay_ours(engine: Engine) {
    let (backend, balancer) = routed(engine, json!([{ "deny": ["0.0.0.0/0", "::/0"], "pool": "default" }]));
    balancer.get("/").problem(403);
    balancer.get("/-/livez").expect(200);
    balancer.get("/-/v1/status").expect(200);
    balancer.get("/limits").expect(200);
    let options = request(balancer.address, "OPTIONS", "*", &[], b"").expect(204);
    assert!(options.field("allow").is_some(), "{options:?}");
    let trace = request(balancer.address, "TRACE", "/", &[("Max-Forwards", "0")], b"").expect(200);
    assert_eq!(trace.field("content-type"), Some("message/http"));
    assert!(backend.seen().is_empty());
}

fn a_reload_swaps_all_routes(engine: Engine) {
    let backend = crate::support::Backend::named("a");
    let setup = super::setup(engine, &backend, json!([named("old", Value::Null, "/x")]));
    let balancer = setup.start();
    assert_eq!(balancer.get("/x").expect(200).text(), "old");
    setup.clone().set("routes", json!([named("new", Value::Null, "/y")])).write();
    balancer.proc.signal(rustix::process::Signal::HUP);
    until("the new routes are in force", || (balancer.get("/y").text() == "new").then_some(()));
    assert_eq!(balancer.get("/x").expect(200).text(), "a");
    // One that is wrong changes nothing.
    setup.clone().set("routes", json!([{ "pool": "none" }])).write();
    balancer.proc.signal(rustix::process::Signal::HUP);
    balancer.proc.wait_err(0, "the fault is told", |line| line.contains("routes[0].pool: names no pool"));
    assert_eq!(balancer.get("/y").expect(200).text(), "new");
}

#[test]
fn http_2_goes_by_the_same_routes() {
    let backend = crate::support::Backend::named("a");
    let routes = json!([
        { "host": "a.test", "path": "/old", "redirect": { "to": "https://b.test" } },
        { "host": "a.test", "path": "/secret", "deny": "127.0.0.1", "pool": "default" },
        { "host": "a.test", "path": "/img", "pool": "default", "strip_prefix": true },
    ]);
    let balancer = super::setup(Engine::Epoll, &backend, routes).set("frontend.h2c", json!(true)).start();
    let head = |authority: &str, path: &str| {
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)])
    };
    let frames = Frames::open(balancer.address);
    assert_eq!(frames.ask(1, &head("A.test:80", "/old/x")), Ok(308));
    assert_eq!(frames.ask(3, &head("a.test.", "/secret")), Ok(403));
    assert_eq!(frames.ask(5, &head("b.test", "/secret")), Ok(200));
    assert_eq!(frames.ask(7, &head("a.test", "/img/x")), Ok(200));
    let lines: Vec<String> = backend.seen().iter().map(|seen| seen.request_line()).collect();
    assert_eq!(lines, ["GET /secret HTTP/1.1", "GET /x HTTP/1.1"]);
}

fn a_host_that_some_take_for_another_is_400(engine: Engine) {
    let (backend, balancer) = routed(engine, json!([named("admin", json!("admin.test"), "/")]));
    for host in ["admin%2etest", "%61dmin.test", "admin.test..", "admin..test", ".admin.test", ".", "..:80"] {
        let mut conn = Conn::open(balancer.address);
        conn.ask("GET", "/", &[("Host", host)], b"").problem(400);
        let mut conn = Conn::open(balancer.address);
        conn.ask("GET", &format!("http://{host}/"), &[], b"").problem(400);
    }
    assert!(backend.seen().is_empty());
}
