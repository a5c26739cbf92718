//! What becomes of answers: well-formed, broken, cut, slow, early.

use std::time::Duration;

use super::support::*;
use crate::clock::Clock;
use crate::config::UpstreamConfig;
use crate::proxy::exchange::{Abort, Pull, RequestBody, Wait};
use crate::proxy::{Incoming, Phase, UpstreamError};
use crate::upstream::UreqUpstream;
use balancer_http::message::BodyLength;

/// A backend that answers the first request of each connection with `answer` and closes it.
fn closing_after(answer: impl Into<Vec<u8>>) -> Backend {
    let answer = answer.into();
    Backend::start(move |_, peer| {
        peer.head()?;
        peer.write(&answer)
    })
}

#[test]
fn answers_arrive_with_reason_fields_and_body() {
    use BodyLength::{Chunked, Empty, Known, UntilClose};
    // Wire, status, reason, declared length, body. The connection ends behind each.
    type Row<'a> = (&'a [u8], u16, &'a [u8], BodyLength, &'a [u8]);
    let rows: &[Row<'_>] = &[
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"OK", Known(5), b"hello"),
        (b"HTTP/1.1 500 Kaputt \xe4\r\nContent-Length: 0\r\n\r\n", 500, b"Kaputt \xe4", Empty, b""),
        (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n", 200, b"", Chunked, b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b"OK", Chunked, b""),
        (b"HTTP/1.1 200 OK\r\n\r\nhello, whoever reads this to its end", 200, b"OK", UntilClose, b"hello, whoever reads this to its end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", 200, b"OK", UntilClose, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"No Content", Empty, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"Not Modified", Known(5), b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"OK", Known(2), b"hi"),
    ];
    for (wire, status, reason, length, body) in rows {
        let text = wire.escape_ascii().to_string();
        let mut incoming = get(&upstream(), &closing_after(*wire)).expect(&text);
        assert_eq!(
            (incoming.status, &incoming.reason[..], incoming.length),
            (*status, *reason, *length),
            "{text}"
        );
        assert_eq!(read(&mut *incoming.body), Ok(body.to_vec()), "{text}");
        assert_eq!(incoming.body.pull(&mut [0; 9], Wait::Poll), Pull::End, "{text}: the end stays the end");
        assert!(incoming.body.socket().is_none(), "{text}: nothing is left to wait for");
    }
}

#[test]
fn answers_to_head_have_no_body_whatever_they_declare() {
    for (declared, length) in [
        ("Content-Length: 5\r\n", BodyLength::Known(5)),
        ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ("", BodyLength::Empty),
    ] {
        let backend = Backend::answering(format!("HTTP/1.1 200 OK\r\n{declared}\r\n"));
        let upstream = upstream();
        let request = Request { method: "HEAD", ..Request::default() };
        for _ in 0..3 {
            let mut incoming = request.send(&upstream, &backend).expect("an answer");
            assert_eq!((incoming.length, read(&mut *incoming.body)), (length, Ok(Vec::new())));
        }
        assert_eq!(backend.connections(), 1, "{declared}");
    }
}

#[test]
fn broken_answers_are_refused_and_their_connection_is_thrown_away() {
    let rows: &[&[u8]] = &[
        b"garbage",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
    ];
    for wire in rows {
        let (closed, is_closed) = crossbeam_channel::bounded(1);
        let backend = Backend::start(move |_, peer| {
            peer.head()?;
            peer.write(wire)?;
            // Left open: whoever waits for more, waits for ever.
            peer.until_closed()?;
            let _ = closed.send(());
            Ok(())
        });
        let upstream = upstream();
        assert_eq!(phase(get(&upstream, &backend)), Phase::Malformed, "{}", wire.escape_ascii());
        is_closed.recv_timeout(LONG).expect("the connection is closed while the upstream lives");
    }
}

#[test]
fn endless_interim_answers_end() {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        loop {
            peer.write("HTTP/1.1 103 Early Hints\r\n\r\n")?;
        }
    });
    assert_eq!(phase(get(&upstream(), &backend)), Phase::Malformed);
}

#[test]
fn an_endless_head_ends() {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nX: ")?;
        loop {
            peer.write([b'x'; 4096])?;
        }
    });
    assert_eq!(phase(get(&upstream(), &backend)), Phase::Malformed);
}

