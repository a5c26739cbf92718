//! Limits in PostgreSQL, by `r2d2` and the blocking `postgres` crate, which runs tokio inside itself. Every connection has
//! a deadline ([`timed`]), and is dropped when anything went wrong on it.

mod connect;
mod copy;
mod listen;
mod notify;
mod timed;
mod tls;
mod url;

use std::sync::Arc;
use std::time::Duration;

use postgres::Config;
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use r2d2::{Pool, PooledConnection};

use super::StartError;
use super::session::{Access, Cell, Cells, Dialect, Listener, Notifier, Session, SqlValue, Store, Work};
use crate::clock::Clock;
use crate::config::Secret;
use crate::store::{StoreError, StoreState};
use connect::{Connection, Connector, Failures};
use tls::Security;
use url::Target;

/// A server and its connections.
pub struct Postgres {
    pool: Pool<Connector>,
    failures: Arc<Failures>,
    clock: Clock,
    /// How to connect to the server itself, past a pooler.
    listening: (Config, Security, Duration),
}

/// How often a caller that waits for a connection checks whether the server can be reached at all.
const LOOK: Duration = Duration::from_millis(20);

static DIALECT: Dialect = Dialect {
    name: "PostgreSQL",
    migrations: &[
        include_str!("../../../sql/postgres/0001_limits.sql"),
        include_str!("../../../sql/postgres/0002_plans.sql"),
        include_str!("../../../sql/postgres/0003_backends.sql"),
        include_str!("../../../sql/postgres/0004_budget_key.sql"),
        include_str!("../../../sql/postgres/0005_per_instance.sql"),
        include_str!("../../../sql/postgres/0006_backend_titles.sql"),
        include_str!("../../../sql/postgres/0007_importance.sql"),
    ],
    read_only: Some("SELECT 1 WHERE current_setting('transaction_read_only') = 'on'"),
    create_migrations: "CREATE TABLE balancer_migrations (number bigint PRIMARY KEY, applied_at timestamptz NOT NULL \
        DEFAULT now())",
    // Reads the catalogue. `to_regclass` would answer from a cache that is not refreshed while an instance waits for the
    // lock, so that the second of two instances would make the table again.
    find_migrations: "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'balancer_migrations' \
                      AND relkind = 'r' AND pg_catalog.pg_table_is_visible(oid)",
    columns: "SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, NULL) FROM pg_attribute a \
        JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped \
        AND a.attrelid IN (to_regclass('limits'), to_regclass('changes'), to_regclass('plans'), to_regclass('audit'), \
        to_regclass('instance_state'), to_regclass('backends'), to_regclass('budget_key'))",
    expected: &[
        "limits.canonical text",
        "limits.client_id text",
        "limits.kind smallint",
        "limits.address bytea",
        "limits.port integer",
        "limits.plan text",
        "limits.buckets text",
        "limits.max_in_flight integer",
        "limits.exempt boolean",
        "limits.shared boolean",
        "limits.per_instance boolean",
        "limits.weight integer",
        "limits.priority text",
        "limits.version bigint",
        "changes.seq bigint",
        "changes.kind text",
        "changes.id text",
        "plans.name text",
        "plans.buckets text",
        "plans.max_in_flight integer",
        "plans.weight integer",
        "plans.priority text",
        "plans.version bigint",
        "audit.seq bigint",
        "audit.at_us bigint",
        "audit.actor text",
        "audit.action text",
        "audit.target text",
        "audit.before text",
        "audit.after text",
        "instance_state.instance text",
        "instance_state.segment smallint",
        "instance_state.bytes bytea",
        "instance_state.saved_at_us bigint",
        "backends.name text",
        "backends.settings text",
        "backends.version bigint",
        "budget_key.key bytea",
    ],
};

/// Tells the instances that listen the number of the last change.
const ANNOUNCE: &str = "SELECT pg_notify('balancer_changes', $1)";

/// Numbers of advisory locks: "balancer" in ASCII, and the next number.
const WRITERS_LOCK: i64 = 0x6261_6c61_6e63_6572;
const MIGRATIONS_LOCK: i64 = WRITERS_LOCK + 1;

impl Postgres {
    /// Reads the URL and the certificates that it names. Connections are made in the background, so a server that is down
    /// is no error.
    pub fn open(
        url: &Secret,
        listen_url: Option<&Secret>,
        pool_size: u32,
        timeout: Duration,
    ) -> Result<Self, StartError> {
        let read = |url: &Secret| {
            let target = Target::parse(url.reveal(), timeout)?;
            Ok((target.config, Security::new(target.mode, &target.root)?, timeout))
        };
        let (config, security, _) = read(url).map_err(StartError::Url)?;
        let wrong = |text: String| StartError::System(format!("database.listen_url {text}"));
        let listening = read(listen_url.unwrap_or(url)).map_err(wrong)?;
        let failures = Arc::new(Failures::default());
        let manager = Connector { config, security, timeout, failures: Arc::clone(&failures) };
        let pool = Pool::builder()
            .max_size(pool_size)
            .test_on_check_out(false)
            // The longest pause between two attempts to connect is half of this.
            .connection_timeout(timeout.clamp(Duration::from_millis(100), Duration::from_secs(1)))
            .error_handler(Box::new(super::QuietErrors))
            .build_unchecked(manager);
        Ok(Self { pool, failures, clock: Clock::real(), listening })
    }

