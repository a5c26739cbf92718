//! The head of an answer (RFC 9112 §2, §4, §5, §6), read as strictly as a request's: what is ambiguous or broken is
//! refused and never mended, because whatever we made of it, the client might make something else.
//!
//! One leniency, which no framing hangs on: a status line may end behind the status code, without the space that
//! RFC 9112 §4 asks for. Many servers leave it out, and every client takes that.

#[cfg(test)]
mod tests;

use super::bytes::{TOKEN, VALUE, is};
use crate::rules::fields::Fields;
use crate::rules::message::{BodyLength, Version};

/// Most bytes of one head, from its first byte through its empty line.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Most field lines of one head.
pub const MAX_FIELDS: usize = 256;
/// Most interim answers (1xx) before the final one. Nobody sends more than two or three.
pub const MAX_INTERIM: u8 = 8;

/// Which rule an answer breaks, as a sentence for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

/// The head of one answer, checked.
#[derive(Clone, Debug)]
pub struct Head {
    /// As the backend speaks it.
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase as it came; may be empty.
    pub reason: Vec<u8>,
    /// All fields in order except `Content-Length` and `Transfer-Encoding`.
    pub fields: Fields,
    /// What the two said about the body.
    declared: Declared,
    /// Whether the connection may be kept once the body is read (RFC 9112 §9.3).
    pub keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

impl Head {
    /// How the body ends that follows this head (RFC 9112 §6.3). `to_head`: the request was a HEAD.
    pub fn body_length(&self, to_head: bool) -> BodyLength {
        match self.declared {
            _ if to_head || self.has_no_body() => BodyLength::Empty,
            Declared::Chunked => BodyLength::Chunked,
            Declared::Length(0) => BodyLength::Empty,
            Declared::Length(bytes) => BodyLength::Known(bytes),
            Declared::Nothing => BodyLength::UntilClose,
        }
    }

    /// How the body of a GET would have ended, as an answer to HEAD and a 304 tell it (RFC 9110 §8.6, §9.3.2).
    /// [`BodyLength::Empty`] when they do not.
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

    fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }
}

/// What a look for the final answer came to.
#[derive(Debug)]
pub enum Found {
    /// More bytes are needed. The first `used` bytes were interim answers and are done with.
    More {
        /// Bytes to drop.
        used: usize,
    },
    /// The final answer's head, or a 101. Its body starts behind `used` bytes.
    Final {
        /// The head.
        head: Head,
        /// Bytes up to the body.
        used: usize,
    },
}

/// Looks for the final answer to one request, past the interim ones (RFC 9110 §15.2).
#[derive(Clone, Debug)]
pub struct Finder {
    may_switch: bool,
    interim: u8,
}

impl Finder {
    /// `may_switch`: the request asked for an upgrade, so that a 101 is an answer to it.
    pub const fn new(may_switch: bool) -> Self {
        Self { may_switch, interim: 0 }
    }

    /// Reads heads from the start of `bytes`, which holds everything received that was not reported as used.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Found, Fault> {
        let mut at = 0;
        while let Some((head, used)) = parse(&bytes[at..])? {
            at += used;
            if !head.is_interim() {
                if head.status == 101 && !self.may_switch {
                    return Err(Fault("a 101 that nobody asked for"));
                }
                return Ok(Found::Final { head, used: at });
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Fault("too many interim answers"));
            }
        }
        Ok(Found::More { used: at })
    }
}

/// Why reading stopped.
enum Stop {
    Incomplete,
    Broken(Fault),
}

const fn broken(sentence: &'static str) -> Stop {
    Stop::Broken(Fault(sentence))
}

/// Reads one head from the start of `bytes`; with it, how many bytes it has. `None`: a proper beginning, more is
/// needed. The verdict never depends on how much came at once.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let seen = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
    match read_head(seen) {
        Ok(found) => Ok(Some(found)),
        Err(Stop::Broken(fault)) => Err(fault),
        Err(Stop::Incomplete) if bytes.len() >= MAX_HEAD_BYTES => Err(Fault("the head is too large")),
        Err(Stop::Incomplete) => Ok(None),
    }
}

fn read_head(bytes: &[u8]) -> Result<(Head, usize), Stop> {
    let (version, status, reason, mut at) = read_status_line(bytes)?;
    let mut reader = Reader { version, ..Reader::default() };
    let mut lines = 0;
    loop {
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(b'\r' | b'\n') => {
                at = end_of_line(bytes, at)?;
                return Ok((reader.finish(status, reason.to_vec())?, at));
            }
            Some(b' ' | b'\t') => return Err(broken("a header line starts with whitespace")),
            Some(_) if lines == MAX_FIELDS => return Err(broken("too many header fields")),
            Some(_) => {}
        }
        at = reader.line(bytes, at)?;
        lines += 1;
    }
}

