//! A JSON object whose members are known, read as it was written. Each call that reads a member also declares it: so the
//! members that are known, and the schema of the whole ([`schema_of`]), are made of what is read, and can't differ from it.
//! Faults are collected, so that a caller reads all of them at once, each with its JSON pointer: a reader gives up only
//! behind its last member. One that gives up earlier leaves members out of its schema, and docs/api.md shows it.

mod bound;

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::faults::{BodyFaults, MAX_FAULTS, list, pointer};
use crate::error::{FieldFault, Reject};
use balancer_http::message::Reason;
use balancer_limiter::limit::{LimitFault, Rate};

/// Millionths in one.
const MICRO: u64 = 1_000_000;

/// Most members of an object whose names are the caller's.
const MAX_ANY: usize = 256;

/// The members of a JSON object, being read.
#[derive(Debug)]
pub(super) struct Members<'a, 'f> {
    /// The object's own pointer; empty for the body.
    base: String,
    /// All of them, as they were written.
    members: Vec<(String, &'a RawValue)>,
    known: Vec<&'static str>,
    /// Where declarations are wanted.
    declared: Option<Declared>,
    pub(super) faults: &'f mut BodyFaults,
}

/// What a schema says of members.
#[derive(Debug, Default)]
struct Declared {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

/// Any object, member by member.
#[derive(Debug)]
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

/// Reads a body that is one JSON object; a body of nothing but white space counts as `{}`. Members that `read` does not
/// read, or that are given twice, are faults.
pub(super) fn read<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Members<'a, '_>) -> Option<T>,
) -> Result<T, Reject> {
    let bad = |detail: String| Reject::new(Reason::BadRequest, detail);
    let text = std::str::from_utf8(body).map_err(|error| bad(format!("the body is not UTF-8: {error}")))?;
    let is_blank = text.trim_matches([' ', '\t', '\r', '\n']).is_empty();
    let Raw(members) = serde_json::from_str(if is_blank { "{}" } else { text })
        .map_err(|error| bad(format!("the body is not one JSON object: {error}")))?;
    let mut faults = BodyFaults::default();
    let value = Members::within(String::new(), members, &mut faults, read);
    faults.check()?;
    value.ok_or_else(|| bad("the body is incomplete".into()))
}

/// The schema of the objects that `read` reads, as far as it is about single members.
pub(super) fn schema_of<T>(read: impl FnOnce(&mut Members<'_, '_>) -> T) -> Value {
    let mut declared = None;
    Members::within(String::new(), Vec::new(), &mut BodyFaults::default(), |members| {
        members.declared = Some(Declared::default());
        read(members);
        declared = members.declared.take();
    });
    let Declared { properties, required } = declared.unwrap_or_default();
    json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties })
}

impl<'a, 'f> Members<'a, 'f> {
    /// Reads an object with these members, and then refuses those that were not read. Their faults come first.
    fn within<T>(
        base: String,
        members: Vec<(String, &'a RawValue)>,
        faults: &'f mut BodyFaults,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let begin = faults.count();
        let mut object = Self { base, members, known: Vec::new(), declared: None, faults };
        let value = read(&mut object);
        let others = object.others();
        object.faults.insert(begin, others);
        value
    }

    /// Faults of members that are not known, or stand behind one of the same name.
    fn others(&self) -> Vec<FieldFault> {
        let mut seen = Vec::new();
        let mut faults = Vec::new();
        for (name, _) in &self.members {
            let detail = if !self.known.contains(&name.as_str()) {
                format!("unknown; known here: {}", list(&self.known))
            } else if seen.contains(&name) {
                "given more than once".into()
            } else {
                seen.push(name);
                continue;
            };
            faults.push(FieldFault { pointer: self.pointer(name), detail });
            if faults.len() == MAX_FAULTS {
                break;
            }
        }
        faults
    }

    fn declare(&mut self, name: &'static str, required: bool, schema: impl FnOnce() -> Value) {
        self.known.push(name);
        if let Some(declared) = &mut self.declared {
            declared.properties.insert(name.into(), schema());
            declared.required.extend(required.then_some(name));
        }
    }

    /// Members that others of its kind have, and that are refused here in words of their own.
    pub(super) fn know(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    /// The JSON pointer of a member.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}{}", self.base, pointer(name))
    }

    /// A fault of a member.
    pub(super) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.at(self.pointer(name), detail);
    }

