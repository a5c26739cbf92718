//! Requests that are malformed, ambiguous or too large: they are refused, and nothing of them reaches a backend. Each row
//! names its rule.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Conn, Engine, Fault, PATIENCE, Setup, Then};

each_engine! {
    malformed_requests_are_refused,
    ambiguous_lengths_are_refused,
    requests_that_are_well_formed_pass,
    what_clients_send_in_targets_goes_on_unchanged,
    bytes_above_ascii_in_targets_pass_where_they_are_accepted,
    bounds_on_heads_are_held,
    an_endless_head_is_cut_off,
    a_huge_length_is_only_a_number,
    a_chunked_body_that_breaks_its_framing_is_never_whole,
    requests_in_a_pipeline_are_answered_in_order,
}

/// What becomes of those bytes: the answer's status, or 0 when the connection ended without one.
fn outcome(balancer: &Balancer, bytes: &[u8]) -> u16 {
    outcome_within(balancer, bytes, PATIENCE)
}

/// The same; 0 also when the connection stays open without an answer, as the crate of `tiny_http` leaves some.
fn outcome_if_any(balancer: &Balancer, bytes: &[u8]) -> u16 {
    let patience = if balancer.engine == Some(Engine::TinyHttp) { Duration::from_secs(1) } else { PATIENCE };
    outcome_within(balancer, bytes, patience)
}

