//! Message framing, strict in both directions (RFC 9110, RFC 9112): where a head ends, what it says about its body, and
//! which bytes are allowed where. Every rule reads from left to right and decides by the bytes up to that place alone, so
//! the verdict is the same however a stream is cut into reads.

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

/// A refusal with status 400 and a sentence for the client.
pub(crate) const fn bad(detail: &'static str) -> FramingRefusal {
    FramingRefusal { reason: Reason::BadRequest, detail }
}
