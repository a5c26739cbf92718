//! Reads one object of the tree key by key. Each call that reads a key also declares it: its place, what is allowed,
//! its default and what it is for. So the checks, the messages, the schema and the reference of all keys come from the
//! same lines.

use super::fault::{Fault, FaultOrigin, Parsed, did_you_mean};
use super::report::{ReaderRules, Report, default_of};
use super::spec::{Shape, Spec};
use super::tree::{Member, Node, Value};

/// One object, being read.
pub struct Section<'r> {
    report: &'r mut Report,
    path: String,
    origin: FaultOrigin,
    members: Vec<Member>,
    above: Option<Above>,
    known: Vec<&'static str>,
    /// The value is no object. That was reported, so missing keys are not.
    broken: bool,
    /// How many faults there were when it was opened.
    begin: usize,
}

/// What an object inherits from another one, member by member, where it has no member of that name itself. Faults of
/// inherited members are reported at the other object; here they do not count as given, and no key is declared.
struct Above {
    path: String,
    members: Vec<Member>,
}

impl<'r> Section<'r> {
    /// The outermost object. If the node is no object, no missing key is reported.
    pub fn root(report: &'r mut Report, node: Node) -> Self {
        Self::open(report, String::new(), node, None)
    }

    fn open(report: &'r mut Report, path: String, node: Node, above: Option<Above>) -> Self {
        let begin = report.faults.len();
        let origin = node.origin.clone();
        let members = node.members();
        let broken = members.is_none();
        Self {
            report,
            path,
            origin,
            members: members.unwrap_or_default(),
            above,
            known: Vec::new(),
            broken,
            begin,
        }
    }

    /// The path of a key in this object.
    pub fn path_of(&self, place: &str) -> String {
        self.report.below(&self.path, place)
    }

    /// Reports a fault of a key of this object, or below one (`rules[2].name`), at the place where it was given. If the
    /// value is no object, nothing else is reported of it.
    pub fn fault(&mut self, place: &str, text: impl Into<String>) {
        if !self.broken && !self.is_said(place) {
            let origin = self.origin_at(place);
            let path = self.path_of(place);
            self.report.fault(origin, path, text);
        }
    }

    /// The same for an element of a list.
    pub(super) fn fault_of_element(&mut self, name: &str, index: usize, text: String) {
        let place = format!("{name}[{index}]");
        if !self.is_said(&place) {
            let (origin, path) = (self.origin_at(&place), self.report.element(&self.path_of(name), index));
            self.report.fault(origin, path, text);
        }
    }

    /// Reports a fault of a member of an object whose member names the user chooses.
    pub fn fault_of(&mut self, name: &str, member: &Member, text: impl Into<String>) {
        let path = self.report.below(&self.path_of(name), &member.name);
        self.report.fault(member.origin.clone(), path, text);
    }

    /// Whether a key is inherited and its fault is reported at the other object.
    fn is_said(&self, place: &str) -> bool {
        self.above.as_ref().is_some_and(|above| {
            !self.has(place.split(['.', '[']).next().unwrap_or(place))
                && self.report.has(&self.report.below(&above.path, place))
        })
    }

    /// Where a key was given, or else the nearest object above it.
    pub fn origin_at(&self, place: &str) -> FaultOrigin {
        let mut parts = place.split(['.', '[', ']']).filter(|part| !part.is_empty());
        let mut at = parts.next().and_then(|name| self.find(name));
        let mut origin = &self.origin;
        while let Some(node) = at {
            origin = &node.origin;
            at = parts.next().and_then(|part| node.part(part));
        }
        origin.clone()
    }

    /// Whether there is a key of that name, of any kind.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    /// Whether there is a key of that name that is a list or an object with something in it.
    pub fn has_parts(&self, name: &str) -> bool {
        self.get(name).is_some_and(|node| match node.settled().value {
            Value::List(elements) => !elements.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => false,
        })
    }

    /// Whether there is a key of that name that is not `null`.
    pub fn has_value(&self, name: &str) -> bool {
        self.get(name).is_some_and(|node| !matches!(node.settled().value, Value::Null))
    }

    /// The value of that name, own or inherited.
    pub fn get(&self, name: &str) -> Option<Node> {
        self.find(name).cloned()
    }

    fn find(&self, name: &str) -> Option<&Node> {
        let above = self.above.iter().flat_map(|above| &above.members);
        self.members.iter().chain(above).find(|member| member.name == name).map(|member| &member.node)
    }

