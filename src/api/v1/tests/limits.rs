//! Limits by the wire.

use serde_json::{Value, json};

use super::{call, field, pointers};
use crate::api::Surface;
use crate::api::tests::bench::Bench;

fn day(amount: u32) -> Value {
    json!({ "name": "day", "amount": amount, "per": "1d" })
}

fn full(name: &str, amount: Value, per: &str, capacity: u32) -> Value {
    json!({ "name": name, "amount": amount, "per": per, "capacity": capacity, "mode": "enforced", "reset": null })
}

#[test]
fn a_limits_life() {
    let bench = Bench::new();
    let limit = json!({ "client_id": "a/b", "buckets": [day(5)], "max_in_flight": 3 });
    let created = call(&bench, "POST", "/-/v1/limits", &[], &limit);
    assert_eq!(created.status, 201, "{created:?}");
    let shown = json!({
        "client_id": "a/b", "plan": null, "buckets": [full("day", json!(5), "1d", 5)], "max_in_flight": 3,
        "shared": false,
    });
    assert_eq!(created.body, shown);
    assert_eq!(field(&created, "Location"), "/-/v1/limits/a%2Fb");
    let etag = field(&created, "ETag").to_owned();
    assert!(etag.starts_with('"') && etag.len() > 2, "{etag}");
    assert_eq!(call(&bench, "POST", "/-/v1/limits", &[], &limit).status, 409);

    for target in
        ["/-/v1/limits/a%2Fb", "/-/v1/limits/a%2fb", "/-/v1/limits/%61%2Fb", "/-/v1/limit?client_id=a/b"]
    {
        let got = bench.json("GET", target, "");
        assert_eq!((got.status, &got.body), (200, &shown), "{target}");
        assert_eq!(field(&got, "ETag"), etag);
        assert_eq!(field(&got, "Content-Type"), "application/json");
    }
    assert_eq!(bench.json("GET", "/-/v1/limits/a/b", "").status, 404);
    assert_eq!(bench.json("GET", "/-/v1/limits/a%252Fb", "").status, 404, "decoded once");

    let replaced = call(&bench, "PUT", "/-/v1/limits/a%2Fb", &[], &json!({ "buckets": [day(6)] }));
    assert_eq!(replaced.status, 200);
    assert!(!replaced.fields.has("Location"));
    assert_ne!(field(&replaced, "ETag"), etag);
    assert_eq!(replaced.body["max_in_flight"], Value::Null);
    // What was shown can be put again as it is.
    let again = call(&bench, "PUT", "/-/v1/limit?client_id=a%2Fb", &[], &replaced.body);
    assert_eq!((again.status, &again.body), (200, &replaced.body));
    let new = call(&bench, "PUT", "/-/v1/limits/new", &[], &json!({ "mode": "exempt" }));
    assert_eq!((new.status, field(&new, "Location")), (201, "/-/v1/limits/new"));
    assert_eq!(new.body["mode"], "exempt");
    assert_eq!(new.body["buckets"], json!([]));

    assert_eq!(bench.json("DELETE", "/-/v1/limits/a%2Fb", "").status, 204);
    for (method, target) in [
        ("GET", "/-/v1/limits/a%2Fb"),
        ("DELETE", "/-/v1/limits/a%2Fb"),
        ("GET", "/-/v1/limits/a%2Fb/usage"),
        ("POST", "/-/v1/limits/a%2Fb/reset"),
    ] {
        assert_eq!(bench.json(method, target, "").status, 404, "{method} {target}");
    }
}

