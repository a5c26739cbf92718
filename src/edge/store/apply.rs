//! Writes, and memory after them: what was committed is in force before anybody is told that it was.

use std::collections::HashSet;

use ipnet::IpNet;

use super::core::{Core, entries};
use super::ops::{self, Change, Done, Failed, To, Written};
use super::session::Fault;
use super::v1::{Actor, Condition, LimitRow, PlanRow};
use crate::rules::identity::{ClientId, IdForm, group};
use crate::rules::terms::{Plan, PlanName};
use crate::state::metrics::StoreOp;

/// Most groups whose rows a batch reads anew for the cache; those beyond are loaded when they are next asked for.
const MAX_GROUPS_READ: usize = 1_000;

impl Core {
    /// Writes, on the one thread that does, and puts what was committed in force before anybody is told.
    pub fn write(&self, wishes: &[Change], actor: &Actor, is_batch: bool) -> Result<Written, Failed> {
        let networks = self.networks(wishes);
        let mut held: Vec<IpNet> =
            networks.iter().copied().filter(|net| !is_batch || self.cache.holds(*net)).collect();
        held.truncate(MAX_GROUPS_READ);
        let terms =
            ops::Terms { actor, is_batch, groups: &held, ipv6_prefix: self.ipv6_prefix, keep: self.keep };
        let name = match wishes {
            [Change { to: To::New(_), .. }] if !is_batch => StoreOp::Create,
            [Change { to: To::Gone, .. }] if !is_batch => StoreOp::Delete,
            _ => StoreOp::Update,
        };
        match self.ask_for(
            name,
            |failed: &Failed| &failed.fault,
            |store| ops::write(store, self.within, wishes, terms),
        ) {
            Ok(mut written) => {
                let groups = std::mem::take(&mut written.groups);
                self.apply(&written.done, groups, &networks);
                Ok(written)
            }
            Err(failed) => {
                if matches!(failed.fault, Fault::Down { outcome_unknown: true, .. }) {
                    self.doubt(networks);
                }
                Err(failed)
            }
        }
    }

    /// The groups of the wishes, each once.
    fn networks(&self, wishes: &[Change]) -> Vec<IpNet> {
        let mut seen = HashSet::new();
        let network = |wish: &Change| Some(group(wish.id.address()?, self.ipv6_prefix));
        wishes.iter().filter_map(network).filter(|network| seen.insert(*network)).collect()
    }

    /// Memory follows what was committed. The limiter hears of a new entry before the cache does: a bucket of its own
    /// then starts from the one that its client had until now.
    fn apply(&self, done: &[Done], groups: Vec<(IpNet, Vec<LimitRow>)>, networks: &[IpNet]) {
        let ranges: Vec<&Done> = done.iter().filter(|one| is_range(&one.id)).collect();
        if !ranges.is_empty() {
            self.apply_ranges(&ranges);
        }
        let tell = |one: &Done| self.tell_entry(&one.id, one.after.as_ref());
        let (new, old): (Vec<&Done>, Vec<&Done>) =
            done.iter().filter(|one| !is_range(&one.id)).partition(|one| one.is_new());
        new.into_iter().for_each(tell);
        let put: HashSet<IpNet> = groups.iter().map(|(network, _)| *network).collect();
        for (network, rows) in groups {
            self.cache.put(network, entries(rows));
        }
        for network in networks.iter().filter(|network| !put.contains(network)) {
            self.cache.doubt(*network);
        }
        old.into_iter().for_each(tell);
        if !ranges.is_empty() {
            self.tell_shared();
        }
    }

    /// Ranges were written by this process.
    fn apply_ranges(&self, done: &[&Done]) {
        self.change_ranges(done.iter().filter_map(|one| {
            let IdForm::Range(net) = one.id.form() else { return None };
            Some((net, one.row()))
        }));
    }

    /// Writes a plan, in force on the next request of all its clients.
    pub fn put_plan(
        &self,
        plan: &Plan,
        condition: &Condition,
        must_be_new: bool,
        actor: &Actor,
    ) -> Result<(PlanRow, bool), Fault> {
        let terms = (actor, self.keep);
        let name = if must_be_new { StoreOp::Create } else { StoreOp::Update };
        let written =
            self.ask(name, |store| ops::put_plan(store, self.within, plan, condition, must_be_new, terms))?;
        let row = written.row.ok_or_else(|| Fault::down("the database was not asked"))?;
        self.change_plan(&row.plan.name, Some(&row.plan.terms));
        Ok((row, written.created))
    }

    /// Takes a plan away.
    pub fn remove_plan(&self, plan: &PlanName, condition: &Condition, actor: &Actor) -> Result<(), Fault> {
        let terms = (actor, self.keep);
        self.ask(StoreOp::Delete, |store| ops::remove_plan(store, self.within, plan, condition, terms))?;
        self.change_plan(plan, None);
        Ok(())
    }

    /// Learns what became of the writes whose outcome was unknown, on the thread that writes. Such a write holds the
    /// writers' lock to its end, and the database may commit it long after its caller gave up: what is read under that
    /// lock is true, what was read before it may not have been.
    pub fn settle(&self) {
        for network in self.take_doubts() {
            match self.ask(StoreOp::Load, |store| ops::load_settled(store, self.within, network)) {
                Ok(rows) => self.cache.put(network, entries(rows)),
                Err(_) => self.doubt([network]),
            }
        }
    }
}

fn is_range(id: &ClientId) -> bool {
    matches!(id.form(), IdForm::Range(_))
}
