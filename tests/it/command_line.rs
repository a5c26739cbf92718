//! Arguments, the places from which the configuration is read, and exit codes.

use std::path::Path;

use serde_json::json;
use tempfile::tempdir;

use crate::support::backend::refusing;
use crate::support::balancer::{Echo, PROGRAM, listening};
use crate::support::{Backend, Proc, Setup, get};

/// Runs the program in a folder to its end: exit code, stdout, stderr.
fn run(args: &[&str], folder: &Path, env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let env: Vec<(String, String)> = env.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    let mut proc = Proc::start(PROGRAM, args, folder, &env);
    let status = proc.wait();
    (status.code(), proc.out(), proc.err())
}

#[test]
fn version_and_help_answer_on_stdout() {
    let folder = tempdir().unwrap();
    let (code, out, _) = run(&["--version"], folder.path(), &[]);
    assert_eq!(code, Some(0));
    assert_eq!(out.trim(), format!("balancer {}", env!("CARGO_PKG_VERSION")));

    let (code, out, _) = run(&["--help"], folder.path(), &[]);
    assert_eq!(code, Some(0));
    for word in ["run", "check", "healthcheck", "--config"] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = tempdir().unwrap();
    for args in [&["--no-such-option"][..], &["dance"], &["run", "--limit", "lots", "--to", ":9001"]] {
        let (code, out, err) = run(args, folder.path(), &[]);
        assert_eq!(code, Some(2), "{args:?}\n{out}\n{err}");
        assert!(
            out.is_empty() && !err.is_empty(),
            "{args:?}: what went wrong belongs on stderr\n{out}\n{err}"
        );
    }
}

#[test]
fn without_a_configuration_it_says_what_to_do() {
    let folder = tempdir().unwrap();
    for args in [&["run"][..], &[], &["check"]] {
        let (code, _, err) = run(args, folder.path(), &[]);
        assert_eq!(code, Some(2), "{args:?}\n{err}");
        assert!(err.contains("config.json") && err.contains("--config"), "{args:?}\n{err}");
    }
    let (code, _, err) = run(&["run", "--config", "nowhere.json"], folder.path(), &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("nowhere.json"), "{err}");
}

#[test]
fn check_judges_a_file_and_starts_nothing() {
    let setup = Setup::auto().backend("127.0.0.1:9".parse().unwrap());
    let path = setup.write();
    let path = path.to_str().unwrap();
    let (code, out, err) = run(&["check", "--config", path], Path::new("/"), &[]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(!setup.folder().join("balancer.db").exists(), "check made the database");

    let path = setup.set("backends", json!([])).write();
    let (code, _, err) = run(&["check", "--config", path.to_str().unwrap()], Path::new("/"), &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("backends"), "{err}");
}

#[test]
fn the_configuration_is_found_by_option_then_variable_then_name() {
    // Three files that differ in their fault, so that the message tells which one was read.
    let folder = tempdir().unwrap();
    for name in ["option", "variable", "config"] {
        let text = format!(r#"{{ "backends": [], "{name}_key": 1 }}"#);
        std::fs::write(folder.path().join(format!("{name}.json")), text).unwrap();
    }
    let variable = folder.path().join("variable.json");
    let env = [("BALANCER_CONFIG", variable.to_str().unwrap())];
    let (_, _, err) = run(&["check", "--config", "option.json"], folder.path(), &env);
    assert!(err.contains("option_key"), "{err}");
    let (_, _, err) = run(&["check"], folder.path(), &env);
    assert!(err.contains("variable_key"), "{err}");
    let (_, _, err) = run(&["check"], folder.path(), &[]);
    assert!(err.contains("config_key"), "{err}");
}

#[test]
fn relative_paths_count_from_the_files_folder_and_folders_are_made() {
    let backend = Backend::named("a");
    let setup =
        Setup::auto().backend(backend.address()).set("database.url", json!("sqlite:deep/down/limits.db"));
    let path = setup.write();
    let elsewhere = tempdir().unwrap();
    let args = ["run", "--config", path.to_str().unwrap()];
    let proc = Proc::start(PROGRAM, &args, elsewhere.path(), &[]);
    listening(&proc.wait_out("listening on http://"));
    assert!(setup.folder().join("deep/down/limits.db").exists(), "{}", proc.story());
}

#[test]
fn it_runs_with_no_file_at_all() {
    let (a, b) = (Echo::start(&["--name", "a"]), Echo::start(&["--name", "b"]));
    let folder = tempdir().unwrap();
    let (to_a, to_b) = (format!("http://{}", a.address), format!(":{}", b.address.port()));
    let args = ["run", "--to", &to_a, "--to", &to_b, "--limit", "2/m burst 4", "--listen", "127.0.0.1:0"];
    let proc = Proc::start(PROGRAM, &args, folder.path(), &[]);
    let address = listening(&proc.wait_out("listening on http://"));

    let answers: Vec<_> = (0..5).map(|_| get(address, "/x")).collect();
    for answer in &answers[..4] {
        assert_eq!(answer.status, 200, "{answer:?}\n{}", proc.story());
        assert!(["a", "b"].contains(&answer.field("x-backend").unwrap_or_default()), "{answer:?}");
    }
    answers[4].problem(429);
    proc.wait_err(0, "what it assumed", |line| !line.is_empty());
}

#[test]
fn healthcheck_asks_the_configured_listener() {
    let backend = Backend::named("a");
    let setup = Setup::auto().backend(backend.address());
    let balancer = setup.start();
    // The port is known only now.
    let path = setup.clone().set("listen", json!(balancer.address.to_string())).write();
    let path = path.to_str().unwrap();
    let (code, _, err) = run(&["healthcheck", "--config", path], Path::new("/"), &[]);
    assert_eq!(code, Some(0), "{err}");

    let nobody = setup.set("listen", json!(refusing().to_string())).write();
    let nobody = nobody.to_str().unwrap();
    let (code, _, err) = run(&["healthcheck", "--config", nobody], Path::new("/"), &[]);
    assert_eq!(code, Some(1), "{err}");
}

/// `--listen` is read like `listen`, whose names it must be able to ask.
#[test]
fn healthcheck_takes_every_form_of_an_address() {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).start();
    let port = balancer.address.port();
    for (listen, code) in [
        (format!("localhost:{port}"), 0),
        (format!("127.0.0.1:{port}"), 0),
        (format!("0.0.0.0:{port}"), 0),
        // No addresses that `listen` takes.
        (format!(":{port}"), 1),
        ("somewhere".to_owned(), 1),
    ] {
        let (got, _, err) = run(&["healthcheck", "--listen", &listen], Path::new("/"), &[]);
        assert_eq!(got, Some(code), "{listen}\n{err}");
    }
}
