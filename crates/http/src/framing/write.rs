//! An answer on the wire: its head and the framing of its body (RFC 9112 §2.2, §6, §7.1).

use std::io::Write;

use crate::fields::Fields;
use crate::message::{BodyLength, Version};

/// How the body of an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body and, where `Some`, the length that one would have had (HEAD, 304).
    None(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`; HTTP/1.1 clients only.
    Chunked,
    /// Ended by the end of the connection, which must follow.
    UntilClose,
    /// 101: whatever the new protocol says.
    Upgraded,
}

/// What the `Connection` field of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: the default of HTTP/1.1.
    Kept,
    /// `keep-alive`, which an HTTP/1.0 client has to be told (RFC 9112 §9.3).
    KeptAsAsked,
    /// `close`.
    Closed,
}

/// What a body is, as far as its framing has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyShape {
    /// None at all (HEAD, 204, 304), and the length that one would have had.
    Absent {
        /// In bytes; `None` sends no Content-Length.
        declared: Option<u64>,
    },
    /// So many bytes, all there.
    Whole(u64),
    /// It arrives while it is sent.
    Streamed(BodyLength),
    /// After a 101.
    Upgraded,
}

/// The last chunk, without trailers (RFC 9112 §7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Framing {
    /// How a body goes to a client of that version. `is_head`: it answers a HEAD request.
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
                    // HTTP/2 has frames of its own; who writes it asks for no framing.
                    Version::Http11 | Version::Http2 => Self::Chunked,
                },
            },
        }
    }
}

impl Persistence {
    /// Whether the connection outlives an answer that does not end it itself: the client wants it and the framing allows
    /// it. `asked_to_keep`: an HTTP/1.1 client that did not say `close`, or an HTTP/1.0 client that said `keep-alive`.
    pub fn of(framing: Framing, version: Version, asked_to_keep: bool) -> Self {
        match version {
            _ if !asked_to_keep || framing == Framing::UntilClose => Self::Closed,
            Version::Http10 => Self::KeptAsAsked,
            Version::Http11 | Version::Http2 => Self::Kept,
        }
    }
}

/// What an answer's head says beside framing and connection.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLines<'a> {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; `None`: the standard one.
    pub reason: Option<&'a [u8]>,
    /// All fields in order, without framing and `Connection`.
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

/// Appends one chunk; nothing for no bytes, since an empty chunk would end the body.
pub fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{:x}\r\n", bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The reason phrase that RFC 9110 §15 and the registry give a status; "Unknown" where they give none.
pub fn standard_reason(status: u16) -> &'static str {
    match status {
        // Named otherwise, or not at all, in the crate's older list.
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
}
