//! One JSON line a request, on stdout or in a file.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Setup, request, until};

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
