//! Reads one object of the tree key by key. Each call that reads a key also declares it: its place, what is allowed, its
//! default and what it is for. So the checks, the messages and the reference of all keys come from the same lines.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::{FaultOrigin, Parsed, did_you_mean};
use super::keys::{Inherited, Key, Report, Shape, Spec, Unknown, pattern};
use super::tree::{self, Member, Node, Value};

mod values;

pub use values::whole_of;
use values::{default_of, duration_of, interpret, message, whole_spec};

/// One object, being read.
pub struct Section<'r> {
    report: &'r mut Report,
    path: String,
    origin: FaultOrigin,
    members: Vec<Member>,
    known: Vec<&'static str>,
    /// It is no object at all, which has been said: nothing is missing in it.
    broken: bool,
}

impl<'r> Section<'r> {
    /// The object at that path; a node that is none is a fault, and reads as an empty one.
    pub fn open(report: &'r mut Report, path: String, node: Node) -> Self {
        let node = node.settled();
        let origin = node.origin.clone();
        let (members, broken) = match node.value {
            Value::Object(members) => (members, false),
            _ => {
                let found = node.describe(false);
                report.fault(origin.clone(), path.clone(), format!("must be an object; found {found}"));
                (Vec::new(), true)
            }
        };
        Self { report, path, origin, members, known: Vec::new(), broken }
    }

    /// Where the object stands.
    pub fn origin(&self) -> FaultOrigin {
        self.origin.clone()
    }

    /// The path of a key in this object.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Reports a fault of a key of this object.
    pub fn fault(&mut self, origin: FaultOrigin, name: &str, text: impl Into<String>) {
        let path = self.path_of(name);
        self.report.fault(origin, path, text);
    }

    /// Where a key stands, if it is there.
    pub fn origin_of(&self, name: &str) -> Option<FaultOrigin> {
        self.members.iter().find(|member| member.name == name).map(|member| member.node.origin.clone())
    }

    /// Whether a key's value is an object, given as such or as a variable's JSON.
    pub fn peek_object(&self, name: &str) -> bool {
        self.members.iter().find(|member| member.name == name).is_some_and(|member| {
            let json = member.node.raw_as_json();
            matches!(json.as_ref().unwrap_or(&member.node).value, Value::Object(_))
        })
    }

    /// Whether a key is there and holds a list or an object with something in it.
    pub fn has_some(&self, name: &str) -> bool {
        self.members.iter().filter(|member| member.name == name).any(|member| {
            match member.node.clone().settled().value {
                Value::List(elements) => !elements.is_empty(),
                Value::Object(members) => !members.is_empty(),
                _ => false,
            }
        })
    }

    /// The members of those names, as they stand there.
    pub fn copies(&self, names: &[&str]) -> Vec<Member> {
        self.members.iter().filter(|member| names.contains(&member.name.as_str())).cloned().collect()
    }

    /// Adds what was reported of an object that was read apart.
    pub fn absorb(&mut self, apart: Report, inherited: &Inherited) {
        self.report.absorb(apart, inherited);
    }

    /// Whether a key of this object has a fault.
    pub fn faulty(&self, name: &str) -> bool {
        let path = self.path_of(name);
        self.report.faults.iter().any(|fault| fault.path == path)
    }

    /// Whether nothing in this object has a fault.
    pub fn is_sound(&self) -> bool {
        self.report.faults.iter().all(|fault| !fault.path.starts_with(&self.path))
    }

    /// Takes a key's value out; further ones of the same name are faults.
    pub fn take(&mut self, name: &str) -> Option<Node> {
        let (mine, others) =
            std::mem::take(&mut self.members).into_iter().partition(|member| member.name == name);
        self.members = others;
        let mut mine: Vec<Member> = mine;
        for doubled in mine.iter().skip(1) {
            let first = match &mine[0].origin {
                FaultOrigin::Line(line) => format!("it stands in line {line} already"),
                _ => "it was given before".into(),
            };
            let path = self.path_of(name);
            self.report.fault(doubled.origin.clone(), path, format!("doubled key: {first}"));
        }
        (!mine.is_empty()).then(|| mine.swap_remove(0).node)
    }

