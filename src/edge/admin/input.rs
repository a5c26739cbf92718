//! What a caller of the API sent: a bounded body, a JSON object whose members are known, and a query string. Faults
//! are collected, so that a caller reads all of them at once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{FieldFault, Reason, Reject};
use crate::exchange::{BodyFault, BodyLength, Exchange};
use crate::rules::limit::{Limit, LimitFault, Rate};

/// Millionths in one.
const MICRO: u64 = 1_000_000;

/// The longest body of an API call, unless the call says otherwise.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// At most this many faults are named in one answer; a body full of nonsense is not answered by one as long.
const MAX_FAULTS: usize = 32;

/// Reads the whole body, at most `max_bytes`. A longer one is 413, and the connection is to end then: what is left of it
/// is not read.
pub(super) fn read_body(exchange: &mut Exchange<'_>, max_bytes: usize) -> Result<Vec<u8>, Reject> {
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

/// Faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<FieldFault>);

impl Faults {
    /// One more, at the member of that name.
    pub(super) fn add(&mut self, name: &str, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldFault { pointer: pointer(name), detail: detail.into() });
        }
    }

    /// An error if there is any fault.
    pub(super) fn check(self) -> Result<(), Reject> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() {
            1 => String::new(),
            faults => format!(" (and {} more, see errors)", faults - 1),
        };
        let mut reject = Reject::new(
            Reason::BadRequest,
            format!("{}: {}{more}", first.pointer.trim_start_matches('/'), first.detail),
        );
        reject.errors = self.0;
        Err(reject)
    }
}

/// The JSON pointer of a top-level member (RFC 6901 §3).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The members of a JSON object, as they were written.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Members<'a> {
    /// Reads a body that is one JSON object; a body of nothing but white space counts as `{}`. Members that are not
    /// in `known`, or stand there twice, become faults.
    pub(super) fn read(body: &'a [u8], known: &[&str], faults: &mut Faults) -> Result<Self, Reject> {
        let text = std::str::from_utf8(body)
            .map_err(|error| Reject::new(Reason::BadRequest, format!("the body is not UTF-8: {error}")))?;
        if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            return Ok(Self(Vec::new()));
        }
        let members: Self = serde_json::from_str(text).map_err(|error| {
            Reject::new(Reason::BadRequest, format!("the body is not one JSON object: {error}"))
        })?;
        for (index, (name, _)) in members.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                faults.add(name, format!("unknown; known here: {}", list(known)));
            } else if members.0[..index].iter().any(|(earlier, _)| earlier == name) {
                faults.add(name, "given more than once");
            }
        }
        Ok(members)
    }

    /// Whether there is a member of that name, of any kind.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.get())
    }

    /// A member that is text, when it is there. Anything but text becomes a fault.
    pub(super) fn text(&self, name: &str, faults: &mut Faults) -> Option<String> {
        let raw = self.get(name)?;
        if !raw.starts_with('"') {
            faults.add(name, format!("must be a string, found {}", kind(raw)));
            return None;
        }
        match serde_json::from_str(raw) {
            Ok(text) => Some(text),
            // Only surrogates that are no pair get this far: the text itself was parsed before.
            Err(_) => {
                faults.add(name, "must be Unicode text: an escape in it is half of a surrogate pair");
                None
            }
        }
    }

    /// A capacity: a whole number by its value, so `10.0` and `1e1` are 10.
    pub(super) fn capacity(&self, name: &str, faults: &mut Faults) -> Option<u32> {
        let allowed = format!("a whole number from 0 to {}", Limit::MAX_CAPACITY);
        let micro = self.millionths(name, &allowed, faults)?;
        let whole = micro.is_multiple_of(MICRO).then_some(micro / MICRO);
        let capacity = whole.and_then(|whole| u32::try_from(whole).ok());
        if capacity.is_none() {
            faults.add(name, format!("must be {allowed}, found a fraction"));
        }
        capacity
    }

    /// A refill rate in tokens a second.
    pub(super) fn rate(&self, name: &str, faults: &mut Faults) -> Option<Rate> {
        let allowed = "0, or a number from 0.000001 to 1000000000 with at most 6 decimals";
        self.millionths(name, allowed, faults).map(Rate::per_second)
    }

    /// A number that must be there, 0 to 10^9, in millionths. Read from its text: no float comes near it.
    fn millionths(&self, name: &str, allowed: &str, faults: &mut Faults) -> Option<u64> {
        let Some(raw) = self.get(name) else {
            faults.add(name, format!("missing; must be {allowed}"));
            return None;
        };
        let found = match Rate::parse_decimal(raw) {
            Ok(rate) => return Some(rate.micro),
            Err(LimitFault::Negative) => "a negative number",
            Err(LimitFault::TooLarge) => "a larger number",
            Err(LimitFault::TooManyDecimals) => "more decimals",
            Err(LimitFault::NotANumber | LimitFault::Form | LimitFault::NeedsBurst) => kind(raw),
        };
        faults.add(name, format!("must be {allowed}, found {found}"));
        None
    }
}

/// What a JSON value is, for people.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// The parameters of a query string, decoded as HTML forms are (WHATWG URL, application/x-www-form-urlencoded): `+`
/// is a space, `%2B` a plus. Stricter than it where it would guess: a `%` without two hex digits and bytes that are
/// not UTF-8 are refused, since an id must arrive as it was meant.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; every parameter must be in `known` and stand there once.
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

    /// The parameter of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space: in a query.
    IsSpace,
    /// Itself: in a path.
    #[allow(dead_code)]
    IsPlus,
}

/// Takes percent-encoding off, once; a fault is worded to follow a name.
pub(super) fn decode(text: &str, plus: Plus) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus == Plus::IsSpace => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or("has a % that is not followed by two hex digits")?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
mod tests;
