//! What the generic cases of h2spec ask of a server, by section of RFC 9113 and RFC 7541: frames, and what has to follow.

use std::io::Write;

use super::{setup, until_empty};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PRIORITY,
    PROTOCOL_ERROR as PROTOCOL, RESET, SETTINGS, WINDOW_UPDATE, fields, frame, get,
};
use crate::support::{Backend, Then};

/// Further error codes (RFC 9113 §7).
const FLOW_CONTROL: u32 = 3;
pub(super) const CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// Flags of HEADERS and DATA (RFC 9113 §6.1, §6.2), and of an acknowledgement.
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;
pub(super) const ACK: u8 = 1;

/// What the server has to do.
enum Comes {
    /// Nothing: other requests are answered as before.
    Nothing,
    /// The stream is reset with that code; a fault of a stream may also be taken for one of its connection (§5.4.1).
    Reset(u32),
    /// The connection ends with one of those codes, or with PROTOCOL_ERROR, which the crate says of most faults.
    End(&'static [u32]),
}

use Comes::{End, Nothing, Reset};

type Row = (&'static str, Vec<u8>, Comes);

/// A request without a body, on that stream; `/hold` is never answered.
pub(super) fn ask(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(path, &[]))
}

/// The beginning of a request whose body is to follow.
pub(super) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post_head(more))
}

fn post_head(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")];
    all.extend(more);
    fields(&all)
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &code.to_be_bytes())
}

pub(super) fn setting(id: u8, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat())
}

/// Frames one behind the other.
pub(super) fn all<const N: usize>(frames: [Vec<u8>; N]) -> Vec<u8> {
    frames.concat()
}

fn frames_and_heads() -> Vec<Row> {
    let block = get("/", &[]);
    let rest = |flags, stream| frame(CONTINUATION, flags, stream, &block[10..]);
    let begun = || frame(HEADERS, END_STREAM, 1, &block[..10]);
    vec![
        ("4.1 an unknown kind of frame", frame(0x16, 0xff, 0, b"12345678"), Nothing),
        ("4.1 flags that are not defined", frame(PING, 0x16, 0, b"12345678"), Nothing),
        ("4.1 the reserved bit of a stream", frame(PING, 0, 1 << 31, b"12345678"), Nothing),
        ("4.2 DATA of 16,384 bytes", all([post(1, &[]), frame(DATA, END_STREAM, 1, &[0; 16_384])]), Nothing),
        ("4.2 DATA of more", all([post(1, &[]), frame(DATA, 0, 1, &[0; 16_385])]), End(&[FRAME_SIZE])),
        (
            "4.2 HEADERS of more",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0; 16_385]),
            End(&[FRAME_SIZE]),
        ),
        (
            "4.3 a block that is wrong",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x40\x00\xff"),
            End(&[COMPRESSION]),
        ),
        (
            "4.3 PRIORITY within a head",
            all([begun(), frame(PRIORITY, 0, 1, &[0; 5]), rest(END_HEADERS, 1)]),
            End(&[PROTOCOL]),
        ),
        ("4.3 a head within a head", all([begun(), ask(3, "/")]), End(&[PROTOCOL])),
        (
            "5.5 an unknown frame within a head",
            all([begun(), frame(0x16, 0, 0, b"x"), rest(END_HEADERS, 1)]),
            End(&[PROTOCOL]),
        ),
        ("6.2 DATA within a head", all([begun(), frame(DATA, 0, 1, b"x")]), End(&[PROTOCOL])),
        (
            "6.10 pieces of a head",
            all([begun(), frame(CONTINUATION, 0, 1, &[]), rest(END_HEADERS, 1)]),
            Nothing,
        ),
        ("6.10 a piece behind a head's end", all([ask(1, "/hold"), rest(END_HEADERS, 1)]), End(&[PROTOCOL])),
        ("6.10 a piece of no stream", all([begun(), rest(END_HEADERS, 0)]), End(&[PROTOCOL])),
        ("6.10 a piece of another stream", all([begun(), rest(END_HEADERS, 3)]), End(&[PROTOCOL])),
        (
            "6.10 a piece behind DATA",
            all([post(1, &[]), frame(DATA, 0, 1, b"x"), rest(END_HEADERS, 1)]),
            End(&[PROTOCOL]),
        ),
        ("8.4 a promise", frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block].concat()), End(&[PROTOCOL])),
    ]
}