    /// A key of earlier versions that nothing stands for any more, and what it was.
    pub fn gone(&mut self, name: &str, was: &str) {
        if let Some(node) = self.take(name) {
            let text = format!("is gone, and nothing replaces it: it was {was}; take it out");
            self.fault(node.origin, name, text);
        }
    }

    /// Declares a key without reading it.
    pub fn declare(&mut self, spec: &Spec) {
        self.declare_with(spec, false);
    }

    fn declare_with(&mut self, spec: &Spec, single: bool) {
        self.known.push(spec.name);
        self.declared(vec![Key {
            path: pattern(&self.path_of(spec.name)),
            shape: spec.shape.clone(),
            nullable: spec.nullable,
            single,
            default: spec.default,
            about: spec.about,
        }]);
    }

    /// Adds keys that were declared elsewhere.
    pub fn declared(&mut self, keys: Vec<Key>) {
        for key in keys {
            if self.report.keys.iter().all(|known| known.path != key.path) {
                self.report.keys.push(key);
            }
        }
    }

    /// Reads a key of any form. After a fault, `T`'s default stands in.
    pub fn value<T: Default>(&mut self, spec: &Spec, parse: impl Fn(&Node) -> Parsed<T>) -> T {
        self.declare(spec);
        let Some(node) = self.take(spec.name) else {
            if self.broken {
                return T::default();
            }
            if spec.default.is_empty() {
                let text = format!("is missing; must be {}", spec.shape);
                self.fault(self.origin(), spec.name, text);
                return T::default();
            }
            return default_of(spec, parse);
        };
        self.report.note(spec, self.path_of(spec.name), &node);
        match interpret(&node, &parse) {
            Ok(value) => value,
            Err((found, why)) => {
                self.fault(node.origin, spec.name, message(spec, &found, why));
                T::default()
            }
        }
    }

