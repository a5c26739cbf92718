//! Message framing, strict in both directions (RFC 9110, RFC 9112): where a head ends, what it says about its body, and
//! which bytes are allowed where. Every rule decides from the bytes that it has seen, from left to right, so that however
//! a stream is cut into reads, the verdict is the same.

pub mod bytes;
pub mod chunk;
pub mod host;
pub mod proxy;
pub mod request;
pub mod response;
pub mod write;

use crate::message::Reason;

/// Why a message is not taken. Nothing of it may reach a backend, and its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingRefusal {
    /// Decides the status.
    pub reason: Reason,
    /// One sentence for the client.
    pub detail: &'static str,
}

/// Whether a text is a token: a method, the name of a field (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| bytes::is(*byte, bytes::TOKEN))
}

/// A 400 with its sentence.
pub(crate) const fn bad(detail: &'static str) -> FramingRefusal {
    FramingRefusal { reason: Reason::BadRequest, detail }
}
