//! What both databases can do, in the few words that the statements need.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::{StartError, StoreError};

/// A bound parameter. Statements name them `$1`, `$2`, … in the order in which they first stand in the text: SQLite
/// numbers them so.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
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
    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Cells, Fault>;

    /// Runs statements without parameters and without rows, one after the other.
    fn batch(&mut self, sql: &str) -> Result<(), Fault>;

    /// Appends rows to a table: as many values a row as there are columns, one row after the other.
    fn copy(&mut self, table: &str, columns: &[&str], values: &[Value<'_>]) -> Result<(), Fault>;

    /// The statements that make the table `incoming`, which only this connection sees.
    fn stage(&self) -> &'static str;

    /// Microseconds since 1970 on the database's clock, as an expression.
    fn now_us(&self) -> &'static str;

    /// The statement that tells other instances a number when its transaction is committed; empty where none listens.
    fn announce(&self) -> &'static str;
}

/// What is done on a connection.
pub type Work<'a> = dyn FnMut(&mut dyn Session) -> Result<(), Fault> + 'a;

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
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), Fault>;

    /// Opens the database again when it is no longer the one that it was opened as: a file that was deleted or replaced.
    /// True when what was read before may no longer be so.
    fn renew(&self, _within: Duration) -> Result<bool, Fault> {
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
    mut work: impl FnMut(&mut dyn Session) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut given = None;
    store.with(within, access, &mut |session| {
        given = Some(work(session)?);
        Ok(())
    })?;
    given.ok_or_else(|| Fault::down("the database was not asked"))
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

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such row.
    NotFound,
    /// There is such a row.
    Exists,
    /// A bound is reached.
    Full(&'static str),
    /// A condition of the caller does not hold.
    Precondition,
    /// No such plan.
    NoPlan,
    /// That many limits name the plan.
    InUse(u64),
    /// The database is newer than this program, or is not one of ours.
    Schema(String),
    /// The database is well, and does not do this now: locked, cancelled.
    Refused(String),
    /// The database may be read and takes no changes.
    ReadOnly(String),
    /// The database may be read and has no room for what was to be written.
    NoRoom(String),
    /// The database can't be reached, did not answer in time, or broke off.
    Down {
        /// For the log.
        cause: String,
        /// A commit was under way.
        outcome_unknown: bool,
    },
}

impl Fault {
    /// Whether it is the database's word on what was asked, and nothing is wrong with the database.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::NotFound | Self::Exists | Self::Full(_) => true,
            Self::Precondition | Self::NoPlan | Self::InUse(_) => true,
            Self::Schema(_) | Self::Refused(_) | Self::ReadOnly(_) | Self::NoRoom(_) | Self::Down { .. } => {
                false
            }
        }
    }

    /// Nothing came of it, for certain.
    pub fn down(cause: impl Into<String>) -> Self {
        Self::Down { cause: cause.into(), outcome_unknown: false }
    }

    /// The same when it hit a commit. A database that refuses one has not done it; one that went away may have.
    pub fn in_commit(self) -> Self {
        match self {
            Self::Down { cause, .. } => Self::Down { cause, outcome_unknown: true },
            other => other,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such row"),
            Self::Exists => f.write_str("there is such a row"),
            Self::Full(text) => f.write_str(text),
            Self::Precondition => f.write_str("a condition does not hold"),
            Self::NoPlan => f.write_str("no such plan"),
            Self::InUse(count) => write!(f, "{count} limits name the plan"),
            Self::Schema(cause) | Self::Refused(cause) | Self::ReadOnly(cause) | Self::NoRoom(cause) => {
                f.write_str(cause)
            }
            Self::Down { cause, .. } => f.write_str(cause),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotFound => Self::NotFound,
            Fault::Exists => Self::Exists,
            Fault::Full(text) => Self::Full(text),
            Fault::Precondition => Self::Precondition,
            Fault::NoPlan => Self::NoPlan,
            Fault::InUse(count) => Self::InUse(count),
            Fault::Schema(cause) | Fault::Refused(cause) | Fault::ReadOnly(cause) | Fault::NoRoom(cause) => {
                Self::Unavailable { cause, outcome_unknown: false }
            }
            Fault::Down { cause, outcome_unknown } => Self::Unavailable { cause, outcome_unknown },
        }
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Schema(text) => Self::Schema(text),
            other => Self::System(other.to_string()),
        }
    }
}
