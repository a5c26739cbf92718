//! Bodies: framing both ways, bounds, bounded memory, and answers that break off.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Fault, Framing, Gate, PATIENCE, Setup, Then, request, until};

each_engine! {
    request_bodies_arrive_whole_in_every_framing,
    answers_arrive_whole_in_every_framing,
    an_answer_that_breaks_off_never_looks_complete,
    answers_that_are_no_http_are_502,
    bytes_behind_a_complete_answer_do_not_spoil_it,
    interim_answers_are_dropped,
    expect_100_continue_is_answered_by_us,
    a_body_beyond_the_bound_is_413,
    a_slow_backend_is_504,
    a_stream_arrives_as_it_is_sent,
    a_gibibyte_each_way_moves_no_memory,
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Around the edges of buffers.
const SIZES: [usize; 9] = [0, 1, 100, 8191, 8192, 65535, 65536, 65537, 1 << 20];

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn request_bodies_arrive_whole_in_every_framing(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    for size in SIZES {
        let body = pattern(size);
        conn.send(head("PUT", "/known", &[], Some(size)));
        conn.send(&body);
        conn.read("PUT").unwrap().expect(200);
        let seen = backend.seen().pop().unwrap();
        assert!(seen.body == body, "{size} bytes with a length arrived as {}", seen.body.len());
        assert!(seen.all("transfer-encoding").is_empty(), "{:?}", seen.lines());

        conn.send(head("POST", "/chunked", &[("Transfer-Encoding", "chunked")], None));
        conn.send(chunked(&body, 7000));
        conn.read("POST").unwrap().expect(200);
        let seen = backend.seen().pop().unwrap();
        assert!(seen.body == body, "{size} bytes in chunks arrived as {}", seen.body.len());
        let framings = seen.all("transfer-encoding").len() + seen.all("content-length").len();
        assert_eq!(framings, 1, "{:?}", seen.lines());
    }
    // A POST without any framing has no body; the backend must not wait for one.
    conn.send("POST /none HTTP/1.1\r\nHost: x\r\n\r\n");
    conn.read("POST").unwrap().expect(200);
    let seen = backend.seen().pop().unwrap();
    assert!(seen.all("transfer-encoding").is_empty() && seen.body.is_empty(), "{:?}", seen.lines());
}

/// A backend that answers `/KIND/SIZE`.
fn sized() -> Backend {
    Backend::scripted(|seen, stream| {
        let line = seen.request_line();
        let mut parts = line.split(' ').nth(1).unwrap().split('/').skip(1);
        let (kind, size) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
        let body = pattern(size);
        let sent = match kind {
            "known" => stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())
                .and_then(|()| stream.write_all(&body)),
            "chunked" => stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .and_then(|()| stream.write_all(&chunked(&body, 5000))),
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| stream.write_all(&body)),
        };
        if sent.is_ok() && kind != "close" { Then::Keep } else { Then::Close }
    })
}

fn answers_arrive_whole_in_every_framing(engine: Engine) {
    let backend = sized();
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    for size in SIZES {
        for kind in ["known", "chunked", "close"] {
            let answer = conn.get(&format!("/{kind}/{size}")).expect(200);
            assert!(answer.body == pattern(size), "{kind}/{size} arrived as {}", answer.body.len());
            assert_ne!(answer.framing, Framing::UntilClose, "{kind}/{size}: HTTP/1.1 connections are kept");
            let long = size > 65536;
            if kind == "known" && (!long || engine.can(Case::LongLengths)) {
                assert_eq!(answer.framing, Framing::Length(size as u64), "{kind}/{size}");
            }
        }
    }
    let until_close = SIZES.len();
    assert_eq!(backend.connections(), until_close, "only answers until close end a backend connection");
}