    /// Whether a key of this object has a fault.
    pub fn faulty(&self, name: &str) -> bool {
        self.report.has(&self.path_of(name)) || self.is_said(name)
    }

    /// Whether nothing in this object has a fault, and nothing that it inherits.
    pub fn is_sound(&self) -> bool {
        let above = self.above.as_ref().map(|above| &above.path);
        let mut paths = above.into_iter().chain([&self.path]);
        // Behind the path comes the end, or a separator: `rules[1]` is not `rules[10]`, nor `tls` `tls_other`.
        let is_within = |path: &str, fault: &str| {
            fault
                .strip_prefix(path)
                .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[', '/']))
        };
        !paths.any(|path| self.report.faults.iter().any(|fault| is_within(path, &fault.path)))
    }

    /// Reports a key of earlier versions that has no successor; `was` says what it set.
    pub fn gone(&mut self, name: &str, was: &str) {
        if self.has(name) {
            self.fault(name, format!("is gone, and nothing replaces it: it was {was}; take it out"));
            self.members.retain(|member| member.name != name);
        }
    }

    /// Keys that other objects of its kind have. Here the caller refuses them with a message of its own.
    pub fn know(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    /// Declares a key without reading it.
    pub fn declare(&mut self, spec: &Spec) {
        self.known.push(spec.name);
        if self.above.is_none() {
            let path = self.path_of(spec.name);
            self.report.declare(&path, spec);
        }
    }

    fn note(&mut self, spec: &Spec, node: &Node) {
        if self.above.is_none() || self.has(spec.name) {
            let path = self.path_of(spec.name);
            self.report.note(spec, path, node, self.above.is_some());
        }
    }

    /// Reads a key of any form. After a fault, and if an optional key is left out, the result is `T::default()`.
    pub fn value<T: Default>(&mut self, spec: &Spec, parse: impl Fn(&Node) -> Parsed<T>) -> T {
        self.declare(spec);
        let Some(node) = self.get(spec.name) else {
            if spec.default.is_empty() {
                self.fault(spec.name, format!("is missing; must be {}", spec.shape));
            }
            // A default is read as a given value is. A test checks that each one is accepted.
            let default = default_of(spec).filter(|_| !self.broken);
            return default.and_then(|node| parse(&node).ok()).unwrap_or_default();
        };
        self.note(spec, &node);
        interpret(node, &parse).unwrap_or_else(|(found, why)| {
            let text = why.unwrap_or_else(|| {
                let or_null = if spec.nullable { " or null" } else { "" };
                format!("must be {}{or_null}; found {}", spec.shape, found.describe(!spec.secret))
            });
            self.fault(spec.name, text);
            T::default()
        })
    }

    /// An object below this one; a missing one reads as an empty one.
    pub fn section(&mut self, name: &'static str, about: &'static str) -> Section<'_> {
        let node = self.section_node(&Spec::new(name, Shape::Section, "{}", about));
        self.open_at(name, node)
    }

    /// The same; `None`: it is `null`.
    pub fn section_or_null(&mut self, name: &'static str, about: &'static str) -> Option<Section<'_>> {
        let node = self.section_node(&Spec::new(name, Shape::Section, "{}", about).or_null()).settled();
        self.note_section(name, &node);
        (!matches!(node.value, Value::Null)).then(|| self.open_at(name, node))
    }

