//! Paths, ids, bodies and live data, on every engine.

use serde_json::{Value, json};

use super::{IDS, encoded};
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, request, until};

each_engine! {
    the_api_stands_where_the_contract_says,
    what_the_description_says_is_there,
    ids_survive_the_front_door,
    a_batch_of_megabytes_is_read_and_a_larger_one_refused,
    what_is_left_and_what_would_be_is_told_without_taking_anything,
    who_is_refused_most_is_told,
    plans_and_ranges_show_what_is_left_and_are_filled,
}

fn the_api_stands_where_the_contract_says(engine: Engine) {
    let backend = Backend::named("theirs");
    let shared = Setup::on(engine).backend(backend.address()).start();
    let apart =
        Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    for path in ["/v1/limits", "/openapi.json", "/v1", "/-/v1x"] {
        assert_eq!(shared.get(path).expect(200).text(), "theirs", "{path}");
    }
    shared.get("/-/v1/limits").expect(200);
    for path in ["/-/v1/nothing", "/-/v1/", "/-/v1"] {
        shared.get(path).problem(404);
    }
    for path in ["/-/v1/limits", "/-/v1/nothing", "/-/v1", "/-/openapi.json", "/v1/limits"] {
        assert_eq!(apart.get(path).expect(200).text(), "theirs", "{path}");
    }
    for path in ["/v1/limits", "/-/v1/limits", "/openapi.json", "/-/openapi.json", "/v1/status"] {
        request(apart.admin, "GET", path, &[], b"").expect(200);
    }
    for path in ["/v1/nothing", "/-/v1/nothing", "/v1"] {
        request(apart.admin, "GET", path, &[], b"").problem(404);
    }
    let refused = shared.api("PATCH", "/-/v1/limits/a", &Value::Null);
    refused.problem(405);
    assert_eq!(refused.field("allow"), Some("GET, HEAD, PUT, DELETE"));
    let head = shared.api("HEAD", "/-/v1/limits", &Value::Null).expect(200);
    let get = shared.get("/-/v1/limits");
    assert_eq!(head.field("content-length"), Some(get.body.len().to_string().as_str()));
}

fn what_the_description_says_is_there(engine: Engine) {
    let backend = Backend::named("theirs");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let document = balancer.get("/-/openapi.json").expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for (path, item) in paths {
        let target = path.replace("{id}", "a").replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
            let answer = balancer.api(method, &target, &Value::Null);
            match item.get(method.to_lowercase()) {
                None => assert_eq!(answer.status, 405, "{method} {target}"),
                Some(operation) => {
                    let status = answer.status.to_string();
                    assert!(operation["responses"].get(&status).is_some(), "{method} {target}: {status}");
                }
            }
        }
    }
    assert!(backend.seen().is_empty(), "a call of ours reached a backend");
}

fn ids_survive_the_front_door(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    for id in IDS {
        let target = format!("/-/v1/limits/{}", encoded(id));
        balancer.api("PUT", &target, &json!({ "mode": "exempt" })).expect(201);
        assert_eq!(balancer.get(&target).expect(200).json()["client_id"], *id);
    }
    balancer.get("/-/v1/limits/10.0.0.0%2f8").expect(200);
    balancer.get("/-/v1/limits/10.0.0.0/8").problem(404);
    for raw in ["%00", "a%00b", "%0d%0a", "%FF", "%C2%85"] {
        for target in [format!("/-/v1/limits/{raw}"), format!("/-/v1/limit?client_id={raw}")] {
            balancer.get(&target).problem(400);
            balancer.api("PUT", &target, &json!({ "mode": "exempt" })).problem(400);
        }
    }
}

