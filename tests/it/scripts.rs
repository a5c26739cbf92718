//! `run.sh` and the compose file, as a new user meets them. `run.sh` builds with the profile `quick`, which takes minutes,
//! so all but one of its tests give it a `cargo` that has built already.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::pages::{Step, steps};
use crate::support::balancer::{PROGRAM, TEST_BACKEND};
use crate::support::{Proc, aloud, installed, root, until};

/// How long a build by the profile quick may take.
const BUILD: Duration = Duration::from_secs(900);

/// What `git status` shows.
fn git_status() -> String {
    let output =
        Command::new("git").args(["status", "--porcelain"]).current_dir(root()).output().expect("git");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All processes below that one.
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|number| number.parse().ok()) {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

/// Whether the process runs; one that has ended and was not waited for does not.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// `run.sh` takes fixed ports when they are free, and one folder for its data: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A `cargo` that has built this test's own programs already.
fn fake_cargo(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let line =
        |path: &str| format!(r#"echo '{{"reason":"compiler-artifact","executable":"{path}","fresh":true}}'"#);
    let script = format!("#!/bin/sh\n{}\n{}\n", line(PROGRAM), line(TEST_BACKEND));
    let path = bin.join("cargo");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// Starts `run.sh` from another folder and waits until it has printed its hints. `bin` stands first in the PATH.
fn run_sh(args: &[&str], folder: &Path, bin: Option<&Path>) -> Proc {
    let path = root().join("run.sh");
    let words: Vec<&str> = path.to_str().into_iter().chain(args.iter().copied()).collect();
    start(&format!("'{}'", words.join("' '")), folder, bin)
}

/// The same, of a command line.
fn start(line: &str, folder: &Path, bin: Option<&Path>) -> Proc {
    // The target folder of this test's own build.
    let target = Path::new(PROGRAM).ancestors().nth(2).expect("target/debug/balancer");
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {line}")]);
    command.current_dir(folder).env("CARGO_TARGET_DIR", target);
    if let Some(bin) = bin {
        let path = std::env::var_os("PATH").unwrap();
        let path = std::iter::once(bin.to_path_buf()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap());
    }
    let proc = Proc::run(command);
    proc.wait_out_at_most("docs/guide.md", BUILD);
    proc
}

/// Runs one of the lines that it printed, as a person pastes it.
fn paste(line: &str) -> String {
    let output = Command::new("bash").args(["-c", line]).output().expect("bash");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Pastes what it printed, line by line: through, limited, raised, killed, and still raised.
fn try_out(proc: &Proc) {
    proc.wait_out("docs/guide.md");
    let out = proc.out();
    let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(lines.len(), 5, "five lines to paste\n{out}");
    let echoed = paste(lines[0]);
    assert!(echoed.contains("200 OK") && echoed.contains(r#""your_message":{"exaple":123}"#), "{echoed}");
    let limited = paste(lines[1]);
    let times = |status: &str| limited.matches(&format!("HTTP/1.1 {status}")).count();
    assert_eq!((times("200"), times("429")), (2, 1), "{limited}");
    assert!(limited.to_lowercase().contains("retry-after:"), "{limited}");
    let raised = paste(lines[2]);
    assert!(raised.contains("HTTP/1.1 200"), "{raised}");
    assert!(lines[3].starts_with("  kill -9 "), "{out}");
    assert_eq!(paste(lines[3]), "");
    assert_eq!(paste(lines[4]), r#"{"client_id":"127.0.0.1","capacity":1000,"rate_per_sec":500}"#);
    proc.wait_err(0, "it says that it starts it again", |line| line.contains("was killed (kill -9)"));
    for said in ["The first time takes about three minutes", "built in "] {
        assert!(proc.err().contains(said), "{}", proc.story());
    }
}

#[test]
#[ignore = "builds all of it, which takes minutes; run by .ci/run"]
fn run_sh_builds_and_can_be_tried_as_printed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut proc = run_sh(&[], folder.path(), None);
    try_out(&proc);
    proc.signal(Signal::INT);
    proc.wait();
}

#[test]
fn run_sh_can_be_tried_as_printed_and_leaves_nothing() {
    let _alone = alone();
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bin = fake_cargo(elsewhere.path());
    let before = git_status();
    // Twice: the second time the limit of the first is there already.
    for signal in [Signal::INT, Signal::TERM] {
        let mut proc = run_sh(&[], folder.path(), Some(&bin));
        assert!(proc.out().contains("listening on http://127.0.0.1:"), "{}", proc.story());
        try_out(&proc);
        let below = descendants(proc.pid());
        assert!(below.len() >= 4, "two backends, the balancer and the guard: {below:?}");
        proc.signal(signal);
        proc.wait();
        let left: Vec<u32> = below.into_iter().filter(|pid| alive(*pid)).collect();
        assert!(left.is_empty(), "{left:?} are left after {signal:?}\n{}", proc.story());
        assert!(!proc.err().contains("panicked") && !proc.err().contains("ERROR"), "{}", proc.story());
    }
    assert_eq!(git_status(), before, "git shows what it left behind");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it left files in the caller's folder");
}

#[test]
fn run_sh_serves_https_beside_http() {
    let _alone = alone();
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bin = fake_cargo(elsewhere.path());
    let before = git_status();
    let mut proc = run_sh(&["--tls"], folder.path(), Some(&bin));
    try_out(&proc);
    let line = proc.wait_out("The same by https: ");
    let echoed = paste(&format!("{} -sS", line.trim_start_matches("The same by https: ")));
    assert!(echoed.contains(r#""request_uri":"/hello""#), "{echoed}");
    proc.signal(Signal::TERM);
    proc.wait();
    assert_eq!(git_status(), before, "git shows what it left behind");
}

/// The commands of a page between two of its lines.
fn walk(page: &str, from: &str, to: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(root().join(page)).expect(page);
    let (_, text) = text.split_once(from).expect("its begin");
    let (text, _) = text.split_once(to).expect("its end");
    steps(text)
}

/// Without what differs from one time to the next: the date, ids, and which of two equal backends is taken.
fn same_for_all(text: &str) -> String {
    let mut all = String::new();
    for line in text.trim().lines() {
        let line = line.trim_end();
        let own = ["Date: ", "X-Request-Id: ", "X-Backend: "].into_iter().find(|name| line.starts_with(name));
        let line = own.unwrap_or(line);
        match line
            .split_once("\"instance\":\"")
            .and_then(|(before, id)| Some((before, id.split_once('"')?.1)))
        {
            Some((before, after)) => all += &format!("{before}{after}\n"),
            None => all += &format!("{line}\n"),
        }
    }
    all
}

/// README's commands as they stand and those with which the guide goes on, in order, in a fresh clone; and once more where the
/// first time has left a limit.
#[test]
fn readmes_first_walk_prints_what_it_says() {
    let _alone = alone();
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bin = fake_cargo(elsewhere.path());
    let mut steps = walk("README.md", "\n## Two commands\n", "\nThe first build");
    steps.extend(walk("docs/guide.md", "\n## It survives kill -9\n", "\n## In Docker\n"));
    assert!(steps.len() >= 9 && steps[0].command.starts_with("git clone "), "{}", steps.len());
    let clone = folder.path().join("balancer");
    let shell = |command: &str, folder: &Path| {
        let command =
            Command::new("bash").args(["-c", command]).current_dir(folder).env("URL", root()).output();
        let output = command.expect("bash");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    shell(&steps[0].command, folder.path());
    // What `./run.sh` would have built there.
    let built = clone.join("target/quick");
    std::fs::create_dir_all(&built).unwrap();
    std::os::unix::fs::symlink(PROGRAM, built.join("balancer")).unwrap();
    for _ in 0..2 {
        let mut running: Option<Proc> = None;
        let (mut address, mut before) = (String::new(), String::new());
        for Step { command, prints } in &steps[1..] {
            let prints = same_for_all(&prints.join("\n"));
            if command.starts_with("./run.sh") {
                if let Some(mut proc) = running.take() {
                    proc.signal(Signal::INT);
                    proc.wait();
                }
                let proc = start(command, &clone, Some(&bin));
                let line = proc.wait_out("listening on ");
                address = line.trim_start_matches("listening on http://").to_owned();
                assert_eq!(same_for_all(&line).replace(&address, "127.0.0.1:8080"), prints);
                running = Some(proc);
            } else if command.starts_with("export ") {
                before += &format!("{command}\n");
            } else {
                // Port 8080 may be taken on this machine.
                let said = shell(&format!("{before}{}", command.replace("127.0.0.1:8080", &address)), &clone);
                assert_eq!(same_for_all(&said), prints, "{command}");
            }
        }
        let mut proc = running.expect("it was started");
        // It is interrupted as if somebody gave up in the middle: with a limit that is used up.
        shell(
            &format!(
                "curl -fsX PUT http://{address}/limits/update -d '{{\"client_id\":\"127.0.0.1\",\"capacity\":1,\
                 \"rate_per_sec\":0}}'; curl -s http://{address}/"
            ),
            &clone,
        );
        proc.signal(Signal::INT);
        proc.wait();
    }
}

#[test]
fn run_sh_that_is_killed_leaves_no_orphan() {
    let _alone = alone();
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut proc = run_sh(&[], folder.path(), Some(&fake_cargo(elsewhere.path())));
    let below = descendants(proc.pid());
    assert!(below.len() >= 4, "two backends, the balancer and the guard: {below:?}");
    proc.kill();
    until("everything has ended", || below.iter().all(|pid| !alive(*pid)).then_some(()));
}

#[test]
fn run_sh_takes_other_ports_and_a_postgres() {
    let Some(database) = crate::support::Database::postgres() else { return };
    let _alone = alone();
    // These ports are taken, by this test or by another program.
    let taken: Vec<_> =
        [8080, 9001, 9002].map(|port| TcpListener::bind(("127.0.0.1", port))).into_iter().collect();
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let proc = run_sh(&["--postgres", &database.url], folder.path(), Some(&fake_cargo(elsewhere.path())));
    assert!(!proc.out().contains("http://127.0.0.1:8080"), "{}", proc.story());
    try_out(&proc);
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    let rows: i64 = client.query_one("SELECT count(*) FROM limits", &[]).unwrap().get(0);
    assert_eq!(rows, 1);
    drop(taken);
}

#[test]
fn run_sh_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    // A PATH with the shell's needs and no cargo.
    for program in ["bash", "dirname", "sed", "cat"] {
        let path = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .expect("a usual program");
        std::os::unix::fs::symlink(path, folder.path().join(program)).unwrap();
    }
    let mut command = Command::new(folder.path().join("bash"));
    command.arg(root().join("run.sh")).current_dir(folder.path()).env("PATH", folder.path());
    let mut proc = Proc::run(command);
    assert_eq!(proc.wait().code(), Some(1), "{}", proc.story());
    assert!(proc.err().contains("cargo") && proc.err().contains("rustup.rs"), "{}", proc.story());

    let mut command = Command::new("bash");
    command.arg(root().join("run.sh")).arg("--dance").current_dir(folder.path());
    let mut proc = Proc::run(command);
    assert_eq!(proc.wait().code(), Some(2), "{}", proc.story());
}

#[test]
fn the_compose_files_are_valid() {
    if !installed("docker-compose") {
        return aloud("docker-compose is not installed: the compose files were not checked");
    }
    for file in ["docker-compose.yml", "docker-compose.scale.yml"] {
        let mut command = Command::new("docker-compose");
        command
            .args(["-f", file, "config"])
            .current_dir(root())
            .env("BALANCER_ADMIN_TOKEN", "another-token-of-length");
        let mut proc = Proc::run(command);
        assert!(proc.wait().success(), "{}", proc.story());
        let out = proc.out();
        assert!(
            out.contains("BALANCER_ADMIN_TOKEN: another-token-of-length"),
            "the token can't be overridden\n{out}"
        );
        assert!(out.contains("postgres:17") && out.contains("127.0.0.1:8080:8080"), "{out}");
        assert!(out.contains("127.0.0.1:9000:9000"), "the API has no port of its own\n{out}");
    }
}

/// The step of `.ci/run`, with a `cargo-deny` that fetches or not and finds something or not.
#[test]
fn ci_asks_for_advisories_or_says_why_not() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    let (_, step) = ci.split_once("step \"advisories\"\n").expect("the step");
    let (step, _) = step.split_once("\nstep ").expect("another step");
    let folder = tempfile::tempdir().unwrap();
    let deny = folder.path().join("cargo-deny");
    let script = "#!/bin/sh\ncase \"$*\" in\n  'fetch db') [ -z \"$UNREACHABLE\" ] || { echo 'fatal: no such host' >&2; exit 1; } ;;\n  \
                  '--offline check advisories') exit $FOUND ;;\n  *) exit 9 ;;\nesac\n";
    std::fs::write(&deny, script).unwrap();
    std::fs::set_permissions(&deny, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |deny: &Path, unreachable: &str, found: &str| {
        let command = format!("set -euo pipefail\ndeny='{}'\n{step}", deny.display());
        let output = Command::new("bash")
            .args(["-c", &command])
            .env("CARGO_HOME", folder.path())
            .env("UNREACHABLE", unreachable)
            .env("FOUND", found)
            .output()
            .expect("bash");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(run(&deny, "", "0"), (true, String::new()));
    assert_eq!(run(&deny, "", "1"), (false, String::new()), "one that was found is a failure");
    let (well, said) = run(&deny, "1", "0");
    assert!(well && said.starts_with("SKIPPED: ") && said.contains("fatal: no such host"), "{said}");
    let (well, said) = run(Path::new(""), "", "0");
    assert!(well && said.starts_with("SKIPPED: "), "{said}");
    // Fetched an earlier time.
    std::fs::create_dir_all(folder.path().join("advisory-dbs/x/.git")).unwrap();
    let (well, said) = run(&deny, "1", "1");
    assert!(!well && !said.contains("SKIPPED"), "{said}");
}
