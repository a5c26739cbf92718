//! Floods and faults: each ends its connection, memory does not grow, and others are served meanwhile.

use serde_json::json;

use super::{setup, until_empty};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, PING, PREFACE, PRIORITY,
    RESET, SETTINGS, WINDOW_UPDATE, frame, get,
};
use crate::support::{Backend, Balancer, Setup};

/// Enough to find any of these floods.
const MANY: u32 = 200_000;
/// What a flood may cost beside the bounds of one connection.
const MOST_KIB: u64 = 8 * 1024;

/// No connection ends because it is slow or idle, so that a flood that is not found leaves one behind.
fn started() -> (Backend, Balancer) {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let timeouts = ["head_timeout", "body_timeout", "idle_timeout", "write_timeout"];
    let patient = |setup: Setup, name| setup.set(&format!("frontend.{name}"), json!("10m"));
    let setup = timeouts.into_iter().fold(setup(), patient).set("frontend.min_bytes_per_sec", json!(0));
    let balancer = setup.backend(backend.address()).start();
    (backend, balancer)
}

/// Sends frames until the other side takes no more, or all were sent.
fn flood(frames: &Frames, make: impl Fn(u32) -> Vec<u8>) {
    for batch in 0..MANY / 100 {
        let bytes: Vec<u8> = (0..100).flat_map(|n| make(batch * 100 + n)).collect();
        if !frames.send(&bytes) {
            return;
        }
    }
}

#[test]
fn floods_end_their_connection_and_cost_no_memory() {
    type Make = Box<dyn Fn(u32) -> Vec<u8>>;
    let id = |n: u32| 2 * n + 1;
    let rows: Vec<(&str, Option<&str>, Make)> = vec![
        ("settings", Some("settings"), Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
        ("ping", Some("ping"), Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        ("priority", Some("priority"), Box::new(move |n| frame(PRIORITY, 0, id(n), &[0, 0, 0, 0, 1]))),
        ("unknown kinds", Some("other"), Box::new(|_| frame(0xfa, 0, 0, &[1; 16]))),
        (
            "rapid reset",
            None,
            Box::new(move |n| {
                let head = frame(HEADERS, END_STREAM | END_HEADERS, id(n), &get("/", &[]));
                [head, frame(RESET, 0, id(n), &8u32.to_be_bytes())].concat()
            }),
        ),
        (
            "resets that we are made to send",
            None,
            // A window that overflows (the MadeYouReset attack).
            Box::new(move |n| {
                let head = frame(HEADERS, END_HEADERS, id(n), &get("/", &[]));
                [head, frame(WINDOW_UPDATE, 0, id(n), &0x7fff_ffff_u32.to_be_bytes())].concat()
            }),
        ),
        (
            "a head without end",
            None,
            Box::new(|n| {
                if n == 0 {
                    frame(HEADERS, END_STREAM, 1, &get("/", &[]))
                } else {
                    frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'])
                }
            }),
        ),
        (
            "empty data",
            None,
            Box::new(|n| {
                if n == 0 { frame(HEADERS, END_HEADERS, 1, &get("/", &[])) } else { frame(DATA, 0, 1, &[]) }
            }),
        ),
    ];
    let (_backend, balancer) = started();
    balancer.get("/").expect(200);
    for (what, kind, make) in rows {
        let before = balancer.proc.rss_kib();
        let frames = Frames::open(balancer.address);
        flood(&frames, make);
        let code = frames.end();
        // Frames that are still on their way cause a reset, in which the GOAWAY may get lost.
        assert!(code.is_none() || code == Some(ENHANCE_YOUR_CALM), "{what}: {code:?}");
        balancer.get("/").expect(200);
        until_empty(&balancer);
        let grown = balancer.proc.rss_kib().saturating_sub(before);
        assert!(grown < MOST_KIB, "{what}: {grown} KiB more");
        if let Some(kind) = kind {
            let counted = balancer.metric(&format!("balancer_http2_abuse_total{{kind=\"{kind}\"}}"));
            assert!(counted >= 1.0, "{what} is counted");
        }
    }
}

#[test]
fn a_flood_is_told_to_calm_down() {
    let (_backend, balancer) = started();
    let frames = Frames::open(balancer.address);
    // One frame more than may come at once, and nothing behind it that would cause a reset.
    frames.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(1_001));
    assert_eq!(frames.end(), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn a_beginning_may_be_cut_anywhere() {
    let (_backend, balancer) = started();
    let whole =
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/", &[]))]
            .concat();
    for cut in 0..whole.len() {
        let frames = Frames::silent(balancer.address);
        frames.send(&whole[..cut]);
        if cut % 2 == 0 {
            let _ = frames.stream.shutdown(std::net::Shutdown::Write);
            frames.end();
        }
    }
    for byte in 0..PREFACE.len() {
        let mut wrong = whole.clone();
        wrong[byte] ^= 0x20;
        let frames = Frames::silent(balancer.address);
        frames.send(&wrong);
        let _ = frames.stream.shutdown(std::net::Shutdown::Write);
        frames.end();
    }
    assert_eq!(Frames::open(balancer.address).ask(1, &get("/", &[])), Ok(200));
    until_empty(&balancer);
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
}

#[test]
fn frames_that_are_wrong_end_the_connection() {
    let (_backend, balancer) = started();
    let rows: &[(&str, Vec<u8>)] = &[
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        ("an acknowledgement with a payload", frame(SETTINGS, 1, 0, &[0; 6])),
        ("a window that is too large", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a window of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a reset of three bytes", frame(RESET, 0, 1, &[0; 3])),
        ("a reset of no stream", frame(RESET, 0, 0, &[0; 4])),
        ("a reset of a stream that never was", frame(RESET, 0, 7, &[0; 4])),
        ("a head of no stream", frame(HEADERS, END_STREAM | END_HEADERS, 0, &get("/", &[]))),
        ("a head of an even stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, &get("/", &[]))),
        ("a head that can't be read", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 8])),
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data of a stream that never was", frame(DATA, 0, 1, b"x")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385])),
    ];
    for (what, bytes) in rows {
        let frames = Frames::open(balancer.address);
        frames.send(bytes);
        let _ = frames.stream.shutdown(std::net::Shutdown::Write);
        let code = frames.end();
        assert!(code.is_some_and(|code| code != 0), "{what}: {code:?}");
        balancer.get("/").expect(200);
    }
    until_empty(&balancer);
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
}