fn streams() -> Vec<Row> {
    let one = || frame(DATA, END_STREAM, 1, b"x");
    let piece = || frame(CONTINUATION, END_HEADERS, 1, &get("/", &[]));
    let update = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        ("5.1 idle: DATA", one(), End(&[PROTOCOL])),
        ("5.1 idle: RST_STREAM", reset(1, 8), End(&[PROTOCOL])),
        ("5.1 idle: WINDOW_UPDATE", update(1, 100), End(&[PROTOCOL])),
        ("5.1 idle: CONTINUATION", piece(), End(&[PROTOCOL])),
        ("5.1 idle: PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), Nothing),
        ("5.1 half-closed: DATA", all([ask(1, "/hold"), one()]), Reset(CLOSED)),
        ("5.1 half-closed: HEADERS", all([ask(1, "/hold"), ask(1, "/")]), Reset(CLOSED)),
        ("5.1 half-closed: CONTINUATION", all([ask(1, "/hold"), piece()]), End(&[PROTOCOL, CLOSED])),
        (
            "5.1 half-closed: WINDOW_UPDATE and PRIORITY",
            all([ask(1, "/hold"), update(1, 9), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]),
            Nothing,
        ),
        ("5.1 reset: CONTINUATION", all([post(1, &[]), reset(1, 8), piece()]), End(&[PROTOCOL, CLOSED])),
        ("5.1.1 an even stream", ask(2, "/"), End(&[PROTOCOL])),
        ("5.1.1 a stream below the last", all([ask(5, "/hold"), ask(3, "/")]), End(&[PROTOCOL, CLOSED])),
        (
            "5.4.1 a fault and what comes behind it",
            all([frame(PING, 0, 0, b"1234567"), ask(1, "/")]),
            End(&[FRAME_SIZE]),
        ),
        ("6.4 RST_STREAM of no stream", reset(0, 8), End(&[PROTOCOL])),
        (
            "6.4 RST_STREAM of three bytes",
            all([post(1, &[]), frame(RESET, 0, 1, &[0; 3])]),
            End(&[FRAME_SIZE]),
        ),
        ("6.9 a window of nothing more", update(0, 0), End(&[PROTOCOL])),
        ("6.9 a stream's window of nothing more", all([ask(1, "/hold"), update(1, 0)]), Reset(PROTOCOL)),
        ("6.9 WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), End(&[FRAME_SIZE])),
        (
            "6.9.1 a window of more than 2^31-1",
            all([update(0, 0x7fff_ffff), update(0, 0x7fff_ffff)]),
            End(&[FLOW_CONTROL]),
        ),
        (
            "6.9.1 a stream's window of more",
            all([ask(1, "/hold"), update(1, 0x7fff_ffff), update(1, 0x7fff_ffff)]),
            Reset(FLOW_CONTROL),
        ),
        ("7 an unknown code in RST_STREAM", all([ask(1, "/hold"), reset(1, 0xff)]), Nothing),
    ]
}

fn connections() -> Vec<Row> {
    vec![
        ("6.3 PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), End(&[PROTOCOL])),
        ("6.3 PRIORITY of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), Reset(FRAME_SIZE)),
        (
            "6.5 an acknowledgement with a payload",
            frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 9]),
            End(&[FRAME_SIZE]),
        ),
        ("6.5 SETTINGS of a stream", frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 9]), End(&[PROTOCOL])),
        ("6.5 SETTINGS of three bytes", frame(SETTINGS, 0, 0, &[0, 3, 0]), End(&[FRAME_SIZE])),
        ("6.5.2 ENABLE_PUSH of 2", setting(2, 2), End(&[PROTOCOL])),
        ("6.5.2 INITIAL_WINDOW_SIZE of 2^31", setting(4, 1 << 31), End(&[FLOW_CONTROL])),
        ("6.5.2 MAX_FRAME_SIZE below 16,384", setting(5, 16_383), End(&[PROTOCOL])),
        ("6.5.2 MAX_FRAME_SIZE of 2^24", setting(5, 1 << 24), End(&[PROTOCOL])),
        ("6.5.2 an unknown setting", setting(0xff, 1), Nothing),
        (
            "6.5.3 the same setting twice",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9, 0, 4, 0, 0, 0xff, 0xff]),
            Nothing,
        ),
        ("6.7 PING of a stream", frame(PING, 0, 1, b"12345678"), End(&[PROTOCOL])),
        ("6.7 PING of seven bytes", frame(PING, 0, 0, b"1234567"), End(&[FRAME_SIZE])),
        ("6.8 GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), End(&[PROTOCOL])),
        ("7 an unknown code in GOAWAY", frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), End(&[0])),
    ]
}

