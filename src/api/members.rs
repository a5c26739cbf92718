//! A JSON object whose members are known, read as it was written. Faults are collected, so that a caller reads all of
//! them at once, each with its JSON pointer.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{FieldFault, Reject};
use balancer_http::message::Reason;
use balancer_limiter::limit::{Limit, LimitFault, Rate};

/// Millionths in one.
const MICRO: u64 = 1_000_000;

/// At most this many faults are named in one answer; a body full of nonsense is not answered by one as long.
pub(super) const MAX_FAULTS: usize = 32;

/// Most members of an object whose names are the caller's.
const MAX_ANY: usize = 256;

/// Faults found so far.
#[derive(Debug, Default)]
pub(super) struct BodyFaults(Vec<FieldFault>);

impl BodyFaults {
    /// One more, at the top-level member of that name.
    pub(super) fn add(&mut self, name: &str, detail: impl Into<String>) {
        self.at(pointer(name), detail);
    }

    /// One more, at a JSON pointer.
    pub(super) fn at(&mut self, pointer: String, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldFault { pointer, detail: detail.into() });
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

/// The members of a JSON object, as they were written: those that are known, each once.
#[derive(Debug)]
pub(super) struct Members<'a> {
    /// The object's own pointer; empty for the body.
    base: String,
    members: Vec<(String, &'a RawValue)>,
}

/// Any object, member by member.
#[derive(Debug, Default)]
struct Raw<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Raw(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Members<'a> {
    /// Reads a body that is one JSON object; a body of nothing but white space counts as `{}`. Members that are not
    /// in `known`, or are given twice, become faults.
    pub(super) fn read(body: &'a [u8], known: &[&str], faults: &mut BodyFaults) -> Result<Self, Reject> {
        let text = std::str::from_utf8(body)
            .map_err(|error| Reject::new(Reason::BadRequest, format!("the body is not UTF-8: {error}")))?;
        if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            return Ok(Self::known(Raw::default(), String::new(), known, faults));
        }
        let raw = serde_json::from_str(text).map_err(|error| {
            Reject::new(Reason::BadRequest, format!("the body is not one JSON object: {error}"))
        })?;
        Ok(Self::known(raw, String::new(), known, faults))
    }

    /// The same of a value inside the body, at that pointer; `None`: it is no object, which is a fault.
    pub(super) fn below(
        value: &'a RawValue,
        base: String,
        known: &[&str],
        faults: &mut BodyFaults,
    ) -> Option<Self> {
        let raw = Self::object(value, &base, faults)?;
        Some(Self::known(raw, base, known, faults))
    }

    /// An object whose members may have any name; at most [`MAX_ANY`] of them. `None`: it is none, which is a fault.
    pub(super) fn any(value: &'a RawValue, base: String, faults: &mut BodyFaults) -> Option<Self> {
        let Raw(members) = Self::object(value, &base, faults)?;
        if members.len() > MAX_ANY {
            faults.at(base, format!("has {} members; {MAX_ANY} are allowed", members.len()));
            return None;
        }
        for (index, (name, _)) in members.iter().enumerate() {
            if members[..index].iter().any(|(earlier, _)| earlier == name) {
                faults.at(format!("{base}{}", pointer(name)), "given more than once");
            }
        }
        Some(Self { base, members })
    }

    fn object(value: &'a RawValue, base: &str, faults: &mut BodyFaults) -> Option<Raw<'a>> {
        let raw = serde_json::from_str(value.get());
        if raw.is_err() {
            let detail = match kind(value.get()) {
                // Half of a surrogate pair; all else was parsed before.
                "an object" => "has a member whose name is no Unicode text".to_owned(),
                found => format!("must be an object, found {found}"),
            };
            faults.at(base.to_owned(), detail);
        }
        raw.ok()
    }

    /// Name and value of each member.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, value)| (name.as_str(), *value))
    }

    fn known(raw: Raw<'a>, base: String, known: &[&str], faults: &mut BodyFaults) -> Self {
        let mut members: Vec<(String, &'a RawValue)> = Vec::new();
        for (name, value) in raw.0 {
            if !known.contains(&name.as_str()) {
                faults
                    .at(format!("{base}{}", pointer(&name)), format!("unknown; known here: {}", list(known)));
            } else if members.iter().any(|(earlier, _)| *earlier == name) {
                faults.at(format!("{base}{}", pointer(&name)), "given more than once");
            } else {
                members.push((name, value));
            }
        }
        Self { base, members }
    }

    /// The JSON pointer of a member.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}{}", self.base, pointer(name))
    }

    /// A fault of a member.
    pub(super) fn fault(&self, name: &str, detail: impl Into<String>, faults: &mut BodyFaults) {
        faults.at(self.pointer(name), detail);
    }

    /// Whether there is a member of that name, of any kind.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Whether there is a member of that name that is not `null`.
    pub(super) fn has_value(&self, name: &str) -> bool {
        self.get(name).is_some_and(|raw| raw != "null")
    }

