//! What both databases can do, in the few words that the statements need.

use std::net::IpAddr;
use std::time::Duration;

use balancer_limiter::message::BudgetKey;
use crossbeam_channel::Receiver;

use super::StoreError;

/// A bound parameter. Statements name them `$1`, `$2`, … in the order in which they first stand in the text: SQLite
/// numbers them so.
#[derive(Clone, Copy, Debug)]
pub enum SqlValue<'a> {
    /// Text without NUL.
    Text(&'a str),
    /// The same, or nothing.
    OptionalText(Option<&'a str>),
    /// An integer of any width.
    Int(Option<i64>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
}

/// What one column of one row holds.
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
    /// Something that no column of ours holds: text that is not UTF-8, or a fraction. Its row can't be read; the others can.
    Strange,
}

/// The rows that a statement gave.
pub type Cells = Vec<Vec<Cell>>;

/// A connection on which something is done.
pub trait Session {
    /// Runs one statement to its end.
    fn query(&mut self, sql: &str, values: &[SqlValue<'_>]) -> Result<Cells, StoreError>;

    /// Runs statements without parameters and without rows, one after the other.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Appends rows to a table: as many values a row as there are columns, one row after the other.
    fn copy(&mut self, table: &str, columns: &[&str], values: &[SqlValue<'_>]) -> Result<(), StoreError>;

    /// The statements that make the table `incoming`, which only this connection sees.
    fn stage(&self) -> &'static str;

    /// Microseconds since 1970 on the database's clock, as an expression.
    fn now_us(&self) -> &'static str;

    /// The statement that tells other instances a number when its transaction is committed; empty where none listens.
    fn announce(&self) -> &'static str;
}

/// What is done on a connection.
pub type Work<'a> = dyn FnMut(&mut dyn Session) -> Result<(), StoreError> + 'a;

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Statements that change nothing, or that do no harm when they are done twice; may be run a second time, on another
    /// connection.
    Read,
    /// A transaction that holds the writers' lock to its end, so that numbers of changes are committed in order.
    Write,
    /// A transaction that holds the lock of migrations.
    Migrate,
}

/// A database with its pool of connections.
pub trait Store: Send + Sync {
    /// Takes a connection, does the work on it and gives it back; [`Access`] says inside what. Everything together
    /// takes at most `within`, whatever the database does.
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError>;

    /// Opens the database again when it is no longer the one that it was opened as: a file that was deleted or replaced.
    /// True when what was read before may no longer be so.
    fn renew(&self, _within: Duration) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Nobody will ask any more: leaves the database in good order.
    fn close(&self) {}

    /// Who hears other processes.
    fn listener(&self) -> Box<dyn Listener>;

    /// Who tells other processes of the shared budget; `None`: on this database nobody can.
    fn notifier(&self) -> Option<Box<dyn Notifier>> {
        None
    }

    /// What is told apart between the databases.
    fn dialect(&self) -> &'static Dialect;
}

/// What a [`Listener`] hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// Something may have changed, or that may have been missed.
    Changes,
    /// Somebody told all instances of this database something about the shared budget.
    Budget(&'a str),
}

/// Hears other processes, on a thread of its own.
pub trait Listener: Send {
    /// Runs until `end` is closed, and calls `hear` with every word. `hear` must not wait.
    fn run(self: Box<Self>, hear: &dyn Fn(Word<'_>), end: &Receiver<()>);
}

/// Tells all processes that listen on this database, its own among them, on a connection of its own.
pub trait Notifier: Send {
    /// Connects, and reads what is needed to take part. Takes at most a few times `database.timeout`.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn open(&mut self) -> Result<Opened, Unopened>;

    /// Reads that again on the connection that there is. Takes at most `database.timeout`; after an error it is not connected.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn look(&mut self) -> Result<Opened, Unopened>;

    /// Tells these texts in one transaction: ASCII of under 8,000 bytes each, without quotes. Takes at most `database.timeout`;
    /// after an error nothing is known of what was told, and [`Notifier::open`] has to be called first.
    ///
    /// # Errors
    /// Why not, for the operator.
    fn tell(&mut self, texts: &[String]) -> Result<(), String>;
}

/// What an instance needs to take part in the shared budget.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What all instances of this database sign with.
    pub key: BudgetKey,
    /// Where this process comes from, as the database sees it; `None` over a socket of the file system.
    pub seen_from: Option<IpAddr>,
}

/// Why a [`Notifier`] is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// For the operator.
    pub cause: String,
    /// The database answers, and will answer the same until somebody changes something.
    pub is_refusal: bool,
}

/// How long to wait before connecting again where the database has refused so often in a row for the same reason: twice as long
/// each time, up to half a minute. 0: it was not there, and may be at any moment.
pub fn retry_after(refusals: u32) -> Duration {
    const MOST: Duration = Duration::from_secs(30);
    // Seven times twice as long is more than that.
    (Duration::from_millis(250) * (1 << refusals.saturating_sub(1).min(7))).min(MOST)
}

/// [`Store::with`] for work that gives something. Work that is done twice gives what it gave last.
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

/// Where the databases differ.
#[derive(Debug)]
pub struct Dialect {
    /// What people call it.
    pub name: &'static str,
    /// The migrations in order; the first has number 1.
    pub migrations: &'static [&'static str],
    /// One row if it takes no changes; `None`: only a write tells.
    pub read_only: Option<&'static str>,
    /// Makes the table of applied migrations.
    pub create_migrations: &'static str,
    /// One row if that table is there.
    pub find_migrations: &'static str,
    /// Every column as `table.column type`, in lower case.
    pub columns: &'static str,
    /// What of that must be there.
    pub expected: &'static [&'static str],
}
