//! Rules that no compiler checks: which room may use which, how long files may be, which words may not occur. A rule that
//! is broken names the file and the line.

#![forbid(unsafe_code)]

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/waits.rs"]
mod waits;
#[path = "tidy/way.rs"]
mod way;

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines that a file may have, its unit tests included.
const MAX_LINES: usize = 400;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// Which room may use which: a room (or file) under `src`, and the rooms that it may name by `crate::`. The first row whose
/// prefix fits counts. Every room may use the [`NEUTRAL`] ones. Cargo sees to it that the libraries of `crates/` use none
/// of these, and of each other only what they may.
const ROOMS: &[(&str, &[&str])] = &[
    ("main.rs", &["*"]),
    ("lib.rs", &["*"]),
    ("bin", &["*"]),
    ("app", &["*"]),
    ("api", &["api", "store", "proxy", "log", "metrics", "tls", "budget", "history", "declare"]),
    ("budget", &["budget", "store"]),
    ("cli", &["cli", "tls"]),
    ("clock.rs", &[]),
    ("config", &["config", "declare", "tls"]),
    ("declare", &["declare"]),
    ("engine", &["engine", "proxy", "tls"]),
    ("error.rs", &[]),
    ("files.rs", &[]),
    ("history", &["history", "metrics"]),
    ("log", &["log"]),
    ("metrics", &["metrics"]),
    ("otel", &["otel", "log", "metrics", "tls"]),
    ("proxy", &["proxy", "store", "log", "metrics", "otel"]),
    ("store", &["store", "metrics", "tls"]),
    ("timed.rs", &[]),
    ("tls", &["tls"]),
    ("upstream", &["upstream", "tls"]),
];

/// What every room may use.
const NEUTRAL: &[&str] = &["error", "clock", "config", "files", "timed"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose names end like that, sorted, without build products.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, ending, found);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    found
}

/// A path from the root of the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The lines of a file with their numbers, without comments and blank lines. Good enough for code that rustfmt wrote.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a readable file");
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

#[track_caller]
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn rooms_use_what_they_may() {
    let mut found = Vec::new();
    for file in files("src", ".rs") {
        let inside = file.strip_prefix(root().join("src")).expect("below src").display().to_string();
        let Some((_, allowed)) = ROOMS.iter().find(|(prefix, _)| inside.starts_with(prefix)) else {
            found.push(format!("{}: no row of ROOMS in tests/tidy.rs says what it may use", shown(&file)));
            continue;
        };
        for (line, path) in circles::uses(&file, &["crate::"]) {
            let used = &path[1];
            if !NEUTRAL.iter().chain(*allowed).any(|name| *name == "*" || *name == used) {
                found.push(format!("{}:{line}: uses crate::{used}", shown(&file)));
            }
        }
    }
    none("a room uses what it may not", &found);
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for path in ["src", "crates", "tests", "benches", "fuzz"].iter().flat_map(|folder| files(folder, ".rs")) {
        let name = shown(&path);
        let lines = fs::read_to_string(&path).expect("a readable file").lines().count();
        if lines > MAX_LINES && !LONGER.iter().any(|(longer, _)| *longer == name) {
            found.push(format!("{name}: {lines} lines, {MAX_LINES} are allowed"));
        }
    }
    for (longer, reason) in LONGER {
        let lines = fs::read_to_string(root().join(longer)).unwrap_or_default().lines().count();
        if lines <= MAX_LINES || reason.is_empty() {
            found.push(format!("{longer}: needs no exception, or has no reason"));
        }
    }
    none("a file is too long", &found);
}

/// Words that may not occur in `src` and `crates`, except in the files named, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["src/clock.rs", "crates/pool/src/queue/tests.rs"], "time is read in clock.rs"),
    ("SystemTime::now", &["src/clock.rs"], "time is read in clock.rs"),
    ("process::exit", &["src/main.rs"], "only main ends the process"),
    ("process::abort", &[], "only main ends the process"),
    ("todo!", &[], "nothing is left for later in code"),
    ("unimplemented!", &[], "nothing is left for later in code"),
    ("dbg!", &[], "a trace of debugging"),
    ("thread_rng", &[], "randomness is fastrand's"),
];

/// Words that may not occur in `crates` either, since the libraries touch no file and no socket.
const IMPURE: &[&str] =
    &["std::fs", "std::io::Read", "File::", "TcpStream", "TcpListener", "UdpSocket", "thread::sleep"];

#[test]
fn libraries_touch_nothing() {
    let mut found = Vec::new();
    for path in files("crates", ".rs").into_iter().filter(|path| !shown(path).contains("tests")) {
        for (line, text) in code(&path) {
            found.extend(
                IMPURE
                    .iter()
                    .filter(|word| text.contains(**word))
                    .map(|word| format!("{}:{line}: {word}", shown(&path))),
            );
        }
    }
    none("a library touches the world", &found);
}

