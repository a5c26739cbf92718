//! The five calls under `/limits`, whose form never changes, on both databases.

use serde_json::{Value, json};

use crate::support::engine::each_store;
use crate::support::{Backend, Balancer, Conn, Database, Setup, Store, request};

each_store! {
    the_five_calls_answer_as_fixed,
    ids_are_kept_byte_for_byte,
    addresses_and_ranges_match_by_value,
    bad_bodies_are_400_and_change_nothing,
    numbers_are_exact,
    the_listing_is_in_byte_order_and_pages,
    methods_and_bodies_are_refused_in_order,
    body_and_query_may_both_name_the_client,
    two_creates_at_once_are_one_201_and_one_409,
    limits_outlive_the_process,
}

fn start(database: &Database) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    // A busy machine's database may take long.
    let balancer = setup.set("database.timeout", json!("20s")).start();
    (backend, balancer)
}

fn limit(client: &str, capacity: impl Into<Value>, rate: impl Into<Value>) -> Value {
    json!({ "client_id": client, "capacity": capacity.into(), "rate_per_sec": rate.into() })
}

fn id(client: &str) -> Value {
    json!({ "client_id": client })
}

fn the_five_calls_answer_as_fixed(database: &Database) {
    let (backend, balancer) = start(database);
    let client = "123.5.6.7:890";
    assert_eq!(
        balancer.api("GET", "/limits", &Value::Null).expect(200).json(),
        json!({ "limits": [], "next_cursor": null })
    );

    let created = balancer.api("POST", "/limits/create", &limit(client, 10, 1)).expect(201);
    assert!(created.body.is_empty(), "{created:?}");
    balancer.api("POST", "/limits/create", &limit(client, 11, 1)).problem(409);

    let got = balancer.api("GET", "/limits/get", &id(client)).expect(200);
    assert_eq!(got.text(), r#"{"client_id":"123.5.6.7:890","capacity":10,"rate_per_sec":1}"#);
    let got = balancer.get("/limits/get?client_id=123.5.6.7%3A890").expect(200);
    assert_eq!(got.json(), limit(client, 10, 1));
    assert!(got.field("content-type").is_some_and(|value| value.starts_with("application/json")), "{got:?}");
    let head = balancer.api("HEAD", "/limits/get?client_id=123.5.6.7:890", &Value::Null).expect(200);
    assert_eq!(head.field("content-length"), Some(got.body.len().to_string().as_str()));

    let updated = balancer.api("PUT", "/limits/update", &limit(client, 20, 2.5)).expect(204);
    assert!(updated.body.is_empty() && updated.field("content-length").is_none(), "{updated:?}");
    assert_eq!(balancer.api("GET", "/limits/get", &id(client)).json(), limit(client, 20, 2.5));
    let listed = balancer.api("GET", "/limits", &Value::Null).expect(200);
    assert_eq!(listed.json(), json!({ "limits": [limit(client, 20, 2.5)], "next_cursor": null }));

    balancer.api("DELETE", "/limits/delete", &id(client)).expect(204);
    balancer.api("DELETE", "/limits/delete", &id(client)).problem(404);
    balancer.api("GET", "/limits/get", &id(client)).problem(404);
    balancer.api("PUT", "/limits/update", &limit(client, 1, 1)).problem(404);
    balancer.api("POST", "/limits/create", &limit("q", 1, 1)).expect(201);
    balancer.api("DELETE", "/limits/delete?client_id=q", &Value::Null).expect(204);
    assert!(backend.seen().is_empty(), "a call of ours reached a backend");
}

fn ids_are_kept_byte_for_byte(database: &Database) {
    let (_backend, balancer) = start(database);
    let long = "ü".repeat(128);
    let ids = [
        "tenant/7",
        "it's \"quoted\"",
        "a\\b",
        "日本語 🦀",
        "%2F",
        " leading and trailing ",
        "a?b&c=d#e",
        "'; DROP TABLE limits; --",
        "1.2.3.4:99999",
        "300.1.1.1",
        "1.2.3.4/33",
        "ABC",
        "abc",
        &long,
        "%",
        "_",
        "e\u{301}",
        "é",
    ];
    for client in ids {
        balancer.api("POST", "/limits/create", &limit(client, 3, 1)).expect(201);
    }
    for client in ids {
        assert_eq!(balancer.api("GET", "/limits/get", &id(client)).expect(200).json()["client_id"], client);
        let encoded: String = client.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let got = balancer.get(&format!("/limits/get?client_id={encoded}")).expect(200);
        assert_eq!(got.json()["client_id"], client);
    }
    let listed = balancer.get("/limits?limit=1000").json();
    assert_eq!(listed["limits"].as_array().unwrap().len(), ids.len());
    for client in ids {
        balancer.api("DELETE", "/limits/delete", &id(client)).expect(204);
    }
}

fn addresses_and_ranges_match_by_value(database: &Database) {
    let (_backend, balancer) = start(database);
    let same: &[&[&str]] = &[
        &["1.2.3.4", "::ffff:1.2.3.4", "::FFFF:102:304"],
        &["1.2.3.4:80", "[::ffff:1.2.3.4]:80"],
        &["2001:db8::1", "2001:DB8:0:0::1"],
        &["[2001:db8::1]:443", "[2001:db8:0::1]:443"],
        &["10.1.2.3/8", "10.0.0.0/8", "10.255.255.255/8"],
        &["2001:db8::/32", "2001:db8:1::/32"],
    ];
    for forms in same {
        let first = forms[0];
        balancer.api("POST", "/limits/create", &limit(first, 3, 1)).expect(201);
        for form in *forms {
            let got = balancer.api("GET", "/limits/get", &id(form)).expect(200).json();
            assert_eq!(got["client_id"], first, "asked as {form}, returned as it was given");
            if *form != first {
                balancer.api("POST", "/limits/create", &limit(form, 3, 1)).problem(409);
            }
        }
        balancer.api("PUT", "/limits/update", &limit(forms[1], 4, 1)).expect(204);
        assert_eq!(balancer.api("GET", "/limits/get", &id(first)).json()["capacity"], 4);
        balancer.api("DELETE", "/limits/delete", &id(forms[1])).expect(204);
        balancer.api("GET", "/limits/get", &id(first)).problem(404);
    }
}

fn bad_bodies_are_400_and_change_nothing(database: &Database) {
    let (_backend, balancer) = start(database);
    balancer.limit("old", 5, 1);
    let long = "x".repeat(257);
    let cases: &[(&str, &str)] = &[
        ("", ""),
        ("[]", ""),
        ("{", ""),
        ("null", ""),
        (r#"{"capacity":1,"rate_per_sec":1}"#, "/client_id"),
        (r#"{"client_id":"x","rate_per_sec":1}"#, "/capacity"),
        (r#"{"client_id":"x","capacity":1}"#, "/rate_per_sec"),
        (r#"{"client_id":7,"capacity":1,"rate_per_sec":1}"#, "/client_id"),
        (r#"{"client_id":"","capacity":1,"rate_per_sec":1}"#, "/client_id"),
        (&format!(r#"{{"client_id":"{long}","capacity":1,"rate_per_sec":1}}"#), "/client_id"),
        (r#"{"client_id":"a\u0000b","capacity":1,"rate_per_sec":1}"#, "/client_id"),
        (r#"{"client_id":"a\nb","capacity":1,"rate_per_sec":1}"#, "/client_id"),
        (r#"{"client_id":"x","capacity":-1,"rate_per_sec":1}"#, "/capacity"),
        (r#"{"client_id":"x","capacity":1.5,"rate_per_sec":1}"#, "/capacity"),
        (r#"{"client_id":"x","capacity":"1","rate_per_sec":1}"#, "/capacity"),
        (r#"{"client_id":"x","capacity":1000000001,"rate_per_sec":1}"#, "/capacity"),
        (r#"{"client_id":"x","capacity":1e400,"rate_per_sec":1}"#, ""),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":-1}"#, "/rate_per_sec"),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":1000000001}"#, "/rate_per_sec"),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":0.0000001}"#, "/rate_per_sec"),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":1.0000001}"#, "/rate_per_sec"),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":null}"#, "/rate_per_sec"),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":NaN}"#, ""),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":1,"burst":2}"#, "/burst"),
        (r#"{"client_id":"x","capacity":1,"capacity":1,"rate_per_sec":1}"#, ""),
        (r#"{"client_id":"x","capacity":1,"rate_per_sec":1} x"#, ""),
    ];
    for (body, pointer) in cases {
        for (method, path) in [("POST", "/limits/create"), ("PUT", "/limits/update")] {
            let problem = request(balancer.admin, method, path, &[], body.as_bytes()).problem(400);
            if !pointer.is_empty() {
                let named =
                    problem["errors"].as_array().is_some_and(|e| e.iter().any(|e| e["pointer"] == *pointer));
                assert!(named, "{pointer} is not named for {body}: {problem}");
            }
        }
    }
    let bytes = b"{\"client_id\":\"\xff\xfe\",\"capacity\":1,\"rate_per_sec\":1}";
    request(balancer.admin, "POST", "/limits/create", &[], bytes).problem(400);
    for query in ["?client_id=", "?client_id=a%00b", "?client_id=%FF", "?client_id=a&client_id=b", "?x=1", ""]
    {
        balancer.get(&format!("/limits/get{query}")).problem(400);
    }
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=%00nonsense", "?limit=1&limit=2", "?what=1"]
    {
        balancer.get(&format!("/limits{query}")).problem(400);
    }
    let listed = balancer.get("/limits").json();
    assert_eq!(listed["limits"], json!([limit("old", 5, 1)]));
}

fn numbers_are_exact(database: &Database) {
    let (_backend, balancer) = start(database);
    let cases = [
        ("0", "0"),
        ("1000000000", "1000000000"),
        ("1", "0.000001"),
        ("1", "0.1"),
        ("7", "999999999.999999"),
        ("1", "2.5"),
        ("1", "1e3"),
        ("1", "10.0"),
        ("1", "123456.789"),
    ];
    for (capacity, rate) in cases {
        let body = format!(r#"{{"client_id":"n","capacity":{capacity},"rate_per_sec":{rate}}}"#);
        request(balancer.admin, "POST", "/limits/create", &[], body.as_bytes()).expect(201);
        let shown = match rate {
            "1e3" => "1000",
            "10.0" => "10",
            other => other,
        };
        let expected = format!(r#"{{"client_id":"n","capacity":{capacity},"rate_per_sec":{shown}}}"#);
        assert_eq!(balancer.get("/limits/get?client_id=n").text(), expected);
        balancer.api("DELETE", "/limits/delete", &id("n")).expect(204);
    }
}

fn the_listing_is_in_byte_order_and_pages(database: &Database) {
    let (_backend, balancer) = start(database);
    let mut ids: Vec<String> = (0..25).map(|i| format!("client-{i}")).collect();
    ids.extend(["Z", "a", "é", "zz", "~", "10.0.0.0/8", "A b", "🦀"].map(str::to_owned));
    for client in &ids {
        balancer.limit(client, 1, 1);
    }
    ids.sort();
    for size in [1, 7, 33, 1000] {
        let (mut listed, mut target) = (Vec::new(), format!("/limits?limit={size}"));
        loop {
            let page = balancer.get(&target).expect(200).json();
            let limits = page["limits"].as_array().unwrap();
            assert!(limits.len() <= size);
            listed.extend(limits.iter().map(|limit| limit["client_id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            let cursor: String = cursor.bytes().map(|byte| format!("%{byte:02X}")).collect();
            target = format!("/limits?limit={size}&cursor={cursor}");
        }
        assert_eq!(listed, ids, "in pages of {size}");
    }
    for i in 0..80 {
        balancer.limit(&format!("more-{i}"), 1, 1);
    }
    let page = balancer.get("/limits").json();
    assert_eq!(page["limits"].as_array().unwrap().len(), 100);
    assert!(page["next_cursor"].is_string());
}

fn methods_and_bodies_are_refused_in_order(database: &Database) {
    let (_backend, balancer) = start(database);
    let allowed = [
        ("/limits/create", "POST"),
        ("/limits/get", "GET, HEAD"),
        ("/limits/update", "PUT"),
        ("/limits/delete", "DELETE"),
        ("/limits", "GET, HEAD"),
    ];
    for (path, allow) in allowed {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            if allow.split(", ").any(|one| one == method) {
                continue;
            }
            // 405 comes before what is wrong with the body.
            let answer = request(balancer.admin, method, path, &[], b"nonsense");
            answer.problem(405);
            assert_eq!(answer.field("allow"), Some(allow), "{method} {path}");
        }
    }
    // 413 comes before 400.
    let huge = vec![b'x'; 64 * 1024 + 1];
    request(balancer.admin, "POST", "/limits/create", &[], &huge).problem(413);
    let mut padded = limit("padded", 1, 1).to_string().into_bytes();
    padded.resize(64 * 1024, b' ');
    request(balancer.admin, "POST", "/limits/create", &[], &padded).expect(201);
    // Any Content-Type.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    request(balancer.admin, "POST", "/limits/create", &form, limit("form", 1, 1).to_string().as_bytes())
        .expect(201);
    // Chunked, too.
    let mut conn = Conn::open(balancer.admin);
    let body = limit("chunked", 1, 1).to_string();
    conn.send(format!(
        "POST /limits/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    ));
    conn.read("POST").unwrap().expect(201);
}

fn body_and_query_may_both_name_the_client(database: &Database) {
    let (_backend, balancer) = start(database);
    balancer.limit("a", 1, 1);
    balancer.api("GET", "/limits/get?client_id=a", &id("a")).expect(200);
    balancer.api("GET", "/limits/get?client_id=a", &id("b")).problem(400);
    balancer.api("DELETE", "/limits/delete?client_id=b", &id("a")).problem(400);
    balancer.api("DELETE", "/limits/delete?client_id=a", &id("a")).expect(204);
}

fn two_creates_at_once_are_one_201_and_one_409(database: &Database) {
    let (_backend, balancer) = start(database);
    for round in 0..10 {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(4));
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let (barrier, address) = (std::sync::Arc::clone(&barrier), balancer.admin);
                std::thread::spawn(move || {
                    let mut conn = Conn::open(address);
                    barrier.wait();
                    conn.ask(
                        "POST",
                        "/limits/create",
                        &[],
                        limit(&format!("c{round}"), 1, 1).to_string().as_bytes(),
                    )
                    .status
                })
            })
            .collect();
        let mut statuses: Vec<u16> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
    }
}

fn limits_outlive_the_process(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto()
        .store(database)
        .backend(backend.address())
        // A client that can't be looked up in time has no limit.
        .set("cache.load_timeout", json!("10s"))
        .set("database.timeout", json!("20s"));
    let mut first = setup.start();
    first.limit("127.0.0.1", 1, 0);
    first.limit("127.9.0.0/16", 1, 0);
    first.proc.signal(rustix::process::Signal::TERM);
    assert_eq!(first.proc.wait().code(), Some(0));
    let second = setup.start();
    assert_eq!(second.get("/limits").json()["limits"].as_array().unwrap().len(), 2);
    for source in ["127.0.0.1", "127.9.1.1"] {
        second.get_from(source, "/").expect(200);
        second.get_from(source, "/").problem(429);
    }
    if database.store == Store::Sqlite {
        assert!(setup.folder().join("balancer.db").exists());
    }
}
