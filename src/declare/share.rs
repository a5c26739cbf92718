//! Keys whose values are shares of something.

use super::fault::Parsed;
use super::keys::{Shape, Spec};
use super::section::Section;
use super::tree::{Node, Value};

impl Section<'_> {
    /// A share from 0 to 1.
    pub fn share(&mut self, name: &'static str, default: &'static str, about: &'static str) -> f64 {
        let spec = Spec::new(name, Shape::Number("a number from 0 to 1, such as 0.5"), default, about);
        self.value(&spec, share_of)
    }

    /// A share above 0, or `null`.
    pub fn share_or_null(
        &mut self,
        name: &'static str,
        default: &'static str,
        about: &'static str,
    ) -> Option<f64> {
        let shape = Shape::Number("a number above 0 and at most 1, such as 0.5");
        self.value(&Spec::new(name, shape, default, about).or_null(), |node| match node.value {
            Value::Null => Ok(None),
            _ => share_of(node).and_then(|share| if share > 0.0 { Ok(Some(share)) } else { Err(None) }),
        })
    }
}

fn share_of(node: &Node) -> Parsed<f64> {
    let Value::Number(text) = &node.value else { return Err(None) };
    text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or(None)
}
