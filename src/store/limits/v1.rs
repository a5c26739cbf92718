//! The part of [`Limits`] for version 1 of the API. Each call waits at most `database.timeout`, and may fail with every
//! error of the database besides those that it names. A change writes its audit row in its own transaction, and is in force
//! on the next request to this process.

use super::Limits;
use crate::metrics::StoreOp;
use crate::store::StoreError;
use crate::store::ops::{self, Change, Done, To};
use crate::store::v1::{
    Actor, AuditRow, BatchError, BatchOp, Condition, Imported, LimitFilter, LimitRow, PlanRow, Put,
};
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::{ClientLimit, Plan, PlanName};

impl Limits {
    /// One limit, or [`StoreError::NotFound`].
    pub fn limit(&self, id: &ClientId) -> Result<LimitRow, StoreError> {
        let id = id.clone();
        self.read(StoreOp::Get, move |store, within| ops::get(store, within, &id))
    }

    /// At most `count` limits after the id `after`, in byte order of the ids.
    pub fn limits(
        &self,
        filter: &LimitFilter,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<LimitRow>, StoreError> {
        let (filter, after) = (filter.clone(), after.unwrap_or_default().to_owned());
        self.read(StoreOp::List, move |store, within| ops::list(store, within, &filter, &after, count))
    }

    /// How many limits fit a filter.
    pub fn total(&self, filter: &LimitFilter) -> Result<i64, StoreError> {
        let filter = filter.clone();
        self.read(StoreOp::List, move |store, within| ops::total(store, within, &filter))
    }

    /// Adds a limit. Fails with [`StoreError::Exists`], or with [`StoreError::NoPlan`] when it names a plan that does not
    /// exist.
    pub fn create_limit(
        &self,
        id: &ClientId,
        limit: &ClientLimit,
        actor: &Actor,
    ) -> Result<LimitRow, StoreError> {
        let done = self.write_one(id, To::New(limit.clone()), Condition::None, actor)?;
        row(&done)
    }

    /// Adds or replaces a limit. Fails with [`StoreError::Precondition`] or [`StoreError::NoPlan`].
    pub fn put_limit(
        &self,
        id: &ClientId,
        limit: &ClientLimit,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<Put<LimitRow>, StoreError> {
        let done = self.write_one(id, To::Put(limit.clone()), condition.clone(), actor)?;
        Ok(Put { created: done.is_new(), row: row(&done)? })
    }

    /// Removes a limit. Fails with [`StoreError::NotFound`] or [`StoreError::Precondition`]; where there is a condition,
    /// always with the latter.
    pub fn delete_limit(
        &self,
        id: &ClientId,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        self.write_one(id, To::Gone, condition.clone(), actor).map(drop)
    }

    /// Does all operations in one transaction, or none. There is one audit row for all of them.
    pub fn batch(&self, operations: Vec<BatchOp>, actor: &Actor) -> Result<(), BatchError> {
        let wish = |(id, to)| Change { id, to, condition: Condition::None };
        let wishes = operations.into_iter().map(|operation| match operation {
            BatchOp::Create(id, limit) => wish((id, To::New(limit))),
            BatchOp::Put(id, limit) => wish((id, To::Put(limit))),
            BatchOp::Delete(id) => wish((id, To::Gone)),
        });
        self.write(wishes.collect(), actor, true).map(drop)
    }

    /// Adds or replaces a chunk of limits, at most [`MAX_IMPORTED`](crate::store::v1::MAX_IMPORTED), all in one transaction
    /// or none. If several are for one id, the last counts. There is one audit row. Unlike other changes, these are in
    /// force in this process only after a moment. The same chunk may be imported twice.
    pub fn import(&self, chunk: Vec<(ClientId, ClientLimit)>, actor: &Actor) -> Result<Imported, BatchError> {
        let actor = actor.clone();
        self.attempt(move |core| core.import(&chunk, &actor))
    }

    /// One plan, or [`StoreError::NotFound`].
    pub fn plan(&self, name: &PlanName) -> Result<PlanRow, StoreError> {
        let name = name.clone();
        self.read(StoreOp::Get, move |store, within| ops::plan(store, within, &name))
    }

    /// At most `count` plans after the name `after`, in byte order of the names.
    pub fn plans(&self, after: Option<&str>, count: usize) -> Result<Vec<PlanRow>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.read(StoreOp::List, move |store, within| ops::plans(store, within, &after, count))
    }

    /// Adds a plan. Fails with [`StoreError::Exists`], or with [`StoreError::Full`] at the bound.
    pub fn create_plan(&self, plan: &Plan, actor: &Actor) -> Result<PlanRow, StoreError> {
        let (plan, actor) = (plan.clone(), actor.clone());
        let (row, _) = self.change(move |core| core.put_plan(&plan, &Condition::None, true, &actor))?;
        Ok(row)
    }

    /// Adds or replaces a plan, in force on the next request of all its clients. Fails with [`StoreError::Precondition`].
    pub fn put_plan(
        &self,
        plan: &Plan,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<Put<PlanRow>, StoreError> {
        let (plan, condition, actor) = (plan.clone(), condition.clone(), actor.clone());
        let (row, created) = self.change(move |core| core.put_plan(&plan, &condition, false, &actor))?;
        Ok(Put { created, row })
    }

    /// Removes a plan. Fails with [`StoreError::NotFound`], [`StoreError::Precondition`], or [`StoreError::InUse`] with the
    /// number of limits that name it.
    pub fn delete_plan(
        &self,
        name: &PlanName,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let (name, condition, actor) = (name.clone(), condition.clone(), actor.clone());
        self.change(move |core| core.remove_plan(&name, &condition, &actor))
    }

    /// Notes in the audit that a client's buckets were filled. Fails with [`StoreError::NotFound`] when it has no limit.
    pub fn note_reset(&self, id: &ClientId, actor: &Actor) -> Result<LimitRow, StoreError> {
        let (id, actor) = (id.clone(), actor.clone());
        self.change(move |core| core.note_reset(&id, &actor))
    }

    /// At most `count` rows of the audit with numbers below `before`, newest first.
    pub fn audit(&self, before: Option<i64>, count: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.read(StoreOp::List, move |store, within| ops::audit(store, within, before, count))
    }
}

fn row(done: &Done) -> Result<LimitRow, StoreError> {
    done.row().ok_or(StoreError::NotFound)
}