    /// An object below this one; a missing one reads as `null`.
    pub fn section_if_given(&mut self, name: &'static str, about: &'static str) -> Option<Section<'_>> {
        self.declare(&Spec::new(name, Shape::Section, "null", about).or_null());
        let node = self.get(name)?.settled();
        self.note_section(name, &node);
        (!matches!(node.value, Value::Null)).then(|| self.open_at(name, node))
    }

    fn section_node(&mut self, spec: &Spec) -> Node {
        self.declare(spec);
        self.get(spec.name).unwrap_or_else(|| Node::empty(self.origin.clone()))
    }

    fn note_section(&mut self, name: &str, node: &Node) {
        if !self.broken && (self.above.is_none() || self.has(name)) {
            let path = self.path_of(name);
            self.report.note_section(path, node);
        }
    }

    /// An object below this one; it inherits where this one does.
    pub fn open_at(&mut self, place: &str, node: Node) -> Section<'_> {
        let node = node.settled();
        if !matches!(node.value, Value::Object(_)) {
            self.fault(place, format!("must be an object; found {}", node.describe(false)));
        }
        let mut own = node;
        let above = self.above.as_ref().map(|above| {
            let taken = above.members.iter().find(|member| member.name == place);
            let members = taken.and_then(|member| member.node.clone().members()).unwrap_or_default();
            if taken.is_some() && !self.has(place) {
                own = Node::empty(own.origin.clone());
            }
            Above { path: self.report.below(&above.path, place), members }
        });
        let path = self.path_of(place);
        Section::open(self.report, path, own, above)
    }

    /// The same for an object that inherits the members of those names from this one.
    pub fn open_over(&mut self, place: &str, node: Node, names: &[&str]) -> Section<'_> {
        let members = self.members.iter().filter(|member| names.contains(&member.name.as_str())).cloned();
        let above = Above { path: self.path.clone(), members: members.collect() };
        let section = self.open_at(place, node);
        Section { above: Some(above), ..section }
    }

    /// An element of a list.
    pub fn open_element(&mut self, name: &str, index: usize, node: Node) -> Section<'_> {
        let node = node.settled();
        let path = self.report.element(&self.path_of(name), index);
        if !matches!(node.value, Value::Object(_)) {
            let text = format!("must be an object; found {}", node.describe(false));
            self.report.fault(node.origin.clone(), path.clone(), text);
        }
        let above = self.above.is_some().then(|| Above { path: path.clone(), members: Vec::new() });
        Section::open(self.report, path, node, above)
    }

    /// Declares the keys of an object that was not given: reads `null` in its place and throws the faults away.
    pub(super) fn declare_keys<T>(&mut self, place: &str, read: impl FnOnce(Section<'_>) -> T) {
        if self.above.is_none() && self.report.keys.is_some() {
            let faults = self.report.faults.len();
            let path = self.path_of(place);
            read(Section::open(self.report, path, Node::new(self.origin.clone(), Value::Null), None));
            self.report.faults.truncate(faults);
        }
    }

    /// What a member is called, in messages.
    pub(super) fn noun(&self) -> &'static str {
        self.report.rules.noun
    }

    /// Reports members that no call has read, and names that are there twice.
    pub fn end(self) {
        let ReaderRules { noun, is_call, max_faults } = self.report.rules;
        // They go in front of this object's other faults, and what is beyond the bound is cut off: finding out more is
        // work for nothing, which a large body could ask for a million times.
        let room = max_faults.saturating_sub(self.begin);
        let mut faults = Vec::new();
        let mut seen: Vec<&Member> = Vec::new();
        for member in self.members.iter() {
            if faults.len() >= room {
                break;
            }
            let (name, path) = (member.name.as_str(), self.path_of(&member.name));
            if !self.known.contains(&name) {
                let mut text = format!("unknown {noun}{}", did_you_mean(name, self.known.iter().copied()));
                if is_call {
                    let known = self.known.join(", ");
                    text += &format!("; known here: {}", if known.is_empty() { "nothing" } else { &known });
                }
                let fault = |origin| Fault { origin, path: path.clone(), text: text.clone() };
                faults.extend(sources(member).into_iter().map(fault));
            } else if let Some(first) = seen.iter().find(|first| first.name == name) {
                let first = match &first.origin {
                    FaultOrigin::Line(line) => format!("it stands in line {line} already"),
                    _ => "it was given before".into(),
                };
                faults.push(Fault {
                    origin: member.origin.clone(),
                    path,
                    text: format!("doubled {noun}: {first}"),
                });
            } else {
                seen.push(member);
            }
        }
        self.report.insert(self.begin, faults);
    }
}

/// Reads a value. A variable's text counts as JSON if the key takes that, else as plain text; a JSON text in quotes is
/// never taken as plain text. The node in the error is the reading that was refused.
pub(super) fn interpret<T>(
    node: Node,
    parse: &impl Fn(&Node) -> Parsed<T>,
) -> Result<T, (Node, Option<String>)> {
    let Value::Raw(text) = &node.value else {
        let node = node.settled();
        return parse(&node).map_err(|why| (node, why));
    };
    let as_text = Node::new(node.origin.clone(), Value::Text(text.clone()));
    let Some(json) = node.raw_as_json() else { return parse(&as_text).map_err(|why| (as_text, why)) };
    match parse(&json) {
        Err(why) if matches!(json.value, Value::Text(_)) => Err((json, why)),
        Err(why) => parse(&as_text).map_err(|_| (json, why)),
        Ok(value) => Ok(value),
    }
}

/// Where an unknown key was given. Several variables may have set values below it.
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
