//! Plans, batches, levels, questions, rankings and the audit by the wire.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{call, field, pointers};
use crate::api::tests::bench::{Bench, Call};
use crate::api::v1::batch::MAX_BATCH_BYTES;
use balancer_http::message::BodyLength;
use balancer_limiter::heavy_hitters::Refusal;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::terms::BucketName;
use balancer_time::seconds;

fn bucket(name: &str, amount: u32) -> Value {
    json!({ "name": name, "amount": amount, "per": "1d" })
}

#[test]
fn a_plans_life() {
    let bench = Bench::new();
    let plan = json!({ "name": "früh/1", "buckets": [bucket("day", 5)], "max_in_flight": 2 });
    let made = call(&bench, "POST", "/-/v1/plans", &[], &plan);
    assert_eq!((made.status, field(&made, "Location")), (201, "/-/v1/plans/fr%C3%BCh%2F1"));
    assert_eq!(made.body["buckets"][0]["capacity"], 5);
    assert_eq!(call(&bench, "POST", "/-/v1/plans", &[], &plan).status, 409);
    for target in ["/-/v1/plans/fr%C3%BCh%2F1", "/-/v1/plan?name=fr%C3%BCh/1"] {
        let got = bench.json("GET", target, "");
        assert_eq!((got.status, &got.body), (200, &made.body), "{target}");
        let known = call(&bench, "GET", target, &[("If-None-Match", field(&got, "ETag"))], &Value::Null);
        assert_eq!(known.status, 304);
    }
    let target = "/-/v1/plans/fr%C3%BCh%2F1";
    let put = |fields: &[(&str, &str)], body: Value| call(&bench, "PUT", target, fields, &body);
    assert_eq!(put(&[("If-Match", "\"0\"")], json!({ "buckets": [bucket("day", 6)] })).status, 412);
    let second = put(&[("If-Match", field(&made, "ETag"))], json!({ "buckets": [bucket("day", 6)] }));
    assert_eq!((second.status, &second.body["max_in_flight"]), (200, &Value::Null));
    for (body, pointer) in [
        (json!({ "name": "other", "buckets": [bucket("day", 6)] }), "/name"),
        (json!({ "name": null, "buckets": [bucket("day", 6)] }), "/name"),
        (json!({}), "/buckets"),
        (json!({ "buckets": [] }), "/buckets"),
        (json!({ "buckets": [bucket("a", 1), bucket("a", 2)] }), "/buckets/1/name"),
        (json!({ "buckets": [bucket("a", 1)], "shared": true }), "/shared"),
        (json!({ "buckets": [bucket("a", 1)], "plan": "b" }), "/plan"),
        (json!({ "buckets": [bucket("a", 1)], "max_in_flight": 1.5 }), "/max_in_flight"),
    ] {
        let reply = put(&[], body.clone());
        assert_eq!((reply.status, pointers(&reply)), (400, vec![pointer]), "{body}");
    }
    for id in ["a", "b"] {
        let limit = json!({ "plan": "früh/1" });
        assert_eq!(call(&bench, "PUT", &format!("/-/v1/limits/{id}"), &[], &limit).status, 201);
    }
    let refused = bench.json("DELETE", target, "");
    assert_eq!((refused.status, refused.body["detail"].as_str()), (409, Some("2 limits name this plan")));
    for id in ["a", "b"] {
        bench.json("DELETE", &format!("/-/v1/limits/{id}"), "");
    }
    assert_eq!(bench.json("DELETE", target, "").status, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(bench.json(method, target, "").status, 404, "{method}");
    }
    for raw in ["%00", "%zz", &"x".repeat(65)] {
        let reply = bench.json("GET", &format!("/-/v1/plans/{raw}"), "");
        assert_eq!((reply.status, pointers(&reply)), (400, vec!["/name"]), "{raw}");
    }
    assert_eq!(call(&bench, "PUT", "/-/v1/plan", &[], &plan).status, 400);
}

