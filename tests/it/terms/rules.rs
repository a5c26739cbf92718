//! Rules for some requests.

use serde_json::{Value, json};

use super::{bucket, fields, rest, violated};
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Engine, Setup, request, until};

each_engine! {
    a_rule_has_buckets_of_its_own_for_every_client,
    a_rule_can_cost_more_and_nothing,
    the_most_specific_rule_wins_however_the_path_is_written,
    a_rule_sees_a_path_as_any_backend_may_read_it,
    a_rule_sees_a_method_as_any_backend_may_read_it,
    a_request_is_exempt_only_if_every_reading_is,
    a_rule_bounds_those_without_a_limit_too,
    rules_can_be_replaced_while_serving,
    why_a_client_was_refused_is_kept_as_it_was_decided,
    the_access_log_names_the_bucket_that_decided,
}

fn ruled(engine: Engine, default: Value, rules: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", default)
        .set("rate_limit.rules", rules)
        .start();
    (backend, balancer)
}

fn a_rule_has_buckets_of_its_own_for_every_client(engine: Engine) {
    let login = json!({ "name": "login", "match": { "method": "POST", "path": "/login" }, "limit": "2/d" });
    let (_backend, balancer) = ruled(engine, json!({ "buckets": [bucket("day", 10)] }), json!([login]));
    let post = |target: &str| request(balancer.address, "POST", target, &[], b"");
    let answer = post("/login").expect(200);
    let policy = r#""day";q=10;w=86400, "login";q=2;w=86400"#;
    assert_eq!((fields(&answer).0, rest(&answer)), (Some(policy), Some(r#""login";r=1"#)));
    post("/login").expect(200);
    assert_eq!(violated(&post("/login")), json!(["login"]));
    // Asked without a request: the same buckets, the same answer.
    let question = json!({ "address": "127.0.0.1", "method": "POST", "path": "/login?x" });
    let verdict = balancer.api("POST", "/-/v1/check", &question).expect(200).json();
    assert_eq!(verdict["decision"], "denied");
    let level =
        |name: &str, capacity: u64, level: u64| json!({ "name": name, "capacity": capacity, "level": level });
    assert_eq!(verdict["buckets"], json!([level("day", 10, 8), level("login", 2, 0)]));
    // The refusal took nothing of the client's own bucket, and other requests are not concerned.
    assert_eq!(rest(&balancer.get("/login").expect(200)), Some(r#""day";r=7"#));
    // Nor are others.
    assert_eq!(
        crate::support::Conn::from("127.0.0.9".parse().unwrap(), balancer.address)
            .ask("POST", "/login", &[], b"")
            .status,
        200
    );
}

fn why_a_client_was_refused_is_kept_as_it_was_decided(engine: Engine) {
    let rules = json!([{ "name": "login", "match": { "path": "/login" }, "buckets": [bucket("hour", 1)] }]);
    let (_backend, balancer) = ruled(engine, json!({ "buckets": [bucket("day", 2)] }), rules);
    for status in [200, 429, 429] {
        balancer.get("/login").expect(status);
    }
    balancer.get("/").expect(200);
    for _ in 0..3 {
        balancer.get("/").expect(429);
    }
    // The limit in force now is not the reason of earlier refusals.
    balancer.limit("127.0.0.1", 100, 0);
    balancer.get("/").expect(200);
    let limited = balancer.get("/-/v1/limited").expect(200).json();
    let row = limited["limited"].as_array().unwrap().iter().find(|row| row["denied"] == 5).unwrap();
    assert_eq!(
        row["reasons"],
        json!([
            { "policy": "default", "bucket": "day", "rule": null, "denied": 3 },
            { "policy": "rule", "bucket": "hour", "rule": "login", "denied": 2 },
        ])
    );
}

fn a_rule_can_cost_more_and_nothing(engine: Engine) {
    let rules = json!([
        { "match": { "path": "/export" }, "cost": 4 },
        { "match": { "path": "/export/free" }, "exempt": true },
        { "match": { "path": "/gratis" }, "cost": 0 },
    ]);
    let (_backend, balancer) = ruled(engine, json!({ "buckets": [bucket("day", 10)] }), rules);
    assert_eq!(rest(&balancer.get("/export/all").expect(200)), Some(r#""day";r=6"#));
    assert_eq!(rest(&balancer.get("/export").expect(200)), Some(r#""day";r=2"#));
    let refused = balancer.get("/export?all");
    assert_eq!(violated(&refused), json!(["day"]));
    // Two tokens are missing, each of which takes a tenth of a day.
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((17_000..=17_280).contains(&wait), "{wait}");
    assert_eq!(fields(&balancer.get("/export/free/x").expect(200)), (None, None));
    assert_eq!(rest(&balancer.get("/gratis").expect(200)), Some(r#""day";r=2"#));
    assert_eq!(rest(&balancer.get("/").expect(200)), Some(r#""day";r=1"#));
}

fn the_most_specific_rule_wins_however_the_path_is_written(engine: Engine) {
    let named = |name: &str, matching: Value| json!({ "name": name, "match": matching, "limit": "9/d" });
    let rules = json!([
        named("all", json!({ "path": "/" })),
        named("api", json!({ "path": "/api" })),
        named("reads", json!({ "path": "/api", "method": ["GET", "HEAD"] })),
        named("deep", json!({ "path": "/api/deep/" })),
    ]);
    let (_backend, balancer) = ruled(engine, Value::Null, rules);
    let cases = [
        ("GET", "/x", "all"),
        ("GET", "/apix", "all"),
        ("POST", "/api", "api"),
        ("GET", "/api/x?deep", "reads"),
        ("GET", "/api/deep", "reads"),
        ("GET", "/api/deep/x", "deep"),
        ("GET", "/%61pi/./x/../%64eep//x", "deep"),
    ];
    for (method, target, rule) in cases {
        let answer = request(balancer.address, method, target, &[], b"").expect(200);
        let policy = fields(&answer).0.unwrap();
        assert_eq!(policy, format!(r#""{rule}";q=9;w=86400"#), "{method} {target}");
    }
    // Some backends read it as `/api`.
    let answer = balancer.get("/API").expect(200);
    assert_eq!(fields(&answer).0, Some(r#""all";q=9;w=86400, "reads";q=9;w=86400"#));
}

/// The rule's one token is gone: whatever some backend reads as `/login` is refused, here and in a question.
fn a_rule_sees_a_path_as_any_backend_may_read_it(engine: Engine) {
    let rules = json!([
        { "name": "login", "match": { "path": "/login" }, "limit": "1/d" },
        { "match": { "path": "/static/" }, "exempt": true },
    ]);
    let (backend, balancer) = ruled(engine, Value::Null, rules);
    balancer.get("/login").expect(200);
    let written = [
        "/static/..%2flogin",
        "/static/..%2Flogin?x=1",
        "/static/..%5clogin",
        "/static/..\\login",
        "/static%2f..%2flogin",
        "/login;v=1",
        "/static/..;/login",
        "/static/..;x=y/login;z",
        "/static/..%3b/login",
        "/login;%2f..%2fstatic/a",
        "/login%20",
        "/login.",
        "/login%20.",
        "/login./x",
        "/static/..%20/login",
        "/static/..%5c..;%2flogin%20.",
        "/static/%252e%252e%252flogin",
        "/%256cogin",
        "/login%00.png",
        "/static/..%2flogin%00/../x",
        "/login//..//../static/x",
        "/static/x//../../login",
        "//host/login",
        "/%2fhost/login",
        "http://127.0.0.1/static/..%2flogin",
        "/LOGIN",
        "/static/..%2fLogin",
        "/login%3fx",
        "/static/..%2flogin%23/../a",
    ];
    for target in written {
        assert_eq!(violated(&balancer.get(target)), json!(["login"]), "{target}");
        let path = target.strip_prefix("http://127.0.0.1").unwrap_or(target);
        let question = json!({ "address": "127.0.0.1", "path": path });
        let verdict = balancer.api("POST", "/-/v1/check", &question).expect(200).json();
        assert_eq!(verdict["decision"], "denied", "{target}: {verdict}");
    }
    assert_eq!(backend.seen().len(), 1);
}

/// The same for a method: `post` is `POST` to some backends, and free to none.
fn a_rule_sees_a_method_as_any_backend_may_read_it(engine: Engine) {
    let rules = json!([
        { "name": "login", "match": { "method": "POST", "path": "/login" }, "limit": "1/d" },
        { "match": { "method": "PUT", "path": "/free" }, "exempt": true },
    ]);
    let (_backend, balancer) = ruled(engine, json!({ "buckets": [bucket("day", 10)] }), rules);
    request(balancer.address, "POST", "/login", &[], b"").expect(200);
    for method in ["post", "Post", "POST"] {
        let question = json!({ "address": "127.0.0.1", "method": method, "path": "/login" });
        let verdict = balancer.api("POST", "/-/v1/check", &question).expect(200).json();
        assert_eq!(verdict["decision"], "denied", "{method}: {verdict}");
        assert_eq!(
            violated(&request(balancer.address, method, "/login", &[], b"")),
            json!(["login"]),
            "{method}"
        );
    }
    assert_eq!(fields(&request(balancer.address, "PUT", "/free", &[], b"")), (None, None));
    assert_eq!(rest(&request(balancer.address, "put", "/free", &[], b"")), Some(r#""day";r=8"#));
}

fn a_request_is_exempt_only_if_every_reading_is(engine: Engine) {
    let rules = json!([
        { "name": "deep", "match": { "path": "/static/deep" }, "limit": "9/d" },
        { "match": { "path": "/static/" }, "exempt": true },
        { "match": { "path": "/export" }, "cost": 4 },
    ]);
    let (_backend, balancer) = ruled(engine, json!({ "buckets": [bucket("day", 10)] }), rules);
    for target in ["/static/a.css", "/static/a;v=1/b.", "/static/a%2Fb", "/static/%2e%2e;%20/../static/x"] {
        let answer = balancer.get(target).expect(200);
        assert_eq!(fields(&answer), (None, None), "{target}");
    }
    let cases = [
        ("/static/..%2fx", r#""day";q=10;w=86400"#, r#""day";r=9"#),
        ("/static/..%2fexport", r#""day";q=10;w=86400"#, r#""day";r=5"#),
        ("/x/..;/static%2fdeep", r#""day";q=10;w=86400, "deep";q=9;w=86400"#, r#""day";r=4"#),
        ("/static%2fdeep/..;/../export", r#""day";q=10;w=86400, "deep";q=9;w=86400"#, r#""day";r=0"#),
    ];
    for (target, policy, left) in cases {
        let answer = balancer.get(target).expect(200);
        assert_eq!((fields(&answer).0, rest(&answer)), (Some(policy), Some(left)), "{target}");
    }
}

fn a_rule_bounds_those_without_a_limit_too(engine: Engine) {
    let rules = json!([{ "match": { "path": "/login" }, "buckets": [bucket("a", 1), bucket("b", 3)] }]);
    let (_backend, balancer) = ruled(engine, Value::Null, rules);
    assert_eq!(rest(&balancer.get("/login").expect(200)), Some(r#""a";r=0"#));
    assert_eq!(violated(&balancer.get("/login/")), json!(["a"]));
    assert_eq!(fields(&balancer.get("/").expect(200)), (None, None));
}

fn rules_can_be_replaced_while_serving(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address());
    let with = |rules: Value| setup.clone().set("rate_limit.rules", rules);
    let login = |limit: &str| json!([{ "name": "login", "match": { "path": "/login" }, "limit": limit }]);
    let balancer = with(login("3/d")).start();
    assert_eq!(rest(&balancer.get("/login").expect(200)), Some(r#""login";r=2"#));
    for (rules, left) in [(login("5/d"), Some(r#""login";r=3"#)), (json!([]), None)] {
        with(rules).write();
        let answer = balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200).json();
        assert_eq!((&answer["reloaded"], &answer["needs_restart"]), (&json!(true), &json!([])), "{answer}");
        assert_eq!(rest(&balancer.get("/login").expect(200)), left);
    }
}

fn the_access_log_names_the_bucket_that_decided(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": [bucket("day", 9), bucket("default", 5)] }))
        .set("rate_limit.rules", json!([{ "name": "login", "match": { "path": "/login" }, "limit": "1/d" }]))
        .set("log.access", json!(true))
        .start();
    let cases =
        [("/", "default", "allowed", 4), ("/login", "login", "allowed", 0), ("/login", "login", "denied", 0)];
    for (count, (target, bucket, decision, remaining)) in cases.into_iter().enumerate() {
        balancer.get(target);
        let line = until("the line is there", || {
            let out = balancer.proc.out();
            out.lines().filter(|line| line.starts_with('{')).nth(count).map(str::to_owned)
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        let told =
            ["limit_entry", "limit_bucket", "limit_decision", "limit_remaining"].map(|member| &line[member]);
        assert_eq!(told, [&json!("default"), &json!(bucket), &json!(decision), &json!(remaining)], "{line}");
    }
}
