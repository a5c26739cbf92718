//! Answers of backends that are not as RFC 9112 wants them: which are accepted as they are meant, which only with
//! `upstream.accept_invalid`, and how large a head may be. What is accepted reaches the client well-formed.

use std::io::Write;

use serde_json::json;

use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Conn, Engine, Framing, Setup, Then, request};

each_engine! {
    a_204_that_announces_a_body_is_a_204,
    interim_answers_that_announce_a_body_have_none,
    answers_without_a_body_leave_the_connection_as_they_found_it,
    what_harms_nobody_is_taken,
    invalid_answers_are_taken_when_asked_for_and_the_log_says_how,
    a_health_check_takes_what_a_request_takes,
    the_bounds_of_a_head_are_keys,
}

/// Answers `/N` with the N-th text, for ever on one connection.
pub fn numbered(texts: Vec<Vec<u8>>) -> Backend {
    Backend::scripted(move |seen, stream| {
        let line = seen.request_line();
        let number = line.split(' ').nth(1).and_then(|target| target.strip_prefix('/')?.parse().ok());
        let _ = match number.and_then(|number: usize| texts.get(number)) {
            Some(text) => stream.write_all(text),
            None => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast"),
        };
        Then::Keep
    })
}

pub fn texts(rows: &[&str]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row.as_bytes().to_vec()).collect()
}