fn messages() -> Vec<Row> {
    let head = |flags, payload: &[u8]| frame(HEADERS, END_HEADERS | flags, 1, payload);
    let data = |flags, payload: &[u8]| frame(DATA, flags, 1, payload);
    let padded = |pad: u8, payload: &[u8]| [&[pad][..], payload].concat();
    let itself = [&[0, 0, 0, 1, 9][..], &get("/", &[])].concat();
    let trailers = |all: &[(&str, &str)]| head(END_STREAM, &fields(all));
    vec![
        ("5.3.1 a stream that depends on itself", head(WITH_PRIORITY | END_STREAM, &itself), Reset(PROTOCOL)),
        ("6.1 DATA of no stream", frame(DATA, 0, 0, b"x"), End(&[PROTOCOL])),
        ("6.1 padding of DATA", all([post(1, &[]), data(PADDED | END_STREAM, b"\x01x\0")]), Nothing),
        (
            "6.1 more padding than DATA",
            all([post(1, &[]), data(PADDED | END_STREAM, b"\x06x\0")]),
            End(&[PROTOCOL]),
        ),
        (
            "6.2 more padding than a head",
            head(PADDED | END_STREAM, &padded(250, &get("/", &[]))),
            End(&[PROTOCOL]),
        ),
        (
            "6.2 HEADERS of no stream",
            frame(HEADERS, END_STREAM | END_HEADERS, 0, &get("/", &[])),
            End(&[PROTOCOL]),
        ),
        ("8.1 a second head that is no end", all([post(1, &[]), post(1, &[])]), Reset(PROTOCOL)),
        ("8.1 trailers", all([post(1, &[]), data(0, b"x"), trailers(&[("x-sum", "1")])]), Nothing),
        // Dropped like all trailers, before anything sees it.
        (
            "8.1 a pseudo-field in trailers",
            all([post(1, &[]), data(0, b"x"), trailers(&[(":method", "GET")])]),
            Nothing,
        ),
        (
            "8.3 a pseudo-field of answers",
            head(END_STREAM, &get("/", &[(":status", "200")])),
            Reset(PROTOCOL),
        ),
        ("8.3.1 an empty path", head(END_STREAM, &get("", &[])), Reset(PROTOCOL)),
        (
            "8.3.1 no method",
            head(END_STREAM, &fields(&[(":scheme", "http"), (":authority", "a"), (":path", "/")])),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 no scheme",
            head(END_STREAM, &fields(&[(":method", "GET"), (":authority", "a"), (":path", "/")])),
            Reset(PROTOCOL),
        ),
        ("8.3.1 two methods", head(END_STREAM, &get("/", &[(":method", "GET")])), Reset(PROTOCOL)),
        ("8.3.1 two schemes", head(END_STREAM, &get("/", &[(":scheme", "http")])), Reset(PROTOCOL)),
        (
            "8.1.1 a length that is not that of DATA",
            all([post(1, &[("content-length", "1")]), data(END_STREAM, b"test")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 nor that of several",
            all([post(1, &[("content-length", "1")]), data(0, b"te"), data(END_STREAM, b"st")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 less than the length",
            all([post(1, &[("content-length", "9")]), data(END_STREAM, b"test")]),
            Reset(PROTOCOL),
        ),
    ]
}

/// Blocks of fields that can't be read (RFC 7541).
fn blocks() -> Vec<Row> {
    let head =
        |more: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&get("/", &[])[..], more].concat());
    vec![
        ("2.3.3 an index behind both tables", head(&[0xc6]), End(&[COMPRESSION])),
        ("2.3.3 the name at such an index", head(&[0x7f, 0x07, 1, b'x']), End(&[COMPRESSION])),
        ("4.2 a table's size at the end of a block", head(&[0x20]), End(&[COMPRESSION])),
        (
            "5.1 a number without end",
            head(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            End(&[COMPRESSION]),
        ),
        (
            "5.2 a padding that is not of ones",
            head(&[0, 0x84, 0xf2, 0xb2, 0x4a, 0x80, 1, b'x']),
            End(&[COMPRESSION]),
        ),
        ("5.2 the code of the end", head(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'x']), End(&[COMPRESSION])),
        ("5.2 text that ends behind the block", head(&[0, 0x7f, 0x7f, b'x']), End(&[COMPRESSION])),
        ("6.1 index 0", head(&[0x80]), End(&[COMPRESSION])),
        (
            "6.3 a table larger than was said",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&[0x3f, 0xe2, 0x1f][..], &get("/", &[])].concat()),
            End(&[COMPRESSION]),
        ),
    ]
}

