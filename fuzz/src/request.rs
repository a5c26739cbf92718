//! The head of a request: one verdict however it is cut and whatever the parser read before; what is accepted meets a
//! second, naive reading of the grammar; and what we write to a backend reads as the same request.

use std::net::SocketAddr;

use balancer_http::fields::Fields;
use balancer_http::framing::request::{Bounds, HeadVerdict, parse};
use balancer_http::headers::{Origin, to_backend};
use balancer_http::message::{BodyLength, RequestHead, Version};

use super::cuts;

/// The shipped bounds.
pub const SHIPPED: Bounds =
    Bounds { max_head_bytes: 16384, max_headers: 100, max_target_bytes: 8192, accept_invalid: false };
/// Bounds that short inputs reach.
const TIGHT: Bounds =
    Bounds { max_head_bytes: 192, max_headers: 4, max_target_bytes: 24, accept_invalid: false };
/// For old clients.
const LENIENT: Bounds = Bounds { accept_invalid: true, ..SHIPPED };

/// See the module.
pub fn check(data: &[u8]) {
    check_within(data, &SHIPPED);
    check_within(data, &TIGHT);
    check_within(data, &LENIENT);
}

/// A head to parse into.
pub fn blank() -> RequestHead {
    RequestHead::blank(SocketAddr::from(([192, 0, 2, 1], 5)))
}

/// A head that another request left behind.
fn used() -> RequestHead {
    let mut head = blank();
    let left = b"OPTIONS http://left:1/?x HTTP/1.0\r\nHost: left\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    assert!(matches!(parse(left, &SHIPPED, &mut head), HeadVerdict::Complete { .. }));
    head
}

fn check_within(data: &[u8], bounds: &Bounds) {
    let mut head = used();
    let whole = parse(data, bounds, &mut head);
    for ends in cuts::ways(data) {
        let mut decided = HeadVerdict::Incomplete;
        for end in ends {
            let now = parse(&data[..end], bounds, &mut blank());
            assert!(
                decided == HeadVerdict::Incomplete || now == decided,
                "{decided:?}, then {now:?} at {end}"
            );
            decided = now;
        }
        assert_eq!(decided, whole);
    }
    match whole {
        HeadVerdict::Complete { consumed, keep_alive } => {
            assert!(consumed <= data.len().min(bounds.max_head_bytes));
            let wire = &data[..consumed];
            let mut again = blank();
            assert_eq!(parse(wire, bounds, &mut again), whole);
            assert_eq!(
                parse(&wire[..consumed - 1], bounds, &mut blank()),
                HeadVerdict::Incomplete,
                "too early"
            );
            same(&head, &again);
            in_order(&head, bounds);
            naive(wire, keep_alive);
            carried(&head);
            written_anew(&head);
        }
        HeadVerdict::Incomplete => assert!(data.len() < bounds.max_head_bytes, "waits for ever"),
        HeadVerdict::Refused(refusal) => {
            let (status, _) = refusal.reason.status();
            assert!([400, 405, 414, 417, 431, 501, 505].contains(&status), "{status}");
        }
    }
}

#[track_caller]
fn same(one: &RequestHead, other: &RequestHead) {
    assert_eq!((&one.method, &one.target, one.version), (&other.method, &other.target, other.version));
    assert_eq!((&one.host, one.length), (&other.host, other.length));
    assert_eq!(one.expects_continue, other.expects_continue);
    assert!(one.fields.iter().eq(other.fields.iter()), "{:?} and {:?}", one.fields, other.fields);
}

/// What whoever takes a head relies on.
fn in_order(head: &RequestHead, bounds: &Bounds) {
    assert!(!head.method.is_empty() && head.method.bytes().all(is_token) && head.method != "CONNECT");
    assert!(head.target.starts_with('/') || (head.target == "*" && head.method == "OPTIONS"));
    // What is not UTF-8 is encoded, in three bytes each.
    assert!(head.target.len() <= if bounds.accept_invalid { 3 } else { 1 } * bounds.max_target_bytes);
    let may_stand = |char: char| !char.is_whitespace() && !char.is_control() && char != '#';
    assert!(head.target.chars().all(may_stand) && (bounds.accept_invalid || head.target.is_ascii()));
    assert!(head.host.is_some() || head.version == Version::Http10);
    assert!(head.fields.all("host").map(Some).eq(head.host.as_deref().map(str::as_bytes).map(Some)));
    // One more than its lines: the Host that absolute form brings to HTTP/1.0.
    assert!(head.fields.len() <= bounds.max_headers + 1);
    assert!(!matches!(head.length, BodyLength::UntilClose | BodyLength::Known(0)));
    assert!(!head.expects_continue || (head.length != BodyLength::Empty && head.version == Version::Http11));
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.bytes().all(is_token), "{name:?}");
        assert!(value.iter().all(|byte| is_text(*byte)) && value.trim_ascii().len() == value.len(), "{name}");
        let plain = name.to_ascii_lowercase();
        assert!(
            !["content-length", "transfer-encoding", "trailer", "expect"].contains(&plain.as_str()),
            "{name} is framing"
        );
        let as_variable = plain.replace('_', "-");
        let ours = [
            "content-length",
            "transfer-encoding",
            "x-request-id",
            "x-real-ip",
            "x-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
        ];
        assert!(!plain.contains('_') || !ours.contains(&as_variable.as_str()), "{name} passes for ours");
        assert!(!plain.contains('_') || !as_variable.starts_with("x-forwarded-"), "{name} passes for ours");
    }
}

