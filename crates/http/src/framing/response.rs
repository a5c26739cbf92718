//! Parses the head of an answer (RFC 9112 §2, §4, §5, §6), almost as strictly as a request's. A head that can be read
//! in two ways is refused, because the client might read it in the other way.
//!
//! Three things are accepted, because framing does not depend on them. A status line may end behind the status code,
//! without the space that RFC 9112 §4 asks for: many servers leave it out, and every client accepts that. `HTTP/1.2`
//! and above is read as HTTP/1.1 (RFC 9110 §2.5). An interim answer or a 204 may announce a body, though it has none
//! (RFC 9112 §6.3); its connection is then not used again.
//!
//! With [`HeadRules::accept_invalid`] it accepts more: what old applications send and what has only one sensible
//! reading. The client never sees the invalid form, since the head is always written anew.

mod fields;
#[cfg(test)]
mod tests;

use super::bytes::{VALUE, is};
use crate::fields::Fields;
use crate::message::{BodyLength, Version};
use fields::FieldReader;

/// How a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRules {
    /// Most bytes, from the first through the empty line: `upstream.max_head_bytes`.
    pub max_head_bytes: usize,
    /// Most field lines: `upstream.max_headers`.
    pub max_headers: usize,
    /// Accepts lines that end with a bare LF, folded fields, statuses from 600 to 999, empty elements in a list of
    /// transfer codings, a transfer coding in HTTP/1.0, and blanks before a field's colon: `upstream.accept_invalid`.
    pub accept_invalid: bool,
}

impl HeadRules {
    /// The defaults of the configuration.
    pub const SHIPPED: Self = Self { max_head_bytes: 32 * 1024, max_headers: 256, accept_invalid: false };
}

/// Most interim answers (1xx) before the final one. Servers send at most two or three.
pub const MAX_INTERIM: u8 = 8;

/// Which rule an answer breaks, as a text for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerFault(pub &'static str);

impl std::fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for AnswerFault {}

/// The head of one answer, checked.
#[derive(Clone, Debug)]
pub struct Head {
    /// The version that the backend speaks.
    pub version: Version,
    /// 100 to 599; up to 999 with [`HeadRules::accept_invalid`].
    pub status: u16,
    /// The reason phrase as it came; may be empty.
    pub reason: Vec<u8>,
    /// All fields in order except `Content-Length` and `Transfer-Encoding`.
    pub fields: Fields,
    /// What these two fields say about the body.
    declared: Declared,
    /// Whether the connection may be kept once the body is read (RFC 9112 §9.3). Also false if the answer announces a
    /// body that it can't have, since the backend might send it.
    pub keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

impl Head {
    /// How the body behind this head ends (RFC 9112 §6.3). `to_head`: the request was a HEAD.
    pub fn body_length(&self, to_head: bool) -> BodyLength {
        match self.declared {
            _ if to_head || self.has_no_body() => BodyLength::Empty,
            Declared::Chunked => BodyLength::Chunked,
            Declared::Length(0) => BodyLength::Empty,
            Declared::Length(bytes) => BodyLength::Known(bytes),
            Declared::Nothing => BodyLength::UntilClose,
        }
    }

    /// How the body of an answer to GET would have ended, which an answer to HEAD and a 304 may say (RFC 9110 §8.6,
    /// §9.3.2). [`BodyLength::Empty`] if this one does not.
    pub fn declared_length(&self) -> BodyLength {
        match self.declared {
            Declared::Chunked => BodyLength::Chunked,
            Declared::Length(bytes) => BodyLength::Known(bytes),
            Declared::Nothing => BodyLength::Empty,
        }
    }

