//! How a key is declared: what it takes, its default, and what it is for.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

/// In place of a default: the key may be left out, and then has no value. It is no JSON.
pub const OPTIONAL: &str = "nothing";

/// The declaration of a key, with its name in place of its path; see [`Key`].
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub shape: Shape,
    pub nullable: bool,
    pub default: &'static str,
    pub about: &'static str,
    /// Never show the value.
    pub secret: bool,
}

impl Spec {
    /// A key that is neither nullable nor secret.
    pub const fn new(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Self {
        Self { name, shape, nullable: false, default, about, secret: false }
    }

    /// One that takes values of that form.
    pub const fn of(name: &'static str, form: Form, default: &'static str, about: &'static str) -> Self {
        Self::new(name, Shape::Form(form), default, about)
    }

    /// The same; `null` is a value of it.
    pub const fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The same; it may be left out, and then has no value.
    pub const fn optional(mut self) -> Self {
        self.default = OPTIONAL;
        self
    }

    /// The same; its value is never shown.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The key at that path.
    pub fn at(&self, path: String) -> Key {
        let Self { ref shape, nullable, default, about, .. } = *self;
        Key { path, shape: shape.clone(), nullable, default, about }
    }
}

/// A key as it was declared by the code that reads it.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its place, without numbers of elements: `backends[].url`.
    pub path: String,
    /// What it takes.
    pub shape: Shape,
    /// Whether `null` is a value of it.
    pub nullable: bool,
    /// JSON text. Empty: the key has no default and must be given; "nothing": it may be left out, and then has no
    /// value.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// A form that values are written in.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The end of "must be …".
    pub words: &'static str,
    /// The JSON Schema of it.
    pub schema: fn() -> Value,
}

impl Form {
    /// A form with a schema.
    pub const fn new(words: &'static str, schema: fn() -> Value) -> Self {
        Self { words, schema }
    }

    /// A text of which no schema says more.
    pub const fn text(words: &'static str) -> Self {
        Self { words, schema: || json!({ "type": "string" }) }
    }
}

/// What a key takes. Displays as the end of "must be …".
#[derive(Clone, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A duration: `"1m30s"`.
    Duration {
        /// Least, as it is written.
        min: &'static str,
        /// Most, as it is written.
        max: &'static str,
    },
    /// One of these words.
    Choice(Cow<'static, [&'static str]>),
    /// A value of that form; keys below it are what its objects take.
    Form(Form),
    /// A list of values of one form.
    List {
        /// What one element is.
        of: Form,
        /// Most elements.
        max: usize,
        /// Whether a single element may be given without brackets.
        single: bool,
    },
    /// A list of objects. Keys declared below it are those of each object.
    Objects {
        /// The end of "must be …".
        words: &'static str,
        /// Fewest of them.
        min: usize,
        /// Most of them.
        max: usize,
        /// The schema of the list, where the keys of its elements are declared elsewhere.
        schema: Option<fn() -> Value>,
    },
    /// An object with keys of its own.
    Section,
    /// An object whose member names the user chooses. Holds the end of "must be …".
    Named(&'static str),
}

impl Shape {
    /// A list of objects whose keys are declared below it.
    pub const fn objects(words: &'static str, min: usize, max: usize) -> Self {
        Self::Objects { words, min, max, schema: None }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Duration { min, max } => {
                write!(f, "a duration from \"{min}\" to \"{max}\", such as \"10s\", \"50ms\" or \"1m30s\"")
            }
            Self::Choice(words) => match &**words {
                [one] => write!(f, "{one:?}"),
                _ => write!(
                    f,
                    "one of {}",
                    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
                ),
            },
            Self::Form(Form { words, .. }) | Self::Objects { words, .. } => f.write_str(words),
            Self::List { of, max, .. } => write!(f, "a list of at most {max}, each {}", of.words),
            Self::Section => f.write_str("an object"),
            Self::Named(words) => write!(f, "an object of {words}"),
        }
    }
}
