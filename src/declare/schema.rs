//! The JSON Schema (draft 2020-12) of what was declared.

use serde_json::{Map, Value, json};

use super::duration::parse_duration;
use super::fault::FaultOrigin;
use super::report::{ReaderRules, Report};
use super::section::Section;
use super::spec::{Form, Key, Shape, Spec};
use super::tree::{Node, Value as Written};

/// What a schema says besides what the declarations do.
pub trait More {
    /// The schema of a key, where it is another than its shape's.
    fn form(&self, _key: &Key, _keys: &[Key]) -> Option<Value> {
        None
    }

    /// Rules between keys of the object at that path.
    fn together(&self, _path: &str) -> Vec<Value> {
        Vec::new()
    }

    /// Whether a key that has no default must be given.
    fn is_required(&self, _key: &Key) -> bool {
        true
    }

    /// What a key is for.
    fn about(&self, key: &Key) -> String {
        key.about.to_owned()
    }
}

/// What a body or a parameter takes: what was declared, and no more.
struct Nothing;

impl More for Nothing {}

/// The schema of the objects that `read` reads, as far as it is about single members.
pub fn schema_of<T>(read: impl FnOnce(&mut Section<'_>) -> T) -> Value {
    let rules = ReaderRules { noun: "member", is_call: false, max_faults: 0 };
    let mut report = Report { keys: Some(Vec::new()), ..Report::of_call(rules) };
    read(&mut Section::root(&mut report, Node::new(FaultOrigin::Whole, Written::Null)));
    let mut schema = object("", &report.keys.unwrap_or_default(), &Nothing);
    schema.entry("required").or_insert(json!([]));
    Value::Object(schema)
}

/// The schema of a single value.
pub fn schema_of_value(spec: &Spec) -> Value {
    let mut schema = property(&spec.at(spec.name.to_owned()), &[], &Nothing);
    if let Value::Object(members) = &mut schema {
        members.remove("description");
    }
    schema
}

/// The object whose keys are declared below that path.
pub fn object(path: &str, keys: &[Key], more: &impl More) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        let Some(name) = leaf(path, &key.path) else { continue };
        properties.insert(name.into(), property(key, keys, more));
        if key.default.is_empty() && more.is_required(key) {
            required.push(json!(name));
        }
    }
    let mut object = Map::new();
    object.insert("type".into(), json!("object"));
    object.insert("properties".into(), Value::Object(properties));
    object.insert("additionalProperties".into(), json!(false));
    for (name, list) in [("required", required), ("allOf", more.together(path))] {
        if !list.is_empty() {
            object.insert(name.into(), Value::Array(list));
        }
    }
    object
}

/// The key's own name if it is declared directly below that path.
fn leaf<'a>(path: &str, key: &'a str) -> Option<&'a str> {
    let rest = if path.is_empty() { key } else { key.strip_prefix(path)?.strip_prefix('.')? };
    (!rest.contains('.')).then_some(rest)
}

/// The schema of a key, with its description and its default.
pub fn property(key: &Key, keys: &[Key], more: &impl More) -> Value {
    let form = more.form(key, keys).unwrap_or_else(|| form(key, keys, more));
    let mut property = if key.nullable { or_null(form) } else { form };
    let about = more.about(key);
    if !about.is_empty() {
        property["description"] = json!(about);
    }
    if let Ok(default) = serde_json::from_str::<Value>(key.default) {
        property["default"] = default;
    }
    property
}

/// What a key takes besides `null`.
fn form(key: &Key, keys: &[Key], more: &impl More) -> Value {
    match &key.shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Duration { min, max } => json!({ "type": "string", "pattern": duration_pattern(min, max) }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Form(Form { schema, .. }) => schema(),
        Shape::List { of, max, single } => {
            let item = (of.schema)();
            let list = json!({ "type": "array", "items": item, "maxItems": max });
            if *single { json!({ "anyOf": [item, list] }) } else { list }
        }
        Shape::Objects { schema: Some(schema), .. } => schema(),
        Shape::Objects { min, max, .. } => {
            let element = object(&format!("{}[]", key.path), keys, more);
            let mut list = json!({ "type": "array", "items": element, "maxItems": max });
            if *min > 0 {
                list["minItems"] = json!(min);
            }
            list
        }
        Shape::Section => object(&key.path, keys, more).into(),
        Shape::Named(_) => json!({ "type": "object" }),
    }
}

