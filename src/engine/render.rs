//! Writes an [`Answer`] to the wire, for both engines: they can differ only in what they do with connections.

use crate::proxy::exchange::{Answer, AnswerBody};
use balancer_http::framing::write::{self, AnswerLines, BodyShape};
use balancer_http::message::Version;

pub use balancer_http::framing::write::{Framing, LAST_CHUNK, Persistence, chunk, chunk_size, field};

/// How an answer's body is framed for a client of that version. `is_head`: it answers a HEAD request.
pub fn framing(answer: &Answer, version: Version, is_head: bool) -> Framing {
    let body = match &answer.body {
        AnswerBody::None { declared } => BodyShape::Absent { declared: *declared },
        AnswerBody::Bytes(bytes) => BodyShape::Whole(bytes.len() as u64),
        AnswerBody::Relayed(length) => BodyShape::Streamed(*length),
        AnswerBody::Tunnel => BodyShape::Upgraded,
    };
    Framing::of(body, answer.status, version, is_head)
}

/// Whether the connection outlives the answer: the client wants it and nothing ends it.
pub fn persistence(answer: &Answer, framing: Framing, version: Version, asked_to_keep: bool) -> Persistence {
    Persistence::of(framing, version, asked_to_keep && !answer.close)
}

/// Appends the head: status line, the answer's fields in order, framing, connection, empty line.
pub fn head(out: &mut Vec<u8>, answer: &Answer, framing: Framing, persistence: Persistence) {
    let Answer { status, reason, fields, .. } = answer;
    let lines = AnswerLines { status: *status, reason: reason.as_deref(), fields };
    write::head(out, lines, framing, persistence);
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
}
