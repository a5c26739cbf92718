//! The pool: one snapshot of endpoints, picked from by a strategy, counted by leases.
//!
//! A request takes one [`Snapshot`] and picks from it as often as it has to be sent. Writers swap the whole snapshot;
//! endpoints that did not change are carried over with their counters and their health.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, TrySendError, bounded};
use parking_lot::Mutex;

use crate::backend::{BackendEntry, Located};
use crate::fair::AutoBounds;
use crate::health::Status;
use crate::outlier::OutlierPolicy;
use crate::policy::PoolPolicy;
use crate::queue::Queue;
use crate::sticky::SigningKey;
use crate::strategy::Strategy;
use balancer_time::Nanos;

mod bounded;
mod endpoint;
mod lease;
mod listeners;
mod measured;
mod outlier;
mod reconfigure;
mod snapshot;
#[cfg(test)]
mod tests;
mod told;

pub use endpoint::{Backend, Endpoint, Operator, title};
pub use lease::Lease;
pub use measured::MeasuredReport;
pub use outlier::Ejection;
pub use reconfigure::{Placed, Reconfigured};
pub use snapshot::{Snapshot, Unavailable, Wanted};
pub use told::BackendReport;

use lease::Total;
use listeners::Listeners;
use outlier::Outliers;
use reconfigure::{fitting, is_of};
use snapshot::Picker;

/// What the pool is called that is there when no other is named.
pub const DEFAULT_POOL: &str = "default";

/// Most endpoints of the whole pool. Each is checked, and each pick looks at each of them.
pub const MAX_ENDPOINTS: usize = 1024;

/// What a pool is run by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the pool is called, for good.
    pub pool: Arc<str>,
    /// How one of several is picked.
    pub strategy: Strategy,
    /// Without health checks every endpoint counts as healthy.
    pub checked: bool,
    /// Most requests at once on the whole pool.
    pub max_in_flight: Option<u32>,
    /// Where a backend's bound begins and between what it stays, where it is measured.
    pub auto: AutoBounds,
    /// How many workers there are, of which one backend may hold three quarters while there is another to go to.
    pub workers: Option<u32>,
    /// No other pool takes requests: a backend may then hold every worker if there is no other.
    pub alone: bool,
    /// `None`: no endpoint is ejected for how it answers.
    pub outlier: Option<OutlierPolicy>,
    /// Share of the endpoints that may be ejected at once, 0 to 1.
    pub max_ejected: f64,
    /// What endpoints' tokens for sticky sessions are made with.
    pub sticky: Option<SigningKey>,
    /// How the pool is used.
    pub policy: Arc<PoolPolicy>,
}

impl Settings {
    /// A pool called [`DEFAULT_POOL`] with nothing but a strategy: no health checks, no bounds, no ejections.
    pub fn of(strategy: Strategy) -> Self {
        Self {
            pool: DEFAULT_POOL.into(),
            strategy,
            checked: false,
            max_in_flight: None,
            auto: AutoBounds::default(),
            workers: None,
            alone: true,
            outlier: None,
            max_ejected: 0.0,
            sticky: None,
            policy: Arc::default(),
        }
    }

    /// `before`: what this replaces, whose counts and locks go on.
    fn picker(&self, before: Option<&Picker>) -> Picker {
        let count = before.and_then(|before| before.total.as_ref()).map(|total| Arc::clone(&total.count));
        Picker {
            strategy: self.strategy,
            turns: before.map(|before| Arc::clone(&before.turns)).unwrap_or_default(),
            most_workers: self
                .workers
                .map_or(u32::MAX, |workers| (workers / 4 * 3 + workers % 4 * 3 / 4).max(1)),
            // Of a bound that is new, requests that are under way already are not counted.
            total: self.max_in_flight.map(|most| Total { most, count: count.unwrap_or_default() }),
            outliers: self.outlier.map(|policy| {
                Outliers::new(policy, self.max_ejected, before.and_then(|before| before.outliers.as_ref()))
            }),
            checked: self.checked,
            alone: self.alone,
            sticky: self.sticky.clone(),
        }
    }
}

/// What a change of a backend's addresses came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// Addresses that are new.
    pub added: Vec<SocketAddr>,
    /// Addresses that are gone.
    pub removed: Vec<SocketAddr>,
    /// Addresses that stay and are used otherwise: another tier, another weight.
    pub changed: Vec<SocketAddr>,
    /// New addresses that were left out because the pool is at [`MAX_ENDPOINTS`].
    pub left_out: usize,
}

/// The pool, shared by everybody.
#[derive(Debug)]
pub struct Backends {
    name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    queue: Arc<Queue>,
    /// Held while a new snapshot is made from the current one; over no I/O.
    writer: Mutex<()>,
    /// Who wants to hear of changes; at most a few.
    listeners: Listeners,
}

