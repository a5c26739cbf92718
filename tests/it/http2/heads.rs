//! Heads: after the rules of RFC 9113 §8.2 and §8.3, those of HTTP/1.1 hold for them, too.

use super::setup;
use crate::support::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PROTOCOL_ERROR, RESET, fields, frame, get,
};
use crate::support::{Backend, until};

/// What becomes of a request: its status, or the code that its stream was reset with.
type Row<'a> = (&'a str, Vec<u8>, Result<u16, u32>);

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    get("/", more)
}

#[test]
fn heads_are_judged_by_the_rules_of_http_1() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let many: Vec<(String, String)> = (0..101).map(|n| (format!("x-{n}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // As a list counts: each field by 32 bytes more (RFC 9113 §10.5.1).
    let long = "x".repeat(16_250);
    let only = |all: &[(&str, &str)]| fields(all);
    let rows: Vec<Row<'_>> = vec![
        ("a plain one", with(&[]), Ok(200)),
        ("a Host that says the same", with(&[("host", "a.example")]), Ok(200)),
        ("a Host that says something else", with(&[("host", "b.example")]), Ok(400)),
        (
            "a Host alone",
            only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]),
            Ok(200),
        ),
        ("no host at all", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), Ok(400)),
        ("101 fields", with(&many), Ok(431)),
        ("a list of more than 16 KiB", with(&[("x", &long)]), Ok(431)),
        ("connection", with(&[("connection", "close")]), Err(PROTOCOL_ERROR)),
        ("keep-alive", with(&[("keep-alive", "1")]), Err(PROTOCOL_ERROR)),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Err(PROTOCOL_ERROR)),
        ("upgrade", with(&[("upgrade", "websocket")]), Err(PROTOCOL_ERROR)),
        ("te: gzip", with(&[("te", "gzip")]), Err(PROTOCOL_ERROR)),
        ("te: trailers", with(&[("te", "trailers")]), Ok(200)),
        ("a name with a capital", with(&[("X-Y", "1")]), Err(PROTOCOL_ERROR)),
        ("CR in a value", with(&[("x", "a\rb")]), Err(PROTOCOL_ERROR)),
        ("LF in a value", with(&[("x", "a\nb: c")]), Err(PROTOCOL_ERROR)),
        ("NUL in a value", with(&[("x", "a\0b")]), Err(PROTOCOL_ERROR)),
        ("a colon in a name", with(&[("x:y", "1")]), Err(PROTOCOL_ERROR)),
        ("a blank in a name", with(&[("x y", "1")]), Err(PROTOCOL_ERROR)),
        ("a blank in the path", get("/a b", &[]), Err(PROTOCOL_ERROR)),
        ("LF in the path", get("/a\nHost: b", &[]), Err(PROTOCOL_ERROR)),
        (
            "no path",
            only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
            Err(PROTOCOL_ERROR),
        ),
        ("two paths", with(&[(":path", "/b")]), Err(PROTOCOL_ERROR)),
        ("an unknown pseudo-field", with(&[(":x", "1")]), Err(PROTOCOL_ERROR)),
        (
            "a pseudo-field behind a field",
            only(&[(":method", "GET"), (":scheme", "http"), ("x", "1"), (":path", "/"), (":authority", "a")]),
            Err(PROTOCOL_ERROR),
        ),
        ("a length that is no number", with(&[("content-length", "x")]), Err(PROTOCOL_ERROR)),
        ("a length and no body", with(&[("content-length", "5")]), Err(PROTOCOL_ERROR)),
        ("CONNECT", only(&[(":method", "CONNECT"), (":authority", "a.example:443")]), Ok(405)),
    ];
    for (what, head, expected) in rows {
        // One connection each: what a fault ends differs.
        assert_eq!(Frames::open(balancer.address).ask(1, &head), expected, "{what}");
    }
}

#[test]
fn a_head_reaches_the_backend_as_http_1() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let head = get("/x?y=1", &[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]);
    assert_eq!(Frames::open(balancer.address).ask(1, &head), Ok(200));
    let seen = backend.only();
    assert_eq!(seen.request_line(), "GET /x?y=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["a.example"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn a_head_may_come_in_pieces() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let head = get("/pieces", &[]);
    let frames = Frames::open(balancer.address);
    frames.send(&frame(HEADERS, END_STREAM, 1, &head[..1]));
    // Few enough not to be a flood.
    frames.send(&frame(CONTINUATION, 0, 1, &[]));
    frames.send(&frame(CONTINUATION, 0, 1, &head[1..7]));
    frames.send(&frame(CONTINUATION, END_HEADERS, 1, &head[7..]));
    let next = loop {
        let next = frames.next().expect("an answer");
        if matches!(next.kind, HEADERS | RESET | GOAWAY) {
            break next;
        }
    };
    assert_eq!((next.kind, next.status()), (HEADERS, 200));
    until("it came", || (backend.seen().len() == 1).then_some(()));
}
