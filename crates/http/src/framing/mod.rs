//! Message framing, strict in both directions (RFC 9110, RFC 9112): where a head ends, what it says about its body, and
//! which bytes are allowed where. Every rule reads from left to right and decides by the bytes up to that place alone,
//! so the verdict is the same however a stream is cut into reads.

pub mod bytes;
pub mod chunk;
pub mod host;
pub mod proxy;
pub mod request;
pub mod response;
pub mod write;

use crate::message::Reason;

/// Why a message is refused. No part of it may reach a backend, and its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingRefusal {
    /// The reason, which decides the status.
    pub reason: Reason,
    /// One sentence for the client.
    pub detail: &'static str,
}

/// Whether a text is a token (RFC 9110 §5.6.2), as methods and names of fields are.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| bytes::is(*byte, bytes::TOKEN))
}

/// Why a parser stopped before the end of a head.
pub(crate) enum Stop<F> {
    /// More bytes are needed.
    Incomplete,
    /// The head breaks a rule.
    Broken(F),
}

impl<F> From<F> for Stop<F> {
    fn from(fault: F) -> Self {
        Self::Broken(fault)
    }
}

/// The position behind the CRLF that has to be at `at`. `fault`: makes a fault of its sentence.
#[inline]
pub(crate) fn end_of_line<F>(
    bytes: &[u8],
    at: usize,
    fault: fn(&'static str) -> F,
) -> Result<usize, Stop<F>> {
    let sentence = match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => return Ok(at + 2),
        (Some(b'\r'), None) | (None, _) => return Err(Stop::Incomplete),
        (Some(b'\r'), Some(_)) => "a carriage return without a line feed",
        (Some(b'\n'), _) => "a line feed without a carriage return",
        (Some(_), _) => "a control character in the head",
    };
    Err(fault(sentence).into())
}

/// The number in a `Content-Length` (RFC 9110 §8.6), which is digits alone.
///
/// # Errors
/// `no_number`, or `too_large` for 64 bits.
pub(crate) fn content_length<F>(value: &[u8], no_number: F, too_large: F) -> Result<u64, F> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(no_number);
    }
    let longer = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    value.iter().try_fold(0, longer).ok_or(too_large)
}

/// A refusal with status 400 and a sentence for the client.
pub(crate) const fn bad(detail: &'static str) -> FramingRefusal {
    FramingRefusal { reason: Reason::BadRequest, detail }
}
