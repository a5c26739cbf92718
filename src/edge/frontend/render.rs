//! How an answer stands on the wire: its head and the framing of its body (RFC 9112 §2.2, §6, §7.1). Both engines write
//! through this page, so that they can differ only in what they do with connections.

use std::io::Write;

use crate::exchange::{Answer, AnswerBody, BodyLength, Version};

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

/// The last chunk, without trailers (RFC 9112 §7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How an answer's body goes to that client. `is_head`: it answers a HEAD request.
pub fn framing(answer: &Answer, version: Version, is_head: bool) -> Framing {
    match &answer.body {
        AnswerBody::Upgrade(_) => Framing::Upgraded,
        AnswerBody::None { declared } => match answer.status {
            // RFC 9110 §8.6: no Content-Length in 1xx and 204.
            100..200 | 204 => Framing::None(None),
            304 => Framing::None(*declared),
            _ if is_head => Framing::None(*declared),
            _ => Framing::Length(0),
        },
        _ if matches!(answer.status, 204 | 304) => Framing::None(None),
        AnswerBody::Bytes(bytes) if is_head => Framing::None(Some(bytes.len() as u64)),
        AnswerBody::Bytes(bytes) => Framing::Length(bytes.len() as u64),
        AnswerBody::Stream(length, _) => match length {
            BodyLength::Empty if is_head => Framing::None(None),
            BodyLength::Empty => Framing::Length(0),
            BodyLength::Known(bytes) if is_head => Framing::None(Some(*bytes)),
            BodyLength::Known(bytes) => Framing::Length(*bytes),
            BodyLength::Chunked | BodyLength::UntilClose if is_head => Framing::None(None),
            BodyLength::Chunked | BodyLength::UntilClose => match version {
                Version::Http11 => Framing::Chunked,
                Version::Http10 => Framing::UntilClose,
            },
        },
    }
}

/// Whether the connection outlives the answer: the client wants it and nothing ends it. `asked_to_keep`: an HTTP/1.1
/// client that did not say `close`, or an HTTP/1.0 client that said `keep-alive`.
pub fn persistence(answer: &Answer, framing: Framing, version: Version, asked_to_keep: bool) -> Persistence {
    if answer.close || !asked_to_keep || framing == Framing::UntilClose {
        return Persistence::Closed;
    }
    match version {
        Version::Http11 => Persistence::Kept,
        Version::Http10 => Persistence::KeptAsAsked,
    }
}

/// Appends the head: status line, the answer's fields in order, framing, connection, empty line.
pub fn head(out: &mut Vec<u8>, answer: &Answer, framing: Framing, persistence: Persistence) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(answer.status));
    out.push(b' ');
    match &answer.reason {
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
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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

    fn answer(status: u16, body: AnswerBody) -> Answer {
        let mut answer = Answer::new(status, Vec::new());
        answer.body = body;
        answer
    }

    #[test]
    fn framing_follows_status_method_and_version() {
        let bytes = || AnswerBody::Bytes(b"four".to_vec());
        let none = |declared| AnswerBody::None { declared };
        let table = [
            (200, bytes(), Version::Http11, false, Framing::Length(4)),
            (200, bytes(), Version::Http10, false, Framing::Length(4)),
            (200, bytes(), Version::Http11, true, Framing::None(Some(4))),
            (204, bytes(), Version::Http11, false, Framing::None(None)),
            (304, none(Some(9)), Version::Http11, false, Framing::None(Some(9))),
            (304, none(None), Version::Http11, false, Framing::None(None)),
            (200, none(Some(9)), Version::Http11, true, Framing::None(Some(9))),
            (200, none(None), Version::Http11, true, Framing::None(None)),
            (200, none(None), Version::Http11, false, Framing::Length(0)),
        ];
        for (status, body, version, is_head, expected) in table {
            let answer = answer(status, body);
            assert_eq!(framing(&answer, version, is_head), expected, "{status} {version:?} head={is_head}");
        }
    }

    #[test]
    fn a_head_is_written_in_order_and_whole() {
        let mut answer = Answer::new(200, b"hi".to_vec()).with("Set-Cookie", "a=1").with("Set-Cookie", "b=2");
        answer.reason = Some(b"Fine".to_vec());
        let mut out = Vec::new();
        let framing = framing(&answer, Version::Http11, false);
        head(&mut out, &answer, framing, persistence(&answer, framing, Version::Http11, false));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        );
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
}
