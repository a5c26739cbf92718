//! JSON text to a tree that knows where each value is. A configuration is JSON (RFC 8259) with `//` and `/* */`
//! comments, and with a comma behind the last element, which is left over when the next element is commented out. A
//! body of a call is strict JSON, and its parts are parsed only when they are read: what is not read takes no memory.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use jsonc_parser::common::Ranged;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, ast};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{Fault, FaultOrigin};
use balancer_limiter::limit::Rate;

/// Most elements of a list, or members of an object, in a body. No key takes more, so what lies beyond is refused with
/// the rest and need not be kept.
const MAX_PARTS: usize = 10_000;

/// A value and where it was given. Has no `Debug`: it may hold a secret.
#[derive(Clone)]
pub struct Node {
    pub origin: FaultOrigin,
    pub value: Value,
}

/// What a value is.
#[derive(Clone)]
pub enum Value {
    Null,
    Bool(bool),
    /// As it is written: nothing is rounded.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
    /// An environment variable's text: JSON if that is what its key takes, else text.
    Raw(String),
    /// A parameter of a query: a text, a whole number of digits alone, or `true` or `false`, as its key takes it.
    Word(String),
    /// A part of a body, as it was written.
    Unread(Part),
}

/// One member of an object. Names may repeat; the reader reports it.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub origin: FaultOrigin,
    pub node: Node,
}

impl Node {
    pub fn new(origin: FaultOrigin, value: Value) -> Self {
        Self { origin, value }
    }

    /// An object without members.
    pub fn empty(origin: FaultOrigin) -> Self {
        Self::new(origin, Value::Object(Vec::new()))
    }

    /// A whole body, which must be JSON.
    pub fn of_body(body: String) -> serde_json::Result<Self> {
        serde_json::from_str::<IgnoredAny>(&body)?;
        let at = 0..body.len();
        Ok(Self::new(FaultOrigin::Whole, Value::Unread(Part { body: Arc::new(body), at })))
    }

    /// Whether two values are written alike; where they were given does not count. A variable's raw text equals
    /// nothing: see [`Node::settled`].
    pub fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) | (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.node.same(&b.node))
            }
            _ => false,
        }
    }

    /// A variable's text as JSON, when it is JSON.
    pub fn raw_as_json(&self) -> Option<Self> {
        match &self.value {
            Value::Raw(text) => parse(text, &|_| self.origin.clone()).ok(),
            _ => None,
        }
    }

    /// A variable's text as JSON, else as text, and a part of a body with its own parts; any other value unchanged.
    pub fn settled(self) -> Self {
        match (self.raw_as_json(), self.value) {
            (Some(json), _) => json,
            (None, Value::Raw(text)) => Self { origin: self.origin, value: Value::Text(text) },
            (None, Value::Unread(part)) => {
                let value = part.unfold(&self.origin).unwrap_or(Value::Unread(part));
                Self { origin: self.origin, value }
            }
            (None, value) => Self { origin: self.origin, value },
        }
    }

    /// The members, if it is an object; given as such or as a variable's JSON.
    pub fn members(self) -> Option<Vec<Member>> {
        match self.settled().value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member of that name.
    pub fn member(self, name: &str) -> Option<Self> {
        Some(self.members()?.into_iter().find(|one| one.name == name)?.node)
    }

    /// The member of that name, or the element of that number, which is a place of its own. What a variable gave is one
    /// place.
    pub(super) fn part(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(members) => members.iter().find(|one| one.name == name).map(|one| &one.node),
            Value::List(elements) => elements.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// What the value is, for a message. Without `show`, only its kind.
    pub fn describe(&self, show: bool) -> String {
        /// Longer values are cut: a message is one line.
        const SHOWN: usize = 60;
        let short = |text: &str| text.chars().take(SHOWN).collect::<String>();
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) if show => short(text),
            Value::Number(_) => "a number".into(),
            Value::Text(text) | Value::Raw(text) | Value::Word(text) if show => format!("{:?}", short(text)),
            Value::Text(_) | Value::Raw(_) | Value::Word(_) => "text".into(),
            Value::List(items) if items.is_empty() => "an empty list".into(),
            Value::List(items) if items.len() > MAX_PARTS => format!("a list of more than {MAX_PARTS}"),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Object(_) => "an object".into(),
            // All else was parsed before.
            Value::Unread(_) => "what is no Unicode text: an escape in it is half of a surrogate pair".into(),
        }
    }
}

/// A part of a body.
#[derive(Clone)]
pub struct Part {
    body: Arc<String>,
    at: Range<usize>,
}

impl Part {
    /// What it is, with its own parts as they were written; `None`: a text in it is not valid Unicode.
    fn unfold(&self, origin: &FaultOrigin) -> Option<Value> {
        let text = self.body.get(self.at.clone())?.trim_ascii();
        let node = |raw: &RawValue| {
            // `raw` is a slice of the body, which gives its offset.
            let start = raw.get().as_ptr().addr() - self.body.as_ptr().addr();
            let part = Self { body: Arc::clone(&self.body), at: start..start + raw.get().len() };
            Node::new(origin.clone(), Value::Unread(part))
        };
        let parts = || serde_json::from_str::<Parts<'_>>(text).ok().map(|parts| parts.0.into_iter());
        Some(match text.as_bytes().first()? {
            b'n' => Value::Null,
            b't' | b'f' => Value::Bool(text == "true"),
            b'"' => Value::Text(serde_json::from_str(text).ok()?),
            b'[' => Value::List(parts()?.map(|(_, raw)| node(raw)).collect()),
            b'{' => {
                let member = |(name, raw)| Member { name, origin: origin.clone(), node: node(raw) };
                Value::Object(parts()?.map(member).collect())
            }
            // Numbers count by their value: 10.0 and 1e1 are 10. They are never read as floats.
            _ => Value::Number(
                Rate::parse_decimal(text).map_or_else(|_| text.to_owned(), |rate| rate.to_string()),
            ),
        })
    }
}

