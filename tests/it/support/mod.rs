//! The tools of the tests: the real programs in temporary folders on port 0, clients and backends for exact bytes, and a
//! PostgreSQL server that is started for the tests. Nothing here waits for a time. Everything waits for a condition, which
//! fails the test if it does not come within [`PATIENCE`].

pub mod backend;
pub mod balancer;
pub mod browser;
pub mod client;
pub mod engine;
pub mod frames;
pub mod gate;
pub mod load;
pub mod names;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod response;
pub mod secure;
pub mod terminal;
pub mod tls_ends;
pub mod watchdog;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

pub use backend::{Backend, Then};
pub use balancer::{Balancer, Setup};
pub use browser::Browser;
pub use client::{Conn, Fault, Framing, Response, get, request};
pub use engine::Engine;
pub use gate::Gate;
pub use load::Load;
pub use ports::reserved;
pub use postgres::{Database, Store};
pub use process::Proc;
pub use terminal::terminal;

/// How long a condition may take to come true. It is long because the machine may be busy, and only failures wait so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` returns something; fails with `what` after [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs statements in a database; for SQLite, in the file in that folder.
pub fn execute(database: &Database, folder: &Path, sql: &str) {
    match database.store {
        Store::Sqlite => {
            let file = rusqlite::Connection::open(folder.join("balancer.db")).unwrap();
            file.execute_batch(sql).unwrap();
        }
        Store::Postgres => {
            let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
            client.batch_execute(sql).unwrap();
        }
    }
}

/// Writes to stderr past the test runner, which would hide it: what was skipped, and why.
pub fn aloud(text: &str) {
    // Not by a macro: libtest captures only what macros print.
    let _ = writeln!(std::io::stderr(), "it: {text}");
}

/// Whether this runs in CI, where some tests fail that may be skipped elsewhere.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether a program is in `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Says that a test is skipped, since the machine lacks what it needs; fails the test if that variable is `1`.
#[track_caller]
pub fn skip(variable: &str, missing: &str, skipped: &str) {
    let required = std::env::var(variable).is_ok_and(|value| value == "1");
    assert!(!required, "{variable}=1, and {missing}");
    aloud(skipped);
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A new named pipe, opened for both directions, so that opening does not wait for another program.
pub fn pipe(path: &Path) -> std::fs::File {
    let status = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo starts");
    assert!(status.success());
    std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opened")
}

/// The indented block after a mark in a page of `docs/`.
pub fn block(page: &str, mark: &str) -> String {
    let text = std::fs::read_to_string(root().join("docs").join(page)).expect(page);
    let (_, rest) = text.split_once(&format!("<!-- run: {mark} -->\n\n")).expect("the mark");
    indented(rest)
}

/// The lines that a text begins with, as far as four blanks are before each, without these.
pub fn indented(text: &str) -> String {
    text.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}
