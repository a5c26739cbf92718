//! Which client a request counts as: by keys in fields and cookies, in the configured order, and last by its address.

use serde_json::{Value, json};

use crate::support::engine::{each_engine, each_store};
use crate::support::{Backend, Balancer, Conn, Database, Engine, Response, Setup, request, until};

each_engine! {
    a_known_key_decides_wherever_it_stands,
    a_key_without_a_limit_counts_as_absent,
    a_key_without_a_limit_can_have_a_bucket_of_its_own,
    a_key_without_a_limit_can_be_refused,
    a_declared_name_counts_from_trusted_peers_alone,
    what_can_be_no_key_is_counted_and_never_stored,
    a_key_that_is_throttled_is_so_however_it_is_written,
    a_key_with_several_values_is_refused,
    a_field_that_passes_for_a_key_is_dropped,
    a_key_that_can_be_none_is_refused_where_unknown_ones_are,
    a_key_is_no_address,
    a_secret_is_in_no_log,
    a_proxy_that_nobody_trusts_is_said,
}

each_store! { made_up_keys_are_limited_as_their_address }

/// `printf alice | sha256sum`, the first half.
const ALICE: &str = "sha256:2bd806c97f0e00af1a1fc3328fa763a9";

fn keyed(engine: Engine, key: Value, default: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("rate_limit.default", default);
    let balancer = setup.set("rate_limit.key", key).start();
    (backend, balancer)
}

fn with(balancer: &Balancer, fields: &[(&str, &str)]) -> Response {
    request(balancer.address, "GET", "/", fields, b"")
}

fn policy(answer: &Response) -> Option<&str> {
    answer.field("ratelimit-policy").and_then(|value| value.split(';').next())
}

fn quota(answer: &Response) -> Option<&str> {
    answer.field("ratelimit-policy").and_then(|value| value.split(';').nth(1))
}

