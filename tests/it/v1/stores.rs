//! Limits, plans, batches and the audit, on both databases.

use serde_json::{Value, json};

use super::{IDS, call, day, encoded, pointers};
use crate::support::engine::each_store;
use crate::support::{Backend, Balancer, Conn, Database, PATIENCE, Setup};

each_store! {
    a_limit_and_its_plan_live_and_end,
    ids_round_trip_by_path_and_by_query,
    a_second_writer_with_an_old_tag_is_412,
    two_creates_at_once_are_one_201_and_one_409,
    a_batch_is_done_as_a_whole_or_not_at_all,
    listings_page_by_link,
    everything_that_changed_is_in_the_audit,
}

fn start(database: &Database) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::auto().store(database).backend(backend.address()).start();
    (backend, balancer)
}

fn a_limit_and_its_plan_live_and_end(database: &Database) {
    let (_backend, balancer) = start(database);
    let api = |method: &str, target: &str, body: Value| balancer.api(method, target, &body);
    let plan = json!({ "name": "free", "buckets": [day(100)] });
    let made = api("POST", "/-/v1/plans", plan.clone()).expect(201);
    assert_eq!(made.field("location"), Some("/-/v1/plans/free"));
    api("POST", "/-/v1/plans", plan).problem(409);
    let made = api("POST", "/-/v1/limits", json!({ "client_id": "tenant/7", "plan": "free" })).expect(201);
    assert_eq!(made.field("location"), Some("/-/v1/limits/tenant%2F7"));
    assert_eq!(
        made.json(),
        json!({ "client_id": "tenant/7", "plan": "free", "buckets": [], "max_in_flight": null, "shared": false })
    );
    api("POST", "/-/v1/limits", json!({ "client_id": "tenant/7", "mode": "exempt" })).problem(409);
    let missing = api("POST", "/-/v1/limits", json!({ "client_id": "x", "plan": "other" }));
    missing.problem(400);
    assert_eq!(pointers(&missing), ["/plan"]);
    let refused = api("DELETE", "/-/v1/plans/free", Value::Null);
    assert!(
        refused.problem(409)["detail"].as_str().is_some_and(|detail| detail.contains('1')),
        "{refused:?}"
    );

    // The fixed calls show the numbers of its first bucket, and an update takes the client off the plan.
    let got = balancer.get("/limits/get?client_id=tenant/7").expect(200).json();
    assert_eq!((&got["client_id"], &got["capacity"]), (&json!("tenant/7"), &json!(100)));
    let numbers = json!({ "client_id": "tenant/7", "capacity": 10, "rate_per_sec": 2.5 });
    api("PUT", "/limits/update", numbers).expect(204);
    let shown = api("GET", "/-/v1/limits/tenant%2F7", Value::Null).expect(200);
    let default = json!({
        "name": "default", "amount": 2.5, "per": "1s", "capacity": 10, "mode": "enforced", "reset": null,
    });
    assert_eq!((&shown.json()["plan"], &shown.json()["buckets"]), (&Value::Null, &json!([default])));
    api("DELETE", "/-/v1/plans/free", Value::Null).expect(204);
    api("DELETE", "/-/v1/plans/free", Value::Null).problem(404);

    let put =
        api("PUT", "/-/v1/limits/tenant%2F7", json!({ "buckets": [day(5)], "max_in_flight": 3 })).expect(200);
    assert_eq!(put.json()["max_in_flight"], 3);
    api("DELETE", "/-/v1/limits/tenant%2F7", Value::Null).expect(204);
    api("GET", "/-/v1/limits/tenant%2F7", Value::Null).problem(404);
    api("DELETE", "/-/v1/limits/tenant%2F7", Value::Null).problem(404);
    balancer.get("/limits/get?client_id=tenant/7").problem(404);
}

fn ids_round_trip_by_path_and_by_query(database: &Database) {
    let (_backend, balancer) = start(database);
    let long = "ü".repeat(128);
    for id in IDS.iter().copied().chain([long.as_str()]) {
        let limit = json!({ "client_id": id, "buckets": [day(1)] });
        let location =
            balancer.api("POST", "/-/v1/limits", &limit).expect(201).field("location").map(str::to_owned);
        let by_path = format!("/-/v1/limits/{}", encoded(id));
        let by_query = format!("/-/v1/limit?client_id={}", encoded(id));
        for target in [location.expect("a Location"), by_path.clone(), by_query.clone()] {
            assert_eq!(balancer.get(&target).expect(200).json()["client_id"], id, "{target}");
        }
        balancer.api("PUT", &by_query, &json!({ "client_id": id, "buckets": [day(2)] })).expect(200);
        let usage = balancer.get(&format!("/-/v1/limit/usage?client_id={}", encoded(id))).expect(200).json();
        assert_eq!((&usage["client_id"], &usage["in_flight"]), (&json!(id), &json!(0)));
        balancer.api("POST", &format!("{by_path}/reset"), &Value::Null).expect(204);
        balancer.api("DELETE", &by_path, &Value::Null).expect(204);
    }
}

