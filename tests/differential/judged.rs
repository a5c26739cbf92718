//! Every class of difference between us and another parser, with the reason why we are right. Sections are those of RFC
//! 9112 unless another RFC is named.
//!
//! Where we are stricter, there is a reason. Where we are laxer, there is a reason and a condition: it holds only for
//! streams that have what the reason is about.

use super::cases::{Case, Kind};
use super::compare::Difference;
use super::reading::ours;

/// What we refuse, by the text of our refusal, while h11, httptools or both take it.
const STRICTER: &[(&str, &str)] = &[
    // The request line.
    (
        "too many empty lines before a request",
        "§2.2 asks to ignore at least one; without a bound they are free work",
    ),
    (
        "the request line does not start with a method",
        "§3, RFC 9110 §9.1: h11 judges a line only when it is whole",
    ),
    ("a method that this server does not know", "§3: 501 beyond 32 bytes, which no registered method has"),
    (
        "this server opens no tunnels",
        "RFC 9110 §9.3.6: CONNECT is not offered, a proxy for HTTP is no tunnel",
    ),
    (
        "the request line holds an empty target",
        "§3: single spaces; a second one is read differently by others",
    ),
    (
        "the request target holds a byte that may not stand in it",
        "§3.2, RFC 3986 §3.3, §3.4: fragments, control characters and bytes outside ASCII are no target",
    ),
    (
        "the request target holds a broken percent-encoding",
        "RFC 3986 §2.1: decoders differ in what they make of it",
    ),
    (
        "the request target is in no form that we take",
        "§3.2: origin, absolute and asterisk form, and http(s) alone",
    ),
    ("the request target holds no valid host", "RFC 9110 §4.2.1, §4.2.4: no empty host, no user information"),
    ("the target `*` is for OPTIONS alone", "§3.2.4"),
    ("the request target is too long", "RFC 9110 §4.1: 414 beyond our bound; the others have none"),
    (
        "the request line does not end with an HTTP version",
        "§2.3: HTTP in capitals and one digit each; RTSP and ICE are not HTTP",
    ),
    (
        "this server speaks HTTP/1.0 and HTTP/1.1",
        "§2.3, RFC 9110 §15.6.6: 505; the others leave that to whoever uses them",
    ),
    // Field lines, in both directions.
    (
        "a carriage return without a line feed",
        "§2.2: a bare CR is invalid; who takes it for a line end sees another message",
    ),
    (
        "a line feed without a carriage return",
        "§2.2 allows to take it for a line end; a recipient that does not sees another message",
    ),
    (
        "a header line starts with whitespace",
        "§2.2, §5.2: obs-fold is refused in requests, and what follows a start line in both",
    ),
    ("a folded header field", "§5.2: obs-fold may be refused in answers"),
    (
        "a header field has an empty name",
        "§5: a name is a token, and a token is not empty; h11 judges at the head's end",
    ),
    (
        "a header field's name holds a byte that may not stand in it",
        "§5: a token; h11 judges at the head's end",
    ),
    (
        "a header field's value holds a control character",
        "RFC 9110 §5.5: they are invalid; the others take some of them",
    ),
    ("a control character in the head", "RFC 9110 §5.5, §4: they are invalid; the others take some of them"),
    ("whitespace before the colon of a header field", "§5.1: 400 in requests; h11 judges at the head's end"),
    ("blanks before the colon of a header field", "§5.1: broken in answers; h11 judges at the head's end"),
    ("the request's header section is too large", "RFC 6585 §5: our bounds"),
    ("the head is larger than upstream.max_head_bytes", "our bounds"),
    ("more header fields than upstream.max_headers", "our bounds"),
    // Fields that frame a request.
    ("no Host", "§3.2: 400 in HTTP/1.1; httptools leaves that to whoever uses it"),
    ("more than one Host", "§3.2: 400; httptools leaves that to whoever uses it"),
    ("the Host is not a valid host", "§3.2: 400 for an invalid value; the others do not look at it"),
    (
        "the Content-Length is not a number",
        "RFC 9110 §8.6: digits; §6.3 allows a list of equal ones, which h11 takes",
    ),
    (
        "the Content-Length is too large for any message",
        "RFC 9110 §8.6: an overflow must be expected; Python's numbers have none",
    ),
    (
        "more than one Content-Length",
        "§6.3 allows equal ones to be merged, which h11 does; nobody honest sends two",
    ),
    (
        "both Content-Length and Transfer-Encoding",
        "§6.1: such a request may be refused, and is the classic of smuggling",
    ),
    ("chunked stands more than once in Transfer-Encoding", "§6.1, §7.1: chunked once, and last"),
    ("more than one Transfer-Encoding", "§6.1, §7.1: chunked once, and last"),
    ("the last transfer coding is not chunked", "§6.3: 400; llhttp takes some of them for no coding at all"),
    ("Transfer-Encoding in HTTP/1.0", "§6.1: framing is faulty; the others read it as HTTP/1.1"),
    (
        "a malformed Transfer-Encoding",
        "§7: a list of tokens; llhttp takes what does not end in chunked for none at all",
    ),
    ("the only transfer coding that this server knows is chunked", "§6.1: 501"),
    (
        "the only expectation that this server meets is 100-continue",
        "RFC 9110 §10.1.1: 417; the others leave that to whoever uses them",
    ),
    // The chunked coding.
    (
        "a chunk's size is not a hexadecimal number",
        "§7.1: hexadecimal digits alone; h11 takes blanks behind them",
    ),
    (
        "a chunk's size has too many digits",
        "§7.1: an overflow must be expected; 16 digits are 64 bits, zeros in front count",
    ),
    (
        "a chunk extension is malformed",
        "§7.1.1: names are tokens, values tokens or quoted strings; h11 does not look at extensions, llhttp takes empty ones",
    ),
    ("the chunk extensions are too long", "§7.1.1: bounded"),
    (
        "a line of the chunked coding does not end with CRLF",
        "§7.1: h11 takes bare LF in it; the classic of chunk extensions",
    ),
    ("a chunk is longer than its size says", "§7.1: CRLF behind the data"),
    ("the trailer section holds something that is no field", "§7.1.2, §5.1, §5.2: as in a head, no folding"),
    ("the trailer section is too long", "§7.1.2: bounded"),
    // Answers.
    ("not a status line of HTTP/1", "§4, §2.3: h11 judges a line when it is whole"),
    ("a status above 599", "RFC 9110 §15: from 100 to 599"),
    (
        "a status code that has more than three digits",
        "§4: h11 takes what stands behind three digits for the reason",
    ),
    ("the Content-Length is not one number", "RFC 9110 §8.6, §6.3: as in requests"),
    ("the Content-Length is too large", "RFC 9110 §8.6: as in requests"),
    ("a transfer coding other than chunked", "§6.1: we ask for none, so none may be sent"),
    ("an empty transfer coding beside chunked", "§6.1, RFC 9110 §5.6.1: nobody may send an empty element"),
    ("a transfer coding in HTTP/1.0", "§6.1: framing is faulty; the others read it as HTTP/1.1"),
    ("a 101 that nobody asked for", "RFC 9110 §15.2.2: httptools does not know what was asked"),
    ("too many interim answers", "RFC 9110 §15.2: our bound"),
];

