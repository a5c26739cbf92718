//! Where limits are kept: in memory and in one of two databases. A few threads talk to the database; everything else asks
//! [`Limits`]. No request waits for a database longer than `cache.load_timeout`.

mod apply;
pub mod backends;
mod book;
mod breaker;
pub mod cache;
mod core;
mod error;
mod follow;
pub mod json;
pub mod levels;
mod limits;
mod migrate;
mod ops;
mod postgres;
mod resets;
mod session;
mod sqlite;
mod stored;
mod threads;
pub mod v1;
mod watch;

#[cfg(test)]
mod tests;

pub use error::{CallOutcome, StoreError};
pub use limits::{BudgetChannel, Limits, Sources};
pub use session::{Notifier, Opened, Unopened, retry_after};

use balancer_limiter::limit::Limit;

/// A stored limit as the calls under `/limits` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The id as it was given when it was created.
    pub client_id: String,
    /// The numbers of its first bucket, or of its plan's first; for a client that is exempt and has none, the highest.
    pub limit: Limit,
    /// Its version, from one sequence for all rows of a database: every write gives the row a new one, and none is used twice.
    pub version: i64,
}

/// The state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It answers, and takes changes.
    Up,
    /// It answers, and takes no changes.
    ReadOnly,
    /// It answers, and has no room for changes.
    Full,
    /// It does not answer. What memory knows stays in force.
    Down,
}

impl StoreState {
    /// The words of all states.
    pub const WORDS: [&'static str; 4] = ["up", "read-only", "full", "down"];

    /// The word for it in the API and the log.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// Why the process must not start with this database. A database that is only down is not such a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// `database.url` can't be used; the text quotes no password.
    Url(String),
    /// The database is newer than this program, or holds something else.
    Schema(String),
    /// The SQLite file can't be opened, or the system gave no thread.
    System(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(text) => write!(f, "database.url {text}"),
            Self::Schema(text) | Self::System(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

/// Logs failed attempts to connect, which `r2d2` reports one by one, at `debug` only: the breaker logs once that the
/// database is down.
#[derive(Debug)]
struct QuietErrors;

impl<E: std::error::Error> r2d2::HandleError<E> for QuietErrors {
    fn handle_error(&self, error: E) {
        log::debug!("store: no connection: {error}");
    }
}
