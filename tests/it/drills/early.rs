//! Answers that begin before the body of the request has come, and interim answers (1xx).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::setup;
use crate::support::client::{find, head};
use crate::support::{Backend, Conn, Fault, Framing, Gate, Then, until};

/// More than is read ahead of a backend.
const LARGE: usize = 8 << 20;
const PIECE: usize = 64 * 1024;
/// The machine may be busy with something else: the best of so many counts.
const TRIES: usize = 5;

/// Reads a head and what came behind it.
fn take_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            return Some(bytes.split_off(end + 4));
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

#[test]
fn a_401_reaches_a_client_that_pauses_in_its_upload_within_a_second() {
    for closes in ["", "Connection: close\r\n"] {
        let answer = format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n{closes}Content-Length: 2\r\n\r\nno"
        );
        let backend = Backend::raw(move |_, stream, _| {
            // Nothing of the body is read.
            let Some(_) = take_head(stream) else { return Then::Close };
            let _ = stream.write_all(answer.as_bytes());
            Then::Hang
        });
        let balancer = setup().backend(backend.address()).start();
        let framings = [
            head("POST", "/", &[], Some(LARGE)),
            [head("POST", "/", &[("Transfer-Encoding", "chunked")], None), b"100000\r\n".to_vec()].concat(),
        ];
        for framing in framings {
            let soonest = (0..TRIES).map(|_| {
                let mut conn = Conn::open(balancer.address);
                conn.send(&framing);
                conn.send(vec![b'x'; 2 * PIECE]);
                let paused = Instant::now();
                assert_eq!(conn.read("POST").unwrap().expect(401).text(), "no");
                paused.elapsed()
            });
            let soonest = soonest.min().unwrap();
            assert!(soonest < Duration::from_secs(1), "{closes:?}: {soonest:?}");
        }
        balancer.get("/").expect(401);
    }
}

/// Sends back what comes, as it comes.
fn echoing() -> Backend {
    Backend::raw(|_, stream, _| {
        let Some(rest) = take_head(stream) else { return Then::Close };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        let _ = stream.write_all(&rest);
        let (mut left, mut buffer) = (LARGE - rest.len(), vec![0; PIECE]);
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 && stream.write_all(&buffer[..count]).is_ok() => left -= count,
                _ => return Then::Close,
            }
        }
        Then::Keep
    })
}

#[test]
fn bodies_run_both_ways_at_the_same_time() {
    let backend = echoing();
    let balancer = setup().backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[], Some(LARGE)));
    for number in 0..LARGE / PIECE {
        // The next piece is sent when this one is back.
        let piece: Vec<u8> = (0..PIECE).map(|at| ((at + number) % 251) as u8).collect();
        conn.send(&piece);
        if number == 0 {
            assert_eq!(conn.read_head("POST").unwrap().expect(200).framing, Framing::Length(LARGE as u64));
        }
        let mut back = Vec::new();
        conn.exactly(PIECE as u64, &mut |bytes| back.extend_from_slice(bytes)).unwrap();
        assert!(back == piece, "piece {number}");
    }
}

/// Takes nothing of the body behind the head of its answer until the gate is open, and then all of it.
fn late_reader(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::raw(move |_, stream, _| {
        let Some(rest) = take_head(stream) else { return Then::Close };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        gate.wait();
        let (mut left, mut buffer) = (4 * LARGE - rest.len(), vec![0; PIECE]);
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => left -= count,
                _ => return Then::Close,
            }
        }
        let _ = stream.write_all(b"3\r\nend\r\n0\r\n\r\n");
        Then::Keep
    })
}

#[test]
fn an_upload_that_the_backend_is_slow_to_take_goes_on_behind_its_answers_head() {
    let gate = Gate::default();
    let backend = late_reader(&gate);
    let balancer =
        setup().backend(backend.address()).set("frontend.max_body_bytes", json!(4 * LARGE)).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[], Some(4 * LARGE)));
    let answer = conn.read_head("POST").unwrap().expect(200);
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut sender, count) = (conn.another(), Arc::clone(&sent));
    let sending = std::thread::spawn(move || {
        for _ in 0..4 * LARGE / PIECE {
            sender.send(vec![b'x'; PIECE]);
            count.fetch_add(PIECE, Ordering::SeqCst);
        }
    });
    // Sending stops when every buffer on the way is full.
    until("nothing more is taken", || {
        let before = sent.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        (before > 0 && sent.load(Ordering::SeqCst) == before).then_some(())
    });
    assert!(sent.load(Ordering::SeqCst) < 4 * LARGE, "all of it fits into buffers");
    gate.open();
    let mut text = Vec::new();
    conn.read_body(answer.framing, &mut |bytes| text.extend_from_slice(bytes)).unwrap();
    assert_eq!(text, b"beginend");
    sending.join().unwrap();
}