    /// A list; with `one`, a single element may stand without brackets.
    pub fn list<T>(&mut self, spec: &Spec, one: bool, parse: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        self.declare_with(spec, one);
        let Shape::List { of, max } = spec.shape else { return Vec::new() };
        let given = self.take(spec.name).map(Node::settled);
        if let Some(node) = &given {
            self.report.note(spec, self.path_of(spec.name), node);
        }
        let Some(node) = given.or_else(|| tree::parse(spec.default, &|_| self.origin()).ok()) else {
            return Vec::new();
        };
        let elements = match node.value {
            Value::Null if spec.nullable => return Vec::new(),
            Value::List(elements) if elements.len() <= max => elements,
            Value::Text(_) if one => vec![node],
            _ => {
                let found = match &node.value {
                    Value::List(elements) => format!("a list of {}", elements.len()),
                    _ => node.describe(!spec.secret),
                };
                let or_null = if spec.nullable { " or null" } else { "" };
                self.fault(node.origin, spec.name, format!("must be {}{or_null}; found {found}", spec.shape));
                return Vec::new();
            }
        };
        let several = elements.len() > 1 || !one;
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            // A variable that names one element may give it in quotes, or as it is.
            let quoted = element.raw_as_json().filter(|json| matches!(json.value, Value::Text(_)));
            let element = quoted.unwrap_or(element);
            let parsed = match &element.value {
                Value::Text(text) | Value::Raw(text) => parse(text),
                _ => Err(None),
            };
            match parsed {
                Ok(value) => values.push(value),
                Err(why) => {
                    let text = why
                        .unwrap_or_else(|| format!("must be {of}; found {}", element.describe(!spec.secret)));
                    let name = if several { format!("{}[{index}]", spec.name) } else { spec.name.to_owned() };
                    self.fault(element.origin, &name, text);
                }
            }
        }
        values
    }

    /// A whole number.
    pub fn whole<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: &'static str,
        about: &'static str,
    ) -> T
    where
        T: TryFrom<u64> + Default,
    {
        let spec = whole_spec(name, &range, default, about);
        self.value(&spec, |node| whole_of(node, &range))
    }

    /// A whole number that must be given.
    pub fn whole_required<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        about: &'static str,
    ) -> T
    where
        T: TryFrom<u64> + Default,
    {
        self.whole(name, range, "", about)
    }

    /// A whole number or `null`.
    pub fn whole_or_null<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: &'static str,
        about: &'static str,
    ) -> Option<T>
    where
        T: TryFrom<u64> + Default,
    {
        let spec = Spec { nullable: true, ..whole_spec(name, &range, default, about) };
        self.value(&spec, |node| match node.value {
            Value::Null => Ok(None),
            _ => whole_of(node, &range).map(Some),
        })
    }

    /// A duration within bounds, all three as they are written.
    pub fn duration(
        &mut self,
        name: &'static str,
        (min, max): (&'static str, &'static str),
        default: &'static str,
        about: &'static str,
    ) -> Duration {
        let spec = Spec::new(name, Shape::Duration { min, max }, default, about);
        self.value(&spec, |node| duration_of(node, min, max))
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
        self.value(&spec, |node| match node.value {
            Value::Null => Ok(None),
            _ => duration_of(node, min, max).map(Some),
        })
    }

    /// `true` or `false`.
    pub fn bool(&mut self, name: &'static str, default: &'static str, about: &'static str) -> bool {
        let spec = Spec::new(name, Shape::Bool, default, about);
        self.value(&spec, |node| match node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(None),
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
        let spec = Spec::new(name, shape.clone(), default, about);
        self.value(&spec, |node| {
            let Value::Text(text) = &node.value else { return Err(None) };
            if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
                return Ok(Some(*value));
            }
            let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
            Err(Some(format!("must be {shape}; found {}{hint}", node.describe(true))))
        })
    }

    /// An object below this one; a missing one reads as an empty one.
    pub fn section(&mut self, name: &'static str, about: &'static str) -> Section<'_> {
        let node = self.section_node(Spec::new(name, Shape::Section, "{}", about));
        self.open_at(name, node)
    }

    /// The same; `None`: it is `null`.
    pub fn section_or_null(&mut self, name: &'static str, about: &'static str) -> Option<Section<'_>> {
        let node = self.section_node(Spec::new(name, Shape::Section, "{}", about).or_null());
        self.report.note_section(self.path_of(name), &node);
        (!matches!(node.value, Value::Null)).then(|| self.open_at(name, node))
    }

    /// An object below this one, if there is one; a missing one reads as `null`.
    pub fn section_if_given(&mut self, name: &'static str, about: &'static str) -> Option<Section<'_>> {
        self.declare(&Spec::new(name, Shape::Section, "null", about).or_null());
        let node = self.take(name)?.settled();
        self.report.note_section(self.path_of(name), &node);
        (!matches!(node.value, Value::Null)).then(|| self.open_at(name, node))
    }

    fn section_node(&mut self, spec: Spec) -> Node {
        self.declare(&spec);
        self.take(spec.name).unwrap_or_else(|| Node::new(self.origin(), Value::Object(Vec::new()))).settled()
    }

    /// An object that was taken out of this one; the name may be that of a list's element.
    pub fn open_at(&mut self, name: &str, node: Node) -> Section<'_> {
        let path = self.path_of(name);
        Section::open(self.report, path, node)
    }

    /// Reports what nobody asked for.
    pub fn end(self) {
        for member in self.members {
            let prefix = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
            for origin in sources(&member) {
                self.report.unknown.push(Unknown {
                    origin,
                    path: format!("{prefix}{}", member.name),
                    name: member.name.clone(),
                    siblings: self.known.clone(),
                });
            }
        }
    }
}

/// Who gave an unknown key: several variables may have put values below it.
fn sources(member: &Member) -> Vec<FaultOrigin> {
    fn collect(node: &Node, found: &mut Vec<FaultOrigin>) {
        match &node.value {
            Value::Object(members) => members.iter().for_each(|member| collect(&member.node, found)),
            _ if matches!(node.origin, FaultOrigin::Variable(_)) && !found.contains(&node.origin) => {
                found.push(node.origin.clone());
            }
            _ => {}
        }
    }
    if !matches!(member.origin, FaultOrigin::Variable(_)) {
        return vec![member.origin.clone()];
    }
    let mut found = Vec::new();
    collect(&member.node, &mut found);
    if found.is_empty() { vec![member.origin.clone()] } else { found }
}
