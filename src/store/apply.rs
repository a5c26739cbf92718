//! Writes to the database, and the changes of memory that follow from them. What was committed is in force in this process
//! before the caller gets its answer.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::core::{Core, entries};
use super::ops::{self, By, Change, Done, To, Written};
use super::session::{Access, Store};
use super::v1::{Actor, BatchError, Condition, Imported, LimitRow, PlanRow};
use crate::metrics::StoreOp;
use crate::store::cache::CacheGroup;
use crate::store::{CallOutcome, StoreError};
use balancer_limiter::identity::{ClientId, IdForm};
use balancer_limiter::terms::{ClientLimit, Plan, PlanName};

/// Most groups whose rows a write reads again for the cache. Further groups are loaded when they are next asked for.
const MAX_GROUPS_READ: usize = 1_000;

impl Core {
    /// Writes limits, on the one thread that writes, and puts what was committed in force.
    pub fn write(&self, wishes: &[Change], actor: &Actor, is_batch: bool) -> Result<Written, BatchError> {
        let places = self.places(wishes);
        let group = |place: &CacheGroup| match place {
            CacheGroup::Group(network) if !is_batch || self.cache.holds(place) => Some(*network),
            _ => None,
        };
        let groups: Vec<IpNet> = places.iter().filter_map(group).take(MAX_GROUPS_READ).collect();
        let name = match wishes {
            [Change { to: To::New(_), .. }] if !is_batch => StoreOp::Create,
            [Change { to: To::Gone, .. }] if !is_batch => StoreOp::Delete,
            _ if is_batch => StoreOp::Batch,
            _ => StoreOp::Update,
        };
        let write = |store: &dyn Store, by: By<'_>| {
            let terms = ops::WriteTerms { by, is_batch, groups: &groups, ipv6_prefix: self.ipv6_prefix };
            ops::write(store, self.within, wishes, terms)
        };
        match self.commit(name, actor, |failed: &BatchError| &failed.error, write) {
            Ok(mut written) => {
                let groups = std::mem::take(&mut written.groups);
                let mut known: HashMap<CacheGroup, Vec<LimitRow>> =
                    groups.into_iter().map(|(network, rows)| (CacheGroup::Group(network), rows)).collect();
                for one in written.done.iter().filter(|one| one.id.form() == IdForm::Opaque) {
                    let place = CacheGroup::Id(one.id.text().into());
                    if !is_batch || self.cache.holds(&place) {
                        known.insert(place, one.row().into_iter().collect());
                    }
                }
                self.apply(&written.done, known, places);
                Ok(written)
            }
            Err(failed) => {
                if matches!(failed.error, StoreError::Unavailable { outcome: CallOutcome::Unknown, .. }) {
                    self.doubt(places);
                }
                Err(failed)
            }
        }
    }

    /// The places in which the wishes' ids are looked up, each once.
    fn places(&self, wishes: &[Change]) -> Vec<CacheGroup> {
        let mut seen = HashSet::new();
        let places = wishes.iter().filter_map(|wish| CacheGroup::of(&wish.id, self.ipv6_prefix));
        places.filter(|place| seen.insert(place.clone())).collect()
    }

    /// Changes memory after a commit. `known`: the rows of some of the `places`; the others are loaded when they are next
    /// asked for. The limiter is told of a new entry before the cache is, so that its new bucket starts at the level that
    /// its client had.
    fn apply(&self, done: &[Done], mut known: HashMap<CacheGroup, Vec<LimitRow>>, places: Vec<CacheGroup>) {
        let ranges: Vec<&Done> = done.iter().filter(|one| is_range(&one.id)).collect();
        if !ranges.is_empty() {
            self.apply_ranges(&ranges);
        }
        let tell = |one: &Done| self.tell_entry(&one.id, one.after.as_ref());
        let (new, old): (Vec<&Done>, Vec<&Done>) =
            done.iter().filter(|one| !is_range(&one.id)).partition(|one| one.is_new());
        new.into_iter().for_each(tell);
        for place in places {
            match known.remove(&place) {
                Some(rows) => self.cache.put(place, entries(rows)),
                None => self.cache.doubt(place),
            }
        }
        old.into_iter().for_each(tell);
        if !ranges.is_empty() {
            self.tell_shared();
        }
    }

    /// Puts ranges in force that this process wrote.
    fn apply_ranges(&self, done: &[&Done]) {
        let mut book = self.book.lock();
        book.writes += 1;
        self.change_ranges(done.iter().filter_map(|one| {
            let IdForm::Range(net) = one.id.form() else { return None };
            Some((net, one.row()))
        }));
    }

    /// Does a write. The numbers of its changes are noted as our own before the commit, so that the watch does not read
    /// again what this process puts in force itself. If the write fails, or may have failed, they no longer count as our
    /// own.
    fn commit<T, E>(
        &self,
        op: StoreOp,
        actor: &Actor,
        fault_of: impl Fn(&E) -> &StoreError,
        write: impl FnOnce(&dyn Store, By<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let noted = Cell::new(None);
        let note = |seqs| {
            noted.set(Some(seqs));
            self.book.lock().note(seqs);
        };
        let by = By { actor, keep: self.keep, note: &note };
        let result = self.ask_for(op, fault_of, |store| write(store, by));
        if let (Err(_), Some(seqs)) = (&result, noted.get()) {
            self.book.lock().disown(seqs);
        }
        result
    }

    /// Writes many limits. Memory follows these changes like those of other instances: what it holds of these clients
    /// counts as stale, and the watch reads what changed.
    pub fn import(&self, rows: &[(ClientId, ClientLimit)], actor: &Actor) -> Result<Imported, BatchError> {
        let by = By { actor, keep: self.keep, note: &|_| () };
        let import = |store: &dyn Store| ops::import(store, self.within, rows, self.ipv6_prefix, by);
        let result = self.ask_for(StoreOp::Batch, |failed: &BatchError| &failed.error, import);
        let places = rows.iter().filter_map(|(id, _)| CacheGroup::of(id, self.ipv6_prefix));
        match &result {
            Ok(_) => places.for_each(|place| self.cache.doubt(place)),
            Err(BatchError {
                error: StoreError::Unavailable { outcome: CallOutcome::Unknown, .. }, ..
            }) => self.doubt(places),
            Err(_) => {}
        }
        result
    }

    /// Writes a plan, in force on the next request of all its clients.
    pub fn put_plan(
        &self,
        plan: &Plan,
        condition: &Condition,
        must_be_new: bool,
        actor: &Actor,
    ) -> Result<(PlanRow, bool), StoreError> {
        let name = if must_be_new { StoreOp::Create } else { StoreOp::Update };
        let write = |store: &dyn Store, by: By<'_>| {
            ops::put_plan(store, self.within, plan, condition, must_be_new, by)
        };
        let written = self.commit(name, actor, |fault| fault, write)?;
        let row = written.row.ok_or_else(|| StoreError::down("the database was not asked"))?;
        self.change_plan(&row.plan.name, Some(&row.plan.terms));
        Ok((row, written.created))
    }

    /// Removes a plan.
    pub fn remove_plan(
        &self,
        plan: &PlanName,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let write = |store: &dyn Store, by: By<'_>| ops::remove_plan(store, self.within, plan, condition, by);
        self.commit(StoreOp::Delete, actor, |fault| fault, write)?;
        self.change_plan(plan, None);
        Ok(())
    }

    /// Changes a stored backend as `judge` says.
    pub fn write_backend(
        &self,
        op: StoreOp,
        name: &str,
        judge: &mut ops::Judge<'_>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let write = |store: &dyn Store, by: By<'_>| ops::change_backend(store, self.within, name, judge, by);
        let row = self.commit(op, actor, |fault| fault, write)?;
        self.change_backend(name, row);
        Ok(())
    }

    /// Notes in the audit and the list of changes that a client's buckets were filled.
    pub fn note_reset(&self, id: &ClientId, actor: &Actor) -> Result<LimitRow, StoreError> {
        let write = |store: &dyn Store, by: By<'_>| ops::note_reset(store, self.within, id, by);
        self.commit(StoreOp::Update, actor, |fault| fault, write)
    }

    /// Finds out what became of the writes whose outcome is unknown, on the thread that writes. The database may commit
    /// such a write long after its caller gave up. It holds the writers' lock until then, so what is read under that lock
    /// is final.
    pub fn settle(&self) {
        for place in self.take_doubts() {
            match self.ask(StoreOp::Load, |store| ops::load(store, self.within, Access::Write, &place)) {
                Ok(rows) => self.cache.put(place, entries(rows)),
                Err(_) => self.doubt([place]),
            }
        }
    }
}

fn is_range(id: &ClientId) -> bool {
    matches!(id.form(), IdForm::Range(_))
}