fn a_second_writer_with_an_old_tag_is_412(database: &Database) {
    let (_backend, balancer) = start(database);
    let target = "/-/v1/limits/a";
    let put = |fields: &[(&str, &str)], amount| {
        call(&balancer, "PUT", target, fields, &json!({ "buckets": [day(amount)] }))
    };
    put(&[("If-Match", "*")], 1).problem(412);
    let first = put(&[("If-None-Match", "*")], 1).expect(201);
    let old = first.field("etag").expect("a tag").to_owned();
    put(&[("If-None-Match", "*")], 2).problem(412);
    let second = put(&[("If-Match", &old)], 2).expect(200);
    let new = second.field("etag").expect("a tag").to_owned();
    assert_ne!(old, new);
    put(&[("If-Match", &old)], 3).problem(412);
    call(&balancer, "DELETE", target, &[("If-Match", &old)], &Value::Null).problem(412);
    let got = call(&balancer, "GET", target, &[("If-None-Match", &old)], &Value::Null).expect(200);
    assert_eq!((got.json()["buckets"][0]["amount"].as_u64(), got.field("etag")), (Some(2), Some(&*new)));
    let known = call(&balancer, "GET", target, &[("If-None-Match", &new)], &Value::Null).expect(304);
    assert_eq!(known.field("etag"), Some(&*new));
    put(&[("If-Match", &format!("{old}, {new}"))], 4).expect(200);
    call(&balancer, "DELETE", target, &[("If-Match", "*")], &Value::Null).expect(204);
    call(&balancer, "DELETE", target, &[("If-Match", "*")], &Value::Null).problem(412);
    // The fixed calls give a row a new version, too.
    balancer.limit("b", 1, 1);
    let before = balancer.get("/-/v1/limits/b").expect(200).field("etag").map(str::to_owned);
    balancer
        .api("PUT", "/limits/update", &json!({ "client_id": "b", "capacity": 2, "rate_per_sec": 1 }))
        .expect(204);
    assert_ne!(balancer.get("/-/v1/limits/b").field("etag").map(str::to_owned), before);
}

fn two_creates_at_once_are_one_201_and_one_409(database: &Database) {
    let (_backend, balancer) = start(database);
    let barrier = std::sync::Barrier::new(8);
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut conn = Conn::open(balancer.admin);
                    let body = json!({ "client_id": "one", "mode": "exempt" }).to_string();
                    barrier.wait();
                    conn.ask("POST", "/-/v1/limits", &[], body.as_bytes()).status
                })
            })
            .collect();
        tries.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

fn a_batch_is_done_as_a_whole_or_not_at_all(database: &Database) {
    let backend = Backend::named("a");
    // Long time-outs: this test is not about time.
    let setup = Setup::auto().store(database).backend(backend.address());
    let balancer = setup.set("database.timeout", json!("2m")).start();
    let batch = |operations: Value| {
        let mut conn = Conn::open(balancer.admin);
        conn.wait_at_most(PATIENCE * 5);
        conn.ask("POST", "/-/v1/batch", &[], json!({ "operations": operations }).to_string().as_bytes())
    };
    let create = |id: String| json!({ "op": "create", "client_id": id, "buckets": [day(3)] });
    let many: Vec<_> = (0..10_000).map(|number| create(format!("n{number:05}"))).collect();
    assert_eq!(batch(json!(many)).expect(200).json(), json!({ "applied": 10_000 }));
    let listed = || {
        let page = balancer.get("/-/v1/limits?limit=1000&prefix=n09").expect(200).json();
        page["limits"].as_array().expect("a list").len()
    };
    assert_eq!(listed(), 1_000);
    for (last, status, pointer) in [
        (create("n00001".into()), 409, "/operations/2"),
        (json!({ "op": "delete", "client_id": "none" }), 404, "/operations/2"),
        (json!({ "op": "put", "client_id": "b", "plan": "none" }), 400, "/operations/2"),
        (json!({ "op": "put", "client_id": "b" }), 400, "/operations/2"),
    ] {
        let operations =
            json!([json!({ "op": "delete", "client_id": "n09001" }), create("new".into()), last]);
        let reply = batch(operations);
        reply.problem(status);
        assert!(pointers(&reply).iter().all(|one| one.starts_with(pointer)), "{reply:?}");
        assert_eq!(listed(), 1_000);
        balancer.get("/-/v1/limits/new").problem(404);
    }
    let deletes: Vec<_> =
        (0..1_000).map(|n| json!({ "op": "delete", "client_id": format!("n09{n:03}") })).collect();
    batch(json!(deletes)).expect(200);
    assert_eq!(listed(), 0);
}

