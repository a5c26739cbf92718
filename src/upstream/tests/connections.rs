//! Which connections are kept, taken again, and thrown away; how a blocked call ends.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::support::*;
use crate::clock::Clock;
use crate::proxy::exchange::Abort;
use crate::proxy::{Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::upstream::UreqUpstream;
use crate::upstream::pool::MAX_IDLE;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_connection_is_kept_whenever_its_answer_ends_by_itself() {
    // Answer, connections that ten requests need.
    let rows = [
        (OK, 1),
        ("HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 1),
        ("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: v\r\n\r\n", 1),
        ("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 1),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 10),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 10),
        // Bytes behind the answer, which nobody asked for.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n", 10),
        ("HTTP/1.1 204 No Content\r\n\r\nx", 10),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            10,
        ),
    ];
    for (answer, connections) in rows {
        let (backend, upstream) = (Backend::answering(answer), upstream());
        for _ in 0..10 {
            assert_ne!(get_body(&upstream, &backend), b"poison");
        }
        assert_eq!(backend.connections(), connections, "{answer:?}");
    }
}

#[test]
fn a_large_answer_of_any_framing_gives_its_connection_back() {
    let body = vec![b'z'; 300_000];
    let known =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(7_001) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for answer in [known, chunked] {
        let (backend, upstream) = (Backend::answering(answer), upstream());
        for _ in 0..3 {
            assert!(get_body(&upstream, &backend) == body);
        }
        assert_eq!(backend.connections(), 1);
    }
}

#[test]
fn bytes_that_come_late_and_unasked_are_never_an_answer() {
    let ((tell, told), (sent, is_sent)) = (crossbeam_channel::bounded(1), crossbeam_channel::bounded(1));
    let backend = Backend::start(move |index, peer| {
        peer.head()?;
        peer.write(OK)?;
        if index == 0 {
            let _ = told.recv_timeout(LONG);
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
            let _ = sent.send(());
        }
        peer.until_closed()
    });
    let upstream = upstream();
    assert_eq!(get_body(&upstream, &backend), b"ok");
    // The connection lies in the pool; over loopback, what was written has arrived.
    tell.send(()).expect("told");
    is_sent.recv_timeout(LONG).expect("sent");
    assert_eq!(get_body(&upstream, &backend), b"ok");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_body_that_is_dropped_before_its_end_closes_its_connection() {
    let (closed, is_closed) = crossbeam_channel::bounded(1);
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")?;
        peer.until_closed()?;
        let _ = closed.send(());
        Ok(())
    });
    let upstream = upstream();
    drop(get(&upstream, &backend).expect("an answer"));
    is_closed.recv_timeout(LONG).expect("closed");
}

/// Closes its first connection when told to, then reports; later ones answer for ever.
fn closing_when_told(told: crossbeam_channel::Receiver<()>, done: crossbeam_channel::Sender<()>) -> Backend {
    Backend::start(move |index, peer| {
        loop {
            peer.head()?;
            peer.write(OK)?;
            if index == 0 {
                let _ = told.recv_timeout(LONG);
                peer.stream.shutdown(std::net::Shutdown::Both)?;
                let _ = done.send(());
                return Ok(());
            }
        }
    })
}

#[test]
fn a_connection_that_the_backend_closed_meanwhile_is_not_taken() {
    let ((tell, told), (done, is_done)) = (crossbeam_channel::bounded(1), crossbeam_channel::bounded(1));
    let (backend, upstream) = (closing_when_told(told, done), upstream());
    get_body(&upstream, &backend);
    tell.send(()).expect("told");
    is_done.recv_timeout(LONG).expect("closed");
    assert_eq!(get_body(&upstream, &backend), b"ok");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_kept_connection_that_breaks_before_any_answer_is_stale_and_a_new_one_is_not() {
    for reset in [false, true] {
        let backend = Backend::start(move |index, peer| {
            if index == 0 {
                peer.head()?;
                peer.write(OK)?;
            }
            peer.head()?;
            if reset {
                peer.reset();
            }
            Ok(())
        });
        let upstream = upstream();
        get_body(&upstream, &backend);
        assert_eq!(phase(get(&upstream, &backend)), Phase::Stale);
        assert_eq!(phase(get(&upstream, &backend)), Phase::Reset, "this one was new");
        // Half a head is an answer, if a bad one.
        let half = Backend::start(|_, peer| {
            peer.head()?;
            peer.write(OK)?;
            peer.head()?;
            peer.write("HTTP/1.1 2")
        });
        get_body(&upstream, &half);
        assert_eq!(phase(get(&upstream, &half)), Phase::Reset);
    }
}

#[test]
fn age_decides_which_connections_are_taken() {
    let ms = Duration::from_millis;
    // Policy, idle for, whether the kept connection is taken. CONTRACT: 4 s, and 1 s for what can't be sent again.
    let rows = [
        (Reuse::Any, ms(0), true),
        (Reuse::Any, ms(3_999), true),
        (Reuse::Any, ms(4_000), false),
        (Reuse::Recent, ms(999), true),
        (Reuse::Recent, ms(1_000), false),
        (Reuse::Never, ms(0), false),
    ];
    for (reuse, idle, taken) in rows {
        let (clock, backend) = (Clock::manual(), Backend::answering(OK));
        let upstream = UreqUpstream::new(&config(), clock.clone());
        get_body(&upstream, &backend);
        clock.advance(idle);
        Request { reuse, ..Request::default() }.send(&upstream, &backend).expect("an answer");
        assert_eq!(backend.connections(), if taken { 1 } else { 2 }, "{reuse:?} after {idle:?}");
    }
}

#[test]
fn old_connections_are_closed_and_endpoints_without_any_are_forgotten() {
    let (closed, is_closed) = crossbeam_channel::bounded(1);
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        peer.write(OK)?;
        peer.until_closed()?;
        let _ = closed.send(());
        Ok(())
    });
    let clock = Clock::manual();
    let upstream = UreqUpstream::new(&config(), clock.clone());
    get_body(&upstream, &backend);
    clock.advance(Duration::from_secs(3));
    upstream.sweep();
    assert_eq!(upstream.pool.stack(backend.endpoint.id).len(), 1);
    clock.advance(Duration::from_secs(2));
    upstream.sweep();
    is_closed.recv_timeout(LONG).expect("closed");
    assert!(upstream.pool.is_empty());
}

