//! What the program prints of itself: the configuration's reference and schema, completions, the manual page.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::balancer::PROGRAM;
use crate::support::{aloud, installed, root, skip};

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
fn python() -> Option<String> {
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

/// What a validator that is not ours says of a configuration by the schema: nothing, or what is wrong.
fn judge(python: &str, schema: &str, configurations: &[String]) -> Vec<bool> {
    const SCRIPT: &str = "import json, sys, jsonschema\n\
        schema, *files = map(json.loads, sys.argv[1:])\n\
        kind = jsonschema.validators.validator_for(schema)\n\
        kind.check_schema(schema)\n\
        for file in files: print(kind(schema).is_valid(file))\n";
    let output =
        Command::new(python).args(["-c", SCRIPT, schema]).args(configurations).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "True").collect()
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

#[test]
fn the_manual_page_is_readable() {
    let page = balancer(&["man"]);
    assert!(page.contains(".TH balancer 1"), "{page}");
    if !installed("man") {
        return aloud("man is not installed: the page was not shown");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), page).expect("written");
    let output = Command::new("man").args(["--warnings", "-l"]).arg(file.path()).output().expect("man");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for word in ["NAME", "balancer", "--config", "healthcheck", "BALANCER_CONFIG"] {
        assert!(shown.contains(word), "{word}\n{shown}");
    }
}
