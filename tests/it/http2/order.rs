//! The order of frames on a connection: cases of RFC 9113 in which frames depend on answers.

use super::cases::{ACK, CLOSED, all, ask, post, reset, setting};
use super::{setup, until_empty};
use crate::support::Backend;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, PING, PROTOCOL_ERROR, RESET, SETTINGS,
    WINDOW_UPDATE, frame, get,
};

#[test]
fn we_begin_with_settings_and_answer_pings_and_settings() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    let first = frames.next().expect("a frame");
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0), "§3.4");
    let second = frames.wait(SETTINGS);
    assert_eq!((second.flags, second.payload.len()), (ACK, 0), "§6.5.3");
    // An acknowledgement is not answered, so the next answer is that of the second (§6.7).
    frames.send(&all([frame(PING, ACK, 0, b"not this"), frame(PING, 0, 0, b"but this")]));
    let pong = frames.wait(PING);
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"but this"[..]));
}

#[test]
fn streams_that_are_over_take_no_more() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = setup().backend(backend.address()).start();
    let rows: [(&str, Vec<u8>, &[u32]); 4] = [
        ("DATA", frame(DATA, END_STREAM, 1, b"x"), &[CLOSED]),
        ("HEADERS", ask(1, "/"), &[CLOSED, PROTOCOL_ERROR]),
        ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &get("/", &[])), &[CLOSED, PROTOCOL_ERROR]),
        ("a lower stream", ask(1, "/"), &[CLOSED, PROTOCOL_ERROR]),
    ];
    for (what, bytes, codes) in rows {
        for is_reset in [false, true] {
            let frames = Frames::open(balancer.address);
            if is_reset && what == "DATA" {
                // What was on its way when a reset came is dropped in silence (§5.1).
                continue;
            }
            if is_reset {
                frames.send(&all([post(1, &[]), reset(1, 8)]));
            } else {
                assert_eq!(frames.ask(1, &get("/", &[])), Ok(200));
                while frames.wait(DATA).flags & END_STREAM == 0 {}
            }
            if what == "a lower stream" {
                assert_eq!(frames.ask(3, &get("/-/livez", &[])), Ok(200));
            }
            frames.send(&bytes);
            let code = loop {
                match frames.next().expect("a word") {
                    next if matches!(next.kind, RESET | GOAWAY) => break next.error(),
                    _ => {}
                }
            };
            assert!(codes.contains(&code), "{what} {is_reset}: {code}");
        }
    }
    until_empty(&balancer);
}

#[test]
fn windows_are_kept_to_when_they_change() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
    let balancer = setup().backend(backend.address()).start();
    let frames = Frames::open(balancer.address);
    // §6.9.2: three bytes, and three more when the initial window is made larger.
    frames.send(&all([setting(4, 3), ask(1, "/")]));
    assert_eq!(frames.wait(DATA).payload, b"012");
    frames.send(&setting(4, 6));
    assert_eq!(frames.wait(DATA).payload, b"345");
    // Made smaller, the window is negative, and updates are added to that.
    frames.send(&all([setting(4, 0), frame(WINDOW_UPDATE, 0, 1, &7u32.to_be_bytes())]));
    assert_eq!(frames.wait(DATA).payload, b"6");
    frames.send(&frame(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes()));
    let last = frames.wait(DATA);
    assert_eq!((&last.payload[..], last.flags & END_STREAM), (&b"789"[..], END_STREAM));
}