#[test]
fn truncated_bodies_are_broken_and_never_complete() {
    let rows: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", // one line short
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    ];
    for wire in rows {
        let mut incoming = get(&upstream(), &closing_after(*wire)).expect("an answer");
        let text = wire.escape_ascii();
        assert!(read(&mut *incoming.body).is_err(), "{text} passed for complete");
        assert!(
            matches!(incoming.body.pull(&mut [0; 9], Wait::Block), Pull::Broken(_)),
            "{text} stays broken"
        );
    }
}

#[test]
fn a_reset_is_never_the_end_of_a_body() {
    for framing in ["", "Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n");
        let (read_it, was_read) = crossbeam_channel::bounded(1);
        let backend = Backend::start(move |_, peer| {
            peer.head()?;
            peer.write(&head)?;
            // A reset may overtake what is not read yet.
            let _ = was_read.recv_timeout(LONG);
            peer.reset();
            Ok(())
        });
        let mut incoming = get(&upstream(), &backend).expect("an answer");
        read_it.send(()).expect("the backend waits");
        assert!(read(&mut *incoming.body).is_err(), "{framing:?}");
    }
}

#[test]
fn a_head_that_is_slow_in_all_times_out_however_often_a_byte_comes() {
    let backends = [
        Backend::start(|_, peer| peer.until_closed()),
        Backend::start(|_, peer| {
            peer.head()?;
            peer.write("HTTP/1.1 200 OK\r\nX: ")?;
            loop {
                peer.write("x")?;
                std::thread::sleep(SHORT / 20);
            }
        }),
    ];
    for backend in backends {
        let start = Watch::start();
        assert_eq!(phase(get(&impatient(), &backend)), Phase::TimedOut);
        assert!(start.elapsed() >= SHORT, "too early: {:?}", start.elapsed());
        assert!(start.elapsed() < LONG, "too late: {:?}", start.elapsed());
    }
}

#[test]
fn the_time_for_a_head_does_not_begin_anew_with_each_piece() {
    let ms = Duration::from_millis;
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nX: ")?;
        std::thread::sleep(ms(1200));
        peer.write("x")?;
        peer.until_closed()
    });
    let config = UpstreamConfig { response_timeout: ms(1500), ..config() };
    let start = Watch::start();
    assert_eq!(phase(get(&UreqUpstream::new(&config, Clock::real()), &backend)), Phase::TimedOut);
    assert!(start.elapsed() < ms(2600), "{:?}", start.elapsed());
}

fn silent_inside_the_body() -> Incoming {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")?;
        peer.until_closed()
    });
    get(&impatient(), &backend).expect("an answer")
}

#[test]
fn silence_inside_a_body_breaks_it() {
    let mut incoming = silent_inside_the_body();
    assert_eq!(incoming.body.silence_limit(), SHORT);
    let start = Watch::start();
    assert!(read(&mut *incoming.body).expect_err("broken").contains("silent"));
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_poll_waits_for_nothing_and_breaks_nothing() {
    let mut incoming = silent_inside_the_body();
    let mut buffer = [0; 16];
    // The head may have come alone.
    while incoming.body.pull(&mut buffer, Wait::Poll) != Pull::Bytes(5) {}
    for _ in 0..100 {
        assert_eq!(incoming.body.pull(&mut buffer, Wait::Poll), Pull::Pending);
        assert!(incoming.body.socket().is_some());
    }
}

#[test]
fn a_backend_that_goes_before_its_head_is_whole_is_a_reset() {
    for wire in ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert_eq!(phase(get(&upstream(), &closing_after(wire))), Phase::Reset, "{wire:?}");
    }
}

/// Sends a large body that comes in pieces.
fn upload(
    upstream: &UreqUpstream,
    backend: &Backend,
    pieces: usize,
) -> (Result<Incoming, UpstreamError>, TestBody) {
    const PIECE: usize = 64 * 1024;
    let piece = vec![b'u'; PIECE];
    let mut body = TestBody::pieces(&vec![&piece[..]; pieces]);
    let length = BodyLength::Known((PIECE * pieces) as u64);
    let request = Request { method: "POST", length, ..Request::default() };
    let result = request.send_with(upstream, backend, &mut body, &Abort::default());
    (result, body)
}

const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge";

