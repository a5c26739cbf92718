//! Lists of objects, each with keys of its own.

use std::ops::RangeInclusive;

use super::keys::{Report, Shape, Spec};
use super::section::Section;
use super::tree::{Node, Value};

impl Section<'_> {
    /// A list of so many objects; where there may be none, a missing one reads as an empty one. Without any element the
    /// keys of one are declared all the same.
    pub fn objects<T>(
        &mut self,
        spec: (&'static str, &'static str, &'static str),
        count: RangeInclusive<usize>,
        mut each: impl FnMut(Section<'_>) -> T,
    ) -> Vec<T> {
        let (name, shape, about) = spec;
        let default = if *count.start() == 0 { "[]" } else { "" };
        let spec = Spec::new(name, Shape::Other(shape), default, about);
        let nodes: Vec<Node> = self.value(&spec, |node| match &node.value {
            Value::List(nodes) if count.contains(&nodes.len()) => Ok(nodes.clone()),
            _ => Err(None),
        });
        if nodes.is_empty() {
            self.declare_keys(&format!("{name}[0]"), &mut each);
        }
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            values.push(each(self.open_at(&format!("{name}[{index}]"), node)));
        }
        values
    }

    /// An object below this one, if there is one; a missing one reads as `null`, and its keys are declared all the same.
    pub fn section_of<T>(
        &mut self,
        name: &'static str,
        about: &'static str,
        mut read: impl FnMut(Section<'_>) -> T,
    ) -> Option<T> {
        if let Some(section) = self.section_if_given(name, about) {
            return Some(read(section));
        }
        self.declare_keys(name, &mut read);
        None
    }

    /// Declares the keys of an object that is not there. Nothing is missing in what is no object, and whatever else is
    /// wrong with it is nobody's fault.
    fn declare_keys<T>(&mut self, name: &str, read: &mut impl FnMut(Section<'_>) -> T) {
        let mut apart = Report::default();
        let path = self.path_of(name);
        read(Section::open(&mut apart, path, Node::new(self.origin(), Value::Null)));
        self.declared(apart.keys);
    }
}
