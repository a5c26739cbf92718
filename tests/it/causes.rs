//! The access log has the cause of every 4xx and 5xx that Balancer itself answers, whichever part refused the request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::refusing;
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Setup, Then, request, until};

each_engine! {
    every_refusal_of_ours_has_its_cause,
    every_failure_has_its_cause_and_not_only_one_in_ten_seconds,
    a_broken_answer_that_was_replaced_is_logged_as_what_was_sent,
}

fn lines(balancer: &Balancer) -> Vec<Value> {
    let out = balancer.proc.out();
    out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The line of the last request, when it is there.
fn line(balancer: &Balancer, count: usize) -> Value {
    let mut seen = until("the line is there", || {
        let seen = lines(balancer);
        (seen.len() == count).then_some(seen)
    });
    seen.remove(count - 1)
}

fn every_refusal_of_ours_has_its_cause(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("log.access", json!(true))
        .set("frontend.max_body_bytes", json!(10))
        .set("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0 }))
        .start();
    // Calls of the API have no line, refused or not. Otherwise the counts below would be wrong.
    balancer.api("GET", "/limits/get?client_id=none", &json!(null)).expect(404);
    balancer.api("POST", "/limits/create", &json!({})).expect(400);
    let long = "x".repeat(9000);
    let rows: [(String, u16, &str, Value); 8] = [
        ("GET /first HTTP/1.0\r\nHost: a\r\n\r\n".into(), 200, "", json!("HTTP/1.0")),
        ("GET /429 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 429, "quota", json!("HTTP/1.1")),
        // Faults of framing, which never reach the proxy.
        ("GET foo HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, "the request target", Value::Null),
        (
            "GET /h HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
            400,
            "the Host is not a valid host",
            json!("HTTP/1.1"),
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "too long", Value::Null),
        (
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n".into(),
            400,
            "the last transfer coding is not chunked",
            json!("HTTP/1.1"),
        ),
        (
            "POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901".into(),
            413,
            "frontend.max_body_bytes",
            json!("HTTP/1.1"),
        ),
        (
            "OPTIONS /m HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n".into(),
            400,
            "Max-Forwards",
            json!("HTTP/1.1"),
        ),
    ];
    for (index, (bytes, status, cause, protocol)) in rows.iter().enumerate() {
        let mut conn = Conn::open(balancer.address);
        conn.send(bytes);
        conn.wait_at_most(Duration::from_secs(20));
        let answer = conn.read("GET").unwrap_or_else(|fault| panic!("{fault:?} for {bytes:.60}"));
        assert_eq!(answer.status, *status, "{bytes:.60}: {answer:?}");
        let line = line(&balancer, index + 1);
        assert_eq!(line["status"], *status, "{line}");
        assert_eq!(line["protocol"], *protocol, "{line}");
        match &line["cause"] {
            Value::Null => assert_eq!(*status, 200, "{line}"),
            told => {
                assert!(told.as_str().is_some_and(|told| !told.is_empty() && told.contains(cause)), "{line}")
            }
        }
    }
}

fn every_failure_has_its_cause_and_not_only_one_in_ten_seconds(engine: Engine) {
    let balancer = Setup::on(engine).backend(refusing()).set("log.access", json!(true)).start();
    const MANY: usize = 20;
    let ids: Vec<String> = (0..MANY)
        .map(|_| {
            let answer = balancer.get("/x");
            answer.problem(502);
            assert!(!answer.text().contains("refused"), "the cause is the operator's: {answer:?}");
            answer.field("x-request-id").expect("an id").to_owned()
        })
        .collect();
    let seen = until("the lines are there", || {
        let seen = lines(&balancer);
        (seen.len() == MANY).then_some(seen)
    });
    for id in ids {
        let line = seen.iter().find(|line| line["request_id"] == id.as_str()).expect("found by its id");
        let cause = line["cause"].as_str().expect("a cause");
        assert!(cause.contains("refused"), "{line}");
    }
    // An error that a backend answers has no cause of ours.
    let failing = Backend::answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let balancer = Setup::on(engine).backend(failing.address()).set("log.access", json!(true)).start();
    balancer.get("/x").expect(500);
    assert_eq!(line(&balancer, 1)["cause"], Value::Null);
    // The cause has a bound on its length.
    let wrong = format!("HTTP/1.1 200 OK\r\n{}: a\r\n\r\n", "x ".repeat(2000));
    let broken = Backend::saying(wrong, Then::Close);
    let balancer = Setup::on(engine).backend(broken.address()).set("log.access", json!(true)).start();
    request(balancer.address, "POST", "/x", &[], b"").expect(502);
    let line = line(&balancer, 1);
    assert!(line["cause"].as_str().is_some_and(|cause| !cause.is_empty() && cause.len() <= 520), "{line}");
}

/// `tiny_http` reads short answers whole before it sends a head, and then has a 502 to send.
fn a_broken_answer_that_was_replaced_is_logged_as_what_was_sent(engine: Engine) {
    let cut = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Then::Close);
    let balancer = Setup::on(engine).backend(cut.address()).set("log.access", json!(true)).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let status = conn.read("GET").ok().map(|answer| answer.status);
    let line = line(&balancer, 1);
    match engine {
        Engine::Epoll => assert_eq!((&line["status"], &line["cause"]), (&json!(200), &Value::Null), "{line}"),
        Engine::TinyHttp => {
            assert_eq!((status, &line["status"]), (Some(502), &json!(502)), "{line}");
            assert!(line["cause"].as_str().is_some_and(|cause| cause.contains("3 of 10 bytes")), "{line}");
        }
    }
}
