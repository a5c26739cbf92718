//! What a caller of the API sent: a bounded body and a query string, both read by [`crate::declare`].

use std::borrow::Cow;
use std::fmt::Display;

use percent_encoding::percent_decode_str;

use crate::declare::{FaultOrigin, Member, Node, ReaderRules, Report, Section, Value, pointer};
use crate::error::Reject;
use crate::proxy::exchange::{BlockingRequest, BodyFault};
use balancer_http::framing::host::percent_encoding_is_whole;
use balancer_http::message::BodyLength;
use balancer_http::message::Reason;

use super::faults::{self, MAX_FAULTS};

/// The longest body of an API call, unless the call says otherwise.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Reads the whole body, at most `max_bytes`. A longer one is 413, and the connection is to end then: what is left of
/// it is not read.
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

/// Reads a body that is one JSON object; a body of nothing but white space counts as `{}`. Members that `read` does not
/// read, or that are given twice, are faults. `read` reads all of its members before it gives up, so that a caller
/// learns of all faults at once.
pub(super) fn read<T>(body: Vec<u8>, read: impl FnOnce(&mut Section<'_>) -> Option<T>) -> Result<T, Reject> {
    let mut text = String::from_utf8(body).map_err(|error| bad(format!("the body is not UTF-8: {error}")))?;
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        text = "{}".into();
    }
    let not_one = |error: &dyn Display| bad(format!("the body is not one JSON object: {error}"));
    let node = Node::of_body(text).map_err(|error| not_one(&error))?.settled();
    if !matches!(node.value, Value::Object(_)) {
        return Err(not_one(&format!("it is {}", node.describe(false))));
    }
    read_node(node, "member", read)?.ok_or_else(|| bad("the body is incomplete".into()))
}

/// Reads the parameters of a query string, decoded as HTML forms are (WHATWG URL, application/x-www-form-urlencoded):
/// `+` is a space, `%2B` a plus. Stricter than it where it would guess: a `%` without two hex digits and bytes that are
/// not UTF-8 are refused, since an id must arrive as it was meant. What is not read, or given twice, is a fault.
pub(super) fn read_query<T>(
    query: Option<&str>,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, Reject> {
    let mut parameters: Vec<Member> = Vec::new();
    for part in query.unwrap_or("").split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name =
            decode(name, Plus::IsSpace).map_err(|fault| bad(format!("a query parameter's name {fault}")))?;
        let value = decode(value, Plus::IsSpace)
            .map_err(|fault| bad(format!("query parameter {name} {fault}")).field(pointer(&name), fault))?;
        let origin = FaultOrigin::Whole;
        parameters.push(Member { name, origin: origin.clone(), node: Node::new(origin, Value::Word(value)) });
    }
    read_node(Node::new(FaultOrigin::Whole, Value::Object(parameters)), "query parameter", read)
}

fn read_node<T>(
    node: Node,
    noun: &'static str,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, Reject> {
    let mut report = Report::of_call(ReaderRules { noun, is_call: true, max_faults: MAX_FAULTS });
    let mut section = Section::root(&mut report, node);
    let value = read(&mut section);
    section.end();
    faults::check(report.faults)?;
    Ok(value)
}

fn bad(detail: String) -> Reject {
    Reject::new(Reason::BadRequest, detail)
}

/// The decoded name of one part of a query, `a=b`.
pub(super) fn name_of(part: &str) -> Option<String> {
    decode(part.split('=').next()?, Plus::IsSpace).ok()
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
