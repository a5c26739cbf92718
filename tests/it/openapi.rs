//! The API for a tool that reads only `/openapi.json`: a client generated from it, and its examples.
//!
//! `BALANCER_TEST_OPENAPI_CLIENT` names openapi-python-client, beside which its Python has to be. Without it that test is
//! skipped, and says so; `BALANCER_TEST_REQUIRE_OPENAPI_CLIENT=1` makes that a failure. `.ci/run` installs one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::reference::python;
use crate::support::{Balancer, Setup, root, skip};

/// One with a document to read.
fn described() -> (Balancer, Value) {
    let setup = Setup::auto().backend_with(json!({ "url": "http://127.0.0.1:9" }));
    let balancer = setup.set("admin.listen", json!("127.0.0.1:0")).start();
    let document = balancer.api("GET", "/openapi.json", &Value::Null).expect(200);
    let document = serde_json::from_slice(&document.body).expect("JSON");
    (balancer, document)
}

#[test]
fn every_example_fits_its_schema() {
    const SCRIPT: &str = r#"
import json, sys, jsonschema
document = json.load(sys.stdin)
kind, count = jsonschema.Draft202012Validator, 0

def judge(place, one):
    global count
    if 'example' in one:
        count += 1
        schema = {'$ref': '#/schema', 'schema': one['schema'], 'components': document['components']}
        for error in kind(schema).iter_errors(one['example']):
            print(place, list(error.absolute_path), error.message)

def walk(place, value):
    if isinstance(value, dict):
        if 'schema' in value:
            judge(place, value)
        for name, one in value.items():
            walk(f'{place}/{name}', one)
    elif isinstance(value, list):
        for at, one in enumerate(value):
            walk(f'{place}/{at}', one)

walk('', document['paths'])
walk('', document['components']['responses'])
print(count)
"#;
    let Some(python) = python() else { return };
    let (balancer, document) = described();
    let path = balancer.folder().join("openapi.json");
    std::fs::write(&path, document.to_string()).expect("written");
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(std::fs::File::open(&path).expect("just written"))
        .output()
        .expect("python");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let count: usize = said.trim().parse().unwrap_or_else(|_| panic!("{said}"));
    assert!(count > 150, "{count}");
}

/// The program; `None`, said aloud, where there is none.
fn generator() -> Option<PathBuf> {
    let named =
        std::env::var("BALANCER_TEST_OPENAPI_CLIENT").unwrap_or_else(|_| "openapi-python-client".into());
    if Command::new(&named).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some(named.into());
    }
    skip(
        "BALANCER_TEST_REQUIRE_OPENAPI_CLIENT",
        &format!("{named} is not openapi-python-client"),
        "openapi-python-client is not installed: no client was made",
    );
    None
}

/// The modules of calls below a folder.
fn calls(folder: &Path) -> usize {
    let entries =
        std::fs::read_dir(folder).expect("the client's folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| match path.file_name().and_then(|name| name.to_str()) {
            _ if path.is_dir() => calls(&path),
            Some(name) if name.ends_with(".py") && name != "__init__.py" => 1,
            _ => 0,
        })
        .sum()
}

#[test]
fn a_generated_client_has_every_call_and_sets_a_limit() {
    let Some(generator) = generator() else { return };
    let (balancer, document) = described();
    let folder = balancer.folder();
    std::fs::write(folder.join("openapi.json"), document.to_string()).expect("written");
    let output = Command::new(&generator)
        .args(["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "balancer_client"])
        .current_dir(folder)
        .output()
        .expect("the generator starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && !said.contains("will not be generated"), "{said}");
    let operations =
        document["paths"].as_object().expect("paths").values().flat_map(|item| {
            item.as_object().expect("an item").keys().filter(|method| *method != "parameters")
        });
    assert_eq!(calls(&folder.join("balancer_client/api")), operations.count(), "{said}");

    let python = generator.parent().filter(|folder| !folder.as_os_str().is_empty());
    let python = python.map_or_else(|| PathBuf::from("python3"), |folder| folder.join("python"));
    let output = Command::new(python)
        .arg(root().join("tests/openapi-client/limits.py"))
        .arg(format!("http://{}", balancer.admin))
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        balancer.api("GET", "/limits", &Value::Null).expect(200).text(),
        r#"{"limits":[],"next_cursor":null}"#
    );
}
