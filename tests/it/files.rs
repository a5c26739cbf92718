//! The files that we write: none that was not asked for, none that other users can read, and none through a symbolic
//! link.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::balancer::{PROGRAM, listening};
use crate::support::{Backend, Balancer, Proc, Setup, request, until};

/// Everything below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
}

fn ended(proc: &mut Proc) {
    proc.signal(Signal::TERM);
    assert!(proc.wait().success(), "{}", proc.story());
}

fn without_a_file(folder: &Path, backend: &Backend, more: &[&str], env: &[(String, String)]) -> Proc {
    let to = format!("http://{}", backend.address());
    let args = ["run", "--to", &to, "--limit", "100/s", "--listen", "127.0.0.1:0"];
    Proc::start(PROGRAM, &[&args[..], more].concat(), folder, env)
}

fn limit_of_one(proc: &Proc) -> std::net::SocketAddr {
    let address = listening(&proc.wait_out("listening on http://"));
    let body = json!({ "client_id": "127.0.0.1", "capacity": 1, "rate_per_sec": 0 }).to_string();
    request(address, "POST", "/limits/create", &[], body.as_bytes()).expect(201);
    request(address, "GET", "/", &[], b"").expect(200);
    request(address, "GET", "/", &[], b"").problem(429);
    address
}

#[test]
fn without_a_configuration_nothing_is_written_and_it_says_so() {
    let backend = Backend::named("a");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let env = [("STATE_DIRECTORY".to_owned(), state.to_str().expect("UTF-8").to_owned())];
    let mut proc = without_a_file(folder.path(), &backend, &[], &env);
    let address = limit_of_one(&proc);
    // Everything that a database does: pages, plans, batches, the audit.
    let listed = request(address, "GET", "/limits", &[], b"").expect(200).json();
    assert_eq!(listed["limits"][0]["client_id"], "127.0.0.1");
    let many: Vec<Value> =
        (0..200).map(|n| json!({ "op": "create", "client_id": format!("k{n}"), "mode": "exempt" })).collect();
    let batch = json!({ "operations": many }).to_string();
    request(address, "POST", "/-/v1/batch", &[], batch.as_bytes()).expect(200);
    let audit = request(address, "GET", "/-/v1/audit", &[], b"").expect(200).json();
    assert_eq!(audit["entries"][0]["action"], "batch");
    assert_eq!(request(address, "GET", "/-/readyz?verbose", &[], b"").expect(200).json()["store"], "up");
    proc.signal(Signal::HUP);
    proc.wait_err(0, "it was reloaded", |line| line.contains("reloaded; changed: nothing"));
    request(address, "GET", "/", &[], b"").problem(429);
    ended(&mut proc);
    assert_eq!(below(folder.path()), Vec::<PathBuf>::new(), "{}", proc.story());
    let err = proc.err();
    assert!(err.contains("in memory: limits are gone with the process; --data DIR keeps them"), "{err}");
    assert!(!err.contains("levels:") && !err.contains("store:"), "{err}");
}

