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
}

/// Which limits a listing shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitFilter {
    /// Ids that begin with this, byte for byte.
    pub prefix: Option<String>,
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
    /// The id or plan as JSON text: `{"client_id":…}`, `{"plan":…}`, `{"backend":…}` or `{"operations":N}`.
    pub target: String,
    /// What stood there before, as JSON text; `null` for nothing.
    pub before: String,
    /// What stands there now.
    pub after: String,
}

/// What the API's v1 needs of the store. An implementation waits at most `database.timeout`, writes an audit row in each
/// mutation's own transaction, and what it reports as done is in force on this process's next request.
pub trait LimitsV1: Send + Sync {
    /// One limit; [`StoreError::NotFound`].
    fn limit(&self, id: &ClientId) -> Result<LimitRow, StoreError>;

    /// A page in byte order of the ids, those behind `after`.
    fn limits(
        &self,
        filter: &LimitFilter,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<LimitRow>, StoreError>;

    /// Adds a limit; [`StoreError::Exists`]; [`StoreError::NoPlan`] when it names a plan that is not there.
    fn create_limit(&self, id: &ClientId, limit: &ClientLimit, actor: &Actor)
    -> Result<LimitRow, StoreError>;

    /// Adds or replaces one; [`StoreError::Precondition`], [`StoreError::NoPlan`].
    fn put_limit(
        &self,
        id: &ClientId,
        limit: &ClientLimit,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<Put<LimitRow>, StoreError>;

    /// Takes one away; [`StoreError::NotFound`], [`StoreError::Precondition`] (also for an absent one when there is a
    /// condition).
    fn delete_limit(&self, id: &ClientId, condition: &Condition, actor: &Actor) -> Result<(), StoreError>;

    /// Does all of it in one transaction, or nothing. One audit row.
    fn batch(&self, operations: Vec<BatchOp>, actor: &Actor) -> Result<(), BatchError>;

    /// Adds or replaces a chunk of limits, at most [`MAX_IMPORTED`], in one transaction, or nothing; of several for one id
    /// the last counts. Made for many chunks: what changed is in force on this process within a moment, and may be done a
    /// second time. One audit row.
    fn import(&self, chunk: Vec<(ClientId, ClientLimit)>, actor: &Actor) -> Result<Imported, BatchError>;

    /// One plan; [`StoreError::NotFound`].
    fn plan(&self, name: &PlanName) -> Result<PlanRow, StoreError>;

    /// A page in byte order of the names, those behind `after`.
    fn plans(&self, after: Option<&str>, count: usize) -> Result<Vec<PlanRow>, StoreError>;

    /// Adds a plan; [`StoreError::Exists`], [`StoreError::Full`] at the bound.
    fn create_plan(&self, plan: &Plan, actor: &Actor) -> Result<PlanRow, StoreError>;

    /// Adds or replaces one, in force on the next request of all its clients; [`StoreError::Precondition`].
    fn put_plan(&self, plan: &Plan, condition: &Condition, actor: &Actor)
    -> Result<Put<PlanRow>, StoreError>;

    /// Takes one away; [`StoreError::InUse`] with the count of limits that name it.
    fn delete_plan(&self, name: &PlanName, condition: &Condition, actor: &Actor) -> Result<(), StoreError>;

    /// Notes in the audit that a client's levels were filled; [`StoreError::NotFound`] without a limit.
    fn note_reset(&self, id: &ClientId, actor: &Actor) -> Result<LimitRow, StoreError>;

    /// A page of the audit, newest first, those before `before`.
    fn audit(&self, before: Option<i64>, count: usize) -> Result<Vec<AuditRow>, StoreError>;
}