#[test]
fn frames_come_to_what_the_rfc_says() {
    let backend = Backend::scripted(|seen, stream| {
        if seen.request_line().contains("/hold") {
            return Then::Hang;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    });
    let balancer = setup().backend(backend.address()).start();
    let mut wrong = Vec::new();
    for (what, bytes, comes) in
        [frames_and_heads(), streams(), connections(), messages(), blocks()].into_iter().flatten()
    {
        let frames = Frames::open(balancer.address);
        frames.send(&bytes);
        if let Err(came) = came_to(&frames, &comes) {
            wrong.push(format!("{what}: {came}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    until_empty(&balancer);
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
}

/// Whether that comes; otherwise what came instead.
fn came_to(frames: &Frames, comes: &Comes) -> Result<(), String> {
    if matches!(comes, Nothing) {
        // The proof is that another request and a PING behind it are answered.
        frames.send(&all([ask(101, "/-/livez"), frame(PING, 0, 0, b"the last")]));
    }
    let (mut has_answer, mut has_ping) = (false, false);
    loop {
        let Some(next) = frames.next() else { return Err("the connection ends without a word".into()) };
        match (next.kind, comes) {
            (RESET, Reset(code)) | (GOAWAY, Reset(code)) if next.error() == *code => return Ok(()),
            (GOAWAY, Reset(_)) if next.error() == PROTOCOL => return Ok(()),
            (GOAWAY, End(codes)) if codes.contains(&next.error()) || next.error() == PROTOCOL => {
                return if frames.end().is_none() { Ok(()) } else { Err("a second GOAWAY".into()) };
            }
            // Before a connection ends, its streams may be reset one by one.
            (RESET, End(_)) => {}
            (RESET | GOAWAY, _) => return Err(format!("{} {}", next.kind, next.error())),
            (HEADERS, Nothing) if next.stream == 101 => has_answer = true,
            (HEADERS, Reset(_)) => return Err("an answer".into()),
            (PING, Nothing) if next.flags == ACK && next.payload == b"the last" => has_ping = true,
            _ => {}
        }
        if has_answer && has_ping {
            return Ok(());
        }
    }
}
