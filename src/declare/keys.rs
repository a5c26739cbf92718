//! What keys there are: what each takes, and what is reported while they are read.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, FaultOrigin, did_you_mean, nearest};
use super::tree::{self, Member, Node, Value};

/// A key as it was declared by the code that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `backends[].url`.
    pub path: String,
    /// What it takes.
    pub shape: Shape,
    /// Whether `null` is a value of it.
    pub nullable: bool,
    /// Of a list: whether a single element may stand without brackets.
    pub single: bool,
    /// JSON text; empty: it has none and must be given.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// What a key takes. Displays as the end of "must be …".
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Choice(Vec<&'static str>),
    /// A text that is what the words say.
    Text(&'static str),
    /// A number that is what the words say.
    Number(&'static str),
    /// Whatever the words say; keys below it are what its objects take.
    Other(&'static str),
    /// A list of what the words say.
    List {
        /// What one element is.
        of: &'static str,
        /// Most elements.
        max: usize,
    },
    /// An object with keys of its own.
    Section,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Duration { min, max } => {
                write!(f, "a duration from \"{min}\" to \"{max}\", such as \"10s\", \"50ms\" or \"1m30s\"")
            }
            Self::Choice(words) => match words.as_slice() {
                [one] => write!(f, "{one:?}"),
                _ => write!(
                    f,
                    "one of {}",
                    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
                ),
            },
            Self::Text(words) | Self::Number(words) | Self::Other(words) => f.write_str(words),
            Self::List { of, max } => write!(f, "a list of at most {max}, each {of}"),
            Self::Section => f.write_str("an object"),
        }
    }
}

/// Everything that reading collects.
#[derive(Default)]
pub struct Report {
    pub faults: Vec<Fault>,
    pub keys: Vec<Key>,
    pub unknown: Vec<Unknown>,
    /// Keys that were given another value than their default.
    pub changed: Vec<String>,
    /// The same with their values, and those without a default.
    pub given: BTreeMap<String, Node>,
    /// Keys of the file that hold a secret.
    pub secrets: Vec<String>,
    /// What is read stands over something else: a default that is given is no default.
    pub overrides: bool,
}

/// A key that nobody asked for.
pub struct Unknown {
    pub origin: FaultOrigin,
    pub path: String,
    pub name: String,
    pub siblings: Vec<&'static str>,
}

impl Report {
    pub fn fault(&mut self, origin: FaultOrigin, path: impl Into<String>, text: impl Into<String>) {
        self.faults.push(Fault { origin, path: path.into(), text: text.into() });
    }

    /// Remembers a key that was given another value than its default. Lists of objects are not: their elements' keys are.
    pub fn note(&mut self, spec: &Spec, path: String, node: &Node) {
        let default = tree::parse(spec.default, &|_| FaultOrigin::File).ok();
        let node = node.clone().settled();
        if let (true, FaultOrigin::Line(_), Value::Text(text)) = (spec.secret, &node.origin, &node.value)
            && is_secret(text)
        {
            self.secrets.push(path.clone());
        }
        let is_default = default.as_ref().map(|default| node.same(default));
        if is_default == Some(false) {
            self.changed.push(path.clone());
        }
        let is_object = |one: &Node| matches!(one.clone().settled().value, Value::Object(_));
        let is_list = matches!(&node.value, Value::List(elements) if elements.iter().any(is_object));
        if (is_default != Some(true) || self.overrides) && !is_list {
            self.given.insert(path, node);
        }
    }

    /// Remembers whether there is an object where there need not be one.
    pub fn note_section(&mut self, path: String, node: &Node) {
        let value = Value::Bool(!matches!(node.value, Value::Null));
        self.given.insert(path, Node::new(node.origin.clone(), value));
    }

    /// Adds what was reported of an object that takes some of its keys from another one: what is wrong with those was said
    /// there, and they were not given here. None of its keys is declared.
    pub fn absorb(&mut self, apart: Self, inherited: &Inherited) {
        let own = |path: &String| inherited.is_own(path);
        for fault in apart.faults {
            let said = |path: &str| self.faults.iter().any(|other| other.path == path);
            if !inherited.from(&fault.path).is_some_and(said) {
                self.faults.push(fault);
            }
        }
        self.unknown.extend(apart.unknown.into_iter().filter(|unknown| own(&unknown.path)));
        self.changed.extend(apart.changed.into_iter().filter(own));
        self.secrets.extend(apart.secrets.into_iter().filter(own));
        self.given.extend(apart.given.into_iter().filter(|(path, _)| own(path)));
    }

    /// Words the unknown keys, now that all known ones are declared, and gives everything back.
    pub fn finish(mut self) -> (Vec<Fault>, Vec<Key>) {
        for unknown in std::mem::take(&mut self.unknown) {
            let name = unknown.name.as_str();
            let place = nearest(name, unknown.siblings.iter().copied()).is_none().then(|| {
                self.keys.iter().find(|key| key.path.rsplit_once('.').is_some_and(|(_, leaf)| leaf == name))
            });
            let hint = match place.flatten() {
                Some(key) => format!("; did you mean {:?}?", key.path),
                None => did_you_mean(name, unknown.siblings.iter().copied()),
            };
            self.fault(unknown.origin, unknown.path, format!("unknown key{hint}"));
        }
        (self.faults, self.keys)
    }
}

/// Keys that an object takes over from another one.
pub struct Inherited {
    /// Path of the object, with a dot behind it: what is below it at one path stands there without it.
    prefix: String,
    /// What the object itself has.
    own: Vec<String>,
    paths: Vec<String>,
}

impl Inherited {
    /// Nothing as yet, for the object at that path.
    pub fn by(path: &str) -> Self {
        Self { prefix: format!("{path}."), own: Vec::new(), paths: Vec::new() }
    }

    /// `own`, the object, with those of the other one that it leaves out, object by object.
    pub fn complete(&mut self, own: Node, above: &[Member]) -> Node {
        let own = own.settled();
        if let Value::Object(members) = &own.value {
            self.own = members.iter().map(|member| format!("{}{}", self.prefix, member.name)).collect();
        }
        let path = self.prefix.trim_end_matches('.').to_owned();
        self.complete_at(own, above, &path)
    }

    fn complete_at(&mut self, own: Node, above: &[Member], path: &str) -> Node {
        let own = own.settled();
        let Value::Object(mut members) = own.value else { return own };
        for member in above {
            let path = format!("{path}.{}", member.name);
            match members.iter_mut().find(|one| one.name == member.name) {
                None => {
                    self.paths.push(path);
                    members.push(member.clone());
                }
                Some(one) => {
                    if let Value::Object(inner) = member.node.clone().settled().value {
                        let nothing = Node::new(one.node.origin.clone(), Value::Null);
                        one.node = self.complete_at(std::mem::replace(&mut one.node, nothing), &inner, &path);
                    }
                }
            }
        }
        Node::new(own.origin, Value::Object(members))
    }

    /// Whether the object says something of that key.
    fn is_own(&self, path: &str) -> bool {
        self.own.iter().any(|one| is_at_or_below(path, one)) && self.from(path).is_none()
    }

    /// Where a key was taken over from; `None`: it is the object's own.
    fn from<'p>(&self, path: &'p str) -> Option<&'p str> {
        let is_taken = self.paths.iter().any(|one| is_at_or_below(path, one));
        path.strip_prefix(&self.prefix).filter(|_| is_taken)
    }
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// How a key was declared; see [`Key`].
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
    pub fn new(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Self {
        Self { name, shape, nullable: false, default, about, secret: false }
    }

    /// The same; `null` is a value of it.
    pub fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// The same; its value is never shown.
    pub fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// Whether what a secret key holds is one: a database's URL is, when there is a password in it.
fn is_secret(text: &str) -> bool {
    match text.split_once("://") {
        Some((_, rest)) => {
            let user = rest.split(['/', '?']).next().and_then(|host| host.rsplit_once('@'));
            user.is_some_and(|(user, _)| user.contains(':')) || rest.contains("password=")
        }
        None => !text.starts_with("sqlite:"),
    }
}

/// `backends[3].url` → `backends[].url`.
pub fn pattern(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for char in path.chars() {
        match char {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(char);
    }
    out
}
