//! What the tests stand on: the real programs in temporary folders on port 0, raw clients and raw backends, a
//! throwaway PostgreSQL. Nothing here waits for a time; everything waits for a condition, with [`PATIENCE`] as the
//! moment at which a condition that never came becomes a failure.

pub mod backend;
pub mod balancer;
pub mod browser;
pub mod client;
pub mod engine;
pub mod frames;
pub mod gate;
pub mod load;
pub mod names;
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
pub use postgres::{Database, Store};
pub use process::Proc;
pub use terminal::terminal;

/// How long a condition may take to come true. Generous: the machine may be busy, and only failures wait this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something; fails with `what` after [`PATIENCE`].
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

/// Runs statements in a database; on SQLite in the file of that folder.
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

/// Says something that the test runner does not swallow: what was skipped, and why.
pub fn aloud(text: &str) {
    // Straight to the descriptor: libtest captures the print macros only.
    let _ = writeln!(std::io::stderr(), "it: {text}");
}

/// Whether CI runs this: what may be skipped elsewhere is a failure there.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether a program stands in `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What a test needs is not on the machine: it is skipped aloud, or fails where that variable is `1`.
#[track_caller]
pub fn skip(variable: &str, missing: &str, skipped: &str) {
    let required = std::env::var(variable).is_ok_and(|value| value == "1");
    assert!(!required, "{variable}=1, and {missing}");
    aloud(skipped);
}

/// The repository's root.
pub fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The indented block behind a mark in a page of `docs/`.
pub fn block(page: &str, mark: &str) -> String {
    let text = std::fs::read_to_string(root().join("docs").join(page)).expect(page);
    let (_, rest) = text.split_once(&format!("<!-- run: {mark} -->\n\n")).expect("the mark");
    rest.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}
