//! What the program prints about itself: the reference and the schema of the configuration, completions, the manual page.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::balancer::PROGRAM;
use crate::support::{aloud, block, installed, root, skip};

fn balancer(args: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(args).output().expect("balancer starts");
    assert!(output.status.success(), "balancer {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_reference_in_docs_is_what_the_code_says() {
    let kept = std::fs::read_to_string(root().join("docs/configuration.md")).expect("docs/configuration.md");
    let made = balancer(&["config", "reference"]);
    assert!(kept == made, "make it again: cargo run -- config reference > docs/configuration.md");
}

/// A Python with the package `jsonschema`; `None`, said aloud, where there is none.
pub fn python() -> Option<String> {
    let named = std::env::var("BALANCER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = |output: std::io::Result<Output>| output.is_ok_and(|output| output.status.success());
    if has(Command::new(&named).args(["-c", "import jsonschema"]).output()) {
        return Some(named);
    }
    skip(
        "BALANCER_TEST_REQUIRE_PARSERS",
        &format!("{named} has no jsonschema"),
        "Python's jsonschema is not installed: the schema was not tried",
    );
    None
}

/// Whether another project's validator takes each configuration by the schema.
fn judge(python: &str, schema: &str, configurations: &[String]) -> Vec<bool> {
    const SCRIPT: &str = "import json, sys, jsonschema\n\
        schema, *files = map(json.loads, json.load(sys.stdin))\n\
        kind = jsonschema.validators.validator_for(schema)\n\
        kind.check_schema(schema)\n\
        for file in files: print(kind(schema).is_valid(file))\n";
    let texts = [schema].into_iter().chain(configurations.iter().map(String::as_str));
    let judged: Vec<bool> = run(python, SCRIPT, texts.collect()).lines().map(|line| line == "True").collect();
    assert_eq!(judged.len(), configurations.len());
    judged
}

/// What a script prints that is given these texts, as a list on its stdin: an argument may be too long.
fn run(python: &str, script: &str, texts: Vec<&str>) -> String {
    let mut command = Command::new(python);
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python");
    let stdin = child.stdin.take().expect("a pipe");
    serde_json::to_writer(stdin, &texts).expect("written");
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let Some(python) = python() else { return };
    let schema = balancer(&["config", "schema"]);
    let shipped = std::fs::read_to_string(root().join("config.json")).expect("config.json");
    let shipped: Value = serde_json::from_str(&shipped).expect("JSON");
    let with = |path: &str, value: Value| {
        let mut file = shipped.clone();
        let mut place = &mut file;
        for key in path.split('.') {
            place = match key.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[key],
            };
        }
        *place = value;
        file.to_string()
    };
    let cases = [
        (shipped.to_string(), true),
        (json!({ "backends": [{ "name": "a", "url": "http://b" }] }).to_string(), true),
        (with("$schema", json!("./balancer.schema.json")), true),
        (with("listen", json!(["127.0.0.1:1", "[::1]:1"])), true),
        (with("health_check", json!(null)), true),
        (with("rate_limit.default", json!("100/s")), true),
        (with("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0.5 })), true),
        (with("rate_limit.default", json!({ "buckets": [{ "name": "d", "amount": 9, "per": "1d" }] })), true),
        (with("rate_limit.rules", json!([{ "match": { "path": "/login" }, "limit": "5/m" }])), true),
        (with("rate_limit.rules", json!([{ "match": { "paht": "/login" }, "limit": "5/m" }])), false),
        (with("log.access", json!("file:access.log")), true),
        (with("frontend.head_timeout", json!("1m30s")), true),
        (with("balancing.sticky", json!({ "secret": "0123456789abcdef" })), true),
        (with("outlier", json!({ "ratio": null, "statuses": "500-599" })), true),
        (json!({}).to_string(), false),
        (json!({ "backends": [] }).to_string(), false),
        (with("backends.0.wieght", json!(1)), false),
        (with("backends.0.url", json!(9001)), false),
        (with("frontend.workers", json!(0)), false),
        (with("frontend.workers", json!("8")), false),
        (with("frontend.head_timeout", json!("10")), false),
        (with("frontend.head_timeout", json!("")), false),
        (with("balancing.strategy", json!("best")), false),
        (with("rate_limit.default", json!({ "rate": 1 })), false),
        (with("unknown", json!(1)), false),
    ];
    let files: Vec<String> = cases.iter().map(|(file, _)| file.clone()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    for ((file, valid), judged) in cases.iter().zip(judge(&python, &schema, &files)) {
        assert_eq!(judged, *valid, "by the schema: {file}");
        let path = folder.path().join("config.json");
        std::fs::write(&path, file).expect("written");
        let checked = Command::new(PROGRAM).args(["check", "--config"]).arg(&path).output().expect("check");
        assert_eq!(checked.status.success(), *valid, "by balancer check: {file}\n{checked:?}");
    }
}

/// A schema can find each of the three faults that `balancer check` finds in the wrong file of docs/configuration.md.
#[test]
fn the_schema_finds_all_that_is_wrong_in_the_wrong_file_of_the_page() {
    let wrong = block("configuration.md", "config.json");
    let Some(python) = python() else { return };
    const SCRIPT: &str = "import json, sys, jsonschema\n\
        schema, file = map(json.loads, json.load(sys.stdin))\n\
        errors = jsonschema.validators.validator_for(schema)(schema).iter_errors(file)\n\
        print(sorted('/'.join(map(str, error.absolute_path)) for error in errors))\n";
    let schema = balancer(&["config", "schema"]);
    let found = run(&python, SCRIPT, vec![&schema, &wrong]);
    assert_eq!(found.trim(), "['backends/0', 'backends/0/url', 'rate_limit/default']");
}

#[test]
fn completions_are_what_the_shell_reads() {
    let bash = "source <(\"$0\" completions bash) && complete -p balancer && COMP_WORDS=(balancer he) COMP_CWORD=1 && \
                _balancer balancer he balancer && echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", bash, PROGRAM]).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("healthcheck"), "{output:?}");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        assert!(balancer(&["completions", shell]).contains("healthcheck"), "{shell}");
    }
}

