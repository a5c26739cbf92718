//! Where limits are kept: one trait, two databases, a few threads that alone talk to them, and a façade in front.
//! Nothing on the request path waits for a database longer than `cache.load_timeout`.

mod apply;
pub mod backends;
mod book;
mod breaker;
pub mod cache;
mod core;
mod follow;
pub mod json;
pub mod levels;
mod limits;
mod migrate;
mod ops;
mod postgres;
mod session;
mod sqlite;
mod stored;
mod threads;
pub mod v1;
mod watch;

#[cfg(test)]
mod tests;

pub use limits::{Limits, Sources};

use balancer_limiter::limit::Limit;

/// A stored limit as the five fixed calls show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The id as it was given when it was created.
    pub client_id: String,
    /// The numbers of its first bucket, or of its plan's; for a client that is exempt and has none, the highest.
    pub limit: Limit,
    /// From one sequence for all rows of a database; every write gives the row a new one, and none is used twice.
    pub version: i64,
}

/// Why a call to the store came to nothing. Causes are for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No limit for that id, or for one of equal value.
    NotFound,
    /// There is one already, for that id or for one of equal value.
    Exists,
    /// A bound is reached; the text says which, and is fit for the client.
    Full(&'static str),
    /// A condition of the caller does not hold: the row has another version, is there, or is not.
    Precondition,
    /// The limit names a plan that is not there.
    NoPlan,
    /// That many limits name the plan.
    InUse(u64),
    /// The database could not be asked, or did not answer in time.
    Unavailable {
        /// For the log.
        cause: String,
        /// A write may have been committed all the same.
        outcome_unknown: bool,
    },
    /// The same of a question, which changes nothing whatever becomes of it.
    Unread {
        /// For the log.
        cause: String,
    },
}

/// What the database does now.
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
    /// All of their words.
    pub const WORDS: [&'static str; 4] = ["up", "read-only", "full", "down"];

    /// As the API and the log say it.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl StoreError {
    /// The same of a question.
    pub fn of_question(self) -> Self {
        match self {
            Self::Unavailable { cause, .. } => Self::Unread { cause },
            other => other,
        }
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such limit"),
            Self::Exists => f.write_str("there is such a limit already"),
            Self::Full(what) => f.write_str(what),
            Self::Precondition => f.write_str("it has changed in the meantime"),
            Self::NoPlan => f.write_str("there is no such plan"),
            Self::InUse(count) => write!(f, "{count} limits name this plan"),
            Self::Unread { cause } => f.write_str(cause),
            Self::Unavailable { cause, outcome_unknown } => {
                f.write_str(cause)?;
                f.write_str(if *outcome_unknown { " (it may have been done all the same)" } else { "" })
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the process must not start on this database. A database that is down is no such reason.
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

/// `r2d2` reports each failed attempt to connect; the breaker says once what that means.
#[derive(Debug)]
struct QuietErrors;

impl<E: std::error::Error> r2d2::HandleError<E> for QuietErrors {
    fn handle_error(&self, error: E) {
        log::debug!("store: no connection: {error}");
    }
}
