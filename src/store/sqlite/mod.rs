//! Limits in one SQLite file, which is the default. It uses write-ahead logging, so that readers never wait for the writer, and
//! `synchronous = FULL`, so that a change is on the disk before it is answered.

mod place;
mod poll;
mod pool;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params_from_iter};
use rustix::fs::{StatVfs, StatVfsMountFlags};

use super::StartError;
use super::session::{Access, Cell, Cells, Dialect, Listener, Session, SqlValue, Store, Work};
use crate::clock::Clock;
use crate::store::{CallOutcome, StoreError, StoreState};
use place::Place;
use pool::SqlitePool;

/// A file and its connections.
pub struct Sqlite {
    pool: Arc<SqlitePool>,
}

static DIALECT: Dialect = Dialect {
    name: "SQLite",
    migrations: &[
        include_str!("../../../sql/sqlite/0001_limits.sql"),
        include_str!("../../../sql/sqlite/0002_plans.sql"),
        include_str!("../../../sql/sqlite/0003_backends.sql"),
        include_str!("../../../sql/sqlite/0004_budget_key.sql"),
        include_str!("../../../sql/sqlite/0005_per_instance.sql"),
        include_str!("../../../sql/sqlite/0006_backend_titles.sql"),
        include_str!("../../../sql/sqlite/0007_importance.sql"),
    ],
    read_only: None,
    create_migrations: "CREATE TABLE balancer_migrations (number INTEGER PRIMARY KEY, applied_at TEXT NOT NULL \
        DEFAULT CURRENT_TIMESTAMP)",
    find_migrations: "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'balancer_migrations'",
    columns: "SELECT t.name || '.' || c.name || ' ' || lower(c.type) FROM sqlite_schema t, pragma_table_info(t.name) c \
        WHERE t.type = 'table' AND t.name IN ('limits', 'changes', 'plans', 'audit', 'instance_state', 'backends')",
    expected: &[
        "limits.canonical text",
        "limits.client_id text",
        "limits.kind integer",
        "limits.address blob",
        "limits.port integer",
        "limits.plan text",
        "limits.buckets text",
        "limits.max_in_flight integer",
        "limits.exempt integer",
        "limits.shared integer",
        "limits.per_instance integer",
        "limits.weight integer",
        "limits.priority text",
        "limits.version integer",
        "changes.seq integer",
        "changes.kind text",
        "changes.id text",
        "plans.name text",
        "plans.buckets text",
        "plans.max_in_flight integer",
        "plans.weight integer",
        "plans.priority text",
        "plans.version integer",
        "audit.seq integer",
        "audit.at_us integer",
        "audit.actor text",
        "audit.action text",
        "audit.target text",
        "audit.before text",
        "audit.after text",
        "instance_state.instance text",
        "instance_state.segment integer",
        "instance_state.bytes blob",
        "instance_state.saved_at_us integer",
        "backends.name text",
        "backends.settings text",
        "backends.version integer",
    ],
};

impl Sqlite {
    /// Opens the file, or makes it with its folders. A file that another process has locked is no error.
    ///
    /// # Errors
    /// When the file can't be read or written, or is not a database.
    pub fn open(path: &Path, pool_size: u32, timeout: Duration) -> Result<Self, StartError> {
        let wrong = |error: &dyn std::fmt::Display| {
            StartError::System(format!("the database file {} can't be used: {error}", path.display()))
        };
        let place = Place::new(path);
        place.make().map_err(|error| wrong(&error))?;
        let pool = Arc::new(SqlitePool::new(Some(place), pool_size, timeout, Clock::real()));
        match pool.get(timeout).map(drop) {
            // `Refused`: another process has locked it.
            Ok(()) | Err(StoreError::Refused { .. }) => Ok(Self { pool }),
            Err(fault) => Err(wrong(&fault)),
        }
    }

    /// A database in memory, which is lost when the process ends.
    pub fn in_memory(timeout: Duration) -> Self {
        Self { pool: Arc::new(SqlitePool::new(None, 1, timeout, Clock::real())) }
    }