#[test]
fn no_more_connections_are_kept_than_the_bound() {
    let (backend, upstream) =
        (Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"), upstream());
    let held: Vec<_> = (0..MAX_IDLE + 10)
        .map(|_| {
            let request = Request { reuse: Reuse::Never, ..Request::default() };
            request.send(&upstream, &backend).expect("an answer")
        })
        .collect();
    held.into_iter().for_each(|mut incoming| drop(read(&mut *incoming.body).expect("whole")));
    assert_eq!(upstream.pool.stack(backend.endpoint.id).len(), MAX_IDLE);
}

#[test]
fn many_threads_get_each_their_own_answer_over_few_connections() {
    const THREADS: usize = 8;
    let backend = Backend::start(|_, peer| {
        loop {
            let head = peer.head()?;
            let target = head.split(' ').nth(1).unwrap_or_default();
            peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()))?;
        }
    });
    let (upstream, barrier) = (upstream(), Barrier::new(THREADS));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (upstream, backend, barrier) = (&upstream, &backend, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..200 {
                    let target = format!("/{thread}/{round}");
                    let request = Request { target: &target, ..Request::default() };
                    let mut incoming = request.send(upstream, backend).expect("an answer");
                    assert_eq!(read(&mut *incoming.body), Ok(target.into_bytes()));
                }
            });
        }
    });
    assert!(backend.connections() <= THREADS, "{} connections", backend.connections());
}

#[test]
fn nobody_listening_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = Endpoint::alone("gone", listener.local_addr().expect("an address"));
    drop(listener);
    let error = plain(&upstream(), &endpoint, &Abort::default()).expect_err("nobody listens");
    assert_eq!(error.phase, Phase::Connect);
    assert!(error.cause.contains(&endpoint.address.to_string()), "{}", error.cause);
}

fn plain(upstream: &UreqUpstream, endpoint: &Arc<Endpoint>, abort: &Abort) -> Result<u16, UpstreamError> {
    let fields = Fields::new();
    let outgoing = Outgoing {
        method: "GET",
        target: "/",
        fields: &fields,
        length: BodyLength::Empty,
        reuse: Reuse::Any,
        deadline: None,
    };
    upstream.send(endpoint, &outgoing, &mut TestBody::none(), abort).map(|incoming| incoming.status)
}

#[test]
fn a_connect_that_hangs_ends_with_its_time_out_or_with_its_client() {
    // A full backlog: the kernel answers no SYN any more.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("bound");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let fill: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, SHORT)).collect();
    assert!(fill.last().is_some_and(Result::is_err), "the backlog is not full");

    let endpoint = Endpoint::alone("full", address);
    let mut patient = config();
    let abort = Abort::default();
    std::thread::scope(|scope| {
        let upstream = UreqUpstream::new(&patient, Clock::real());
        let call = scope.spawn({
            let (endpoint, abort) = (&endpoint, &abort);
            move || plain(&upstream, endpoint, abort)
        });
        std::thread::sleep(SHORT / 3);
        let start = Watch::start();
        abort.cancel();
        assert_eq!(call.join().expect("no panic").expect_err("no answer").phase, Phase::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    });
    patient.connect_timeout = SHORT;
    let upstream = UreqUpstream::new(&patient, Clock::real());
    let error = plain(&upstream, &endpoint, &Abort::default()).expect_err("no answer");
    assert_eq!(error.phase, Phase::ConnectTimedOut);
}

#[test]
fn a_client_that_leaves_ends_its_blocked_call_within_a_second() {
    // One call waits for the head, the other for room to send.
    for bytes in [0, 64 << 20] {
        let reached = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&reached);
        let backend = Backend::start(move |_, peer| {
            peer.head()?;
            flag.store(true, Ordering::SeqCst);
            std::thread::sleep(LONG);
            Ok(())
        });
        let abort = Abort::default();
        std::thread::scope(|scope| {
            let (backend, abort) = (&backend, &abort);
            let call = scope.spawn(move || {
                let length = if bytes == 0 { BodyLength::Empty } else { BodyLength::Known(bytes) };
                let request = Request { method: "POST", length, ..Request::default() };
                let mut body = TestBody::in_memory(&vec![0; bytes as usize]);
                phase(request.send_with(&upstream(), backend, &mut body, abort))
            });
            while !reached.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            std::thread::sleep(SHORT / 3);
            let start = Watch::start();
            abort.cancel();
            assert_eq!(call.join().expect("no panic"), Phase::Cancelled);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        });
        let after = backend.connections();
        assert_eq!(
            phase(Request::default().send_with(&upstream(), &backend, &mut TestBody::none(), &abort)),
            Phase::Cancelled
        );
        assert_eq!(backend.connections(), after, "nothing is opened for a client that has left");
    }
}
