//! What is wrong with what was read, and where.

/// Where a value came from. Faults are sorted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultOrigin {
    /// A line of the file, from 1.
    Line(usize),
    /// The file, or the body of a call, as a whole.
    Whole,
    /// An environment variable.
    Variable(String),
    /// An option of the command line: `--listen`.
    Flag(&'static str),
}

/// A value, or why it is none: `None` when "must be …" says it all.
pub type Parsed<T> = Result<T, Option<String>>;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the value was given.
    pub origin: FaultOrigin,
    /// The key: `backends[0].url`, or `/buckets/0/per` in a body; empty when the fault is of no single key.
    pub path: String,
    /// What is wrong and what is allowed. Never holds a secret.
    pub text: String,
}

/// A name as a part of a JSON pointer, with its slash; alone, the pointer of a top-level member (RFC 6901 §3).
pub fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The known word that is nearest to a mistyped one. Up to one slip is allowed, and one more for each four letters of
/// the shorter word.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No known word is longer; comparing a longer one would take time and memory.
    const MAX_WORD_BYTES: usize = 128;
    if word.len() > MAX_WORD_BYTES {
        return None;
    }
    let (chars, lower) = (word.chars().count(), word.to_ascii_lowercase());
    let most = |one: &str| 1 + one.len().min(word.len()) / 4;
    known
        .into_iter()
        // The distance is at least the difference of the lengths.
        .filter(|one| one.chars().count().abs_diff(chars) <= most(one))
        .map(|one| (strsim::damerau_levenshtein(&lower, &one.to_ascii_lowercase()), one))
        .filter(|(distance, one)| *distance <= most(one))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, one)| one)
}

/// `; did you mean "x"?`, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|one| format!("; did you mean {one:?}?")).unwrap_or_default()
}