/// How many attempts at backends the metrics count with that code.
fn attempts(balancer: &Balancer, code: &str) -> u64 {
    let text = balancer.api("GET", "/-/metrics", &json!(null)).expect(200).text();
    let label = format!("code=\"{code}\"");
    text.lines()
        .filter(|line| line.starts_with("balancer_backend_requests_total{") && line.contains(&label))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn a_204_that_announces_a_body_is_a_204(engine: Engine) {
    if !engine.can(Case::StrictAnswers) {
        return;
    }
    const ANNOUNCED: &[&str] = &[
        "Content-Length: 5\r\n\r\n",
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "Content-Length: none\r\n\r\n",
    ];
    let answers = |_| {
        let answer = |rest| format!("HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n{rest}").into_bytes();
        numbered(ANNOUNCED.iter().map(answer).collect())
    };
    let backends: Vec<Backend> = (0..2).map(answers).collect();
    let balancer = Setup::on(engine)
        .one_loop()
        .backend(backends[0].address())
        .backend(backends[1].address())
        .set("outlier", json!({ "consecutive": 1 }))
        .start();
    let mut conn = Conn::open(balancer.address);
    for (number, announced) in ANNOUNCED.iter().enumerate() {
        for method in ["GET", "DELETE", "POST"] {
            let answer = conn.ask(method, &format!("/{number}"), &[], b"").expect(204);
            assert_eq!(answer.field("x-kept"), Some("1"));
            for gone in ["content-length", "transfer-encoding"] {
                assert!(answer.field(gone).is_none(), "{method} {announced:?}: {answer:?}");
            }
        }
    }
    let asked = 3 * ANNOUNCED.len();
    let seen: usize = backends.iter().map(|backend| backend.seen().len()).sum();
    let connections: usize = backends.iter().map(Backend::connections).sum();
    assert_eq!((seen, connections), (asked, asked), "sent once each, and no connection used again");
    assert_eq!((attempts(&balancer, "204"), attempts(&balancer, "error")), (asked as u64, 0));
    assert_eq!(conn.get("/last").expect(200).text(), "last");

    // A body of no bytes is no body: the connection is kept.
    let backend = numbered(texts(&["HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"]));
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    for _ in 0..3 {
        assert!(balancer.get("/0").expect(204).field("content-length").is_none());
    }
    assert_eq!(backend.connections(), 1);
}

fn interim_answers_that_announce_a_body_have_none(engine: Engine) {
    if !engine.can(Case::Interim) {
        return;
    }
    const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let backend = numbered(
        ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0"]
            .iter()
            .map(|field| format!("HTTP/1.1 103 Early Hints\r\n{field}\r\n\r\n{LAST}").into_bytes())
            .collect(),
    );
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    for (number, connections) in [(0, 1), (1, 2), (2, 3), (2, 3)] {
        assert_eq!(balancer.get(&format!("/{number}")).expect(200).text(), "ok", "{number}");
        assert_eq!(backend.connections(), connections, "{number}");
    }
    assert_eq!(attempts(&balancer, "error"), 0);

    // An interim answer with the body that it announced can't be understood.
    let backend = Backend::answering(format!("HTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\nhello{LAST}"));
    Setup::on(engine).backend(backend.address()).start().get("/").problem(502);
}

/// Bytes behind an answer without a body are never taken for the next answer. A 205 is framed as any other answer.
fn answers_without_a_body_leave_the_connection_as_they_found_it(engine: Engine) {
    let backend = numbered(texts(&[
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello",
        // From here on they have a body where none may be: the connection is thrown away.
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]));
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    // Status, length told to the client, body, backend connections so far.
    let rows = [
        ("GET", 304, Some("5"), "", 1),
        ("GET", 304, None, "", 1),
        ("HEAD", 200, Some("5"), "", 1),
        ("HEAD", 200, None, "", 1),
        ("GET", 205, Some("0"), "", 1),
        ("GET", 205, None, "", 1),
        ("GET", 205, Some("5"), "hello", 1),
        ("GET", 304, Some("5"), "", 1),
        ("GET", 304, None, "", 2),
        ("HEAD", 200, Some("5"), "", 3),
        ("HEAD", 200, None, "", 4),
        ("GET", 200, Some("4"), "last", 5),
    ];
    for (number, (method, status, length, body, connections)) in rows.into_iter().enumerate() {
        let answer = conn.ask(method, &format!("/{number}"), &[], b"").expect(status);
        assert_eq!((answer.field("content-length"), answer.text().as_str()), (length, body), "{number}");
        assert_eq!(backend.connections(), connections, "{number}");
    }
    assert_eq!((backend.seen().len(), attempts(&balancer, "error")), (rows.len(), 0));
}

fn what_harms_nobody_is_taken(engine: Engine) {
    if !engine.can(Case::StrictAnswers) {
        return;
    }
    let backend = numbered(texts(&[
        "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\t \r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5   \t\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 ;x=y\r\nhello\r\n0\r\n\r\n",
    ]));
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    for number in 0..5 {
        assert_eq!(balancer.get(&format!("/{number}")).expect(200).text(), "hello", "{number}");
    }
    assert_eq!(backend.connections(), 1, "and the connection is kept");
}

/// What stands in the log without the key, the answer, and what of it reaches the client with the key: status, a field
/// `X`, the body.
type Invalid = (&'static str, &'static str, u16, Option<&'static str>, &'static str);

const INVALID: &[Invalid] = &[
    ("line feed", "HTTP/1.1 200 OK\nX: y\nContent-Length: 5\n\nhello", 200, Some("y"), "hello"),
    ("line feed", "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\nhello", 200, Some("y"), "hello"),
    ("line feed", "HTTP/1.1 200\nContent-Length: 5\r\n\r\nhello", 200, None, "hello"),
    (
        "folded",
        "HTTP/1.1 200 OK\r\nX: a\r\n \t b \r\nContent-Length: 5\r\n\r\nhello",
        200,
        Some("a b"),
        "hello",
    ),
    (
        "folded",
        "HTTP/1.1 200 OK\r\nX:\r\n\ta\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        200,
        Some("a b"),
        "hello",
    ),
    (
        "folded",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length:\r\n 5\r\n\r\nhello",
        200,
        Some("a b"),
        "hello",
    ),
    ("599", "HTTP/1.1 600 High\r\nContent-Length: 5\r\n\r\nhello", 600, None, "hello"),
    ("599", "HTTP/1.1 999 Request denied\r\nContent-Length: 5\r\n\r\nhello", 999, None, "hello"),
    (
        "coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        None,
        "hello",
    ),
    (
        "coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: , chunked ,,\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        None,
        "hello",
    ),
    (
        "in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        None,
        "hello",
    ),
    (
        "in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        None,
        "hello",
    ),
    ("colon", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length\t: 5\r\n\r\nhello", 200, Some("y"), "hello"),
    (
        "colon",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        None,
        "hello",
    ),
];

/// These stay a 502 with the key as well: two parsers could read the same bytes differently.
const REFUSED: &[&str] = &[
    "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 0\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\rX: y\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: a\r\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\n : a\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 1000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/0.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
];

fn invalid_answers_are_taken_when_asked_for_and_the_log_says_how(engine: Engine) {
    if !engine.can(Case::StrictAnswers) {
        return;
    }
    let rows: Vec<&str> = INVALID.iter().map(|row| row.1).chain(REFUSED.iter().copied()).collect();
    let backend = numbered(texts(&rows));
    let setup = Setup::on(engine).one_loop().backend(backend.address());
    let strict = setup.start();
    let mut skip = 0;
    let mut last = "";
    for (number, (word, wire, ..)) in INVALID.iter().enumerate() {
        strict.get(&format!("/{number}")).problem(502);
        // A cause that comes again within ten seconds is not logged again.
        if *word != last {
            let names_it = |line: &str| {
                line.contains(" 502: ") && line.contains("upstream.accept_invalid") && line.contains(word)
            };
            skip = strict.proc.wait_err(skip, &format!("the key for {wire:?}"), names_it).0;
        }
        last = word;
    }
    let lenient = setup.clone().set("upstream.accept_invalid", json!(true)).start();
    for (number, (_, wire, status, field, body)) in INVALID.iter().enumerate() {
        let mut conn = Conn::open(lenient.address);
        let answer = conn.get(&format!("/{number}")).expect(*status);
        assert_eq!((answer.field("x"), answer.text().as_str()), (*field, *body), "{wire:?}");
        let framings = answer.all("content-length").len() + answer.all("transfer-encoding").len();
        assert_eq!(framings, 1, "{wire:?}: {answer:?}");
        assert_ne!(answer.framing, Framing::UntilClose, "{wire:?}");
        if engine.can(Case::Reasons) && *status == 999 {
            assert_eq!(answer.reason, "Request denied");
        }
    }
    let connections = backend.connections();
    // HTTP/1.0 knows no transfer codings: after such an answer the connection is closed, whatever its fields say.
    assert_eq!(lenient.get("/11").expect(200).text(), "hello");
    assert_eq!(backend.connections(), connections, "the last answer's connection was kept");
    assert_eq!(lenient.get("/11").expect(200).text(), "hello");
    assert_eq!(backend.connections(), connections + 1);
    for number in INVALID.len()..rows.len() {
        lenient.get(&format!("/{number}")).problem(502);
    }
}

/// Only the loops know upgrades.
#[test]
fn an_upgrade_may_be_answered_with_bare_line_feeds_and_blanks_before_colons() {
    let backend = Backend::scripted(|_, stream| {
        let head = "HTTP/1.1 101 Switching Protocols\nUpgrade : websocket\nConnection : Upgrade\nContent-Length: 0\n\nhi";
        let _ = stream.write_all(head.as_bytes());
        Then::Hang
    });
    let setup = Setup::on(Engine::Epoll).backend(backend.address());
    let balancer = setup.set("upstream.accept_invalid", json!(true)).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let answer = conn.read_head("GET").unwrap().expect(101);
    assert_eq!(answer.all("upgrade"), ["websocket"]);
    assert!(answer.field("content-length").is_none(), "{answer:?}");
    let mut early = Vec::new();
    conn.exactly(2, &mut |bytes| early.extend_from_slice(bytes)).unwrap();
    assert_eq!(early, b"hi");
}

fn a_health_check_takes_what_a_request_takes(engine: Engine) {
    let ready = |setup: &Setup| {
        let balancer = setup.start();
        request(balancer.admin, "GET", "/-/readyz", &[], b"").status
    };
    let setup = |answer: &str| {
        let backend = Backend::answering(answer);
        let setup = Setup::on(engine)
            .backend(backend.address())
            .set("health_check", json!({ "interval": "1h", "timeout": "20s", "expect": "200-399" }));
        (backend, setup)
    };
    if engine.can(Case::Checks) {
        let (_backend, newer) = setup("HTTP/1.3 204 No Content\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(ready(&newer), 200);
        let (_backend, old) = setup("HTTP/1.1 200 OK\nX : y\nContent-Length: 0\n\n");
        assert_eq!(ready(&old), 503);
        assert_eq!(ready(&old.set("upstream.accept_invalid", json!(true))), 200);
    }
    let (_backend, wordy) = setup(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(30_000)));
    assert_eq!(ready(&wordy), 200);
    assert_eq!(ready(&wordy.set("upstream.max_head_bytes", json!(20_000))), 503);
}

fn the_bounds_of_a_head_are_keys(engine: Engine) {
    let head = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let of_bytes = |bytes: usize| {
        let rest = head("X: \r\n".to_owned()).len() - 2;
        head(format!("X: {}\r\n", "y".repeat(bytes - rest)))
    };
    let of_fields = |fields: usize| head("X: y\r\n".repeat(fields - 1));
    let (low, high) = ([of_bytes(32_768), of_bytes(32_769)], [of_bytes(300_000), of_fields(1000)]);
    let answers = [&low[..], &[of_fields(256), of_fields(257)], &high, &[of_fields(3)]].concat();
    let backend = numbered(answers.into_iter().map(String::into_bytes).collect());
    let setup = Setup::on(engine).backend(backend.address());
    let fits = |balancer: &Balancer, number: usize, fields: usize| {
        let answer = balancer.get(&format!("/{number}")).expect(200);
        assert_eq!((answer.text().as_str(), answer.all("x").len()), ("ok", fields), "{number}");
    };
    let refuses = |balancer: &Balancer, number: usize, key: &str| {
        balancer.get(&format!("/{number}")).problem(502);
        balancer.proc.wait_err(0, key, |line| line.contains(" 502: ") && line.contains(key));
    };
    let narrow = setup.clone().set("upstream.max_head_bytes", json!(1024));
    let narrow = narrow.set("upstream.max_headers", json!(2)).start();
    refuses(&narrow, 0, "upstream.max_head_bytes");
    refuses(&narrow, 6, "upstream.max_headers");
    assert_eq!(narrow.get("/last").expect(200).text(), "last");
    let shipped = setup.start();
    fits(&shipped, 0, 1);
    refuses(&shipped, 1, "upstream.max_head_bytes");
    if !engine.can(Case::AnswerBounds) {
        return;
    }
    fits(&shipped, 2, 255);
    refuses(&shipped, 3, "upstream.max_headers");
    let wide = setup.set("upstream.max_head_bytes", json!(400_000)).set("upstream.max_headers", json!(1000));
    let wide = wide.start();
    fits(&wide, 4, 1);
    fits(&wide, 5, 999);
}
