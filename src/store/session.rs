//! The traits that both databases implement: what statements need of a connection, and what the store needs of a database.

use std::net::IpAddr;
use std::time::Duration;

use balancer_limiter::message::BudgetKey;
use crossbeam_channel::Receiver;

use super::StoreError;

/// The value of a parameter. Statements name their parameters `$1`, `$2`, … in the order in which they first occur in the text,
/// because SQLite numbers them so.
#[derive(Clone, Copy, Debug)]
pub enum SqlValue<'a> {
    /// Text without NUL.
    Text(&'a str),
    /// Text without NUL, or NULL.
    OptionalText(Option<&'a str>),
    /// An integer of any width.
    Int(Option<i64>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
}

/// The value of one column in one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// NULL.
    Null,
    /// An integer of any width, or a truth value.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A value that we never write: text that is not UTF-8, or a fraction. Only its own row can't be read.
    Strange,
}

/// The rows that a statement returns.
pub type Cells = Vec<Vec<Cell>>;

/// A connection while it is used.
pub trait Session {
    /// Runs one statement to its end.
    fn query(&mut self, sql: &str, values: &[SqlValue<'_>]) -> Result<Cells, StoreError>;

    /// Runs statements without parameters and without rows, one after the other.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Appends rows to a table. `values`: row after row, each with as many values as there are columns.
    fn copy(&mut self, table: &str, columns: &[&str], values: &[SqlValue<'_>]) -> Result<(), StoreError>;

    /// The statements that make the table `incoming`, which only this connection sees.
    fn stage(&self) -> &'static str;

    /// An SQL expression: microseconds since 1970 on the database's clock.
    fn now_us(&self) -> &'static str;

    /// The statement that tells other instances a number when its transaction is committed; empty where there is no such thing.
    fn announce(&self) -> &'static str;
}

/// What is done on a connection.
pub type Work<'a> = dyn FnMut(&mut dyn Session) -> Result<(), StoreError> + 'a;

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Statements that change nothing, or do no harm when they are done twice. They may be run a second time, on another
    /// connection.
    Read,
    /// A transaction that holds the writers' lock to its end, so that numbers of changes are committed in order.
    Write,
    /// A transaction that holds the lock of migrations.
    Migrate,
}

/// A database with its pool of connections.
pub trait Store: Send + Sync {
    /// Takes a connection, does the work on it as [`Access`] says, and gives it back. All of this takes at most `within`,
    /// whatever the database does.
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError>;

    /// Opens the database again when its file was deleted or replaced. True when what was read before may be out of date.
    fn renew(&self, _within: Duration) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Called at the end, after all work: leaves the database in good order.
    fn close(&self) {}

    /// Hears what other processes tell.
    fn listener(&self) -> Box<dyn Listener>;

    /// Tells other processes of the shared budget; `None` where the database has no such thing.
    fn notifier(&self) -> Option<Box<dyn Notifier>> {
        None
    }

    /// The texts in which the databases differ.
    fn dialect(&self) -> &'static Dialect;
}

/// What a [`Listener`] hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// Something may have changed, or a word of it may have been missed.
    Changes,
    /// A message about the shared budget, to all instances of this database.
    Budget(&'a str),
}

/// Hears other processes, on a thread of its own.
pub trait Listener: Send {
    /// Runs until `end` is closed, and calls `hear` with every word. `hear` must not wait.
    fn run(self: Box<Self>, hear: &dyn Fn(Word<'_>), end: &Receiver<()>);
}

/// Tells all processes that listen on this database, this one among them, on a connection of its own.
pub trait Notifier: Send {
    /// Connects, and reads what is needed to take part. Takes at most a few times `database.timeout`.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn open(&mut self) -> Result<Opened, Unopened>;

    /// Reads that again on the open connection. Takes at most `database.timeout`; after an error it is not connected.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn look(&mut self) -> Result<Opened, Unopened>;

    /// Tells these texts in one transaction: ASCII of under 8,000 bytes each, without quotes. Takes at most
    /// `database.timeout`. After an error it is not known whether they were told, and [`Notifier::open`] has to be called
    /// first.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn tell(&mut self, texts: &[String]) -> Result<(), String>;
}

/// What an instance needs to take part in the shared budget.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The key with which all instances of this database sign.
    pub key: BudgetKey,
    /// The address of this process, as the database sees it; `None` over a socket of the file system.
    pub seen_from: Option<IpAddr>,
}

/// Why a [`Notifier`] is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// For the operator.
    pub cause: String,
    /// The database answers, and will refuse until the operator changes something.
    pub is_refusal: bool,
}

/// How long to wait before connecting again. `refusals`: how often in a row the database has refused for the same reason; 0
/// when it did not answer. From 250 ms on, twice as long after each refusal, up to 30 s.
pub fn retry_after(refusals: u32) -> Duration {
    const MOST: Duration = Duration::from_secs(30);
    // 250 ms doubled seven times is more than `MOST`.
    (Duration::from_millis(250) * (1 << refusals.saturating_sub(1).min(7))).min(MOST)
}

/// [`Store::with`] for work that returns something. If the work is done twice, the second result counts.
pub fn inside<T>(
    store: &dyn Store,
    within: Duration,
    access: Access,
    mut work: impl FnMut(&mut dyn Session) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut given = None;
    store.with(within, access, &mut |session| {
        given = Some(work(session)?);
        Ok(())
    })?;
    given.ok_or_else(|| StoreError::down("the database was not asked"))
}

/// The texts in which the databases differ.
#[derive(Debug)]
pub struct Dialect {
    /// What people call it.
    pub name: &'static str,
    /// The migrations in order; the first has number 1.
    pub migrations: &'static [&'static str],
    /// A statement that returns one row if the database takes no changes; `None`: only a write can tell.
    pub read_only: Option<&'static str>,
    /// The statement that makes the table of applied migrations.
    pub create_migrations: &'static str,
    /// A statement that returns one row if that table exists.
    pub find_migrations: &'static str,
    /// A statement that returns every column as `table.column type`, in lower case.
    pub columns: &'static str,
    /// Those of these columns that must exist.
    pub expected: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_refusal_up_to_its_bound() {
        for (refusals, wait_ms) in [
            (0, 250),
            (1, 250),
            (2, 500),
            (3, 1_000),
            (7, 16_000),
            (8, 30_000),
            (9, 30_000),
            (u32::MAX, 30_000),
        ] {
            assert_eq!(retry_after(refusals), Duration::from_millis(wait_ms), "{refusals}");
        }
    }
}
