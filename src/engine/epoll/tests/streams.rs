//! Answers that arrive while they are sent: parked on the backend, cut, abandoned.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;

use super::parts::{Outcomes, Socket, Told, pair, read_head};
use super::{Door, PATIENCE, config, echo, get, read_answer, read_to_end, until};
use crate::proxy::exchange::{Answer, AnswerBody, Delivery, Registration};
use balancer_http::message::BodyLength;

/// An engine whose every answer streams from a socket of [`Backends`].
struct Backends {
    ours: Arc<Mutex<Vec<TcpStream>>>,
    outcomes: Outcomes,
}

impl Backends {
    fn door(
        config: &crate::config::Frontend,
        length: BodyLength,
        silence: Duration,
        breaks: bool,
    ) -> (Door, Self) {
        let ours = Arc::new(Mutex::new(Vec::new()));
        let outcomes = Outcomes::default();
        let (held, told) = (ours.clone(), outcomes.clone());
        let door = Door::open(config, move |exchange| {
            if exchange.head.target == "/quick" {
                return echo(exchange);
            }
            let (near, stream) = pair();
            held.lock().push(near);
            let mut answer = Answer::new(200, Vec::new());
            answer.body = AnswerBody::Stream(
                length,
                Box::new(Socket { stream, silence, breaks, registration: Registration::default() }),
            );
            answer.ticket = Some(Box::new(Told(told.clone())));
            answer
        });
        (door, Self { ours, outcomes })
    }

    fn outcome(&self) -> (u64, Delivery) {
        until("the ticket is settled", || !self.outcomes.lock().is_empty());
        self.outcomes.lock().remove(0)
    }
}

#[test]
fn event_streams_hold_no_worker_and_are_flushed_as_they_come() {
    let few = crate::config::Frontend { workers: Some(2), ..config() };
    let (door, backends) = Backends::door(&few, BodyLength::UntilClose, PATIENCE, false);
    let mut clients: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = door.connect();
            stream.write_all(&get("/events")).expect("sent");
            // The head comes before any byte of the body.
            assert!(read_head(&mut stream).contains("\r\nTransfer-Encoding: chunked\r\n"));
            stream
        })
        .collect();
    door.until("all parked", |stats| stats.parked == 100 && stats.workers_busy == 0);
    assert!(door.ask(b"GET /quick HTTP/1.0\r\n\r\n").ends_with("GET /quick "));
    for round in 0..3 {
        for ours in backends.ours.lock().iter_mut() {
            ours.write_all(format!("data: {round}\n").as_bytes()).expect("sent");
        }
        for stream in &mut clients {
            let mut chunk = [0; 13];
            stream.read_exact(&mut chunk).expect("flushed");
            assert_eq!(String::from_utf8_lossy(&chunk), format!("8\r\ndata: {round}\n\r\n")[..13]);
        }
    }
    backends.ours.lock().clear();
    for stream in &mut clients {
        let mut end = [0; 5];
        stream.read_exact(&mut end).expect("the last chunk");
        assert_eq!(&end, b"0\r\n\r\n");
        stream.write_all(b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("kept");
        assert!(read_to_end(stream).ends_with("GET /quick "));
    }
    until("all settled", || backends.outcomes.lock().len() == 100);
    assert!(backends.outcomes.lock().iter().all(|outcome| *outcome == (24, Delivery::Complete)));
}

#[test]
fn a_request_that_was_pipelined_behind_a_parked_answer_is_answered_after_it() {
    let (door, backends) = Backends::door(&config(), BodyLength::Known(5), PATIENCE, false);
    let mut stream = door.connect();
    stream.write_all(&[get("/slow"), get("/quick")].concat()).expect("sent");
    door.until("parked", |stats| stats.parked == 1);
    backends.ours.lock()[0].write_all(b"hello").expect("sent");
    backends.ours.lock().clear();
    assert_eq!(read_answer(&mut stream).1, "hello");
    assert_eq!(read_answer(&mut stream).1, "GET /quick ");
    assert_eq!(backends.outcome(), (5, Delivery::Complete));
}

