//! Hard times at the front door, for the engine that has to survive them: thousands of slow clients, backends that hang, no
//! descriptors, thousands of open streams. Every drill checks that its fault really happened, and that all other clients
//! were served meanwhile.
//!
//! - `backends`, `store`, `clock`, `ends`: what is behind the process, or the process itself, fails under steady `traffic`.
//! - `crowd`: thousands of clients on one thread; `farm`: a backend with thousands of connections on one thread; `normal`:
//!   clients that must not notice anything.

mod backends;
mod chaos;
mod clock;
mod connections;
mod crowd;
mod disk;
mod door;
mod early;
mod ends;
mod events;
mod farm;
mod hangs;
mod leaving;
mod long;
mod loops;
mod normal;
mod order;
mod pending;
mod proxy_protocol;
mod quiet;
mod silence;
mod slow;
pub(crate) mod store;
mod traffic;
mod upgrades;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{Conn, Engine, Fault, PATIENCE, Setup, aloud};

/// The drills that open thousands of connections come one after the other: together they would need more open files
/// than there are.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process, and one started by it, may have that many open files. Says aloud when not.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < files {
        aloud(&format!("skipped: {files} open files are needed, {allowed} are allowed (ulimit -n)"));
    }
    allowed >= files
}

/// Whether the other side has neither ended a connection nor sent anything on it.
fn is_open(conn: &mut Conn) -> bool {
    conn.wait_at_most(Duration::from_millis(1));
    let open = matches!(conn.read_head("GET"), Err(Fault::TimedOut));
    conn.wait_at_most(PATIENCE);
    open
}

/// The `epoll` engine without a bound on the connections from this machine.
fn setup() -> Setup {
    Setup::on(Engine::Epoll)
        .set("frontend.max_connections", json!(18_000))
        .set("frontend.max_connections_per_ip", json!(18_000))
}