fn an_answer_that_breaks_off_never_looks_complete(engine: Engine) {
    if !engine.can(Case::BrokenAnswers) {
        return;
    }
    for size in [10usize, 200_000] {
        let body = pattern(size);
        let mut known = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size * 2).into_bytes();
        known.extend_from_slice(&body);
        let mut chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        chunks.extend_from_slice(&chunked(&body, 5000));
        chunks.truncate(chunks.len() - 5);
        let mut bad_chunk = chunks.clone();
        bad_chunk.extend_from_slice(b"zz\r\nwhatever");
        let mut close = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        close.extend_from_slice(&body);
        let cases = [
            ("a length, then a close", known.clone(), Then::Close),
            ("a length, then a reset", known, Then::Reset),
            ("chunks without the last, then a close", chunks.clone(), Then::Close),
            ("chunks without the last, then a reset", chunks, Then::Reset),
            ("a chunk size that is none", bad_chunk, Then::Close),
            ("until close, then a reset", close, Then::Reset),
        ];
        let told = if engine.can(Case::Resets) { cases.len() } else { cases.len() - 1 };
        for (name, bytes, then) in cases.into_iter().take(told) {
            let backend = Backend::scripted(move |_, stream| {
                let _ = stream.write_all(&bytes);
                if then == Then::Reset {
                    // A reset overtakes bytes that were not read yet; the head must be there first.
                    std::thread::sleep(Duration::from_millis(100));
                }
                then
            });
            let balancer = Setup::on(engine).backend(backend.address()).start();
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[], None));
            match conn.read("GET") {
                Ok(answer) if answer.status == 502 => {}
                Err(Fault::Truncated(_) | Fault::Malformed(_)) => {}
                other => panic!("{name}, {size} bytes: {other:?}\n{}", balancer.proc.story()),
            }
            assert!(backend.seen().len() <= 2, "{name}: sent {} times", backend.seen().len());
        }
    }
}

fn answers_that_are_no_http_are_502(engine: Engine) {
    const BARE: &str = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok";
    let mut cases = vec![
        "garbage\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\noka",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "",
    ];
    cases.extend(engine.can(Case::StrictAnswers).then_some(BARE));
    for case in cases {
        let backend = Backend::saying(case, Then::Close);
        let balancer = Setup::on(engine).backend(backend.address()).start();
        let answer = balancer.get("/");
        let problem = answer.problem(502);
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains(&backend.address().to_string()), "an internal address: {detail}");
        balancer.proc.wait_err(0, "the cause, for the operator", |line| line.contains("502"));
    }
}

fn bytes_behind_a_complete_answer_do_not_spoil_it(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    for _ in 0..3 {
        assert_eq!(conn.get("/").expect(200).text(), "ok");
    }
    assert_eq!(backend.connections(), 3, "such a connection is thrown away");
}

fn interim_answers_are_dropped(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let balancer = Setup::on(engine).backend(backend.address()).start();
    assert_eq!(balancer.get("/").expect(200).text(), "ok");

    if !engine.can(Case::Interim) {
        return;
    }
    let endless = Backend::answering("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50));
    let balancer = Setup::on(engine).backend(endless.address()).start();
    balancer.get("/").problem(502);
}

fn expect_100_continue_is_answered_by_us(engine: Engine) {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("frontend.max_body_bytes", json!(1000)).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[("Expect", "100-continue")], Some(5)));
    // Before the body is sent only the interim answer comes.
    assert_eq!(conn.read_interim().unwrap(), 100);
    conn.send("hello");
    conn.read("POST").unwrap().expect(200);
    let seen = backend.only();
    assert_eq!((seen.body.as_slice(), seen.field("expect")), (&b"hello"[..], None));

    // A refusal comes in the place of the interim answer.
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[("Expect", "100-continue")], Some(5000)));
    let answer = conn.read("POST").unwrap();
    assert!(answer.interim.is_empty(), "{answer:?}");
    answer.problem(413);
    let unknown = request(balancer.address, "GET", "/", &[("Expect", "200-ok")], b"");
    assert_eq!(unknown.status, 417, "{unknown:?}");
    assert_eq!(backend.seen().len(), 1);
}

fn a_body_beyond_the_bound_is_413(engine: Engine) {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("frontend.max_body_bytes", json!(10_000)).start();
    request(balancer.address, "POST", "/", &[], &pattern(10_000)).expect(200);
    request(balancer.address, "POST", "/", &[], &pattern(10_001)).problem(413);
    assert_eq!(backend.seen().len(), 1, "it is not sent to the backend");

    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], None));
    conn.send(chunked(&pattern(10_000), 999));
    conn.read("POST").unwrap().expect(200);
    conn.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], None));
    let _ = conn.try_send(chunked(&pattern(20_000), 999));
    conn.read("POST").unwrap().problem(413);
    assert_eq!(backend.seen().len(), 2, "a cut body was taken for a whole one");
    if engine.can(Case::ClosesAfterRefusal) {
        // The rest of that body must not be taken for a request.
        assert_eq!(conn.wait_closed().0, b"");
    }
}