#[test]
fn a_cut_body_is_a_broken_answer_however_it_is_framed() {
    for (length, request) in [
        (BodyLength::Known(10), &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        (BodyLength::Chunked, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (BodyLength::UntilClose, b"GET / HTTP/1.0\r\n\r\n"),
    ] {
        let (door, backends) = Backends::door(&config(), length, PATIENCE, true);
        let mut stream = door.connect();
        stream.write_all(request).expect("sent");
        read_head(&mut stream);
        backends.ours.lock()[0].write_all(b"part").expect("sent");
        let mut start = [0; 4];
        stream.read_exact(&mut start).expect("what came");
        backends.ours.lock().clear();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        assert!(!rest.windows(5).any(|window| window == b"0\r\n\r\n"), "{length:?}: no last chunk");
        // Without a length the only sign is a reset.
        assert!(end.is_err() || length != BodyLength::UntilClose, "{length:?}");
        assert_eq!(backends.outcome(), (4, Delivery::BackendBroke("cut".into())), "{length:?}");
    }
}

#[test]
fn a_body_shorter_or_longer_than_declared_is_broken() {
    for (declared, sent) in [(10, 5), (5, 10)] {
        let (door, backends) = Backends::door(&config(), BodyLength::Known(declared), PATIENCE, false);
        let mut stream = door.connect();
        stream.write_all(&get("/")).expect("sent");
        until("called", || !backends.ours.lock().is_empty());
        backends.ours.lock().remove(0).write_all(&[b'x'; 10][..sent]).expect("sent");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(matches!(backends.outcome(), (_, Delivery::BackendBroke(_))), "{declared} {sent}");
    }
}

#[test]
fn a_backend_that_falls_silent_is_given_up() {
    let (door, backends) =
        Backends::door(&config(), BodyLength::Known(10), Duration::from_millis(200), false);
    let mut stream = door.connect();
    stream.write_all(&get("/")).expect("sent");
    read_head(&mut stream);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert!(matches!(backends.outcome(), (0, Delivery::BackendBroke(cause)) if cause.contains("silent")));
}

#[test]
fn a_reset_while_parked_on_the_backend_frees_it_within_a_second() {
    let (door, backends) = Backends::door(&config(), BodyLength::Chunked, PATIENCE, false);
    let mut stream = door.connect();
    stream.write_all(&get("/")).expect("sent");
    read_head(&mut stream);
    door.until("parked", |stats| stats.parked == 1);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
    let mut ours = backends.ours.lock().remove(0);
    ours.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    assert!(matches!(ours.read(&mut [0]), Ok(0)), "the backend's connection is closed within a second");
    assert_eq!(backends.outcome(), (0, Delivery::ClientGone));
}

#[test]
fn a_half_close_while_parked_is_answered_unless_the_configuration_says_otherwise() {
    for abort_on_close in [false, true] {
        let option = crate::config::Frontend { abort_on_close, ..config() };
        let (door, backends) = Backends::door(&option, BodyLength::Known(2), PATIENCE, false);
        let mut stream = door.connect();
        stream.write_all(&get("/")).expect("sent");
        read_head(&mut stream);
        super::half_close(&stream);
        if abort_on_close {
            assert_eq!(backends.outcome(), (0, Delivery::ClientGone));
        } else {
            backends.ours.lock()[0].write_all(b"ok").expect("sent");
            backends.ours.lock().clear();
            assert_eq!(read_to_end(&mut stream), "ok");
        }
    }
}

#[test]
fn a_reset_during_a_backend_call_cancels_it_within_a_second() {
    let (called, cancelled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_called, is_cancelled) = (called.clone(), cancelled.clone());
    let door = Door::open(&config(), move |exchange| {
        let (mut near, far) = pair();
        let far = Arc::new(far);
        exchange.abort.calling(7);
        exchange.abort.watch(&far);
        is_called.store(true, Ordering::SeqCst);
        // What a backend call does: wait for an answer that does not come.
        let ended = near.read(&mut [0]);
        exchange.abort.release();
        is_cancelled.store(matches!(ended, Ok(0)) && exchange.abort.cancelled(), Ordering::SeqCst);
        Answer::new(200, Vec::new())
    });
    let mut stream = door.connect();
    stream.write_all(&get("/")).expect("sent");
    until("called", || called.load(Ordering::SeqCst));
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    let left = std::time::Duration::from_secs(1);
    drop(stream);
    std::thread::sleep(left);
    assert!(cancelled.load(Ordering::SeqCst));
}
