//! `database`, checked.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `database`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Database {
    pub url: DatabaseUrl,
    /// Where changes by other instances are heard of, in PostgreSQL; `None`: by [`Database::url`].
    pub listen_url: Option<Secret>,
    /// Connections, and store threads.
    pub pool_size: usize,
    /// The longest that an API call waits.
    pub timeout: Duration,
}

/// `database.url`.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file, made when missing, with its folders. Absolute, or relative to the working directory.
    Sqlite(PathBuf),
    /// SQLite in memory, gone with the process: `run --to` without `--data`. No URL means it.
    Memory,
    /// `postgres://…` or `postgresql://…`, with its password: a secret.
    Postgres(Secret),
}
