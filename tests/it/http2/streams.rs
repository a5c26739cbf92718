//! Streams: each is a request of its own, with the bounds and the ends that a connection has.

use std::io::{Error, ErrorKind, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::cases::ACK;
use super::{setup, until_empty};
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, REFUSED_STREAM, RESET,
    SETTINGS, WINDOW_UPDATE, fields, frame, get,
};
use crate::support::{Backend, Conn, Gate, Then, until};

/// Waits at a gate before it answers, or until the connection is closed.
fn gated() -> (Backend, Gate) {
    let gate = Gate::default();
    let own = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
        while !own.is_open() {
            let is_silent =
                |error: Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            if !stream.peek(&mut [0]).is_err_and(is_silent) {
                return Then::Close;
            }
        }
        let _ = stream.set_read_timeout(None);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    });
    (backend, gate)
}

fn post(path: &str) -> Vec<u8> {
    fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", path)])
}

#[test]
fn a_reset_gives_the_backends_place_back_at_once() {
    let (backend, gate) = gated();
    let balancer = setup().backend(backend.address()).set("balancing.max_in_flight", json!(1)).start();
    let frames = Frames::open(balancer.address);
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/a", &[])));
    until("it is with the backend", || (backend.seen().len() == 1).then_some(()));
    frames.send(&frame(RESET, 0, 1, &8u32.to_be_bytes()));
    until("the backend's connection is closed", || (backend.open() == 0).then_some(()));
    gate.open();
    assert_eq!(frames.ask(3, &get("/b", &[])), Ok(200));
}

/// More than one read takes, of which nothing more comes later.
#[test]
fn what_comes_with_the_preface_is_read_whole() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let data = |flags| frame(DATA, flags, 1, &[b'x'; 16_384]);
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &post("/"))].concat();
    let whole = [begin, data(0), data(0), data(END_STREAM)].concat();
    for _ in 0..20 {
        let frames = Frames::silent(balancer.address);
        frames.send(&whole);
        assert_eq!(frames.status(), Ok(200));
        assert_eq!(backend.seen().last().expect("a request").body.len(), 3 * 16_384);
    }
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let (slow, gate) = gated();
    let balancer = setup().backend(slow.address()).start();
    let frames = Frames::open(balancer.address);
    for id in (1..100).step_by(2) {
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/slow", &[])));
    }
    until("all are with the backend", || (slow.seen().len() == 50).then_some(()));
    // Answered by us.
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 101, &get("/-/livez", &[])));
    assert_eq!(frames.wait(HEADERS).stream, 101);
    gate.open();
    let mut answered: Vec<u32> = (0..50).map(|_| frames.wait(HEADERS).stream).collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..100).step_by(2).collect::<Vec<_>>());
    drop(frames);
    until_empty(&balancer);
}

#[test]
fn more_streams_than_a_connection_may_have_are_refused() {
    let (backend, gate) = gated();
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    for n in 0..101 {
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/", &[])));
    }
    let refused = frames.wait(RESET);
    assert_eq!((refused.stream, refused.error()), (201, REFUSED_STREAM));
    gate.open();
}

#[test]
fn streams_count_as_connections_of_their_address() {
    let (backend, gate) = gated();
    let balancer =
        setup().backend(backend.address()).set("frontend.max_connections_per_ip", json!(4)).start();
    let frames = Frames::open(balancer.address);
    for n in 0..4 {
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/", &[])));
    }
    let refused = frames.wait(RESET);
    assert_eq!((refused.stream, refused.error()), (7, REFUSED_STREAM));
    gate.open();
}

#[test]
fn a_body_comes_through_in_both_directions() {
    let backend = Backend::scripted(|seen, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in seen.body.chunks(10_000) {
            let _ = write!(stream, "{:x}\r\n", piece.len());
            let _ = stream.write_all(piece);
            let _ = stream.write_all(b"\r\n");
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).start();
    let body: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    for length in [None, Some(body.len().to_string())] {
        let frames = Frames::open(balancer.address);
        let mut head = post("/echo");
        if let Some(length) = &length {
            head.extend(fields(&[("content-length", length)]));
        }
        frames.send(&frame(HEADERS, END_HEADERS, 1, &head));
        for (n, piece) in body.chunks(7_000).enumerate() {
            let is_last = (n + 1) * 7_000 >= body.len();
            frames.send(&frame(DATA, if is_last { END_STREAM } else { 0 }, 1, piece));
        }
        assert_eq!(frames.wait(HEADERS).status(), 200);
        let mut came: Vec<u8> = Vec::new();
        loop {
            let next = frames.wait(DATA);
            came.extend(&next.payload);
            if next.flags & END_STREAM != 0 {
                break;
            }
        }
        assert!(came == body, "{} bytes of {}", came.len(), body.len());
        let seen = backend.seen().pop().expect("it came");
        assert_eq!(seen.field("content-length"), length);
    }
}

#[test]
fn a_body_may_end_with_a_frame_of_nothing() {
    let backend = Backend::scripted(|seen, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        let _ = stream.write_all(&seen.body);
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).start();
    for pieces in [&[&b"hello"[..]][..], &[], &[b"he", b"", b"llo"]] {
        let body = pieces.concat();
        for length in [Vec::new(), fields(&[("content-length", &body.len().to_string())])] {
            let frames = Frames::open(balancer.address);
            frames.send(&frame(HEADERS, END_HEADERS, 1, &[post("/"), length].concat()));
            for piece in pieces {
                frames.send(&frame(DATA, 0, 1, piece));
            }
            frames.send(&frame(DATA, END_STREAM, 1, &[]));
            assert_eq!(frames.wait(HEADERS).status(), 200);
            assert_eq!(backend.seen().last().expect("it came").body, body);
        }
    }
}

/// If they were not, the crate `h2` would reset the stream instead of answering.
#[test]
fn fields_of_a_connection_are_left_out() {
    let answer = "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Keep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::answering(answer);
    let balancer = setup().backend(backend.address()).start();
    assert_eq!(Frames::open(balancer.address).ask(1, &get("/", &[])), Ok(426));
}

#[test]
fn at_the_bound_an_idle_connection_makes_room_for_a_request() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup()
        .one_loop()
        .backend(backend.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("frontend.max_connections", json!(3))
        .start();
    let mut idle: Vec<Conn> = (0..2).map(|_| Conn::open(balancer.address)).collect();
    idle.iter_mut().for_each(|conn| drop(conn.get("/").expect(200)));
    let frames = Frames::open(balancer.address);
    assert_eq!(frames.ask(1, &get("/", &[])), Ok(200));
    assert_eq!(frames.ask(3, &get("/", &[])), Ok(200));
}

#[test]
fn requests_may_end_behind_their_answers() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    let head = [post("/"), fields(&[("content-length", "3")])].concat();
    for round in 0..5u32 {
        let ids = || (0..90).map(move |n| 2 * (90 * round + n) + 1);
        for id in ids() {
            frames.send(&[frame(HEADERS, END_HEADERS, id, &head), frame(DATA, 0, id, b"abc")].concat());
        }
        let mut whole = 0;
        while whole < 90 {
            let next = frames.next().expect("the connection lives");
            assert!(!matches!(next.kind, RESET | GOAWAY), "{next:?}");
            whole += usize::from(next.kind == DATA && next.flags & END_STREAM != 0);
        }
        // Most clients send this when they need no more of a body, whatever length was declared.
        for id in ids() {
            frames.send(&frame(DATA, END_STREAM, id, b""));
        }
    }
    assert_eq!(frames.ask(1_001, &get("/", &[])), Ok(200));
    drop(frames);
    until_empty(&balancer);
}