fn outcome_within(balancer: &Balancer, bytes: &[u8], patience: Duration) -> u16 {
    let mut conn = Conn::open(balancer.address);
    let _ = conn.try_send(bytes);
    if balancer.engine == Some(Engine::TinyHttp) {
        conn.finish();
    }
    conn.wait_at_most(patience);
    match conn.read("GET") {
        Ok(answer) => answer.status,
        Err(Fault::Closed | Fault::Reset) => 0,
        Err(Fault::TimedOut) if balancer.engine == Some(Engine::TinyHttp) => 0,
        Err(fault) => panic!("{fault:?} for {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn start(engine: Engine) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("frontend.body_timeout", json!("2s"))
        .set("frontend.head_timeout", json!("2s"))
        .start();
    (backend, balancer)
}

/// Rows that every engine refuses: (rule, bytes, statuses that are right).
const MALFORMED: &[(&str, &str, &[u16])] = &[
    ("RFC 9112 §3.2: no Host", "GET / HTTP/1.1\r\n\r\n", &[400]),
    ("RFC 9112 §3.2: two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §3.2: a Host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
    ("RFC 9112 §3.2: userinfo in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", &[400]),
    ("RFC 9112 §2.3: another major version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[505]),
    ("RFC 9112 §2.3: no version", "GET / HTTP/x\r\nHost: a\r\n\r\n", &[400, 505]),
    ("RFC 9112 §3: two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §3: no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9110 §9.1: a method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §3.2: a target without a slash", "GET foo HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §3.2.4: an asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §3.2: a fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("RFC 9112 §5.1: space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", &[400]),
    ("RFC 9112 §5.2: a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", &[400]),
    ("RFC 9110 §5.1: an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", &[400]),
    ("RFC 9110 §5.1: a name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n", &[400]),
    ("RFC 9110 §5.5: NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", &[400]),
    ("RFC 9112 §2.2: a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", &[400]),
    ("a line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", &[400]),
    (
        "RFC 9112 §6.1: an unknown transfer coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "RFC 9112 §6.1: an unknown transfer coding, in two lines",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "RFC 9112 §6.3: chunked is not there",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "RFC 9112 §6.3: chunked is not there",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "RFC 9112 §6.3: chunked is not last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "RFC 9112 §6.3: chunked is not last, in two lines",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "RFC 9112 §7.1: chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "RFC 9112 §6.1: chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    ("RFC 9112 §6.2: a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", &[400]),
    ("RFC 9112 §6.2: no number", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3x\r\n\r\nabc", &[400]),
    (
        "RFC 9112 §6.2: a negative length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
        &[400],
    ),
    ("RFC 9112 §6.2: an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", &[400]),
    (
        "RFC 9110 §8.6: a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        &[400, 413],
    ),
    ("RFC 9110 §10.1.1: an unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", &[417]),
    ("RFC 9110 §9.3.6: CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", &[400, 405, 501]),
    // Closed without a word (0), or answered by the portable engine.
    ("TLS on a plain port", "\x16\x03\x01\x00\x05\x01\r\n\r\n", &[0, 400]),
];

/// Rows about lengths that a second parser may read otherwise: what request smuggling is made of.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "two lengths that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    ),
    ("two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc"),
    (
        "a length and chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked and a length",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ),
    (
        "two codings",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("chunked in disguise", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (
        "a vertical tab behind chunked, which a lenient trim takes away",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    ),
];

fn malformed_requests_are_refused(engine: Engine) {
    let (backend, balancer) = start(engine);
    let mut wrong = Vec::new();
    let strict = engine.can(Case::StrictFraming);
    for (rule, bytes, statuses) in MALFORMED {
        let status = outcome_if_any(&balancer, bytes.as_bytes());
        // The portable engine's crate answers some of them not at all.
        let fits = statuses.contains(&status) || (status == 0 && !strict);
        if !fits {
            wrong.push(format!("{rule}: {status}, not one of {statuses:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(backend.seen().is_empty(), "reached the backend: {:#?}", backend.seen());
}

fn ambiguous_lengths_are_refused(engine: Engine) {
    let (backend, balancer) = start(engine);
    let mut wrong = Vec::new();
    // The last row is about such an end of a field.
    let rows = if engine.can(Case::FieldEnds) { AMBIGUOUS } else { &AMBIGUOUS[..AMBIGUOUS.len() - 1] };
    for (rule, bytes) in rows {
        let status = outcome(&balancer, bytes.as_bytes());
        if !matches!(status, 400 | 501) {
            wrong.push(format!("{rule}: {status}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(backend.seen().is_empty(), "reached the backend: {:#?}", backend.seen());
}

fn requests_that_are_well_formed_pass(engine: Engine) {
    let (backend, balancer) = start(engine);
    let rows = [
        ("an empty line before", "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "/1"),
        ("absolute form", "GET http://shop.example:81/2?q HTTP/1.1\r\nHost: other\r\n\r\n", "/2?q"),
        ("no space behind the colon", "GET /3 HTTP/1.1\r\nHost:a\r\nX:1\r\n\r\n", "/3"),
        ("an empty value", "GET /4 HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", "/4"),
        ("a name in capitals", "GET /5 HTTP/1.1\r\nHOST: a\r\n\r\n", "/5"),
        ("an IPv6 Host", "GET /6 HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "/6"),
        ("HTTP/1.0 without a Host", "GET /7 HTTP/1.0\r\n\r\n", "/7"),
    ];
    for (rule, bytes, target) in rows {
        if rule.starts_with("an empty line") && !engine.can(Case::StrictFraming) {
            continue;
        }
        assert_eq!(outcome(&balancer, bytes.as_bytes()), 200, "{rule}");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.request_line(), format!("GET {target} HTTP/1.1"), "{rule}");
    }
    let absolute = &backend.seen().into_iter().find(|seen| seen.request_line().contains("/2?q")).unwrap();
    assert_eq!(absolute.all("host"), ["shop.example:81"], "the target's authority wins over Host");
}

fn what_clients_send_in_targets_goes_on_unchanged(engine: Engine) {
    let (backend, balancer) = start(engine);
    let every = [r#"/a{b}|[c]^\d"e?{a}|[b]^\c'100%`"#, r"/..\a"];
    let where_it_can = ["/<a>", "/a`b", "/?<a>", r#"/?a="b""#];
    let carries_all = engine.can(Case::Targets);
    let mut passed = 0;
    for target in every.iter().chain(&where_it_can) {
        // Often enough to eject a backend that is blamed for it.
        for _ in 0..6 {
            let status = outcome(&balancer, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            let expected = if every.contains(target) || carries_all { 200 } else { 400 };
            assert_eq!(status, expected, "{target}");
            if status == 200 {
                passed += 1;
                assert_eq!(backend.seen().pop().unwrap().request_line(), format!("GET {target} HTTP/1.1"));
            }
        }
    }
    assert_eq!(backend.seen().len(), passed, "what was refused did not reach the backend");
    balancer.get("/").expect(200);
}

fn bytes_above_ascii_in_targets_pass_where_they_are_accepted(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address());
    let request = b"GET /\xC3\xA4?\xE4 HTTP/1.1\r\nHost: a\r\n\r\n";
    let strict = outcome_if_any(&setup.clone().start(), request);
    assert!(strict == 400 || (strict == 0 && !engine.can(Case::StrictFraming)), "{strict}");
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    if engine.can(Case::Targets) {
        let balancer = setup.set("frontend.accept_invalid", json!(true)).start();
        assert_eq!(outcome(&balancer, request), 200);
        assert_eq!(backend.seen().pop().unwrap().request_line(), "GET /\u{e4}?%E4 HTTP/1.1");
    }
}

fn bounds_on_heads_are_held(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("frontend.max_head_bytes", json!(4096))
        .set("frontend.max_headers", json!(20))
        .set("frontend.max_target_bytes", json!(1000))
        .start();
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    let fields = |count: usize| {
        let more: String = (1..count).map(|i| format!("X-{i}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n")
    };
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let rows = [
        ("the longest target", target(1000), 200),
        ("a longer target", target(1001), 414),
        ("the most fields", fields(20), 200),
        ("one field more", fields(21), 431),
        ("the largest head", head(4096), 200),
        ("a larger head", head(4097), 431),
        ("a far larger head", head(100_000), 431),
    ];
    for (rule, bytes, status) in rows {
        assert_eq!(outcome(&balancer, bytes.as_bytes()), status, "{rule}");
    }
    assert_eq!(backend.seen().len(), 3);
}

fn an_endless_head_is_cut_off(engine: Engine) {
    if !engine.can(Case::HeadBounds) {
        return;
    }
    let (backend, balancer) = start(engine);
    let before = balancer.proc.rss_kib();
    for start in ["GET /", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut conn = Conn::open(balancer.address);
        conn.send(start);
        // Far longer than `max_head_bytes`: after the refusal the rest is thrown away as it comes.
        for _ in 0..10_000 {
            if conn.try_send([b'x'; 4096]).is_err() {
                break;
            }
        }
        match conn.read("GET") {
            Ok(answer) => assert!(matches!(answer.status, 414 | 431), "{answer:?}"),
            Err(Fault::Closed | Fault::Reset) => {}
            Err(fault) => panic!("{fault:?}"),
        }
    }
    let grown = balancer.proc.rss_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "40 MB of a head moved the resident size by {grown} KiB");
    assert!(backend.seen().is_empty());
}

fn a_huge_length_is_only_a_number(engine: Engine) {
    // The request that ends a process which allocates what it is told (tiny-http's pull request 290).
    if !engine.can(Case::HugeLengths) {
        return;
    }
    let (backend, mut balancer) = start(engine);
    for length in ["107374182400", "9223372036854775807", "18446744073709551615"] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(outcome(&balancer, bytes.as_bytes()), 413, "{length}");
    }
    balancer.get("/").expect(200);
    assert!(balancer.proc.poll().is_none());
    assert_eq!(backend.seen().len(), 1);
}

fn a_chunked_body_that_breaks_its_framing_is_never_whole(engine: Engine) {
    if !engine.can(Case::StrictFraming) {
        return;
    }
    let bodies = [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "3;\r\nabc\r\n0\r\n\r\n",
        "3;a b\r\nabc\r\n0\r\n\r\n",
        "3;=a\r\nabc\r\n0\r\n\r\n",
        "3;a=\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\r\nabc\r\n0\r\n\r\n",
        "3;a \r\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0;\r\n\r\n",
    ];
    for body in bodies {
        let (backend, balancer) = start(engine);
        let mut conn = Conn::open(balancer.address);
        conn.send("POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let _ = conn.try_send(body);
        match conn.read("POST") {
            Ok(answer) => assert!(matches!(answer.status, 400 | 502), "{body:?}: {}", answer.status),
            Err(Fault::Closed | Fault::Reset) => {}
            Err(fault) => panic!("{body:?}: {fault:?}"),
        }
        assert!(backend.seen().is_empty(), "{body:?} was taken for a whole body: {:#?}", backend.seen());
    }
}

fn requests_in_a_pipeline_are_answered_in_order(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| {
        let line = seen.request_line();
        let path = line.split(' ').nth(1).unwrap();
        let body = [path.as_bytes(), &seen.body].concat();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(&body);
        Then::Keep
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    let mut bytes = String::new();
    for i in 0..20 {
        bytes.push_str(&match i % 3 {
            0 => format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!(
                "POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        });
    }
    conn.send(bytes);
    for i in 0..20 {
        let answer = conn.read("GET").unwrap().expect(200);
        let expected = if i % 3 == 0 { format!("/{i}") } else { format!("/{i}abc") };
        assert_eq!(answer.text(), expected);
    }
}