/// RFC 9112 §3 to §6 as somebody would check it who has the whole head and splits it at its line ends.
fn naive(wire: &[u8], keep_alive: bool) {
    let text: String = wire.iter().map(|byte| char::from(*byte)).collect();
    let text = text.trim_start_matches("\r\n");
    let lines: Vec<&str> =
        text.strip_suffix("\r\n\r\n").expect("ends with an empty line").split("\r\n").collect();
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0']) && !line.is_empty()));
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words.len(), 3, "{:?}", lines[0]);
    let minor = words[2].strip_prefix("HTTP/1.").expect("a version that we speak");
    assert!(minor.len() == 1 && minor.bytes().all(|byte| byte.is_ascii_digit()));
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(!name.contains([' ', '\t']), "{line:?}");
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let values = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "two ways to find the end of the body");
    assert!(lengths.iter().all(|length| length.parse::<u64>().is_ok() && !length.starts_with('+')));
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked") && minor != "0"));
    assert!(values("host").len() == 1 || (values("host").is_empty() && minor == "0"));
    let connection = values("connection").join(",").to_ascii_lowercase();
    let says = |option: &str| connection.split(',').any(|one| one.trim_matches([' ', '\t']) == option);
    assert_eq!(keep_alive, !says("close") && (minor != "0" || says("keep-alive")));
}

/// The client library must be able to carry what we accept: a refusal of its would be our 500. Of targets it need not: the
/// portable engine asks it first.
fn carried(head: &RequestHead) {
    http::Method::from_bytes(head.method.as_bytes()).expect("a method");
    for (name, value) in head.fields.iter() {
        http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        http::HeaderValue::from_bytes(value).expect("a value");
    }
}

/// A head as it stands on the wire to a backend.
pub fn written(head: &RequestHead) -> Vec<u8> {
    let origin = Origin {
        peer: head.peer,
        trusted: false,
        // The proxy names the backend's address where HTTP/1.0 brought none.
        host: head.host.as_deref().unwrap_or("192.0.2.9:80"),
        is_secure: head.secure.is_some(),
        request_id: "id",
        instance: "instance",
        via: true,
        max_forwards: None,
    };
    let mut wire = format!("{} {} HTTP/1.1\r\n", head.method, head.target).into_bytes();
    let mut sent = Fields::new();
    to_backend(&head.fields, &origin, &mut sent);
    for (name, value) in sent.iter() {
        wire.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value);
        wire.extend_from_slice(b"\r\n");
    }
    match head.length {
        BodyLength::Known(bytes) => wire.extend_from_slice(format!("Content-Length: {bytes}\r\n").as_bytes()),
        BodyLength::Chunked => wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyLength::Empty | BodyLength::UntilClose => {}
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn written_anew(head: &RequestHead) {
    const WIDE: Bounds = Bounds {
        max_head_bytes: 1 << 20,
        max_headers: 1000,
        max_target_bytes: 1 << 16,
        accept_invalid: true,
    };
    let wire = written(head);
    let mut read = blank();
    let verdict = parse(&wire, &WIDE, &mut read);
    assert_eq!(verdict, HeadVerdict::Complete { consumed: wire.len(), keep_alive: true });
    assert_eq!((&read.method, &read.target, read.length), (&head.method, &head.target, head.length));
    assert_eq!(read.host.as_deref(), Some(head.host.as_deref().unwrap_or("192.0.2.9:80")));
    // Nothing is invented: every field but those of ours stood in what came.
    let ours = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id"];
    for (name, value) in read.fields.iter() {
        let is_ours = ours.iter().any(|one| name.eq_ignore_ascii_case(one));
        assert!(is_ours || head.fields.iter().any(|field| field == (name, value)), "{name} is invented");
    }
    for name in ["x-forwarded-for", "x-request-id", "via"] {
        assert_eq!(read.fields.all(name).count(), 1, "{name}");
    }
    // A stranger's word on who is behind him.
    for (name, value) in read.fields.iter() {
        let name = name.to_ascii_lowercase();
        let is_claim = ["forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"]
            .contains(&name.as_str())
            || (name.starts_with("x-forwarded-") && !ours.contains(&name.as_str()));
        assert!(!is_claim, "{name}: {value:?} went on");
    }
    for name in ["connection", "keep-alive", "te", "upgrade", "http2-settings", "proxy-connection"] {
        assert!(!read.fields.has(name), "{name} is hop by hop");
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7F)
}
