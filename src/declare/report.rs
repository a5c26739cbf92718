//! What reading collects.

use std::collections::BTreeMap;

use super::fault::{Fault, FaultOrigin, pointer};
use super::spec::{Key, OPTIONAL, Shape, Spec};
use super::tree::{self, Node, Value};

/// How what is read is written.
#[derive(Clone, Copy, Debug)]
pub struct ReaderRules {
    /// What a member is called: a key, a parameter.
    pub noun: &'static str,
    /// Places are JSON pointers (RFC 6901), and the fault of an unknown name lists the known ones; else places are
    /// paths such as `a.b[0]`.
    pub is_call: bool,
    /// Most faults that are reported.
    pub max_faults: usize,
}

/// `a.b[0]`, and every fault.
const CONFIGURATION: ReaderRules = ReaderRules { noun: "key", is_call: false, max_faults: usize::MAX };

/// Everything that reading collects.
pub struct Report {
    pub(super) rules: ReaderRules,
    pub faults: Vec<Fault>,
    /// The keys as they were declared. `None`: declarations and values are not wanted.
    pub keys: Option<Vec<Key>>,
    /// Keys that were given another value than their default.
    pub changed: Vec<String>,
    /// The same keys with their values, and the given keys that have no default.
    pub given: BTreeMap<String, Node>,
    /// Keys of the file that hold a secret.
    pub secrets: Vec<String>,
}

impl Report {
    /// Of a configuration.
    pub fn of_configuration() -> Self {
        Self { keys: Some(Vec::new()), ..Self::of_call(CONFIGURATION) }
    }

    /// Of what a caller sent: faults alone.
    pub fn of_call(rules: ReaderRules) -> Self {
        Self {
            rules,
            faults: Vec::new(),
            keys: None,
            changed: Vec::new(),
            given: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    pub fn fault(&mut self, origin: FaultOrigin, path: impl Into<String>, text: impl Into<String>) {
        if self.faults.len() < self.rules.max_faults {
            self.faults.push(Fault { origin, path: path.into(), text: text.into() });
        }
    }

    /// Puts these before the faults from number `at` on.
    pub(super) fn insert(&mut self, at: usize, faults: Vec<Fault>) {
        self.faults.splice(at..at, faults);
        self.faults.truncate(self.rules.max_faults);
    }

    /// The path of a member, or of an element of a list, below another one.
    pub(super) fn below(&self, path: &str, name: &str) -> String {
        match self.rules.is_call {
            true => format!("{path}{}", pointer(name)),
            false if path.is_empty() => name.to_owned(),
            false => format!("{path}.{name}"),
        }
    }

    /// The same of an element of a list.
    pub(super) fn element(&self, path: &str, index: usize) -> String {
        if self.rules.is_call { format!("{path}/{index}") } else { format!("{path}[{index}]") }
    }

    /// Whether there is a fault at that path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.faults.iter().any(|fault| fault.path == path)
    }

    /// Remembers that there is such a key.
    pub(super) fn declare(&mut self, path: &str, spec: &Spec) {
        let Some(keys) = &mut self.keys else { return };
        let path = pattern(path);
        if keys.iter().all(|known| known.path != path) {
            keys.push(spec.at(path));
        }
    }

    /// Remembers a given key if its value is not the default; with `overrides`, which says that something else than the
    /// default would apply without it, also a value that equals the default. Lists of objects and named objects are not
    /// remembered: the keys of their elements are.
    pub(super) fn note(&mut self, spec: &Spec, path: String, node: &Node, overrides: bool) {
        if self.keys.is_none() || matches!(spec.shape, Shape::Named(_)) {
            return;
        }
        let node = node.clone().settled();
        if let (true, FaultOrigin::Line(_), Value::Text(text)) = (spec.secret, &node.origin, &node.value)
            && is_secret(text)
        {
            self.secrets.push(path.clone());
        }
        let default = default_of(spec);
        let is_default = default.as_ref().map(|default| node.same(default));
        if is_default == Some(false) {
            self.changed.push(path.clone());
        }
        let is_object = |one: &Node| matches!(one.clone().settled().value, Value::Object(_));
        let is_list = matches!(&node.value, Value::List(elements) if elements.iter().any(is_object));
        if (is_default != Some(true) || overrides) && !is_list {
            self.given.insert(path, node);
        }
    }

    /// Remembers whether an object that may be `null` is one.
    pub(super) fn note_section(&mut self, path: String, node: &Node) {
        let value = Value::Bool(!matches!(node.value, Value::Null));
        self.given.insert(path, Node::new(node.origin.clone(), value));
    }
}

/// Puts unknown keys behind all other faults. If no key beside an unknown one has a similar name, suggests a key of the
/// same name elsewhere.
pub fn tell_places(faults: &mut [Fault], keys: &[Key]) {
    faults.sort_by_key(|fault| fault.text.starts_with("unknown key"));
    for fault in faults.iter_mut().filter(|fault| fault.text == "unknown key") {
        let is_it = |key: &&Key| {
            let name = key.path.rsplit_once('.').map(|(_, name)| name);
            name.is_some() && name == fault.path.rsplit('.').next()
        };
        if let Some(key) = keys.iter().find(is_it) {
            fault.text += &format!("; did you mean {:?}?", key.path);
        }
    }
}

/// The default of a key; `None`: it has none.
pub(super) fn default_of(spec: &Spec) -> Option<Node> {
    let is_one = !spec.default.is_empty() && spec.default != OPTIONAL;
    is_one.then(|| tree::parse(spec.default, &|_| FaultOrigin::Whole).ok()).flatten()
}

/// Whether the value of a secret key has to be hidden: a database's URL only when there is a password in it.
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
fn pattern(path: &str) -> String {
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
