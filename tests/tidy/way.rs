//! ARCHITECTURE.md tells a request's way by the functions' names: each is where it says.

use std::fs;
use std::path::{Path, PathBuf};

use super::{files, none, root, shown};

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names such as `Loop::accept` and `store::postgres::notify`: where to look, and for what.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |word: &&str| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            && !word.ends_with("::function")
    };
    quoted(text).filter(is_name).filter_map(|word| {
        let (path, name) = word.rsplit_once("::")?;
        Some((path.rsplit("::").next().unwrap_or(path), name))
    })
}

/// The files that a step names in its end.
fn named_files(step: &str) -> Vec<PathBuf> {
    let path = |word: &str| word.ends_with(".rs").then(|| root().join(word));
    let Some((_, last)) = step.rsplit_once("*(") else { return Vec::new() };
    quoted(last).filter_map(path).collect()
}

/// Whether a line declares that: a function, a type, a module.
fn declares(line: &str, name: &str) -> bool {
    let words: Vec<_> = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let kinds = ["fn", "struct", "enum", "trait", "mod", "type"];
    words.windows(2).any(|pair| kinds.contains(&pair[0]) && pair[1] == name)
}

/// Whether a type's block (`impl`, `trait`, `enum`) in that text has that function or variant.
fn has_in_type(text: &str, of: &str, name: &str) -> bool {
    let begins = |line: &str| {
        let is_block = ["impl", "trait ", "enum "].iter().any(|kind| {
            line.trim_start_matches("pub ").trim_start_matches("pub(super) ").starts_with(kind)
                || line.starts_with("pub(") && line.contains(kind)
        });
        let head = line.rsplit_once(" for ").map_or(line, |(_, head)| head);
        is_block && head.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == of)
    };
    let mut inside = false;
    for line in text.lines() {
        inside = if line.starts_with(char::is_whitespace) || line.is_empty() {
            inside
        } else {
            begins(line) || (inside && !line.starts_with('}'))
        };
        let is_variant = || {
            let line = line.strip_prefix("    ").unwrap_or_default();
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', ',', ' ']))
        };
        if inside && (declares(line, name) || is_variant()) {
            return true;
        }
    }
    false
}

/// Whether that file has the name: in a block of the type, or, where a module is named, in a file of it or as one.
fn has(path: &Path, of: &str, name: &str) -> bool {
    let text = fs::read_to_string(path).expect("a file that ARCHITECTURE.md names");
    if of.starts_with(char::is_uppercase) {
        return has_in_type(&text, of, name);
    }
    let inside = path.with_extension("");
    let is_of = inside.iter().any(|part| part == of);
    is_of
        && (text.lines().any(|line| declares(line, name))
            || inside.file_name().is_some_and(|stem| stem == name))
}

#[test]
fn every_name_of_the_architecture_is_where_it_says() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = |heading: &str| {
        let (_, rest) = text.split_once(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no {heading}"));
        rest.split("\n## ").next().unwrap_or_default()
    };
    let told =
        ["A request's way", "A change's way", "What instances tell each other"].map(section).join("\n\n");
    let all: Vec<_> = ["src", "crates"].iter().flat_map(|folder| files(folder, ".rs")).collect();
    let (mut found, mut looked) = (Vec::new(), 0);
    // A step of the way is an item of a list; everything else is a paragraph.
    let lines = told.lines().map(|line| {
        let is_step = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        if is_step { format!("\n\n{line}\n") } else { format!("{line}\n") }
    });
    for step in lines.collect::<String>().split("\n\n") {
        let named = named_files(step);
        found.extend(
            named.iter().filter(|path| !path.is_file()).map(|path| format!("{}: no such file", shown(path))),
        );
        let places: Vec<_> = if named.is_empty() {
            all.iter().collect()
        } else {
            named.iter().filter(|path| path.is_file()).collect()
        };
        for (of, name) in names(step) {
            looked += 1;
            if !places.iter().any(|path| has(path, of, name)) {
                found.push(format!("{of}::{name}"));
            }
        }
    }
    assert!(looked > 90, "{looked} names were looked for");
    none("a name of ARCHITECTURE.md that is not where it says", &found);
}
