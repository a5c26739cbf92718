//! What backends receive.

use super::support::*;
use crate::proxy::Phase;
use crate::proxy::exchange::{Abort, BodyFault};
use crate::upstream::spare::{Buffers, CHUNK_BYTES, OUTPUT_BYTES};
use balancer_http::framing::response::HeadRules;
use balancer_http::message::BodyLength;
use crossbeam_channel::{Receiver, unbounded};

const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A backend that reports all that it received on each connection, when that is closed; it answers at once.
fn recording() -> (Backend, Receiver<Vec<u8>>) {
    let (sender, receiver) = unbounded();
    let backend = Backend::start(move |_, peer| {
        let head = peer.head()?;
        let mut received: Vec<u8> = head.chars().map(|char| char as u8).collect();
        peer.write(DONE)?;
        received.extend(peer.drain());
        let _ = sender.send(received);
        Ok(())
    });
    (backend, receiver)
}

/// What a backend received of one request, sent on an upstream that is dropped afterwards, so that it is all.
fn received(request: &Request<'_>, body: &mut TestBody) -> String {
    let (backend, receiver) = recording();
    let upstream = upstream();
    let result = request.send_with(&upstream, &backend, body, &Abort::default());
    drop((result, upstream));
    let bytes = receiver.recv_timeout(LONG).expect("the backend's report");
    bytes.iter().map(|byte| *byte as char).collect()
}

