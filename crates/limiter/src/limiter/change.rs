//! Puts other numbers in force when entries, plans, ranges or the default change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;

use super::table::{Decider, TableRow};
use super::{Fate, Grant, Granted, Limiter, Room};
use crate::answer::EntryKind;
use crate::identity::{ClientId, ClientKey, Crowds, IdForm};
use crate::plans::{PlanChange, PlanMap};
use crate::ranges::{Range, Ranges};
use crate::terms::{ClientLimit, Terms};
use balancer_time::Moment;

/// Everything that decides about clients beside their own entries: ranges, plans, the default.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// All ranges that have a limit.
    pub ranges: &'a Ranges,
    /// All plans.
    pub plans: &'a PlanMap,
    /// `rate_limit.default`.
    pub default: Option<&'a Terms>,
    /// `rate_limit.ipv6_prefix`.
    pub ipv6_prefix: u8,
}

impl Shared<'_> {
    /// What an entry grants. Its own bound on requests at once, weight and priority win over its plan's. If its plan is
    /// not known (it was just made and this process has not heard of it, or its row can't be read), its client gets
    /// what clients without an entry get; so does the client of an entry that can't be read.
    pub fn resolve(&self, limit: &ClientLimit, entry: EntryKind) -> Granted {
        if limit.is_unreadable() {
            return self.of_default();
        }
        if limit.exempt {
            let planned = limit.plan.as_ref().and_then(|name| self.plans.get(name));
            let of_plan = planned.map(|plan| plan.terms.importance).unwrap_or_default();
            return Granted::Exempt(limit.own.importance.or(of_plan));
        }
        let per_instance = limit.per_instance;
        let Some(name) = &limit.plan else {
            return Granted::Limited(Grant { terms: limit.own.clone(), entry, plan: None, per_instance });
        };
        let (terms, plan) = match (self.plans.get(name), self.default) {
            (Some(plan), _) => (&plan.terms, Some(plan.number)),
            (None, Some(default)) => (default, None),
            (None, None) => return Granted::Unlimited,
        };
        let terms = Terms {
            buckets: Arc::clone(&terms.buckets),
            max_in_flight: limit.own.max_in_flight.or(terms.max_in_flight),
            importance: limit.own.importance.or(terms.importance),
        };
        Granted::Limited(Grant { terms, entry, plan, per_instance })
    }

    /// For an address without an entry of its own: the key by which it is counted, what it gets, and the range that
    /// decided.
    pub fn of_address(&self, address: IpAddr) -> (ClientKey, Granted, Option<&Range>) {
        match self.ranges.longest(address) {
            Some(range) => {
                let client = range.client(address, self.ipv6_prefix);
                (client, self.resolve(&range.limit, EntryKind::Range), Some(range))
            }
            None => (ClientKey::group(address, self.ipv6_prefix), self.of_default(), None),
        }
    }

    /// Where an address without an entry of its own counts when the table is full. `range`: the one that decides about
    /// it.
    pub fn room(&self, range: Option<&Range>) -> Room {
        match range {
            None => Room::Shared(Crowds::OF_DEFAULT),
            Some(range) if range.limit.shared => Room::Own,
            Some(range) => Room::Shared(self.ranges.crowds(range)),
        }
    }

    /// What the clients of a network get that are counted as one. `None`: they count with a shared range, and their own
    /// buckets are not used any more.
    fn of_group(&self, group: IpNet) -> Option<Granted> {
        match self.ranges.holding(group) {
            Some(range) if range.limit.shared => None,
            Some(range) => Some(self.resolve(&range.limit, EntryKind::Range)),
            None => Some(self.of_default()),
        }
    }

    /// What a client gets for which neither an entry nor a range decides.
    pub fn of_default(&self) -> Granted {
        match self.default {
            Some(terms) => Granted::Limited(Grant::of_default(terms.clone())),
            None => Granted::Unlimited,
        }
    }
}

impl Limiter {
    /// Puts other numbers in force for one client. [`Limiter::acquire`] does that too, but only with the next request,
    /// and until then tokens would flow in at the old rate. Takes one shard's lock.
    pub fn retune(&self, client: ClientKey, granted: &Granted, when: Moment) {
        let Some(grant) = granted.grant() else { return self.forget(client) };
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        if let Some(row) = rows.table.find(hash as u32, &client) {
            self.put_in_force(rows.table.row_mut(row), grant, when);
        }
    }

