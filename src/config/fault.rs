//! What is wrong with a configuration, and where: every fault at once, in words that say what is allowed.

use std::fmt;

use crate::declare::{Fault, FaultOrigin};

/// Every fault of one configuration, the file's first and in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    file: String,
    list: Vec<Fault>,
}

impl Faults {
    /// Faults of the file with that name (as the user wrote it).
    pub(super) fn new(file: impl Into<String>, mut list: Vec<Fault>) -> Self {
        list.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self { file: file.into(), list }
    }

    /// A single fault of the whole file.
    pub(super) fn of_file(file: impl Into<String>, text: String) -> Self {
        Self::new(file, vec![Fault { origin: FaultOrigin::Whole, path: String::new(), text }])
    }

    /// The faults, at least one.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// One line a fault: `FILE:LINE: a.b[0].c: text`, or the variable or option in place of `FILE:LINE`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|Fault { origin, path, text }| {
            let place = match origin {
                FaultOrigin::Line(line) => format!("{}:{line}", self.file),
                FaultOrigin::Whole => self.file.clone(),
                FaultOrigin::Variable(name) => name.clone(),
                FaultOrigin::Flag(name) => (*name).to_owned(),
            };
            if path.is_empty() { format!("{place}: {text}") } else { format!("{place}: {path}: {text}") }
        })
    }
}

/// [`Faults::lines`], one below the other.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