/// Reads `HTTP-version SP status-code [SP reason-phrase] CRLF` (RFC 9112 §4).
fn read_status_line(bytes: &[u8]) -> Result<(Version, u16, &[u8], usize), Stop> {
    const SHAPE: &[u8; 12] = b"HTTP/1.x 999";
    for (at, shape) in SHAPE.iter().enumerate() {
        let byte = *bytes.get(at).ok_or(Stop::Incomplete)?;
        let fits = match (at, shape) {
            (_, b'x') => matches!(byte, b'0' | b'1'),
            (9, _) => matches!(byte, b'1'..=b'5'),
            (_, b'9') => byte.is_ascii_digit(),
            _ => byte == *shape,
        };
        if !fits {
            return Err(broken("not a status line of HTTP/1.0 or HTTP/1.1"));
        }
    }
    let version = if bytes[7] == b'0' { Version::Http10 } else { Version::Http11 };
    let status = bytes[9..12].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let mut start = SHAPE.len();
    match bytes.get(start) {
        None => return Err(Stop::Incomplete),
        Some(b' ') => start += 1,
        Some(b'\r' | b'\n') => {}
        Some(_) => return Err(broken("a status code that has more than three digits")),
    }
    let end = value_end(bytes, start)?;
    Ok((version, status, &bytes[start..end], end_of_line(bytes, end)?))
}

/// The end of a run of text at `start`; whatever comes next is no text.
#[inline]
fn value_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    bytes[start..]
        .iter()
        .position(|byte| !is(*byte, VALUE))
        .map(|length| start + length)
        .ok_or(Stop::Incomplete)
}

/// The position behind the CRLF that must stand at `at`.
#[inline]
fn end_of_line(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (Some(b'\r'), None) | (None, _) => Err(Stop::Incomplete),
        (Some(b'\r'), Some(_)) => Err(broken("a carriage return without a line feed")),
        (Some(b'\n'), _) => Err(broken("a line feed without a carriage return")),
        (Some(_), _) => Err(broken("a control character in the head")),
    }
}

/// What the field lines say so far.
struct Reader {
    version: Version,
    fields: Fields,
    declared: Declared,
    close: bool,
    keep: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            version: Version::Http11,
            // With room for what is added on the way to the client.
            fields: Fields::with_room(20, 768),
            declared: Declared::Nothing,
            close: false,
            keep: false,
        }
    }
}

impl Reader {
    /// Reads `field-name ":" OWS field-value OWS CRLF` (RFC 9112 §5). Whitespace before the colon and folded lines
    /// could be mended by a proxy (§5.1, §5.2); here they are refused.
    fn line(&mut self, bytes: &[u8], start: usize) -> Result<usize, Stop> {
        let length = bytes[start..].iter().position(|byte| !is(*byte, TOKEN)).ok_or(Stop::Incomplete)?;
        let colon = start + length;
        match bytes[colon] {
            b':' if length > 0 => {}
            b':' => return Err(broken("a header field has an empty name")),
            b' ' | b'\t' => return Err(broken("whitespace before the colon of a header field")),
            _ => return Err(broken("a header field's name holds a byte that may not stand in it")),
        }
        let end = value_end(bytes, colon + 1)?;
        let next = end_of_line(bytes, end)?;
        // A token is ASCII.
        let name = std::str::from_utf8(&bytes[start..colon]).unwrap_or_default();
        self.take(name, bytes[colon + 1..end].trim_ascii())?;
        Ok(next)
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Stop> {
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => return self.length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return self.coding(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in crate::rules::fields::tokens(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        self.fields.push(name, value);
        Ok(())
    }

    /// RFC 9110 §8.6: one value of digits. A second one is refused even when it is equal (RFC 9112 §6.3 allows it).
    fn length(&mut self, value: &[u8]) -> Result<(), Stop> {
        match self.declared {
            Declared::Length(_) => return Err(broken("more than one Content-Length")),
            Declared::Chunked => return Err(broken("both Content-Length and Transfer-Encoding")),
            Declared::Nothing => {}
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(broken("the Content-Length is not one number"));
        }
        let length = value
            .iter()
            .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        self.declared = Declared::Length(length.ok_or(broken("the Content-Length is too large"))?);
        Ok(())
    }

    /// RFC 9112 §6.1: `chunked`, once, and never from HTTP/1.0.
    fn coding(&mut self, value: &[u8]) -> Result<(), Stop> {
        match self.declared {
            Declared::Length(_) => return Err(broken("both Content-Length and Transfer-Encoding")),
            Declared::Chunked => return Err(broken("more than one Transfer-Encoding")),
            Declared::Nothing => {}
        }
        if self.version == Version::Http10 {
            return Err(broken("Transfer-Encoding in HTTP/1.0"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(broken("a transfer coding other than chunked"));
        }
        self.declared = Declared::Chunked;
        Ok(())
    }

    fn finish(self, status: u16, reason: Vec<u8>) -> Result<Head, Stop> {
        // RFC 9110 §8.6, RFC 9112 §6.1: neither may announce a body. One that does is read differently by different
        // recipients, so that the next answer on this connection is in doubt.
        if matches!(status, 100..=199 | 204)
            && !matches!(self.declared, Declared::Nothing | Declared::Length(0))
        {
            return Err(broken("an answer without a body announces one"));
        }
        let keep_alive = !self.close && (self.version == Version::Http11 || self.keep);
        Ok(Head {
            version: self.version,
            status,
            reason,
            fields: self.fields,
            declared: self.declared,
            keep_alive,
        })
    }
}
