//! Tells other instances of the shared budget, on a connection that does nothing else, so that it waits for no other work.
//! Messages are notifications and not rows of a table, because a row that is overwritten 20 times a second would grow by
//! megabytes within seconds.

use std::net::IpAddr;
use std::time::Duration;

use balancer_limiter::message::BudgetKey;
use postgres::error::SqlState;

use super::chain;
use super::connect::{Connection, Connector};
use crate::store::session::{Notifier, Opened, Unopened};

/// The channel on which messages are sent.
pub(super) const BUDGET_CHANNEL: &str = "balancer_budget";

/// Tells by PostgreSQL's `NOTIFY`.
pub(super) struct NotifyConnection {
    connector: Connector,
    /// How long the server may take to answer.
    patience: Duration,
    connection: Option<Connection>,
}

impl NotifyConnection {
    /// Not connected yet.
    pub fn new(connector: Connector, patience: Duration) -> Self {
        Self { connector, patience, connection: None }
    }

    fn look_around(connection: &mut Connection, patience: Duration) -> Result<Opened, Unopened> {
        connection.deadline.set(patience);
        let sql = "SELECT key, host(inet_client_addr()) FROM budget_key";
        let rows = connection.client.query_typed(sql, &[]).map_err(unopened)?;
        let wrong = |cause: &str| Unopened { cause: cause.into(), is_refusal: true };
        let row = rows.first().ok_or_else(|| wrong("the table budget_key is empty"))?;
        let key: Vec<u8> = row.try_get(0).map_err(unopened)?;
        let key = BudgetKey::new(&key)
            .ok_or_else(|| wrong("the key in the table budget_key has a wrong length"))?;
        let address: Option<String> = row.try_get(1).map_err(unopened)?;
        let seen_from = address.and_then(|address| address.parse::<IpAddr>().ok());
        connection.deadline.clear();
        Ok(Opened { key, seen_from })
    }
}

/// Classes of errors (PostgreSQL manual, appendix A) that last until the operator changes something: 28 who may connect, 3D
/// there is no such database, 3F no such schema, 42 no such table or no right to it.
const LASTING: [&str; 4] = ["28", "3D", "3F", "42"];

pub(super) fn unopened(error: postgres::Error) -> Unopened {
    let lasts = |code: &SqlState| LASTING.iter().any(|class| code.code().starts_with(class));
    Unopened { cause: chain(&error), is_refusal: error.code().is_some_and(lasts) }
}

impl Notifier for NotifyConnection {
    fn open(&mut self) -> Result<Opened, Unopened> {
        self.connection = None;
        self.connection = Some(self.connector.dial().map_err(unopened)?);
        self.look()
    }

    fn look(&mut self) -> Result<Opened, Unopened> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Unopened { cause: "it is not connected".into(), is_refusal: false });
        };
        let opened = Self::look_around(&mut connection, self.patience)?;
        self.connection = Some(connection);
        Ok(opened)
    }

    fn tell(&mut self, texts: &[String]) -> Result<(), String> {
        let Some(mut connection) = self.connection.take() else { return Err("it is not connected".into()) };
        // The commit need not wait for a disk or a standby: after a crash, lost messages are of no use.
        let mut sql = "BEGIN; SET LOCAL synchronous_commit = off; ".to_owned();
        for text in texts {
            debug_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\''));
            sql.push_str(&format!("NOTIFY {BUDGET_CHANNEL}, '{text}'; "));
        }
        sql.push_str("COMMIT");
        connection.deadline.set(self.patience);
        connection.client.batch_execute(&sql).map_err(|error| chain(&error))?;
        connection.deadline.clear();
        self.connection = Some(connection);
        Ok(())
    }
}
