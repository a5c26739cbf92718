//! The access log: one JSON line for each request, on stdout or in a file.

use std::io::{BufRead, BufReader};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::backend::refusing;
use crate::support::balancer::{PROGRAM, listening};
use crate::support::{Backend, Conn, Proc, Setup, pipe, request, until};

/// The lines so far that are JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[test]
fn a_line_a_request_on_stdout() {
    let backend = Backend::named("hello");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("log.access", json!(true))
        .set("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0 }))
        .start();
    let secret = [("Authorization", "Bearer hunter2")];
    let first = request(balancer.address, "POST", "/a?token=hunter2", &secret, b"hunter2").expect(200);
    // A line is written when its answer was sent, which a quick client may be ahead of.
    until("the line is there", || (lines(&balancer.proc.out()).len() == 1).then_some(()));
    balancer.get("/b").problem(429);
    let seen = until("both lines are there", || {
        let seen = lines(&balancer.proc.out());
        (seen.len() == 2).then_some(seen)
    });
    assert!(!balancer.proc.out().contains("hunter2"), "{}", balancer.proc.out());
    let (allowed, denied) = (&seen[0], &seen[1]);
    let expected = json!({
        "method": "POST", "path": "/a", "status": 200, "bytes": 5, "backend": "a", "retries": 0, "limit_entry": "default",
        "limit_decision": "allowed", "request_id": first.field("x-request-id"),
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&allowed[member], value, "{member} in {allowed}");
    }
    assert_eq!((&denied["status"], &denied["backend"]), (&json!(429), &Value::Null), "{denied}");
    assert_eq!(denied["limit_decision"], "denied", "{denied}");
    for line in &seen {
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["duration"].as_f64().is_some_and(|seconds| (0.0..30.0).contains(&seconds)), "{line}");
    }
}

#[test]
fn a_file_can_be_renamed_away_and_is_opened_again() {
    let backend = Backend::named("hello");
    let setup = Setup::auto().backend(backend.address()).set("log.access", json!("file:logs/access.log"));
    let balancer = setup.start();
    let file = setup.folder().join("logs/access.log");
    let moved = setup.folder().join("logs/access.log.1");
    let count = |path: &std::path::Path| lines(&std::fs::read_to_string(path).unwrap_or_default()).len();
    balancer.get("/1").expect(200);
    until("the line is there", || (count(&file) == 1).then_some(()));
    std::fs::rename(&file, &moved).unwrap();
    balancer.proc.signal(Signal::USR1);
    until("the file is there again", || file.exists().then_some(()));
    balancer.get("/2").expect(200);
    until("the next line is in it", || (count(&file) == 1).then_some(()));
    assert_eq!(count(&moved), 1);
    assert!(lines(&balancer.proc.out()).is_empty(), "{}", balancer.proc.out());
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let backend = Backend::named("hello");
    let mut balancer = Setup::auto().backend(backend.address()).set("log.access", json!(true)).start();
    for _ in 0..200 {
        balancer.get("/").expect(200);
    }
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.err());
    assert_eq!(lines(&balancer.proc.out()).len(), 200);
}

/// The format that every log tool reads. It has what the client says of itself, and leaves out its secrets.
#[test]
fn combined_lines_are_apaches() {
    let backend = Backend::named("hello");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("log.access", json!(true))
        .set("log.access_format", json!("combined"))
        .start();
    let fields = [
        ("Authorization", "Bearer hunter2"),
        ("Cookie", "session=hunter2"),
        ("Referer", "http://shop.example/cart?e=f"),
        ("User-Agent", "tester/1.0 \"quoted\"\u{9b}31m"),
    ];
    request(balancer.address, "GET", "/a?b=c&d", &fields, b"").expect(200);
    let line = balancer.proc.wait_out("GET /a");
    let (before, after) = line.split_once(" [").expect("a time in brackets");
    let (time, rest) = after.split_once("] ").expect("its end");
    assert_eq!(before, "127.0.0.1 - -");
    assert!(time.ends_with(" +0000") && time.len() == 26, "{time}");
    assert_eq!(
        rest,
        r#""GET /a?b=c&d HTTP/1.1" 200 5 "http://shop.example/cart?e=f" "tester/1.0 \x22quoted\x22\xC2\x9B31m""#
    );
    // `Aladdin:hunter2`: the name alone (RFC 7617), as Apache logs it.
    let basic = [("Authorization", "Basic QWxhZGRpbjpodW50ZXIy")];
    request(balancer.address, "GET", "/user", &basic, b"").expect(200);
    let line = balancer.proc.wait_out("GET /user");
    assert!(line.starts_with("127.0.0.1 - Aladdin ["), "{line}");
    assert!(!balancer.proc.out().contains("QWxh"), "{}", balancer.proc.out());
    assert!(!balancer.proc.out().contains("hunter2"), "{}", balancer.proc.out());
}