fn a_slow_backend_is_504(engine: Engine) {
    let deaf = Backend::deaf();
    let balancer =
        Setup::on(engine).backend(deaf.address()).set("upstream.response_timeout", json!("200ms")).start();
    let answer = balancer.get("/");
    answer.problem(504);
    until("the backend has read it", || (!deaf.seen().is_empty()).then_some(()));
    assert_eq!(deaf.seen().len(), 1, "a request that timed out is not sent again");

    // Silence inside a body has a time-out of its own, which is not that of the head.
    let silent = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", Then::Hang);
    let setup = Setup::on(engine).backend(silent.address());
    let patient = setup.clone().set("upstream.response_timeout", json!("200ms")).start();
    let mut waiting = Conn::open(patient.address);
    waiting.send(head("GET", "/", &[], None));
    until("the backend is silent", || (silent.seen().len() == 1).then_some(()));
    let asked = Instant::now();
    // On tiny_http the longer of the two counts, and docs/engines.md says so.
    let setup = match engine {
        Engine::Epoll => setup,
        Engine::TinyHttp => setup.set("upstream.response_timeout", json!("200ms")),
    };
    let balancer = setup.set("upstream.read_timeout", json!("200ms")).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    match conn.read("GET") {
        Ok(answer) if matches!(answer.status, 502 | 504) => {}
        Err(Fault::Truncated(_) | Fault::Malformed(_)) => {}
        other => panic!("{other:?}"),
    }
    until("many times the head's limit has passed", || {
        (asked.elapsed() > Duration::from_secs(1)).then_some(())
    });
    waiting.wait_at_most(Duration::from_millis(1));
    assert!(matches!(waiting.read("GET"), Err(Fault::TimedOut)), "the other one still waits");
}

fn a_stream_arrives_as_it_is_sent(engine: Engine) {
    // The backend sends one piece, and goes on only when the client has seen it.
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        let first = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        let _ = stream.write_all(first.as_bytes());
        opened.wait();
        let _ = stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n");
        Then::Keep
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    // The gate gives up later.
    conn.wait_at_most(PATIENCE / 2);
    conn.send(head("GET", "/", &[], None));
    let answer = conn.read_head("GET").unwrap();
    let mut events = Vec::new();
    conn.read_body(answer.framing, &mut |bytes| {
        events.extend_from_slice(bytes);
        gate.open();
    })
    .unwrap();
    assert_eq!(events, b"data: 1\n\ndata: 2\n\n");
}

const GIBIBYTE: u64 = 1 << 30;
const ALLOWED_KIB: u64 = 64 * 1024;

fn a_gibibyte_each_way_moves_no_memory(engine: Engine) {
    if !engine.can(Case::Streaming) {
        return;
    }
    let backend = Backend::raw(|_, stream, _| {
        // Sends a gibibyte for a GET, and counts one for a POST without keeping it.
        let mut buffer = Vec::new();
        let mut chunk = vec![7; 1 << 20];
        while crate::support::client::find(&buffer, b"\r\n\r\n").is_none() {
            match std::io::Read::read(stream, &mut chunk) {
                Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
                _ => return Then::Close,
            }
        }
        if buffer.starts_with(b"GET") {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIBIBYTE}\r\n\r\n");
            chunk.fill(7);
            for _ in 0..GIBIBYTE >> 20 {
                if stream.write_all(&chunk).is_err() {
                    return Then::Close;
                }
            }
        } else {
            let end = crate::support::client::find(&buffer, b"\r\n\r\n").unwrap() + 4;
            let mut got = (buffer.len() - end) as u64;
            while got < GIBIBYTE {
                match std::io::Read::read(stream, &mut chunk) {
                    Ok(count) if count > 0 => got += count as u64,
                    _ => return Then::Close,
                }
            }
            let text = got.to_string();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
        Then::Close
    });
    let balancer =
        Setup::on(engine).backend(backend.address()).set("frontend.max_body_bytes", json!(GIBIBYTE)).start();
    balancer.get("/-/livez").expect(200);
    let before = balancer.proc.rss_kib();
    let mut peak = before;

    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    let answer = conn.read_head("GET").unwrap().expect(200);
    let (mut got, mut next) = (0u64, 0u64);
    conn.read_body(answer.framing, &mut |bytes| {
        got += bytes.len() as u64;
        if got >= next {
            peak = peak.max(balancer.proc.rss_kib());
            next += GIBIBYTE / 64;
        }
    })
    .unwrap();
    assert_eq!(got, GIBIBYTE);
    assert!(peak - before < ALLOWED_KIB, "a download moved the resident size from {before} to {peak} KiB");

    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[], Some(GIBIBYTE as usize)));
    let chunk = vec![7; 1 << 20];
    for i in 0..GIBIBYTE >> 20 {
        conn.send(&chunk);
        if i % 16 == 0 {
            peak = peak.max(balancer.proc.rss_kib());
        }
    }
    assert_eq!(conn.read("POST").unwrap().expect(200).text(), GIBIBYTE.to_string());
    assert!(peak - before < ALLOWED_KIB, "an upload moved the resident size from {before} to {peak} KiB");
}
