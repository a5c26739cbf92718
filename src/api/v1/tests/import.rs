//! Imports by the wire.

use serde_json::{Value, json};

use super::{call, pointers};
use crate::api::tests::bench::{Bench, Call, Reply};
use crate::api::v1::batch::MAX_BATCH_BYTES;
use balancer_http::message::BodyLength;

fn import(bench: &Bench, limits: &Value) -> Reply {
    call(bench, "POST", "/-/v1/import", &[], &json!({ "limits": limits }))
}

#[test]
fn limits_are_imported_as_a_whole_or_not_at_all() {
    let bench = Bench::new();
    let limit =
        |id: &str| json!({ "client_id": id, "buckets": [{ "name": "day", "amount": 1, "per": "1d" }] });
    let done = import(&bench, &json!([limit("a"), { "key": "abc", "mode": "exempt" }]));
    assert_eq!((done.status, &done.body), (200, &json!({ "created": 2, "replaced": 0, "unchanged": 0 })));
    let ids = || {
        let rows = bench.json("GET", "/-/v1/limits", "").body["limits"].as_array().unwrap().clone();
        rows.iter().map(|row| row["client_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = ids();
    assert_eq!(before, ["a", "sha256:ba7816bf8f01cfea414140de5dae2223"]);
    for (limits, pointer) in [
        (json!([limit("c"), { "client_id": "d", "plan": "none" }]), "/limits/1/plan"),
        (json!([limit("c"), { "client_id": "d" }]), "/limits/1/buckets"),
        (json!([limit("c"), { "mode": "exempt" }]), "/limits/1/client_id"),
        (json!([limit("c"), { "op": "put", "client_id": "d", "mode": "exempt" }]), "/limits/1/op"),
        (json!([limit("c"), 7]), "/limits/1"),
        (json!({}), "/limits"),
        (Value::Null, "/limits"),
    ] {
        let reply = import(&bench, &limits);
        assert_eq!((reply.status, pointers(&reply)), (400, vec![pointer]), "{limits}");
        assert_eq!(ids(), before, "{limits}");
    }
    assert_eq!(import(&bench, &json!([])).body, json!({ "created": 0, "replaced": 0, "unchanged": 0 }));
    let many: Vec<_> = (0..10_001).map(|number| limit(&format!("n{number}"))).collect();
    let reply = import(&bench, &json!(many));
    assert_eq!((reply.status, pointers(&reply)), (400, vec!["/limits"]));
    assert_eq!(import(&bench, &json!(many[..10_000])).body["created"], 10_000);

    bench.limits.stop();
    let reply = import(&bench, &json!([limit("e")]));
    assert!(reply.status == 503 && !reply.text.contains("ending"), "{reply:?}");
}

#[test]
fn an_import_may_be_as_large_as_a_batch() {
    let bench = Bench::new();
    let post = Call { method: "POST", target: "/-/v1/import", ..Call::default() };
    let pieces = || (0..10).map(|_| Ok(vec![b' '; 60_000])).chain([Ok(br#"{"limits":[]}"#.to_vec())]);
    assert_eq!(bench.call_with(&post, BodyLength::Chunked, pieces().collect()).status, 200);
    let unread = vec![Err(std::io::Error::other("must not be read"))];
    let over = BodyLength::Known(MAX_BATCH_BYTES as u64 + 1);
    assert_eq!(bench.call_with(&post, over, unread).status, 413);
}
