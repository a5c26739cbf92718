//! Puts another configuration of the pool in force in one step. What did not change is carried over, the rest is new.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::endpoint::{Backend, Endpoint, Operator};
use super::snapshot::{Picker, Snapshot};
use super::{Backends, MAX_ENDPOINTS, Settings};
use crate::backend::{BackendEntry, Located};
use crate::health::Status;
use balancer_time::Nanos;

/// A backend of the new configuration.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its entry.
    pub entry: BackendEntry,
    /// Its first addresses, if it is new or has another URL. A backend that stays keeps its addresses.
    pub addresses: Vec<Located>,
    /// The operator's word; `None`: as it was, and up for a new backend.
    pub operator: Option<Operator>,
}

/// What changed: names of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconfigured {
    /// New backends.
    pub added: Vec<String>,
    /// Backends that have another URL.
    pub moved: Vec<String>,
    /// Backends that are gone. Their requests under way go on.
    pub removed: Vec<String>,
    /// Number of addresses for which the pool has no room ([`MAX_ENDPOINTS`]).
    pub left_out: usize,
}

impl Picker {
    /// A new endpoint under these settings. `since`: see [`Endpoint::new`].
    pub(super) fn endpoint(&self, group: &Arc<Backend>, located: Located, since: Nanos) -> Arc<Endpoint> {
        let health = if self.checked { Status::Unknown } else { Status::Up };
        let endpoint = Endpoint::new(Arc::clone(group), located, health, since);
        endpoint.set_token(self.sticky.as_ref());
        Arc::new(endpoint)
    }
}

impl Backends {
    /// Those among `entries` that [`Backends::reconfigure`] would make anew, so that it needs their addresses.
    pub fn new_among<'a>(&self, entries: &'a [BackendEntry]) -> Vec<&'a BackendEntry> {
        let snapshot = self.snapshot();
        let is_new = |entry: &&BackendEntry| carried(&snapshot, entry).is_none();
        entries.iter().filter(is_new).collect()
    }

    /// Puts settings and backends in force, all at once. A backend with the same name and URL is carried over with its
    /// endpoints, their counters, health and ejections; everything else follows its entry. Takes the writer's lock.
    pub fn reconfigure(&self, settings: &Settings, wanted: &[Placed], now: Nanos) -> Reconfigured {
        let mut told = Reconfigured::default();
        {
            let _writer = self.writer.lock();
            let before = self.snapshot.load_full();
            let picker = Arc::new(settings.picker(Some(&before.picker)));
            let mut backends: Vec<Arc<Backend>> = Vec::with_capacity(wanted.len());
            // Endpoints that stay have room before new ones.
            let mut room = MAX_ENDPOINTS.saturating_sub(
                before
                    .endpoints
                    .iter()
                    .filter(|one| wanted.iter().any(|it| is_of(&one.group, &it.entry)))
                    .count(),
            );
            let since = if before.endpoints.is_empty() { 0 } else { now };
            let mut endpoints = Vec::new();
            for Placed { entry, addresses, operator } in wanted {
                if let Some(group) = carried(&before, entry) {
                    group.set_terms(entry, settings.auto, now);
                    operator.iter().for_each(|operator| group.set_operator(*operator));
                    endpoints.extend(
                        before.endpoints.iter().filter(|one| Arc::ptr_eq(&one.group, group)).cloned(),
                    );
                    backends.push(Arc::clone(group));
                    continue;
                }
                let namesake = before.backends.iter().find(|group| *group.name == entry.name);
                let new = || Backend::new(entry, &self.name).waited_for_in(&self.queue);
                let group = namesake.map_or_else(new, |old| old.moved(entry));
                let group = Arc::new(group.bounded(entry, settings.auto, now));
                operator.iter().for_each(|operator| group.set_operator(*operator));
                let list = if namesake.is_some() { &mut told.moved } else { &mut told.added };
                list.push(entry.name.clone());
                let (addresses, left_out) = fitting(addresses, room);
                told.left_out += left_out;
                room -= addresses.len();
                endpoints.extend(addresses.into_iter().map(|one| picker.endpoint(&group, one, since)));
                backends.push(group);
            }
            let is_gone = |group: &&Arc<Backend>| wanted.iter().all(|one| one.entry.name != *group.name);
            told.removed =
                before.backends.iter().filter(is_gone).map(|group| group.name.to_string()).collect();
            settle(&before.picker, &picker, &endpoints);
            let policy = Arc::clone(&settings.policy);
            self.queue.configure(policy.queue);
            self.snapshot.store(Arc::new(Snapshot::new(endpoints, backends, picker, policy)));
        }
        self.signal();
        told
    }
}

/// Each address once, in order, and how many are left out. If there is not enough room, addresses of lower tiers come
/// first; an address that is given twice has its lower tier.
pub(super) fn fitting(addresses: &[Located], room: usize) -> (Vec<Located>, usize) {
    let mut all = addresses.to_vec();
    all.sort_unstable_by_key(|one| (one.address, one.tier));
    all.dedup_by_key(|one| one.address);
    all.sort_unstable();
    let left_out = all.len().saturating_sub(room);
    all.truncate(room);
    all.sort_unstable_by_key(|one| one.address);
    (all, left_out)
}

/// Whether that entry has the name and the URL of this backend.
pub(super) fn is_of(group: &Backend, entry: &BackendEntry) -> bool {
    *group.name == entry.name && group.is_at(entry)
}

/// The backend that is carried over for that entry.
fn carried<'a>(before: &'a Snapshot, entry: &BackendEntry) -> Option<&'a Arc<Backend>> {
    before.backends.iter().find(|group| is_of(group, entry))
}

/// Applies changed settings to endpoints that are carried over.
fn settle(before: &Picker, after: &Picker, endpoints: &[Arc<Endpoint>]) {
    if before.checked && !after.checked {
        // Without checks, nothing would bring an endpoint up again. The checks have ended by now, so this is the only
        // writer.
        endpoints.iter().for_each(|one| one.health.store(Status::Up as u8, Ordering::Relaxed));
    }
    if before.sticky != after.sticky {
        endpoints.iter().for_each(|one| one.set_token(after.sticky.as_ref()));
    }
}
