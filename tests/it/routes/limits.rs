//! What requests by a route use besides a token of their client's limit.

use std::io::Write;

use serde_json::{Value, json};

use super::{routed, setup};
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Gate, Then, request, until};
use crate::terms::{bucket, violated};

each_engine! {
    a_limit_is_each_clients_own_and_named_like_its_route,
    a_bucket_that_two_routes_name_is_one,
    every_spelling_costs_what_the_route_costs,
    an_exempt_client_is_not_asked,
    requests_at_once_are_bounded_by_route_and_client,
    preflights_at_once_are_bounded_as_well,
    no_number_of_routes_forgets_what_was_spent,
    the_log_and_the_api_name_what_refused,
}

fn a_limit_is_each_clients_own_and_named_like_its_route(engine: Engine) {
    let routes = json!([{ "path": "/api", "pool": "default", "limit": "2/d" }]);
    let (_backend, balancer) = routed(engine, routes);
    let answer = balancer.get("/api/x").expect(200);
    assert_eq!(answer.field("ratelimit-policy"), Some(r#""/api";q=2;w=86400"#));
    assert!(answer.field("ratelimit").is_some_and(|value| value.starts_with(r#""/api";r=1;"#)), "{answer:?}");
    balancer.get("/api").expect(200);
    let refused = balancer.get("/api");
    assert_eq!(violated(&refused), json!(["/api"]));
    assert!(refused.field("retry-after").is_some());
    balancer.get_from("127.0.0.2", "/api").expect(200);
    let other = balancer.get("/").expect(200);
    assert_eq!(other.field("ratelimit"), None);
}

fn a_bucket_that_two_routes_name_is_one(engine: Engine) {
    let routes = json!([
        { "path": "/a", "pool": "default", "buckets": [bucket("shared", 3)] },
        { "path": "/b", "respond": { "body": "b" }, "buckets": [bucket("shared", 3), bucket("own", 1)] },
    ]);
    let backend = Backend::named("a");
    let balancer = setup(engine, &backend, routes)
        .set("rate_limit.default", json!({ "buckets": [bucket("all", 9)] }))
        .start();
    balancer.get("/a").expect(200);
    let answer = balancer.get("/b").expect(200);
    let policies = r#""all";q=9;w=86400, "shared";q=3;w=86400, "own";q=1;w=86400"#;
    assert_eq!(answer.field("ratelimit-policy"), Some(policies));
    assert_eq!(violated(&balancer.get("/b")), json!(["own"]));
    // That one took nothing of the others.
    balancer.get("/a").expect(200);
    assert_eq!(violated(&balancer.get("/a")), json!(["shared"]));
    assert!(
        balancer.get("/").expect(200).field("ratelimit").is_some_and(|rest| rest.contains(r#""all";r=5"#))
    );
}

fn every_spelling_costs_what_the_route_costs(engine: Engine) {
    let routes = json!([{ "path": "/login", "pool": "default", "limit": "3/d" }]);
    let (_backend, balancer) = routed(engine, routes);
    for target in ["/x/..%2flogin", "/LOGIN", "/login;x"] {
        balancer.get(target).expect(200);
    }
    balancer.get("/login").expect(429);
    balancer.get("/x/..%2flogin").expect(429);
    balancer.get("/x").expect(200);
}

fn an_exempt_client_is_not_asked(engine: Engine) {
    let routes = json!([{ "pool": "default", "limit": "1/d", "max_in_flight": 1 }]);
    let (_backend, balancer) = routed(engine, routes);
    balancer.api("POST", "/-/v1/limits", &json!({ "client_id": "127.0.0.1", "mode": "exempt" })).expect(201);
    for _ in 0..3 {
        balancer.get("/").expect(200);
    }
}

fn requests_at_once_are_bounded_by_route_and_client(engine: Engine) {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |seen, stream| {
        if seen.request_line().starts_with("GET /slow") {
            held.wait();
        }
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let routes = json!([
        { "path": "/slow", "pool": "default", "max_in_flight": 2 },
        { "path": "/slow/er", "pool": "default", "max_in_flight": 1 },
    ]);
    let balancer = setup(engine, &backend, routes).start();
    let begin = |client: &str, target: &str| {
        let mut conn = Conn::from(client.parse().expect("an address"), balancer.address);
        conn.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        conn
    };
    let mut waiting = vec![begin("127.0.0.1", "/slow"), begin("127.0.0.1", "/slow")];
    until("both are at the backend", || (backend.seen().len() == 2).then_some(()));
    let refused = balancer.get("/slow");
    assert_eq!(violated(&refused), json!(["concurrency"]));
    assert_eq!(refused.field("ratelimit-policy"), Some(r#""concurrency";q=2;qu="concurrent-requests""#));
    // Elsewhere this client may go on, and other clients may here.
    balancer.get("/").expect(200);
    waiting.extend([begin("127.0.0.2", "/slow"), begin("127.0.0.1", "/slow/er")]);
    until("they are at the backend", || (backend.seen().len() == 5).then_some(()));
    // A path that can be read as either needs a seat by both routes.
    assert_eq!(violated(&balancer.get("/slow%2fer")), json!(["concurrency"]));
    gate.open();
    for conn in &mut waiting {
        assert_eq!(conn.read("GET").expect("an answer").status, 200);
    }
    until("its seats are free again", || (balancer.get("/slow").status == 200).then_some(()));
    until("and so by the other", || (balancer.get("/slow/er").status == 200).then_some(()));
}

fn preflights_at_once_are_bounded_as_well(engine: Engine) {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        held.wait();
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let routes = json!([{ "pool": "default", "max_in_flight": 1 }]);
    let balancer = setup(engine, &backend, routes).set("rate_limit.cors", json!({ "origins": "*" })).start();
    let fields = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
    let mut first = Conn::open(balancer.address);
    first.send(
        "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    );
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let second = request(balancer.address, "OPTIONS", "/", &fields, b"");
    gate.open();
    assert_eq!(violated(&second), json!(["concurrency"]));
    assert_eq!(first.read("OPTIONS").expect("an answer").status, 200);
}

fn no_number_of_routes_forgets_what_was_spent(engine: Engine) {
    let route = |n: usize| json!({ "path": format!("/p{n}"), "respond": {}, "limit": "1/d" });
    let (_backend, balancer) = routed(engine, (0..300).map(route).collect());
    let mut conn = Conn::open(balancer.address);
    let mut ask = |n: usize| conn.get(&format!("/p{n}")).status;
    for n in 0..300 {
        assert_eq!(ask(n), 200, "{n}");
    }
    for n in 0..300 {
        assert_eq!(ask(n), 429, "{n}");
    }
}

fn the_log_and_the_api_name_what_refused(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "name": "front", "pool": "default", "limit": "1/d" }]);
    let balancer = setup(engine, &backend, routes).set("log.access", json!(true)).start();
    balancer.get("/first").expect(200);
    balancer.get("/second").expect(429);
    let line: Value = serde_json::from_str(&balancer.proc.wait_out("\"/second\"")).expect("JSON");
    assert_eq!([&line["limit_bucket"], &line["limit_decision"]], ["front", "denied"]);
    let limited = request(balancer.admin, "GET", "/-/v1/limited", &[], b"").expect(200).json();
    let reasons = json!([{ "policy": "rule", "bucket": "front", "rule": "front", "denied": 1 }]);
    assert_eq!(limited["limited"][0]["reasons"], reasons, "{limited}");
}
