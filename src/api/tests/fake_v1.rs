//! A v1 store in memory.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::json;

use crate::store::StoreError;
use crate::store::json::text;
use crate::store::v1::*;
use balancer_limiter::document::LimitDocument;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::{ClientLimit, Plan, PlanName};

#[derive(Clone, Default)]
struct State {
    /// By canonical id.
    limits: BTreeMap<String, LimitRow>,
    plans: BTreeMap<String, PlanRow>,
    audit: Vec<AuditRow>,
    seq: i64,
}

/// `fault` is given instead of an answer.
#[derive(Default)]
pub(in crate::api) struct FakeV1 {
    state: Mutex<State>,
    pub(in crate::api) fault: Mutex<Option<StoreError>>,
}

fn hold(condition: &Condition, version: Option<i64>) -> Result<(), StoreError> {
    let holds = match condition {
        Condition::None => true,
        Condition::Version(versions) => version.is_some_and(|version| versions.contains(&version)),
        Condition::Exists => version.is_some(),
        Condition::Absent => version.is_none(),
    };
    if holds { Ok(()) } else { Err(StoreError::Precondition) }
}

impl State {
    fn note(&mut self, actor: &Actor, action: &str, target: String, after: String) -> i64 {
        self.seq += 1;
        self.audit.push(AuditRow {
            seq: self.seq,
            at_us: 1_700_000_000_000_000 + self.seq,
            actor: actor.0.to_string(),
            action: action.into(),
            target,
            before: "null".into(),
            after,
        });
        self.seq
    }

    fn put(
        &mut self,
        id: &ClientId,
        limit: &ClientLimit,
        condition: &Condition,
        only_new: bool,
    ) -> Result<Put<LimitRow>, StoreError> {
        let old = self.limits.get(&*id.canonical());
        hold(condition, old.map(|row| row.version))?;
        if only_new && old.is_some() {
            return Err(StoreError::Exists);
        }
        if limit.plan.as_ref().is_some_and(|plan| !self.plans.contains_key(plan.as_str())) {
            return Err(StoreError::NoPlan);
        }
        let client_id = old.map_or_else(|| id.text().to_owned(), |row| row.client_id.clone());
        let created = old.is_none();
        self.seq += 1;
        let row = LimitRow { client_id, limit: limit.clone(), version: self.seq };
        self.limits.insert(id.canonical().into_owned(), row.clone());
        Ok(Put { created, row })
    }

    fn delete(&mut self, id: &ClientId, condition: &Condition) -> Result<(), StoreError> {
        let old = self.limits.get(&*id.canonical()).map(|row| row.version);
        hold(condition, old)?;
        self.limits.remove(&*id.canonical()).map(drop).ok_or(StoreError::NotFound)
    }

    fn put_plan(
        &mut self,
        plan: &Plan,
        condition: &Condition,
        only_new: bool,
    ) -> Result<Put<PlanRow>, StoreError> {
        let old = self.plans.get(plan.name.as_str()).map(|row| row.version);
        hold(condition, old)?;
        if only_new && old.is_some() {
            return Err(StoreError::Exists);
        }
        self.seq += 1;
        let row = PlanRow { plan: plan.clone(), version: self.seq };
        self.plans.insert(plan.name.as_str().to_owned(), row.clone());
        Ok(Put { created: old.is_none(), row })
    }
}

impl FakeV1 {
    fn state(&self) -> Result<parking_lot::MutexGuard<'_, State>, StoreError> {
        self.fault.lock().clone().map_or_else(|| Ok(self.state.lock()), Err)
    }
}

fn target(id: &ClientId) -> String {
    json!({ "client_id": id.text() }).to_string()
}

impl LimitsV1 for FakeV1 {
    fn limit(&self, id: &ClientId) -> Result<LimitRow, StoreError> {
        self.state()?.limits.get(&*id.canonical()).cloned().ok_or(StoreError::NotFound)
    }