    /// The ranges or the default have changed: puts the new numbers in force for all clients without an entry of their
    /// own, and for their crowds. Takes every shard's lock, one after another.
    pub fn shared_changed(&self, shared: Shared<'_>, when: Moment) {
        let with_crowds = shared.ranges.iter().filter(|_| self.crowds() > 0);
        let crowds: HashMap<Crowds, &Range> = with_crowds.map(|range| (range.crowds(), range)).collect();
        let whole: HashMap<ClientKey, &Range> =
            shared.ranges.iter().filter_map(|range| Some((range.shared_key()?, range))).collect();
        let granted = |client: ClientKey, entry| match (client.network(), entry) {
            (_, EntryKind::Client) => None,
            (Some(group), _) => shared.of_group(group),
            (None, EntryKind::Default) => Some(shared.of_default()),
            (None, EntryKind::Range) => {
                let crowd = client.crowd_owner();
                let range = crowd.map_or_else(|| whole.get(&client), |owner| crowds.get(&owner));
                Some(range.map_or(Granted::Unlimited, |range| shared.resolve(&range.limit, EntryKind::Range)))
            }
        };
        for shard in &self.shards {
            self.walk(shard, |row| {
                let Decider::Entry(entry) = row.decider else { return Fate::Kept };
                let Some(granted) = granted(row.client, entry) else { return Fate::Kept };
                if let Some(grant) = granted.grant() {
                    self.put_in_force(row, grant, when);
                    return Fate::Kept;
                }
                // The client has no limit any more, which counts as full.
                row.plan = None;
                if row.slots.forget_limits() || row.in_flight > 0 { Fate::Kept } else { Fate::Forgotten }
            });
        }
    }

    /// A plan has changed: puts its new numbers in force for all its clients. Takes one shard's lock after another.
    pub fn plan_changed(&self, change: &PlanChange, when: Moment) {
        for shard in &self.shards {
            self.walk(shard, |row| {
                if row.plan == Some(change.number) {
                    match &change.terms {
                        Some(terms) => {
                            if row.slots.put_in_force(&terms.buckets, when) {
                                row.stamp = self.epoch.load(Ordering::Relaxed);
                            }
                        }
                        // Another plan may get the number.
                        None => row.plan = None,
                    }
                }
                Fate::Kept
            });
        }
    }

    /// One entry was created or updated (`limit`), or deleted (`None`). `shared` is the state after the change.
    ///
    /// An entry may give a client buckets of its own that it did not have before: that of an `ip:port`, of an IPv6
    /// address inside a prefix, or of an address inside a shared range. They start with the levels of the buckets with
    /// which the client counted until then, changed as with any other change of numbers. After the entry is deleted,
    /// the client counts with the others again.
    ///
    /// Takes one lock at a time; for a range all shards' locks.
    pub fn entry_changed(
        &self,
        id: &ClientId,
        limit: Option<&ClientLimit>,
        shared: Shared<'_>,
        when: Moment,
    ) {
        let own = ClientKey::of_id(id);
        let named = limit.map(|limit| shared.resolve(limit, EntryKind::Client));
        match id.form() {
            IdForm::Range(_) => self.shared_changed(shared, when),
            IdForm::Opaque => self.retune(own, &named.unwrap_or(Granted::Unlimited), when),
            IdForm::Address(address) => {
                let (client, granted, _) = shared.of_address(address);
                match named {
                    named if client == own => self.retune(own, &named.unwrap_or(granted), when),
                    Some(named) => self.adopt(own, &[client], &named, when),
                    None => self.forget(own),
                }
            }
            IdForm::AddressPort(peer) => match named {
                Some(named) => {
                    let (client, ..) = shared.of_address(peer.ip());
                    self.adopt(own, &[ClientKey::address(peer.ip()), client], &named, when);
                }
                None => self.forget(own),
            },
        }
    }

    /// Gives a client buckets of its own, with the levels of the first client in `before` that has a row. If it has
    /// buckets of its own already, only puts the numbers in force.
    fn adopt(&self, own: ClientKey, before: &[ClientKey], granted: &Granted, when: Moment) {
        let Some(grant) = granted.grant() else { return self.forget(own) };
        let start =
            before.iter().find_map(|client| self.read(*client, |row, _| Some(row.slots.starting_over())));
        let hash = self.hash(own);
        let mut rows = self.lock(hash);
        let row = match (rows.table.find(hash as u32, &own), start) {
            (Some(row), _) => row,
            (None, Some(start)) => {
                self.count(own);
                rows.table.insert(TableRow::new(own, hash, start))
            }
            // Its buckets were full and stay full; they are made with the next request.
            (None, None) => return,
        };
        self.put_in_force(rows.table.row_mut(row), grant, when);
    }

    /// Puts a limit in force for a client's row. The shard's lock must be held.
    fn put_in_force(&self, row: &mut TableRow, grant: &Grant, when: Moment) {
        let before = (row.decider, row.plan);
        row.decide_by(grant);
        let changed = row.slots.put_in_force(&grant.terms.buckets, when);
        if changed || before != (row.decider, row.plan) {
            row.stamp = self.epoch.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