fn a_batch_of_megabytes_is_read_and_a_larger_one_refused(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let padded = |bytes: usize| {
        let mut body = br#"{"operations":[{"op":"put","client_id":"a","mode":"exempt"}]}"#.to_vec();
        body.resize(bytes, b' ');
        request(balancer.admin, "POST", "/-/v1/batch", &[], &body)
    };
    assert_eq!(padded(8 << 20).expect(200).json(), json!({ "applied": 1 }));
    // A body that is too large is never read, so its length is declared and it is not sent.
    for (target, bytes) in [("/-/v1/batch", (8 << 20) + 1), ("/-/v1/limits", 65_537)] {
        let mut conn = Conn::open(balancer.admin);
        conn.send(format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {bytes}\r\n\r\n{{"));
        conn.read("POST").expect("an answer").problem(413);
    }
}

fn what_is_left_and_what_would_be_is_told_without_taking_anything(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let check = |body: Value| balancer.api("POST", "/-/v1/check", &body).expect(200).json();
    let unlimited = check(json!({ "address": "127.0.0.1" }));
    assert_eq!(unlimited["decision"], "allowed");
    assert_eq!((&unlimited["policy"], &unlimited["matched"]), (&json!("none"), &Value::Null));
    assert_eq!(unlimited["buckets"], json!([]));

    balancer.limit("127.0.0.1", 2, 0);
    for level in [2, 1, 0] {
        for _ in 0..3 {
            let usage = balancer.get("/-/v1/limits/127.0.0.1/usage").expect(200).json();
            let bucket = json!({ "name": "default", "capacity": 2, "level": level, "spent_elsewhere": 0 });
            assert_eq!(usage["buckets"], json!([bucket]));
            let verdict = check(json!({ "address": "127.0.0.1", "port": 5, "path": "/x" }));
            assert_eq!(verdict["decision"], if level > 0 { "allowed" } else { "denied" });
            assert_eq!((&verdict["matched"], &verdict["policy"]), (&json!("127.0.0.1"), &json!("client")));
            assert_eq!(verdict["candidates"], json!(["127.0.0.1:5", "127.0.0.1"]));
            assert_eq!(verdict["identity"], "127.0.0.1");
            let left = json!({ "name": "default", "capacity": 2, "level": level });
            assert_eq!(verdict["buckets"], json!([left]));
            assert_eq!(verdict["instance"], usage["instance"]);
        }
        balancer.get("/").expect(if level > 0 { 200 } else { 429 });
    }
    balancer.api("POST", "/-/v1/limits/127.0.0.1/reset", &Value::Null).expect(204);
    assert_eq!(check(json!({ "address": "127.0.0.1" }))["buckets"][0]["level"], 2);
    balancer.get("/").expect(200);

    balancer.limit("10.0.0.0/8", 5, 0);
    let verdict = check(json!({ "address": "10.1.2.3" }));
    assert_eq!((&verdict["matched"], &verdict["policy"]), (&json!("10.0.0.0/8"), &json!("range")));
    assert_eq!(verdict["candidates"], json!(["10.1.2.3", "10.0.0.0/8"]));
    let other = check(json!({ "address": "192.0.2.1" }));
    assert_eq!(other["candidates"], json!(["192.0.2.1", "default"]));
}

fn who_is_refused_most_is_told(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    balancer.limit("127.0.0.2", 1, 0);
    balancer.limit("127.0.0.3", 0, 0);
    for (source, requests) in [("127.0.0.2", 4), ("127.0.0.3", 5), ("127.0.0.4", 7)] {
        for _ in 0..requests {
            balancer.get_from(source, "/");
        }
    }
    let limited = balancer.get("/-/v1/limited?window=5m&top=50").expect(200).json();
    let reasons =
        |denied: u64| json!([{ "policy": "client", "bucket": "default", "rule": null, "denied": denied }]);
    let rows = json!([
        { "client_id": "127.0.0.3", "denied": 5, "reasons": reasons(5) },
        { "client_id": "127.0.0.2", "denied": 3, "reasons": reasons(3) },
    ]);
    assert_eq!((&limited["limited"], &limited["window"]), (&rows, &json!("5m")));
    assert!(limited["instance"].is_string());
    let clients = balancer.get("/-/v1/clients?top=2").expect(200).json();
    let rows = json!([
        { "client_id": "127.0.0.4", "requests": 7, "denied": 0 },
        { "client_id": "127.0.0.3", "requests": 5, "denied": 5 },
    ]);
    assert_eq!(clients["clients"], rows);
    let status = balancer.get("/-/v1/status").expect(200).json();
    assert_eq!((&status["denied"], &status["allowed"]), (&json!(8), &json!(8)));
    assert_eq!(status["store"], "up");
}

fn plans_and_ranges_show_what_is_left_and_are_filled(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let never =
        |name: &str, capacity: u32| json!({ "name": name, "amount": 0, "per": "1d", "capacity": capacity });
    let shadow = json!({ "name": "watch", "amount": 0, "per": "1d", "capacity": 1, "mode": "shadow" });
    let plan =
        json!({ "name": "free", "buckets": [never("few", 2), never("many", 9), shadow], "max_in_flight": 4 });
    balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    balancer.api("PUT", "/-/v1/limits/127.0.0.2", &json!({ "plan": "free" })).expect(201);
    let check = |address: &str| {
        balancer.api("POST", "/-/v1/check", &json!({ "address": address })).expect(200).json()
    };
    let levels = |json: &Value| -> Vec<u64> {
        let buckets = json["buckets"].as_array().expect("a list").iter();
        buckets.map(|bucket| bucket["level"].as_u64().expect("a number")).collect()
    };
    for (expected, status) in [([2, 9, 1], 200), ([1, 8, 0], 200), ([0, 7, 0], 429)] {
        let usage = balancer.get("/-/v1/limits/127.0.0.2/usage").expect(200).json();
        assert_eq!(levels(&usage), expected, "{usage}");
        assert_eq!(usage["buckets"][1]["name"], "many");
        let verdict = check("127.0.0.2");
        assert_eq!((levels(&verdict), verdict["decision"] == "allowed"), (levels(&usage), status == 200));
        assert_eq!(balancer.get_from("127.0.0.2", "/").status, status);
    }
    until("no request is under way", || {
        (balancer.get("/-/v1/limits/127.0.0.2/usage").expect(200).json()["in_flight"] == 0).then_some(())
    });
    balancer.api("POST", "/-/v1/limits/127.0.0.2/reset", &Value::Null).expect(204);
    assert_eq!(levels(&check("127.0.0.2")), [2, 9, 1]);

    // A range fills every address in it, and no other.
    balancer.api("PUT", "/-/v1/limits/127.5.0.0%2F16", &json!({ "buckets": [never("few", 1)] })).expect(201);
    balancer.api("PUT", "/-/v1/limits/127.6.0.0%2F16", &json!({ "buckets": [never("few", 1)] })).expect(201);
    for source in ["127.5.0.1", "127.5.0.2", "127.6.0.1"] {
        balancer.get_from(source, "/").expect(200);
        assert_eq!(levels(&check(source)), [0]);
    }
    balancer.api("POST", "/-/v1/limits/127.5.0.0%2F16/reset", &Value::Null).expect(204);
    for (source, level) in [("127.5.0.1", 1), ("127.5.0.2", 1), ("127.6.0.1", 0)] {
        let verdict = check(source);
        assert_eq!((levels(&verdict), &verdict["policy"]), (vec![level], &json!("range")), "{source}");
    }
    // One that is shared has one bucket, which usage shows.
    let shared = json!({ "buckets": [never("few", 5)], "shared": true });
    balancer.api("PUT", "/-/v1/limits/127.7.0.0%2F16", &shared).expect(201);
    for source in ["127.7.0.1", "127.7.0.2"] {
        balancer.get_from(source, "/").expect(200);
    }
    let usage = || levels(&balancer.get("/-/v1/limits/127.7.0.0%2F16/usage").expect(200).json());
    assert_eq!(usage(), [3]);
    balancer.api("POST", "/-/v1/limit/reset?client_id=127.7.0.0/16", &Value::Null).expect(204);
    assert_eq!(usage(), [5]);
}