/// Where we take what another parser refuses: which parser, how its text begins, why we are right, and the condition for
/// the stream.
type Laxer = (&'static str, &'static str, &'static str, fn(&Case) -> bool);

const LAXER: &[Laxer] = &[
    ("httptools", "Invalid method encountered", UNKNOWN_METHOD, has_unknown_method),
    ("httptools", "Expected space after method", UNKNOWN_METHOD, has_unknown_method),
    ("httptools", "Invalid method for HTTP/x.x request", UNKNOWN_METHOD, has_unknown_method),
    ("httptools", "Expected HTTP/2 Connection Preface", UNKNOWN_METHOD, has_unknown_method),
    (
        "httptools",
        "Invalid HTTP version",
        "RFC 9110 §2.5: a later minor version is spoken to as 1.1; llhttp knows 0.9, 1.0, 1.1 and 2.0",
        |case| has(case, b"HTTP/1.") && later_minor(case),
    ),
    (
        "httptools",
        "Request has invalid `Transfer-Encoding`",
        "RFC 9110 §5.6.3: a tab is whitespace around a value, too; it does not go on to the backend",
        |case| has(case, b"\t"),
    ),
    ("httptools", "Invalid `Transfer-Encoding` header value", IN_TRAILER, in_trailer),
    ("httptools", "Content-Length can't be present with Transfer-Encoding", IN_TRAILER, in_trailer),
    ("httptools", "Transfer-Encoding can't be present with Content-Length", IN_TRAILER, in_trailer),
    ("h11", "Only Transfer-Encoding: chunked is supported", IN_TRAILER, in_trailer),
    ("h11", "multiple Transfer-Encoding headers", IN_TRAILER, in_trailer),
    ("h11", "conflicting Content-Length headers", IN_TRAILER, in_trailer),
    ("h11", "bad Content-Length", IN_TRAILER, in_trailer),
    ("httptools", "Empty Transfer-Encoding", IN_TRAILER, in_trailer),
    (
        "httptools",
        "Data after `Connection: close`",
        "RFC 9110 §15.2: the final answer follows an interim one, whatever that says about the connection",
        |case| case.kind == Kind::Answers && case.stream.starts_with(b"HTTP/1.") && interim_first(case),
    ),
    ("h11", "bad Content-Length", HEAD_ONLY, has_only_a_head),
    ("h11", "conflicting Content-Length headers", HEAD_ONLY, has_only_a_head),
    ("h11", "multiple Transfer-Encoding headers", HEAD_ONLY, has_only_a_head),
    ("h11", "Only Transfer-Encoding: chunked is supported", HEAD_ONLY, has_only_a_head),
    ("httptools", "Invalid character in Content-Length", HEAD_ONLY, has_only_a_head),
    ("httptools", "Content-Length overflow", HEAD_ONLY, has_only_a_head),
    ("httptools", "Empty Content-Length", HEAD_ONLY, has_only_a_head),
    ("httptools", "Content-Length can't be present with", HEAD_ONLY, has_only_a_head),
    ("httptools", "Transfer-Encoding can't be present with", HEAD_ONLY, has_only_a_head),
    ("httptools", "Invalid `Transfer-Encoding` header value", HEAD_ONLY, has_only_a_head),
    ("httptools", "Empty Transfer-Encoding", HEAD_ONLY, has_only_a_head),
    ("httptools", "Invalid character in chunk size", PADDED, |case| {
        case.kind != Kind::Requests && has(case, b" \r\n")
    }),
    ("httptools", "Invalid character in chunk size", PADDED, |case| {
        case.kind != Kind::Requests && has(case, b"\t\r\n")
    }),
    ("httptools", "Invalid character in chunk extensions", EXTENSION, |case| has(case, b";")),
    (
        "httptools",
        "Invalid quoted-pair in chunk extensions",
        "§7.1.1: in answers any visible text is taken for an extension and dropped",
        |case| case.kind != Kind::Requests && has(case, b";"),
    ),
    ("httptools", "Invalid character in chunk size", BLANKS, |case| has(case, b" ;") || has(case, b"\t;")),
    ("h11", "illegal chunk header", BLANKS, |case| has(case, b" ;") || has(case, b"\t;")),
    (
        "h11",
        "no request line received",
        "§2.2: at least one empty line before a request is ignored; old clients send one behind a body",
        |case| has(case, b"\r\n"),
    ),
    (
        "h11",
        "Got data when expecting EOF",
        "§9.3: HTTP/1.0 with keep-alive, which h11 does not offer",
        |case| has(case, b"HTTP/1.0") && has(case, b"keep-alive"),
    ),
];

const IN_TRAILER: &str =
    "§7.1.2: it stands in the trailer section, where it frames nothing and is dropped by us";
const UNKNOWN_METHOD: &str =
    "RFC 9110 §9.1, §16.1: methods are extensible, and a proxy passes them on; llhttp has a list";
const EXTENSION: &str = "§7.1.1: a recipient ignores extensions it does not know; ours keep the grammar in requests, which llhttp reads without \
     blanks, are visible text in answers, and are dropped";
const HEAD_ONLY: &str =
    "§6.3: an interim answer and a 204 end with their head; what they announce does not go on to the client";
const PADDED: &str =
    "§7.1.1: some servers pad a size with blanks to a fixed width; they do not go on to the client";
const BLANKS: &str =
    "§7.1.1 lets whitespace stand before the semicolon of an extension; it is dropped with it";

/// Where both take a message but read it differently.
const OTHER: &[Laxer] = &[
    (
        "h11",
        "version",
        "RFC 9110 §2.5: a later minor version is spoken to as 1.1; h11 tells it as it came",
        later_minor,
    ),
    ("httptools", "version", "RFC 9110 §2.5: a later minor version is spoken to as 1.1", later_minor),
    (
        "httptools",
        "body",
        "RFC 9110 §5.6.3: a tab is whitespace around a value, too; llhttp takes `chunked` and a tab for another coding",
        |case| case.kind == Kind::Answers && has(case, b"\t"),
    ),
    (
        "httptools",
        "body",
        "RFC 9110 §7.8: a request that asks for an upgrade has its body all the same; llhttp stops at its head, and ours \
         goes out on a connection that is used for nothing else",
        |case| has(case, b"upgrade"),
    ),
];

/// Why a difference is right; `None` when it is in none of the tables.
pub fn why(peer: &str, found: &Difference, case: &Case) -> Option<&'static str> {
    let look = |rows: &[Laxer], text: &str| {
        rows.iter()
            .find(|(who, words, _, only)| *who == peer && text.starts_with(words) && only(case))
            .map(|(_, _, why, _)| *why)
    };
    match found {
        Difference::Stricter(text) => {
            let text = text.trim_end_matches(" (upstream.accept_invalid takes such answers)");
            STRICTER.iter().find(|(ours, _)| *ours == text).map(|(_, why)| *why)
        }
        Difference::Laxer(text) => look(LAXER, text),
        Difference::Other(member) => look(OTHER, member),
        // We have taken nothing yet: we judge some lines only when they are whole.
        Difference::Later(_) => Some("not decided yet"),
    }
}

