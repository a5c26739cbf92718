//! Bytes that lenient parsers trim or take for blanks, at every place of a head. `epoll` refuses each of them; the crate
//! behind `tiny_http` trims some before we see them. What it trims is listed here, and in the table of
//! docs/engines.md.

use std::time::Duration;

use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Conn, Engine, Fault, PATIENCE, Setup};

each_engine! {
    only_what_the_crate_hides_is_taken,
    a_chunked_body_beside_an_upgrade_is_refused_or_read,
}

/// Where a byte is put.
const PLACES: [(&str, &str, &str); 9] = [
    ("line start", "GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n\r\n"),
    ("name end", "GET / HTTP/1.1\r\nHost: a\r\nX", ": y\r\n\r\n"),
    ("value start", "GET / HTTP/1.1\r\nHost: a\r\nX:", "y\r\n\r\n"),
    ("inside a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y", "z\r\n\r\n"),
    ("value end", "GET / HTTP/1.1\r\nHost: a\r\nX: y", "\r\n\r\n"),
    ("coding start", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ", "chunked\r\n\r\n0\r\n\r\n"),
    ("length end", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", "\r\n\r\n"),
    ("target end", "GET /", " HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("version end", "GET / HTTP/1.1", "\r\nHost: a\r\n\r\n"),
];

/// Vertical tab, form feed, bare CR and LF, NUL, a separator, escape, DEL; NEL, no-break space and line separator as UTF-8.
const BYTES: [&str; 11] =
    ["\x0b", "\x0c", "\r", "\n", "\0", "\x1c", "\x1b", "\x7f", "\u{85}", "\u{a0}", "\u{2028}"];

/// What the crate trims: at both ends of the request line, of a field line and of a value.
fn is_hidden(byte: &str, place: &str) -> bool {
    let trims = ["line start", "value start", "value end", "coding start", "length end", "version end"];
    ["\x0b", "\x0c", "\r", "\n"].contains(&byte) && trims.contains(&place)
}

/// The status of the answer; 0 when the connection ends without one, or nothing comes in that time.
fn status(balancer: &Balancer, bytes: &str, patience: Duration) -> u16 {
    let mut conn = Conn::open(balancer.address);
    let _ = conn.try_send(bytes);
    conn.finish();
    conn.wait_at_most(patience);
    match conn.read("GET") {
        Ok(answer) => answer.status,
        Err(Fault::Closed | Fault::Reset | Fault::TimedOut) => 0,
        Err(fault) => panic!("{fault:?} for {bytes:?}"),
    }
}

fn only_what_the_crate_hides_is_taken(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let strict = engine.can(Case::FieldEnds);
    // The crate leaves some connections open, and never says a word.
    let patience = if strict { PATIENCE } else { Duration::from_secs(2) };
    let mut wrong = Vec::new();
    for byte in BYTES {
        for (place, before, behind) in PLACES {
            // Any text may stand in a value (RFC 9110 §5.5).
            if !byte.is_ascii() && place.contains("value") {
                continue;
            }
            let status = status(&balancer, &format!("{before}{byte}{behind}"), patience);
            let fits = match status {
                200 => !strict && is_hidden(byte, place),
                400 => true,
                0 => !strict,
                _ => false,
            };
            if !fits {
                wrong.push(format!("{byte:?} at {place}: {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if strict {
        assert!(backend.seen().is_empty(), "{:#?}", backend.seen());
    } else {
        // docs/engines.md says so. If the crate is mended, this fails, and the table there has to change.
        assert_eq!(
            status(
                &balancer,
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
                PATIENCE
            ),
            200
        );
        for seen in backend.seen() {
            assert!(!seen.lines().iter().any(|line| line.contains(['\x0b', '\x0c', '\r', '\n'])), "{seen:?}");
        }
    }
}

/// The crate of `tiny_http` would hand over the chunks' framing as the body.
fn a_chunked_body_beside_an_upgrade_is_refused_or_read(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let status = status(&balancer, &format!("{chunked}3\r\nabc\r\n0\r\n\r\n"), PATIENCE);
    match engine {
        Engine::Epoll => {
            assert_eq!(status, 200);
            assert_eq!(backend.only().body, b"abc");
        }
        Engine::TinyHttp => {
            assert_eq!(status, 501);
            assert!(backend.seen().is_empty(), "{:#?}", backend.seen());
        }
    }
}