    /// A member as it was written.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.raw(name).map(RawValue::get)
    }

    /// A member that is text, when it is there. Anything but text becomes a fault.
    pub(super) fn text(&self, name: &str, faults: &mut BodyFaults) -> Option<String> {
        let raw = self.get(name)?;
        if !raw.starts_with('"') {
            self.fault(name, format!("must be a string, found {}", kind(raw)), faults);
            return None;
        }
        match serde_json::from_str(raw) {
            Ok(text) => Some(text),
            // Only surrogates that are no pair get this far: the text itself was parsed before.
            Err(_) => {
                self.fault(name, "must be Unicode text: an escape in it is half of a surrogate pair", faults);
                None
            }
        }
    }

    /// The same of a member that must be there.
    pub(super) fn text_required(&self, name: &str, what: &str, faults: &mut BodyFaults) -> Option<String> {
        if !self.has(name) {
            self.fault(name, format!("missing; must be {what}"), faults);
        }
        self.text(name, faults)
    }

    /// A member that is text or `null`, when it is there.
    pub(super) fn text_or_null(&self, name: &str, faults: &mut BodyFaults) -> Option<String> {
        if self.has_value(name) { self.text(name, faults) } else { None }
    }

    /// A member that is `true` or `false`; `false` when it is not there.
    pub(super) fn flag(&self, name: &str, faults: &mut BodyFaults) -> bool {
        match self.get(name) {
            None | Some("false") => false,
            Some("true") => true,
            Some(raw) => {
                self.fault(name, format!("must be true or false, found {}", kind(raw)), faults);
                false
            }
        }
    }

    /// The elements of a member that is a list, when it is there and not `null`.
    pub(super) fn elements(&self, name: &str, faults: &mut BodyFaults) -> Option<Vec<&'a RawValue>> {
        let raw = self.get(name).filter(|raw| *raw != "null")?;
        let elements = serde_json::from_str(raw).ok();
        if elements.is_none() {
            self.fault(name, format!("must be a list, found {}", kind(raw)), faults);
        }
        elements
    }

    /// A capacity: a whole number by its value, so `10.0` and `1e1` are 10.
    pub(super) fn capacity(&self, name: &str, faults: &mut BodyFaults) -> Option<u32> {
        self.whole(name, 0, Limit::MAX_CAPACITY, faults)
    }

    /// A whole number that must be there, by its value; `max` is at most 10^9.
    pub(super) fn whole(&self, name: &str, min: u32, max: u32, faults: &mut BodyFaults) -> Option<u32> {
        let allowed = format!("a whole number from {min} to {max}");
        let micro = self.millionths(name, &allowed, faults)?;
        let whole = micro.is_multiple_of(MICRO).then_some(micro / MICRO);
        let Some(whole) = whole else {
            self.fault(name, format!("must be {allowed}, found a fraction"), faults);
            return None;
        };
        let within = u32::try_from(whole).ok().filter(|whole| (min..=max).contains(whole));
        if within.is_none() {
            let found = if whole < u64::from(min) { "a smaller number" } else { "a larger number" };
            self.fault(name, format!("must be {allowed}, found {found}"), faults);
        }
        within
    }

    /// A refill rate in tokens a second.
    pub(super) fn rate(&self, name: &str, faults: &mut BodyFaults) -> Option<Rate> {
        self.amount(name, faults).map(Rate::per_second)
    }

    /// A number of tokens that must be there, 0 to 10^9, in millionths.
    pub(super) fn amount(&self, name: &str, faults: &mut BodyFaults) -> Option<u64> {
        self.millionths(name, "0, or a number from 0.000001 to 1000000000 with at most 6 decimals", faults)
    }

    /// A number that must be there, 0 to 10^9, in millionths. Read from its text: no float comes near it.
    fn millionths(&self, name: &str, allowed: &str, faults: &mut BodyFaults) -> Option<u64> {
        let Some(raw) = self.get(name) else {
            self.fault(name, format!("missing; must be {allowed}"), faults);
            return None;
        };
        let found = match Rate::parse_decimal(raw) {
            Ok(rate) => return Some(rate.micro),
            Err(LimitFault::Negative) => "a negative number",
            Err(LimitFault::TooLarge) => "a larger number",
            Err(LimitFault::TooManyDecimals) => "more decimals",
            Err(LimitFault::NotANumber | LimitFault::Form | LimitFault::NeedsBurst) => kind(raw),
        };
        self.fault(name, format!("must be {allowed}, found {found}"), faults);
        None
    }
}

/// The schema of what [`Members::amount`] reads. That of an amount which is shown has no `multipleOf`: readers that divide by
/// floats get it wrong.
pub(super) fn amount_schema(about: &str) -> Value {
    json!({
        "type": "number", "minimum": 0, "maximum": 1_000_000_000, "multipleOf": 0.000_001,
        "description": format!("{about}0, or 0.000001 to 1000000000 with at most 6 decimals."),
    })
}

/// A text, or a list of texts.
pub(super) fn list_of_texts(value: &RawValue) -> Option<Vec<String>> {
    if value.get().starts_with('"') {
        return serde_json::from_str(value.get()).ok().map(|text| vec![text]);
    }
    serde_json::from_str(value.get()).ok()
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

pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