    fn limits(
        &self,
        filter: &LimitFilter,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<LimitRow>, StoreError> {
        let mut rows: Vec<_> = self.state()?.limits.values().cloned().collect();
        rows.retain(|row| {
            filter.prefix.as_ref().is_none_or(|prefix| row.client_id.starts_with(prefix))
                && filter.plan.as_ref().is_none_or(|plan| row.limit.plan.as_ref() == Some(plan))
                && after.is_none_or(|after| row.client_id.as_str() > after)
        });
        rows.sort_by(|one, other| one.client_id.cmp(&other.client_id));
        rows.truncate(count);
        Ok(rows)
    }

    fn create_limit(
        &self,
        id: &ClientId,
        limit: &ClientLimit,
        actor: &Actor,
    ) -> Result<LimitRow, StoreError> {
        let mut state = self.state()?;
        let row = state.put(id, limit, &Condition::None, true)?.row;
        state.note(actor, "create", target(id), text(&LimitDocument::new(&row.client_id, &row.limit)));
        Ok(row)
    }

    fn put_limit(
        &self,
        id: &ClientId,
        limit: &ClientLimit,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<Put<LimitRow>, StoreError> {
        let mut state = self.state()?;
        let put = state.put(id, limit, condition, false)?;
        state.note(actor, "put", target(id), text(&LimitDocument::new(&put.row.client_id, &put.row.limit)));
        Ok(put)
    }

    fn delete_limit(&self, id: &ClientId, condition: &Condition, actor: &Actor) -> Result<(), StoreError> {
        let mut state = self.state()?;
        state.delete(id, condition)?;
        state.note(actor, "delete", target(id), "null".into());
        Ok(())
    }

    fn batch(&self, operations: Vec<BatchOp>, actor: &Actor) -> Result<(), BatchError> {
        let mut state = self.state().map_err(|error| BatchError { index: None, error })?;
        let mut next = state.clone();
        let count = operations.len();
        for (index, operation) in operations.into_iter().enumerate() {
            let done = match operation {
                BatchOp::Create(id, limit) => next.put(&id, &limit, &Condition::None, true).map(drop),
                BatchOp::Put(id, limit) => next.put(&id, &limit, &Condition::None, false).map(drop),
                BatchOp::Delete(id) => next.delete(&id, &Condition::None),
            };
            done.map_err(|error| BatchError { index: Some(index), error })?;
        }
        next.note(actor, "batch", json!({ "operations": count }).to_string(), "null".into());
        *state = next;
        Ok(())
    }

    fn import(&self, chunk: Vec<(ClientId, ClientLimit)>, actor: &Actor) -> Result<Imported, BatchError> {
        let before = self.state().map_err(|error| BatchError { index: None, error })?.limits.len();
        let count = chunk.len();
        self.batch(chunk.into_iter().map(|(id, limit)| BatchOp::Put(id, limit)).collect(), actor)?;
        let created = self.state.lock().limits.len() - before;
        Ok(Imported { created: created as u64, replaced: (count - created) as u64, unchanged: 0 })
    }

    fn plan(&self, name: &PlanName) -> Result<PlanRow, StoreError> {
        self.state()?.plans.get(name.as_str()).cloned().ok_or(StoreError::NotFound)
    }

    fn plans(&self, after: Option<&str>, count: usize) -> Result<Vec<PlanRow>, StoreError> {
        let state = self.state()?;
        let rows =
            state.plans.values().filter(|row| after.is_none_or(|after| row.plan.name.as_str() > after));
        Ok(rows.take(count).cloned().collect())
    }

    fn create_plan(&self, plan: &Plan, _: &Actor) -> Result<PlanRow, StoreError> {
        Ok(self.state()?.put_plan(plan, &Condition::None, true)?.row)
    }

    fn put_plan(&self, plan: &Plan, condition: &Condition, _: &Actor) -> Result<Put<PlanRow>, StoreError> {
        self.state()?.put_plan(plan, condition, false)
    }

    fn delete_plan(&self, name: &PlanName, condition: &Condition, _: &Actor) -> Result<(), StoreError> {
        let mut state = self.state()?;
        hold(condition, state.plans.get(name.as_str()).map(|row| row.version))?;
        let uses = state.limits.values().filter(|row| row.limit.plan.as_ref() == Some(name)).count();
        if uses > 0 {
            return Err(StoreError::InUse(uses as u64));
        }
        state.plans.remove(name.as_str()).map(drop).ok_or(StoreError::NotFound)
    }

    fn note_reset(&self, id: &ClientId, actor: &Actor) -> Result<LimitRow, StoreError> {
        let mut state = self.state()?;
        let row = state.limits.get(&*id.canonical()).cloned().ok_or(StoreError::NotFound)?;
        state.note(actor, "reset", target(id), "null".into());
        Ok(row)
    }

    fn audit(&self, before: Option<i64>, count: usize) -> Result<Vec<AuditRow>, StoreError> {
        let state = self.state()?;
        let rows = state.audit.iter().rev().filter(|row| before.is_none_or(|before| row.seq < before));
        Ok(rows.take(count).cloned().collect())
    }
}