#[test]
fn forbidden_words_stand_nowhere() {
    let mut found = Vec::new();
    for path in ["src", "crates"].iter().flat_map(|folder| files(folder, ".rs")) {
        let name = shown(&path);
        for (line, text) in code(&path) {
            for (word, allowed, why) in FORBIDDEN {
                if text.contains(word) && !allowed.contains(&name.as_str()) {
                    found.push(format!("{name}:{line}: {word}: {why}"));
                }
            }
        }
        let text = fs::read_to_string(&path).expect("a readable file");
        for (at, line) in text.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX", "HACK"] {
                let comment = line.split_once("//").map_or("", |(_, comment)| comment);
                if comment.split(|c: char| !c.is_alphanumeric()).any(|said| said == word) {
                    found.push(format!("{name}:{}: {word}", at + 1));
                }
            }
        }
    }
    none("words that may not stand there", &found);
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let mut roots =
        vec![root().join("src/lib.rs"), root().join("src/main.rs"), root().join("tests/it/main.rs")];
    roots.extend(
        ["tests/tidy.rs", "tests/allocations.rs", "tests/fuzz.rs", "tests/differential/main.rs"]
            .map(|name| root().join(name)),
    );
    roots.extend(files("crates", "lib.rs"));
    roots.extend(
        files("src/bin", ".rs").into_iter().filter(|path| path.parent().is_some_and(|p| p.ends_with("bin"))),
    );
    roots.extend(
        files("benches", ".rs")
            .into_iter()
            .filter(|path| path.parent().is_some_and(|p| p.ends_with("benches"))),
    );
    let missing: Vec<String> = roots
        .iter()
        .filter(|path| !fs::read_to_string(path).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]")))
        .map(|path| shown(path))
        .collect();
    none("no #![forbid(unsafe_code)] in", &missing);
}

/// Packages that the product has to use.
const ORDERED: &[&str] = &[
    "tiny_http",
    "ureq",
    "postgres",
    "r2d2",
    "r2d2_postgres",
    "serde",
    "serde_json",
    "crossbeam_channel",
    "parking_lot",
    "log",
    "simplelog",
];

#[test]
fn no_ordered_package_is_a_dead_dependency() {
    let sources: Vec<String> = files("src", ".rs")
        .iter()
        .filter(|path| !path.iter().any(|part| part == "tests" || part == "bin" || part == "tests.rs"))
        .map(|path| code(path).into_iter().map(|(_, line)| line + "\n").collect::<String>())
        .map(|text| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned())
        .collect();
    let uses = |text: &str, name: &str| {
        let path = format!("{name}::");
        text.match_indices(&path).any(|(at, _)| {
            !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
        })
    };
    let dead: Vec<String> = ORDERED
        .iter()
        .filter(|name| !sources.iter().any(|text| uses(text, name)))
        .map(|name| (*name).to_owned())
        .collect();
    none("packages that no source uses", &dead);
}

#[test]
fn nothing_is_a_manager() {
    let mut found = Vec::new();
    for path in ["src", "crates"].iter().flat_map(|folder| files(folder, ".rs")) {
        for (line, text) in code(&path) {
            let mut words = text.split_whitespace();
            let defines = words.any(|word| matches!(word, "struct" | "enum" | "trait" | "mod"));
            let name = words.next().unwrap_or_default();
            if defines && ["Manager", "Helper", "Util", "helper", "util"].iter().any(|bad| name.contains(bad))
            {
                found.push(format!("{}:{line}: {name}", shown(&path)));
            }
        }
    }
    none("names that say nothing", &found);
}

/// Words of a page that look like the names of files of the repository: `` `./run.sh` ``, `](docs/x.md)`.
fn named_files(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for word in quoted.chain(linked).flat_map(str::split_whitespace) {
        let word = word.trim_start_matches("./").split('#').next().unwrap_or_default();
        let folders = ["src/", "crates/", "tests/", "benches/", "sql/", "docs/", "deploy/", "fuzz/", ".ci/"];
        let top = [
            "run.sh",
            "Dockerfile",
            "docker-compose.yml",
            "deny.toml",
            "clippy.toml",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
        ];
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "./_-".contains(c));
        if plain && (top.contains(&word) || folders.iter().any(|folder| word.starts_with(folder))) {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn pages_name_files_that_exist() {
    let mut found = Vec::new();
    for path in files("", ".md") {
        let text = fs::read_to_string(&path).expect("a readable file");
        for name in named_files(&text) {
            if !root().join(&name).exists() {
                found.push(format!("{}: {name}", shown(&path)));
            }
        }
    }
    none("a page names a file that is not there", &found);
}

#[test]
fn the_papers_are_there() {
    let papers = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "Dockerfile",
        "docker-compose.yml",
        "run.sh",
        "config.json",
        "deny.toml",
        "sql/postgres",
        "sql/sqlite",
        ".ci/run",
    ];
    let license = root().join("LICENSE").exists();
    let missing: Vec<String> = papers
        .iter()
        .filter(|name| !license || !name.starts_with("LICENSE"))
        .filter(|name| !root().join(name).exists())
        .map(|&name| name.to_owned())
        .collect();
    none("missing", &missing);
}

#[test]
fn migrations_are_numbered_without_gaps_and_alike_in_both_stores() {
    let names = |folder: &str| -> Vec<String> {
        let names = files(folder, ".sql");
        names.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    };
    let (postgres, sqlite) = (names("sql/postgres"), names("sql/sqlite"));
    assert_eq!(postgres, sqlite, "each store has the same steps");
    for (at, name) in postgres.iter().enumerate() {
        let digits: String =
            name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        assert_eq!(digits.parse(), Ok(at + 1), "{name} is out of order");
    }
}