    fn has_no_body(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Whether another answer to the same request follows (RFC 9110 §15.2). Behind a 101 comes another protocol.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }
}

type Stop = super::Stop<AnswerFault>;

const fn broken(sentence: &'static str) -> Stop {
    Stop::Broken(AnswerFault(sentence))
}

/// A fault that [`HeadRules::accept_invalid`] would have accepted. Its text names the key that the operator can set.
macro_rules! unless_accepted {
    ($sentence:literal) => {
        crate::framing::response::broken(concat!($sentence, " (upstream.accept_invalid takes such answers)"))
    };
}
use unless_accepted;

/// The fault of a status above 599 without [`HeadRules::accept_invalid`].
pub const HIGH_STATUS: AnswerFault =
    AnswerFault("a status above 599 (upstream.accept_invalid takes such answers)");

/// Reads the status line at the start of `bytes` alone. `None`: the line has not ended yet.
///
/// # Errors
/// It breaks a rule.
pub fn status(bytes: &[u8], accept_invalid: bool) -> Result<Option<u16>, AnswerFault> {
    match read_status_line(bytes, accept_invalid) {
        Ok((_, status, ..)) => Ok(Some(status)),
        Err(Stop::Broken(fault)) => Err(fault),
        Err(Stop::Incomplete) => Ok(None),
    }
}

/// Reads one head from the start of `bytes`. Returns it with its length in bytes; `None`: more bytes are needed. The
/// result does not depend on how much came at once.
///
/// # Errors
/// The head breaks a rule, or is over a bound.
pub fn parse(bytes: &[u8], rules: &HeadRules) -> Result<Option<(Head, usize)>, AnswerFault> {
    let seen = &bytes[..bytes.len().min(rules.max_head_bytes)];
    match read_head(seen, rules) {
        Ok(found) => Ok(Some(found)),
        Err(Stop::Broken(fault)) => Err(fault),
        Err(Stop::Incomplete) if bytes.len() >= rules.max_head_bytes => {
            Err(AnswerFault("the head is larger than upstream.max_head_bytes"))
        }
        Err(Stop::Incomplete) => Ok(None),
    }
}

fn read_head(bytes: &[u8], rules: &HeadRules) -> Result<(Head, usize), Stop> {
    let (version, status, reason, mut at) = read_status_line(bytes, rules.accept_invalid)?;
    let mut reader = FieldReader::new(version, status, rules);
    loop {
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(b'\r' | b'\n') => {
                at = end_of_line(bytes, at, rules.accept_invalid)?;
                return Ok((reader.finish(reason.to_vec()), at));
            }
            Some(_) => at = reader.line(bytes, at)?,
        }
    }
}

/// Reads `HTTP-version SP status-code [SP reason-phrase] CRLF` (RFC 9112 §4).
fn read_status_line(bytes: &[u8], accept_invalid: bool) -> Result<(Version, u16, &[u8], usize), Stop> {
    const SHAPE: &[u8; 12] = b"HTTP/1.9 999";
    const FIRST_DIGIT: usize = 9;
    for (at, shape) in SHAPE.iter().enumerate() {
        let byte = *bytes.get(at).ok_or(Stop::Incomplete)?;
        let fits = match (at, shape) {
            (FIRST_DIGIT, _) if matches!(byte, b'6'..=b'9') && !accept_invalid => {
                return Err(Stop::Broken(HIGH_STATUS));
            }
            (FIRST_DIGIT, _) => matches!(byte, b'1'..=b'9'),
            (_, b'9') => byte.is_ascii_digit(),
            _ => byte == *shape,
        };
        if !fits {
            return Err(broken("not a status line of HTTP/1"));
        }
    }
    // RFC 9110 §2.5: a higher minor version is read as HTTP/1.1.
    let version = if bytes[7] == b'0' { Version::Http10 } else { Version::Http11 };
    let status = bytes[FIRST_DIGIT..12].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let mut start = SHAPE.len();
    match bytes.get(start) {
        None => return Err(Stop::Incomplete),
        Some(b' ') => start += 1,
        Some(b'\r' | b'\n') => {}
        Some(_) => return Err(broken("a status code that has more than three digits")),
    }
    let end = value_end(bytes, start)?;
    Ok((version, status, &bytes[start..end], end_of_line(bytes, end, accept_invalid)?))
}

/// The position of the first byte from `start` on that is not allowed in a field value.
#[inline]
fn value_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    bytes[start..]
        .iter()
        .position(|byte| !is(*byte, VALUE))
        .map(|length| start + length)
        .ok_or(Stop::Incomplete)
}

/// The position behind the CRLF that has to be at `at`; with `accept_invalid` a bare LF is enough.
#[inline]
fn end_of_line(bytes: &[u8], at: usize, accept_invalid: bool) -> Result<usize, Stop> {
    match bytes.get(at) {
        Some(b'\n') if accept_invalid => Ok(at + 1),
        Some(b'\n') => Err(unless_accepted!("a line feed without a carriage return")),
        _ => super::end_of_line(bytes, at, AnswerFault),
    }
}
