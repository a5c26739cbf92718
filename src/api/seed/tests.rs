use super::super::tests::bench::Bench;
use super::*;
use crate::store::CallOutcome;
use crate::store::v1::{Actor, BatchOp};
use balancer_limiter::terms::ClientLimit;
use serde_json::json;

fn create(bench: &Bench, id: &str) -> u16 {
    let body = json!({"client_id": id, "capacity": 10, "rate_per_sec": 1}).to_string();
    bench.json("POST", "/limits/create", &body).status
}

#[test]
fn a_limits_life_is_create_get_update_delete() {
    let bench = Bench::new();
    let created = bench.json(
        "POST",
        "/limits/create",
        r#"{"client_id":"123.5.6.7:890","capacity":10,"rate_per_sec":1}"#,
    );
    assert_eq!((created.status, created.text.as_str()), (201, ""));
    let shown = bench.json("GET", "/limits/get", r#"{"client_id":"123.5.6.7:890"}"#);
    assert_eq!(shown.text, r#"{"client_id":"123.5.6.7:890","capacity":10,"rate_per_sec":1}"#);
    assert_eq!(shown.fields.get("Content-Type"), Some(&b"application/json"[..]));
    let updated = bench.json(
        "PUT",
        "/limits/update",
        r#"{"rate_per_sec":2.5,"capacity":20,"client_id":"123.5.6.7:890"}"#,
    );
    assert_eq!((updated.status, updated.text.as_str(), updated.declared), (204, "", None));
    let shown = bench.json("GET", "/limits/get?client_id=123.5.6.7:890", "");
    assert_eq!(shown.text, r#"{"client_id":"123.5.6.7:890","capacity":20,"rate_per_sec":2.5}"#);
    let deleted = bench.json("DELETE", "/limits/delete", r#"{"client_id":"123.5.6.7:890"}"#);
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    for (method, target) in
        [("GET", "/limits/get?client_id=123.5.6.7:890"), ("DELETE", "/limits/delete?client_id=123.5.6.7:890")]
    {
        assert_eq!(bench.json(method, target, "").status, 404, "{method}");
    }
    let body = r#"{"client_id":"123.5.6.7:890","capacity":1,"rate_per_sec":1}"#;
    assert_eq!(bench.json("PUT", "/limits/update", body).status, 404);
}

#[test]
fn ids_of_equal_value_are_one_and_show_as_they_were_stored() {
    let bench = Bench::new();
    assert_eq!(create(&bench, "::ffff:1.2.3.4"), 201);
    assert_eq!(create(&bench, "1.2.3.4"), 409);
    assert_eq!(bench.json("GET", "/limits/get?client_id=1.2.3.4", "").body["client_id"], "::ffff:1.2.3.4");
    for id in ["a", "A", "a b", "a\"b", "a/b", "🦀", " "] {
        assert_eq!(create(&bench, id), 201, "{id}");
        assert_eq!(create(&bench, id), 409, "{id}");
    }
}

#[test]
fn body_and_query_must_agree() {
    let bench = Bench::new();
    create(&bench, "a");
    for (target, body, status) in [
        ("?client_id=a", "", 200),
        ("?client_id=a", "{}", 200),
        ("?client_id=a", r#"{"client_id":"a"}"#, 200),
        ("", r#"{"client_id":"a"}"#, 200),
        ("?", r#"{"client_id":"a"}"#, 200),
        ("?client_id=b", r#"{"client_id":"a"}"#, 400),
        ("?client_id=", r#"{"client_id":"a"}"#, 400),
        ("?client_id=a", r#"{"client_id":7}"#, 400),
        ("?client_id=a", "nonsense", 400),
        ("?client_id=a&client_id=a", "", 400),
        ("?client=a", r#"{"client_id":"a"}"#, 400),
        ("", r#"{"client_id":"a","capacity":1}"#, 400),
        ("", "", 400),
        ("?client_id=", "", 400),
        ("?client_id=%00", "", 400),
        ("?client_id=%0a", "", 400),
        ("?client_id=nobody", "", 404),
    ] {
        let reply = bench.json("GET", &format!("/limits/get{target}"), body);
        assert_eq!(reply.status, status, "{target} {body}: {reply:?}");
    }
    for call in ["/limits/create?client_id=b", "/limits/create?x"] {
        let body = r#"{"client_id":"b","capacity":1,"rate_per_sec":1}"#;
        assert_eq!(bench.json("POST", call, body).status, 400, "{call}");
    }
}

#[test]
fn the_listing_goes_page_by_page_in_byte_order() {
    let bench = Bench::new();
    for id in ["b", "a", "é", "B", "10.0.0.1", "10.0.0.0/8", "~"] {
        create(&bench, id);
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for pages in 1.. {
        let page = bench.json("GET", &format!("/limits?limit=2{cursor}"), "");
        assert_eq!(page.status, 200, "{page:?}");
        let limits = page.body["limits"].as_array().unwrap().clone();
        seen.extend(limits.iter().map(|limit| limit["client_id"].as_str().unwrap().to_owned()));
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                assert_eq!((pages, limits.len()), (4, 1));
                break;
            }
        }
    }
    assert_eq!(seen, ["10.0.0.0/8", "10.0.0.1", "B", "a", "b", "~", "é"]);
    // A page that is full to the last entry has no next one.
    assert_eq!(bench.json("GET", "/limits?limit=7", "").body["next_cursor"], serde_json::Value::Null);
    // A cursor works after the entry that it was made from is deleted.
    let first = bench.json("GET", "/limits?limit=4", "").body["next_cursor"].as_str().unwrap().to_owned();
    bench.json("DELETE", "/limits/delete?client_id=a", "");
    let next = bench.json("GET", &format!("/limits?cursor={first}"), "");
    assert_eq!(next.body["limits"][0]["client_id"], "b");
}

#[test]
fn an_empty_listing_is_a_listing() {
    assert_eq!(Bench::new().json("GET", "/limits", "").text, r#"{"limits":[],"next_cursor":null}"#);
}

#[test]
fn a_listing_has_100_entries_unless_asked_for_1_to_1000() {
    let bench = Bench::new();
    let one = ClientLimit::of_numbers(Limit { capacity: 10, rate: Rate::per_second(1_000_000) });
    let id = |index| ClientId::parse(&format!("{index:04}")).unwrap();
    let all = (0..1_001).map(|index| BatchOp::Create(id(index), one.clone()));
    bench.limits.batch(all.collect(), &Actor("test".into())).unwrap();
    for (query, expected) in [("", 100), ("?limit=1", 1), ("?limit=0099", 99), ("?limit=1000", 1000)] {
        let page = bench.json("GET", &format!("/limits{query}"), "");
        assert_eq!(page.body["limits"].as_array().unwrap().len(), expected, "{query}");
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=%2B5",
        "limit=",
        "limit",
        "limit=1.0",
        "limit=ten",
        "limit=99999999999999999999999",
        "limit=1&limit=1",
        "cursor=",
        "cursor=x",
        "cursor=00000000",
        "cursor=0000000061",
        "cursor=ééééé",
        "offset=1",
    ] {
        let reply = bench.json("GET", &format!("/limits?{query}"), "");
        assert_eq!(reply.status, 400, "{query}");
        let name = query.split('=').next().unwrap();
        assert_eq!(reply.body["errors"][0]["pointer"], format!("/{name}"), "{query}");
    }
    assert_eq!(bench.json("GET", "/limits", r#"{"limit":5}"#).status, 400, "the listing has no body");
}

#[test]
fn an_unreachable_store_is_503_and_says_whether_something_was_done() {
    let bench = Bench::without_store();
    for (method, target, body) in [
        ("POST", "/limits/create", r#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#),
        ("PUT", "/limits/update", r#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#),
        ("GET", "/limits/get?client_id=a", ""),
        ("DELETE", "/limits/delete?client_id=a", ""),
        ("GET", "/limits", ""),
    ] {
        let reply = bench.json(method, target, body);
        assert_eq!(reply.status, 503, "{target}");
        let detail = reply.body["detail"].as_str().unwrap();
        if method == "GET" {
            assert_eq!(detail, "the store cannot be reached", "a question changes nothing: no word about it");
        } else {
            assert!(detail.contains("nothing was changed"), "{reply:?}");
        }
        assert!(!reply.text.contains("refused") && !reply.text.contains("127.0.0.1"), "{reply:?}");
        assert_eq!(reply.fields.get("Retry-After"), Some(&b"1"[..]));
    }
    let cause = || "connection refused (10.0.0.5:5432)".to_owned();
    for (error, status, detail) in [
        (
            StoreError::Unavailable { cause: cause(), outcome: CallOutcome::Unknown },
            503,
            "the store did not answer in time: whether the change was made is unknown, get tells",
        ),
        (
            StoreError::Unavailable { cause: cause(), outcome: CallOutcome::NotDone },
            503,
            "the store cannot be reached; nothing was changed",
        ),
        (StoreError::Full("there are 100000 ranges already"), 409, "there are 100000 ranges already"),
    ] {
        let reject = refused(error);
        assert_eq!((reject.status(), &*reject.detail), (status, detail));
    }
}

#[test]
fn a_rate_of_another_span_shows_as_the_nearest_millionth_and_never_as_a_false_0() {
    for (micro, per_secs, expected) in [
        (600_000_000, 60, "10"),
        (1_000_000, 60, "0.016667"),
        (1, 86_400, "0.000001"),
        (0, 86_400, "0"),
        (1_000_000_000_000_000, 1, "1000000000"),
    ] {
        let limit = Limit { capacity: 1, rate: Rate { micro, per_secs } };
        let row = Row { client_id: "a".into(), limit, version: 1 };
        assert_eq!(ShownNumbers::new(&row).rate_per_sec.get(), expected);
    }
}
