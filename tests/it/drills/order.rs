//! Pipelined requests are answered in order, and the last answer before a close can still be read.

use serde_json::json;

use super::setup;
use crate::support::client::head;
use crate::support::{Backend, Conn, Fault, Gate, Then, get, until};

fn echo() -> Backend {
    Backend::scripted(|seen, stream| {
        let line = seen.request_line();
        let path = line.split(' ').nth(1).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
        let _ = std::io::Write::write_all(stream, answer.as_bytes());
        Then::Keep
    })
}

#[test]
fn a_pipeline_is_answered_in_order_up_to_the_request_that_is_refused() {
    let backend = echo();
    let balancer = setup().backend(backend.address()).set("frontend.max_body_bytes", json!(1000)).start();
    let refused: [(&str, u16); 4] = [
        ("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        ("POST /large HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413),
        ("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ];
    for (bad, status) in refused {
        let before = backend.seen().len();
        let mut conn = Conn::open(balancer.address);
        let mut bytes: String =
            (0..50).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        bytes.push_str(bad);
        // The refused body, or what a smuggler would have us take for the next request.
        bytes.push_str(&"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50));
        // In pieces that fall anywhere; the last may find the connection closed.
        for piece in bytes.as_bytes().chunks(333) {
            let _ = conn.try_send(piece);
        }
        for number in 0..50 {
            assert_eq!(conn.read("GET").unwrap().expect(200).text(), format!("/{number}"), "{bad:?}");
        }
        let answer = conn.read("POST").unwrap();
        answer.problem(status);
        assert_eq!(answer.field("connection"), Some("close"), "{bad:?}");
        conn.finish();
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{bad:?}");
        let seen = backend.seen();
        assert_eq!(seen.len(), before + 50, "{bad:?}");
        assert!(seen.iter().all(|seen| !seen.request_line().contains("smuggled")), "{bad:?}");
    }
}

#[test]
fn a_client_that_sends_four_mebibytes_before_it_reads_finds_its_413() {
    let backend = echo();
    let balancer = setup().backend(backend.address()).set("frontend.max_body_bytes", json!(1 << 20)).start();
    let size = 4 << 20;
    let body = vec![b'x'; size];
    for coding in ["length", "chunked"] {
        for _ in 0..5 {
            let mut conn = Conn::open(balancer.address);
            if coding == "length" {
                conn.send(head("POST", "/", &[], Some(size)));
                conn.send(&body);
            } else {
                conn.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], None));
                conn.send(format!("{size:x}\r\n"));
                conn.send(&body);
                conn.send("\r\n0\r\n\r\n");
            }
            let answer = conn.read("POST").unwrap_or_else(|fault| panic!("{coding}: {fault:?}"));
            answer.problem(413);
            assert_eq!(answer.field("connection"), Some("close"));
            conn.finish();
            assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{coding}");
        }
    }
    assert!(backend.seen().is_empty(), "a refused body reached the backend: {}", backend.seen().len());
}

#[test]
fn the_request_that_ends_tiny_http_is_a_413_here() {
    let backend = Backend::named("a");
    let mut balancer = setup().backend(backend.address()).start();
    let mut conns: Vec<Conn> = (0..50).map(|_| Conn::open(balancer.address)).collect();
    for conn in &mut conns {
        conn.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 107374182400\r\n\r\nsome of it");
        let answer = conn.read("POST").unwrap();
        answer.problem(413);
        assert_eq!(answer.field("connection"), Some("close"));
    }
    drop(conns);
    get(balancer.address, "/").expect(200);
    assert!(balancer.proc.poll().is_none(), "the process lives");
    assert_eq!(backend.only().request_line(), "GET / HTTP/1.1");
    assert!(balancer.proc.rss_kib() < 200 << 10, "{} KiB", balancer.proc.rss_kib());
}

#[test]
fn two_hundred_requests_in_one_packet_are_answered_in_order() {
    let backend = echo();
    let balancer = setup().backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    for round in 0..5 {
        // Ours and the backend's in turns: those of ours are answered on another thread.
        let target = |number: usize| {
            if number % 10 == 9 { "/-/openapi.json".to_owned() } else { format!("/{round}/{number}") }
        };
        let bytes: String = (0..200)
            .map(|number| format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", target(number)))
            .collect();
        conn.send(bytes);
        for number in 0..200 {
            let answer = conn.read("GET").unwrap().expect(200);
            if number % 10 == 9 {
                assert!(answer.json()["openapi"].is_string(), "{round}/{number}: {}", answer.text());
            } else {
                assert_eq!(answer.text(), target(number));
            }
        }
    }
    // The last one closes; no answer comes for what is behind it.
    conn.send(
        "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(conn.read("GET").unwrap().expect(200).text(), "/last");
    assert!(conn.wait_closed().0.is_empty());
    assert!(backend.seen().iter().all(|seen| !seen.request_line().contains("behind")));
}

/// Old clients send an empty line behind a request. A close with that unread would be a reset, and what the client has not yet
/// received of its answer would be lost with it.
#[test]
fn what_stands_unread_behind_the_last_request_costs_no_byte_of_its_answer() {
    const BYTES: usize = 220_000;
    for behind in ["\r\n", "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for _ in 0..5 {
            let gate = Gate::default();
            let opened = gate.clone();
            let backend = Backend::scripted(move |_, stream| {
                opened.wait();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
                let _ = std::io::Write::write_all(stream, &[head.as_bytes(), &[b'x'; BYTES]].concat());
                Then::Keep
            });
            let balancer = setup().backend(backend.address()).start();
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[("Connection", "close")], None));
            until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
            conn.send(behind);
            // Answered behind it, on whichever loop.
            for _ in 0..4 {
                get(balancer.address, "/-/livez").expect(200);
            }
            gate.open();
            // The connection is closed when all of the answer is in the kernel's buffers, before the client reads any of it.
            until("the kernel has all of it", || {
                (balancer.metric("balancer_http_requests_in_flight") == 0.0).then_some(())
            });
            let answer = conn.read("GET").expect("all of it");
            assert_eq!(answer.body.len(), BYTES, "{behind:?}");
            conn.finish();
            assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{behind:?}");
        }
    }
}