#[test]
fn with_a_folder_for_its_data_what_was_set_is_kept_there() {
    let backend = Backend::named("a");
    let folder = tempfile::tempdir().expect("a folder");
    let mut proc = without_a_file(folder.path(), &backend, &["--data", "deep/data"], &[]);
    limit_of_one(&proc);
    ended(&mut proc);
    assert!(proc.err().contains("SQLite, deep/data/balancer.db"), "{}", proc.err());
    let data = folder.path().join("deep/data");
    for name in ["balancer.db", "instance", "levels.snapshot", "limits.snapshot"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let outside = below(folder.path()).into_iter().find(|path| !path.starts_with(folder.path().join("deep")));
    assert_eq!(outside, None);
    // However slow the machine is: what is looked up for the first time is waited for.
    let env = [("BALANCER__CACHE__LOAD_TIMEOUT".to_owned(), "10s".to_owned())];
    let mut proc = without_a_file(folder.path(), &backend, &["--data", "deep/data"], &env);
    let address = listening(&proc.wait_out("listening on http://"));
    request(address, "GET", "/", &[], b"").problem(429);
    ended(&mut proc);
}

/// With an umask of 0, as some service managers have it: other users may read and write what is made.
fn carelessly(setup: &Setup) -> Balancer {
    let path = setup.write();
    let script = "umask 000; exec \"$0\" run --config \"$1\"";
    let run = ["-c", script, PROGRAM, path.to_str().expect("UTF-8")];
    setup.started(Proc::start("sh", &run, setup.folder(), &[]))
}

#[test]
fn what_we_make_is_for_our_user_alone() {
    let backend = Backend::named("a");
    let setup = Setup::auto()
        .backend(backend.address())
        .set("database.url", json!("sqlite:db/deep/limits.db"))
        .set("log.access", json!("file:logs/access.log"));
    let mut balancer = carelessly(&setup);
    balancer.limit("127.0.0.1", 1, 0);
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
    let data = setup.folder().join("data");
    until("everything is written", || {
        ["levels.snapshot", "limits.snapshot"].iter().all(|name| data.join(name).exists()).then_some(())
    });
    let open = |folder: &Path| -> Vec<(PathBuf, String)> {
        let wrong = |path: &PathBuf| mode(path) != if path.is_dir() { 0o700 } else { 0o600 };
        let made = below(folder).into_iter().filter(|path| !path.ends_with("config.json"));
        made.filter(wrong).map(|path| (path.clone(), format!("{:o}", mode(&path)))).collect()
    };
    // While it runs: the log and the shared memory of the database are there.
    let names = below(setup.folder());
    for name in ["db/deep/limits.db-wal", "db/deep/limits.db-shm", "logs/access.log", "data/instance"] {
        assert!(names.contains(&setup.folder().join(name)), "{name} {names:?}");
    }
    assert_eq!(open(setup.folder()), []);
    ended(&mut balancer.proc);
    assert_eq!(open(setup.folder()), []);

    // A file that was opened to other users on purpose stays so.
    let database = setup.folder().join("db/deep/limits.db");
    fs::set_permissions(&database, Permissions::from_mode(0o640)).expect("ours");
    let mut balancer = carelessly(&setup);
    balancer.limit("127.0.0.2", 1, 0);
    assert_eq!((mode(&database), mode(&database.with_extension("db-wal"))), (0o640, 0o640));
    ended(&mut balancer.proc);
}

#[test]
fn a_link_in_the_place_of_what_we_write_is_replaced_and_never_followed() {
    let backend = Backend::named("a");
    let setup = Setup::auto().backend(backend.address()).set("rate_limit.default", json!("5/d"));
    let data = setup.folder().join("data");
    fs::create_dir(&data).expect("a folder");
    let theirs = setup.folder().join("theirs");
    fs::write(&theirs, "theirs").expect("written");
    for name in ["levels.snapshot", "levels.new", "limits.snapshot", "limits.new"] {
        symlink(&theirs, data.join(name)).expect("a link");
    }
    let mut balancer = setup.start();
    balancer.limit("127.0.0.9", 1, 0);
    balancer.get("/").expect(200);
    ended(&mut balancer.proc);
    assert_eq!(fs::read_to_string(&theirs).expect("there"), "theirs", "{}", balancer.proc.story());
    for name in ["levels.snapshot", "limits.snapshot"] {
        assert!(!data.join(name).is_symlink() && mode(&data.join(name)) == 0o600, "{name}");
    }
    // The file that is held locked can't be replaced: then nothing is kept, and it says so.
    fs::remove_file(data.join("instance")).expect("there");
    symlink(&theirs, data.join("instance")).expect("a link");
    let mut balancer = setup.start();
    ended(&mut balancer.proc);
    assert_eq!(fs::read_to_string(&theirs).expect("there"), "theirs");
    assert!(balancer.proc.err().contains("nothing is kept in"), "{}", balancer.proc.err());
    // A database is not made behind a link to nothing.
    let nothing = setup.folder().join("elsewhere.db");
    symlink(&nothing, setup.folder().join("linked.db")).expect("a link");
    let mut proc = setup.clone().set("database.url", json!("sqlite:linked.db")).launch();
    assert_eq!(proc.wait().code(), Some(1), "{}", proc.story());
    assert!(proc.err().contains("is a link to nothing") && !nothing.exists(), "{}", proc.err());
}

/// Only a link to nothing is refused.
#[test]
fn a_database_may_be_a_link_to_one() {
    let backend = Backend::named("a");
    let setup = Setup::auto().backend(backend.address());
    let mut balancer = setup.start();
    balancer.limit("a", 1, 0);
    ended(&mut balancer.proc);
    fs::rename(setup.folder().join("balancer.db"), setup.folder().join("real.db")).expect("renamed");
    symlink("real.db", setup.folder().join("balancer.db")).expect("a link");
    let balancer = setup.start();
    balancer.limit("b", 1, 0);
    balancer.api("GET", "/limits/get?client_id=a", &Value::Null).expect(200);
}

#[test]
fn a_secret_in_a_configuration_that_everybody_can_read_is_a_warning() {
    let backend = Backend::named("a");
    let plain = || Setup::auto().backend(backend.address());
    let token = json!("0123456789abcdef-token");
    let postgres = |user: &str| json!(format!("postgres://{user}@127.0.0.1:1/d?connect_timeout=1"));
    for (setup, file_mode, named) in [
        (plain().set("admin.token", token.clone()), 0o644, "admin.token"),
        (plain().set("admin.token", token.clone()), 0o640, ""),
        (plain().set("admin.token", token.clone()), 0o600, ""),
        (plain().set("database.url", postgres("u:hunter2")), 0o604, "database.url"),
        (plain().set("database.url", postgres("u")), 0o644, ""),
        (plain().set("balancing.sticky", json!({ "secret": token })), 0o644, "balancing.sticky.secret"),
        (plain(), 0o644, ""),
        // The secret is not in the file.
        (plain().env("BALANCER_ADMIN_TOKEN", "0123456789abcdef-token"), 0o644, ""),
    ] {
        let path = setup.write();
        fs::set_permissions(&path, Permissions::from_mode(file_mode)).expect("ours");
        let args = ["check", "--config", path.to_str().expect("UTF-8")];
        let mut proc = Proc::start(PROGRAM, &args, setup.folder(), &[]);
        assert_eq!(proc.wait().code(), Some(0), "a warning, and no fault: {}", proc.story());
        let err = proc.err();
        if named.is_empty() {
            assert_eq!(err, "", "{file_mode:o}");
        } else {
            assert!(err.contains(&format!("config.json holds {named} and everybody")), "{err}");
            assert!(!err.contains("hunter2") && !err.contains("0123456789"), "{err}");
        }
    }
    // It says the same where it runs, and where it reads the file again.
    let setup = plain().set("admin.token", token);
    let path = setup.write();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
    let mut proc =
        Proc::start(PROGRAM, &["run", "--config", path.to_str().expect("UTF-8")], setup.folder(), &[]);
    let said = |line: &str| line.contains("holds admin.token and everybody");
    let (read, _) = proc.wait_err(0, "it is said", said);
    proc.wait_out("listening on http://");
    proc.signal(Signal::HUP);
    proc.wait_err(read, "it is said again", said);
    ended(&mut proc);
}