#[test]
fn an_early_refusal_is_read_and_ends_the_request_whatever_the_backend_does() {
    for how in ["closes", "stalls", "resets", "reads on"] {
        let backend = Backend::start(move |_, peer| {
            peer.head()?;
            peer.write(TOO_LARGE)?;
            match how {
                // Unread bytes make the kernel send a RST behind the answer.
                "closes" => return Ok(()),
                "reads on" => return peer.until_closed(),
                "resets" => {
                    std::thread::sleep(SHORT / 3);
                    peer.reset();
                }
                _ => std::thread::sleep(Duration::from_secs(2)),
            }
            Ok(())
        });
        let start = Watch::start();
        let (result, body) = upload(&upstream(), &backend, 1000);
        let mut incoming = result.expect(how);
        assert_eq!(incoming.status, 413, "{how}");
        assert_eq!(read(&mut *incoming.body), Ok(b"large".to_vec()), "{how}");
        assert!(!body.pieces.is_empty(), "{how}: the sending went on");
        assert!(start.elapsed() < LONG, "{how}");
    }
}

#[test]
fn a_connection_that_owes_a_body_is_never_used_again() {
    // Kept alive by its own word; what we sent next on it would be read as the rest of the body.
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write(TOO_LARGE)?;
        peer.until_closed()
    });
    let upstream = upstream();
    let mut incoming = upload(&upstream, &backend, 1000).0.expect("an answer");
    assert_eq!(read(&mut *incoming.body), Ok(b"large".to_vec()));
    assert_eq!(get(&upstream, &backend).expect("an answer").status, 413);
    assert_eq!(backend.connections(), 2);
}

/// A body that comes in small pieces, each but the first only when it is told to.
struct Trickle {
    told: crossbeam_channel::Receiver<()>,
    reads: usize,
}

impl RequestBody for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reads += 1;
        if self.reads == 2 {
            let _ = self.told.recv_timeout(LONG);
        }
        buffer[..10].fill(b't');
        Ok(10)
    }

    fn buffered(&self) -> Option<&[u8]> {
        None
    }

    fn consumed(&self) -> bool {
        self.reads > 0
    }
}

#[test]
fn an_early_refusal_is_seen_before_the_next_piece_of_the_body_is_sent() {
    let (tell, told) = crossbeam_channel::bounded(1);
    let backend = Backend::start(move |_, peer| {
        peer.head()?;
        // The first piece goes out without waiting for the second.
        peer.exactly(10)?;
        peer.write(TOO_LARGE)?;
        let _ = tell.send(());
        assert_eq!(peer.drain(), b"", "sent on");
        Ok(())
    });
    let mut body = Trickle { told, reads: 0 };
    let request = Request { method: "POST", length: BodyLength::Known(100_000), ..Request::default() };
    let incoming = request.send_with(&upstream(), &backend, &mut body, &Abort::default());
    assert_eq!((incoming.expect("an answer").status, body.reads), (413, 2));
}

#[test]
fn an_early_success_does_not_end_the_request() {
    const PIECES: usize = 100;
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let received = peer.exactly(PIECES * 64 * 1024)?;
        peer.write(format!("7\r\n{:07}\r\n0\r\n\r\n", received.len()))?;
        peer.until_closed()
    });
    let (result, body) = upload(&upstream(), &backend, PIECES);
    let mut incoming = result.expect("an answer");
    assert!(body.pieces.is_empty());
    assert_eq!(read(&mut *incoming.body), Ok(b"6553600".to_vec()));
}

#[test]
fn an_early_success_of_a_backend_that_reads_no_more_is_taken_after_a_while() {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        std::thread::sleep(LONG);
        Ok(())
    });
    let (result, _) = upload(&upstream(), &backend, 1000);
    assert_eq!(read(&mut *result.expect("an answer").body), Ok(b"ok".to_vec()));
}

#[test]
fn a_backend_that_takes_nothing_and_says_nothing_times_out() {
    let backend = Backend::start(|_, _| {
        std::thread::sleep(LONG);
        Ok(())
    });
    let body = vec![0; 32 << 20];
    let request =
        Request { method: "POST", length: BodyLength::Known(body.len() as u64), ..Request::default() };
    let result =
        request.send_with(&impatient(), &backend, &mut TestBody::in_memory(&body), &Abort::default());
    assert_eq!(phase(result), Phase::TimedOut);
}
