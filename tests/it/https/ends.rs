//! How connections end: with close_notify an answer is whole, without it it may have been cut off (RFC 8446 §6.1).

use std::io::Write;
use std::net::Shutdown;

use super::until_alone;
use crate::support::backend::{OK, read_request};
use crate::support::client::head;
use crate::support::tls_ends::{SecureBackend, VERSIONS, open, request, say_end, setup};
use crate::support::{Backend, Conn, Fault, Then, until};
use serde_json::json;

#[test]
fn we_say_that_nothing_more_comes() {
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        conn.ask("GET", "/", &[("Connection", "close")], b"").expect(200);
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{version:?}");
        // Answered by us and closed, since what follows can't be read.
        let mut conn = open(&balancer, version);
        conn.send("GET / HTTP/1.1\r\nHost: a\r\nbad field\r\n\r\n");
        conn.read("GET").unwrap().expect(400);
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{version:?}");
        // Its answer is ended by the connection's end.
        let mut conn = open(&balancer, version);
        conn.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(conn.read("GET").unwrap().expect(200).text(), "ok");
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{version:?}");
    }
    until_alone(&balancer);
}

#[test]
fn a_client_may_say_that_nothing_more_comes() {
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    for version in VERSIONS {
        // Between requests.
        let mut conn = open(&balancer, version);
        conn.get("/").expect(200);
        conn.stream.conn.send_close_notify();
        conn.stream.flush().unwrap();
        conn.stream.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{version:?}");
        // Behind a request, whose answer still comes.
        let mut conn = open(&balancer, version);
        conn.send(head("GET", "/", &[], None));
        conn.stream.conn.send_close_notify();
        conn.stream.flush().unwrap();
        conn.read("GET").unwrap().expect(200);
        assert_eq!(conn.wait_closed().1, Fault::Closed, "{version:?}");
    }
    until_alone(&balancer);
}

#[test]
fn an_idle_client_that_goes_without_a_word_is_forgotten() {
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        conn.get("/").expect(200);
        conn.stream.sock.shutdown(Shutdown::Write).unwrap();
        conn.wait_closed();
    }
    until_alone(&balancer);
}

#[test]
fn an_upload_that_ends_without_a_word_is_a_client_that_left() {
    let backend = Backend::raw(|index, stream, keep| {
        if let Some(seen) = read_request(index, stream, &mut Vec::new()) {
            keep(seen);
        }
        Then::Close
    });
    let balancer =
        setup().backend(backend.address()).set("frontend.request_buffer_bytes", json!(4096)).start();
    let mut left = 0.0;
    for version in VERSIONS {
        let chunk = format!("4e20\r\n{}\r\n", "x".repeat(20_000));
        let rows = [
            (head("POST", "/", &[], Some(40_000)), "x".repeat(20_000)),
            (head("POST", "/", &[("Transfer-Encoding", "chunked")], None), chunk),
        ];
        for (head, body) in rows {
            let mut conn = open(&balancer, version);
            conn.send([&head[..], body.as_bytes()].concat());
            until("it is with the backend", || (backend.open() == 1).then_some(()));
            // A FIN, and no close_notify before it.
            conn.stream.sock.shutdown(Shutdown::Write).unwrap();
            until("the backend's connection is closed", || (backend.open() == 0).then_some(()));
            left += 1.0;
            until("it is counted as one that left", || {
                let counted = balancer.metric("balancer_http_requests_total{method=\"POST\",code=\"499\"}");
                (counted == left).then_some(())
            });
        }
    }
    assert!(backend.seen().is_empty(), "no request was whole: {:?}", backend.seen());
    until_alone(&balancer);
}

#[test]
fn a_backends_answer_is_whole_only_if_it_says_so() {
    let config = setup();
    let backend = SecureBackend::start(config.folder(), |tls| {
        let Some(head) = request(tls) else { return };
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it");
        let _ = tls.flush();
        if head.contains("/told") {
            say_end(tls);
        }
    });
    let balancer =
        config.backend_with(backend.url()).set("upstream.tls", json!({ "ca": "server.pem" })).start();
    for line in ["HTTP/1.1\r\nHost: a", "HTTP/1.0"] {
        for version in VERSIONS {
            let mut conn = open(&balancer, version);
            conn.send(format!("GET /told {line}\r\n\r\n"));
            assert_eq!(conn.read("GET").unwrap().expect(200).text(), "all of it", "{line}");
            let mut conn = open(&balancer, version);
            conn.send(format!("GET /cut {line}\r\n\r\n"));
            // Perhaps before any of it was passed on.
            match conn.read("GET") {
                Ok(answer) => assert_eq!(answer.status, 502, "{line} {version:?}: {answer:?}"),
                Err(fault) => {
                    assert!(matches!(fault, Fault::Truncated(_) | Fault::Reset), "{line}: {fault:?}")
                }
            }
        }
        let mut plain = Conn::open(balancer.address);
        plain.send(format!("GET /cut {line}\r\n\r\n"));
        match plain.read("GET") {
            Ok(answer) => assert_eq!(answer.status, 502, "{line}: {answer:?}"),
            Err(fault) => assert!(matches!(fault, Fault::Truncated(_) | Fault::Reset), "{line}: {fault:?}"),
        }
    }
}
