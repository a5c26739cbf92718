//! Connections to PostgreSQL. Each has a deadline of its own, and is dropped when anything went wrong on it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postgres::error::SqlState;
use postgres::{Client, Config};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::timed::Deadline;
use super::tls::Security;
use super::{chain, fault, patience_ms};
use crate::store::StoreError;

/// A connection and what is known about it.
pub struct Connection {
    pub client: Client,
    pub deadline: Arc<Deadline>,
    /// It must not be used again.
    pub spoilt: bool,
    /// Its server is read-only. After a failover, a new connection may lead to a host that takes writes.
    pub outdated: bool,
}

impl Connection {
    /// Turns an error on this connection into an error of the store.
    pub fn fault(&mut self, error: &postgres::Error) -> StoreError {
        self.outdated |= error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
        fault(error)
    }
}

/// Makes connections through `r2d2_postgres`, each with a deadline of its own.
pub struct Connector {
    pub config: Config,
    pub security: Security,
    pub timeout: Duration,
    pub failures: Arc<Failures>,
}

impl Connector {
    /// Makes a new connection.
    pub fn dial(&self) -> Result<Connection, postgres::Error> {
        let deadline = Deadline::none();
        let connector = self.security.connector(Arc::clone(&deadline), self.timeout);
        let manager = PostgresConnectionManager::new(self.config.clone(), connector);
        let mut client = manager.connect()?;
        let (statement, idle) = (patience_ms(self.timeout), self.timeout.as_millis() + 1000);
        client.batch_execute(&format!(
            "SET statement_timeout = {statement}; SET idle_in_transaction_session_timeout = {idle}"
        ))?;
        deadline.clear();
        Ok(Connection { client, deadline, spoilt: false, outdated: false })
    }
}

impl ManageConnection for Connector {
    type Connection = Connection;
    type Error = StoreError;

    fn connect(&self) -> Result<Connection, StoreError> {
        let connection = self.dial().map_err(|error| StoreError::down(chain(&error)));
        connection.inspect_err(|fault| self.failures.add(fault.to_string()))
    }

    /// Never called, since connections are not tested when they are taken from the pool.
    fn is_valid(&self, _: &mut Connection) -> Result<(), StoreError> {
        Ok(())
    }

    /// A call that missed its deadline has spoilt its connection.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.spoilt || connection.client.is_closed()
    }
}

/// Attempts to connect that failed. `r2d2` does not report them until a caller's time is over.
#[derive(Default)]
pub struct Failures(Mutex<(u64, String)>);

impl Failures {
    /// How many attempts failed, and why the last one did. Takes a lock for a copy.
    pub fn last(&self) -> (u64, String) {
        self.0.lock().clone()
    }

    fn add(&self, cause: String) {
        let mut last = self.0.lock();
        *last = (last.0 + 1, cause);
    }
}
