//! Each rule as a row of a table: its section, the bytes, the verdict. `tests/it` sends such heads over real sockets.

mod fields;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds =
    Bounds { max_head_bytes: 2048, max_headers: 8, max_target_bytes: 64, accept_invalid: false };

fn blank() -> RequestHead {
    RequestHead::blank("192.0.2.1:5".parse().expect("an address"))
}

/// The verdict as a status: 0 for an incomplete head, 200 for a whole one.
fn status(bytes: &[u8]) -> u16 {
    match parse(bytes, &BOUNDS, &mut blank()) {
        HeadVerdict::Incomplete => 0,
        HeadVerdict::Complete { consumed, .. } => {
            assert_eq!(consumed, bytes.len(), "{:?}", String::from_utf8_lossy(bytes));
            200
        }
        HeadVerdict::Refused(refusal) => refusal.reason.status().0,
    }
}

fn parsed(bytes: &[u8]) -> (RequestHead, bool) {
    let mut head = blank();
    match parse(bytes, &BOUNDS, &mut head) {
        HeadVerdict::Complete { keep_alive, .. } => (head, keep_alive),
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Request lines, each followed by a Host field.
const REQUEST_LINES: &[(&str, &[u8], u16)] = &[
    ("9112 3", b"GET / HTTP/1.1", 200),
    ("9112 3, no space at all", b"GET", 400),
    ("9112 3, no version (HTTP/0.9)", b"GET /", 400),
    ("9112 3, no target", b"GET  HTTP/1.1", 400),
    ("9112 3, two spaces", b"GET  / HTTP/1.1", 400),
    ("9112 3, two spaces", b"GET /  HTTP/1.1", 400),
    ("9112 3, space at the end", b"GET / HTTP/1.1 ", 400),
    ("9112 3, space at the start", b" GET / HTTP/1.1", 400),
    ("9112 3, a tab is no space", b"GET\t/\tHTTP/1.1", 400),
    ("9112 2.2, empty lines before", b"\r\n\r\nGET / HTTP/1.1", 200),
    ("9112 2.2, bounded", b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1", 400),
    ("9112 2.2, bare LF before", b"\nGET / HTTP/1.1", 400),
    ("9112 2.2, bare CR before", b"\rGET / HTTP/1.1", 400),
    ("9112 2.2, bare LF", b"GET / HTTP/1.1\nHost: a", 400),
    ("9112 2.2, bare CR", b"GET / HTTP/1.1\rHost: a", 400),
    ("9110 5.6.2, NUL in the method", b"G\0T / HTTP/1.1", 400),
    ("9110 5.6.2, a delimiter in the method", b"G(T / HTTP/1.1", 400),
    ("9110 9.1, an unregistered method", b"BREW-2 / HTTP/1.1", 200),
    ("9110 9.1, methods know case", b"get / HTTP/1.1", 200),
    ("9112 3, an endless method", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", 501),
    ("9110 9.3.6", b"CONNECT a:80 HTTP/1.1", 405),
    ("9112 2.3", b"GET / HTTP/1.0", 200),
    ("9110 2.5, a later minor version", b"GET / HTTP/1.2", 200),
    ("9112 2.3", b"GET / HTTP/2.0", 505),
    ("9112 2.3", b"GET / HTTP/0.9", 505),
    ("9113 3.4, the preface of HTTP/2", b"PRI * HTTP/2.0", 505),
    ("9112 2.3, names know case", b"GET / http/1.1", 400),
    ("9112 2.3, one digit each", b"GET / HTTP/1.10", 400),
    ("9112 2.3, one digit each", b"GET / HTTP/11.1", 400),
    ("9112 2.3", b"GET / HTTP/1,1", 400),
    ("9112 2.3", b"GET / HTTP/1", 400),
    ("9112 2.3", b"GET / HTTPS/1.1", 400),
    ("9112 3.2.1", b"GET /a/b;c=d?e=f/?&g HTTP/1.1", 200),
    ("9112 3.2.1, no slash", b"GET a HTTP/1.1", 400),
    ("9112 3.2.1, a query alone", b"GET ?a HTTP/1.1", 400),
    ("3986 3.5, a fragment", b"GET /a#b HTTP/1.1", 400),
    ("3986 3.5, a fragment", b"GET /a?b#c HTTP/1.1", 400),
    ("3986 2, not ASCII", b"GET /\xC3\xA4 HTTP/1.1", 400),
    ("3986 2, NUL", b"GET /\0 HTTP/1.1", 400),
    ("3986 2, DEL", b"GET /\x7F HTTP/1.1", 400),
    ("3986 2, a tab", b"GET /a\tb HTTP/1.1", 400),
    ("3986 2, a space", b"GET /a b HTTP/1.1", 400),
    ("3986 2, not ASCII in a query", b"GET /?\xC3\xA4 HTTP/1.1", 400),
    ("what clients send in a path", b"GET /a{b}|[c]^`\\\"<d> HTTP/1.1", 200),
    ("what clients send in a query", b"GET /?a={b}|[c]^`\\\"<d>'100% HTTP/1.1", 200),
    ("9112 3.2.2, a backslash ends no host", b"GET http://b\\c/ HTTP/1.1", 400),
    ("9112 3.2, a backslash is no slash", b"GET \\a HTTP/1.1", 400),
    ("3986 2.1", b"GET /%41%fF HTTP/1.1", 200),
    ("3986 2.1", b"GET /%4 HTTP/1.1", 400),
    ("3986 2.1", b"GET /%zz HTTP/1.1", 400),
    ("9112 3.2.2", b"GET http://b:80/c HTTP/1.1", 200),
    ("9112 3.2.2, schemes know no case", b"GET HTTP://b/ HTTP/1.1", 200),
    ("9112 3.2.2", b"GET https://b?c HTTP/1.1", 200),
    ("9110 4.2.1, empty host", b"GET http:///c HTTP/1.1", 400),
    ("9110 4.2.4, user information", b"GET http://u:p@b/ HTTP/1.1", 400),
    ("9112 3.2.2, another scheme", b"GET ftp://b/ HTTP/1.1", 400),
    ("9112 3.2.2, a broken port", b"GET http://b:x/ HTTP/1.1", 400),
    ("9112 3.2.2, a broken address", b"GET http://[::1/ HTTP/1.1", 400),
    ("9112 3.2.3, authority form without CONNECT", b"GET b:80 HTTP/1.1", 400),
    ("9112 3.2.4", b"OPTIONS * HTTP/1.1", 200),
    ("9112 3.2.4", b"OPTIONS /a HTTP/1.1", 200),
    ("9112 3.2.4, OPTIONS alone", b"GET * HTTP/1.1", 400),
    ("9112 3.2.4", b"OPTIONS *a HTTP/1.1", 400),
    (
        "9110 4.1, 64 bytes",
        b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1",
        200,
    ),
    (
        "9110 4.1, 65 bytes",
        b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1",
        414,
    ),
    ("8446 5.1, a TLS hello", b"\x16\x03\x01\x02\x00\x01", 400),
];

/// Field sections behind `POST / HTTP/1.1` and `Host: a`.
const FIELDS: &[(&str, &[u8], u16)] = &[
    ("9112 5", b"A: b\r\n", 200),
    ("9112 5, no whitespace needed", b"A:b\r\n", 200),
    ("9112 5, tabs around the value", b"A:\t b \t\r\n", 200),
    ("9110 5.5, an empty value", b"A:\r\n", 200),
    ("9110 5.5, obs-text", b"A: \xC3\xA4\xFF\r\n", 200),
    ("9112 5.1, space before the colon", b"A : b\r\n", 400),
    ("9112 5.1, tab before the colon", b"A\t: b\r\n", 400),
    ("9112 5.1, empty name", b": b\r\n", 400),
    ("9112 5.1, no colon", b"A\r\n", 400),
    ("9110 5.6.2, a delimiter in a name", b"A(b: c\r\n", 400),
    ("9110 5.6.2, not ASCII in a name", b"\xC3\xA4: c\r\n", 400),
    ("9110 5.6.2, NUL in a name", b"A\0: c\r\n", 400),
    ("9112 5.2, obs-fold", b"A: b\r\n c\r\n", 400),
    ("9112 5.2, obs-fold by tab", b"A: b\r\n\tc\r\n", 400),
    ("9112 2.2, bare LF", b"A: b\nC: d\r\n", 400),
    ("9112 2.2, bare CR", b"A: b\rC: d\r\n", 400),
    ("9110 5.5, NUL", b"A: b\0c\r\n", 400),
    ("9110 5.5, another control character", b"A: b\x1Bc\r\n", 400),
    ("9110 5.5, DEL", b"A: b\x7Fc\r\n", 400),
    ("9112 3.2, a second Host", b"Host: a\r\n", 400),
    ("9110 8.6", b"Content-Length: 5\r\n", 200),
    ("9110 8.6", b"Content-Length: 0\r\n", 200),
    ("9110 8.6, leading zeros are digits", b"Content-Length: 0005\r\n", 200),
    ("9110 8.6", b"Content-Length: 18446744073709551615\r\n", 200),
    ("9110 8.6, overflow", b"Content-Length: 18446744073709551616\r\n", 400),
    ("9110 8.6, a sign", b"Content-Length: +5\r\n", 400),
    ("9110 8.6, a sign", b"Content-Length: -5\r\n", 400),
    ("9110 8.6, empty", b"Content-Length:\r\n", 400),
    ("9110 8.6, hexadecimal", b"Content-Length: 0x5\r\n", 400),
    ("9110 8.6, trailing text", b"Content-Length: 5x\r\n", 400),
    ("9110 8.6, a space inside", b"Content-Length: 5 5\r\n", 400),
    ("9110 8.6, a list", b"Content-Length: 5, 5\r\n", 400),
    ("9110 8.6, a list", b"Content-Length: 5,\r\n", 400),
    ("9110 8.6, twice and equal", b"Content-Length: 5\r\nContent-Length: 5\r\n", 400),
    ("9112 6.3, twice and different", b"Content-Length: 5\r\ncontent-length: 6\r\n", 400),
    ("9112 6.1", b"Transfer-Encoding: chunked\r\n", 200),
    ("9112 7, codings know no case", b"transfer-encoding: ChunKed\r\n", 200),
    ("9112 6.1, with Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
    ("9112 6.1, with Content-Length", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ("9112 6.1, with Content-Length", b"Content-Length: 0\r\nTransfer-Encoding: gzip\r\n", 400),
    ("9112 6.1, chunked twice", b"Transfer-Encoding: chunked, chunked\r\n", 400),
    ("9112 6.1, chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    ("9112 6.1, a second line", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
    ("9112 6.1, unknown", b"Transfer-Encoding: gzip, chunked\r\n", 501),
    ("9112 6.1, unknown", b"Transfer-Encoding: identity,Chunked\r\n", 501),
    ("9112 6.1, unknown, in two lines", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
    ("9112 6.3, chunked is not last", b"Transfer-Encoding: chunked, gzip\r\n", 400),
    ("9112 6.3, chunked is not there", b"Transfer-Encoding: gzip\r\n", 400),
    ("9112 6.3, chunked is not there", b"Transfer-Encoding: identity\r\n", 400),
    ("9112 6.3, chunked is not there", b"Transfer-Encoding: xchunked\r\n", 400),
    ("9112 6.3, chunked is not there", b"Transfer-Encoding: chunked-x\r\n", 400),
    ("9112 6.3, chunked is not there", b"Transfer-Encoding: trailers\r\n", 400),
    ("9112 6.1, chunked around another", b"Transfer-Encoding: chunked, gzip, chunked\r\n", 400),
    ("9112 7, an empty element", b"Transfer-Encoding: ,chunked\r\n", 400),
    ("9112 7, an empty second line", b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", 400),
    ("9112 7, empty", b"Transfer-Encoding:\r\n", 400),
    ("9112 7, an empty element", b"Transfer-Encoding: chunked,\r\n", 400),
    ("9112 7, a parameter", b"Transfer-Encoding: chunked;a=b\r\n", 400),
    ("9112 7, a quoted name", b"Transfer-Encoding: \"chunked\"\r\n", 400),
    ("9112 7, a control character", b"Transfer-Encoding: \x0Bchunked\r\n", 400),
    ("9110 10.1.1", b"Expect: 100-Continue\r\nContent-Length: 5\r\n", 200),
    ("9110 10.1.1, unknown", b"Expect: 200-ok\r\n", 417),
    ("9110 10.1.1, unknown beside the known", b"Expect: 100-continue, a=b\r\n", 417),
    ("9110 10.1.1, empty", b"Expect:\r\n", 417),
    ("9110 5.4, seven more lines", b"A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n", 200),
    ("9110 5.4, eight more lines", b"A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n", 431),
];

/// Whole heads.
const HEADS: &[(&str, &[u8], u16)] = &[
    ("9112 3.2, HTTP/1.1 needs Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("9112 3.2, in absolute form too", b"GET http://b/ HTTP/1.1\r\n\r\n", 400),
    ("9112 3.2, an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("9112 3.2, an invalid Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("9112 3.2, an invalid Host", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("9112 3.2, an invalid Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("9112 3.2, an invalid Host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("9112 3.2, invalid though not used", b"GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("9112 3.2, HTTP/1.0 does not need Host", b"GET / HTTP/1.0\r\n\r\n", 200),
    ("9112 3.2, HTTP/1.0 and two", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("9112 6.1, coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9110 10.1.1, ignored in HTTP/1.0", b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 200),
    ("9112 2.2, leading space of the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("9112 2.2, bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("9112 2.2, bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
    ("9112 2.1, not yet whole", b"GET / HTTP/1.1\r\nHost: a\r\n\r", 0),
    ("9112 2.1, nothing yet", b"", 0),
    ("9112 2.2, an empty line alone", b"\r\n", 0),
];

fn request_line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a\r\n\r\n"].concat()
}

fn with_fields(fields: &[u8]) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n"].concat()
}

fn every_row() -> impl Iterator<Item = (&'static str, Vec<u8>, u16)> {
    let lines = REQUEST_LINES.iter().map(|(section, line, status)| (*section, request_line(line), *status));
    let fields = FIELDS.iter().map(|(section, fields, status)| (*section, with_fields(fields), *status));
    let heads = HEADS.iter().map(|(section, head, status)| (*section, head.to_vec(), *status));
    lines.chain(fields).chain(heads)
}

#[test]
fn every_row_has_its_verdict() {
    for (section, bytes, expected) in every_row() {
        assert_eq!(status(&bytes), expected, "RFC {section}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn however_a_row_is_cut_the_verdict_comes_as_early_as_it_can_and_never_changes() {
    for (section, bytes, expected) in every_row() {
        let mut decided = 0;
        for end in 0..=bytes.len() {
            let now = match parse(&bytes[..end], &BOUNDS, &mut blank()) {
                HeadVerdict::Incomplete => 0,
                HeadVerdict::Complete { .. } => 200,
                HeadVerdict::Refused(refusal) => refusal.reason.status().0,
            };
            if decided != 0 {
                assert_eq!(now, decided, "RFC {section} at {end}");
            }
            decided = now;
        }
        assert_eq!(decided, expected, "RFC {section}");
    }
}

#[test]
fn a_head_at_its_bound_passes_and_one_byte_more_does_not() {
    let head = |padding: usize| with_fields(&[b"A: ".as_slice(), &vec![b'x'; padding], b"\r\n"].concat());
    let fitting = BOUNDS.max_head_bytes - head(0).len();
    assert_eq!(status(&head(fitting)), 200);
    assert_eq!(status(&head(fitting + 1)), 431);
    // A head that does not end is refused at the bound.
    assert_eq!(status(&head(100_000)[..BOUNDS.max_head_bytes]), 431);
    assert_eq!(status(&head(100_000)[..BOUNDS.max_head_bytes - 1]), 0);
}

#[test]
fn empty_lines_and_a_method_at_their_bounds_pass_and_one_more_does_not() {
    for (empty, method, expected) in [
        (4, 3, 200),
        (5, 3, 400),
        (0, MAX_METHOD_BYTES, 200),
        (4, MAX_METHOD_BYTES, 200),
        (4, MAX_METHOD_BYTES + 1, 501),
    ] {
        let head = format!("{}{} / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(empty), "M".repeat(method));
        assert_eq!(status(head.as_bytes()), expected, "{empty} {method}");
    }
    // Refused before its end is seen.
    assert_eq!((status(&[b'M'; MAX_METHOD_BYTES]), status(&[b'M'; MAX_METHOD_BYTES + 1])), (0, 501));
}

#[test]
fn absolute_form_is_taken_apart_and_its_authority_wins() {
    let rows: [(&str, &str, Option<&str>); 8] = [
        ("GET http://b:81/c?d HTTP/1.1\r\nA: 1\r\nHost: a\r\n\r\n", "/c?d", Some("b:81")),
        ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", "/", Some("b")),
        ("GET http://b?d HTTP/1.1\r\nHost: a\r\n\r\n", "/?d", Some("b")),
        ("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "*", Some("b")),
        ("OPTIONS http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "/", Some("b")),
        ("GET http://b/ HTTP/1.0\r\n\r\n", "/", Some("b")),
        ("GET / HTTP/1.0\r\n\r\n", "/", None),
        ("GET //x/http://y HTTP/1.1\r\nHost: a\r\n\r\n", "//x/http://y", Some("a")),
    ];
    for (text, target, host) in rows {
        let (head, _) = parsed(text.as_bytes());
        assert_eq!((head.target.as_str(), head.host.as_deref()), (target, host), "{text:?}");
        assert_eq!(head.fields.get("host"), host.map(str::as_bytes), "{text:?}");
    }
}

/// Pieces of heads, to be put together at random.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST ",
    b"http://b/",
    b"?",
    b"%",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b":",
    b"\0",
    b"x",
];

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_however_they_are_cut(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..12),
    ) {
        let bytes = pieces.concat();
        let whole = parse(&bytes, &BOUNDS, &mut blank());
        let mut earliest = HeadVerdict::Incomplete;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end], &BOUNDS, &mut blank());
            if earliest != HeadVerdict::Incomplete {
                prop_assert_eq!(now, earliest);
            }
            earliest = now;
        }
        prop_assert_eq!(earliest, whole);
    }

    #[test]
    fn a_target_of_visible_ascii_without_a_fragment_goes_on_unchanged(target in "/[!\"$&-~]{0,20}[?][!\"$-~]{0,20}") {
        let (head, _) = parsed(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        prop_assert_eq!(head.target, target);
    }
}
