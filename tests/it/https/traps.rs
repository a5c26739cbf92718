//! Bytes between records and requests: neither plaintext that stays in the session nor ciphertext that the kernel did not
//! take may be forgotten.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::SupportedProtocolVersion;
use serde_json::json;

use super::until_alone;
use crate::support::backend::OK;
use crate::support::client::head;
use crate::support::secure::tls_port;
use crate::support::tls_ends::{Tls, VERSIONS, begin, client, open, setup, shake_hands};
use crate::support::{Backend, Balancer, Conn, Fault, Framing, Gate, Then, until};

fn started() -> (Backend, Balancer) {
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    (backend, balancer)
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

#[test]
fn one_record_may_hold_several_requests() {
    let (backend, balancer) = started();
    for version in VERSIONS {
        let before = backend.seen().len();
        let mut conn = open(&balancer, version);
        let one = head("GET", "/a", &[], None);
        // The last is cut in the middle.
        let all = [&one[..], &one, &one, &one[..9]].concat();
        conn.send(&all);
        for _ in 0..3 {
            conn.read("GET").unwrap().expect(200);
        }
        conn.send(&one[9..]);
        conn.read("GET").unwrap().expect(200);
        assert_eq!(backend.seen().len(), before + 4);
    }
}

#[test]
fn more_requests_than_a_buffer_holds_may_come_at_once() {
    let (backend, balancer) = started();
    let one = head("GET", "/many", &[("X-Fill", &"x".repeat(900))], None);
    for version in VERSIONS {
        let before = backend.seen().len();
        let mut conn = open(&balancer, version);
        conn.send(one.repeat(200));
        for _ in 0..200 {
            conn.read("GET").unwrap().expect(200);
        }
        assert_eq!(backend.seen().len(), before + 200);
    }
}

#[test]
fn a_request_may_come_in_as_many_records_as_it_has_bytes() {
    let (backend, balancer) = started();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        let text = [head("POST", "/bytes", &[], Some(3)), b"abc".to_vec()].concat();
        for byte in &text {
            conn.send([*byte]);
            conn.stream.flush().unwrap();
        }
        conn.read("POST").unwrap().expect(200);
        assert_eq!(backend.seen().pop().unwrap().body, b"abc");
        conn.get("/again").expect(200);
    }
}

#[test]
fn large_bodies_come_whole_in_both_directions() {
    const UP: usize = 1 << 20;
    const DOWN: usize = 16 << 20;
    let answer = pattern(DOWN);
    let backend = Backend::scripted(move |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {DOWN}\r\n\r\n");
        let _ = stream.write_all(&answer);
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).start();
    let (up, down) = (pattern(UP), pattern(DOWN));
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        for round in 0..2 {
            let answer = conn.ask("POST", "/whole", &[], &up);
            assert_eq!(answer.framing, Framing::Length(DOWN as u64));
            assert!(answer.body == down, "{version:?} {round}: {} bytes", answer.body.len());
            let seen = backend.seen().pop().unwrap();
            assert!(seen.body == up, "{version:?} {round}: {} bytes", seen.body.len());
        }
    }
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
}

/// More than all buffers on the way hold together.
const ENDLESS: usize = 64 << 20;

/// Answers with that many bytes.
fn endless() -> Backend {
    Backend::scripted(|_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n");
        let block = vec![b'x'; 1 << 16];
        for _ in 0..ENDLESS >> 16 {
            if stream.write_all(&block).is_err() {
                return Then::Close;
            }
        }
        Then::Keep
    })
}

/// A connection on which the kernel holds little of what its client has not read.
fn narrow(balancer: &Balancer, version: &'static SupportedProtocolVersion) -> Conn<Tls> {
    let config = Arc::new(client(balancer.folder(), &[version], &[]));
    let tls = begin(tls_port(balancer), &config);
    let _ = socket2::SockRef::from(&tls.sock).set_recv_buffer_size(32 * 1024);
    Conn::over(shake_hands(tls))
}

#[test]
fn clients_that_take_nothing_cost_little_and_are_reset() {
    let backend = endless();
    let balancer = setup().backend(backend.address()).set("frontend.write_timeout", json!("2s")).start();
    for version in VERSIONS {
        open(&balancer, version).get("/-/livez").expect(200);
        let before = balancer.proc.rss_kib();
        let mut conns: Vec<_> = (0..20).map(|_| narrow(&balancer, version)).collect();
        for conn in &mut conns {
            conn.send(head("GET", "/", &[], None));
        }
        until("all are being answered", || (backend.open() == 20).then_some(()));
        let mut most = 0;
        until("all have taken too long", || {
            most = most.max(balancer.proc.rss_kib());
            (backend.open() == 0).then_some(())
        });
        let grown = most.saturating_sub(before);
        assert!(grown < 20 * 1024, "{version:?}: {grown} KiB more for 20 answers");
        for mut conn in conns {
            // What was on its way, and then no end that could be taken for one.
            let fault = conn.read("GET").expect_err("it is cut");
            assert!(matches!(fault, Fault::Truncated(_)), "{fault:?}");
            assert_ne!(conn.wait_closed().1, Fault::Closed);
        }
    }
    until_alone(&balancer);
}