/// Each format has its usual way with queries, and `log.query` says otherwise.
#[test]
fn queries_are_logged_as_asked() {
    let backend = Backend::named("hello");
    for (format, query, shown) in [
        ("json", Value::Null, false),
        ("json", json!(true), true),
        ("json", json!(false), false),
        ("combined", Value::Null, true),
        ("combined", json!(false), false),
        ("combined", json!(true), true),
    ] {
        let balancer = Setup::auto()
            .backend(backend.address())
            .set("log.access", json!(true))
            .set("log.access_format", json!(format))
            .set("log.query", query.clone())
            .start();
        let fields = [("Referer", "http://shop.example/cart?in=referer")];
        request(balancer.address, "GET", "/path?in=target", &fields, b"").expect(200);
        let line = balancer.proc.wait_out("/path");
        assert_eq!(line.contains("/path?in=target"), shown, "{format} {query}: {line}");
        assert_eq!(line.contains("?in=referer"), shown && format == "combined", "{format} {query}: {line}");
    }
}

/// A disk without room costs lines, never a request, and the operator is told how many.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_slows_no_request_and_the_lost_lines_are_said() {
    let backend = Backend::named("hello");
    let mut balancer =
        Setup::auto().backend(backend.address()).set("log.access", json!("file:/dev/full")).start();
    for _ in 0..50 {
        balancer.get("/").expect(200);
    }
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.err());
    let said = balancer.proc.err();
    assert!(said.contains("access log: cannot be written"), "{said}");
    let lost: u64 = said
        .lines()
        .filter_map(|line| {
            line.split_once("access log: lines dropped: ")?.1.split(';').next()?.parse::<u64>().ok()
        })
        .sum();
    assert_eq!(lost, 50, "{said}");
}

/// Nobody reads our stdout: lines fill the pipe and then the queue, and every request is answered all the same.
#[test]
fn a_stuck_pipe_slows_no_request_and_the_lost_lines_are_said() {
    let backend = Backend::named("hello");
    // Refusals make lines fastest.
    let limit = json!({ "capacity": 1, "rate_per_sec": 0.001 });
    let setup = Setup::auto()
        .backend(backend.address())
        .set("log.access", json!(true))
        .set("rate_limit.default", limit);
    setup.write();
    // Its stdout is a pipe of which this test reads one line.
    let reader = pipe(&setup.folder().join("stdout"));
    let args = ["-c", "exec \"$0\" run --config config.json >stdout", PROGRAM];
    let balancer = Proc::start("sh", &args, setup.folder(), &[]);
    let mut line = String::new();
    BufReader::with_capacity(16, &reader).read_line(&mut line).expect("a line");
    let address = listening(&line);
    let mut asked = 0;
    until("lines are dropped", || {
        let mut conn = Conn::open(address);
        for _ in 0..10 {
            conn.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
            for _ in 0..100 {
                let status = conn.read("GET").expect("an answer").status;
                assert!(status == 429 || asked == 0, "{status}");
                asked += 1;
            }
        }
        balancer.err().contains("access log: lines dropped: ").then_some(())
    });
    assert!(asked > 16_384, "the queue took {asked}");
}

/// With `log.format` "json" every line on stderr is an object as well.
#[test]
fn the_error_log_can_be_objects() {
    let balancer = Setup::auto().backend(refusing()).set("log.format", json!("json")).start();
    let id = balancer.get("/x").field("x-request-id").map(str::to_owned).expect("an id");
    let (_, line) = balancer.proc.wait_err(0, "the cause", |line| line.contains(&id));
    let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    assert_eq!(entry["level"], "warn", "{line}");
    assert!(entry["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    assert!(entry["message"].as_str().is_some_and(|text| text.contains("answered 502")), "{line}");
    for line in balancer.proc.err().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line:?}");
    }
}