fn listings_page_by_link(database: &Database) {
    let (_backend, balancer) = start(database);
    balancer.api("POST", "/-/v1/plans", &json!({ "name": "free", "buckets": [day(1)] })).expect(201);
    let ids = ["a%", "a/1", "a/2", "a_", "b", "🎉"];
    for (at, id) in ids.iter().enumerate() {
        let body = if at % 2 == 0 { json!({ "plan": "free" }) } else { json!({ "mode": "exempt" }) };
        balancer.api("PUT", &format!("/-/v1/limits/{}", encoded(id)), &body).expect(201);
    }
    for (filter, expected) in [
        ("", &ids[..]),
        ("&prefix=a", &["a%", "a/1", "a/2", "a_"]),
        ("&prefix=a%25", &["a%"]),
        ("&prefix=a_", &["a_"]),
        ("&prefix=%F0%9F%8E%89", &["🎉"]),
        ("&plan=free", &["a%", "a/2", "b"]),
        ("&plan=free&prefix=a", &["a%", "a/2"]),
    ] {
        let mut target = format!("/-/v1/limits?limit=1{filter}");
        let mut seen = Vec::new();
        loop {
            let page = balancer.get(&target).expect(200);
            let json = page.json();
            let rows = json["limits"].as_array().expect("a list");
            seen.extend(rows.iter().map(|row| row["client_id"].as_str().expect("text").to_owned()));
            let Some(link) = page.field("link") else {
                assert_eq!(json["next_cursor"], Value::Null);
                break;
            };
            target = link.split(['<', '>']).nth(1).expect("a target").to_owned();
            assert!(target.contains(json["next_cursor"].as_str().expect("a cursor")));
        }
        assert_eq!(seen, expected, "{filter}");
    }
    let cursor =
        balancer.get("/-/v1/limits?limit=1").json()["next_cursor"].as_str().expect("a cursor").to_owned();
    for other in
        ["/-/v1/plans?", "/-/v1/audit?", "/limits?", "/-/v1/limits?prefix=a&", "/-/v1/limits?plan=free&"]
    {
        balancer.get(&format!("{other}cursor={cursor}")).problem(400);
    }
    let plans = balancer.get("/-/v1/plans").expect(200).json();
    assert_eq!((&plans["plans"][0]["name"], &plans["next_cursor"]), (&json!("free"), &Value::Null));
}

fn everything_that_changed_is_in_the_audit(database: &Database) {
    let (_backend, balancer) = start(database);
    let api = |method: &str, target: &str, body: Value| balancer.api(method, target, &body);
    balancer.limit("a", 1, 1);
    api("PUT", "/-/v1/limits/a", json!({ "buckets": [day(2)] })).expect(200);
    api("POST", "/-/v1/limits/a/reset", Value::Null).expect(204);
    api(
        "POST",
        "/-/v1/batch",
        json!({ "operations": [{ "op": "put", "client_id": "b", "mode": "exempt" }] }),
    )
    .expect(200);
    api("POST", "/-/v1/plans", json!({ "name": "free", "buckets": [day(1)] })).expect(201);
    api("DELETE", "/limits/delete", json!({ "client_id": "a" })).expect(204);
    // Refused calls are not.
    api("DELETE", "/-/v1/limits/a", Value::Null).problem(404);
    api("PUT", "/-/v1/limits/a", json!({})).problem(400);
    let secret = "no-one-may-see-this";
    api("POST", "/-/v1/limits", json!({ "key": secret, "mode": "exempt" })).expect(201);
    let audit = balancer.get("/-/v1/audit").expect(200);
    assert!(!audit.text().contains(secret));
    let json = audit.json();
    let entries = json["entries"].as_array().expect("a list");
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().expect("text")).collect();
    assert_eq!(actions, ["create", "delete", "create", "batch", "reset", "put", "create"]);
    for entry in entries {
        assert_eq!(entry["actor"], "127.0.0.1", "{entry}");
        assert!(entry["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{entry}");
    }
    let put = &entries[5];
    assert_eq!(put["target"], json!({ "client_id": "a" }));
    assert_eq!(put["before"]["buckets"][0]["name"], "default");
    assert_eq!(put["after"]["buckets"][0]["name"], "day");
    let first = balancer.get("/-/v1/audit?limit=3").expect(200);
    assert!(first.field("link").is_some_and(|link| link.contains("rel=\"next\"")), "{first:?}");
    let rest = first.json()["next_cursor"].as_str().map(|cursor| {
        balancer.get(&format!("/-/v1/audit?limit=1000&cursor={cursor}")).expect(200).json()["entries"].clone()
    });
    assert_eq!(rest.expect("a cursor").as_array().map(Vec::len), Some(4));
}
