//! The pool: a snapshot of endpoints, from which a strategy picks, with leases that count requests.
//!
//! A request takes one [`Snapshot`] and picks from it each time it is sent. Writers replace the whole snapshot;
//! endpoints that stay are carried over with their counters and their health.

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

/// The name of the pool of the top-level backends.
pub const DEFAULT_POOL: &str = "default";

/// Most endpoints of a pool. Each has health checks, and each pick looks at all of them.
pub const MAX_ENDPOINTS: usize = 1024;

/// The settings of a pool.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pool's name, which never changes.
    pub pool: Arc<str>,
    /// How one of several endpoints is picked.
    pub strategy: Strategy,
    /// Whether there are health checks. Without them every endpoint counts as healthy.
    pub checked: bool,
    /// Most requests at once on the whole pool; `None`: no bound.
    pub max_in_flight: Option<u32>,
    /// Start and limits of measured bounds.
    pub auto: AutoBounds,
    /// Number of workers, if requests hold workers. One backend may hold three quarters of them while there is
    /// another one.
    pub workers: Option<u32>,
    /// No other pool takes requests, so a backend may hold all workers if it is the only one.
    pub alone: bool,
    /// When endpoints are ejected because of their answers; `None`: never.
    pub outlier: Option<OutlierPolicy>,
    /// The share of the endpoints that may be ejected at once, 0 to 1.
    pub max_ejected: f64,
    /// The secret for the tokens of sticky sessions; `None`: there are none.
    pub sticky: Option<SigningKey>,
    /// How the pool is used.
    pub policy: Arc<PoolPolicy>,
}

impl Settings {
    /// A pool named [`DEFAULT_POOL`] with a strategy, and without health checks, bounds and ejections.
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

    /// The [`Picker`] for these settings. `before`: the one that it replaces, whose counts and locks it takes over.
    fn picker(&self, before: Option<&Picker>) -> Picker {
        let count = before.and_then(|before| before.total.as_ref()).map(|total| Arc::clone(&total.count));
        Picker {
            strategy: self.strategy,
            turns: before.map(|before| Arc::clone(&before.turns)).unwrap_or_default(),
            most_workers: self
                .workers
                .map_or(u32::MAX, |workers| (workers / 4 * 3 + workers % 4 * 3 / 4).max(1)),
            // If the bound is new, requests that are under way already are not counted.
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

/// What changed of a backend's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// Addresses that are new.
    pub added: Vec<SocketAddr>,
    /// Addresses that are gone.
    pub removed: Vec<SocketAddr>,
    /// Addresses that stay with another tier or another weight.
    pub changed: Vec<SocketAddr>,
    /// Number of new addresses that were left out because the pool has [`MAX_ENDPOINTS`].
    pub left_out: usize,
}

/// The pool, shared by all threads.
#[derive(Debug)]
pub struct Backends {
    name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    queue: Arc<Queue>,
    /// Held while a new snapshot is made from the current one; never across I/O.
    writer: Mutex<()>,
    /// Functions to call after changes; a few at most.
    listeners: Listeners,
}

impl Backends {
    /// A pool of these backends, which have no addresses yet.
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

    /// The pool's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The pool as it is now. A request uses one snapshot from its beginning to its end. Takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The line of requests that wait for an endpoint with room.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whether any endpoint is in service and not down.
    pub fn any_up(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.endpoints.iter().any(|endpoint| endpoint.in_service() && endpoint.health() != Status::Down)
    }

    /// The configured backends, in order, with their counters.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.snapshot.load().backends.clone()
    }

    /// [`Backends::located`] for addresses of equal tier and weight.
    pub fn resolved(&self, entry: &BackendEntry, addresses: &[SocketAddr], now: Nanos) -> AddressChange {
        let alike: Vec<Located> = addresses.iter().copied().map(Located::from).collect();
        self.located(entry, &alike, now)
    }

    /// Makes these the addresses of the backend of that entry. Endpoints that stay are carried over with their
    /// counters and their health. Does nothing if no backend has the entry's name and URL: then the answer of the
    /// name server is about a backend that was replaced. Takes the writer's lock.
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
            // The first addresses of a backend need no slow start.
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

    /// Notes why the backend of that entry has no address. Only the resolver calls it.
    pub fn set_absence(&self, entry: &BackendEntry, cause: &str) {
        let snapshot = self.snapshot.load();
        let group = snapshot.backends.iter().find(|group| *group.name == entry.name && group.is_at(entry));
        if let Some(group) = group {
            group.set_absence(cause);
        }
    }

    /// Notes the health of an endpoint. Only the prober calls it.
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

    /// A channel that gets a signal after changes of addresses or health, and one at once. It holds one signal at
    /// most, however many changes there were since the last one was taken. Dropping the receiver ends it.
    pub fn changes(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        // If the channel is full, a signal is waiting already; if it is disconnected, there is no reader any more.
        self.on_change(move || sender.try_send(()) != Err(TrySendError::Disconnected(())));
        receiver
    }

    /// Calls `tell` now and after every change of addresses or health, until it returns false. It is called under a
    /// lock, so it must neither block nor call the pool.
    pub fn on_change(&self, tell: impl Fn() -> bool + Send + 'static) {
        self.listeners.add(Box::new(tell));
    }

    fn signal(&self) {
        self.queue.changed();
        self.listeners.tell();
    }
}

/// All endpoints in the order of the backends. `others` are in that order already. Needs one walk over them, since at
/// a start it is called for every backend.
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
    debug_assert!(rest.next().is_none(), "endpoints are in the order of their backends");
    endpoints
}