    fn work(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError> {
        let mut lent = self.pool.get(within)?;
        // The file may have been replaced while the connection was idle.
        self.pool.check()?;
        let connection = lent.as_mut().ok_or_else(|| StoreError::down("no connection"))?;
        connection.busy_timeout(within).map_err(fault)?;
        if access == Access::Read {
            return work(&mut Open(connection));
        }
        // SQLite allows only one writer at a time. So numbers of changes are committed in order, and migrations exclude
        // each other and all writes.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        work(&mut Open(&transaction))?;
        transaction.commit().map_err(|error| fault(error).in_commit())?;
        // What was written to a file that is gone does not count as done.
        self.pool.check().map_err(StoreError::in_commit)
    }

    /// Finds out whether the file system is full or read-only, which SQLite sometimes reports as errors of reading or writing.
    fn judged(&self, fault: StoreError) -> StoreError {
        let StoreError::Unavailable { cause, outcome: CallOutcome::NotDone } = fault else { return fault };
        let folder = self.pool.place().and_then(|place| place.path().parent());
        on_system(cause, folder.and_then(|folder| rustix::fs::statvfs(folder).ok()))
    }
}

/// What it means that something was not done on that file system; `None`: in memory, or it does not answer either.
fn on_system(cause: String, system: Option<StatVfs>) -> StoreError {
    match system {
        Some(system) if system.f_flag.contains(StatVfsMountFlags::RDONLY) => {
            StoreError::Refused { state: StoreState::ReadOnly, cause }
        }
        Some(system) if system.f_bavail == 0 => StoreError::Refused { state: StoreState::Full, cause },
        _ => StoreError::down(cause),
    }
}

fn prepare(connection: &mut Connection, timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(timeout)?;
    match connection.execute_batch("PRAGMA journal_mode = WAL;") {
        // It can still be read.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {}
        other => other?,
    }
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA journal_size_limit = 16777216; \
         PRAGMA foreign_keys = ON;",
    )?;
    // Reads the first page of the file, which fails if it is not a database.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

impl Store for Sqlite {
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError> {
        self.work(within, access, work).map_err(|fault| self.judged(fault))
    }

    fn renew(&self, within: Duration) -> Result<bool, StoreError> {
        self.pool.renew(self, within)
    }

    fn close(&self) {
        self.pool.close();
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::new(poll::Poll(Arc::clone(&self.pool)))
    }

    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }
}

struct Open<'a>(&'a Connection);

impl Session for Open<'_> {
    fn query(&mut self, sql: &str, values: &[SqlValue<'_>]) -> Result<Cells, StoreError> {
        let mut statement = self.0.prepare_cached(sql).map_err(fault)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(values)).map_err(fault)?;
        let mut cells = Cells::new();
        while let Some(row) = rows.next().map_err(fault)? {
            let cell = |at| match row.get_ref(at).map_err(fault)? {
                ValueRef::Null => Ok(Cell::Null),
                ValueRef::Integer(number) => Ok(Cell::Int(number)),
                ValueRef::Text(text) => {
                    Ok(std::str::from_utf8(text).map_or(Cell::Strange, |text| Cell::Text(text.to_owned())))
                }
                ValueRef::Blob(bytes) => Ok(Cell::Bytes(bytes.to_vec())),
                ValueRef::Real(_) => Ok(Cell::Strange),
            };
            cells.push((0..columns).map(cell).collect::<Result<_, _>>()?);
        }
        Ok(cells)
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.0.execute_batch(sql).map_err(fault)
    }

    fn copy(&mut self, table: &str, columns: &[&str], values: &[SqlValue<'_>]) -> Result<(), StoreError> {
        let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
        let mut statement = self.0.prepare_cached(&sql).map_err(fault)?;
        for row in values.chunks(columns.len().max(1)) {
            statement.execute(params_from_iter(row)).map_err(fault)?;
        }
        Ok(())
    }

    fn stage(&self) -> &'static str {
        "CREATE TEMP TABLE incoming (canonical TEXT NOT NULL PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, \
         kind INTEGER NOT NULL, address BLOB, port INTEGER, plan TEXT, buckets TEXT NOT NULL, \
         max_in_flight INTEGER, exempt INTEGER NOT NULL, shared INTEGER NOT NULL, per_instance INTEGER NOT NULL, \
         weight INTEGER, priority TEXT)"
    }

    fn now_us(&self) -> &'static str {
        "(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000)"
    }

    fn announce(&self) -> &'static str {
        ""
    }
}

impl rusqlite::ToSql for SqlValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::OptionalText(text) => text.to_sql(),
            Self::Int(number) => number.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

fn fault(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Refused {
            state: StoreState::Up,
            cause: format!("another process holds the database file: {error}"),
        },
        Some(ErrorCode::DiskFull) => {
            StoreError::Refused { state: StoreState::Full, cause: error.to_string() }
        }
        Some(ErrorCode::ReadOnly) => {
            StoreError::Refused { state: StoreState::ReadOnly, cause: error.to_string() }
        }
        // `Unknown` is SQLITE_ERROR: a statement names a table or a column that does not exist.
        Some(ErrorCode::NotADatabase | ErrorCode::Unknown) => StoreError::Schema(error.to_string()),
        _ => match error {
            // The same, found when the statement is prepared. The error's full text would repeat the statement.
            rusqlite::Error::SqlInputError { msg, .. } => StoreError::Schema(msg),
            other => StoreError::down(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests;
