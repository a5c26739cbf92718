//! Weight and priority by the wire.

use serde_json::{Value, json};

use super::{call, field, pointers};
use crate::api::tests::bench::{Bench, Reply};

fn put(bench: &Bench, target: &str, members: Value) -> Reply {
    let mut body = json!({ "buckets": [{ "name": "day", "amount": 5, "per": "1d" }] });
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    call(bench, "PUT", target, &[], &body)
}

fn said(body: &Value) -> [&Value; 2] {
    ["weight", "priority"].map(|name| body.get(name).unwrap_or(&Value::Null))
}

#[test]
fn limits_and_plans_show_what_was_said_and_nothing_else() {
    let bench = Bench::new();
    for target in ["/-/v1/limits/a", "/-/v1/plans/p"] {
        let bare = put(&bench, target, json!({ "weight": null, "priority": null }));
        assert_eq!(bare.status, 201, "{bare:?}");
        assert!(bare.body.get("weight").is_none() && bare.body.get("priority").is_none(), "{bare:?}");
        for members in [
            json!({ "weight": 1, "priority": "normal" }),
            json!({ "weight": 1000, "priority": "critical" }),
            json!({ "weight": 7 }),
            json!({ "priority": "background" }),
        ] {
            let shown = put(&bench, target, members.clone());
            assert_eq!((shown.status, said(&shown.body)), (200, said(&members)), "{members}");
            let got = bench.json("GET", target, "");
            assert_eq!((&got.body, field(&got, "ETag")), (&shown.body, field(&shown, "ETag")));
        }
        let entry = bench.json("GET", "/-/v1/audit?limit=1", "").body["entries"][0].clone();
        assert_eq!(said(&entry["before"]), [&json!(7), &Value::Null]);
        assert_eq!(said(&entry["after"]), [&Value::Null, &json!("background")]);
        for (members, pointer) in [
            (json!({ "weight": 0 }), "/weight"),
            (json!({ "weight": 1001 }), "/weight"),
            (json!({ "weight": 1.5 }), "/weight"),
            (json!({ "weight": "4" }), "/weight"),
            (json!({ "priority": "high" }), "/priority"),
            (json!({ "priority": "Normal" }), "/priority"),
            (json!({ "priority": 1 }), "/priority"),
        ] {
            let reply = put(&bench, target, members.clone());
            assert_eq!((reply.status, pointers(&reply)), (400, vec![pointer]), "{members}");
        }
    }
}

#[test]
fn the_fixed_calls_leave_them_as_they_are() {
    let bench = Bench::new();
    put(&bench, "/-/v1/limits/a", json!({ "weight": 7, "priority": "critical" }));
    let numbers = r#"{"client_id":"a","capacity":3,"rate_per_sec":1}"#;
    assert_eq!(bench.json("PUT", "/limits/update", numbers).status, 204);
    let seen = bench.json("GET", "/limits/get?client_id=a", "").body;
    assert_eq!(seen, json!({ "client_id": "a", "capacity": 3, "rate_per_sec": 1 }));
    let kept = bench.json("GET", "/-/v1/limits/a", "").body;
    assert_eq!((said(&kept), &kept["buckets"][0]["capacity"]), ([&json!(7), &json!("critical")], &json!(3)));
}

#[test]
fn batches_and_imports_take_them() {
    let bench = Bench::new();
    let limit = json!({ "client_id": "a", "mode": "exempt", "weight": 3, "priority": "background" });
    let mut operation = limit.clone();
    operation["op"] = json!("create");
    let batch = call(&bench, "POST", "/-/v1/batch", &[], &json!({ "operations": [operation] }));
    assert_eq!(batch.status, 200, "{batch:?}");
    let stored = bench.json("GET", "/-/v1/limits/a", "").body;
    assert_eq!(said(&stored), said(&limit));
    let delete = json!({ "operations": [{ "op": "delete", "client_id": "a", "weight": 1 }] });
    let refused = call(&bench, "POST", "/-/v1/batch", &[], &delete);
    assert_eq!(pointers(&refused), ["/operations/0/weight"]);
    let import =
        |limit: &Value| call(&bench, "POST", "/-/v1/import", &[], &json!({ "limits": [limit] })).body.clone();
    assert_eq!(import(&limit), json!({ "created": 0, "replaced": 0, "unchanged": 1 }));
    let heavier = json!({ "client_id": "a", "mode": "exempt", "weight": 4 });
    assert_eq!(import(&heavier), json!({ "created": 0, "replaced": 1, "unchanged": 0 }));
    assert_eq!(said(&bench.json("GET", "/-/v1/limits/a", "").body), said(&heavier));
}

#[test]
fn a_question_tells_what_is_in_force() {
    let bench = Bench::new();
    put(&bench, "/-/v1/plans/pro", json!({ "weight": 9, "priority": "critical" }));
    let of_plan = |id: &str, more: Value| {
        let mut body = json!({ "plan": "pro" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(call(&bench, "PUT", &format!("/-/v1/limits/{id}"), &[], &body).status, 201);
    };
    of_plan("10.0.0.1", json!({}));
    of_plan("10.0.0.2", json!({ "weight": 1 }));
    of_plan("10.0.0.3", json!({ "priority": "normal", "mode": "exempt" }));
    put(&bench, "/-/v1/limits/10.1.0.0%2F16", json!({ "priority": "background" }));
    for (address, weight, priority) in [
        ("10.0.0.1", 9, "critical"),
        ("10.0.0.2", 1, "critical"),
        ("10.0.0.3", 9, "normal"),
        ("10.1.2.3", 1, "background"),
        ("10.9.9.9", 1, "normal"),
    ] {
        let verdict = call(&bench, "POST", "/-/v1/check", &[], &json!({ "address": address })).body;
        assert_eq!(said(&verdict), [&json!(weight), &json!(priority)], "{address}");
    }
    put(&bench, "/-/v1/plans/pro", json!({ "weight": 2 }));
    let verdict = call(&bench, "POST", "/-/v1/check", &[], &json!({ "address": "10.0.0.1" })).body;
    assert_eq!(said(&verdict), [&json!(2), &json!("normal")]);
}