    /// Whether there is a member of that name, of any kind.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Whether there is a member of that name that is not `null`.
    pub(super) fn has_value(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|raw| raw.get() != "null")
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// A member that is text, when it is there. Anything but text becomes a fault.
    pub(super) fn text(&mut self, name: &'static str, schema: impl FnOnce() -> Value) -> Option<String> {
        self.declare(name, false, schema);
        self.text_of(name)
    }

    /// The same of a member that must be there.
    pub(super) fn text_required(
        &mut self,
        name: &'static str,
        what: &str,
        schema: impl FnOnce() -> Value,
    ) -> Option<String> {
        self.declare(name, true, schema);
        if !self.has(name) {
            self.fault(name, format!("missing; must be {what}"));
        }
        self.text_of(name)
    }

    /// The same of a member that is text or `null`, when it is there.
    pub(super) fn text_or_null(
        &mut self,
        name: &'static str,
        schema: impl FnOnce() -> Value,
    ) -> Option<String> {
        self.declare(name, false, schema);
        if self.has_value(name) { self.text_of(name) } else { None }
    }

    fn text_of(&mut self, name: &str) -> Option<String> {
        let raw = self.raw(name)?.get();
        if !raw.starts_with('"') {
            self.fault(name, format!("must be a string, found {}", kind(raw)));
            return None;
        }
        let text = serde_json::from_str(raw);
        if text.is_err() {
            // Only surrogates that are no pair get this far: the text itself was parsed before.
            self.fault(name, "must be Unicode text: an escape in it is half of a surrogate pair");
        }
        text.ok()
    }

    /// A member that is `true` or `false`, when it is there; `false` after a fault.
    pub(super) fn flag(&mut self, name: &'static str, about: &str) -> Option<bool> {
        self.declare(name, false, || described(json!({ "type": "boolean" }), about));
        let raw = self.raw(name)?.get();
        if !matches!(raw, "true" | "false") {
            self.fault(name, format!("must be true or false, found {}", kind(raw)));
        }
        Some(raw == "true")
    }

