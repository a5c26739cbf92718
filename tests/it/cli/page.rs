//! Pages of `docs/`, line by line: every command behind a `$` is run and has to print what stands there.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::terminal;
use crate::support::balancer::PROGRAM;
use crate::support::{Backend, Balancer, Setup, aloud, block, in_ci, installed, root, until, watchdog};

/// The address of the pages.
const ADDRESS: &str = "127.0.0.1:8080";
/// Where a page has the API on a port of its own.
const ADMIN: &str = "127.0.0.1:9000";

/// The commands of a page, each with the lines below it: indented by four, those of commands behind a `$`.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(code) => match code.strip_prefix("$ ") {
                Some(command) => {
                    found.push((command.to_owned(), Vec::new()));
                    inside = true;
                }
                None if inside => found.last_mut().expect("pushed").1.push(code.to_owned()),
                None => {}
            },
            // An empty line may belong to what was printed.
            None if line.is_empty() && inside => found.last_mut().expect("pushed").1.push(String::new()),
            None => inside = false,
        }
    }
    for (_, output) in &mut found {
        while output.last().is_some_and(String::is_empty) {
            output.pop();
        }
    }
    found
}

/// Whether a line is what the page says, where `…` stands for anything.
fn fits(said: &str, page: &str) -> bool {
    let mut parts = page.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

/// Runs a line in a shell on a terminal, as a reader does; what it printed.
fn typed(line: &str, folder: &Path) -> Vec<String> {
    let (mut ours, theirs) = terminal(120, 40);
    let clone = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("cloned"));
    let programs = Path::new(PROGRAM).parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{programs}:{path}"))
        .stdin(Stdio::null())
        .stdout(clone(&theirs))
        .stderr(clone(&theirs))
        .spawn()
        .expect("a shell");
    drop(theirs);
    watchdog::kill(child.id());
    let mut text = Vec::new();
    // Its end is an error (EIO) once nobody has the other end open.
    let _ = ours.read_to_end(&mut text);
    let pid = child.id();
    until("the command ends", || child.try_wait().expect("waitpid works"));
    watchdog::gone(pid);
    let text = String::from_utf8(text).expect("UTF-8");
    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Whether what the commands need is there.
fn able(page: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !installed(program)).collect();
    assert!(missing.is_empty() || !in_ci(), "missing: {missing:?}");
    if !missing.is_empty() {
        aloud(&format!("{missing:?} are not installed: the commands of docs/{page} were not run"));
    }
    missing.is_empty()
}

/// A folder whose configuration leads the command line to that balancer.
fn desk(balancer: &Balancer) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let backends = json!([{ "name": "a", "url": "http://127.0.0.1:9" }]);
    let mut config = json!({ "listen": balancer.address.to_string(), "backends": backends });
    if balancer.admin != balancer.address {
        config["admin"] = json!({ "listen": balancer.admin.to_string() });
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    folder
}

/// Runs the commands of a page, of which there are at least that many, in that folder.
#[track_caller]
fn follow(page: &str, least: usize, balancer: &Balancer, folder: &Path) {
    let address = balancer.address.to_string();
    let text = std::fs::read_to_string(root().join("docs").join(page)).expect("the page");
    let commands = commands(&text);
    assert!(commands.len() >= least, "{commands:?}");
    for (command, expected) in commands {
        let command = command.replace(ADDRESS, &address).replace(ADMIN, &balancer.admin.to_string());
        let said = typed(&command, folder);
        let fine =
            said.len() == expected.len() && said.iter().zip(&expected).all(|(said, page)| fits(said, page));
        assert!(
            fine,
            "$ {command}\n--- the page:\n{}\n--- the program:\n{}",
            expected.join("\n"),
            said.join("\n")
        );
    }
}

#[test]
fn every_command_of_the_page_of_limits_prints_what_it_says() {
    if !able("limits.md", &["curl"]) {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).start();
    follow("limits.md", 20, &balancer, desk(&balancer).path());
}

/// The half of it that is ours, with what Kong's admin API would list.
#[test]
fn the_page_for_those_who_come_from_kong_prints_what_it_says() {
    let page = "migrate/kong.md";
    if !able(page, &["curl", "jq"]) {
        return;
    }
    let backend = Backend::named("a");
    let written = format!("{{ {} }}", block(page, "rate_limit"));
    let mut config: Value = serde_json::from_str(&written).expect("JSON");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("rate_limit", config["rate_limit"].take())
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let folder = desk(&balancer);
    let plugin = |name: &str, consumer: &Value, route: &Value| {
        let config =
            json!({ "second": null, "minute": 3, "hour": 1000, "year": null, "limit_by": "consumer" });
        json!({ "name": name, "enabled": true, "consumer": consumer, "route": route, "service": null, "config": config })
    };
    let (some, none) = (json!({ "id": "6f9d6b1e-1d5c-4a0e-9a53-0d4d1c2b3a4f" }), Value::Null);
    let data = [
        plugin("rate-limiting", &some, &none),
        plugin("rate-limiting", &none, &none),
        plugin("rate-limiting", &some, &some),
        plugin("cors", &some, &none),
    ];
    let listed = json!({ "data": data, "next": null }).to_string();
    for (name, text) in [("plugins.json", listed), ("kong.jq", block(page, "kong.jq"))] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    follow(page, 9, &balancer, folder.path());
}

#[test]
fn pages_are_compared_as_they_should_be() {
    for (said, page, fine) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("in 0.2 s, 7 a second", "in … s, … a second", true),
        ("in 0.2 s, 7 a minute", "in … s, … a second", false),
        ("etag \"1\"", "etag \"…\"", true),
        ("etag \"1\" x", "etag \"…\"", false),
        ("any", "…", true),
    ] {
        assert_eq!(fits(said, page), fine, "{said:?} {page:?}");
    }
    let page = "text\n\n    ./run.sh\n\n    $ a\n    1\n\n    2\n    $ b\n\nmore\n    3\n";
    let expected =
        [("a".to_owned(), vec!["1".to_owned(), String::new(), "2".to_owned()]), ("b".to_owned(), vec![])];
    assert_eq!(commands(page), expected);
}
