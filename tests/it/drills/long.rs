//! Connections that stay open for long: upgraded ones and streams, how long they may be silent, and how they end with the
//! process.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::farm::Farm;
use super::{is_open, setup};
use crate::support::client::{find, head};
use crate::support::{Backend, Balancer, Conn, Fault, Framing, Gate, Then, until};

/// A backend that upgrades every connection and sends back what it is sent.
pub fn upgrading() -> Backend {
    Backend::raw(|_, stream, _| {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        while find(&bytes, b"\r\n\r\n").is_none() {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
                _ => return Then::Close,
            }
        }
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let _ = stream.write_all(switch);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        Then::Close
    })
}

/// An upgraded connection.
pub fn tunnel(balancer: &Balancer) -> Conn {
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/socket", &[("Connection", "Upgrade"), ("Upgrade", "websocket")], None));
    conn.read_head("GET").unwrap().expect(101);
    conn
}

fn echoes(conn: &mut Conn) {
    conn.send("ping");
    let mut back = Vec::new();
    conn.exactly(4, &mut |bytes| back.extend_from_slice(bytes)).unwrap();
    assert_eq!(back, b"ping");
}

#[test]
fn an_upgraded_connection_ends_by_its_own_silence_and_by_no_other_time_out() {
    let backend = upgrading();
    let balancer = setup()
        .backend(backend.address())
        .set("frontend.tunnel_timeout", json!("1500ms"))
        .set("frontend.idle_timeout", json!("100ms"))
        .set("frontend.body_timeout", json!("100ms"))
        .set("upstream.response_timeout", json!("300ms"))
        .set("upstream.read_timeout", json!("100ms"))
        .start();
    let mut conn = tunnel(&balancer);
    let since = Instant::now();
    until("it has been used for longer than it may be silent", || {
        echoes(&mut conn);
        std::thread::sleep(Duration::from_millis(250));
        (since.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let silent = Instant::now();
    let (bytes, _) = conn.wait_closed();
    assert!(bytes.is_empty(), "{bytes:?}");
    // The last byte came a quarter of a second before.
    assert!(silent.elapsed() > Duration::from_secs(1), "{:?}", silent.elapsed());
    until("the backend's side has ended, too", || (backend.open() == 0).then_some(()));
}

#[test]
fn silence_inside_an_answer_ends_it_and_a_long_answer_does_not() {
    let gate = Gate::default();
    let stop = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while !stop.is_open() {
            if stream.write_all(b"2\r\nhi\r\n").is_err() {
                return Then::Close;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Then::Hang
    });
    let balancer = setup()
        .backend(backend.address())
        .set("upstream.read_timeout", json!("2s"))
        .set("upstream.response_timeout", json!("1s"))
        .start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    let answer = conn.read_head("GET").unwrap().expect(200);
    assert_eq!(answer.framing, Framing::Chunked);
    let (began, mut silent) = (Instant::now(), None);
    let cut = conn.read_body(answer.framing, &mut |_| {
        if began.elapsed() > Duration::from_secs(5) {
            gate.open();
            silent = Some(Instant::now());
        }
    });
    assert!(matches!(cut, Err(Fault::Closed | Fault::Reset)), "{cut:?}");
    let silent = silent.expect("it went on for longer than the time-out").elapsed();
    assert!(silent > Duration::from_millis(1_900), "{silent:?}");
    balancer.proc.wait_err(0, "it is said", |line| line.contains("upstream.read_timeout"));
}

#[test]
fn at_the_end_streams_and_tunnels_have_shutdown_timeout_and_are_cut_and_said() {
    const TIME: Duration = Duration::from_secs(4);
    let (farm, sockets) = (Farm::start(), upgrading());
    for (streams, tunnels) in [(3, 0), (0, 2)] {
        let backend = if streams > 0 { farm.address() } else { sockets.address() };
        let mut balancer = setup().backend(backend).set("shutdown_timeout", json!("4s")).start();
        let mut open: Vec<Conn> = (0..streams)
            .map(|_| {
                let mut conn = Conn::open(balancer.address);
                conn.send(head("GET", "/events", &[], None));
                conn.read_head("GET").unwrap().expect(200);
                conn
            })
            .chain((0..tunnels).map(|_| tunnel(&balancer)))
            .collect();
        let told = Instant::now();
        balancer.proc.signal(Signal::TERM);
        until("it accepts no more", || {
            Conn::try_from("127.0.0.1".parse().unwrap(), balancer.address).is_err().then_some(())
        });
        // Open streams and tunnels go on.
        if streams > 0 {
            farm.send_event("last");
        }
        for conn in &mut open {
            if streams > 0 {
                conn.exactly(b"c\r\ndata: last\n\n\r\n".len() as u64, &mut |_| {}).unwrap();
            } else {
                echoes(conn);
            }
        }
        assert!(open.iter_mut().all(is_open), "{:?} after the signal", told.elapsed());
        let status = balancer.proc.wait();
        assert!(told.elapsed() >= TIME, "{:?}", told.elapsed());
        assert_eq!(status.code(), Some(0), "{}", balancer.proc.story());
        let said = format!("{streams} answers and {tunnels} upgraded connections were cut");
        assert!(balancer.proc.err().contains(&said), "{said}: {}", balancer.proc.err());
        for conn in &mut open {
            let (bytes, fault) = conn.wait_closed();
            assert!(bytes.is_empty(), "no end that looks like one: {bytes:?} {fault:?}");
        }
    }
}

#[test]
fn each_side_of_a_tunnel_ends_by_itself_and_a_reset_ends_both() {
    let backend = upgrading();
    let balancer = setup().backend(backend.address()).start();
    let mut conn = tunnel(&balancer);
    // What was sent before the end comes back behind it.
    conn.send(vec![b'x'; 1 << 20]);
    conn.finish();
    let (bytes, fault) = conn.wait_closed();
    assert_eq!((bytes.len(), fault), (1 << 20, Fault::Closed));
    until("the backend's side has ended, too", || (backend.open() == 0).then_some(()));
    let soonest = (0..5).map(|_| {
        let mut conn = tunnel(&balancer);
        echoes(&mut conn);
        let began = Instant::now();
        conn.reset();
        until("the backend's side has ended", || (backend.open() == 0).then_some(()));
        began.elapsed()
    });
    let soonest = soonest.min().unwrap();
    assert!(soonest < Duration::from_secs(1), "{soonest:?}");
}
