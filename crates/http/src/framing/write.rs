//! Writes an answer: its head and the framing of its body (RFC 9112 §2, §4, §6, §7.1).

use crate::fields::Fields;
use crate::message::{BodyLength, Version};

/// How the body of an answer to a client is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body; if `Some`, `Content-Length` says which length one would have had (HEAD, 304).
    None(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`; not for HTTP/1.0 clients.
    Chunked,
    /// The body ends with the connection, which has to be closed.
    UntilClose,
    /// After a 101: the new protocol decides.
    Upgraded,
}

/// What the `Connection` field of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: the default of HTTP/1.1.
    Kept,
    /// `keep-alive`, without which an HTTP/1.0 client expects the connection to end (RFC 9112 §9.3).
    KeptAsAsked,
    /// `close`.
    Closed,
}

/// What kind of body an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyShape {
    /// None (HEAD, 204, 304).
    Absent {
        /// The length in bytes that a body would have had, for Content-Length. `None`: that is not known.
        declared: Option<u64>,
    },
    /// That many bytes, which are in memory.
    Whole(u64),
    /// It is sent while it arrives.
    Streamed(BodyLength),
    /// After a 101.
    Upgraded,
}

/// The last chunk, without trailers (RFC 9112 §7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Framing {
    /// The framing of a body for a client of that version. `is_head`: the request was a HEAD.
    pub fn of(body: BodyShape, status: u16, version: Version, is_head: bool) -> Self {
        match body {
            BodyShape::Upgraded => Self::Upgraded,
            BodyShape::Absent { declared } => match status {
                // RFC 9110 §8.6: no Content-Length in 1xx and 204.
                100..200 | 204 => Self::None(None),
                304 => Self::None(declared),
                _ if is_head => Self::None(declared),
                _ => Self::Length(0),
            },
            _ if matches!(status, 204 | 304) => Self::None(None),
            BodyShape::Whole(bytes) if is_head => Self::None(Some(bytes)),
            BodyShape::Whole(bytes) => Self::Length(bytes),
            BodyShape::Streamed(length) => match length {
                BodyLength::Empty if is_head => Self::None(None),
                BodyLength::Empty => Self::Length(0),
                BodyLength::Known(bytes) if is_head => Self::None(Some(bytes)),
                BodyLength::Known(bytes) => Self::Length(bytes),
                BodyLength::Chunked | BodyLength::UntilClose if is_head => Self::None(None),
                BodyLength::Chunked | BodyLength::UntilClose => match version {
                    Version::Http10 => Self::UntilClose,
                    // HTTP/2 has frames of its own and does not use this.
                    Version::Http11 | Version::Http2 => Self::Chunked,
                },
            },
        }
    }
}

impl Persistence {
    /// The connection is kept if the client wants that and the framing allows it. `asked_to_keep`: an HTTP/1.1 client
    /// that did not say `close`, or an HTTP/1.0 client that said `keep-alive`.
    pub fn of(framing: Framing, version: Version, asked_to_keep: bool) -> Self {
        match version {
            _ if !asked_to_keep || framing == Framing::UntilClose => Self::Closed,
            Version::Http10 => Self::KeptAsAsked,
            Version::Http11 | Version::Http2 => Self::Kept,
        }
    }
}

/// An answer's head, without framing and connection.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLines<'a> {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; `None`: the standard one.
    pub reason: Option<&'a [u8]>,
    /// All fields in order, without those of framing and `Connection`.
    pub fields: &'a Fields,
}

/// Appends the head: status line, the answer's fields in order, framing, connection, empty line.
pub fn head(out: &mut Vec<u8>, answer: AnswerLines<'_>, framing: Framing, persistence: Persistence) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(answer.status));
    out.push(b' ');
    match answer.reason {
        Some(reason) => out.extend_from_slice(reason),
        None => out.extend_from_slice(standard_reason(answer.status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    for (name, value) in answer.fields.lines() {
        line(out, name, value);
    }
    match framing {
        Framing::None(None) | Framing::UntilClose => {}
        Framing::None(Some(bytes)) | Framing::Length(bytes) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Upgraded => {
            out.extend_from_slice(b"Connection: upgrade\r\n\r\n");
            return;
        }
    }
    match persistence {
        Persistence::Kept => {}
        Persistence::KeptAsAsked => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Persistence::Closed => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one field line.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    line(out, name.as_bytes(), value);
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk. Appends nothing if `bytes` is empty, since an empty chunk would end the body.
pub fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(chunk_size(bytes.len(), &mut [0; 18]));
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes `SIZE CRLF` (RFC 9112 §7.1) to the end of the buffer and returns it.
pub fn chunk_size(mut size: usize, buffer: &mut [u8; 18]) -> &[u8] {
    let mut at = buffer.len() - 2;
    buffer[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
        if size == 0 {
            return &buffer[at..];
        }
    }
}

/// Appends a number in decimal.
fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The reason phrase of a status in RFC 9110 §15 and IANA's registry; "Unknown" if it has none.
pub fn standard_reason(status: u16) -> &'static str {
    match status {
        // The crate has these by their older names.
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        _ => http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (size, text) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (65536, "10000\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(chunk_size(size, &mut [0; 18]), text.as_bytes());
        }
    }

    #[test]
    fn an_empty_chunk_is_never_written() {
        let mut out = Vec::new();
        chunk(&mut out, b"");
        chunk(&mut out, b"0123456789abcdef");
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n");
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 429, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn an_answer_is_framed_by_its_status_its_request_and_its_body() {
        use BodyLength::{Chunked, Empty, Known, UntilClose};
        use BodyShape::{Absent, Streamed, Whole};
        let (http10, http11, http2) = (Version::Http10, Version::Http11, Version::Http2);
        let declared = |bytes| Absent { declared: Some(bytes) };
        let not_declared = Absent { declared: None };
        for (body, status, version, is_head, framing) in [
            (BodyShape::Upgraded, 101, http11, false, Framing::Upgraded),
            // RFC 9110 §8.6: no Content-Length in 1xx and 204; in 304 that of the body it would have had.
            (declared(5), 100, http11, false, Framing::None(None)),
            (declared(5), 199, http11, false, Framing::None(None)),
            (declared(5), 204, http11, true, Framing::None(None)),
            (declared(5), 304, http11, false, Framing::None(Some(5))),
            (not_declared, 304, http11, false, Framing::None(None)),
            (declared(5), 200, http11, true, Framing::None(Some(5))),
            (not_declared, 200, http11, true, Framing::None(None)),
            (declared(5), 200, http11, false, Framing::Length(0)),
            (Whole(3), 204, http11, false, Framing::None(None)),
            (Whole(3), 304, http11, false, Framing::None(None)),
            (Streamed(Chunked), 304, http11, false, Framing::None(None)),
            (Whole(3), 200, http10, false, Framing::Length(3)),
            (Whole(3), 200, http10, true, Framing::None(Some(3))),
            (Streamed(Empty), 200, http11, false, Framing::Length(0)),
            (Streamed(Empty), 200, http11, true, Framing::None(None)),
            (Streamed(Known(7)), 200, http11, false, Framing::Length(7)),
            (Streamed(Known(7)), 200, http11, true, Framing::None(Some(7))),
            (Streamed(Chunked), 200, http11, false, Framing::Chunked),
            (Streamed(Chunked), 200, http2, false, Framing::Chunked),
            (Streamed(Chunked), 200, http10, false, Framing::UntilClose),
            (Streamed(Chunked), 200, http11, true, Framing::None(None)),
            (Streamed(UntilClose), 200, http11, false, Framing::Chunked),
            (Streamed(UntilClose), 200, http10, false, Framing::UntilClose),
            (Streamed(UntilClose), 200, http10, true, Framing::None(None)),
        ] {
            let found = Framing::of(body, status, version, is_head);
            assert_eq!(found, framing, "{body:?} {status} {version:?} HEAD: {is_head}");
        }
    }

    #[test]
    fn a_head_says_its_framing_and_what_becomes_of_the_connection() {
        let length = Framing::Length(5);
        for (framing, version, asked_to_keep, lines) in [
            (length, Version::Http11, true, "Content-Length: 5\r\n"),
            (length, Version::Http2, true, "Content-Length: 5\r\n"),
            (length, Version::Http11, false, "Content-Length: 5\r\nConnection: close\r\n"),
            (length, Version::Http10, true, "Content-Length: 5\r\nConnection: keep-alive\r\n"),
            (length, Version::Http10, false, "Content-Length: 5\r\nConnection: close\r\n"),
            (Framing::UntilClose, Version::Http10, true, "Connection: close\r\n"),
            (Framing::None(Some(7)), Version::Http11, true, "Content-Length: 7\r\n"),
            (Framing::None(None), Version::Http11, true, ""),
            (Framing::Chunked, Version::Http11, true, "Transfer-Encoding: chunked\r\n"),
            (Framing::Upgraded, Version::Http11, true, "Connection: upgrade\r\n"),
        ] {
            let mut fields = Fields::new();
            fields.push("A", b"1");
            for (reason, phrase) in [(None, "OK"), (Some(&b"Fine"[..]), "Fine")] {
                let (mut out, answer) = (Vec::new(), AnswerLines { status: 200, reason, fields: &fields });
                head(&mut out, answer, framing, Persistence::of(framing, version, asked_to_keep));
                let expected = format!("HTTP/1.1 200 {phrase}\r\nA: 1\r\n{lines}\r\n");
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    #[test]
    fn reasons_are_those_of_the_registry() {
        for (status, reason) in [
            (200, "OK"),
            (413, "Content Too Large"),
            (422, "Unprocessable Content"),
            (599, "Unknown"),
            (1000, "Unknown"),
        ] {
            assert_eq!(standard_reason(status), reason, "{status}");
        }
    }
}
