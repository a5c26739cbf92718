//! Routes to several pools.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Gate, Setup, Then, block, request, until};

each_engine! {
    three_services_behind_one_front_door,
    without_backends_at_the_top_the_rest_is_not_found,
    a_thousand_routes_lead_to_a_hundred_pools,
    a_request_ends_in_the_pool_that_it_began_in,
}

/// The example of docs/routes.md, with backends that are here.
fn three_services_behind_one_front_door(engine: Engine) {
    let (web, api, img) = (Backend::named("web"), Backend::named("api"), Backend::named("img"));
    let example = block("routes.md", "routes");
    let text = example
        .replace("http://10.0.0.3", &web.url())
        .replace("http://10.0.0.1:9001", &api.url())
        .replace("http://10.0.0.2:9001", &api.url().replace("127.0.0.1", "localhost"))
        .replace("http://10.0.0.4", &img.url());
    let example: Value = serde_json::from_str(&text).expect("JSON");
    let setup = example
        .as_object()
        .expect("an object")
        .iter()
        .fold(Setup::on(engine), |setup, (key, value)| setup.set(key, value.clone()));
    let balancer = setup.set("log.access", json!(true)).start();
    let rows = [
        ("api.example.com", "/v1", "api"),
        ("API.example.com:443", "/", "api"),
        ("example.com", "/img/a/b.png?c", "img"),
        ("example.com", "/", "web"),
        ("example.com", "/img", "web"),
        ("www.example.com", "/img/a", "web"),
        ("other", "/", "web"),
    ];
    for (host, target, expected) in rows {
        let answer = request(balancer.address, "GET", target, &[("Host", host)], b"").expect(200);
        assert_eq!(answer.text(), expected, "{host} {target}");
        assert_eq!(answer.field("ratelimit").is_some(), expected == "api", "{host} {target}");
    }
    assert_eq!(img.only().request_line(), "GET /a/b.png?c HTTP/1.1");
    let pools: Vec<Value> = ["\"/v1\"", "\"/img/a/b.png\"", "\"/img\""]
        .map(|path| {
            serde_json::from_str::<Value>(&balancer.proc.wait_out(path)).expect("JSON")["pool"].clone()
        })
        .into();
    assert_eq!(pools, ["api", "img", "default"]);
}

fn without_backends_at_the_top_the_rest_is_not_found(engine: Engine) {
    let api = Backend::named("api");
    let balancer = Setup::on(engine)
        .set("pools", json!({ "api": { "backends": [api.url()] } }))
        .set("routes", json!([{ "host": "api.test", "path": "/v1", "pool": "api" }]))
        .start();
    let get = |host: &str, target: &str| request(balancer.address, "GET", target, &[("Host", host)], b"");
    get("api.test", "/v1/x").expect(200);
    for (host, target) in [("api.test", "/"), ("api.test", "/v11"), ("other", "/v1")] {
        assert_eq!(get(host, target).problem(404)["detail"], "nothing of that name is here");
    }
    balancer.get("/-/livez").expect(200);
}

fn a_thousand_routes_lead_to_a_hundred_pools(engine: Engine) {
    let backends = [Backend::named("even"), Backend::named("odd")];
    let pool = |n: usize| (format!("p{n}"), json!({ "backends": [backends[n % 2].url()] }));
    let pools: serde_json::Map<String, Value> = (0..100).map(pool).collect();
    let route = |n: usize| json!({ "host": format!("s{}.test", n / 10), "path": format!("/part-{}", n % 10), "pool": format!("p{}", n % 100) });
    let routes: Vec<Value> = (0..1_000).map(route).collect();
    let balancer = Setup::on(engine).set("pools", Value::Object(pools)).set("routes", json!(routes)).start();
    let mut conn = Conn::open(balancer.address);
    for n in [0, 1, 37, 500, 842, 999] {
        let (host, target) = (format!("s{}.test", n / 10), format!("/part-{}/x", n % 10));
        let answer = conn.ask("GET", &target, &[("Host", &host)], b"").expect(200);
        assert_eq!(answer.text(), ["even", "odd"][n % 2], "{host}{target}");
    }
    conn.ask("GET", "/part-10", &[("Host", "s1.test")], b"").problem(404);
}

/// A reload that takes its route and its pool away changes nothing for it.
fn a_request_ends_in_the_pool_that_it_began_in(engine: Engine) {
    let gate = Gate::default();
    let held = gate.clone();
    let slow = Backend::scripted(move |_, stream| {
        held.wait();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Then::Keep
    });
    let quick = Backend::named("quick");
    let setup = Setup::on(engine)
        .set("pools", json!({ "slow": { "backends": [slow.url()] }, "quick": { "backends": [quick.url()] } }))
        .set("routes", json!([{ "pool": "slow", "set_response_headers": { "X-By": "slow" } }]));
    let balancer = setup.start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it is at the backend", || (slow.seen().len() == 1).then_some(()));
    setup
        .set("pools", json!({ "quick": { "backends": [quick.url()] } }))
        .set("routes", json!([{ "pool": "quick" }]))
        .write();
    balancer.proc.signal(rustix::process::Signal::HUP);
    balancer.proc.wait_err(0, "it is reloaded", |line| line.contains("reloaded"));
    assert_eq!(balancer.get("/").expect(200).text(), "quick");
    gate.open();
    let answer = conn.read("GET").expect("an answer").expect(200);
    assert_eq!((answer.text().as_str(), answer.field("x-by")), ("slow", Some("slow")));
}
