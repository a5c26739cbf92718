//! The types that the store has for version 1 of the API: limits with plans and several buckets, plans, and the audit. The
//! statements that use them are in `ops`.

use std::sync::Arc;

use super::StoreError;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::{ClientLimit, Plan, PlanName};

/// A stored limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// The id as it was given when it was created.
    pub client_id: String,
    /// The limit.
    pub limit: ClientLimit,
    /// Its version, from one sequence for all rows of a database: every write gives the row a new one, and none is used twice.
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
    /// No condition: the last writer wins.
    #[default]
    None,
    /// `If-Match` with these versions: the row exists and has one of them.
    Version(Vec<i64>),
    /// `If-Match: *`: the row exists.
    Exists,
    /// `If-None-Match: *`: the row does not exist.
    Absent,
}

/// Who asks for a write, for the audit: the name of a token, or an address without a port. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub Arc<str>);

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<R> {
    /// The row did not exist before.
    pub created: bool,
    /// The row as it is now.
    pub row: R,
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOp {
    /// Makes a limit; [`StoreError::Exists`] when there is one.
    Create(ClientId, ClientLimit),
    /// Makes or replaces a limit.
    Put(ClientId, ClientLimit),
    /// Removes a limit; [`StoreError::NotFound`] when there is none.
    Delete(ClientId),
}

/// Why nothing of a batch was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError {
    /// The index of the operation that failed, from 0; `None` when something is wrong with the database.
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
    /// Limits that were replaced by different ones.
    pub replaced: u64,
    /// Limits that were the same already; they keep their versions, and the audit does not mention them.
    pub unchanged: u64,
}

/// Most limits of one chunk of an import.
pub const MAX_IMPORTED: usize = 10_000;

/// A piece of the levels that an instance saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSegment {
    /// The name of the instance.
    pub instance: String,
    /// The number of the piece among those of the instance.
    pub segment: u8,
    /// The piece, packed.
    pub bytes: Vec<u8>,
    /// How long ago it was saved, on the database's clock.
    pub age: std::time::Duration,
    /// When it was saved, in microseconds since 1970 on that clock.
    pub saved_at_us: i64,
}

/// Which limits a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitFilter {
    /// Ids that begin with this, byte for byte.
    pub prefix: Option<String>,
    /// Ids that contain this, in upper or lower case.
    pub contains: Option<String>,
    /// Limits that name this plan.
    pub plan: Option<PlanName>,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from the sequence of versions.
    pub seq: i64,
    /// Microseconds since the Unix epoch, on the database's clock.
    pub at_us: i64,
    /// See [`Actor`].
    pub actor: String,
    /// `create`, `put`, `delete`, `batch` or `reset`; for the state of a backend `drain`, `undrain`, `down` or `up`.
    pub action: String,
    /// What was changed, as JSON text: `{"client_id":…}`, `{"plan":…}`, `{"backend":…}` (with `pool` unless that is the
    /// default one), or `{"operations":N}`.
    pub target: String,
    /// How it was before, as JSON text; `null` if it did not exist.
    pub before: String,
    /// How it is afterwards, in the same way.
    pub after: String,
}