/// The same form, or `null`.
fn or_null(mut form: Value) -> Value {
    let nothing = json!({ "type": "null" });
    let is_plain = ["allOf", "anyOf", "not", "oneOf"].iter().all(|word| form.get(word).is_none());
    let is_choice = form.as_object().is_some_and(|form| form.len() == 1);
    if let Some(Value::Array(words)) = form.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::String(kind)) = form.get("type").filter(|_| is_plain) {
        form["type"] = json!([kind, "null"]);
    } else if let Some(Value::Array(forms)) = form.get_mut("anyOf").filter(|_| is_choice) {
        forms.push(nothing);
    } else if form != json!({}) {
        form = json!({ "anyOf": [form, nothing] });
    }
    form
}

/// A duration within bounds if it is written in one unit; of one in several units only the form is checked.
pub fn duration_pattern(min: &str, max: &str) -> String {
    let bound_ms = |text| parse_duration(text).map_or(0, |bound| bound.as_millis());
    let (min_ms, max_ms) = (bound_ms(min), bound_ms(max));
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let one = units.iter().filter_map(|(unit, unit_ms)| {
        let (least, most) = (min_ms.div_ceil(*unit_ms), max_ms / unit_ms);
        (least <= most).then(|| format!("0*{}{unit}", between(least, most)))
    });
    let one = one.collect::<Vec<_>>().join("|");
    // At least two units: behind the first one comes another digit.
    let several = "(?=[0-9]+[a-z]+[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?";
    format!("^({one}|{several})$")
}

/// The whole numbers from `least` to `most`, without zeros in front.
pub fn between(least: u128, most: u128) -> String {
    let (low, high) = (least.to_string(), most.to_string());
    let mut forms = Vec::new();
    for digits in low.len()..=high.len() {
        let from = if digits == low.len() { low.clone() } else { format!("1{}", "0".repeat(digits - 1)) };
        let to = if digits == high.len() { high.clone() } else { "9".repeat(digits) };
        same_length(&from, &to, String::new(), &mut forms);
    }
    format!("({})", forms.join("|"))
}

/// The numbers between two numbers of the same length, with `before` in front of each.
fn same_length(from: &str, to: &str, before: String, forms: &mut Vec<String>) {
    let (Some(first), Some(last)) = (from.chars().next(), to.chars().next()) else {
        forms.push(before);
        return;
    };
    let rest = from.len() - 1;
    let (lowest, highest) = ("0".repeat(rest), "9".repeat(rest));
    if first == last {
        return same_length(&from[1..], &to[1..], format!("{before}{first}"), forms);
    }
    let (mut low, mut high) = (u32::from(first), u32::from(last));
    if from[1..] != lowest {
        same_length(&from[1..], &highest, format!("{before}{first}"), forms);
        low += 1;
    }
    if to[1..] != highest {
        same_length(&lowest, &to[1..], format!("{before}{last}"), forms);
        high -= 1;
    }
    if low <= high {
        let digit = |one: u32| char::from_u32(one).unwrap_or('0');
        let any = if rest == 0 { String::new() } else { format!("[0-9]{{{rest}}}") };
        forms.push(format!("{before}[{}-{}]{any}", digit(low), digit(high)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_end_at_their_bounds() {
        assert_eq!(between(1, 9), "([1-9])");
        assert_eq!(between(0, 60), "([0-9]|60|[1-5][0-9]{1})");
        assert_eq!(between(100, 100), "(100)");
    }

    proptest! {
        #[test]
        fn a_number_is_between_its_bounds(least in 0..3_000_u128, more in 0..90_000_u128, text in "[1-9][0-9]{0,5}|0") {
            let most = least + more;
            let number: u128 = text.parse().unwrap();
            let pattern = between(least, most);
            let taken = pattern[1..pattern.len() - 1].split('|').any(|form| matches(form, &text));
            prop_assert_eq!(taken, (least..=most).contains(&number), "{} {}", pattern, text);
        }

    }

    /// Digits and `[a-b]`, with `{n}` behind.
    fn matches(form: &str, text: &str) -> bool {
        let (mut form, mut text) = (form, text.as_bytes());
        while !form.is_empty() {
            let (low, high, rest) = match form.strip_prefix('[') {
                Some(set) => (set.as_bytes()[0], set.as_bytes()[2], &set[4..]),
                None => (form.as_bytes()[0], form.as_bytes()[0], &form[1..]),
            };
            let (count, rest) = match rest.strip_prefix('{') {
                Some(more) => {
                    more.split_once('}').map(|(count, rest)| (count.parse().unwrap(), rest)).unwrap()
                }
                None => (1, rest),
            };
            for _ in 0..count {
                match text.split_first() {
                    Some((digit, behind)) if (low..=high).contains(digit) => text = behind,
                    _ => return false,
                }
            }
            form = rest;
        }
        text.is_empty()
    }
}
