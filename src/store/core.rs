//! What the store threads, the watch and [`super::Limits`] share: the database, and what memory holds of it.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::StoreState;
use super::backends::BackendRow;
use super::book::Book;
use super::breaker::Breaker;
use super::migrate;
use super::ops::{self, Keep};
use super::session::{Access, Store};
use super::stored::Stored;
use super::v1::LimitRow;
use crate::clock::Clock;
use crate::metrics::{Metrics, StoreOp};
use crate::store::StoreError;
use crate::store::cache::{Cache, CacheGroup, Entry, EntryKind, Found, Hit, Known, LoadTicket};
use balancer_limiter::identity::{ClientId, ClientKey};
use balancer_limiter::limiter::{Limiter, Room, Shared};
use balancer_limiter::plans::{PlanMap, Plans};
use balancer_limiter::ranges::{Range, Ranges};
use balancer_limiter::terms::{ClientLimit, Plan, PlanName, Terms};

/// See the module.
pub struct Core {
    pub store: Box<dyn Store>,
    pub breaker: Breaker,
    pub cache: Arc<Cache>,
    pub ranges: ArcSwap<Ranges>,
    /// Which changes memory has followed. Held while ranges, plans or backends are swapped, never during I/O.
    pub book: Mutex<Book>,
    /// Places of writes whose outcome is unknown, because the connection broke during the commit.
    doubts: Mutex<BTreeSet<CacheGroup>>,
    pub limiter: Arc<Limiter>,
    plans: Plans,
    /// The stored backends.
    pub backends: Stored,
    default: ArcSwap<Option<Terms>>,
    /// Counts changes of ranges and plans.
    changes: AtomicU64,
    /// Held while the limiter is told of ranges, default, plans and entries, so that the last call tells the newest; never
    /// during I/O.
    telling: Mutex<()>,
    pub ipv6_prefix: u8,
    pub clock: Clock,
    /// How long the database may take for one call. It is a little less than the caller waits, so that the caller is told
    /// whether the call was done, and not only that its time is over.
    pub within: Duration,
    /// How much of the audit is kept.
    pub keep: Keep,
    metrics: Arc<Metrics>,
}

/// What a [`Core`] is made of.
pub struct CoreParts {
    pub store: Box<dyn Store>,
    pub breaker: Breaker,
    pub cache: Arc<Cache>,
    pub limiter: Arc<Limiter>,
    pub default: Option<Terms>,
    pub ipv6_prefix: u8,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub within: Duration,
    pub keep: Keep,
}

impl Core {
    /// Puts the parts together. Memory holds nothing yet.
    pub fn new(parts: CoreParts) -> Arc<Self> {
        let CoreParts { store, breaker, cache, limiter, default, ipv6_prefix, metrics, clock, within, keep } =
            parts;
        Arc::new(Self {
            store,
            breaker,
            cache,
            ranges: ArcSwap::from_pointee(Ranges::default()),
            book: Mutex::new(Book::default()),
            doubts: Mutex::new(BTreeSet::new()),
            limiter,
            plans: Plans::default(),
            backends: Stored::default(),
            default: ArcSwap::from_pointee(default),
            changes: AtomicU64::new(0),
            telling: Mutex::new(()),
            ipv6_prefix,
            clock,
            within,
            keep,
            metrics,
        })
    }

    /// A number that changes whenever memory learns something of the database.
    pub fn memory_version(&self) -> u64 {
        self.cache.changes().wrapping_add(self.changes.load(Ordering::Relaxed))
    }

