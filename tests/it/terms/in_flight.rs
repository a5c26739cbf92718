//! Bounds on requests at once.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::{bucket, fields, rest, violated};
use crate::support::backend::OK;
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Gate, Setup, Then, until};

each_engine! {
    as_many_as_may_be_are_under_way_and_no_more,
    a_request_is_under_way_until_the_last_byte_of_its_answer,
    a_client_that_leaves_is_under_way_no_longer,
}

/// A backend whose answers to `/slow` begin and wait for the gate with their last byte; those to `/wait` wait with all.
fn slow_backend(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |seen, stream| {
        let line = seen.request_line();
        if line.contains("/slow") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            gate.wait();
            let _ = stream.write_all(b"k");
        } else {
            if line.contains("/wait") {
                gate.wait();
            }
            let _ = stream.write_all(OK);
        }
        Then::Keep
    })
}

fn bounded(engine: Engine, backend: &Backend, most: u32) -> Balancer {
    Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "buckets": [bucket("day", 100)], "max_in_flight": most }))
        .start()
}

const POLICY: &str = r#""day";q=100;w=86400, "concurrency";q=2;qu="concurrent-requests""#;

/// A request that waits at the backend, which has seen that many then. `tiny_http` may leave a connection waiting until
/// another one ends: then it is given up for the next.
fn held(balancer: &Balancer, backend: &Backend, seen: usize) -> Conn {
    for _ in 0..5 {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("GET", "/wait", &[], None));
        for _ in 0..500 {
            if backend.seen().len() >= seen {
                return conn;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("never at the backend: {}", balancer.proc.story());
}

fn as_many_as_may_be_are_under_way_and_no_more(engine: Engine) {
    let gate = Gate::default();
    let backend = slow_backend(&gate);
    let balancer = bounded(engine, &backend, 2);
    let answer = balancer.get("/").expect(200);
    assert_eq!((fields(&answer).0, rest(&answer)), (Some(POLICY), Some(r#""day";r=99"#)));
    let mut held: Vec<Conn> = [2, 3].map(|seen| held(&balancer, &backend, seen)).into();
    assert_eq!(backend.seen().len(), 3, "both are at the backend, and nobody else");
    let refused = balancer.get("/");
    assert_eq!(violated(&refused), json!(["concurrency"]));
    assert_eq!(fields(&refused), (Some(POLICY), Some(r#""concurrency";r=0;t=1"#)));
    assert_eq!(refused.field("retry-after"), Some("1"));
    // Other clients are not concerned.
    balancer.get_from("127.0.0.9", "/").expect(200);
    gate.open();
    for conn in &mut held {
        assert_eq!(conn.read("GET").unwrap().status, 200);
    }
    let answer = until("there is room again", || {
        let answer = balancer.get("/");
        (answer.status == 200).then_some(answer)
    });
    // The refusals took no token.
    assert_eq!(rest(&answer), Some(r#""day";r=96"#));
}

fn a_request_is_under_way_until_the_last_byte_of_its_answer(engine: Engine) {
    let gate = Gate::default();
    let backend = slow_backend(&gate);
    let balancer = bounded(engine, &backend, 1);
    let mut slow = Conn::open(balancer.address);
    slow.send(head("GET", "/slow", &[], None));
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    // The portable engine sends so short an answer as a whole.
    let begun = (engine == Engine::Epoll).then(|| slow.read_head("GET").unwrap());
    assert_eq!(violated(&balancer.get("/")), json!(["concurrency"]));
    gate.open();
    let framing = begun.unwrap_or_else(|| slow.read_head("GET").unwrap()).framing;
    let mut body = Vec::new();
    slow.read_body(framing, &mut |bytes| body.extend_from_slice(bytes)).unwrap();
    assert_eq!(body, b"ok");
    until("there is room again", || (balancer.get("/").status == 200).then_some(()));
}

fn a_client_that_leaves_is_under_way_no_longer(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| {
        if seen.request_line().contains("/endless") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"4\r\nmore\r\n").is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            return Then::Close;
        }
        let _ = stream.write_all(OK);
        Then::Keep
    });
    let balancer = bounded(engine, &backend, 1);
    let mut leaver = Conn::open(balancer.address);
    leaver.send(head("GET", "/endless", &[], None));
    leaver.read_head("GET").unwrap().expect(200);
    assert_eq!(violated(&balancer.get("/")), json!(["concurrency"]));
    leaver.reset();
    until("there is room again", || (balancer.get("/").status == 200).then_some(()));
}

#[test]
#[cfg(target_os = "linux")]
fn an_upgraded_connection_is_under_way_until_it_closes() {
    let backend = Backend::scripted(|seen, stream| {
        if seen.request_line().contains("/socket") {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            return Then::Hang;
        }
        let _ = stream.write_all(OK);
        Then::Keep
    });
    let balancer = bounded(Engine::Epoll, &backend, 1);
    let mut socket = Conn::open(balancer.address);
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    socket.send(head("GET", "/socket", &fields, None));
    assert_eq!(socket.read_head("GET").unwrap().status, 101);
    assert_eq!(violated(&balancer.get("/")), json!(["concurrency"]));
    socket.reset();
    until("there is room again", || (balancer.get("/").status == 200).then_some(()));
}
