//! JSON text to a tree that knows where each value stands. JSON (RFC 8259) with `//` and `/* */` comments, and with a comma
//! behind the last element, as it is left over when the one behind it is commented out.

use jsonc_parser::common::Ranged;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, ast};

use super::fault::{Fault, FaultOrigin};

/// A value and where it stands. Has no `Debug`: it may hold a secret.
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

    /// Whether two values are written alike, wherever they stand. Variables' texts never are: no default holds one.
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

    /// A variable's text as JSON, else as text; anything else as it is.
    pub fn settled(self) -> Self {
        match (self.raw_as_json(), self.value) {
            (Some(json), _) => json,
            (None, Value::Raw(text)) => Self { origin: self.origin, value: Value::Text(text) },
            (None, value) => Self { origin: self.origin, value },
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
            Value::Text(text) | Value::Raw(text) if show => format!("{:?}", short(text)),
            Value::Text(_) | Value::Raw(_) => "text".into(),
            Value::List(items) if items.is_empty() => "an empty list".into(),
            Value::List(_) => "a list".into(),
            Value::Object(_) => "an object".into(),
        }
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
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&plain) {
        let at = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or("");
        return Err(fault(at, format!("not JSON: {what}, at column {}", error.column())));
    }
    Ok(convert(value, origin))
}

/// The same text with blanks in the place of comments and of commas before a closing bracket: every byte and every line
/// stands where it stood.
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
