//! Plans, shared ranges and exempt clients, set by the API, on both databases.

use serde_json::{Value, json};

use super::{bucket, fields, rest, violated};
use crate::support::engine::each_store;
use crate::support::{Backend, Balancer, Conn, Database, Setup, request};

each_store! {
    a_changed_plan_is_in_force_on_the_next_request_of_all_its_clients,
    levels_carry_over_by_name_and_a_new_name_starts_full,
    a_shadow_bucket_keeps_its_level_when_it_is_enforced,
    a_shared_range_is_one_bucket,
    an_exempt_client_is_never_refused_and_still_counted,
    a_clients_own_bound_on_requests_at_once_wins_over_its_plans,
}

fn start(database: &Database) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .store(database)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": [bucket("default", 1)] }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    (backend, balancer)
}

fn put(balancer: &Balancer, target: &str, body: &Value) {
    let answer = balancer.api("PUT", target, body);
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
}

fn plan(balancer: &Balancer, name: &str, buckets: &[Value]) {
    put(balancer, &format!("/v1/plans/{name}"), &json!({ "name": name, "buckets": buckets }));
}

fn from(balancer: &Balancer, client: &str) -> Conn {
    Conn::from(client.parse().unwrap(), balancer.address)
}

fn a_changed_plan_is_in_force_on_the_next_request_of_all_its_clients(database: &Database) {
    let (_backend, balancer) = start(database);
    plan(&balancer, "free", &[bucket("day", 5)]);
    let clients = ["127.0.1.1", "127.0.1.2", "127.0.1.3"];
    for client in clients {
        put(&balancer, &format!("/v1/limits/{client}"), &json!({ "plan": "free" }));
        assert_eq!(rest(&from(&balancer, client).get("/").expect(200)), Some(r#""day";r=4"#), "{client}");
    }
    for (capacity, left) in [(7, 5), (3, 0)] {
        plan(&balancer, "free", &[bucket("day", capacity)]);
        for client in clients {
            let answer = from(&balancer, client).get("/").expect(200);
            let item = format!(r#""day";r={left}"#);
            assert_eq!(rest(&answer), Some(item.as_str()), "{client} {capacity}");
        }
    }
    for client in clients {
        assert_eq!(violated(&from(&balancer, client).get("/")), json!(["day"]));
    }
    // The plan is stored with the last numbers.
    let shown = balancer.api("GET", "/v1/plans/free", &Value::Null).expect(200).json();
    assert_eq!(shown["buckets"][0]["capacity"], 3);
}

fn levels_carry_over_by_name_and_a_new_name_starts_full(database: &Database) {
    let (_backend, balancer) = start(database);
    plan(&balancer, "free", &[bucket("day", 5)]);
    plan(&balancer, "pro", &[bucket("hour", 4), bucket("day", 9)]);
    let target = "/v1/limits/127.0.1.1";
    put(&balancer, target, &json!({ "plan": "free" }));
    let mut conn = from(&balancer, "127.0.1.1");
    for _ in 0..5 {
        conn.get("/").expect(200);
    }
    assert_eq!(violated(&conn.get("/")), json!(["day"]));
    put(&balancer, target, &json!({ "plan": "pro" }));
    let usage = |balancer: &Balancer| {
        let usage = request(balancer.admin, "GET", &format!("{target}/usage"), &[], b"").expect(200).json();
        let buckets = usage["buckets"].as_array().unwrap().clone();
        buckets.iter().map(|one| (one["name"].clone(), one["level"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(usage(&balancer), [(json!("hour"), json!(4)), (json!("day"), json!(4))]);
    assert_eq!(rest(&conn.get("/").expect(200)), Some(r#""day";r=3"#));
    // Changing the plan and back gains no tokens.
    put(&balancer, target, &json!({ "plan": "free" }));
    assert_eq!(violated(&conn.get("/")), json!(["day"]));
    put(&balancer, target, &json!({ "buckets": [bucket("hour", 4)] }));
    assert_eq!(rest(&conn.get("/").expect(200)), Some(r#""hour";r=2"#));
}

fn a_shadow_bucket_keeps_its_level_when_it_is_enforced(database: &Database) {
    let (_backend, balancer) = start(database);
    let mut trial = bucket("trial", 3);
    trial["mode"] = json!("shadow");
    let target = "/v1/limits/127.0.1.1";
    put(&balancer, target, &json!({ "buckets": [trial, bucket("day", 10)] }));
    let mut conn = from(&balancer, "127.0.1.1");
    for left in (8..10).rev() {
        assert_eq!(rest(&conn.get("/").expect(200)), Some(format!(r#""day";r={left}"#).as_str()));
    }
    trial["mode"] = json!("enforced");
    put(&balancer, target, &json!({ "buckets": [trial, bucket("day", 10)] }));
    assert_eq!(rest(&conn.get("/").expect(200)), Some(r#""trial";r=0"#));
    assert_eq!(violated(&conn.get("/")), json!(["trial"]));
}

fn a_shared_range_is_one_bucket(database: &Database) {
    let (_backend, balancer) = start(database);
    let target = "/v1/limits/127.0.2.0%2F24";
    put(&balancer, target, &json!({ "buckets": [bucket("default", 3)], "shared": true }));
    for (client, left) in [("127.0.2.1", 2), ("127.0.2.2", 1), ("127.0.2.3", 0)] {
        let answer = from(&balancer, client).get("/").expect(200);
        assert_eq!(rest(&answer), Some(format!(r#""range";r={left}"#).as_str()), "{client}");
    }
    assert_eq!(violated(&from(&balancer, "127.0.2.4").get("/")), json!(["range"]));
    // Another number for all of it, at once.
    put(&balancer, target, &json!({ "buckets": [bucket("default", 5)], "shared": true }));
    assert_eq!(rest(&from(&balancer, "127.0.2.4").get("/").expect(200)), Some(r#""range";r=1"#));
    // An address with an entry of its own starts from where it was, and leaves the others alone.
    put(&balancer, "/v1/limits/127.0.2.1", &json!({ "buckets": [bucket("default", 9)] }));
    assert_eq!(rest(&from(&balancer, "127.0.2.1").get("/").expect(200)), Some(r#""client";r=4"#));
    assert_eq!(rest(&from(&balancer, "127.0.2.2").get("/").expect(200)), Some(r#""range";r=0"#));
    // Not shared any more: each address has its own.
    put(&balancer, target, &json!({ "buckets": [bucket("default", 5)] }));
    assert_eq!(rest(&from(&balancer, "127.0.2.7").get("/").expect(200)), Some(r#""range";r=4"#));
}

fn an_exempt_client_is_never_refused_and_still_counted(database: &Database) {
    let (_backend, balancer) = start(database);
    put(&balancer, "/v1/limits/127.0.1.1", &json!({ "mode": "exempt" }));
    let mut conn = from(&balancer, "127.0.1.1");
    for _ in 0..5 {
        assert_eq!(fields(&conn.get("/").expect(200)), (None, None));
    }
    let text = request(balancer.admin, "GET", "/metrics", &[], b"").expect(200).text();
    let series = r#"balancer_ratelimit_requests_total{policy="client",decision="allowed"} 5"#;
    assert!(text.lines().any(|line| line == series), "{text}");
}

fn a_clients_own_bound_on_requests_at_once_wins_over_its_plans(database: &Database) {
    let (_backend, balancer) = start(database);
    let body = json!({ "name": "free", "buckets": [bucket("day", 5)], "max_in_flight": 7 });
    put(&balancer, "/v1/plans/free", &body);
    put(&balancer, "/v1/limits/127.0.1.1", &json!({ "plan": "free" }));
    put(&balancer, "/v1/limits/127.0.1.2", &json!({ "plan": "free", "max_in_flight": 2 }));
    for (client, most) in [("127.0.1.1", 7), ("127.0.1.2", 2)] {
        let answer = from(&balancer, client).get("/").expect(200);
        let policy = format!(r#""day";q=5;w=86400, "concurrency";q={most};qu="concurrent-requests""#);
        assert_eq!(fields(&answer).0, Some(policy.as_str()));
    }
}
