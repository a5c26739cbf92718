//! What the store keeps for the API's v1: limits with plans and several buckets, plans, and who changed what. The words
//! alone; what is done with them stands beside the statements.

use std::sync::Arc;

use super::StoreError;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::{ClientLimit, Plan, PlanName};

/// A stored limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// The id as it was given when it was created.
    pub client_id: String,
    /// What it grants.
    pub limit: ClientLimit,
    /// From one sequence for all rows of a database; every write gives the row a new one, and none is used twice.
    pub version: i64,
}

/// A stored plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// Name and terms.
    pub plan: Plan,
    /// As [`LimitRow::version`].
    pub version: i64,
}

/// What must hold for a write to happen (RFC 9110 §13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: the last writer wins.
    #[default]
    None,
    /// `If-Match` with these versions: there is a row, and it has one of them.
    Version(Vec<i64>),
    /// `If-Match: *`: there is a row.
    Exists,
    /// `If-None-Match: *`: there is none.
    Absent,
}

/// Who asks for a write, for the audit: a token's name, or an address without a port. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub Arc<str>);

/// What a write that went well did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<R> {
    /// There was no such row before.
    pub created: bool,
    /// The row as it is now.
    pub row: R,
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOp {
    /// A new limit; [`StoreError::Exists`] when there is one.
    Create(ClientId, ClientLimit),
    /// A new limit, or another in the place of one.
    Put(ClientId, ClientLimit),
    /// No more limit; [`StoreError::NotFound`] when there is none.
    Delete(ClientId),
}

/// Why nothing of a batch was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError {
    /// The operation that failed, from 0; `None` when it was the database.
    pub index: Option<usize>,
    /// What was wrong.
    pub error: StoreError,
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Self { index: None, error }
    }
}

impl From<(usize, StoreError)> for BatchError {
    fn from((index, error): (usize, StoreError)) -> Self {
        Self { index: error.is_answer().then_some(index), error }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Limits that were not there before.
    pub created: u64,
    /// Limits that were there and are others now.
    pub replaced: u64,
    /// Limits that were there just so: neither their versions nor the audit moved.
    pub unchanged: u64,
}

/// Most limits of one chunk of an import.
pub const MAX_IMPORTED: usize = 10_000;

/// A piece of what an instance saved of its buckets' levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSegment {
    /// Whose.
    pub instance: String,
    /// Its number there.
    pub segment: u8,
    /// What was saved.
    pub bytes: Vec<u8>,
    /// How long ago, on the database's clock.
    pub age: std::time::Duration,
    /// When, in microseconds since 1970 on that clock.
    pub saved_at_us: i64,
}

/// Which limits a listing shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitFilter {
    /// Ids that begin with this, byte for byte.
    pub prefix: Option<String>,
    /// Ids in which this stands, whatever the case of its letters.
    pub contains: Option<String>,
    /// Limits that name this plan.
    pub plan: Option<PlanName>,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// From the sequence of versions.
    pub seq: i64,
    /// Microseconds since the Unix epoch, on the database's clock.
    pub at_us: i64,
    /// See [`Actor`].
    pub actor: String,
    /// `create`, `put`, `delete`, `batch` or `reset`; of a backend's state `drain`, `undrain`, `down` or `up`.
    pub action: String,
    /// The id or plan as JSON text: `{"client_id":…}`, `{"plan":…}`, `{"backend":…}`, with `pool` unless that is the default one, or `{"operations":N}`.
    pub target: String,
    /// What stood there before, as JSON text; `null` for nothing.
    pub before: String,
    /// What stands there now.
    pub after: String,
}
