//! The API for a fuzzer that knows only `/openapi.json`: what the description allows is accepted, what it forbids is
//! refused, and every answer is one that it has. What no schema can express is in `tests/schemathesis`.
//!
//! Without schemathesis this is skipped, and says so; `BALANCER_TEST_REQUIRE_SCHEMATHESIS=1` makes that a failure.
//! `BALANCER_TEST_SCHEMATHESIS` names the program, `BALANCER_TEST_SEED` another seed than the usual one.

use std::process::Command;

use serde_json::json;

use crate::support::balancer::Echo;
use crate::support::{Setup, root, skip};

/// Made requests for each operation, beside those that every schema's bounds ask for.
const EXAMPLES: &str = "5";

/// The program; `None`, said aloud, where there is none.
fn program() -> Option<String> {
    let named = std::env::var("BALANCER_TEST_SCHEMATHESIS").unwrap_or_else(|_| "st".into());
    // There are other programs of that short name.
    let help = Command::new(&named).args(["run", "--help"]).output();
    if help.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("Schemathesis")) {
        return Some(named);
    }
    skip(
        "BALANCER_TEST_REQUIRE_SCHEMATHESIS",
        &format!("{named} is not schemathesis"),
        "schemathesis is not installed: the API was not fuzzed",
    );
    None
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(program) = program() else { return };
    let seed = std::env::var("BALANCER_TEST_SEED").unwrap_or_else(|_| "1".into());
    let backend = Echo::start(&[]);
    let balancer = Setup::auto().backend(backend.address).set("admin.listen", json!("127.0.0.1:0")).start();
    let url = format!("http://{}/openapi.json", balancer.admin);
    let ours = root().join("tests/schemathesis");
    let folder = tempfile::Builder::new().prefix("balancer-it-st-").tempdir().expect("a folder");
    let output = Command::new(program)
        .arg("--config-file")
        .arg(ours.join("schemathesis.toml"))
        .args(["run", &url, "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--seed", &seed, "--continue-on-failure", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", ours.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .output()
        .expect("schemathesis starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested: "), "{said}");
    // The process that answered to the end is the one that began.
    assert_eq!(balancer.get("/-/livez").status, 200);
}
