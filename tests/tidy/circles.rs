//! No circles between files: no module uses itself by way of other modules in its folder. A module and its own children may
//! use each other. Unit tests and programs (`src/bin`, `src/main.rs`) do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{ROOMS, code, files, none, root, shown};

/// Which modules use which within a folder, and where: `"src/api"` → `"ops"` → `"v1"` → `"src/api/ops.rs:9"`.
type Folders = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// A module, or an item in it, as its path from the root of its crate.
type Module = Vec<String>;

/// The files of a crate that count, by their modules.
type Modules = BTreeMap<Module, File>;

struct File {
    path: PathBuf,
    /// Names that it takes from other modules, by which others can take them from it.
    takes: BTreeMap<String, Module>,
}

/// Every path in a file that begins with one of these words, with its line.
pub(super) fn uses(file: &Path, words: &[&str]) -> Vec<(usize, Module)> {
    let lines = code(file);
    let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for word in words {
        for (at, _) in text.match_indices(word).filter(|(at, _)| !text[..*at].ends_with(is_name)) {
            let line = lines[text[..at].matches('\n').count()].0;
            let rest = text[at..].strip_prefix("use ").unwrap_or(&text[at..]);
            found.extend(paths(rest).into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// The paths in a text of code: `a::{b::C, d}` is `a::b::C` and `a::d`.
fn paths(text: &str) -> Vec<Module> {
    let text = text.trim_start();
    if let Some(inner) = text.strip_prefix('{') {
        return items(inner).into_iter().flat_map(paths).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let behind = match rest.strip_prefix("::") {
        Some(rest) => paths(rest),
        None => vec![Vec::new()],
    };
    behind.into_iter().map(|path| [vec![name.to_owned()], path].concat()).collect()
}

/// The items between the commas of `a, b::{c, d}, e}`, up to the brace that closes the list.
fn items(inner: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(&inner[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|item| !item.trim().is_empty());
    found
}

/// A path that is written in a module, from the root of its crate.
fn from_root(module: &[String], path: &[String]) -> Module {
    let up = path.iter().take_while(|name| *name == "super").count();
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => [module, &path[1..]].concat(),
        _ => [&module[..module.len().saturating_sub(up)], &path[up..]].concat(),
    }
}

/// The module that declares what a path names; modules that only pass it on are skipped.
fn home(modules: &Modules, path: &[String]) -> Module {
    let is_module = |length: &usize| modules.contains_key(&path[..*length]);
    let (module, name) = path.split_at((0..=path.len()).rev().find(is_module).unwrap_or(0));
    let taken =
        name.first().and_then(|name| modules.get(module)?.takes.get(name)).filter(|from| *from != path);
    taken.map_or_else(|| module.to_vec(), |from| home(modules, from))
}

fn modules(source: &str) -> Modules {
    let left_out = ["src/bin/", "src/main.rs"];
    let is_test = |name: &String| name == "tests" || name.ends_with("_tests");
    let of = |path: PathBuf| {
        let inside = path.strip_prefix(root().join(source)).expect("below the source").with_extension("");
        let mut module: Module = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        module.pop_if(|name| name == "mod" || name == "lib");
        let taken = uses(&path, &["use "]).into_iter().map(|(_, used)| from_root(&module, &used));
        let named = taken.filter_map(|used| Some((used.last()?.clone(), used)));
        let takes = named.filter(|(name, _)| !name.is_empty()).collect();
        (module, File { path, takes })
    };
    files(source, ".rs")
        .into_iter()
        .filter(|path| !left_out.iter().any(|name| shown(path).starts_with(name)))
        .map(of)
        .filter(|(module, _)| !module.iter().any(is_test))
        .collect()
}

/// Which modules use which, folder by folder. When one module uses another, the two files or folders count at which their
/// paths part.
fn folders() -> Folders {
    let mut folders = Folders::new();
    let crates = fs::read_dir(root().join("crates")).expect("the crates").flatten();
    let crates = crates.map(|entry| format!("crates/{}/src", entry.file_name().display()));
    for source in crates.chain(["src".to_owned()]) {
        let modules = modules(&source);
        for (module, File { path, .. }) in &modules {
            let text = fs::read_to_string(path).expect("a readable file");
            let tests = text.lines().position(|line| line.starts_with("mod tests {")).unwrap_or(usize::MAX);
            let uses = uses(path, &["crate::", "super::"]).into_iter().filter(|(line, _)| *line <= tests);
            for (line, used) in uses {
                let used = home(&modules, &from_root(module, &used));
                let parting = module.iter().zip(&used).take_while(|(one, other)| one == other).count();
                if let (Some(one), Some(other)) = (module.get(parting), used.get(parting)) {
                    let folder = format!("{source}/{}", module[..parting].join("/"));
                    let uses = folders.entry(folder).or_default().entry(one.clone()).or_default();
                    uses.entry(other.clone()).or_insert(format!("{}:{line}", shown(path)));
                }
            }
        }
    }
    folders
}

/// Whether `from` leads to `to` in the graph.
fn leads<T>(graph: &BTreeMap<String, BTreeMap<String, T>>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        let next = graph.get(at).into_iter().flat_map(BTreeMap::keys).map(String::as_str);
        open.extend(next.filter(|next| seen.insert(next)));
    }
    false
}

#[test]
fn no_file_uses_itself_by_way_of_others() {
    let mut found = Vec::new();
    for graph in folders().into_values() {
        for (one, uses) in &graph {
            for (other, place) in uses.iter().filter(|(other, _)| leads(&graph, other, one)) {
                found.push(format!("{place}: {one} uses {other}"));
            }
        }
    }
    none("files use each other", &found);
}

#[test]
fn rooms_may_not_use_each_other() {
    let others = |room: &str, allowed: &[&str]| {
        allowed.iter().filter(|other| **other != room).map(|other| ((*other).to_owned(), ())).collect()
    };
    let rooms = ROOMS.iter().filter(|(_, allowed)| !allowed.contains(&"*"));
    let graph: BTreeMap<String, BTreeMap<String, ()>> =
        rooms.map(|(room, allowed)| ((*room).to_owned(), others(room, allowed))).collect();
    let found: Vec<String> = graph
        .iter()
        .flat_map(|(one, uses)| uses.keys().map(move |other| (one, other)))
        .filter(|(one, other)| leads(&graph, other, one))
        .map(|(one, other)| format!("{one} may use {other}"))
        .collect();
    none("rooms may use each other", &found);
}

#[test]
fn uses_are_read_as_the_compiler_reads_them() {
    let cases = [
        ("crate::store::cache::Cache;", vec!["crate::store::cache::Cache"]),
        ("crate::error;", vec!["crate::error"]),
        (
            "crate::{store::cache::{A, B}, error};",
            vec!["crate::store::cache::A", "crate::store::cache::B", "crate::error"],
        ),
        (
            "super::super::proxy::{\n  exchange::{a, b},\n  admit,\n};",
            vec![
                "super::super::proxy::exchange::a",
                "super::super::proxy::exchange::b",
                "super::super::proxy::admit",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(paths(text).iter().map(|path| path.join("::")).collect::<Vec<_>>(), expected, "{text}");
    }
    let module = ["a".to_owned(), "b".to_owned()];
    let read = |path: &str| from_root(&module, &paths(path)[0]).join("::");
    assert_eq!([read("crate::x"), read("super::x"), read("super::super::x")], ["x", "a::x", "x"]);
}
