//! What both databases can do, in the few words that the statements need.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

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

    /// Who hears of changes by other processes.
    fn listener(&self) -> Box<dyn Listener>;

    /// What is told apart between the databases.
    fn dialect(&self) -> &'static Dialect;
}

/// Hears of changes by other processes, on a thread of its own.
pub trait Listener: Send {
    /// Runs until `end` is closed; whenever something may have changed, and whenever it may have missed that, there is
    /// a word in `news`.
    fn run(self: Box<Self>, news: &Sender<()>, end: &Receiver<()>);
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