    /// What connects to the server itself, past a pooler.
    fn direct(&self) -> Connector {
        let (config, security, timeout) = self.listening.clone();
        Connector { config, security, timeout, failures: Arc::default() }
    }

    /// A connection from the pool. When there is none, and an attempt to make one fails meanwhile, this fails at once.
    fn connection(&self, within: Duration) -> Result<PooledConnection<Connector>, StoreError> {
        let started = self.clock.now();
        let (known, _) = self.failures.last();
        loop {
            let spent = Duration::from_nanos(self.clock.now().saturating_sub(started));
            let left = within.saturating_sub(spent);
            if let Ok(connection) = self.pool.get_timeout(left.min(LOOK)) {
                return Ok(connection);
            }
            let (failures, cause) = self.failures.last();
            let none = self.pool.state().connections == 0;
            if none && failures != known {
                return Err(StoreError::down(format!("no connection: {cause}")));
            }
            if left <= LOOK {
                let cause = if none && failures > 0 { &cause } else { "none was free in time" };
                return Err(StoreError::down(format!("no connection: {cause}")));
            }
        }
    }

    /// Does the work on one connection.
    fn attempt(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Attempt {
        let started = self.clock.now();
        let mut connection = match self.connection(within) {
            Ok(connection) => connection,
            Err(fault) => return Attempt::Over(Err(fault)),
        };
        let waited = Duration::from_nanos(self.clock.now().saturating_sub(started));
        connection.deadline.set(within.saturating_sub(waited));
        // Until the work has ended well, so that it is dropped after a panic.
        connection.spoilt = true;
        connection.outdated = false;
        let attempt = run(&mut connection, within, access, work);
        connection.deadline.clear();
        connection.spoilt = match &attempt {
            Attempt::Over(Err(StoreError::Unavailable { .. })) | Attempt::Stale(_) => true,
            Attempt::Over(_) => connection.outdated,
        };
        attempt
    }
}

enum Attempt {
    /// The work has ended.
    Over(Result<(), StoreError>),
    /// The connection was dead before anything was changed; another one may work.
    Stale(StoreError),
}

/// How long the server may work on one statement of a call that may take `within`, in ms: three quarters of it, and at
/// least 1, since 0 would be for ever.
fn patience_ms(within: Duration) -> u128 {
    (within.as_millis() * 3 / 4).max(1)
}

fn run(
    connection: &mut PooledConnection<Connector>,
    within: Duration,
    access: Access,
    work: &mut Work<'_>,
) -> Attempt {
    let lock = match access {
        Access::Read => {
            let result = work(&mut **connection);
            return match result {
                Err(fault @ StoreError::Unavailable { .. }) if !connection.deadline.missed() => {
                    Attempt::Stale(fault)
                }
                other => Attempt::Over(other),
            };
        }
        Access::Write => WRITERS_LOCK,
        Access::Migrate => MIGRATIONS_LOCK,
    };
    // The lock is held until the end of the transaction. The server ends a statement earlier than this side would give up,
    // because then it is known that nothing was done.
    let millis = patience_ms(within);
    let begin =
        format!("BEGIN; SET LOCAL statement_timeout = {millis}; SELECT pg_advisory_xact_lock({lock})");
    if let Err(error) = connection.client.batch_execute(&begin) {
        return match fault(&error) {
            // Nothing was written yet, so it can be done on another connection.
            down @ StoreError::Unavailable { .. } if !connection.deadline.missed() => Attempt::Stale(down),
            other => Attempt::Over(rolled_back(connection, other)),
        };
    }
    let result = work(&mut **connection);
    Attempt::Over(match result {
        Ok(()) => connection.client.batch_execute("COMMIT").map_err(|error| fault(&error).in_commit()),
        Err(fault) => rolled_back(connection, fault),
    })
}

/// Rolls back a transaction that failed. If that fails, too, the connection is dropped, which ends the transaction.
fn rolled_back(connection: &mut PooledConnection<Connector>, fault: StoreError) -> Result<(), StoreError> {
    if matches!(fault, StoreError::Unavailable { .. }) {
        return Err(fault);
    }
    match connection.client.batch_execute("ROLLBACK") {
        Ok(()) => Err(fault),
        Err(error) => Err(StoreError::down(chain(&error))),
    }
}

impl Store for Postgres {
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError> {
        let started = self.clock.now();
        // After a restart of the server, every connection in the pool is dead, which shows at the first use.
        let mut tries = self.pool.max_size();
        loop {
            let spent = Duration::from_nanos(self.clock.now().saturating_sub(started));
            match self.attempt(within.saturating_sub(spent), access, work) {
                Attempt::Over(result) => return result,
                Attempt::Stale(fault) if tries == 0 || spent >= within => return Err(fault),
                Attempt::Stale(_) => tries -= 1,
            }
        }
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::new(listen::Listen { connector: self.direct(), patience: self.listening.2 })
    }

