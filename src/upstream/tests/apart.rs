//! Requests that are sent, and whose answers are read later.

use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, poll};

use super::support::*;
use crate::proxy::exchange::Abort;
use crate::proxy::{Awaited, Begun, Incoming, Outgoing, Phase, Read, Reuse, Upstream, UpstreamError};
use crate::upstream::UreqUpstream;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;

fn begin(upstream: &UreqUpstream, backend: &Backend) -> Box<dyn Awaited> {
    begin_with(upstream, backend, ("GET", BodyLength::Empty), TestBody::none())
}

fn begin_with(
    upstream: &UreqUpstream,
    backend: &Backend,
    (method, length): (&str, BodyLength),
    mut body: TestBody,
) -> Box<dyn Awaited> {
    let mut fields = Fields::new();
    fields.push("Host", b"h");
    let outgoing =
        Outgoing { method, target: "/", fields: &fields, length, reuse: Reuse::Any, deadline: None };
    match upstream.begin(&backend.endpoint, &outgoing, &mut body, &Abort::default()).expect("sent") {
        Begun::Sent(awaited) => awaited,
        Begun::Answered(_) => panic!("answered before it was sent"),
    }
}

fn until_readable(awaited: &dyn Awaited) {
    let socket = awaited.socket().socket;
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    assert_eq!(poll(&mut fds, None), Ok(1));
}

/// Reads whenever something comes; also how often that was not enough.
fn read_on(mut awaited: Box<dyn Awaited>) -> (Result<Incoming, UpstreamError>, usize) {
    let mut later = 0;
    loop {
        until_readable(&*awaited);
        match awaited.read() {
            Ok(Read::Head(incoming)) => return (Ok(incoming), later),
            Ok(Read::Later(same)) => (awaited, later) = (same, later + 1),
            Err(error) => return (Err(error), later),
        }
    }
}

#[test]
fn an_answer_is_read_when_it_has_come_and_its_connection_is_kept() {
    let (say, said) = mpsc::channel::<()>();
    let said = std::sync::Mutex::new(said);
    let backend = Backend::start(move |_, peer| {
        loop {
            peer.head()?;
            let _ = said.lock().map(|said| said.recv());
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let upstream = upstream();
    for _ in 0..3 {
        let awaited = begin(&upstream, &backend);
        let Ok(Read::Later(awaited)) = awaited.read() else { panic!("nothing was said yet") };
        say.send(()).expect("the backend runs");
        let mut incoming = read_on(awaited).0.expect("an answer");
        assert_eq!((incoming.status, read(&mut *incoming.body).expect("whole")), (200, b"ok".to_vec()));
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_head_may_come_in_pieces_and_behind_interim_ones() {
    let (step, steps) = mpsc::channel::<()>();
    let steps = std::sync::Mutex::new(steps);
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        for piece in ["HTTP/1.1 103 Early Hints\r\n\r\nHTT", "P/1.1 204 No", " Content\r\n", "X: y\r\n\r\n"] {
            peer.write(piece)?;
            let _ = steps.lock().map(|steps| steps.recv());
        }
        peer.until_closed()
    });
    let mut awaited = begin(&upstream(), &backend);
    for _ in 0..3 {
        until_readable(&*awaited);
        let Ok(Read::Later(same)) = awaited.read() else { panic!("not yet whole") };
        awaited = same;
        step.send(()).expect("the backend runs");
    }
    let incoming = read_on(awaited).0.expect("an answer");
    assert_eq!((incoming.status, incoming.fields.get("x")), (204, Some(&b"y"[..])));
}

#[test]
fn what_is_no_answer_is_told_apart() {
    type Row = (&'static str, fn(&mut Peer) -> std::io::Result<()>, Phase);
    let table: [Row; 4] = [
        ("closed", |_| Ok(()), Phase::Reset),
        ("reset", reset, Phase::Reset),
        ("cut", |peer| peer.write("HTTP/1.1 200 OK\r\nX"), Phase::Reset),
        ("broken", |peer| peer.write("HTTP/1.1 200 OK\nX"), Phase::Malformed),
    ];
    for (name, answer, phase) in table {
        let backend = Backend::start(move |_, peer| {
            peer.head()?;
            answer(peer)
        });
        let error = read_on(begin(&upstream(), &backend)).0.map(|_| ()).expect_err(name);
        assert_eq!(error.phase, phase, "{name}: {}", error.cause);
        assert!(error.cause.starts_with(&backend.endpoint.address.to_string()), "{}", error.cause);
    }
}

#[test]
fn a_kept_connection_that_breaks_is_stale() {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        peer.head().map(drop)
    });
    let upstream = upstream();
    get(&upstream, &backend).expect("an answer");
    let error = read_on(begin(&upstream, &backend)).0.map(|_| ()).expect_err("closed");
    assert_eq!(error.phase, Phase::Stale, "{}", error.cause);
}

#[test]
fn an_answer_may_be_too_late_and_nobody_may_want_it() {
    let (closed, was_closed) = mpsc::channel();
    let closed = std::sync::Mutex::new(closed);
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        peer.until_closed()?;
        let _ = closed.lock().map(|closed| closed.send(()));
        Ok(())
    });
    let upstream = impatient();
    let awaited = begin(&upstream, &backend);
    let Ok(Read::Later(awaited)) = awaited.read() else { panic!("there is time") };
    std::thread::sleep(SHORT);
    let error = awaited.read().map(|_| ()).expect_err("late");
    assert_eq!(error.phase, Phase::TimedOut, "{}", error.cause);
    was_closed.recv_timeout(LONG).expect("the connection was given up");
    drop(begin(&upstream, &backend));
    was_closed.recv_timeout(LONG).expect("and that of one that is dropped");
}

fn reset(peer: &mut Peer) -> std::io::Result<()> {
    peer.reset();
    Ok(())
}

#[test]
fn an_answer_that_begins_while_a_large_body_is_sent_is_whole() {
    // More than the kernel takes: it is still being sent when the answer begins.
    let body = vec![b'x'; 16 << 20];
    let length = body.len();
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Le")?;
        peer.exactly(length)?;
        peer.write("ngth: 2\r\n\r\nok")?;
        peer.until_closed()
    });
    let put = ("PUT", BodyLength::Known(length as u64));
    let awaited = begin_with(&upstream(), &backend, put, TestBody::in_memory(&body));
    let mut incoming = read_on(awaited).0.expect("an answer");
    assert_eq!((incoming.status, read(&mut *incoming.body).expect("whole")), (200, b"ok".to_vec()));
}