#[test]
fn a_client_may_read_as_slowly_as_it_likes_while_it_reads() {
    /// What the client takes for all of it, far longer than `write_timeout`.
    const TIME: Duration = Duration::from_secs(5);
    let backend = endless();
    let balancer = setup().backend(backend.address()).set("frontend.write_timeout", json!("2s")).start();
    for version in VERSIONS {
        let mut conn = narrow(&balancer, version);
        conn.send(head("GET", "/", &[], None));
        let answer = conn.read_head("GET").unwrap().expect(200);
        let (mut sum, mut wrong, began) = (0, 0, Instant::now());
        conn.read_body(answer.framing, &mut |bytes| {
            sum += bytes.len();
            wrong += bytes.iter().filter(|byte| **byte != b'x').count();
            let due = TIME.mul_f64(sum as f64 / ENDLESS as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        })
        .unwrap();
        assert_eq!((sum, wrong), (ENDLESS, 0));
        conn.get("/-/livez").expect(200);
    }
}

#[test]
fn requests_may_come_with_the_last_of_the_handshake() {
    for most in [16 * 1024, 1 << 20] {
        let backend = Backend::answering(OK);
        let balancer = setup().backend(backend.address()).set("frontend.max_head_bytes", json!(most)).start();
        let body = pattern(300_000);
        let config = Arc::new(client(balancer.folder(), &[&rustls::version::TLS13], &[]));
        let mut tls = begin(tls_port(&balancer), &config);
        tls.conn.set_buffer_limit(None);
        let text =
            [head("GET", "/first", &[], None), head("POST", "/second", &[], Some(body.len())), body.clone()];
        // Kept by the session until it may be sent.
        tls.conn.writer().write_all(&text.concat()).unwrap();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock).unwrap();
        }
        while tls.conn.is_handshaking() {
            tls.conn.read_tls(&mut tls.sock).unwrap();
            tls.conn.process_new_packets().unwrap();
        }
        let mut flight = Vec::new();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut flight).unwrap();
        }
        assert!(flight.len() > body.len());
        tls.sock.write_all(&flight).unwrap();
        let mut conn = Conn::over(tls);
        for _ in 0..2 {
            conn.read("GET").unwrap_or_else(|fault| panic!("{most}: {fault:?}")).expect(200);
        }
        assert!(backend.seen().pop().unwrap().body == body, "the body is whole");
    }
}

#[test]
fn keys_may_change_at_any_time() {
    let gate = Gate::default();
    let own = gate.clone();
    let backend = Backend::scripted(move |seen, stream| {
        let half = vec![b'x'; 100_000];
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * half.len());
        let _ = stream.write_all(&half);
        if seen.request_line().contains("/wait") {
            own.wait();
        }
        let _ = stream.write_all(&half);
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).start();
    let mut conn = open(&balancer, &rustls::version::TLS13);
    conn.stream.conn.refresh_traffic_keys().unwrap();
    conn.get("/").expect(200);
    let body = pattern(60_000);
    conn.send(head("POST", "/wait", &[], Some(body.len())));
    for piece in body.chunks(10_000) {
        conn.stream.conn.refresh_traffic_keys().unwrap();
        conn.send(piece);
    }
    let answer = conn.read_head("POST").unwrap().expect(200);
    // Asks for new keys of the other direction, too, in the middle of an answer.
    conn.stream.conn.refresh_traffic_keys().unwrap();
    conn.stream.flush().unwrap();
    gate.open();
    let mut came = 0;
    conn.read_body(answer.framing, &mut |bytes| came += bytes.len()).unwrap();
    assert_eq!(came, 200_000);
    assert!(backend.seen().pop().unwrap().body == body, "the body is whole");
    conn.get("/").expect(200);
}

#[test]
fn a_websocket_and_an_event_stream_go_through() {
    let gate = Gate::default();
    let own = gate.clone();
    let backend = Backend::scripted(move |seen, stream| {
        if seen.field("upgrade").is_none() {
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            own.wait();
            let _ = stream.write_all(b"data: 2\n\n");
            return Then::Close;
        }
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let Ok(mut reader) = stream.try_clone() else { return Then::Close };
        let _ = std::io::copy(&mut reader, stream);
        Then::Close
    });
    let balancer = setup().backend(backend.address()).start();
    for version in VERSIONS {
        let mut conn = open(&balancer, version);
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        conn.send(head("GET", "/socket", &upgrade, None));
        conn.read_head("GET").unwrap().expect(101);
        for message in [b"x".to_vec(), pattern(40_000), pattern(17)] {
            conn.send(&message);
            let mut back = Vec::new();
            conn.exactly(message.len() as u64, &mut |bytes| back.extend_from_slice(bytes)).unwrap();
            assert!(back == message, "{} bytes", message.len());
        }
        // Its end passes through, and comes back.
        conn.stream.conn.send_close_notify();
        conn.stream.flush().unwrap();
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed));
    }
    let mut conn = open(&balancer, &rustls::version::TLS13);
    conn.send(head("GET", "/events", &[], None));
    let answer = conn.read_head("GET").unwrap().expect(200);
    let mut seen = Vec::new();
    conn.read_body(answer.framing, &mut |bytes| {
        seen.extend_from_slice(bytes);
        // The second comes after the first was seen.
        if seen == b"data: 1\n\n" {
            gate.open();
        }
    })
    .unwrap();
    assert_eq!(seen, b"data: 1\n\ndata: 2\n\n");
}
