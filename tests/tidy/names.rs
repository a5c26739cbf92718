//! No two public types share a name, so that a search for a type finds one.

use std::collections::BTreeMap;
use std::fs;

use super::{files, none, shown};

/// Rooms that are being written anew, and programs that are not the balancer; their types may still share a name.
const LEFT_OUT: [&str; 6] =
    ["src/app/", "src/bin/", "src/engine/", "src/proxy/", "src/store/cache/", "src/upstream/"];

/// Names that still stand for two things, since a room of [`LEFT_OUT`] uses one of them or the other is the configuration's.
const SHARED: [&str; 6] = ["Connector", "Origin", "Place", "Shown", "Terms", "Value"];

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
    let is_shared = |name: &str| SHARED.contains(&name);
    let twice = places.iter().filter(|(name, places)| places.len() > 1 && !is_shared(name));
    let found: Vec<String> = twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    none("public types share a name", &found);
    let stale = SHARED.iter().filter(|name| places.get(**name).is_none_or(|places| places.len() < 2));
    let stale: Vec<String> = stale.map(|name| (*name).to_owned()).collect();
    none("names of SHARED in tests/tidy/names.rs that nothing shares", &stale);
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