/// The members of an object, or the elements of a list without names; at most one more than [`MAX_PARTS`].
struct Parts<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while members.len() <= MAX_PARTS
                    && let Some(member) = map.next_entry()?
                {
                    members.push(member);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Parts(members))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while elements.len() <= MAX_PARTS
                    && let Some(element) = list.next_element()?
                {
                    elements.push((String::new(), element));
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Parts(elements))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Parses a whole text; `origin` turns a byte offset into a place.
pub fn parse(text: &str, origin: &dyn Fn(usize) -> FaultOrigin) -> Result<Node, Fault> {
    let fault = |at, text| Fault { origin: origin(at), path: String::new(), text };
    let options = ParseOptions {
        allow_comments: true,
        allow_loose_object_property_names: false,
        allow_trailing_commas: true,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
    let parsed = jsonc_parser::parse_to_ast(text, &collect, &options).map_err(|error| {
        fault(
            error.range().start,
            format!(
                "not JSON: {}, at column {}",
                lower_first(&error.kind().to_string()),
                error.column_display()
            ),
        )
    })?;
    let Some(value) = parsed.value else { return Err(fault(0, "not JSON: the text is empty".into())) };
    // The parser above lets a few more things pass (leading zeros, control characters in strings); a strict one has the
    // last word.
    let plain = without_comments(text, &parsed.tokens.unwrap_or_default());
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&plain) {
        let at = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or("");
        return Err(fault(at, format!("not JSON: {what}, at column {}", error.column())));
    }
    Ok(convert(value, origin))
}

/// The same text with blanks in the place of comments and of commas before a closing bracket: every other byte keeps
/// its offset and its line.
fn without_comments(text: &str, tokens: &[TokenAndRange<'_>]) -> Vec<u8> {
    let mut plain = text.as_bytes().to_vec();
    let mut blank = |token: &TokenAndRange<'_>| {
        for byte in &mut plain[token.range.start..token.range.end] {
            if !matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    };
    let mut before = None;
    for token in tokens {
        match (&token.token, before) {
            (Token::CommentLine(_) | Token::CommentBlock(_), _) => {
                blank(token);
                continue;
            }
            (Token::CloseBrace | Token::CloseBracket, Some(comma)) => blank(comma),
            _ => {}
        }
        before = Some(token).filter(|token| matches!(token.token, Token::Comma));
    }
    plain
}

/// Depth is bounded by both parsers (128 at most).
fn convert(value: ast::Value<'_>, origin: &dyn Fn(usize) -> FaultOrigin) -> Node {
    let at = origin(value.range().start);
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
        ast::Value::NumberLit(literal) => Value::Number(literal.value.to_owned()),
        ast::Value::StringLit(literal) => Value::Text(literal.value.into_owned()),
        ast::Value::Array(array) => {
            Value::List(array.elements.into_iter().map(|element| convert(element, origin)).collect())
        }
        ast::Value::Object(object) => Value::Object(
            object
                .properties
                .into_iter()
                .map(|property| Member {
                    origin: origin(property.range.start),
                    name: property.name.into_string(),
                    node: convert(property.value, origin),
                })
                .collect(),
        ),
    };
    Node { origin: at, value }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// Byte offsets to lines of a file.
pub struct Lines(Vec<usize>);

impl Lines {
    /// Of a whole text.
    pub fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line that holds the byte, from 1.
    pub fn at(&self, offset: usize) -> FaultOrigin {
        FaultOrigin::Line(self.0.partition_point(|newline| *newline < offset) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Value {
        Node::of_body(text.to_owned()).unwrap().settled().value
    }

    #[test]
    fn numbers_of_a_body_count_by_their_value() {
        for (text, expected) in
            [("10.0", "10"), (" 1e1 ", "10"), ("-0", "0"), ("1.50", "1.5"), ("1e400", "1e400"), ("-1", "-1")]
        {
            assert!(matches!(body(text), Value::Number(number) if number == expected), "{text}");
        }
    }

    #[test]
    fn what_no_key_takes_is_not_kept() {
        let more = MAX_PARTS + 500;
        let list = format!("[{}]", vec!["[]"; more].join(","));
        let object =
            format!("{{{}}}", (0..more).map(|at| format!("\"{at}\":0")).collect::<Vec<_>>().join(","));
        assert!(matches!(body(&list), Value::List(elements) if elements.len() == MAX_PARTS + 1));
        assert!(matches!(body(&object), Value::Object(members) if members.len() == MAX_PARTS + 1));
        assert_eq!(Node::of_body(list).unwrap().settled().describe(true), "a list of more than 10000");
    }

    #[test]
    fn half_of_a_surrogate_pair_is_no_text_and_no_name() {
        for text in [r#""\ud800""#, r#"{"\ud800": 1}"#] {
            assert!(matches!(body(text), Value::Unread(_)), "{text}");
        }
        assert!(matches!(body(r#"{"a": "\ud800"}"#), Value::Object(_)));
    }
}
