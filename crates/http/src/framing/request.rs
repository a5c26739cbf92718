//! Parses the head of a request (RFC 9112 §2, §3, §5, §6): strictly, in one pass, from left to right.
//!
//! The request to the backend is written from the [`RequestHead`] that this fills, never from the bytes that came.

mod fields;
mod target;
#[cfg(test)]
mod tests;

use super::bytes::{TOKEN, is};
use super::{FramingRefusal, bad, end_of_line};
use crate::message::Reason;
use crate::message::{RequestHead, Version};

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes, from the first through the empty line; a longer head gets a 431.
    pub max_head_bytes: usize,
    /// Most field lines; more get a 431.
    pub max_headers: usize,
    /// Most bytes of the request target; a longer one gets a 414.
    pub max_target_bytes: usize,
    /// Accepts bytes above 0x7F in the target, which RFC 3986 §2 wants percent-encoded.
    pub accept_invalid: bool,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// The beginning of a valid head; more bytes are needed.
    Incomplete,
    /// A whole head, now in the [`RequestHead`].
    Complete {
        /// Length of the head in bytes; the body starts behind it.
        consumed: usize,
        /// Whether the client wants the connection kept (RFC 9112 §9.3).
        keep_alive: bool,
    },
    /// The head breaks a rule. The [`RequestHead`] holds what was read before that.
    Refused(FramingRefusal),
}

/// Most empty lines that are skipped before a request line (RFC 9112 §2.2 asks for at least one).
const MAX_EMPTY_LINES: usize = 4;
/// Longest method that is accepted. The longest in IANA's registry has 17 bytes.
const MAX_METHOD_BYTES: usize = 32;
/// The `Allow` field of the 405 that a CONNECT gets, and of answers to `OPTIONS *`.
pub const ALLOW: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH";

const HEAD_TOO_LARGE: FramingRefusal =
    FramingRefusal { reason: Reason::HeadTooLarge, detail: "the request's header section is too large" };

type Stop = super::Stop<FramingRefusal>;

/// Reads a head from the beginning of `buffer`, which holds everything received since the last request's end.
/// Overwrites what `head` holds of the last request, and uses its memory again.
pub fn parse(buffer: &[u8], bounds: &Bounds, head: &mut RequestHead) -> HeadVerdict {
    // Never looks further than this, so that the verdict does not depend on how much arrived at once.
    let seen = &buffer[..buffer.len().min(bounds.max_head_bytes)];
    match read_head(seen, bounds, head) {
        Ok((consumed, keep_alive)) => HeadVerdict::Complete { consumed, keep_alive },
        Err(Stop::Incomplete) if buffer.len() >= bounds.max_head_bytes => {
            HeadVerdict::Refused(HEAD_TOO_LARGE)
        }
        Err(Stop::Incomplete) => HeadVerdict::Incomplete,
        Err(Stop::Broken(refusal)) => HeadVerdict::Refused(refusal),
    }
}

fn read_head(bytes: &[u8], bounds: &Bounds, head: &mut RequestHead) -> Result<(usize, bool), Stop> {
    head.method.clear();
    head.target.clear();
    head.fields.clear();
    head.lost_claim = false;
    let mut at = skip_empty_lines(bytes)?;
    at = read_method(bytes, at, head)?;
    let target_at = at;
    let (target_end, path_is_whole) = target::scan(bytes, at, bounds)?;
    at = read_version(bytes, target_end + 1, head)?;
    if !path_is_whole {
        return Err(bad("the request target holds a broken percent-encoding").into());
    }
    let authority = target::resolve(&bytes[target_at..target_end], head)?;
    let summary = fields::read(bytes, at, bounds.max_headers, authority, head)?;
    head.length = summary.length;
    head.expects_continue = summary.expects_continue;
    Ok((summary.end, summary.keep_alive))
}

fn skip_empty_lines(bytes: &[u8]) -> Result<usize, Stop> {
    let mut at = 0;
    while let Some(b'\r' | b'\n') = bytes.get(at) {
        if at == MAX_EMPTY_LINES * 2 {
            return Err(bad("too many empty lines before a request").into());
        }
        at = end_of_line(bytes, at, bad)?;
    }
    Ok(at)
}

/// Reads `method SP`.
fn read_method(bytes: &[u8], start: usize, head: &mut RequestHead) -> Result<usize, Stop> {
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(byte) if is(*byte, TOKEN) => at += 1,
            Some(b' ') if at > start => break,
            Some(_) => return Err(bad("the request line does not start with a method").into()),
        }
        if at - start > MAX_METHOD_BYTES {
            let detail = "a method that this server does not know";
            return Err(FramingRefusal { reason: Reason::NotImplemented, detail }.into());
        }
    }
    head.method.push_str(as_text(&bytes[start..at]));
    if head.method == "CONNECT" {
        let detail = "this server opens no tunnels";
        return Err(FramingRefusal { reason: Reason::MethodNotAllowed, detail }.into());
    }
    Ok(at + 1)
}

/// Reads `HTTP-version CRLF` (RFC 9112 §2.3). A minor version above 1 is treated as HTTP/1.1 (RFC 9110 §2.5).
fn read_version(bytes: &[u8], start: usize, head: &mut RequestHead) -> Result<usize, Stop> {
    const SHAPE: &[u8; 8] = b"HTTP/1.1";
    let malformed = || bad("the request line does not end with an HTTP version");
    for (offset, shape) in SHAPE.iter().enumerate() {
        let byte = *bytes.get(start + offset).ok_or(Stop::Incomplete)?;
        let fits = if shape.is_ascii_digit() { byte.is_ascii_digit() } else { byte == *shape };
        if !fits {
            return Err(malformed().into());
        }
    }
    match bytes.get(start + SHAPE.len()) {
        None => return Err(Stop::Incomplete),
        Some(b'\r' | b'\n') => {}
        Some(_) => return Err(malformed().into()),
    }
    let at = end_of_line(bytes, start + SHAPE.len(), bad)?;
    if bytes[start + 5] != b'1' {
        let detail = "this server speaks HTTP/1.0 and HTTP/1.1";
        return Err(FramingRefusal { reason: Reason::VersionNotSupported, detail }.into());
    }
    head.version = if bytes[start + 7] == b'0' { Version::Http10 } else { Version::Http11 };
    Ok(at)
}

/// Makes a text of bytes that the caller has checked to be ASCII.
#[inline]
fn as_text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}