    /// The elements of a member that is a list, when it is there and not `null`.
    pub(super) fn elements(
        &mut self,
        name: &'static str,
        required: bool,
        schema: impl FnOnce() -> Value,
    ) -> Option<Vec<&'a RawValue>> {
        self.declare(name, required, schema);
        let raw = self.raw(name)?.get();
        let elements = serde_json::from_str::<Option<_>>(raw);
        if elements.is_err() {
            self.fault(name, format!("must be a list, found {}", kind(raw)));
        }
        elements.ok().flatten()
    }

    /// Reads the elements of a list, which are objects; `read` is given those before. Those with a fault may be left out.
    pub(super) fn each<T>(
        &mut self,
        name: &str,
        elements: Vec<&'a RawValue>,
        read: impl Fn(&mut Members<'a, '_>, &[T]) -> Option<T>,
    ) -> Vec<T> {
        let place = self.pointer(name);
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            let base = format!("{place}/{index}");
            if let Some(Raw(members)) = object(element, &base, self.faults) {
                let value = Members::within(base, members, self.faults, |one| read(one, &values));
                values.extend(value);
            }
        }
        values
    }

    /// An object whose members may have any name, at most [`MAX_ANY`] of them; nothing when it is not there or `null`.
    pub(super) fn any(
        &mut self,
        name: &'static str,
        schema: impl FnOnce() -> Value,
    ) -> Vec<(String, &'a RawValue)> {
        self.declare(name, false, schema);
        let Some(raw) = self.raw(name).filter(|raw| raw.get() != "null") else { return Vec::new() };
        let base = self.pointer(name);
        let Some(Raw(members)) = object(raw, &base, self.faults) else { return Vec::new() };
        if members.len() > MAX_ANY {
            self.fault(name, format!("has {} members; {MAX_ANY} are allowed", members.len()));
            return Vec::new();
        }
        for (index, (one, _)) in members.iter().enumerate() {
            if members[..index].iter().any(|(earlier, _)| earlier == one) {
                self.faults.at(format!("{base}{}", pointer(one)), "given more than once");
            }
        }
        members
    }

    /// A whole number that must be there, by its value, so `10.0` and `1e1` are 10; `max` is at most 10^9.
    pub(super) fn whole(&mut self, name: &'static str, min: u32, max: u32, about: &str) -> Option<u32> {
        self.declare(name, true, || whole_schema(json!("integer"), min, max, about));
        self.whole_of(name, min, max)
    }

    /// The same when it is there; `Some(None)` after a fault.
    pub(super) fn whole_if_given(
        &mut self,
        name: &'static str,
        min: u32,
        max: u32,
        about: &str,
    ) -> Option<Option<u32>> {
        self.declare(name, false, || whole_schema(json!("integer"), min, max, about));
        self.has(name).then(|| self.whole_of(name, min, max))
    }

    /// The same when it is there and not `null`.
    pub(super) fn whole_or_null(
        &mut self,
        name: &'static str,
        min: u32,
        max: u32,
        about: &str,
    ) -> Option<u32> {
        self.declare(name, false, || whole_schema(json!(["integer", "null"]), min, max, about));
        if self.has_value(name) { self.whole_of(name, min, max) } else { None }
    }

    fn whole_of(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let allowed = format!("a whole number from {min} to {max}");
        let micro = self.millionths(name, &allowed)?;
        let whole = micro / MICRO;
        let found = match u32::try_from(whole) {
            _ if !micro.is_multiple_of(MICRO) => "a fraction",
            Ok(within) if (min..=max).contains(&within) => return Some(within),
            _ if whole < u64::from(min) => "a smaller number",
            _ => "a larger number",
        };
        self.fault(name, format!("must be {allowed}, found {found}"));
        None
    }

    /// A number of tokens that must be there, 0 to 10^9, in millionths.
    pub(super) fn amount(&mut self, name: &'static str, about: &str) -> Option<u64> {
        const ALLOWED: &str = "0, or a number from 0.000001 to 1000000000 with at most 6 decimals";
        // What is shown has no `multipleOf`: readers that divide by floats get it wrong.
        self.declare(name, true, || {
            json!({
                "type": "number", "minimum": 0, "maximum": 1_000_000_000, "multipleOf": 0.000_001,
                "description": format!("{about}: 0, or 0.000001 to 1000000000 with at most 6 decimals."),
            })
        });
        self.millionths(name, ALLOWED)
    }

    /// A number that must be there, 0 to 10^9, in millionths. Read from its text: no float comes near it.
    fn millionths(&mut self, name: &str, allowed: &str) -> Option<u64> {
        let Some(raw) = self.raw(name) else {
            self.fault(name, format!("missing; must be {allowed}"));
            return None;
        };
        let found = match Rate::parse_decimal(raw.get()) {
            Ok(rate) => return Some(rate.micro),
            Err(LimitFault::Negative) => "a negative number",
            Err(LimitFault::TooLarge) => "a larger number",
            Err(LimitFault::TooManyDecimals) => "more decimals",
            Err(LimitFault::NotANumber | LimitFault::Form | LimitFault::NeedsBurst) => kind(raw.get()),
        };
        self.fault(name, format!("must be {allowed}, found {found}"));
        None
    }
}

fn object<'a>(value: &'a RawValue, base: &str, faults: &mut BodyFaults) -> Option<Raw<'a>> {
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

fn whole_schema(kind: Value, min: u32, max: u32, about: &str) -> Value {
    described(json!({ "type": kind, "minimum": min, "maximum": max }), about)
}

/// With a description, unless there are no words for one.
pub(super) fn described(mut schema: Value, about: &str) -> Value {
    if !about.is_empty() {
        schema["description"] = json!(about);
    }
    schema
}

/// A schema in the place of which stands that of another name.
pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
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