#[test]
fn ids_round_trip_and_what_is_none_is_refused() {
    let bench = Bench::new();
    for id in [
        "a/b/c",
        "10.0.0.0/8",
        "🎉",
        &"ü".repeat(128),
        "+ +",
        "%2F",
        "..",
        ".",
        "a?b=c&d#e",
        "usage",
        "\"'\\",
    ] {
        let made =
            call(&bench, "POST", "/-/v1/limits", &[], &json!({ "client_id": id, "buckets": [day(1)] }));
        assert_eq!(made.status, 201, "{id}: {made:?}");
        let location = field(&made, "Location").to_owned();
        assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location}");
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for target in
            [location, format!("/-/v1/limits/{encoded}"), format!("/-/v1/limit?client_id={encoded}")]
        {
            let got = bench.json("GET", &target, "");
            assert_eq!((got.status, &got.body["client_id"]), (200, &json!(id)), "{target}");
        }
        let usage = bench.json("GET", &format!("/-/v1/limits/{encoded}/usage"), "");
        assert_eq!((usage.status, &usage.body["client_id"]), (200, &json!(id)));
    }
    let long = "x".repeat(257);
    for raw in ["%00", "a%00b", "%0A", "%FF", "%", "%2", "%zz", "%C2%85", &long] {
        for target in [format!("/-/v1/limits/{raw}"), format!("/-/v1/limit?client_id={raw}")] {
            for method in ["GET", "PUT", "DELETE"] {
                let body = if method == "PUT" { json!({ "buckets": [day(1)] }) } else { Value::Null };
                let reply = call(&bench, method, &target, &[], &body);
                assert_eq!(reply.status, 400, "{method} {target}");
                assert_eq!(pointers(&reply), ["/client_id"], "{method} {target}");
            }
        }
    }
    assert_eq!(bench.json("GET", "/-/v1/limits/", "").status, 404);
    assert_eq!(bench.json("GET", "/-/v1/limit", "").status, 400);
    assert_eq!(bench.json("GET", "/-/v1/limits/a?x=1", "").status, 400);
}

#[test]
fn a_key_names_a_client_and_is_never_shown() {
    let bench = Bench::new();
    let id = "sha256:ba7816bf8f01cfea414140de5dae2223";
    let made = call(&bench, "POST", "/-/v1/limits", &[], &json!({ "key": "abc", "buckets": [day(1)] }));
    assert_eq!((made.status, &made.body["client_id"]), (201, &json!(id)));
    assert!(made.body.get("key").is_none());
    let put = |target: &str, body: Value| call(&bench, "PUT", target, &[], &body);
    let target = format!("/-/v1/limits/{id}");
    assert_eq!(put(&target, json!({ "key": "abc", "buckets": [day(2)] })).status, 200);
    let other = put(&target, json!({ "key": "abd", "buckets": [day(2)] }));
    assert_eq!((other.status, pointers(&other)), (400, vec!["/key"]));
    for (body, pointer) in [
        (json!({ "key": "abc", "client_id": id, "buckets": [day(1)] }), "/key"),
        (json!({ "key": "", "buckets": [day(1)] }), "/key"),
        (json!({ "key": "a\nb", "buckets": [day(1)] }), "/key"),
        (json!({ "key": "x".repeat(8192), "buckets": [day(1)] }), "/key"),
        (json!({ "key": 7, "buckets": [day(1)] }), "/key"),
        (json!({ "buckets": [day(1)] }), "/client_id"),
    ] {
        let reply = call(&bench, "POST", "/-/v1/limits", &[], &body);
        assert_eq!((reply.status, pointers(&reply)), (400, vec![pointer]), "{body}");
        assert!(!reply.text.contains("abc"), "{}", reply.text);
    }
}