/// Whether the difference is that llhttp takes only methods that it knows.
pub fn unknown_method(peer: &str, found: &Difference, case: &Case) -> bool {
    why(peer, found, case) == Some(UNKNOWN_METHOD)
}

/// Whether the stream contains the text, in upper or lower case.
fn has(case: &Case, text: &[u8]) -> bool {
    case.stream.windows(text.len()).any(|word| word.eq_ignore_ascii_case(text))
}

fn later_minor(case: &Case) -> bool {
    case.stream.windows(8).any(|word| word.starts_with(b"HTTP/1.") && matches!(word[7], b'2'..=b'9'))
}

fn interim_first(case: &Case) -> bool {
    case.stream.get(9) == Some(&b'1')
}

/// The methods for HTTP that llhttp knows.
const KNOWN_METHODS: &str = " ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY \
    MKCALENDAR MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SUBSCRIBE \
    TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE ";

fn has_unknown_method(case: &Case) -> bool {
    let messages = ours(case).messages;
    case.kind == Kind::Requests
        && messages.iter().any(|message| !KNOWN_METHODS.contains(&format!(" {} ", message.start.0)))
}

/// Whether a framing field comes after the first head. It could also be in the head of a later message, but there we refuse
/// what the others refuse, which the target `request` of `fuzz/` checks.
fn in_trailer(case: &Case) -> bool {
    let stream = case.stream.to_ascii_lowercase();
    let find = |text: &[u8]| stream.windows(text.len()).rposition(|word| word == text);
    let field = find(b"content-length").max(find(b"transfer-encoding"));
    let head = stream.windows(4).position(|word| word == b"\r\n\r\n");
    head.is_some() && field > head
}

/// Whether there is an answer that never has a body: an interim one, or a 204.
fn has_only_a_head(case: &Case) -> bool {
    let is_one = |word: &[u8]| word.starts_with(b"HTTP/1.") && (word[9] == b'1' || word[9..] == *b"204");
    case.kind != Kind::Requests && case.stream.windows(12).any(is_one)
}
