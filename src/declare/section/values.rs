//! How a key's value is read, and what is said when it is none.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::declare::duration::parse_duration;
use crate::declare::fault::{FaultOrigin, Parsed};
use crate::declare::keys::{Shape, Spec};
use crate::declare::tree::{self, Node, Value};

/// The text of "must be …" with what was found.
pub(super) fn message(spec: &Spec, found: &Node, why: Option<String>) -> String {
    let or_null = if spec.nullable { " or null" } else { "" };
    why.unwrap_or_else(|| format!("must be {}{or_null}; found {}", spec.shape, found.describe(!spec.secret)))
}

/// A variable's text counts as JSON when the key takes that, else as text. JSON text in quotes is the key's type even
/// when its content is wrong. The node in the error is the reading that the error is about.
pub(super) fn interpret<T>(
    node: &Node,
    parse: &impl Fn(&Node) -> Parsed<T>,
) -> Result<T, (Node, Option<String>)> {
    let Value::Raw(text) = &node.value else { return parse(node).map_err(|why| (node.clone(), why)) };
    let as_text = Node::new(node.origin.clone(), Value::Text(text.clone()));
    let Some(json) = node.raw_as_json() else { return parse(&as_text).map_err(|why| (as_text, why)) };
    match parse(&json) {
        Err(why) if matches!(json.value, Value::Text(_)) => Err((json, why)),
        Err(why) => parse(&as_text).map_err(|_| (json, why)),
        Ok(value) => Ok(value),
    }
}

/// A default goes the way of every other value. A test holds that each one is accepted.
pub(super) fn default_of<T: Default>(spec: &Spec, parse: impl Fn(&Node) -> Parsed<T>) -> T {
    tree::parse(spec.default, &|_| FaultOrigin::File)
        .ok()
        .and_then(|node| parse(&node).ok())
        .unwrap_or_default()
}

pub(super) fn whole_spec(
    name: &'static str,
    range: &RangeInclusive<u64>,
    default: &'static str,
    about: &'static str,
) -> Spec {
    Spec::new(name, Shape::Whole { min: *range.start(), max: *range.end() }, default, about)
}

pub fn whole_of<T: TryFrom<u64>>(node: &Node, range: &RangeInclusive<u64>) -> Parsed<T> {
    let Value::Number(text) = &node.value else { return Err(None) };
    let value = text.parse::<u64>().ok().filter(|value| range.contains(value)).ok_or(None)?;
    T::try_from(value).map_err(|_| None)
}

/// A duration within bounds, which are as they are written.
pub(super) fn duration_of(node: &Node, min: &str, max: &str) -> Parsed<Duration> {
    let Value::Text(text) = &node.value else { return Err(None) };
    let bounds = parse_duration(min).unwrap_or_default()..=parse_duration(max).unwrap_or(Duration::MAX);
    parse_duration(text).filter(|value| bounds.contains(value)).ok_or(None)
}
