use serde_json::json;

use crate::api::tests::bench::Bench;

#[test]
fn a_backend_is_added_changed_and_taken_away() {
    let bench = Bench::new();
    let made = bench.json(
        "POST",
        "/-/v1/backends",
        r#"{"name":"b:1","url":"http://127.0.0.1:9","weight":3,"max_in_flight":7,"state":"drain","backup":true}"#,
    );
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.fields.get("Location"), Some(&b"/-/v1/backends/b%3A1"[..]));
    let expected = json!({
        "pool": "default", "name": "b:1", "url": "http://127.0.0.1:9", "weight": 3, "state": "drain", "max_in_flight": 7, "limit": 7, "measured": null, "backup": true,
        "source": "store", "up": false, "health": "up", "cause": "the operator drains it", "in_flight": 0,
        "endpoints": [{ "address": "127.0.0.1:9", "tier": 0, "weight": 3.0, "health": "up", "cause": null, "in_flight": 0 }],
    });
    assert_eq!(made.body, expected);
    assert_eq!(bench.json("GET", "/-/v1/backends/b%3A1", "").body, expected);
    let list = bench.json("GET", "/-/v1/backends", "");
    assert_eq!(list.body["backends"][0]["source"], "file");
    assert_eq!(list.body, json!({ "backends": [list.body["backends"][0], expected], "next_cursor": null }));
    let changed =
        bench.json("PATCH", "/-/v1/backends/b:1", r#"{"state":"down","max_in_flight":null,"weight":0}"#);
    assert_eq!((changed.status, &changed.body["state"]), (200, &json!("down")));
    assert_eq!((&changed.body["max_in_flight"], &changed.body["weight"]), (&json!(null), &json!(0)));
    let auto = bench.json("PATCH", "/-/v1/backends/b:1", r#"{"max_in_flight":"auto"}"#).body;
    assert_eq!((&auto["max_in_flight"], &auto["limit"]), (&json!("auto"), &json!(16)));
    assert_eq!(auto["measured"], json!({ "held": 0, "median_seconds": null, "moved": null }));
    let number = bench.json("PATCH", "/-/v1/backends/b:1", r#"{"max_in_flight":3}"#).body;
    assert_eq!((&number["limit"], &number["measured"]), (&json!(3), &json!(null)));
    assert_eq!(bench.json("DELETE", "/-/v1/backends/b:1?drain=30s", "").status, 204);
    assert_eq!(bench.json("DELETE", "/-/v1/backends/b:1", "").status, 404);
}

#[test]
fn what_is_wrong_is_said_by_field() {
    let bench = Bench::new();
    assert_eq!(bench.json("POST", "/-/v1/backends", r#"{"name":"a","url":"http://h"}"#).status, 201);
    for (method, target, body, status, pointer) in [
        ("POST", "/-/v1/backends", "{}", 400, "/name"),
        ("POST", "/-/v1/backends", r#"{"name":"b"}"#, 400, "/url"),
        ("POST", "/-/v1/backends", r#"{"name":"b","url":"ftp://h"}"#, 400, "/url"),
        ("POST", "/-/v1/backends", r#"{"name":"b c","url":"http://h"}"#, 400, "/name"),
        ("POST", "/-/v1/backends", r#"{"name":"b","url":"http://h","wieght":1}"#, 400, "/wieght"),
        ("POST", "/-/v1/backends", r#"{"name":"a","url":"http://h"}"#, 409, ""),
        ("PATCH", "/-/v1/backends/a", "{}", 400, ""),
        ("PATCH", "/-/v1/backends/a", r#"{"weight":1001}"#, 400, "/weight"),
        ("PATCH", "/-/v1/backends/a", r#"{"weight":null}"#, 400, "/weight"),
        ("PATCH", "/-/v1/backends/a", r#"{"max_in_flight":0}"#, 400, "/max_in_flight"),
        ("PATCH", "/-/v1/backends/a", r#"{"max_in_flight":"Auto"}"#, 400, "/max_in_flight"),
        ("PATCH", "/-/v1/backends/a", r#"{"max_in_flight":1000001}"#, 400, "/max_in_flight"),
        ("PATCH", "/-/v1/backends/a", r#"{"state":"off"}"#, 400, "/state"),
        ("PATCH", "/-/v1/backends/a", r#"{"url":"http://h"}"#, 400, "/url"),
        ("PATCH", "/-/v1/backends/nobody", r#"{"weight":1}"#, 404, ""),
        ("DELETE", "/-/v1/backends/a?drain=2h", "", 400, "/drain"),
        ("DELETE", "/-/v1/backends/a?drain=soon", "", 400, "/drain"),
        ("DELETE", "/-/v1/backends/secret-name", "", 409, ""),
        ("GET", "/-/v1/backends/nobody", "", 404, ""),
        ("PUT", "/-/v1/backends/a", "", 405, ""),
        ("DELETE", "/-/v1/backends", "", 405, ""),
    ] {
        let reply = bench.json(method, target, body);
        assert_eq!(reply.status, status, "{method} {target} {body}: {reply:?}");
        if !pointer.is_empty() {
            assert_eq!(reply.body["errors"][0]["pointer"], pointer, "{method} {target} {body}: {reply:?}");
        }
    }
    // From here on commands are taken and never done.
    *bench.reloaded.lock() = None;
    let reply = bench.json("DELETE", "/-/v1/backends/a", "");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(!reply.text.contains("too long"), "{reply:?}");
}