/// A backend that sends so many interim answers at once, and its own when the gate is open.
fn hinting(count: usize, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |_, stream| {
        for number in 0..count {
            let _ = write!(stream, "HTTP/1.1 103 Early Hints\r\nLink: </{number}.css>; rel=preload\r\n\r\n");
        }
        gate.wait();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    })
}

#[test]
fn hints_come_before_the_answer_to_those_who_know_them() {
    let gate = Gate::default();
    let backend = hinting(2, &gate);
    let balancer = setup().backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(conn.read_interim(), Ok(103), "long before the answer");
    let mut old = Conn::open(balancer.address);
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    until("both are asked", || (backend.seen().len() == 2).then_some(()));
    gate.open();
    let (bytes, fault) = conn.wait_closed();
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    assert_eq!(fault, Fault::Closed);
    assert!(
        text.starts_with(
            "http/1.1 103 early hints\r\nlink: </1.css>; rel=preload\r\n\r\nhttp/1.1 200 ok\r\n"
        ),
        "{text}"
    );
    let (bytes, _) = old.wait_closed();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") || text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(!text.contains("103"), "HTTP/1.0 knows none: {text}");
}

#[test]
fn eight_interim_answers_are_passed_on_and_nine_are_too_many() {
    let gate = Gate::default();
    gate.open();
    let (eight, nine) = (hinting(8, &gate), hinting(9, &gate));
    let balancer = setup().backend(eight.address()).start();
    let mut conn = Conn::open(balancer.address);
    for _ in 0..3 {
        assert_eq!(conn.get("/").expect(200).interim, [103; 8]);
    }
    assert_eq!(eight.connections(), 1, "such a connection is kept");
    setup().backend(nine.address()).start().get("/").problem(502);
}

/// Credentials of NTLM and Negotiate belong to the connection (RFC 4559 §5): no other client's request may be sent on
/// it.
#[test]
fn a_connection_with_credentials_is_one_clients_until_it_ends_and_then_nobodys() {
    for scheme in ["NTLM", "Negotiate", "negotiate abc="] {
        let backend = Backend::scripted(move |seen, stream| {
            let _ = match seen.field("authorization") {
                Some(_) => stream.write_all(crate::support::backend::OK),
                None => write!(
                    stream,
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n"
                ),
            };
            Then::Keep
        });
        // With one loop all kept connections are where any client's request could take them.
        let balancer = setup().one_loop().backend(backend.address()).start();
        let came_on = || backend.seen().pop().map(|seen| seen.connection);
        let credentials = [("Authorization", "Basic x")];
        let mut owner = Conn::open(balancer.address);
        owner.get("/").expect(401);
        assert_eq!(came_on(), Some(0));
        let mut other = Conn::open(balancer.address);
        for _ in 0..5 {
            other.ask("GET", "/", &credentials, b"").expect(200);
            assert_eq!(came_on(), Some(1), "{scheme}: somebody else's connection");
            owner.ask("GET", "/", &credentials, b"").expect(200);
            assert_eq!(came_on(), Some(0), "{scheme}: its own connection");
            owner.ask("POST", "/", &credentials, b"hello").expect(200);
            assert_eq!(came_on(), Some(0), "{scheme}: its own connection, for a POST, too");
        }
        // Some send them without being asked.
        let mut early = Conn::open(balancer.address);
        let unasked = format!("{} token", scheme.split(' ').next().unwrap());
        early.ask("GET", "/", &[("Authorization", &unasked)], b"").expect(200);
        let its_own = came_on();
        for _ in 0..3 {
            Conn::open(balancer.address).ask("GET", "/", &[("Authorization", "Basic x")], b"").expect(200);
            assert_ne!(came_on(), its_own, "{scheme}: sent without being asked");
            early.ask("GET", "/", &[], b"").expect(401);
            assert_eq!(came_on(), its_own, "{scheme}: its own connection");
        }
        drop(early);
        drop(owner);
        until("its connection has ended with it", || (backend.open() == 1).then_some(()));
        assert_eq!(other.ask("GET", "/", &[("Authorization", "Basic x")], b"").status, 200);
        for _ in 0..5 {
            Conn::open(balancer.address).ask("GET", "/", &credentials, b"").expect(200);
            assert_ne!(came_on(), Some(0), "{scheme}");
        }
    }
}
