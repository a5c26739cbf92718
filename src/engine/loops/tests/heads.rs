//! Requests' heads: cut anywhere, behind each other, wrong, and behind PROXY headers.

use super::*;
use std::net::Shutdown;

use crate::engine::loops::counts::Kind;

/// Section, bytes, status. The full tables are beside the parser; here is one row of each kind, on the wire.
const ROWS: &[(&str, &[u8], u16)] = &[
    ("9112 3, malformed", b"GET /\r\n\r\n", 400),
    ("9112 2.2, bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("9110 5.5, NUL", b"GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", 400),
    ("9112 5.2, obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    ("9112 3.2, no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("9110 8.6, a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    (
        "9112 6.1, both",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("9112 6.1, unknown", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("9112 7.1, no size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    (
        "9112 7.1, data too long",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        400,
    ),
    ("9110 9.3.6", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
    ("9110 15.5.14", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 107374182400\r\n\r\n", 413),
    ("9110 10.1.1", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", 417),
    ("9112 2.3", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
];

#[track_caller]
fn check(answer: &str, section: &str, status: u16) {
    let start = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&start), "RFC {section}: {answer:?}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "RFC {section}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "RFC {section}: {answer:?}");
}

#[test]
fn what_breaks_a_rule_is_refused_closed_and_not_begun_whether_whole_or_byte_by_byte() {
    let door = Door::open(&config(), lane);
    for (section, bytes, status) in ROWS {
        check(&door.ask(&[bytes, &get("/secret")[..]].concat()), section, *status);
        let mut stream = door.connect();
        for byte in *bytes {
            // The engine may have answered and closed before the last byte.
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        check(&read_to_end(&mut stream), section, *status);
    }
    assert_eq!(door.begun(), 0);
    assert_eq!(door.service.refused.lock().len(), 2 * ROWS.len());
    until("every refusal is settled", || door.service.ends.lock().len() == 2 * ROWS.len());
    door.until_empty();
}

#[test]
fn bounds_of_the_head() {
    let door = Door::open(&config(), lane);
    let long_target = [b"GET /".as_slice(), &[b'a'; 9000], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    check(&door.ask(&long_target), "9110 15.5.15", 414);
    let many: String = (0..101).map(|number| format!("A{number}: b\r\n")).collect();
    check(&door.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes()), "6585 5", 431);
    let large = [b"GET / HTTP/1.1\r\nHost: a\r\nA: ".as_slice(), &[b'a'; 50_000], b"\r\n\r\n"].concat();
    check(&door.ask(&large), "6585 5", 431);
    assert_eq!(door.begun(), 0);
}

#[test]
fn two_requests_may_be_cut_anywhere() {
    let door = Door::open(&config(), lane);
    let both = [&b"\r\nGET /now HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"[..], &get("/now/2")].concat();
    let mut stream = door.connect();
    stream.set_nodelay(true).expect("set");
    for cut in 1..both.len() {
        let begun = door.begun();
        let looks = door.service.turns.load(Ordering::SeqCst);
        stream.write_all(&both[..cut]).expect("sent");
        // So that the pieces are read apart.
        until("it was read", || door.service.turns.load(Ordering::SeqCst) > looks || door.begun() > begun);
        stream.write_all(&both[cut..]).expect("sent");
        assert_eq!(read_answer(&mut stream).1, "/now", "cut at {cut}");
        assert_eq!(read_answer(&mut stream).1, "/now/2", "cut at {cut}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_however_many() {
    let door = Door::open(&config(), lane);
    let mut all = Vec::new();
    for number in 0..100 {
        all.extend_from_slice(&get(&format!("/now/{number}")));
        let text = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{number:03}");
        all.extend_from_slice(text.as_bytes());
    }
    // At once, and in pieces that fall anywhere.
    for piece in [all.len(), 777, 61] {
        let mut stream = door.connect();
        let (mut writer, bytes) = (stream.try_clone().expect("a second handle"), all.clone());
        let sender = thread::spawn(move || {
            bytes.chunks(piece).for_each(|piece| writer.write_all(piece).expect("sent"))
        });
        for number in 0..100 {
            assert_eq!(read_answer(&mut stream).1, format!("/now/{number}"));
            assert_eq!(read_answer(&mut stream).1, format!("POST /{number} {number:03}"));
        }
        sender.join().expect("the sender ends");
    }
    assert_eq!(door.begun(), 600);
}

#[test]
fn quick_requests_in_one_packet_do_not_keep_others_waiting() {
    let door = Door::open(&config(), lane);
    let many: Vec<u8> = (0..400).flat_map(|number| get(&format!("/now/{number}"))).collect();
    let mut one = door.send(&many);
    let mut other = door.send(&get("/now/other"));
    assert_eq!(read_answer(&mut other).1, "/now/other");
    for number in 0..400 {
        assert_eq!(read_answer(&mut one).1, format!("/now/{number}"));
    }
}

#[test]
fn what_is_wrong_is_said_although_no_line_end_follows_it() {
    let times = Frontend { head_timeout: Duration::from_millis(300), ..config() };
    let door = Door::open(&times, lane);
    for sends_no_more in [true, false] {
        let mut stream = door.send(&get("/now"));
        read_answer(&mut stream);
        stream.write_all(b"GET / HT").expect("sent");
        door.until("the beginning was read", |stats| stats.reading == 1);
        stream.write_all(b"\0").expect("sent");
        if sends_no_more {
            stream.shutdown(Shutdown::Write).expect("open");
        }
        check(&read_to_end(&mut stream), "9112 3", 400);
        door.until_empty();
    }
}

#[test]
fn a_head_has_its_time_whatever_comes_and_an_idle_connection_its_own() {
    let times = Frontend {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(400),
        ..config()
    };
    let door = Door::open(&times, lane);
    let mut silent = door.connect();
    assert_eq!(read_to_end(&mut silent), "", "without a word");
    let mut kept = door.send(&get("/now"));
    read_answer(&mut kept);
    assert_eq!(read_to_end(&mut kept), "", "without a word");
    let mut slow = door.connect();
    let mut writer = slow.try_clone().expect("a second handle");
    let trickle = thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nLong: ".iter().chain(std::iter::repeat(&b'x')) {
            thread::sleep(Duration::from_millis(10));
            if writer.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    assert!(read_head(&mut slow).starts_with("HTTP/1.1 408 "), "bytes do not move the deadline");
    slow.shutdown(Shutdown::Both).expect("open");
    trickle.join().expect("the writer ends");
    assert_eq!(*door.service.refused.lock(), [408]);
}

#[test]
fn a_proxy_header_names_the_client_in_pieces_and_is_not_left_out() {
    let option = Frontend { proxy_protocol: true, ..config() };
    let door = Door::open(&option, |asked| {
        let text = format!("{} {}", asked.head.peer, asked.head.is_proxied);
        Step::Answer(Answer::new(200, text.into_bytes()))
    });
    let header = b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n";
    for cut in [1, 5, 6, header.len() - 1, header.len()] {
        let mut stream = door.send(&header[..cut]);
        let counts = &door.running().shared.counts;
        // Behind a whole header nothing of a request has come.
        let kind = if cut < header.len() { Kind::Reading } else { Kind::Silent };
        until("it was read", || counts.of_kind(kind) == 1);
        stream.write_all(&[&header[cut..], &get("/"), &get("/")].concat()).expect("sent");
        assert_eq!(read_answer(&mut stream).1, "1.2.3.4:9 true");
        assert_eq!(read_answer(&mut stream).1, "1.2.3.4:9 true");
        drop(stream);
        door.until_empty();
    }
    let begun = door.begun();
    check(&door.ask(&get("/")), "no header", 400);
    assert_eq!(door.begun(), begun);
    assert!(door.service.events.lock().contains(&FrontendEvent::Rejected(Rejection::ProxyProtocol)));
}