impl Backends {
    /// The configured backends, still without addresses.
    pub fn new(settings: &Settings, backends: &[BackendEntry]) -> Self {
        let queue = Arc::<Queue>::default();
        queue.configure(settings.policy.queue);
        let new = |entry| {
            let backend = Backend::new(entry, &settings.pool).bounded(entry, settings.auto, 0);
            Arc::new(backend.waited_for_in(&queue))
        };
        let snapshot = Snapshot::new(
            Vec::new(),
            backends.iter().map(new).collect(),
            Arc::new(settings.picker(None)),
            Arc::clone(&settings.policy),
        );
        Self {
            name: Arc::clone(&settings.pool),
            snapshot: ArcSwap::from_pointee(snapshot),
            queue,
            writer: Mutex::new(()),
            listeners: Listeners::default(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The pool as it is now: what one request works with from its beginning to its end. Takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The line of requests that wait for room on any of them.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whether a pick would find somebody.
    pub fn any_up(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.endpoints.iter().any(|endpoint| endpoint.in_service() && endpoint.health() != Status::Down)
    }

    /// What is configured now, in order, with the counters.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.snapshot.load().backends.clone()
    }

    /// [`Backends::located`] for addresses that are used alike.
    pub fn resolved(&self, entry: &BackendEntry, addresses: &[SocketAddr], now: Nanos) -> AddressChange {
        let alike: Vec<Located> = addresses.iter().copied().map(Located::from).collect();
        self.located(entry, &alike, now)
    }

    /// Makes these the addresses of the backend of that entry; endpoints that stay are carried over with their counters and
    /// their health. Nothing happens when no backend of its name is at its place: an answer about where one was before
    /// changes nothing. Takes the writer's lock.
    pub fn located(&self, entry: &BackendEntry, addresses: &[Located], now: Nanos) -> AddressChange {
        let (mut addresses, _) = fitting(addresses, usize::MAX);
        let mut change = AddressChange::default();
        {
            let _writer = self.writer.lock();
            let before = self.snapshot.load_full();
            let Some(group) = before.backends.iter().find(|group| is_of(group, entry)) else {
                return change;
            };
            let (kept, others): (Vec<_>, Vec<_>) =
                before.endpoints.iter().partition(|endpoint| Arc::ptr_eq(&endpoint.group, group));
            let mut own = Vec::with_capacity(addresses.len());
            for endpoint in kept {
                match addresses.binary_search_by_key(&endpoint.address, |one| one.address) {
                    Ok(at) => {
                        if endpoint.set_use(&addresses.remove(at)) {
                            change.changed.push(endpoint.address);
                        }
                        own.push(Arc::clone(endpoint));
                    }
                    Err(_) => change.removed.push(endpoint.address),
                }
            }
            let room = MAX_ENDPOINTS.saturating_sub(others.len() + own.len());
            (addresses, change.left_out) = fitting(&addresses, room);
            // What a backend begins with is no newcomer to anybody's caches.
            let warm = own.is_empty() && change.removed.is_empty();
            let since = if warm { 0 } else { now };
            change.added = addresses.iter().map(|one| one.address).collect();
            if change.added.is_empty() && change.removed.is_empty() {
                return change;
            }
            own.extend(addresses.into_iter().map(|one| before.picker.endpoint(group, one, since)));
            own.sort_unstable_by_key(|endpoint| endpoint.address);
            let endpoints = in_order(&before.backends, &others, group, &own);
            self.snapshot.store(Arc::new(Snapshot::new(
                endpoints,
                before.backends.clone(),
                Arc::clone(&before.picker),
                Arc::clone(&before.policy),
            )));
        }
        self.signal();
        change
    }

    /// Says why the backend of that entry has no address. Only the resolver calls it.
    pub fn set_absence(&self, entry: &BackendEntry, cause: &str) {
        let snapshot = self.snapshot.load();
        let group = snapshot.backends.iter().find(|group| *group.name == entry.name && group.is_at(entry));
        if let Some(group) = group {
            group.set_absence(cause);
        }
    }

    /// Says what the health checks found. For the prober alone.
    pub fn set_health(&self, endpoint: &Endpoint, health: Status, now: Nanos) {
        if health == Status::Up && endpoint.health() == Status::Down {
            endpoint.up_since.store(now, Ordering::Relaxed);
            if let Some(outliers) = &self.snapshot.load().picker.outliers {
                outliers.begin_anew(&endpoint.standing);
            }
        }
        endpoint.health.store(health as u8, Ordering::Relaxed);
        self.signal();
    }

    /// One signal waits here after any number of changes of addresses or health since it was last taken; a first one
    /// waits at once. Dropping the receiver ends it.
    pub fn changes(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        // A full channel has a signal waiting already; a closed one has no reader.
        self.on_change(move || sender.try_send(()) != Err(TrySendError::Disconnected(())));
        receiver
    }

    /// Calls `tell` now and after every change of addresses or health, until it gives false. It is called under a lock:
    /// it must neither block nor call the pool.
    pub fn on_change(&self, tell: impl Fn() -> bool + Send + 'static) {
        self.listeners.add(Box::new(tell));
    }

    fn signal(&self) {
        self.queue.changed();
        self.listeners.tell();
    }
}

/// All endpoints in the order of the backends, which the others are in already: one walk, however many there are, since a
/// start does this for every backend.
fn in_order(
    backends: &[Arc<Backend>],
    others: &[&Arc<Endpoint>],
    changed: &Arc<Backend>,
    own: &[Arc<Endpoint>],
) -> Vec<Arc<Endpoint>> {
    let mut endpoints = Vec::with_capacity(others.len() + own.len());
    let mut rest = others.iter().copied().peekable();
    for group in backends {
        if Arc::ptr_eq(group, changed) {
            endpoints.extend_from_slice(own);
        }
        while let Some(one) = rest.next_if(|one| Arc::ptr_eq(&one.group, group)) {
            endpoints.push(Arc::clone(one));
        }
    }
    debug_assert!(rest.next().is_none(), "endpoints stand in the order of their backends");
    endpoints
}
