//! Pages: README is short, links lead somewhere, and for each page of `docs/` there is a test that runs something of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{files, none, root, shown};

/// The most lines that README may have.
const README_LINES: usize = 150;

/// Pages whose commands are run by a script and not by a test, each with its script, which the page has to name. The index
/// has none.
const BY_SCRIPT: &[(&str, &str)] = &[("docs/README.md", ""), ("docs/install.md", "deploy/try-packages.sh")];

/// The anchor by which a link names a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The lines of a page that are text: neither indented code nor inside a fenced block.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        if !fence && !fenced && !line.starts_with("    ") {
            kept += line;
            kept.push('\n');
        }
        fenced ^= fence;
    }
    kept
}

/// The targets of a page's links that stay in the repository: after `](` and in `src="`.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text);
    let behind = |mark: &'static str, end: char| {
        text.split(mark).skip(1).filter_map(move |rest| rest.split(end).next()).collect::<Vec<_>>()
    };
    let all = behind("](", ')').into_iter().chain(behind("src=\"", '"'));
    all.filter(|link| !link.contains("://") && !link.starts_with("mailto:")).map(str::to_owned).collect()
}

/// Why a link of a page leads nowhere; `None` when it leads somewhere.
fn dead(page: &Path, target: &str) -> Option<String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_path_buf() } else { page.parent()?.join(file) };
    if !path.exists() {
        return Some(format!("{target}: there is no such file"));
    }
    let text = if heading.is_empty() { return None } else { fs::read_to_string(&path).ok()? };
    let anchors: BTreeSet<_> =
        prose(&text).lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    (!anchors.contains(heading)).then(|| format!("{target}: there is no such heading"))
}

#[test]
fn readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("README.md").lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines: what is not for a first look belongs to docs/"
    );
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    // Files of `src` are the beginnings of generated pages; their links are checked in those pages.
    for path in files("", ".md").into_iter().filter(|path| !path.starts_with(root().join("src"))) {
        let text = fs::read_to_string(&path).expect("a readable file");
        let dead = targets(&text).into_iter().filter_map(|target| dead(&path, &target));
        found.extend(dead.map(|why| format!("{}: {why}", shown(&path))));
    }
    none("a dead link", &found);
}

#[test]
fn of_each_page_a_test_runs_something() {
    let tests: String = files("tests/it", ".rs")
        .iter()
        .map(|path| fs::read_to_string(path).expect("a readable file"))
        .collect();
    let index = fs::read_to_string(root().join("docs/README.md")).expect("the index");
    let mut found = Vec::new();
    for path in files("docs", ".md") {
        let (name, text) = (shown(&path), fs::read_to_string(&path).expect("a readable file"));
        let page = name.trim_start_matches("docs/");
        if page != "README.md" && !index.contains(&format!("]({page})")) {
            found.push(format!("{name}: docs/README.md does not name it"));
        }
        if let Some((_, script)) = BY_SCRIPT.iter().find(|(page, _)| *page == name) {
            if !text.contains(script) || !root().join(script).exists() {
                found.push(format!("{name}: does not say how {script} tries it"));
            }
            continue;
        }
        let marks: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("<!-- run: ")?.strip_suffix(" -->")).collect();
        let typed = text.lines().any(|line| line.starts_with("    $ "));
        if marks.is_empty() && !typed {
            found.push(format!("{name}: has neither a command (`    $ …`) nor a block that a test runs"));
        }
        // A test names its page once, by a literal: see tests/it/pages/by_page.rs.
        if !tests.contains(&format!("\"{page}\"")) {
            found.push(format!("{name}: no test follows it: add one to tests/it/pages/by_page.rs"));
        }
        for mark in marks.into_iter().filter(|mark| !tests.contains(&format!("\"{mark}\""))) {
            found.push(format!("{name}: no test takes the block {mark}"));
        }
    }
    none("a page that no test follows", &found);
}

#[test]
fn benchmarks_that_pages_name_are_there() {
    let mut found = Vec::new();
    for path in files("", ".md") {
        let text = fs::read_to_string(&path).expect("a readable file");
        // A line may end between the words.
        let words: Vec<_> = text.split_whitespace().collect();
        for at in words.windows(2).filter(|pair| pair[0] == "--bench") {
            let name: String = at[1].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !root().join(format!("benches/{name}.rs")).exists()
                && !root().join(format!("benches/{name}")).exists()
            {
                found.push(format!("{}: {name}", shown(&path)));
            }
        }
    }
    none("a page names a benchmark that is not there", &found);
}

#[test]
fn links_are_read_as_they_should_be() {
    assert_eq!(anchor("## One budget over all instances"), "one-budget-over-all-instances");
    assert_eq!(anchor("## `routes[].redirect`"), "routesredirect");
    let page =
        "a [b](c.md#d), <img src=\"e.png\">\n\n    [not](this)\n\n```\n[nor](that)\n```\n[web](https://x)";
    assert_eq!(targets(page), ["c.md#d", "e.png"]);
}