    fn notifier(&self) -> Option<Box<dyn Notifier>> {
        Some(Box::new(notify::NotifyConnection::new(self.direct(), self.listening.2)))
    }

    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }
}

impl Session for Connection {
    fn query(&mut self, sql: &str, values: &[SqlValue<'_>]) -> Result<Cells, StoreError> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|value| match value {
                SqlValue::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
                SqlValue::OptionalText(text) => (text as _, Type::TEXT),
                SqlValue::Int(number) => (number as _, Type::INT8),
                SqlValue::Bytes(bytes) => (bytes as _, Type::BYTEA),
            })
            .collect();
        // Takes one round trip, and no prepared statement, which a pooler in transaction mode would lose.
        let rows = self.client.query_typed(sql, &parameters).map_err(|error| self.fault(&error))?;
        rows.iter().map(|row| (0..row.len()).map(|at| cell(row, at)).collect()).collect()
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(|error| self.fault(&error))
    }

    fn copy(&mut self, table: &str, columns: &[&str], values: &[SqlValue<'_>]) -> Result<(), StoreError> {
        let sql = format!("COPY {table} ({}) FROM STDIN", columns.join(", "));
        copy::copy(&mut self.client, &sql, values, columns.len())
    }

    fn stage(&self) -> &'static str {
        // Otherwise the planner reads all of a large table to find a few thousand rows.
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
         CREATE TEMP TABLE incoming (canonical text COLLATE \"C\" PRIMARY KEY, \
         client_id text COLLATE \"C\" NOT NULL UNIQUE, kind smallint NOT NULL, address bytea, port integer, \
         plan text COLLATE \"C\", buckets text NOT NULL, max_in_flight integer, exempt integer NOT NULL, \
         shared integer NOT NULL, per_instance integer NOT NULL, weight integer, \
         priority text COLLATE \"C\") ON COMMIT DROP"
    }

    fn now_us(&self) -> &'static str {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    }

    fn announce(&self) -> &'static str {
        ANNOUNCE
    }
}

fn cell(row: &postgres::Row, at: usize) -> Result<Cell, StoreError> {
    let kind = row.columns().get(at).map_or(&Type::UNKNOWN, postgres::Column::type_);
    let int = |number: Option<i64>| number.map_or(Cell::Null, Cell::Int);
    let read = match *kind {
        Type::INT2 => row.try_get::<_, Option<i16>>(at).map(|number| int(number.map(i64::from))),
        Type::INT4 => row.try_get::<_, Option<i32>>(at).map(|number| int(number.map(i64::from))),
        Type::INT8 => row.try_get(at).map(int),
        Type::BOOL => row.try_get::<_, Option<bool>>(at).map(|truth| int(truth.map(i64::from))),
        Type::BYTEA => {
            row.try_get::<_, Option<Vec<u8>>>(at).map(|bytes| bytes.map_or(Cell::Null, Cell::Bytes))
        }
        Type::VOID => Ok(Cell::Null),
        _ => row.try_get::<_, Option<String>>(at).map(|text| text.map_or(Cell::Null, Cell::Text)),
    };
    read.map_err(|error| {
        StoreError::Schema(format!("the database holds something else than expected: {}", chain(&error)))
    })
}

/// An error with all its causes, since the text of the crate's own error is only "db error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn fault(error: &postgres::Error) -> StoreError {
    let text = chain(error);
    // The first two characters are the class (PostgreSQL manual, appendix A).
    match error.code().map(SqlState::code) {
        // Without a code, the connection itself is broken. 08: connection broken; 57P: the server is stopping or starting.
        None => StoreError::down(text),
        Some(code) if code.starts_with("08") || code.starts_with("57P") => StoreError::down(text),
        // 42: a table, a column or a right is missing; 3F: the schema is missing.
        Some(code) if code.starts_with("42") || code.starts_with("3F") => StoreError::Schema(text),
        // read_only_sql_transaction: a standby, or a database that is set to read-only.
        Some("25006") => StoreError::Refused { state: StoreState::ReadOnly, cause: text },
        // disk_full
        Some("53100") => StoreError::Refused { state: StoreState::Full, cause: text },
        // Something is locked, or the statement was cancelled.
        Some(_) => StoreError::Refused { state: StoreState::Up, cause: text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_may_use_three_quarters_of_the_time_of_a_call() {
        for (within_ms, patience) in [(0, 1), (1, 1), (2, 1), (1_000, 750), (9_000, 6_750)] {
            assert_eq!(patience_ms(Duration::from_millis(within_ms)), patience, "{within_ms}");
        }
    }
}
