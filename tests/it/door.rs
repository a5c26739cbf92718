//! The front door under siege: slow clients, stuck backends, no descriptors, open streams. Only the `epoll` engine
//! promises these.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Fault;
use crate::support::{Backend, Conn, Engine, Gate, Setup, Then, until};

/// Clients of each kind: 4,000 in all.
const SLOW: usize = 800;

/// A backend that answers `/big/N` with N bytes and everything else with `ok`.
fn sizes() -> Backend {
    Backend::scripted(|seen, stream| {
        let line = seen.request_line();
        let size =
            line.split(' ').nth(1).and_then(|target| target.strip_prefix("/big/")?.parse::<usize>().ok());
        let body = size.map_or_else(|| b"ok".to_vec(), |size| vec![b'x'; size]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = stream.write_all(&[head.as_bytes(), &body].concat());
        if sent.is_ok() { Then::Keep } else { Then::Close }
    })
}

/// A client that reads little: its window is small, so that what it does not take stays with the balancer.
fn narrow(to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    socket.connect(&to.into()).expect("connected");
    socket.into()
}

fn slow_clients(to: SocketAddr) -> Vec<TcpStream> {
    let post = |size: usize| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\nstart");
    let get = |size: usize| format!("GET /big/{size} HTTP/1.1\r\nHost: a\r\n\r\n");
    let kinds =
        ["GET / HTTP/1.1\r\nHost: a\r\nX: ".into(), post(65536), post(4 << 20), get(65536), get(4 << 20)];
    let mut clients = Vec::new();
    for _ in 0..SLOW {
        for kind in &kinds {
            let mut stream = narrow(to);
            stream.write_all(kind.as_bytes()).expect("taken");
            clients.push(stream);
        }
    }
    clients
}

#[test]
fn four_thousand_slow_clients_cost_no_normal_request() {
    let backend = sizes();
    let balancer = Setup::on(Engine::Epoll)
        .backend(backend.address())
        .set("frontend.workers", json!(64))
        .set("frontend.max_connections_per_ip", json!(20000))
        .start();
    let slow = Arc::new(Mutex::new(slow_clients(balancer.address)));
    let over = Arc::new(AtomicBool::new(false));
    // They stay at it: a byte each now and then, which is too slow for everybody's bounds.
    let (clients, is_over) = (Arc::clone(&slow), Arc::clone(&over));
    let trickle = std::thread::spawn(move || {
        while !is_over.load(Ordering::SeqCst) {
            for (kind, stream) in clients.lock().expect("whole").iter_mut().enumerate() {
                // Those that the balancer has ended fail; that is its right.
                let _ = if kind % 5 < 3 { stream.write(b"x") } else { stream.read(&mut [0]) };
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let started = Instant::now();
    let mut conn = Conn::open(balancer.address);
    let mut served = 0;
    while served < 300 || started.elapsed() < Duration::from_secs(3) {
        assert_eq!(conn.get("/").expect(200).text(), "ok");
        assert_eq!(Conn::open(balancer.address).get("/").expect(200).text(), "ok");
        let answer = Conn::open(balancer.address).ask("POST", "/", &[], &[b'x'; 2000]);
        assert_eq!(answer.expect(200).text(), "ok");
        served += 3;
    }
    over.store(true, Ordering::SeqCst);
    trickle.join().expect("the slow ones end");
}

#[test]
fn with_every_worker_at_a_hung_backend_the_door_is_answered() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        held.wait();
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let balancer = Setup::on(Engine::Epoll)
        .backend(backend.address())
        .set("frontend.workers", json!(8))
        .set("frontend.worker_wait", json!("300ms"))
        .set("frontend.head_timeout", json!("1s"))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let mut stuck: Vec<Conn> = (0..8)
        .map(|_| {
            let mut conn = Conn::open(balancer.address);
            conn.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            conn
        })
        .collect();
    until("all are at the backend", || (backend.seen().len() == 8).then_some(()));
    for _ in 0..3 {
        let refused = balancer.get("/").expect(503);
        assert!(refused.field("retry-after").is_some(), "{refused:?}");
        balancer.get("/-/livez").expect(200);
        crate::support::request(balancer.admin, "GET", "/limits", &[], b"").expect(200);
    }
    let mut late = Conn::open(balancer.address);
    late.send("GET / HTTP/1.1\r\n");
    assert_eq!(late.read("GET").expect("an answer").status, 408, "deadlines are kept");
    gate.open();
    for conn in &mut stuck {
        conn.read("GET").expect("an answer").expect(200);
    }
    balancer.get("/").expect(200);
}

#[test]
fn two_thousand_event_streams_hold_no_worker() {
    const STREAMS: usize = 2000;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let open = Arc::new(Mutex::new(Vec::new()));
    let streams = Arc::clone(&open);
    // One thread that never reads on: it answers every request with the beginning of a stream.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 2048];
            let count = stream.read(&mut request).unwrap_or(0);
            if request[..count].starts_with(b"GET /quick") {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                continue;
            }
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            streams.lock().expect("whole").push(stream);
        }
    });
    let balancer = Setup::on(Engine::Epoll)
        .backend(address)
        .set("frontend.workers", json!(64))
        .set("frontend.max_connections_per_ip", json!(20000))
        .start();
    let mut clients: Vec<Conn> = (0..STREAMS)
        .map(|_| {
            let mut conn = Conn::open(balancer.address);
            conn.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
            conn
        })
        .collect();
    for conn in &mut clients {
        conn.read_head("GET").expect("a head at once");
    }
    for _ in 0..100 {
        assert_eq!(balancer.get("/quick").expect(200).text(), "ok");
    }
    for stream in open.lock().expect("whole").iter_mut() {
        stream.write_all(b"5\r\ntick\n\r\n").expect("open");
    }
    for conn in &mut clients {
        let mut got = Vec::new();
        conn.exactly(10, &mut |bytes| got.extend_from_slice(bytes)).expect("flushed");
        assert_eq!(got, b"5\r\ntick\n\r\n");
    }
    assert_eq!(balancer.get("/quick").expect(200).text(), "ok");
}

#[test]
fn without_descriptors_it_serves_who_is_there_and_recovers_by_itself() {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(Engine::Epoll).backend(backend.address()).set("frontend.workers", json!(16)).start();
    let mut kept = Conn::open(balancer.address);
    kept.get("/").expect(200);
    let pid = rustix::process::Pid::from_raw(i32::try_from(balancer.proc.pid()).expect("small"))
        .expect("a process");
    let open = std::fs::read_dir(format!("/proc/{}/fd", balancer.proc.pid()))
        .expect("its descriptors")
        .count() as u64;
    let limit = |files| rustix::process::Rlimit { current: Some(files), maximum: Some(20000) };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit(open + 10))
        .expect("lowered");
    // More than fit; the kernel completes them all, whoever accepts.
    let mut crowd: Vec<Conn> = (0..40)
        .map(|_| {
            let mut conn = Conn::open(balancer.address);
            conn.send("GET / HTTP/1.1\r\nHo");
            conn
        })
        .collect();
    until("it says so", || balancer.proc.err().contains("no new connections for now").then_some(()));
    // Not the kept one's fault; but it may have been closed to make room.
    kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    match kept.read("GET") {
        Ok(answer) => drop(answer.expect(200)),
        Err(fault) => assert!(matches!(fault, Fault::Closed | Fault::Reset), "{fault:?}"),
    }
    let used = Instant::now();
    crowd.clear();
    until("it recovers by itself", || {
        let mut conn = Conn::open(balancer.address);
        conn.wait_at_most(Duration::from_millis(300));
        conn.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        conn.read("GET").is_ok_and(|answer| answer.status == 200).then_some(())
    });
    assert!(used.elapsed() < Duration::from_secs(10), "soon after there is room again");
}

#[test]
fn a_half_closed_client_is_answered_and_a_gone_one_frees_its_backend() {
    let gate = Gate::default();
    let held = gate.clone();
    let (freed, when_freed) = std::sync::mpsc::channel();
    let freed = Mutex::new(freed);
    let backend = Backend::scripted(move |seen, stream| {
        if seen.request_line().starts_with("GET /gone") {
            // No answer: what ends the wait is the balancer closing its side.
            let end = stream.read(&mut [0]);
            let _ = freed.lock().expect("whole").send(matches!(end, Ok(0) | Err(_)));
            return Then::Close;
        }
        held.wait();
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let balancer = Setup::on(Engine::Epoll).backend(backend.address()).start();
    let mut half = Conn::open(balancer.address);
    half.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    half.finish();
    let mut gone = Conn::open(balancer.address);
    gone.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    until("both are at the backend", || (backend.seen().len() == 2).then_some(()));
    gone.reset();
    // A second, and what a busy machine adds to it.
    assert_eq!(when_freed.recv_timeout(Duration::from_secs(3)), Ok(true), "within about a second");
    gate.open();
    assert_eq!(half.read("GET").expect("answered").expect(200).text(), "ok");
}