#[test]
fn an_answer_waits_for_the_window_and_a_client_that_opens_none_is_reset() {
    const BODY: usize = 8 << 20;
    let backend = Backend::scripted(|_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; BODY]);
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).set("frontend.write_timeout", json!("2s")).start();
    balancer.get("/").expect(200);
    let before = balancer.proc.rss_kib();
    let frames = Frames::open(balancer.address);
    for id in (1..60).step_by(2) {
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/", &[])));
    }
    // The first window of the connection is used up; nothing more comes.
    let mut came = 0;
    let mut resets = 0;
    while resets < 30 {
        let next = frames.next().expect("the connection lives");
        match next.kind {
            DATA => came += next.payload.len(),
            RESET => resets += 1,
            _ => {}
        }
    }
    assert_eq!(came, 65_535);
    let grown = balancer.proc.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more for 30 answers of {BODY} bytes");
    // With a window it goes on.
    frames.send(&frame(WINDOW_UPDATE, 0, 0, &(100u32 << 20).to_be_bytes()));
    frames.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 61, &get("/", &[])));
    let mut came = 0;
    while came < BODY {
        let next = frames.wait(DATA);
        came += if next.stream == 61 { next.payload.len() } else { 0 };
    }
}

#[test]
fn a_broken_answer_is_a_reset() {
    let gate = Gate::default();
    let own = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
        own.wait();
        Then::Close
    });
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    assert_eq!(frames.ask(1, &get("/", &[])), Ok(200));
    assert_eq!(frames.wait(DATA).payload, b"short");
    gate.open();
    assert_eq!(frames.wait(RESET).stream, 1);
    assert_eq!(frames.ask(3, &get("/-/livez", &[])), Ok(200));
}

#[test]
fn a_client_that_leaves_takes_all_its_requests_with_it() {
    let (backend, gate) = gated();
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    for id in (1..40).step_by(2) {
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/", &[])));
    }
    until("all are with the backend", || (backend.seen().len() == 20).then_some(()));
    drop(frames);
    until("the backend's connections are closed", || (backend.open() == 0).then_some(()));
    until_empty(&balancer);
    gate.open();
}

#[test]
fn at_the_end_requests_are_answered_and_new_ones_are_not_taken() {
    let (backend, gate) = gated();
    let mut balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/", &[])));
    until("it is with the backend", || (backend.seen().len() == 1).then_some(()));
    balancer.proc.signal(Signal::TERM);
    assert_eq!(frames.wait(GOAWAY).error(), NO_ERROR);
    // Requests that were on their way are still taken, up to the answer to this (RFC 9113 §6.8).
    let ping = frames.wait(PING);
    frames.send(&frame(PING, ACK, 0, &ping.payload));
    let last = frames.wait(GOAWAY);
    assert_eq!((last.error(), &last.payload[..4]), (NO_ERROR, &1u32.to_be_bytes()[..]));
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &get("/late", &[])));
    gate.open();
    assert_eq!(frames.wait(HEADERS).status(), 200);
    drop(frames);
    assert!(balancer.proc.wait().success());
    assert_eq!(backend.only().request_line(), "GET / HTTP/1.1");
}

#[test]
fn idle_connections_end_in_good_manners() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup()
        .backend(backend.address())
        .set("frontend.idle_timeout", json!("1s"))
        .set("frontend.head_timeout", json!("1s"))
        .start();
    let begun = Instant::now();
    let (used, never) = (Frames::open(balancer.address), Frames::open(balancer.address));
    assert_eq!(used.ask(1, &get("/", &[])), Ok(200));
    assert_eq!(used.end(), Some(NO_ERROR));
    assert_eq!(never.end(), Some(NO_ERROR));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    until_empty(&balancer);
}