#[test]
fn plans_are_listed_by_name() {
    let bench = Bench::new();
    for name in ["pro", "free", "a b"] {
        call(&bench, "POST", "/-/v1/plans", &[], &json!({ "name": name, "buckets": [bucket("day", 5)] }));
    }
    let first = bench.json("GET", "/-/v1/plans?limit=2", "");
    let names = |reply: &Value| {
        let plans = reply["plans"].as_array().unwrap().iter();
        plans.map(|plan| plan["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first.body), ["a b", "free"]);
    let cursor = first.body["next_cursor"].as_str().unwrap();
    assert_eq!(field(&first, "Link"), format!("</-/v1/plans?limit=2&cursor={cursor}>; rel=\"next\""));
    let second = bench.json("GET", &format!("/-/v1/plans?cursor={cursor}"), "");
    assert_eq!((names(&second.body), &second.body["next_cursor"]), (vec!["pro".to_owned()], &Value::Null));
    assert_eq!(field(&second, "Link"), "");
}

#[test]
fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let bench = Bench::new();
    let batch =
        |operations: Value| call(&bench, "POST", "/-/v1/batch", &[], &json!({ "operations": operations }));
    let create = |id: &str| json!({ "op": "create", "client_id": id, "buckets": [bucket("day", 1)] });
    let delete = |id: &str| json!({ "op": "delete", "client_id": id });
    let done = batch(json!([
        create("a"),
        { "op": "put", "client_id": "b", "mode": "exempt" },
        { "op": "put", "key": "abc", "mode": "exempt" },
        delete("a"),
    ]));
    assert_eq!((done.status, &done.body), (200, &json!({ "applied": 4 })));
    let ids = || {
        let rows = bench.json("GET", "/-/v1/limits", "").body["limits"].as_array().unwrap().clone();
        rows.iter().map(|row| row["client_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = ids();
    assert_eq!(before, ["b", "sha256:ba7816bf8f01cfea414140de5dae2223"]);
    for (operations, status, pointer) in [
        (json!([create("c"), create("b")]), 409, "/operations/1"),
        (json!([create("c"), delete("x")]), 404, "/operations/1"),
        (json!([create("c"), { "op": "put", "client_id": "d", "plan": "none" }]), 400, "/operations/1/plan"),
        (json!([create("c"), create("c")]), 409, "/operations/1"),
        (json!([create("c"), { "op": "create", "client_id": "d" }]), 400, "/operations/1/buckets"),
        (
            json!([create("c"), { "op": "create", "client_id": "d", "buckets": [{ "name": "a", "amount": 1, "per": "x" }] }]),
            400,
            "/operations/1/buckets/0/per",
        ),
        (json!([create("c"), { "op": "update", "client_id": "d" }]), 400, "/operations/1/op"),
        (json!([create("c"), { "client_id": "d" }]), 400, "/operations/1/op"),
        (json!([create("c"), { "op": "delete" }]), 400, "/operations/1/client_id"),
        (json!([create("c"), { "op": "delete", "client_id": "b", "plan": "x" }]), 400, "/operations/1/plan"),
        (json!([create("c"), { "op": "delete", "client_id": "b", "x": 1 }]), 400, "/operations/1/x"),
        (json!([create("c"), 7]), 400, "/operations/1"),
        (json!({}), 400, "/operations"),
        (Value::Null, 400, "/operations"),
    ] {
        let reply = batch(operations.clone());
        assert_eq!((reply.status, pointers(&reply)), (status, vec![pointer]), "{operations}");
        assert_eq!(ids(), before, "{operations}");
    }
    assert_eq!(call(&bench, "POST", "/-/v1/batch", &[], &json!({ "ops": [] })).status, 400);
    assert_eq!(batch(json!([])).body, json!({ "applied": 0 }));
    // The store's tests carry out as many as a batch may have.
    let mut many = vec![create("b"); 10_000];
    let reply = batch(json!(many));
    assert_eq!((reply.status, pointers(&reply)), (409, vec!["/operations/0"]));
    many.push(create("c"));
    let reply = batch(json!(many));
    assert_eq!((reply.status, pointers(&reply)), (400, vec!["/operations"]));
}

#[test]
fn a_batch_may_be_larger_than_other_bodies() {
    let bench = Bench::new();
    let post = Call { method: "POST", target: "/-/v1/batch", ..Call::default() };
    let pieces = || (0..10).map(|_| Ok(vec![b' '; 60_000])).chain([Ok(br#"{"operations":[]}"#.to_vec())]);
    assert_eq!(bench.call_with(&post, BodyLength::Chunked, pieces().collect()).status, 200);
    let unread = || vec![Err(std::io::Error::other("must not be read"))];
    let over = BodyLength::Known(MAX_BATCH_BYTES as u64 + 1);
    assert_eq!(bench.call_with(&post, over, unread()).status, 413);
    for target in ["/-/v1/limits", "/-/v1/plans", "/-/v1/check", "/-/v1/limits/a/reset"] {
        let post = Call { target, ..post.clone() };
        assert_eq!(bench.call_with(&post, BodyLength::Known(65_537), unread()).status, 413, "{target}");
    }
}

#[test]
fn levels_are_shown_and_filled() {
    let bench = Bench::new();
    let limit = json!({ "buckets": [bucket("day", 5), bucket("hour", 1)] });
    call(&bench, "PUT", "/-/v1/limits/::ffff:1.2.3.4", &[], &limit);
    let expected = |day: u32, hour: u32, in_flight: u32| {
        json!({
            "client_id": "::ffff:1.2.3.4",
            "buckets": [
                { "name": "day", "capacity": 5, "level": day, "spent_elsewhere": 0 },
                { "name": "hour", "capacity": 1, "level": hour, "spent_elsewhere": 0 },
            ],
            "in_flight": in_flight,
            "instance": "i-1",
        })
    };
    let usage = |day, hour, in_flight| {
        for target in ["/-/v1/limits/1.2.3.4/usage", "/-/v1/limit/usage?client_id=1.2.3.4"] {
            assert_eq!(bench.json("GET", target, "").body, expected(day, hour, in_flight), "{target}");
        }
    };
    usage(5, 1, 0);
    let mut inside = Vec::new();
    for target in ["/-/v1/limits/1.2.3.4/reset", "/-/v1/limit/reset?client_id=1.2.3.4"] {
        inside.push(bench.enter("1.2.3.4"));
        usage(4, 0, inside.len() as u32);
        assert_eq!(bench.json("POST", target, "").status, 204, "{target}");
        usage(5, 1, inside.len() as u32);
    }
    inside.push(bench.enter("1.2.3.4"));
    assert_eq!(bench.json("POST", "/-/v1/limits/other/reset", "").status, 404);
    usage(4, 0, 3);
    assert_eq!(bench.json("POST", "/-/v1/limits/1.2.3.4/reset", r#"{"x":1}"#).status, 400);
    assert_eq!(bench.json("GET", "/-/v1/audit", "").body["entries"][0]["action"], "reset");
}

#[test]
fn a_question_is_answered_and_a_bad_one_refused() {
    let bench = Bench::new();
    let ask = |body: Value| call(&bench, "POST", "/-/v1/check", &[], &body);
    // What `X-Tenant: tenant` shows.
    let tenant = "sha256:e9da86d351cf9a7642d8c50195c3f466";
    for (id, capacity) in [("1.2.3.4:5", 1), ("::1", 0), (tenant, 1)] {
        let bucket = json!({ "name": "day", "amount": capacity, "per": "1d" });
        call(&bench, "PUT", &format!("/-/v1/limits/{id}"), &[], &json!({ "buckets": [bucket] }));
    }
    let expected = |identity: &str, id: &str| {
        json!({
            "decision": "allowed", "identity": identity, "candidates": [id], "matched": id, "policy": "client",
            "buckets": [{ "name": "day", "capacity": 1, "level": 1 }], "route": null, "pool": "default",
            "weight": 1, "priority": "normal", "instance": "i-1",
        })
    };
    let answer = ask(json!({
        "address": "1.2.3.4", "port": 5, "method": "GET", "path": "/a?b", "headers": { "x-many": ["a", "b"] },
    }));
    assert_eq!((answer.status, answer.body), (200, expected("1.2.3.4", "1.2.3.4:5")));
    let answer = ask(json!({ "address": "1.2.3.4", "headers": { "X-Tenant": " tenant " } }));
    assert_eq!((answer.status, answer.body), (200, expected(tenant, tenant)));
    let short = ask(json!({ "address": "::2", "port": null, "method": null, "path": null, "headers": null }));
    assert_eq!((short.status, &short.body["matched"]), (200, &Value::Null));
    assert_eq!(short.body["candidates"], json!(["::2", "default"]));
    assert_eq!(ask(json!({ "address": "::1", "method": "POST" })).body["decision"], "denied");
    for (member, value, pointer) in [
        ("address", json!("1.2.3.4:5"), "/address"),
        ("address", json!(7), "/address"),
        ("host", json!(""), "/host"),
        ("host", json!("a b"), "/host"),
        ("host", json!(7), "/host"),
        ("port", json!(65_536), "/port"),
        ("port", json!(-1), "/port"),
        ("port", json!("5"), "/port"),
        ("method", json!(""), "/method"),
        ("method", json!("G T"), "/method"),
        ("path", json!("a"), "/path"),
        ("path", json!("/ü"), "/path"),
        ("headers", json!([]), "/headers"),
        ("headers", json!({ "a b": "c" }), "/headers/a b"),
        ("headers", json!({ "a": "b\nc" }), "/headers/a"),
        ("headers", json!({ "a": 1 }), "/headers/a"),
        ("headers", json!({ "a": [1] }), "/headers/a"),
        ("headers", json!({ "a": vec![""; 257] }), "/headers/a"),
        ("header", json!({}), "/header"),
    ] {
        let mut body = json!({ "address": "1.2.3.4" });
        body[member] = value;
        let reply = ask(body.clone());
        assert_eq!((reply.status, pointers(&reply)), (400, vec![pointer]), "{body}");
    }
    assert_eq!(pointers(&ask(json!({}))), ["/address"]);
    assert_eq!(bench.json("GET", "/-/v1/check", "").status, 405);
}

#[test]
fn rankings_are_of_a_window() {
    let bench = Bench::new();
    let get = |target: &str| bench.json("GET", target, "");
    let refusal =
        Refusal { entry: None, bucket: BucketName::parse("minute").unwrap(), rule: Some("login".into()) };
    for (name, refusals) in [("a", [Some(&refusal), None]), ("b", [None, None])] {
        let (client, name) = (ClientKey::digest(name.as_bytes()), Arc::from(name));
        for refusal in refusals {
            bench.heavy_hitters.count(client, Some(&name), refusal, bench.clock.now());
        }
    }
    bench.heavy_hitters.count(ClientKey::digest(b"a"), None, None, bench.clock.now());
    let limited = get("/-/v1/limited");
    let reasons = json!([{ "policy": "rule", "bucket": "minute", "rule": "login", "denied": 1 }]);
    let rows = json!([{ "client_id": "a", "denied": 1, "reasons": reasons }]);
    assert_eq!(limited.body, json!({ "limited": rows, "window": "5m", "instance": "i-1" }));
    let clients = get("/-/v1/clients?window=1h&top=1");
    let rows = json!([{ "client_id": "a", "requests": 3, "denied": 1 }]);
    assert_eq!(clients.body, json!({ "clients": rows, "window": "1h", "instance": "i-1" }));
    for path in ["/-/v1/limited", "/-/v1/clients"] {
        for query in ["window=0s", "window=61m", "window=1d", "window=x", "window=5", "window="] {
            let reply = get(&format!("{path}?{query}"));
            assert_eq!((reply.status, pointers(&reply)), (400, vec!["/window"]), "{query}");
        }
        for query in ["top=0", "top=1001", "top=x"] {
            let reply = get(&format!("{path}?{query}"));
            assert_eq!((reply.status, pointers(&reply)), (400, vec!["/top"]), "{query}");
        }
    }
}

#[test]
fn the_audit_is_newest_first_and_pages() {
    let bench = Bench::new();
    for id in ["a", "b", "c"] {
        call(&bench, "PUT", &format!("/-/v1/limits/{id}"), &[], &json!({ "mode": "exempt" }));
    }
    let first = bench.json("GET", "/-/v1/audit?limit=2", "");
    let entry = &first.body["entries"][0];
    assert_eq!(entry["actor"], "127.0.0.1");
    assert_eq!(entry["action"], "create");
    assert_eq!(entry["target"], json!({ "client_id": "c" }));
    assert_eq!(entry["before"], Value::Null);
    assert_eq!(entry["after"]["mode"], "exempt");
    let at = entry["at"].as_str().unwrap();
    let at_s = at.parse::<jiff::Timestamp>().unwrap().as_second().unsigned_abs();
    assert!(seconds(bench.clock.wall()).abs_diff(at_s) < 60, "{at}");
    assert!(at.ends_with('Z'), "{at}");
    let cursor = first.body["next_cursor"].as_str().unwrap();
    assert!(field(&first, "Link").contains(cursor));
    let second = bench.json("GET", &format!("/-/v1/audit?limit=2&cursor={cursor}"), "");
    let targets = second.body["entries"].as_array().unwrap();
    assert_eq!((targets.len(), &targets[0]["target"]["client_id"]), (1, &json!("a")));
    assert_eq!(second.body["next_cursor"], Value::Null);
}
