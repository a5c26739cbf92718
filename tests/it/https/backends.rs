//! Backends that speak TLS: their connections are kept, their answers passed on, and one that hangs costs no request.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::json;

use crate::support::backend::OK;
use crate::support::client::head;
use crate::support::tls_ends::{SecureBackend, VERSIONS, open, request, say_end, setup};
use crate::support::{Conn, Fault};

#[test]
fn connections_are_used_again() {
    let config = setup();
    let backend = SecureBackend::answering(config.folder(), OK);
    let balancer = config
        .one_loop()
        .backend_with(backend.url())
        .set("upstream.tls", json!({ "ca": "server.pem" }))
        .start();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        for _ in 0..50 {
            conn.get("/").expect(200);
        }
    }
    for _ in 0..50 {
        balancer.get("/").expect(200);
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn one_that_ends_a_kept_connection_is_asked_on_another() {
    let config = setup();
    let backend = SecureBackend::start(config.folder(), |tls| {
        let Some(_) = request(tls) else { return };
        let _ = tls.write_all(OK);
        let _ = tls.flush();
        say_end(tls);
        // Waits until the other side has seen it.
        let _ = tls.read(&mut [0]);
    });
    let balancer = config
        .one_loop()
        .backend_with(backend.url())
        .set("upstream.tls", json!({ "ca": "server.pem" }))
        .start();
    let mut conn = open(&balancer, &rustls::version::TLS13);
    for round in 1..=20 {
        conn.get("/").expect(200);
        assert_eq!(backend.connections(), round);
    }
}

#[test]
fn one_that_stalls_in_its_handshake_costs_no_request() {
    let config = setup();
    let good = SecureBackend::answering(config.folder(), OK);
    // Connections are made by the kernel, and nothing is ever said on them.
    let stalled = TcpListener::bind("127.0.0.1:0").unwrap();
    let balancer = config
        .one_loop()
        .backend_with(json!({ "url": format!("https://{}", stalled.local_addr().unwrap()) }))
        .backend_with(good.url())
        .set("balancing.strategy", json!("round_robin"))
        .set("upstream.connect_timeout", json!("1s"))
        .set("upstream.tls", json!({ "ca": "server.pem" }))
        .start();
    for _ in 0..6 {
        balancer.get("/").expect(200);
    }
    stalled.set_nonblocking(true).unwrap();
    assert!(stalled.accept().is_ok(), "it was tried");
    // As the only backend it is too slow: the request is answered 502 or 504.
    let config = setup();
    let balancer = config
        .backend_with(json!({ "url": format!("https://{}", stalled.local_addr().unwrap()) }))
        .set("upstream.connect_timeout", json!("1s"))
        .set("upstream.tls", json!({ "ca": "server.pem" }))
        .start();
    let problem = balancer.get("/");
    assert!(matches!(problem.status, 502 | 504), "{problem:?}");
}

#[test]
fn bodies_tunnels_and_new_keys_go_through() {
    let config = setup();
    let backend = SecureBackend::start(config.folder(), |tls| {
        while let Some(head) = request(tls) {
            if head.contains("/socket") {
                let _ = tls.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                );
                let _ = tls.flush();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = tls.read(&mut buffer) {
                    let _ = tls.write_all(&buffer[..count]);
                    let _ = tls.flush();
                }
                return say_end(tls);
            }
            let mut body = vec![0; 1 << 20];
            if tls.read_exact(&mut body).is_err() {
                return;
            }
            let _ = write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            for piece in body.chunks(100_000) {
                if tls.conn.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
                    let _ = tls.conn.refresh_traffic_keys();
                }
                let _ = tls.write_all(piece);
            }
            let _ = tls.flush();
        }
    });
    let balancer = config
        .one_loop()
        .backend_with(backend.url())
        .set("upstream.tls", json!({ "ca": "server.pem" }))
        .start();
    let body: Vec<u8> = (0..1u32 << 20).map(|n| (n ^ n >> 8) as u8).collect();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        for _ in 0..3 {
            let answer = conn.ask("POST", "/", &[], &body).expect(200);
            assert!(answer.body == body, "{} bytes", answer.body.len());
        }
    }
    assert_eq!(backend.connections(), 1);
    let mut conn = Conn::open(balancer.address);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    conn.send(head("GET", "/socket", &upgrade, None));
    conn.read_head("GET").unwrap().expect(101);
    for message in [&body[..1], &body[..50_000]] {
        conn.send(message);
        let mut back = Vec::new();
        conn.exactly(message.len() as u64, &mut |bytes| back.extend_from_slice(bytes)).unwrap();
        assert!(back == message, "{} bytes", message.len());
    }
    conn.finish();
    assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed));
}
