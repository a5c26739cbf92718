//! What of a request reaches the backend.

use std::io::Write;

use serde_json::json;

use super::{routed, setup};
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Gate, Then, request, until};

each_engine! {
    a_prefix_is_taken_off_and_another_put_in_front,
    no_spelling_of_a_path_climbs_out_of_where_its_route_puts_it,
    fields_of_requests_are_set_and_taken_out,
    what_a_backend_takes_for_a_field_that_is_set_is_taken_out,
    a_trusted_proxys_prefix_stays_in_front,
    a_body_may_be_shorter_than_the_frontends,
    a_route_may_have_less_time_than_its_pool,
}

fn a_prefix_is_taken_off_and_another_put_in_front(engine: Engine) {
    let routes = json!([
        { "path": "/img/", "pool": "default", "strip_prefix": true },
        { "path": "/api", "pool": "default", "strip_prefix": true, "add_prefix": "/v2/" },
        { "path": "/add", "pool": "default", "add_prefix": "/v3" },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("/img/a%2Fb/c?d=/img/&e", "/a%2Fb/c?d=/img/&e", Some("/img")),
        ("/img/", "/", Some("/img")),
        ("/%69mg//x", "/x", Some("/img")),
        ("/img//evil.test//x", "/evil.test//x", Some("/img")),
        ("/img/a/%2e%2E/b%2Dc", "/b%2Dc", Some("/img")),
        ("/img/;v=1", "/;v=1", Some("/img")),
        ("/img/../img/x", "/x", Some("/img")),
        ("/img", "/img", None),
        ("/api?q", "/v2/?q", Some("/api")),
        ("/api/x/", "/v2/x/", Some("/api")),
        ("/add/x?y=1", "/v3/add/x?y=1", None),
        ("//add//x", "/v3/add//x", None),
        ("/add/../../add/x?/../y", "/v3/add/x?/../y", None),
        ("/other?y", "/other?y", None),
    ];
    let mut conn = Conn::open(balancer.address);
    for (target, expected, prefix) in rows {
        conn.get(target).expect(200);
        let seen = backend.seen().pop().expect("a request");
        assert_eq!(seen.request_line(), format!("GET {expected} HTTP/1.1"), "{target}");
        assert_eq!(seen.field("x-forwarded-prefix").as_deref(), prefix, "{target}");
    }
}

fn no_spelling_of_a_path_climbs_out_of_where_its_route_puts_it(engine: Engine) {
    let routes = json!([
        { "path": "/img/", "pool": "default", "strip_prefix": true },
        { "path": "/img/admin", "pool": "default", "deny": ["0.0.0.0/0"] },
        { "path": "/api", "pool": "default", "strip_prefix": true, "add_prefix": "/v2" },
        { "host": "t.test", "pool": "default", "add_prefix": "/tenants/a" },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("x", "/img/..%2fadmin"),
        ("x", "/img/..;/admin"),
        ("x", "/img/..\\admin"),
        ("x", "/img/x/..%2f..%2fadmin"),
        ("x", "/img/%2fevil.test/"),
        ("x", "/img/\\evil.test/"),
        ("x", "/img/.%2f/evil.test/"),
        ("x", "/img/%252e%252e%252fadmin"),
        ("x", "/api/..%2fetc"),
        ("t.test", "/..%2f..%2fetc"),
        ("t.test", "/..;/b"),
        ("t.test", "/...%5c/b"),
    ];
    for (host, target) in rows {
        let problem = request(balancer.address, "GET", target, &[("Host", host)], b"").problem(400);
        assert_eq!(problem["detail"], "a path that leads out of where it is served", "{target}");
    }
    assert_eq!(backend.seen().len(), 0);
    request(balancer.address, "GET", "/../../etc", &[("Host", "t.test")], b"").expect(200);
    assert_eq!(backend.only().request_line(), "GET /tenants/a/etc HTTP/1.1");
}

fn fields_of_requests_are_set_and_taken_out(engine: Engine) {
    let set = json!({ "X-Real-IP": "$client_ip", "X-Tenant": "at $host, $$5", "Cookie": null, "X-Id": "$request_id" });
    let routes = json!([{ "path": "/set", "pool": "default", "set_request_headers": set }]);
    let (backend, balancer) = routed(engine, routes);
    let sent = [
        ("Host", "A.test:80"),
        ("Cookie", "a=1"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Tenant", "mine"),
        ("X-Other", "kept"),
    ];
    let answer = request(balancer.address, "POST", "/set", &sent, b"body").expect(200);
    let seen = backend.only();
    let field = |name: &str| seen.all(name);
    assert_eq!(field("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(field("x-tenant"), ["at a.test, $5"]);
    assert_eq!(
        (field("cookie").len(), field("x-other"), field("host")),
        (0, vec!["kept".to_owned()], vec!["A.test:80".to_owned()])
    );
    assert_eq!(field("x-id"), [answer.field("x-request-id").expect("an id")]);
    assert_eq!(seen.body, b"body");
}

/// CGI, WSGI, PHP and Rack read `X_User` and `X-User` as one variable.
fn what_a_backend_takes_for_a_field_that_is_set_is_taken_out(engine: Engine) {
    let set = json!({ "X-User": null, "X-Tenant": "a", "X_Both": "b", "X-Both": "c" });
    let (backend, balancer) = routed(engine, json!([{ "pool": "default", "set_request_headers": set }]));
    let names = ["X_User", "x.user", "X_TENANT", "X-Tenant", "X.Both", "X_Users"];
    request(balancer.address, "GET", "/", &names.map(|name| (name, "root")), b"").expect(200);
    let seen = backend.only();
    let left = ["x_user", "x.user", "x_tenant", "x-tenant", "x.both", "x_both", "x-both", "x_users"];
    assert_eq!(left.map(|name| seen.all(name).join(",")), ["", "", "", "a", "", "b", "c", "root"]);
}

fn a_trusted_proxys_prefix_stays_in_front(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "path": "/in", "pool": "default", "strip_prefix": true }]);
    let balancer =
        setup(engine, &backend, routes).set("rate_limit.trusted_proxies", json!(["127.0.0.1"])).start();
    let sent = [("X-Forwarded-Prefix", "/out")];
    request(balancer.address, "GET", "/in/x", &sent, b"").expect(200);
    Conn::from("127.0.0.2".parse().expect("an address"), balancer.address)
        .ask("GET", "/in/x", &sent, b"")
        .expect(200);
    let prefixes: Vec<_> = backend.seen().iter().map(|seen| seen.all("x-forwarded-prefix")).collect();
    assert_eq!(prefixes, [vec!["/out".to_owned(), "/in".to_owned()], vec!["/in".to_owned()]]);
}

fn a_body_may_be_shorter_than_the_frontends(engine: Engine) {
    let routes = json!([
        { "path": "/small", "pool": "default", "max_body_bytes": 10 },
        { "path": "/large", "pool": "default", "max_body_bytes": 100_000 },
        { "path": "/none", "pool": "default", "max_body_bytes": 0 },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let post =
        |target: &str, length: usize| request(balancer.address, "POST", target, &[], &vec![b'x'; length]);
    post("/small", 10).expect(200);
    let refused = post("/small", 11);
    assert_eq!(refused.problem(413)["detail"], "the request's body is larger than this server takes");
    post("/large", 100_000).expect(200);
    post("/large", 100_001).problem(413);
    balancer.get("/none").expect(200);
    post("/none", 1).problem(413);
    post("/", 100_001).expect(200);
    // Chunked: what is small is known before a backend is asked, what is large when it has come.
    let chunked = |target: &str, chunks: &[usize]| {
        let mut conn = Conn::open(balancer.address);
        conn.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
        for length in chunks {
            let _ = conn.try_send(format!("{length:x}\r\n{}\r\n", "x".repeat(*length)));
        }
        let _ = conn.try_send("0\r\n\r\n");
        conn.read("POST").expect("an answer").status
    };
    assert_eq!((chunked("/small", &[4, 6]), chunked("/small", &[4, 7])), (200, 413));
    assert_eq!((chunked("/large", &[60_000, 40_000]), chunked("/large", &[90_000, 20_000])), (200, 413));
    assert_eq!(chunked("/", &[90_000, 20_000]), 200);
    let whole = backend.seen().iter().filter(|seen| seen.request_line().starts_with("POST")).count();
    assert_eq!(whole, 6);
}

fn a_route_may_have_less_time_than_its_pool(engine: Engine) {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |seen, stream| {
        if seen.request_line().starts_with("GET /wait") {
            held.wait();
        }
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let routes = json!([{ "path": "/wait/less", "pool": "default", "request_timeout": "200ms" }]);
    let balancer = setup(engine, &backend, routes).start();
    let mut patient = Conn::open(balancer.address);
    patient.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    balancer.get("/wait/less").problem(504);
    gate.open();
    assert_eq!(patient.read("GET").expect("an answer").status, 200);
}
