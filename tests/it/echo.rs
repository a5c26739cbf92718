//! `test_backend`, the echo server for trying things out.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::balancer::Echo;
use crate::support::{Framing, get, request, until};

#[test]
fn it_echoes_method_target_and_message() {
    let echo = Echo::start(&["--name", "a"]);
    let cases: &[(&str, &str, &[u8], serde_json::Value)] = &[
        ("GET", "/", b"", json!(null)),
        ("POST", "/x?y=1", br#"{"exaple":123}"#, json!({ "exaple": 123 })),
        ("PUT", "/", b"not json", json!("not json")),
        ("DELETE", "/", b"[1,2]", json!([1, 2])),
        ("PATCH", "/", b"\xff", json!("\u{fffd}")),
    ];
    for (method, target, body, message) in cases {
        let answer = request(echo.address, method, target, &[], body).expect(200);
        let expected = json!({ "http_method": method, "request_uri": target, "your_message": message });
        assert_eq!(answer.json(), expected);
        assert_eq!(answer.field("x-backend"), Some("a"));
    }
    let head = request(echo.address, "HEAD", "/", &[], b"").expect(200);
    assert_eq!(head.framing, Framing::None);
}

#[test]
fn it_can_be_slow_failing_large_and_chunked() {
    let slow = Echo::start(&["--delay", "150ms"]);
    let start = Instant::now();
    get(slow.address, "/").expect(200);
    assert!(start.elapsed() >= Duration::from_millis(150));

    let failing = Echo::start(&["--fail-health", "--health-path", "/health"]);
    get(failing.address, "/health").expect(503);
    get(failing.address, "/").expect(200);
    failing.proc.signal(Signal::USR1);
    until("its health path passes", || (get(failing.address, "/health").status == 200).then_some(()));

    let large = Echo::start(&["--size", "100000", "--chunked", "--status", "207"]);
    let answer = get(large.address, "/").expect(207);
    assert_eq!((answer.body.len(), answer.framing), (100_000, Framing::Chunked));
}

#[test]
fn it_ends_with_0_on_sigterm() {
    let mut echo = Echo::start(&[]);
    echo.proc.signal(Signal::TERM);
    assert_eq!(echo.proc.wait().code(), Some(0), "{}", echo.proc.story());
}