#[test]
fn heads_are_written_anew_and_say_how_the_body_ends() {
    use BodyLength::{Chunked, Empty, Known};
    // Method, length, body pieces; what the backend receives behind the request line and Host.
    let rows: &[(&str, BodyLength, &[&[u8]], &str)] = &[
        ("GET", Empty, &[], "\r\n"),
        ("DELETE", Empty, &[], "\r\n"),
        ("PROPFIND", Empty, &[], "\r\n"),
        ("get", Empty, &[], "\r\n"), // methods are told apart by case
        ("POST", Empty, &[], "content-length: 0\r\n\r\n"),
        ("PUT", Empty, &[], "content-length: 0\r\n\r\n"),
        ("PATCH", Empty, &[], "content-length: 0\r\n\r\n"),
        ("GET", Known(0), &[], "content-length: 0\r\n\r\n"),
        ("POST", Known(5), &[b"he", b"llo"], "content-length: 5\r\n\r\nhello"),
        ("GET", Known(5), &[b"hello"], "content-length: 5\r\n\r\nhello"),
        ("QUERY", Known(5), &[b"hello"], "content-length: 5\r\n\r\nhello"),
        ("POST", Known(3), &[b"hello"], "content-length: 3\r\n\r\nhel"), // never more than announced
        (
            "POST",
            Chunked,
            &[b"he", b"llo"],
            "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        ("POST", Chunked, &[], "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("DELETE", Chunked, &[b"x"], "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
    ];
    for (method, length, pieces, expected) in rows {
        let request = Request { method, length: *length, ..Request::default() };
        let expected = format!("{method} / HTTP/1.1\r\nhost: h\r\n{expected}");
        assert_eq!(received(&request, &mut TestBody::pieces(pieces)), expected);
        if *length != Empty {
            let mut body = TestBody::in_memory(&pieces.concat());
            let received = received(&request, &mut body);
            let in_one = expected.replace("2\r\nhe\r\n3\r\nllo", "5\r\nhello");
            assert_eq!((received, body.reads), (in_one, 0), "the same from memory, unread");
        }
    }
}

#[test]
fn fields_go_out_as_they_are_in_order_and_framing_is_never_theirs() {
    let request = Request {
        fields: &[
            ("Host", b"a.example:8080"),
            ("X-Twice", b"1"),
            ("x-between", b"y"),
            ("Content-Length", b"99"),
            ("Transfer-Encoding", b"chunked"),
            ("Connection", b"close"),
            ("Expect", b"100-continue"),
            ("X-Twice", b"2, \xff\xe9"),
            ("Accept", b""),
        ],
        ..Request::default()
    };
    assert_eq!(
        received(&request, &mut TestBody::none()),
        "GET / HTTP/1.1\r\nhost: a.example:8080\r\nX-Twice: 1\r\nx-between: y\r\nX-Twice: 2, \u{ff}\u{e9}\r\nAccept: \r\n\r\n"
    );
}

#[test]
fn credentials_outside_ascii_are_carried_too() {
    let fields: &[(&str, &[u8])] =
        &[("Host", b"h"), ("Authorization", b"Digest username=\"\xfc\""), ("A", b"b")];
    let request = Request { fields, ..Request::default() };
    assert_eq!(
        received(&request, &mut TestBody::none()),
        "GET / HTTP/1.1\r\nhost: h\r\nAuthorization: Digest username=\"\u{fc}\"\r\nA: b\r\n\r\n"
    );
}

#[test]
fn a_request_without_a_host_gets_the_endpoints_address() {
    let (backend, receiver) = recording();
    let upstream = upstream();
    Request { fields: &[], ..Request::default() }.send(&upstream, &backend).expect("an answer");
    drop(upstream);
    let expected = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", backend.endpoint.address);
    assert_eq!(receiver.recv_timeout(LONG).expect("a report"), expected.into_bytes());
}

#[test]
fn targets_arrive_byte_for_byte() {
    let targets = [
        "/",
        "//",
        "//x/../y",
        "/a?b={c}",
        "/a|b",
        "/%zz",
        "/%",
        "/a?",
        "/a?b?c",
        "/[::1]",
        "/a^b",
        "/é",
        "/?q=`\\^|",
        "/~!$&'()*+,;=:@",
        "/a?http://x/",
    ];
    for target in targets {
        let request = Request { target, ..Request::default() };
        let (backend, receiver) = recording();
        let upstream = upstream();
        request.send(&upstream, &backend).expect(target);
        drop(upstream);
        let expected = format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(receiver.recv_timeout(LONG).expect("a report"), expected.into_bytes());
    }
    let request = Request { method: "OPTIONS", target: "*", ..Request::default() };
    assert!(received(&request, &mut TestBody::none()).starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[test]
fn what_cannot_be_sent_is_an_error() {
    let rows = [
        Request { target: "/a#b", ..Request::default() },
        Request { target: "/a b", ..Request::default() },
        Request { target: "/a\r\nX: y", ..Request::default() },
        Request { target: "http://h/", ..Request::default() },
        Request { target: "", ..Request::default() },
        Request { method: "CONNECT", ..Request::default() },
        Request { method: "G T", ..Request::default() },
        Request { fields: &[("Host", b"h"), ("Host", b"i")], ..Request::default() },
        Request { fields: &[("X Y", b"h")], ..Request::default() },
        Request { fields: &[("X", b"a\r\nY: b")], ..Request::default() },
        Request { fields: &[("X", b"a\0")], ..Request::default() },
        Request { fields: &[("Authorization", b"\xff\r\nY: b")], ..Request::default() },
    ];
    for request in rows {
        let backend = Backend::answering(DONE);
        let text = format!("{} {} {:?}", request.method, request.target, request.fields);
        assert_eq!(phase(request.send(&upstream(), &backend)), Phase::Malformed, "{text}");
    }
}

#[test]
fn a_body_that_fails_is_never_a_complete_request() {
    let faults = [BodyFault::TooLarge, BodyFault::Malformed, BodyFault::TimedOut, BodyFault::ClientGone];
    for (fault, length) in
        faults.into_iter().flat_map(|fault| [(fault, BodyLength::Known(9)), (fault, BodyLength::Chunked)])
    {
        let (sender, receiver) = unbounded();
        let backend = Backend::start(move |_, peer| {
            let _ = sender.send(peer.drain());
            Ok(())
        });
        let request = Request { method: "POST", length, ..Request::default() };
        let mut body = TestBody { fault: Some(fault), ..TestBody::pieces(&[b"abc", b"def"]) };
        let result = request.send_with(&upstream(), &backend, &mut body, &Abort::default());
        assert_eq!(phase(result), Phase::RequestBody(fault));
        let received = receiver.recv_timeout(LONG).expect("a report");
        let text = String::from_utf8(received).expect("text");
        assert!(text.ends_with("def") || text.ends_with("def\r\n"), "{length:?}: {text:?}");
    }
}

#[test]
fn a_body_that_ends_before_its_length_is_a_client_that_left() {
    let backend = Backend::start(|_, peer| peer.until_closed());
    for mut body in [TestBody::pieces(&[b"abc"]), TestBody::in_memory(b"abc")] {
        let request = Request { method: "POST", length: BodyLength::Known(4), ..Request::default() };
        let result = request.send_with(&upstream(), &backend, &mut body, &Abort::default());
        assert_eq!(phase(result), Phase::RequestBody(BodyFault::ClientGone));
    }
}

#[test]
fn a_large_head_and_a_large_body_arrive_whole() {
    let value = vec![b'v'; 100_000];
    let body: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
    let fields: &[(&str, &[u8])] = &[("Host", b"h"), ("X-Large", &value), ("X-Last", b"z")];
    for length in [BodyLength::Known(body.len() as u64), BodyLength::Chunked] {
        let request = Request { method: "PUT", fields, length, ..Request::default() };
        for mut test_body in
            [TestBody::in_memory(&body), TestBody::pieces(&[&body[..1_000_001], &body[1_000_001..]])]
        {
            let (backend, receiver) = recording();
            let upstream = upstream();
            request.send_with(&upstream, &backend, &mut test_body, &Abort::default()).expect("an answer");
            drop(upstream);
            let received = receiver.recv_timeout(LONG).expect("a report");
            let at = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
            assert!(received[..at].windows(100_000).any(|window| window == value));
            let arrived = match length {
                BodyLength::Chunked => dechunk(&received[at..]),
                _ => received[at..].to_vec(),
            };
            assert!(arrived == body, "{length:?}: {} of {} bytes", arrived.len(), body.len());
        }
    }
    let max_head_bytes = HeadRules::SHIPPED.max_head_bytes;
    let kept = Buffers::lend(max_head_bytes);
    let bytes = [kept.output.len(), kept.chunk.len(), kept.input.capacity(), kept.lines.capacity()];
    let bounds = [OUTPUT_BYTES, CHUNK_BYTES, max_head_bytes, OUTPUT_BYTES];
    assert!(bytes.iter().zip(bounds).all(|(bytes, bound)| *bytes <= bound), "{bytes:?} stay with the thread");
}

fn dechunk(mut wire: &[u8]) -> Vec<u8> {
    use balancer_http::framing::chunk::{ChunkDecoder, Step};
    let (mut decoder, mut body) = (ChunkDecoder::new(), Vec::new());
    while let Step::Data { start, end } = decoder.step(wire).expect("chunks") {
        body.extend_from_slice(&wire[start..end]);
        wire = &wire[end..];
    }
    assert_eq!(decoder.step(b""), Ok(Step::End { used: 0 }));
    body
}

#[test]
fn a_body_that_panics_costs_its_own_call_alone() {
    struct Bomb;
    impl crate::proxy::exchange::RequestBody for Bomb {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("a bug in a frontend")
        }
        fn buffered(&self) -> Option<&[u8]> {
            None
        }
        fn consumed(&self) -> bool {
            true
        }
    }
    let backend = Backend::answering(DONE);
    let upstream = upstream();
    let request = Request { method: "POST", length: BodyLength::Known(1), ..Request::default() };
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        request.send_with(&upstream, &backend, &mut Bomb, &Abort::default()).is_ok()
    }));
    assert!(panicked.is_err());
    assert_eq!(get(&upstream, &backend).expect("an answer").status, 204);
    assert_eq!(backend.connections(), 2, "the connection of the call that panicked was not used again");
}
