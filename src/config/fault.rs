//! What is wrong with a configuration, and where: every fault at once, in words that say what is allowed.

use std::fmt;

/// Where a value came from. In the order that faults are told in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultOrigin {
    /// A line of the file, from 1.
    Line(usize),
    /// The file as a whole: it could not be read.
    File,
    /// An environment variable.
    Variable(String),
    /// An option of the command line: `--listen`.
    Flag(&'static str),
}

/// A value, or why it is none: `None` when "must be …" says it all.
pub(super) type Parsed<T> = Result<T, Option<String>>;

/// One fault. Displays without the file's name; [`Faults`] puts that in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub origin: FaultOrigin,
    /// The key: `backends[0].url`; empty when the fault is of no single key.
    pub path: String,
    /// What is wrong and what is allowed. Never holds a secret.
    pub text: String,
}

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
        Self::new(file, vec![Fault { origin: FaultOrigin::File, path: String::new(), text }])
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
                FaultOrigin::File => self.file.clone(),
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

/// The known word that a mistyped one is nearest to: one slip in a short word, one more for each four letters.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|one| (strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &one.to_ascii_lowercase()), one))
        .filter(|(distance, one)| *distance <= 1 + one.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, one)| one)
}

/// `; did you mean "x"?`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|one| format!("; did you mean {one:?}?")).unwrap_or_default()
}