/// Every `NAME(1)` in a page.
fn pages_named(page: &str) -> Vec<String> {
    let plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
    let name_of = |before: &str| {
        let from =
            before.rfind(|byte: char| !byte.is_ascii_alphanumeric() && byte != '-').map_or(0, |at| at + 1);
        before[from..].to_owned()
    };
    plain.match_indices("(1)").map(|(at, _)| name_of(&plain[..at])).collect()
}

#[test]
fn every_manual_page_that_is_named_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("share/man/man1");
    assert_eq!(balancer(&["man", "--all", made.to_str().expect("UTF-8")]), "");
    let pages: BTreeMap<String, String> = std::fs::read_dir(&made)
        .expect("the folder")
        .map(|entry| entry.expect("a file").path())
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".1")).expect("NAME.1");
            (name.to_owned(), std::fs::read_to_string(&path).expect("text"))
        })
        .collect();
    assert_eq!(pages["balancer"], balancer(&["man"]));
    let mut named: BTreeSet<String> = ["balancer".to_owned()].into();
    for (page, text) in &pages {
        let these = pages_named(text);
        assert!(these.iter().all(|name| pages.contains_key(name)), "{page} names {these:?}");
        named.extend(these);
    }
    // Every page can be found from the first one.
    assert!(named.iter().eq(pages.keys()), "{named:?}\n{:?}", pages.keys());
    assert!(named.contains("balancer-limits-set"), "{named:?}");

    let unit = std::fs::read_to_string(root().join("deploy/systemd/balancer.service")).expect("the unit");
    let (_, page) = unit.split_once("\nDocumentation=man:").expect("its page");
    assert!(page.starts_with("balancer(1)\n"), "{page}");

    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let output =
        Command::new(PROGRAM).args(["man", "--all"]).arg(file.join("below")).output().expect("balancer");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("can't write into"), "{output:?}");
}

#[test]
fn the_manual_pages_are_readable() {
    let page = balancer(&["man"]);
    assert!(page.contains(".TH balancer 1"), "{page}");
    if !installed("man") {
        return aloud("man is not installed: the pages were not shown");
    }
    let folder = tempfile::tempdir().expect("a folder");
    balancer(&["man", "--all", folder.path().to_str().expect("UTF-8")]);
    let show = |name: &str| {
        let output = Command::new("man")
            .args(["--warnings", "-l"])
            .arg(folder.path().join(name))
            .output()
            .expect("man");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for entry in std::fs::read_dir(folder.path()).expect("the folder") {
        show(entry.expect("a file").file_name().to_str().expect("UTF-8"));
    }
    let shown = show("balancer.1");
    for word in ["NAME", "balancer", "--config", "healthcheck", "BALANCER_CONFIG"] {
        assert!(shown.contains(word), "{word}\n{shown}");
    }
}
