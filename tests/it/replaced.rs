//! A SQLite file that is deleted, replaced or damaged while the balancer runs: the balancer says so and opens the file that
//! is there then; what memory holds stays in force; and everything that was answered 201 is there afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::drills::store::small_disk;
use crate::support::{Backend, Balancer, Response, Setup, until};

/// A balancer whose client 127.0.0.66 has spent its only token, and whose database is in a folder of its own.
struct Bench {
    setup: Setup,
    _backend: Backend,
    balancer: Balancer,
    path: PathBuf,
    /// Ids that were answered 201.
    created: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let backend = Backend::named("a");
        let setup = Setup::auto().backend(backend.address());
        Self::of(setup, backend)
    }

    fn of(setup: Setup, backend: Backend) -> Self {
        let setup = setup.set("database.url", json!("sqlite:db/limits.db")).set("cache.ttl", json!("100ms"));
        let balancer = setup.start();
        balancer.limit("127.0.0.66", 1, 0);
        balancer.get_from("127.0.0.66", "/").expect(200);
        let path = setup.folder().join("db/limits.db");
        let mut bench = Self { setup, _backend: backend, balancer, path, created: vec!["127.0.0.66".into()] };
        for _ in 0..20 {
            bench.create().expect(201);
        }
        bench
    }

    fn beside(&self, end: &str) -> PathBuf {
        PathBuf::from(format!("{}{end}", self.path.display()))
    }

    fn create(&mut self) -> Response {
        let id = format!("id-{}", self.created.len());
        let body = json!({ "client_id": id, "capacity": 1, "rate_per_sec": 0 });
        let answer = self.balancer.api("POST", "/limits/create", &body);
        if answer.status == 201 {
            self.created.push(id);
        }
        answer
    }

    fn word(&self) -> Value {
        self.balancer.get("/-/readyz?verbose").expect(200).json()["store"].clone()
    }

    /// The limits in force are those that were.
    fn memory_is_in_force(&self) {
        self.balancer.get_from("127.0.0.66", "/").problem(429);
    }

    /// It is noticed, with no traffic at all, and said.
    fn said(&self, words: &str) {
        self.balancer.proc.wait_err(0, words, |line| line.contains(words));
    }

    /// It takes changes again, and everything that was acknowledged is there, also when the process is killed.
    fn recovers(mut self) {
        until("changes are taken", || {
            self.memory_is_in_force();
            (self.create().status == 201).then_some(())
        });
        until("it is up", || (self.word() == "up").then_some(()));
        self.memory_is_in_force();
        for _ in 0..5 {
            self.create().expect(201);
        }
        self.balancer.proc.kill();
        let story = self.balancer.proc.story();
        self.balancer = self.setup.start();
        for id in &self.created {
            let answer = self.balancer.api("GET", &format!("/limits/get?client_id={id}"), &Value::Null);
            assert_eq!(answer.status, 200, "{id} was answered 201 and is gone\n{story}");
        }
        let left: Vec<_> = fs::read_dir(self.path.parent().expect("a folder"))
            .expect("a folder")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !["limits.db", "limits.db-wal", "limits.db-shm"].contains(&name.as_str()))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "nothing is left over");
        let checked: String = rusqlite::Connection::open(&self.path)
            .and_then(|file| file.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
            .expect("a database");
        assert_eq!(checked, "ok");
    }
}

/// Another database of ours, with one limit in it.
fn other(folder: &Path, id: &str) -> PathBuf {
    let backend = Backend::named("a");
    let setup = Setup::auto().backend(backend.address());
    let mut balancer = setup.start();
    balancer.limit(id, 7, 0);
    balancer.proc.signal(rustix::process::Signal::TERM);
    assert!(balancer.proc.wait().success());
    let to = folder.join("other.db");
    fs::copy(setup.folder().join("balancer.db"), &to).expect("copied");
    to
}

#[test]
fn a_deleted_file_is_made_anew_with_all_that_it_held() {
    let bench = Bench::new();
    fs::remove_file(&bench.path).expect("there");
    bench.said("is gone: it was deleted or moved away");
    bench.said("was opened again");
    bench.recovers();
}