    /// Replaces all ranges. The caller holds `book`.
    pub fn put_ranges(&self, next: Ranges) {
        self.ranges.store(Arc::new(next));
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The ranges in force.
    pub fn ranges(&self) -> Arc<Ranges> {
        self.ranges.load_full()
    }

    /// What decides about a client, given what the cache knows.
    pub fn found(&self, known: Known, address: IpAddr) -> Found {
        match known {
            Known::Entry(hit) => self.of_entry(hit),
            Known::Absent | Known::Unknown => {
                let in_force = self.in_force();
                let shared = in_force.shared();
                let (client, granted, range) = shared.of_address(address);
                let source = if range.is_some() { EntryKind::Range } else { EntryKind::Default };
                let (room, entry) = (shared.room(range), range.map(|range| Arc::clone(&range.id)));
                Found { client, granted, source, entry, room }
            }
        }
    }

    /// What decides when an entry names the client.
    pub fn of_entry(&self, hit: Hit) -> Found {
        Found {
            client: hit.client,
            granted: self.in_force().shared().resolve(&hit.limit, EntryKind::Client),
            source: EntryKind::Client,
            entry: Some(hit.id),
            room: Room::Own,
        }
    }

    /// What decides when nothing names the client.
    pub fn of_default(&self, client: ClientKey) -> Found {
        let in_force = self.in_force();
        let shared = in_force.shared();
        Found {
            client,
            granted: shared.of_default(),
            source: EntryKind::Default,
            entry: None,
            room: shared.room(None),
        }
    }

    /// Asks the database, measures the call, and tells the breaker. A database that answers counts as up, also when it refuses.
    pub fn ask<T>(
        &self,
        op: StoreOp,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.ask_for(op, |fault| fault, question)
    }

    /// As [`Core::ask`], for errors that contain a [`StoreError`].
    pub fn ask_for<T, E>(
        &self,
        op: StoreOp,
        fault_of: impl Fn(&E) -> &StoreError,
        question: impl FnOnce(&dyn Store) -> Result<T, E>,
    ) -> Result<T, E> {
        let started = self.clock.now();
        let result = question(self.store.as_ref());
        let fault = result.as_ref().err().map(fault_of).filter(|fault| !fault.is_answer());
        let took = Duration::from_nanos(self.clock.now().saturating_sub(started));
        self.metrics.store(op, took, fault.is_none());
        match fault {
            None => {
                self.breaker.answered();
                if result.is_ok() && is_change(op) {
                    self.breaker.takes_changes();
                }
            }
            Some(StoreError::Refused { state, cause }) if *state != StoreState::Up => {
                self.breaker.refuses(*state, cause);
            }
            // After a probe, the watch tells the breaker.
            Some(fault @ (StoreError::Unavailable { .. } | StoreError::Schema(_)))
                if op != StoreOp::Probe =>
            {
                self.breaker.suspect(&fault.to_string());
            }
            Some(fault) => log::debug!("store: {}: {fault}", op.name()),
        }
        result
    }

    /// Finds out whether the database takes changes: asks it, where it can tell, and tries a change if it refused the last one.
    pub fn try_change(&self) {
        let tried = match ops::read_only(self.store.as_ref(), self.within) {
            Ok(true) => Err(StoreError::Refused { state: StoreState::ReadOnly, cause: "it says so".into() }),
            Ok(false) if self.breaker.what() == StoreState::Up => return,
            Ok(false) => ops::try_change(self.store.as_ref(), self.within),
            Err(fault) => Err(fault),
        };
        match tried {
            Ok(()) => self.breaker.takes_changes(),
            Err(StoreError::Refused { state, cause }) if state != StoreState::Up => {
                self.breaker.refuses(state, &cause);
            }
            Err(fault) => log::debug!("store: a change was tried: {fault}"),
        }
    }

    /// What was read may be out of date. It stays in force until it is loaded again. Takes each lock of the cache in turn,
    /// then `book`.
    pub fn doubt_all(&self) {
        self.cache.doubt_all();
        let mut book = self.book.lock();
        book.followed = None;
        // It may be another database now, in which these numbers belong to changes of other instances.
        book.mine.clear();
    }

    /// Loads a place, on a store thread.
    pub fn load(&self, ticket: LoadTicket) {
        if !self.breaker.up() {
            // The database went down while this job waited. Dropping the ticket wakes the requests that wait for the load.
            return;
        }
        let rows =
            self.ask(StoreOp::Load, |store| ops::load(store, self.within, Access::Read, ticket.place()));
        if let Ok(rows) = rows {
            ticket.finish(entries(rows));
        }
    }

    /// Whether the outcome of a write is still unknown.
    pub fn has_doubts(&self) -> bool {
        !self.doubts.lock().is_empty()
    }

    /// The outcome of a write to these places is unknown.
    pub fn doubt(&self, places: impl IntoIterator<Item = CacheGroup>) {
        for place in places {
            self.cache.doubt(place.clone());
            self.doubts.lock().insert(place);
        }
    }

    /// Takes the places of such writes off the list.
    pub fn take_doubts(&self) -> BTreeSet<CacheGroup> {
        std::mem::take(&mut *self.doubts.lock())
    }

    /// A snapshot of what decides beside entries.
    pub fn in_force(&self) -> InForce {
        InForce {
            ranges: self.ranges.load(),
            plans: self.plans.load(),
            default: self.default.load(),
            ipv6_prefix: self.ipv6_prefix,
        }
    }

    /// Puts another default in force, also on existing buckets. Takes every lock of the limiter, one after another.
    pub fn set_default(&self, default: Option<Terms>) {
        self.default.store(Arc::new(default));
        self.tell_shared();
    }

    /// Tells the limiter the ranges and the default. Takes every lock of the limiter, one after another.
    pub fn tell_shared(&self) {
        let _telling = self.telling.lock();
        self.limiter.shared_changed(self.in_force().shared(), self.clock.moment());
    }

    /// Tells the limiter of an entry; `None`: it was removed. Takes one lock of the limiter at a time.
    pub fn tell_entry(&self, id: &ClientId, limit: Option<&ClientLimit>) {
        let _telling = self.telling.lock();
        self.limiter.entry_changed(id, limit, self.in_force().shared(), self.clock.moment());
    }

    /// Puts a plan in force that this process wrote; `None`: it was removed.
    pub fn change_plan(&self, name: &PlanName, terms: Option<&Terms>) {
        let _telling = self.telling.lock();
        let mut book = self.book.lock();
        book.writes += 1;
        let change = match terms {
            Some(terms) => self.plans.put(Plan { name: name.clone(), terms: terms.clone() }),
            None => self.plans.remove(name),
        };
        drop(book);
        self.changes.fetch_add(1, Ordering::Relaxed);
        if let Some(change) = change {
            self.limiter.plan_changed(&change, self.clock.moment());
        }
    }

    /// Notes a backend that this process wrote; `None`: it was removed.
    pub fn change_backend(&self, name: &str, row: Option<BackendRow>) {
        let mut book = self.book.lock();
        book.writes += 1;
        self.backends.put(name, row);
    }

    /// Replaces all plans with those that were read. False, and nothing is replaced, if this process wrote since `writes`
    /// was counted.
    pub fn replace_plans(&self, plans: Vec<Plan>, writes: u64) -> bool {
        let _telling = self.telling.lock();
        let book = self.book.lock();
        if book.writes != writes {
            return false;
        }
        let changes = self.plans.replace(plans);
        drop(book);
        self.changes.fetch_add(u64::from(!changes.is_empty()), Ordering::Relaxed);
        for change in changes {
            self.limiter.plan_changed(&change, self.clock.moment());
        }
        true
    }

    /// Puts ranges in force; `None`: the range was removed. The caller holds `book`.
    pub fn change_ranges(&self, changed: impl IntoIterator<Item = (IpNet, Option<LimitRow>)>) {
        let mut list: BTreeMap<IpNet, Range> =
            self.ranges.load().iter().map(|range| (range.net, range.clone())).collect();
        for (net, row) in changed {
            match row.map(|row| range(net, row)) {
                Some(range) => drop(list.insert(net, range)),
                None => drop(list.remove(&net)),
            }
        }
        match Ranges::new(list.into_values()) {
            Ok(next) => self.put_ranges(next),
            // Every instance keeps to the bound when it writes, so only rows that were written by hand can lead here.
            Err(error) => log::error!("store: {error}; the last change of ranges is not in force"),
        }
    }

    /// Checks the schema of the database, or migrates it, and then reads what memory holds as a whole.
    pub fn probe(&self, migrated: bool) -> Result<(), StoreError> {
        let look = if migrated { migrate::check } else { migrate::migrate };
        self.ask(StoreOp::Probe, |store| look(store, self.within))?;
        self.follow()
    }
}

/// Whether an operation changes something in the database.
fn is_change(op: StoreOp) -> bool {
    matches!(op, StoreOp::Create | StoreOp::Update | StoreOp::Delete | StoreOp::Batch)
}

/// A snapshot of what decides beside entries: ranges, plans and default.
pub struct InForce {
    ranges: Guard<Arc<Ranges>>,
    plans: Guard<Arc<PlanMap>>,
    default: Guard<Arc<Option<Terms>>>,
    ipv6_prefix: u8,
}

impl InForce {
    /// As the limiter takes it.
    pub fn shared(&self) -> Shared<'_> {
        Shared {
            ranges: &self.ranges,
            plans: &self.plans,
            default: self.default.as_ref().as_ref(),
            ipv6_prefix: self.ipv6_prefix,
        }
    }
}

/// The rows as entries of the cache. A row whose id can't be read, since it was written by hand, is left out.
pub fn entries(rows: Vec<LimitRow>) -> Vec<Entry> {
    rows.into_iter().filter_map(|row| Entry::new(&parsed(&row)?, Arc::new(row.limit))).collect()
}

/// A row as a range.
pub fn range(net: IpNet, row: LimitRow) -> Range {
    let version = u64::try_from(row.version).unwrap_or(0);
    Range::new(net, Arc::new(row.limit), row.client_id.into(), version)
}

/// The id of a row; `None`, and logged, when it can't be read.
pub fn parsed(row: &LimitRow) -> Option<ClientId> {
    ClientId::parse(&row.client_id)
        .inspect_err(|fault| log::error!("store: the stored id {:?} is left out: it {fault}", row.client_id))
        .ok()
}

#[cfg(test)]
mod tests;
