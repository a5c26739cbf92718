//! The hand-written cases of `cases.txt`, each put into a stream as its section says.

use super::properties::seeds;

/// What kind of stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests of a client.
    Requests,
    /// Answers of a server to GET.
    Answers,
    /// Answers of a server to HEAD.
    AnswersToHead,
}

/// One stream of bytes.
#[derive(Clone, Debug)]
pub struct Case {
    pub kind: Kind,
    pub stream: Vec<u8>,
}

/// How a line of a section becomes a stream: its kind, and the bytes before and after the line.
type Wrap = (Kind, &'static [u8], &'static [u8]);

const CHUNKED_REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKS: &[u8] = b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// The sections, by how their headings begin.
const SECTIONS: &[(&str, &[Wrap])] = &[
    ("request lines", &[(Kind::Requests, b"", b"\r\nHost: a\r\n\r\n")]),
    ("request fields", &[(Kind::Requests, b"POST / HTTP/1.1\r\nHost: a\r\n", b"\r\nhello")]),
    ("transfer codings", &[(Kind::Requests, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:", CHUNKS)]),
    ("chunked bodies", &[(Kind::Requests, CHUNKED_REQUEST, b""), (Kind::Answers, CHUNKED_ANSWER, b"")]),
    ("streams of requests", &[(Kind::Requests, b"", b"")]),
    ("status lines", &[(Kind::Answers, b"", b"\r\nContent-Length: 5\r\n\r\nhello")]),
    (
        "answer fields",
        &[
            (Kind::Answers, b"HTTP/1.1 200 OK\r\n", b"\r\nhello"),
            (Kind::AnswersToHead, b"HTTP/1.1 200 OK\r\n", b"\r\n"),
        ],
    ),
    ("answer codings", &[(Kind::Answers, b"HTTP/1.1 200 OK\r\nTransfer-Encoding:", CHUNKS)]),
    ("streams of answers", &[(Kind::Answers, b"", b""), (Kind::AnswersToHead, b"", b"")]),
];

/// Every case of the file.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut section = None;
    for line in include_str!("cases.txt").lines() {
        if let Some(heading) = line.strip_prefix('[').filter(|line| line.ends_with(']')) {
            let found = SECTIONS.iter().find(|(name, _)| heading.starts_with(name));
            section = Some(found.unwrap_or_else(|| panic!("no section is called {heading}")).1);
            continue;
        }
        for text in seeds::read(line).expect("a case") {
            for (kind, before, behind) in section.expect("a heading comes first") {
                cases.push(Case { kind: *kind, stream: [before, &text[..], behind].concat() });
            }
        }
    }
    cases
}