#[test]
fn changes_go_on_under_a_file_that_is_deleted_and_none_is_answered_into_nowhere() {
    let mut bench = Bench::new();
    for round in 0..3 {
        fs::remove_file(&bench.path).expect("there");
        // Each is answered 201, or 503 with what became of it.
        until("changes are taken", || {
            let answer = bench.create();
            if answer.status != 201 {
                let detail = answer.problem(503)["detail"].as_str().unwrap_or_default().to_owned();
                assert!(
                    detail.contains("nothing was changed") || detail.contains("unknown"),
                    "{round}: {detail}"
                );
            }
            (bench.path.exists() && answer.status == 201).then_some(())
        });
    }
    bench.recovers();
}

#[test]
fn a_database_deleted_with_its_log_and_its_folder_is_made_anew() {
    let bench = Bench::new();
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(bench.beside(end)).expect("there");
    }
    bench.said("was opened again");
    bench.recovers();

    let bench = Bench::new();
    fs::remove_dir_all(bench.path.parent().expect("a folder")).expect("there");
    bench.said("was opened again");
    bench.recovers();

    let bench = Bench::new();
    let folder = bench.path.parent().expect("a folder").to_owned();
    fs::rename(&folder, folder.with_extension("old")).expect("renamed");
    bench.said("was opened again");
    bench.recovers();
}

/// A folder that comes back within a second: nothing is made anew.
#[test]
fn a_folder_that_was_away_for_a_moment_is_the_same() {
    // On a busy machine it may come back too late, but not every time.
    for _ in 0..5 {
        let bench = Bench::new();
        let folder = bench.path.parent().expect("a folder").to_owned();
        fs::rename(&folder, folder.with_extension("old")).expect("renamed");
        bench.said("is gone");
        if fs::rename(folder.with_extension("old"), &folder).is_err() {
            continue;
        }
        let came = |line: &str| line.contains("is there again") || line.contains("was opened again");
        let (_, line) = bench.balancer.proc.wait_err(0, "what came of it", came);
        if line.contains("is there again") {
            return bench.recovers();
        }
    }
    panic!("a folder that came back was not taken for the same");
}

#[test]
fn a_log_or_a_shared_memory_without_a_name_loses_nothing() {
    for end in ["-wal", "-shm"] {
        let bench = Bench::new();
        fs::remove_file(bench.beside(end)).expect("there");
        bench.said(&format!("limits.db{end} is gone or was replaced"));
        bench.said("was opened again");
        bench.recovers();
    }
}

#[test]
fn an_empty_file_in_its_place_is_filled_with_what_it_held() {
    let bench = Bench::new();
    let empty = bench.setup.folder().join("empty");
    fs::write(&empty, "").expect("written");
    fs::rename(&empty, &bench.path).expect("renamed");
    bench.said("was emptied");
    bench.recovers();
}

/// A backup that is put back: what it holds is in force, and what it does not hold is not.
#[test]
fn another_database_of_ours_is_used_from_then_on() {
    for linked in [false, true] {
        let mut bench = Bench::new();
        let there = other(bench.setup.folder(), "127.0.0.77");
        let new = bench.setup.folder().join("new");
        if linked {
            symlink(&there, &new).expect("a link");
        } else {
            fs::rename(&there, &new).expect("renamed");
        }
        fs::rename(&new, &bench.path).expect("renamed");
        bench.said("was replaced by another one");
        bench.said("was opened again");
        until("its limits are in force", || {
            let limit = bench.balancer.get_from("127.0.0.77", "/").expect(200).field("ratelimit")?.to_owned();
            limit.contains("client").then_some(())
        });
        bench.balancer.api("GET", "/limits/get?client_id=id-3", &Value::Null).problem(404);
        until("what it does not hold is not", || {
            (bench.balancer.get_from("127.0.0.66", "/").status == 200).then_some(())
        });
        // The write-ahead log of the old file was not applied to the new one.
        bench.created = vec!["127.0.0.77".into()];
        bench.create().expect(201);
        bench.balancer.proc.kill();
        bench.balancer = bench.setup.start();
        let listed = bench.balancer.api("GET", "/limits", &Value::Null).expect(200).json();
        assert_eq!(listed["limits"].as_array().map(Vec::len), Some(2), "{listed}");
    }
}