fn a_known_key_decides_wherever_it_stands(engine: Engine) {
    let key = json!(["header:X-Api-Key", "cookie:sid", "bearer"]);
    let (_backend, balancer) = keyed(engine, key, json!("1000/s"));
    balancer.limit(ALICE, 7, 0);
    for fields in [
        [("X-Api-Key", "alice")],
        [("x-api-key", "alice")],
        [("Cookie", "a=b; sid=alice")],
        [("Authorization", "Bearer alice")],
        [("Authorization", "bearer alice")],
    ] {
        let answer = with(&balancer, &fields).expect(200);
        assert_eq!((policy(&answer), quota(&answer)), (Some(r#""client""#), Some("q=7")), "{fields:?}");
    }
    // One bucket, wherever the key stood.
    with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
    with(&balancer, &[("Authorization", "Bearer alice")]).expect(200);
    with(&balancer, &[("Cookie", "sid=alice")]).expect(429);
    // Without it the address decides. A value with other capitals is another key.
    let answer = with(&balancer, &[("X-Api-Key", "Alice")]).expect(200);
    assert_eq!(policy(&answer), Some(r#""default""#));
    // An address's own entry does not stand in a key's way.
    balancer.limit("127.0.0.1", 1, 0);
    with(&balancer, &[]).expect(200);
    with(&balancer, &[]).expect(429);
    balancer
        .api("PUT", "/limits/update", &json!({"client_id": ALICE, "capacity": 8, "rate_per_sec": 0}))
        .expect(204);
    let answer = with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
    assert_eq!(quota(&answer), Some("q=8"), "a change is in force on the next request");
}

fn a_key_without_a_limit_counts_as_absent(engine: Engine) {
    let (_backend, balancer) = keyed(engine, json!("header:X-Api-Key"), json!("3/d"));
    for made_up in ["a", "b", "c"] {
        let answer = with(&balancer, &[("X-Api-Key", made_up)]).expect(200);
        assert_eq!(policy(&answer), Some(r#""default""#));
    }
    with(&balancer, &[("X-Api-Key", "d")]).expect(429);
    with(&balancer, &[]).expect(429);
}

fn a_key_without_a_limit_can_have_a_bucket_of_its_own(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("rate_limit.default", json!("1/d"));
    let setup = setup.set("rate_limit.key", json!("header:X-Api-Key"));
    let balancer = setup.set("rate_limit.unknown_keys", json!("own_bucket")).start();
    for made_up in ["a", "b"] {
        let answer = with(&balancer, &[("X-Api-Key", made_up)]).expect(200);
        assert_eq!(policy(&answer), Some(r#""default""#));
        with(&balancer, &[("X-Api-Key", made_up)]).expect(429);
    }
    with(&balancer, &[]).expect(200);
    with(&balancer, &[]).expect(429);
}

/// Refuses unknown keys. However slow the machine is, what is looked up for the first time is waited for: a key of which the
/// store has not said in time whether it is known gets a 503.
fn strict(engine: Engine, key: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("cache.load_timeout", json!("5s"));
    let setup = setup.set("rate_limit.key", key).set("rate_limit.unknown_keys", json!("401"));
    (backend, setup.start())
}

fn a_key_without_a_limit_can_be_refused(engine: Engine) {
    let (backend, balancer) = strict(engine, json!("bearer"));
    balancer.limit(ALICE, 5, 0);
    with(&balancer, &[("Authorization", "Bearer alice")]).expect(200);
    let answer = with(&balancer, &[("Authorization", "Bearer mallory")]);
    let problem = answer.problem(401);
    assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
    assert!(!problem.to_string().contains("mallory"), "{problem}");
    // Without any key it is still its address.
    with(&balancer, &[]).expect(200);
    assert_eq!(backend.seen().len(), 2);
}

fn a_declared_name_counts_from_trusted_peers_alone(engine: Engine) {
    let key = json!([{ "header": "X-Tenant", "as": "tenant" }, "ip"]);
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("rate_limit.key", key);
    let balancer = setup
        .set("rate_limit.trusted_proxies", json!(["127.0.0.1"]))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    balancer.limit("tenant=acme", 4, 0);
    let answer = with(&balancer, &[("X-Tenant", "acme"), ("X-Forwarded-For", "192.0.2.1")]).expect(200);
    assert_eq!(quota(&answer), Some("q=4"));

    let balancer = setup_untrusted(engine, &backend);
    balancer.limit("tenant=acme", 4, 0);
    let answer = with(&balancer, &[("X-Tenant", "acme")]).expect(200);
    assert_eq!(quota(&answer), None);
}

fn setup_untrusted(engine: Engine, backend: &Backend) -> Balancer {
    let key = json!({ "header": "X-Tenant", "as": "tenant" });
    Setup::on(engine).backend(backend.address()).set("rate_limit.key", key).start()
}

fn what_can_be_no_key_is_counted_and_never_stored(engine: Engine) {
    let (_backend, balancer) = keyed(engine, json!(["header:X-Api-Key"]), json!("1000/s"));
    let long = "k".repeat(8 * 1024);
    for fields in [&[("X-Api-Key", long.as_str())][..], &[("X-Api-Key", "a\tb")]] {
        let answer = with(&balancer, fields).expect(200);
        assert_eq!(policy(&answer), Some(r#""default""#));
    }
    with(&balancer, &[("X-Api-Key", "a"), ("X-Api-Key", "b")]).problem(400);
    let metrics = balancer.get("/-/metrics").expect(200).text();
    for said in ["balancer_ratelimit_keys_total{result=\"unusable\"} 3\n", "balancer_ratelimit_clients 1\n"] {
        assert!(metrics.contains(said), "{said} {metrics}");
    }
}

/// Alice has one token; whatever a backend reads as her key is refused once it is gone, here and in a question.
fn a_key_that_is_throttled_is_so_however_it_is_written(engine: Engine) {
    let key = json!(["header:X-Customer-Key", "cookie:sid", "bearer"]);
    let (backend, balancer) = keyed(engine, key, json!("1000/s"));
    balancer.limit(ALICE, 1, 0);
    with(&balancer, &[("X-Customer-Key", "alice")]).expect(200);
    let written: &[&[(&str, &str)]] = &[
        &[("x-customer-key", "alice"), ("X-Customer-Key", "alice")],
        &[("X-Customer-Key", "\talice ")],
        &[("X-Customer-Key", ""), ("X-Customer-Key", "alice")],
        &[("X_Customer_Key", "other"), ("X-Customer-Key", "alice")],
        &[("Cookie", "sid=alice; sid=alice")],
        &[("Cookie", "sid=alice"), ("Cookie", "a=b")],
        &[("Cookie", "sid=\"alice\"")],
        &[("Cookie", "sid=%61lice")],
        &[("Cookie", "sid=\"%61l\\ice\"; a=b")],
        &[("Cookie", "a=b;sid = alice")],
        &[("Cookie", "a=b, sid=alice")],
        &[("Authorization", "Bearer\talice")],
        &[("Authorization", "Bearer \t  alice")],
        &[("Authorization", "Basic eA=="), ("Authorization", "bearer alice")],
        &[("Authorization", "xBearer alice")],
        &[("Authorization", "Basic x Bearer alice")],
        &[("Cookie", "SID=alice")],
        &[("Cookie", "sid%00x=alice")],
    ];
    for fields in written {
        with(&balancer, fields).expect(429);
        assert_eq!(asked(&balancer, fields)["decision"], "denied", "{fields:?}");
    }
    blanks_beyond_ascii_hide_nothing(engine, &balancer);
    assert_eq!(backend.seen().len(), 1);
}

fn blanks_beyond_ascii_hide_nothing(engine: Engine, balancer: &Balancer) {
    let written: [&[(&str, &str)]; 3] = [
        &[("X-Customer-Key", "\u{a0}alice\u{85}")],
        &[("Cookie", "a=b; \u{85}sid\u{a0}=\u{a0}alice\u{a0}")],
        &[("Authorization", "Bearer \u{a0}alice\u{85}")],
    ];
    for fields in written {
        assert_eq!(asked(balancer, fields)["decision"], "denied", "{fields:?}");
    }
    // The crate of the portable engine takes ASCII alone, and closes the connection.
    if engine == Engine::Epoll {
        written.iter().for_each(|fields| drop(with(balancer, fields).expect(429)));
        // Latin-1.
        for line in [
            &b"X-Customer-Key: \xa0alice\x85"[..],
            b"Cookie: sid=\x85alice\xa0",
            b"Authorization: Bearer\xa0alice",
        ] {
            let mut conn = Conn::open(balancer.address);
            conn.send([b"GET / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat());
            conn.read("GET").expect("an answer").expect(429);
        }
    }
}

/// The verdict on a GET with these fields.
fn asked(balancer: &Balancer, fields: &[(&str, &str)]) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in fields {
        let values = headers.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([]));
        values.as_array_mut().unwrap().push(json!(value));
    }
    let question = json!({ "address": "127.0.0.1", "headers": headers });
    balancer.api("POST", "/-/v1/check", &question).expect(200).json()
}

fn a_key_with_several_values_is_refused(engine: Engine) {
    let key = json!(["header:X-Customer-Key", "cookie:sid", "bearer"]);
    let (backend, balancer) = keyed(engine, key, json!("1000/s"));
    balancer.limit(ALICE, 9, 0);
    let several: &[(&str, &[(&str, &str)])] = &[
        ("header x-customer-key", &[("X-Customer-Key", "alice"), ("X-Customer-Key", "zoe-key")]),
        ("cookie sid", &[("Cookie", "sid=alice; sid=zoe-key")]),
        ("cookie sid", &[("Cookie", "sid=zoe-key"), ("Cookie", "sid=alice")]),
        ("cookie sid", &[("Cookie", "sid=\"alice")]),
        ("bearer token", &[("Authorization", "Bearer alice"), ("Authorization", "Bearer zoe-key")]),
        ("bearer token", &[("Authorization", "Bearer Bearer alice")]),
        ("cookie sid", &[("Cookie", "sid=alice; SID=zoe-key")]),
        ("cookie sid", &[("Cookie", "sid=alice%00")]),
        // The first key would decide, but a later one has several values: that is refused as well.
        ("cookie sid", &[("X-Customer-Key", "alice"), ("Cookie", "sid=bob; sid=zoe-key")]),
    ];
    for (kind, fields) in several {
        let problem = with(&balancer, fields).problem(400);
        assert_eq!(problem["type"], "about:blank");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(kind), "{detail}");
        assert!(
            !["alice", "zoe-key", "bob"].iter().any(|value| problem.to_string().contains(value)),
            "{problem}"
        );
        assert_eq!(asked(&balancer, fields)["decision"], "denied", "{fields:?}");
    }
    assert!(backend.seen().is_empty());
    // Several values of a cookie that is no key do not matter.
    with(&balancer, &[("Cookie", "a=1; a=2; sid=alice")]).expect(200);
}

fn a_field_that_passes_for_a_key_is_dropped(engine: Engine) {
    let (backend, balancer) = keyed(engine, json!("header:X-Customer-Key"), json!("3/d"));
    balancer.limit(ALICE, 0, 0);
    for name in ["X_Customer_Key", "x-customer_key", "X.Customer.Key"] {
        let answer = with(&balancer, &[(name, "alice"), ("X_Other", "kept")]).expect(200);
        assert_eq!(policy(&answer), Some(r#""default""#));
    }
    for seen in backend.seen() {
        let lines = seen.lines().join("\n").to_ascii_lowercase();
        assert!(!lines.contains("alice") && lines.contains("x_other: kept"), "{lines}");
    }
}

fn a_key_that_can_be_none_is_refused_where_unknown_ones_are(engine: Engine) {
    let (backend, balancer) = strict(engine, json!(["header:X-Api-Key", "bearer"]));
    balancer.limit(ALICE, 5, 0);
    let long = "k".repeat(5_000);
    for value in ["mallory", "a\tb", &long] {
        let fields = [("X-Api-Key", value)];
        with(&balancer, &fields).problem(401);
        // A question has no room for the long one in a terminal, but all in the API.
        assert_eq!(asked(&balancer, &fields)["decision"], "denied");
    }
    for value in ["Bearer\tmallory", "Bearer", "bearer ", "Basic eA==, Bearer"] {
        let fields = [("Authorization", value)];
        with(&balancer, &fields).problem(401);
        assert_eq!(asked(&balancer, &fields)["decision"], "denied");
    }
    with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
    for keyless in [&[][..], &[("X-Api-Key", "")], &[("Authorization", "Basic eA==")]] {
        with(&balancer, keyless).expect(200);
    }
    assert_eq!(backend.seen().len(), 4);
}

fn a_key_is_no_address(engine: Engine) {
    let (_backend, balancer) = keyed(engine, json!("header:X-Api-Key"), json!("1000/s"));
    balancer.limit("192.0.2.1", 5, 0);
    balancer.limit("192.0.2.0/24", 6, 0);
    balancer.limit("plain", 7, 0);
    for key in ["192.0.2.1", "192.0.2.0/24", "192.0.2.1:80", "plain", ALICE] {
        let answer = with(&balancer, &[("X-Api-Key", key)]).expect(200);
        assert_eq!(policy(&answer), Some(r#""default""#), "{key}");
    }
}

fn a_secret_is_in_no_log(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("rate_limit.key", json!("header:X-Api-Key"));
    let balancer = setup.set("log", json!({ "access": true, "level": "trace" })).start();
    balancer.limit(ALICE, 5, 0);
    with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
    let line = balancer.proc.wait_out("\"limit_entry\":\"sha256:");
    let line: Value = serde_json::from_str(line.trim()).expect("a line of JSON");
    assert_eq!((&line["client_id"], &line["limit_entry"]), (&json!(ALICE), &json!(ALICE)));
    assert_eq!(line["client_addr"], "127.0.0.1");
    for said in [balancer.proc.out(), balancer.proc.err()] {
        assert!(!said.contains("alice"), "{said}");
    }
}

fn a_proxy_that_nobody_trusts_is_said(engine: Engine) {
    let (_backend, balancer) = keyed(engine, json!("ip"), Value::Null);
    for _ in 0..220 {
        with(&balancer, &[("X-Forwarded-For", "192.0.2.1")]).expect(200);
    }
    balancer.proc.wait_err(0, "a word about the proxy", |line| line.contains("rate_limit.trusted_proxies"));
    let ready = balancer.get("/-/readyz?verbose").expect(200).json();
    assert!(ready["notes"][0].as_str().is_some_and(|note| note.contains("127.0.0.1")), "{ready}");
}

/// 10,000 requests with 10,000 keys from one address are limited as that address, and a client that is known is served
/// meanwhile.
fn made_up_keys_are_limited_as_their_address(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    let setup = setup.set("rate_limit.default", json!({ "capacity": 100, "rate_per_sec": 0 }));
    let balancer = setup.set("rate_limit.key", json!("header:X-Api-Key")).start();
    balancer.limit(ALICE, 1_000_000, 0);
    with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
    let mut allowed = 0;
    let mut flood = Conn::open(balancer.address);
    for number in 0..10_000 {
        let key = format!("made-up-{number}");
        match flood.ask("GET", "/", &[("X-Api-Key", &key)], b"").status {
            200 => allowed += 1,
            status => assert_eq!(status, 429),
        }
        if number % 100 == 0 {
            with(&balancer, &[("X-Api-Key", "alice")]).expect(200);
        }
    }
    assert_eq!(allowed, 100);
    until("the keys are counted", || {
        let metrics = balancer.get("/-/metrics").text();
        metrics.contains("balancer_ratelimit_keys_total{result=\"unknown\"} 10000\n").then_some(())
    });
}
