//! Keys that hold one value, or a list of values.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;

use super::duration::parse_duration;
use super::fault::{Parsed, did_you_mean};
use super::section::{Section, interpret};
use super::spec::{Form, Shape, Spec};
use super::tree::{Node, Value};
use balancer_limiter::limit::Rate;

/// A text as it is.
pub fn owned(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

/// The value of a node that is a whole number.
pub fn whole_of<T: TryFrom<u64>>(node: &Node, range: &RangeInclusive<u64>) -> Parsed<T> {
    let value = match &node.value {
        Value::Number(text) => text.parse::<u64>(),
        Value::Word(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u64>(),
        _ => return Err(None),
    };
    let value = value.ok().filter(|value| range.contains(value)).ok_or(None)?;
    T::try_from(value).map_err(|_| None)
}

/// The value of a node that is a number of tokens, in millionths.
pub fn micro_of(node: &Node) -> Parsed<u64> {
    match &node.value {
        Value::Number(text) => match Rate::parse_decimal(text) {
            Ok(rate) => Ok(rate.micro),
            Err(fault) => Err(Some(format!("{fault}; found {}", node.describe(true)))),
        },
        _ => Err(None),
    }
}

/// A duration within bounds; both bounds are written as in the configuration.
pub fn duration_of(text: &str, (min, max): (&str, &str)) -> Parsed<Duration> {
    let bounds = parse_duration(min).unwrap_or_default()..=parse_duration(max).unwrap_or(Duration::MAX);
    parse_duration(text).filter(|value| bounds.contains(value)).ok_or(None)
}

fn bool_of(node: &Node) -> Parsed<bool> {
    match &node.value {
        Value::Bool(value) => Ok(*value),
        Value::Word(text) => text.parse().map_err(|_| None),
        _ => Err(None),
    }
}

fn share_of(node: &Node) -> Parsed<f64> {
    let Value::Number(text) = &node.value else { return Err(None) };
    text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or(None)
}

/// How a whole number is declared.
pub const fn whole(
    name: &'static str,
    range: &RangeInclusive<u64>,
    default: &'static str,
    about: &'static str,
) -> Spec {
    Spec::new(name, Shape::Whole { min: *range.start(), max: *range.end() }, default, about)
}

impl Section<'_> {
    /// Reads a key of any form. `None`: it is `null`, or left out without a default, or has a fault.
    pub fn some<T>(&mut self, spec: &Spec, parse: impl Fn(&Node) -> Parsed<T>) -> Option<T> {
        self.value(spec, |node| match node.value {
            Value::Null if spec.nullable => Ok(None),
            _ => parse(node).map(Some),
        })
    }

    /// A text. `None` as with [`Section::some`].
    pub fn text<T>(&mut self, spec: &Spec, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        self.some(spec, |node| match &node.value {
            Value::Text(text) | Value::Word(text) => parse(text),
            _ => Err(None),
        })
    }

    /// A whole number, as it was declared by [`whole`]. `None` as with [`Section::some`].
    pub fn number<T: TryFrom<u64>>(&mut self, spec: &Spec) -> Option<T> {
        let range = match spec.shape {
            Shape::Whole { min, max } => min..=max,
            _ => 0..=u64::MAX,
        };
        self.some(spec, |node| whole_of(node, &range))
    }

    /// A whole number.
    pub fn whole<T: TryFrom<u64> + Default>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: &'static str,
        about: &'static str,
    ) -> T {
        self.number(&whole(name, &range, default, about)).unwrap_or_default()
    }

    /// A whole number or `null`.
    pub fn whole_or_null<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: &'static str,
        about: &'static str,
    ) -> Option<T> {
        self.number(&whole(name, &range, default, about).or_null())
    }

    /// A duration within bounds; bounds and default are written as in the configuration.
    pub fn duration(
        &mut self,
        name: &'static str,
        (min, max): (&'static str, &'static str),
        default: &'static str,
        about: &'static str,
    ) -> Duration {
        let spec = Spec::new(name, Shape::Duration { min, max }, default, about);
        self.text(&spec, |text| duration_of(text, (min, max))).unwrap_or_default()
    }

    /// The same, or `null`.
    pub fn duration_or_null(
        &mut self,
        name: &'static str,
        (min, max): (&'static str, &'static str),
        default: &'static str,
        about: &'static str,
    ) -> Option<Duration> {
        let spec = Spec::new(name, Shape::Duration { min, max }, default, about).or_null();
        self.text(&spec, |text| duration_of(text, (min, max)))
    }

    /// `true` or `false`. `None` as with [`Section::some`].
    pub fn flag(&mut self, spec: &Spec) -> Option<bool> {
        self.some(spec, bool_of)
    }

    /// `true` or `false`.
    pub fn bool(&mut self, name: &'static str, default: &'static str, about: &'static str) -> bool {
        self.flag(&Spec::new(name, Shape::Bool, default, about)).unwrap_or_default()
    }

    /// A share from 0 to 1.
    pub fn share(&mut self, name: &'static str, default: &'static str, about: &'static str) -> f64 {
        let form = Form::new(
            "a number from 0 to 1, such as 0.5",
            || json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        );
        self.some(&Spec::new(name, Shape::Form(form), default, about), share_of).unwrap_or_default()
    }

    /// A share above 0, or `null`.
    pub fn share_or_null(
        &mut self,
        name: &'static str,
        default: &'static str,
        about: &'static str,
    ) -> Option<f64> {
        let form = Form::new(
            "a number above 0 and at most 1, such as 0.5",
            || json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        );
        self.some(&Spec::new(name, Shape::Form(form), default, about).or_null(), |node| {
            share_of(node).and_then(|share| if share > 0.0 { Ok(share) } else { Err(None) })
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
        default: &'static str,
        about: &'static str,
    ) -> Option<T> {
        let shape = Shape::Choice(words.iter().map(|(word, _)| *word).collect());
        let spec = Spec::new(name, shape, default, about);
        self.one_of(&if default == "null" { spec.or_null() } else { spec }, words)
    }

    /// The same, as it was declared.
    pub fn one_of<T: Copy>(&mut self, spec: &Spec, words: &[(&'static str, T)]) -> Option<T> {
        self.text(spec, |text| {
            if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
            let or_null = if spec.nullable { " or null" } else { "" };
            Err(Some(format!("must be {}{or_null}; found {}{hint}", spec.shape, shown(text))))
        })
    }

    /// A list of at most `max` values of one form; with `single`, one may be given without brackets.
    pub fn list<T>(&mut self, spec: &Spec, parse: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        let Shape::List { of, single, .. } = spec.shape else { return Vec::new() };
        let given = self.elements(spec);
        let several = given.len() > 1 || !single;
        let mut values = Vec::with_capacity(given.len());
        for (index, element) in given.into_iter().enumerate() {
            let parsed = interpret(element, &|node| match &node.value {
                Value::Text(text) => parse(text),
                _ => Err(None),
            });
            match parsed {
                Ok(value) => values.push(value),
                Err((element, why)) => {
                    let found = || format!("must be {}; found {}", of.words, element.describe(!spec.secret));
                    let text = why.unwrap_or_else(found);
                    if several {
                        self.fault_of_element(spec.name, index, text);
                    } else {
                        self.fault(spec.name, text);
                    }
                }
            }
        }
        values
    }

    fn elements(&mut self, spec: &Spec) -> Vec<Node> {
        let Shape::List { max, single, .. } = spec.shape else { return Vec::new() };
        let as_it_is = |node: &Node| match &node.value {
            Value::Null if spec.nullable => Ok(Vec::new()),
            Value::List(elements) if elements.len() <= max => Ok(elements.clone()),
            Value::Text(_) if single => Ok(vec![node.clone()]),
            _ => Err(None),
        };
        self.value(spec, as_it_is)
    }
}

/// A text for a message, as [`Node::describe`] shows it.
pub fn shown(text: &str) -> String {
    Node::new(super::fault::FaultOrigin::Whole, Value::Text(text.to_owned())).describe(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::FaultOrigin;

    #[test]
    fn a_parameter_is_a_number_of_digits_alone_and_true_or_false_in_full() {
        let word = |text: &str| Node::new(FaultOrigin::Whole, Value::Word(text.to_owned()));
        for (text, expected) in [
            ("7", Ok(7_u32)),
            ("007", Ok(7)),
            ("10", Ok(10)),
            ("11", Err(None)),
            ("", Err(None)),
            ("+7", Err(None)),
            (" 7", Err(None)),
            ("7.0", Err(None)),
            ("1e1", Err(None)),
        ] {
            assert_eq!(whole_of(&word(text), &(1..=10)), expected, "{text:?}");
        }
        for (text, expected) in
            [("true", Ok(true)), ("false", Ok(false)), ("True", Err(None)), ("1", Err(None))]
        {
            assert_eq!(bool_of(&word(text)), expected, "{text:?}");
        }
    }
}
