//! No two public types share a name, so that a search for a type finds one.

use std::collections::BTreeMap;
use std::fs;

use super::{files, none, shown};

/// Programs other than the balancer.
const LEFT_OUT: [&str; 1] = ["src/bin/"];

/// The name of the public type that a line declares.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    let (word, rest) = rest.trim_start().split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    ["struct", "enum", "trait", "type"].contains(&word).then_some(name)
}

#[test]
fn no_two_public_types_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in ["src", "crates"].iter().flat_map(|folder| files(folder, ".rs")) {
        let name = shown(&path);
        let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
        if is_test || LEFT_OUT.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a readable file");
        let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).enumerate();
        for (at, found) in lines.filter_map(|(at, line)| Some((at, declared(line)?))) {
            places.entry(found.to_owned()).or_default().push(format!("{name}:{}", at + 1));
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let found: Vec<String> = twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    none("public types share a name", &found);
}

#[test]
fn declarations_are_found() {
    let cases = [
        ("pub struct A<'a> {", Some("A")),
        ("pub(super) enum B {", Some("B")),
        ("    pub(in crate::api) trait C: D {", Some("C")),
        ("pub type E = u8;", Some("E")),
        ("pub fn f() {", None),
        ("struct G;", None),
    ];
    for (line, expected) in cases {
        assert_eq!(declared(line), expected, "{line}");
    }
}
