//! What breaks framing is answered, closed, and never served.

use std::io::Write;
use std::time::Duration;

use super::{Door, config, echo, get, half_close, read_answer, read_to_end};

/// Section, bytes, status. The full tables stand beside the parser; here is one of each kind, on the wire.
const ROWS: &[(&str, &[u8], u16)] = &[
    ("9112 3, malformed", b"GET /\r\n\r\n", 400),
    ("9112 2.2, bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("9112 2.2, bare CR", b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    ("9110 5.5, NUL", b"GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", 400),
    ("9112 5.1, space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("9112 5.2, obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    ("9112 3.2, no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("9112 3.2, two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("9110 8.6, a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    (
        "9110 8.6, twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        400,
    ),
    (
        "9112 6.1, both",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("9112 6.1, unknown", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("9112 6.3, not chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (
        "9112 7.1.1, an extension without a name",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\na\r\n0\r\n\r\n",
        400,
    ),
    ("9112 7.1, no size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    (
        "9112 7.1, data too long",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        400,
    ),
    (
        "9112 7.1, bare LF",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        400,
    ),
    ("9110 9.3.6", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
    ("9110 15.5.14", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 107374182400\r\n\r\n", 413),
    ("9110 10.1.1", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", 417),
    ("9112 2.3", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
];

fn check(door: &Door, section: &str, bytes: &[u8], status: u16) {
    let answer = door.ask(bytes);
    let start = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&start), "RFC {section}: {answer:?}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "RFC {section}: {answer:?}");
    assert!(answer.contains("\r\nContent-Type: application/problem+json\r\n"), "RFC {section}: {answer:?}");
}

#[test]
fn every_kind_is_refused_with_its_status_closed_and_not_served() {
    let door = Door::open(&config(), echo);
    for (section, bytes, status) in ROWS {
        check(&door, section, bytes, *status);
    }
    assert_eq!(door.served(), 0);
    assert_eq!(door.service.refused.lock().len(), ROWS.len());
    // And it goes on as if nothing had been.
    assert!(door.ask(b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn the_verdict_is_the_same_when_the_bytes_come_one_by_one() {
    let door = Door::open(&config(), echo);
    for (section, bytes, status) in ROWS {
        let mut stream = door.connect();
        for byte in *bytes {
            // The engine may have answered and closed before the last byte.
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let answer = read_to_end(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "RFC {section}: {answer:?}");
    }
    assert_eq!(door.served(), 0);
}

#[test]
fn what_is_wrong_is_said_although_no_line_end_follows_it() {
    let times = crate::config::Frontend { head_timeout: Duration::from_millis(300), ..config() };
    let door = Door::open(&times, echo);
    for sends_no_more in [true, false] {
        let mut stream = door.connect();
        stream.write_all(&get("/")).expect("sent");
        read_answer(&mut stream);
        stream.write_all(b"GET / HT").expect("sent");
        door.until("the beginning was read", |stats| stats.reading == 1);
        stream.write_all(b"\0").expect("sent");
        if sends_no_more {
            half_close(&stream);
        }
        let answer = read_to_end(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        door.until("it is gone", |stats| stats.reading == 0);
    }
}

#[test]
fn bounds_of_the_head() {
    let door = Door::open(&config(), echo);
    let long_target = [b"GET /".as_slice(), &[b'a'; 9000], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    check(&door, "9110 15.5.15", &long_target, 414);
    let many: String = (0..101).map(|number| format!("A{number}: b\r\n")).collect();
    check(&door, "6585 5", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes(), 431);
    let large = [b"GET / HTTP/1.1\r\nHost: a\r\nA: ".as_slice(), &[b'a'; 20000], b"\r\n\r\n"].concat();
    check(&door, "6585 5", &large, 431);
    assert_eq!(door.served(), 0);
}

#[test]
fn what_follows_a_refused_request_is_not_served() {
    let door = Door::open(&config(), echo);
    let smuggled =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3x\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = door.ask(smuggled);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer:?}");
    assert_eq!(door.served(), 0);
}
