//! Lists of objects, each with keys of its own.

use super::json::{Node, Value};
use super::keys::{Report, Shape, Spec};
use super::section::Section;

impl Section<'_> {
    /// A list of at most `max` objects; a missing one reads as an empty one. Without any element the keys of one are
    /// declared all the same.
    pub fn objects<T>(
        &mut self,
        spec: (&'static str, &'static str, &'static str),
        max: usize,
        mut each: impl FnMut(Section<'_>) -> T,
    ) -> Vec<T> {
        let (name, shape, about) = spec;
        let spec = Spec::new(name, Shape::Other(shape), "[]", about);
        let nodes: Vec<Node> = self.value(&spec, |node| match &node.value {
            Value::List(nodes) if nodes.len() <= max => Ok(nodes.clone()),
            _ => Err(None),
        });
        if nodes.is_empty() {
            // Nothing is missing in what is no object, and whatever else is wrong with it is nobody's fault.
            let mut apart = Report::default();
            let path = self.path_of(&format!("{name}[0]"));
            each(Section::open(&mut apart, path, Node::new(self.origin(), Value::Null)));
            self.declared(apart.keys);
        }
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            values.push(each(self.open_at(&format!("{name}[{index}]"), node)));
        }
        values
    }
}
