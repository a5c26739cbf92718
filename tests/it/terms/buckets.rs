//! Several buckets of one client.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{bucket, fields, rest, violated};
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Setup, request};

each_engine! {
    all_buckets_stand_in_the_policy_and_the_tightest_in_the_rest,
    a_refusal_takes_no_token_of_any_bucket,
    every_token_of_every_bucket_is_spent_once,
    a_shadow_bucket_refuses_nothing_and_is_not_seen,
    a_bucket_with_a_reset_says_when_that_is,
    the_older_fields_say_the_same,
    scripts_of_other_origins_can_see_a_refusal,
    a_preflight_takes_nothing_and_is_refused_while_nothing_is_left,
}

fn limited(engine: Engine, buckets: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": buckets }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    (backend, balancer)
}

fn all_buckets_stand_in_the_policy_and_the_tightest_in_the_rest(engine: Engine) {
    let (_backend, balancer) = limited(engine, json!([bucket("burst", 3), bucket("day", 10)]));
    let policy = r#""burst";q=3;w=86400, "day";q=10;w=86400"#;
    let answer = balancer.get("/").expect(200);
    assert_eq!(fields(&answer), (Some(policy), Some(r#""burst";r=2;t=57600"#)));
    balancer.get("/").expect(200);
    assert_eq!(rest(&balancer.get("/").expect(200)), Some(r#""burst";r=0"#));
    let refused = balancer.get("/");
    assert_eq!(violated(&refused), json!(["burst"]));
    assert_eq!((fields(&refused).0, rest(&refused)), (Some(policy), Some(r#""burst";r=0"#)));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((28_000..=28_800).contains(&wait), "{wait}");
}

fn a_refusal_takes_no_token_of_any_bucket(engine: Engine) {
    let slow = json!({ "name": "slow", "amount": 1, "per": "30d", "capacity": 2 });
    let quick = json!({ "name": "quick", "amount": 1, "per": "3s", "capacity": 1 });
    let (_backend, balancer) = limited(engine, json!([slow, quick]));
    let mut conn = Conn::open(balancer.address);
    conn.get("/").expect(200);
    // While the quick bucket refuses, no token is taken of the slow one.
    let mut refused = 0;
    crate::support::until("a second request passes", || {
        let answer = conn.get("/");
        refused += u32::from(answer.status == 429);
        if answer.status == 429 {
            assert_eq!(violated(&answer), json!(["quick"]));
        }
        (answer.status == 200).then_some(())
    });
    assert!(refused > 0);
    // When both refuse, the one with the longest wait comes first, and its wait is in `Retry-After`.
    let answer = conn.get("/");
    let list = fields(&answer).1.unwrap().to_owned();
    assert_eq!(violated(&answer)[0], "slow", "{list}");
    assert!(list.starts_with(r#""slow";r=0;t="#), "{list}");
    let wait = answer.field("retry-after").unwrap();
    assert!(list.contains(&format!("r=0;t={wait}")) && wait.parse::<u64>().unwrap() > 2_000_000, "{list}");
}

fn every_token_of_every_bucket_is_spent_once(engine: Engine) {
    let (backend, balancer) = limited(engine, json!([bucket("a", 60), bucket("b", 40), bucket("c", 50)]));
    let barrier = std::sync::Barrier::new(8);
    let passed: usize = std::thread::scope(|scope| {
        let ask = || {
            let mut conn = Conn::open(balancer.address);
            barrier.wait();
            (0..20).filter(|_| conn.get("/").status == 200).count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((passed, backend.seen().len()), (40, 40));
    assert_eq!(violated(&balancer.get("/")), json!(["b"]));
}

fn a_shadow_bucket_refuses_nothing_and_is_not_seen(engine: Engine) {
    let mut shadow = bucket("trial", 2);
    shadow["mode"] = json!("shadow");
    let (_backend, balancer) = limited(engine, json!([shadow, bucket("day", 5)]));
    for left in (0..5).rev() {
        let answer = balancer.get("/").expect(200);
        assert_eq!(fields(&answer).0, Some(r#""day";q=5;w=86400"#));
        assert_eq!(rest(&answer), Some(format!(r#""day";r={left}"#).as_str()));
    }
    assert_eq!(violated(&balancer.get("/")), json!(["day"]));
    let family = |decision: &str| {
        let series =
            format!("balancer_ratelimit_requests_total{{policy=\"default\",decision=\"{decision}\"}}");
        balancer.metric(&series)
    };
    assert_eq!((family("allowed"), family("shadow_denied"), family("denied")), (2.0, 3.0, 1.0));

    // A bucket in shadow mode alone: as if there were no limit.
    let mut shadow = bucket("trial", 1);
    shadow["mode"] = json!("shadow");
    let (_backend, balancer) = limited(engine, json!([shadow]));
    for _ in 0..3 {
        assert_eq!(fields(&balancer.get("/").expect(200)), (None, None));
    }
}

fn a_bucket_with_a_reset_says_when_that_is(engine: Engine) {
    let midnight = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        86_400 - now % 86_400
    };
    let day = json!({ "name": "day", "amount": 3, "per": "1d", "reset": "utc" });
    let (_backend, balancer) = limited(engine, json!([day]));
    let reset = |item: &str| item.split(";t=").nth(1).unwrap().parse::<u64>().unwrap();
    for left in (0..3).rev() {
        let before = midnight();
        let answer = balancer.get("/").expect(200);
        if midnight() > before {
            // Midnight passed during the request.
            return;
        }
        assert_eq!(fields(&answer).0, Some(r#""day";q=3;w=86400"#));
        assert_eq!(rest(&answer), Some(format!(r#""day";r={left}"#).as_str()));
        assert!((midnight()..=before).contains(&reset(fields(&answer).1.unwrap())), "{answer:?}");
    }
    let before = midnight();
    let answer = balancer.get("/");
    if midnight() <= before {
        assert_eq!(violated(&answer), json!(["day"]));
        let wait = answer.field("retry-after").unwrap().parse::<u64>().unwrap();
        assert!((midnight()..=before).contains(&wait), "{wait}");
    }
}

fn the_older_fields_say_the_same(engine: Engine) {
    let older = |answer: &crate::support::Response| {
        ["limit", "remaining", "reset"].map(|name| {
            answer.field(&format!("x-ratelimit-{name}")).map(|value| value.parse::<u64>().unwrap())
        })
    };
    for headers in ["legacy", "both"] {
        let backend = Backend::named("a");
        let balancer = Setup::on(engine)
            .backend(backend.address())
            .set("rate_limit.default", json!({ "buckets": [bucket("burst", 2), bucket("day", 10)] }))
            .set("rate_limit.headers", json!(headers))
            .start();
        let answer = balancer.get("/").expect(200);
        assert_eq!(older(&answer), [Some(2), Some(1), Some(43_200)]);
        assert_eq!(fields(&answer).0.is_some(), headers == "both");
        balancer.get("/").expect(200);
        let refused = balancer.get("/");
        refused.problem(429);
        let [limit, left, reset] = older(&refused);
        assert_eq!((limit, left), (Some(2), Some(0)));
        assert_eq!(reset.map(|reset| reset.to_string()).as_deref(), refused.field("retry-after"));
    }
}

fn scripts_of_other_origins_can_see_a_refusal(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": [bucket("day", 2)] }))
        .set("rate_limit.cors", json!({ "origins": ["https://app.example"], "credentials": true }))
        .start();
    let origin = ("Origin", "https://app.example");
    let preflight = [origin, ("Access-Control-Request-Method", "PUT")];
    for _ in 0..3 {
        let answer = request(balancer.address, "OPTIONS", "/x", &preflight, b"").expect(200);
        assert_eq!(fields(&answer), (None, None));
    }
    // Another origin is a client like any other: its preflights cost a token, and it sees nothing.
    let other = [("Origin", "https://evil.example"), preflight[1]];
    let costly = request(balancer.address, "OPTIONS", "/x", &other, b"").expect(200);
    assert_eq!(rest(&costly), Some(r#""day";r=1"#));
    request(balancer.address, "GET", "/x", &[origin], b"").expect(200);
    let refused = request(balancer.address, "GET", "/x", &[origin], b"");
    refused.problem(429);
    assert_eq!(refused.field("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(refused.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(refused.field("vary"), Some("Origin"));
    let exposed = refused.field("access-control-expose-headers").unwrap();
    for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
        assert!(exposed.split(", ").any(|one| one == name), "{exposed}");
    }
    let refused = request(balancer.address, "OPTIONS", "/x", &other, b"");
    refused.problem(429);
    assert_eq!(refused.field("access-control-allow-origin"), None);
}

fn a_preflight_takes_nothing_and_is_refused_while_nothing_is_left(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": [bucket("day", 1)] }))
        .set("rate_limit.rules", json!([{ "match": { "path": "/export" }, "cost": 5 }]))
        .set("rate_limit.cors", json!({ "origins": ["https://app.example"] }))
        .start();
    let whole = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "PUT")];
    let preflight = |target: &str| request(balancer.address, "OPTIONS", target, &whole, b"");
    let asked = |target: &str| {
        let headers = json!({ "Origin": "https://app.example", "Access-Control-Request-Method": "PUT" });
        let question =
            json!({ "address": "127.0.0.1", "method": "OPTIONS", "path": target, "headers": headers });
        balancer.api("POST", "/-/v1/check", &question).expect(200).json()["decision"].clone()
    };
    // With a token left it passes, whatever the request behind it will cost.
    for target in ["/x", "/x", "/export"] {
        preflight(target).expect(200);
        assert_eq!(asked(target), "allowed");
    }
    let refused = |target: &str| {
        let refused = preflight(target);
        refused.problem(429);
        assert_eq!(refused.field("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(refused.field("vary"), Some("Origin"));
        let exposed = refused.field("access-control-expose-headers").unwrap();
        assert!(exposed.contains("Retry-After"), "{exposed}");
        assert_eq!(asked(target), "denied");
        refused
    };
    // What has a body is no preflight, and takes the token.
    request(balancer.address, "OPTIONS", "/x", &whole, b"body").expect(200);
    assert_eq!(violated(&refused("/x")), json!(["day"]));
    assert!(refused("/export").field("retry-after").is_some());
    balancer.limit("127.0.0.1", 0, 0);
    let nothing = refused("/x");
    assert_eq!(nothing.field("ratelimit"), Some(r#""client";r=0"#));
    let seen = backend.seen().len();
    assert_eq!(seen, 4, "a refused preflight reached the backend");
    // A client without a limit is asked nothing.
    balancer.api("DELETE", "/limits/delete", &json!({ "client_id": "127.0.0.1" })).expect(204);
    balancer.api("PUT", "/-/v1/limits/127.0.0.1", &json!({ "mode": "exempt" })).expect(201);
    preflight("/x").expect(200);
}
