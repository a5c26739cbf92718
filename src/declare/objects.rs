//! Lists of objects, objects that may be missing, and objects whose member names the user chooses.

use super::section::Section;
use super::spec::{Shape, Spec};
use super::tree::{Member, Node, Value};

impl Section<'_> {
    /// A list of objects, as it was declared. The keys of an element are declared even if there is no element.
    pub fn objects<T>(&mut self, spec: &Spec, mut each: impl FnMut(Section<'_>) -> T) -> Vec<T> {
        let nodes = self.object_nodes(spec);
        if nodes.is_empty() && matches!(spec.shape, Shape::Objects { schema: None, .. }) {
            self.declare_keys(&format!("{}[0]", spec.name), &mut each);
        }
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            values.push(each(self.open_element(spec.name, index, node)));
        }
        values
    }

    /// The same; members of an element that `read` does not read are faults.
    pub fn each<T>(&mut self, spec: &Spec, mut read: impl FnMut(&mut Section<'_>) -> T) -> Vec<T> {
        self.objects(spec, |mut one| {
            let value = read(&mut one);
            one.end();
            value
        })
    }

    /// The elements of a list of objects, not read yet.
    pub fn object_nodes(&mut self, spec: &Spec) -> Vec<Node> {
        let Shape::Objects { min, max, .. } = spec.shape else { return Vec::new() };
        let elements = self.some(spec, |node| match &node.value {
            Value::List(nodes) if (min..=max).contains(&nodes.len()) => Ok(nodes.clone()),
            _ => Err(None),
        });
        elements.unwrap_or_default()
    }

    /// An object below this one; a missing one reads as `null`. Its keys are declared in both cases.
    pub fn section_of<T>(
        &mut self,
        name: &'static str,
        about: &'static str,
        read: impl FnOnce(Section<'_>) -> T,
    ) -> Option<T> {
        if self.has_value(name) {
            return self.section_if_given(name, about).map(read);
        }
        self.section_if_given(name, about);
        self.declare_keys(name, read);
        None
    }

    /// The members of an object whose member names the user chooses: at most `max`, each name once.
    pub fn entries(&mut self, spec: &Spec, max: usize) -> Vec<Member> {
        let all: Vec<Member> = self.value(spec, |node| match &node.value {
            Value::Null if spec.nullable => Ok(Vec::new()),
            Value::Object(members) if members.len() <= max => Ok(members.clone()),
            Value::Object(members) if members.len() > max => {
                Err(Some(format!("must have at most {max} members; found {}", members.len())))
            }
            _ => Err(None),
        });
        let mut entries: Vec<Member> = Vec::with_capacity(all.len());
        for member in all {
            if entries.iter().any(|other| other.name == member.name) {
                let text = format!("doubled {}: it was given before", self.noun());
                self.fault_of(spec.name, &member, text);
            } else {
                entries.push(member);
            }
        }
        entries
    }
}