/// What can't be used is said, changes are refused, and a right file in its place is used at once.
#[test]
fn what_is_no_database_of_ours_is_refused_until_a_right_one_stands_there() {
    type Act = fn(&Path);
    let cases: [(&str, &str, Act); 4] = [
        ("a folder", "something else", |path| {
            fs::remove_file(path).expect("there");
            fs::create_dir(path).expect("made");
        }),
        ("a link to nothing", "is a link to nothing", |path| {
            fs::remove_file(path).expect("there");
            symlink("nowhere.db", path).expect("a link");
        }),
        ("text", "not a database", |path| {
            let text = path.with_extension("txt");
            fs::write(&text, "neither a header nor anything else of a database").expect("written");
            fs::rename(text, path).expect("renamed");
        }),
        ("somebody else's database", "holds no limits", |path| {
            let theirs = path.with_extension("theirs");
            rusqlite::Connection::open(&theirs)
                .and_then(|file| file.execute_batch("CREATE TABLE theirs (x)"))
                .expect("made");
            fs::rename(theirs, path).expect("renamed");
        }),
    ];
    for (what, words, act) in cases {
        let mut bench = Bench::new();
        let kept = bench.setup.folder().join("kept.db");
        rusqlite::Connection::open(&bench.path)
            .and_then(|file| file.execute("VACUUM INTO ?1", [kept.to_str().expect("UTF-8")]))
            .expect("a backup");
        act(&bench.path);
        bench.said(words);
        until("it is down", || (bench.word() == "down").then_some(()));
        let detail = bench.create().problem(503)["detail"].to_string();
        assert!(detail.contains("nothing was changed"), "{what}: {detail}");
        let asked = bench.balancer.api("GET", "/limits", &Value::Null).problem(503)["detail"].to_string();
        assert!(!asked.contains("changed"), "{what}: a question changes nothing: {asked}");
        bench.memory_is_in_force();
        assert!(!bench.path.with_file_name("nowhere.db").exists(), "nothing is made through a link");
        if bench.path.is_dir() {
            fs::remove_dir(&bench.path).expect("empty");
        }
        fs::rename(&kept, &bench.path).expect("renamed");
        bench.recovers();
    }
}

/// Truncated in place, the file is the same and what it held is lost: that is said, and a backup is used.
#[test]
fn a_file_that_was_emptied_in_place_is_said_and_a_backup_is_used() {
    let bench = Bench::new();
    let kept = bench.setup.folder().join("kept.db");
    rusqlite::Connection::open(&bench.path)
        .and_then(|file| file.execute("VACUUM INTO ?1", [kept.to_str().expect("UTF-8")]))
        .expect("a backup");
    fs::File::options().write(true).truncate(true).open(&bench.path).expect("there");
    bench.said("was emptied");
    bench.said("move a backup to its place");
    until("it is down", || (bench.word() == "down").then_some(()));
    bench.memory_is_in_force();
    fs::rename(&kept, &bench.path).expect("renamed");
    bench.recovers();
}

#[test]
fn a_database_on_a_file_system_without_the_right_to_write_is_read_only() {
    let backend = Backend::named("a");
    let setup = Setup::auto().backend(backend.address());
    let small = setup.folder().join("small");
    let Some(holder) = small_disk(&small, 4096) else { return };
    let pid = holder.pid().to_string();
    let mut bench = Bench::of(setup.with_mounts_of(holder.pid()), backend);
    let there = format!("/proc/{pid}/root{}/limits.db", small.display());
    let copy = bench.setup.folder().join("copy.db");
    rusqlite::Connection::open(&bench.path)
        .and_then(|file| file.execute("VACUUM INTO ?1", [copy.to_str().expect("UTF-8")]))
        .expect("a copy");
    // Copied by us: in this path SQLite would follow the link `root`, which leads to another place for it.
    fs::copy(&copy, &there).expect("copied");
    let small = small.to_str().expect("UTF-8");
    let enter = ["-t", &pid, "-m", "mount", "-o", "remount,ro", small];
    let done = std::process::Command::new("nsenter").args(enter).status().expect("it runs");
    assert!(done.success());
    let link = bench.setup.folder().join("link");
    symlink(format!("{small}/limits.db"), &link).expect("a link");
    fs::rename(&link, &bench.path).expect("renamed");
    bench.said("was opened again");
    bench.create().problem(503);
    until("it is read-only", || (bench.word() == "read-only").then_some(()));
    bench.said("the database is read-only");
    bench.balancer.api("GET", "/limits/get?client_id=id-3", &Value::Null).expect(200);
    bench.memory_is_in_force();
    // Where it may be written again, it is.
    fs::rename(&copy, &bench.path).expect("renamed");
    bench.recovers();
}