#[test]
fn every_fault_of_a_limit_is_named_by_its_pointer() {
    let bench = Bench::new();
    let with = |change: &str| {
        let bucket = r#"{"name":"day","amount":5,"per":"1d","capacity":9,"mode":"shadow","reset":"utc"}"#;
        let (from, to) = change.split_once(" -> ").unwrap();
        let text = format!(r#"{{"client_id":"a","buckets":[{bucket}]}}"#);
        assert!(text.contains(from), "{change}");
        text.replace(from, to)
    };
    assert_eq!(bench.json("POST", "/-/v1/limits", &with("\"a\" -> \"fine\"")).status, 201);
    let rows: [(&str, &[&str]); 40] = [
        ("\"a\" -> 7", &["/client_id"]),
        ("\"a\" -> \"\"", &["/client_id"]),
        ("\"name\":\"day\", -> ", &["/buckets/0/name"]),
        ("\"day\" -> \"concurrency\"", &["/buckets/0/name"]),
        ("\"day\" -> \"tägl\"", &["/buckets/0/name"]),
        ("\"day\" -> null", &["/buckets/0/name"]),
        ("\"amount\":5, -> ", &["/buckets/0/amount"]),
        (":5 -> :-5", &["/buckets/0/amount"]),
        (":5 -> :0.0000001", &["/buckets/0/amount"]),
        (":5 -> :1e10", &["/buckets/0/amount"]),
        (":5 -> :\"5\"", &["/buckets/0/amount"]),
        ("\"per\":\"1d\", -> ", &["/buckets/0/per"]),
        ("1d -> 1w", &["/buckets/0/per"]),
        ("1d -> 0s", &["/buckets/0/per"]),
        ("\"1d\" -> 86400", &["/buckets/0/per"]),
        ("1d -> 2d", &["/buckets/0/reset"]),
        (":9 -> :1.5", &["/buckets/0/capacity"]),
        (":9 -> :-1", &["/buckets/0/capacity"]),
        (":9 -> :1000000001", &["/buckets/0/capacity"]),
        (":9 -> :null", &["/buckets/0/capacity"]),
        (":5,\"per\":\"1d\",\"capacity\":9 -> :0.5,\"per\":\"1d\"", &["/buckets/0/capacity"]),
        ("shadow -> exempt", &["/buckets/0/mode"]),
        ("\"shadow\" -> 1", &["/buckets/0/mode"]),
        ("\"utc\" -> \"cet\"", &["/buckets/0/reset"]),
        ("\"utc\" -> true", &["/buckets/0/reset"]),
        ("\"utc\" -> \"utc\",\"x\":1", &["/buckets/0/x"]),
        ("\"utc\" -> \"utc\",\"a/b~\":1", &["/buckets/0/a~1b~0"]),
        ("\"utc\" -> \"utc\",\"mode\":\"shadow\"", &["/buckets/0/mode"]),
        ("}] -> },7]", &["/buckets/1"]),
        ("}] -> },{}]", &["/buckets/1/name", "/buckets/1/amount", "/buckets/1/per"]),
        ("}] -> }],\"plan\":\"free\"", &["/buckets"]),
        ("}] -> }],\"plan\":7", &["/plan", "/buckets"]),
        ("}] -> }],\"mode\":\"shadow\"", &["/mode"]),
        ("}] -> }],\"shared\":1", &["/shared"]),
        ("}] -> }],\"shared\":true", &["/shared"]),
        ("}] -> }],\"max_in_flight\":0", &["/max_in_flight"]),
        ("}] -> }],\"max_in_flight\":1000001", &["/max_in_flight"]),
        ("}] -> }],\"max_in_flight\":\"3\"", &["/max_in_flight"]),
        ("}] -> }],\"capacity\":7", &["/capacity"]),
        ("\"buckets\" -> \"bucket\"", &["/bucket", "/buckets"]),
    ];
    for (change, expected) in rows {
        let body = with(change);
        let reply = bench.json("POST", "/-/v1/limits", &body);
        assert_eq!((reply.status, pointers(&reply)), (400, expected.to_vec()), "{body}");
    }
    for (body, pointer) in [
        (json!({ "client_id": "a" }), "/buckets"),
        (json!({ "client_id": "a", "buckets": [] }), "/buckets"),
        (json!({ "client_id": "a", "max_in_flight": 3 }), "/buckets"),
        (json!({ "client_id": "a", "buckets": {} }), "/buckets"),
        (json!({ "client_id": "a", "buckets": [day(1), day(2)] }), "/buckets/1/name"),
        (json!({ "client_id": "a", "buckets": vec![day(1); 5] }), "/buckets"),
        (json!({ "client_id": "a", "plan": "none" }), "/plan"),
        (json!({ "client_id": "a", "plan": "" }), "/plan"),
    ] {
        let reply = call(&bench, "POST", "/-/v1/limits", &[], &body);
        assert!(reply.status == 400 && pointers(&reply).contains(&pointer), "{body}: {reply:?}");
    }
    assert_eq!(bench.json("GET", "/-/v1/limits", "").body["limits"].as_array().unwrap().len(), 1);
}

#[test]
fn a_limit_is_written_in_few_words() {
    let bench = Bench::new();
    call(&bench, "POST", "/-/v1/plans", &[], &json!({ "name": "free", "buckets": [day(1)] }));
    for (given, shown) in [
        (json!({ "buckets": [day(7)] }), json!([full("day", json!(7), "1d", 7)])),
        (
            json!({ "buckets": [{ "name": "m", "amount": 1.5e1, "per": "60s", "capacity": 2.0, "mode": null }] }),
            json!([full("m", json!(15), "1m", 2)]),
        ),
        (
            json!({ "buckets": [{ "name": "m", "amount": 0.5, "per": "1s", "capacity": 1, "reset": null }] }),
            json!([full("m", json!(0.5), "1s", 1)]),
        ),
        (json!({ "plan": "free" }), json!([])),
        (json!({ "plan": "free", "buckets": [], "mode": null, "max_in_flight": null }), json!([])),
        (json!({ "mode": "exempt" }), json!([])),
    ] {
        let reply = call(&bench, "PUT", "/-/v1/limits/a", &[], &given);
        assert!(reply.status < 300, "{given}: {reply:?}");
        assert_eq!(reply.body["buckets"], shown, "{given}");
    }
    let range = json!({ "buckets": [day(7)], "shared": true });
    assert_eq!(call(&bench, "PUT", "/-/v1/limits/10.0.0.0%2F8", &[], &range).body["shared"], true);
    let same = json!({ "client_id": "::ffff:1.2.3.4", "buckets": [day(7)] });
    assert_eq!(call(&bench, "PUT", "/-/v1/limits/1.2.3.4", &[], &same).status, 201);
    let other = call(&bench, "PUT", "/-/v1/limits/1.2.3.5", &[], &same);
    assert_eq!((other.status, pointers(&other)), (400, vec!["/client_id"]));
}

#[test]
fn conditions_decide_whether_a_write_happens() {
    let bench = Bench::new();
    let target = "/-/v1/limits/a";
    let body = json!({ "buckets": [day(1)] });
    let put = |fields: &[(&str, &str)]| call(&bench, "PUT", target, fields, &body);
    assert_eq!(put(&[("If-Match", "*")]).status, 412, "on an absent limit");
    assert_eq!(call(&bench, "DELETE", target, &[("If-Match", "\"1\"")], &Value::Null).status, 412);
    let first = put(&[("If-None-Match", "*")]);
    assert_eq!(first.status, 201);
    assert_eq!(put(&[("If-None-Match", "*")]).status, 412);
    let etag = field(&first, "ETag").to_owned();
    let second = put(&[("If-Match", &format!("\"0\", {etag}"))]);
    assert_eq!(second.status, 200);
    assert_eq!(put(&[("If-Match", &etag)]).status, 412, "another writer was faster");
    let weak = format!("W/{}", field(&second, "ETag"));
    assert_eq!(put(&[("If-Match", &weak)]).status, 412);
    assert_eq!(put(&[("If-Match", "nonsense")]).status, 400);
    assert_eq!(put(&[("If-Match", "*")]).status, 200);

    let now = bench.json("GET", target, "");
    let etag = field(&now, "ETag").to_owned();
    let get = |fields: &[(&str, &str)]| call(&bench, "GET", target, fields, &Value::Null);
    let known = get(&[("If-None-Match", &etag)]);
    assert_eq!((known.status, known.text.as_str(), field(&known, "ETag")), (304, "", etag.as_str()));
    assert_eq!(get(&[("If-None-Match", "\"0\"")]).status, 200);
    assert_eq!(get(&[("If-Match", "\"0\"")]).status, 412);
    let head = call(&bench, "HEAD", target, &[("If-None-Match", &etag)], &Value::Null);
    assert_eq!(head.status, 304);
    let delete = |tag: &str| call(&bench, "DELETE", target, &[("If-Match", tag)], &Value::Null).status;
    assert_eq!(delete("\"0\""), 412);
    assert_eq!(delete(&etag), 204);
    assert_eq!(delete("*"), 412);
}

#[test]
fn a_listing_goes_page_by_page_with_a_link_and_a_cursor_of_its_own() {
    let mut bench = Bench::new();
    call(&bench, "POST", "/-/v1/plans", &[], &json!({ "name": "free", "buckets": [day(1)] }));
    for id in ["a1", "a2", "a3", "b1", "b2"] {
        let body = if id.starts_with('a') { json!({ "plan": "free" }) } else { json!({ "mode": "exempt" }) };
        call(&bench, "PUT", &format!("/-/v1/limits/{id}"), &[], &body);
    }
    for (filter, expected) in [
        ("", vec!["a1", "a2", "a3", "b1", "b2"]),
        ("&prefix=a", vec!["a1", "a2", "a3"]),
        ("&plan=free", vec!["a1", "a2", "a3"]),
        ("&prefix=b&plan=free", vec![]),
        ("&plan=other", vec![]),
        ("&prefix=", vec!["a1", "a2", "a3", "b1", "b2"]),
    ] {
        let mut target = format!("/-/v1/limits?limit=2{filter}");
        let mut seen = Vec::new();
        loop {
            let page = bench.json("GET", &target, "");
            assert_eq!(page.status, 200, "{target}: {page:?}");
            let rows = page.body["limits"].as_array().unwrap();
            assert!(rows.len() <= 2);
            seen.extend(rows.iter().map(|row| row["client_id"].as_str().unwrap().to_owned()));
            let cursor = page.body["next_cursor"].as_str();
            let link = page.fields.get("Link").map(|link| String::from_utf8(link.to_vec()).unwrap());
            assert_eq!(cursor.is_some(), link.is_some(), "{target}");
            let Some(link) = link else { break };
            let next = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
            assert_eq!(next, format!("/-/v1/limits?limit=2{filter}&cursor={}", cursor.unwrap()));
            target = next.to_owned();
        }
        assert_eq!(seen, expected, "{filter}");
    }
    let cursor =
        bench.json("GET", "/-/v1/limits?limit=1", "").body["next_cursor"].as_str().unwrap().to_owned();
    bench.json("POST", "/limits/create", r#"{"client_id":"x","capacity":1,"rate_per_sec":1}"#);
    bench.json("POST", "/limits/create", r#"{"client_id":"y","capacity":1,"rate_per_sec":1}"#);
    let fixed = bench.json("GET", "/limits?limit=1", "").body["next_cursor"].as_str().unwrap().to_owned();
    for target in [
        format!("/-/v1/plans?cursor={cursor}"),
        format!("/-/v1/audit?cursor={cursor}"),
        format!("/-/v1/limits?prefix=a&cursor={cursor}"),
        format!("/limits?cursor={cursor}"),
        format!("/-/v1/limits?cursor={fixed}"),
        "/-/v1/limits?cursor=".into(),
        "/-/v1/limits?cursor=x".into(),
    ] {
        let reply = bench.json("GET", &target, "");
        assert_eq!(reply.status, 400, "{target}");
    }
    for limit in ["0", "1001", "x", "-1", "1.0", ""] {
        let reply = bench.json("GET", &format!("/-/v1/limits?limit={limit}"), "");
        assert_eq!((reply.status, pointers(&reply)), (400, vec!["/limit"]), "{limit}");
    }
    // A cursor is of the listing, whatever name that was asked by.
    bench.surface = Surface::Admin;
    assert_eq!(bench.json("GET", &format!("/v1/limits?cursor={cursor}"), "").status, 200);
}

#[test]
fn a_store_that_is_down_is_503_after_everything_that_is_the_callers_fault() {
    let bench = Bench::without_store();
    for (method, target, good, bad) in [
        ("POST", "/-/v1/limits", json!({ "client_id": "a", "mode": "exempt" }), json!({ "client_id": "a" })),
        ("PUT", "/-/v1/limits/a", json!({ "mode": "exempt" }), json!({})),
        ("GET", "/-/v1/limits/a", Value::Null, json!({ "x": 1 })),
        ("DELETE", "/-/v1/limits/a", Value::Null, json!({ "x": 1 })),
        ("GET", "/-/v1/limits", Value::Null, json!({ "x": 1 })),
        ("GET", "/-/v1/limits/a/usage", Value::Null, json!({ "x": 1 })),
        ("POST", "/-/v1/limits/a/reset", Value::Null, json!({ "x": 1 })),
        ("POST", "/-/v1/plans", json!({ "name": "p", "buckets": [day(1)] }), json!({})),
        ("GET", "/-/v1/plans", Value::Null, json!({ "x": 1 })),
        ("GET", "/-/v1/audit", Value::Null, json!({ "x": 1 })),
        (
            "POST",
            "/-/v1/batch",
            json!({ "operations": [{ "op": "delete", "client_id": "a" }] }),
            json!({ "operations": [{ "op": "delete" }] }),
        ),
    ] {
        assert_eq!(call(&bench, method, target, &[], &bad).status, 400, "{method} {target}");
        let reply = call(&bench, method, target, &[], &good);
        assert_eq!(reply.status, 503, "{method} {target}: {reply:?}");
        assert_eq!(field(&reply, "Retry-After"), "1");
        assert!(!reply.text.contains("refused") && !reply.text.contains("127.0.0.1"), "{reply:?}");
    }
}
