//! What a caller of the API sent: a bounded body and a query string.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::error::Reject;
use crate::proxy::exchange::{BlockingRequest, BodyFault};
use balancer_http::framing::host::percent_encoding_is_whole;
use balancer_http::message::BodyLength;
use balancer_http::message::Reason;

use super::faults::list;
pub(super) use super::faults::{BodyFaults, pointer};

/// The longest body of an API call, unless the call says otherwise.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Reads the whole body, at most `max_bytes`. A longer one is 413, and the connection is to end then: what is left of it
/// is not read.
pub(super) fn read_body(exchange: &mut BlockingRequest<'_>, max_bytes: usize) -> Result<Vec<u8>, Reject> {
    if matches!(exchange.head.length, BodyLength::Known(bytes) if bytes > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    if exchange.head.length == BodyLength::Empty {
        return Ok(Vec::new());
    }
    let mut body = Vec::new();
    let mut piece = [0; 8 * 1024];
    loop {
        match exchange.body.read(&mut piece) {
            Ok(0) => return Ok(body),
            Ok(bytes) => body.extend_from_slice(&piece[..bytes.min(piece.len())]),
            Err(error) => return Err(unreadable(&error)),
        }
        if body.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
    }
}

fn too_large(max_bytes: usize) -> Reject {
    Reject::new(Reason::ContentTooLarge, format!("a body of this call has at most {max_bytes} bytes"))
}

fn unreadable(error: &std::io::Error) -> Reject {
    let (reason, detail) = match BodyFault::of(error) {
        Some(BodyFault::TooLarge) => (Reason::ContentTooLarge, "the body is too large"),
        Some(BodyFault::TimedOut) => (Reason::RequestTimeout, "the body came too slowly"),
        Some(BodyFault::Malformed) => (Reason::BadRequest, "the body's chunked coding is malformed"),
        Some(BodyFault::ClientGone) | None => (Reason::BadRequest, "the body ended early"),
    };
    Reject::new(reason, detail).because(error)
}

/// The parameters of a query string, decoded as HTML forms are (WHATWG URL, application/x-www-form-urlencoded): `+`
/// is a space, `%2B` a plus. Stricter than it where it would guess: a `%` without two hex digits and bytes that are
/// not UTF-8 are refused, since an id must arrive as it was meant.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; every parameter must be in `known`, and be given once.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Reject> {
        let bad = |detail: String| Reject::new(Reason::BadRequest, detail);
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in query.unwrap_or("").split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name, Plus::IsSpace)
                .map_err(|fault| bad(format!("a query parameter's name {fault}")))?;
            if !known.contains(&name.as_str()) {
                return Err(bad(format!("unknown query parameter; known here: {}", list(known)))
                    .field(pointer(&name), "unknown query parameter"));
            }
            let value = decode(value, Plus::IsSpace).map_err(|fault| {
                bad(format!("query parameter {name} {fault}")).field(pointer(&name), fault)
            })?;
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                let detail = "given more than once";
                return Err(bad(format!("query parameter {name}: {detail}")).field(pointer(&name), detail));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The decoded name of one part of a query, `a=b`.
    pub(super) fn name_of(part: &str) -> Option<String> {
        decode(part.split('=').next()?, Plus::IsSpace).ok()
    }

    /// The parameter of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What a `+` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space: in a query.
    IsSpace,
    /// Itself: in a path.
    IsPlus,
}

/// Takes percent-encoding off, once; a fault is worded to follow a name.
pub(super) fn decode(text: &str, plus: Plus) -> Result<String, &'static str> {
    if !percent_encoding_is_whole(text.as_bytes()) {
        return Err("has a % that is not followed by two hex digits");
    }
    let text = if plus == Plus::IsSpace { text.replace('+', " ") } else { text.to_owned() };
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
mod tests;
