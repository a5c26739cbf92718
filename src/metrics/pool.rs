//! What is counted of one pool: its backends, and its line of requests that wait for room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::shards::{Codes, Gauge, Histogram, HistogramSum, PerLabel, Shards};
use super::{Attempt, Family, Metrics, QueueRefusal, Retry, SeriesValue, Show};
use balancer_importance::Priority;

/// Most backends of a pool that have series of their own: as many as a pool can have.
const MAX_BACKENDS: usize = balancer_pool::backends::MAX_ENDPOINTS;

/// See the module. After a pool was removed, its last requests still count here, and the counts are not shown.
#[derive(Debug, Default)]
pub struct PoolMetrics {
    backends: ArcSwap<HashMap<Box<str>, Arc<BackendMetrics>>>,
    line: Shards<LineShard>,
}

#[derive(Debug, Default)]
struct LineShard {
    queued: Gauge,
    /// By priority.
    waits: [Histogram; Priority::ALL.len()],
    refused: PerLabel<QueueRefusal>,
    retries: PerLabel<Retry>,
}

/// What is counted of one backend.
#[derive(Debug, Default)]
struct BackendMetrics {
    shards: Shards<BackendShard>,
    ejections: AtomicU64,
}

#[derive(Debug, Default)]
struct BackendShard {
    codes: Codes,
    errors: AtomicU64,
    durations: Histogram,
}

impl PoolMetrics {
    /// A request began to wait for a backend.
    pub fn queued(&self) {
        self.line.mine().queued.add(1);
    }

    /// A request waits no longer.
    pub fn unqueued(&self, priority: Priority, waited: Duration) {
        let line = self.line.mine();
        line.queued.add(-1);
        line.waits[priority as usize].observe(waited);
    }

    /// A request was refused that found every backend full.
    pub fn queue_refused(&self, why: QueueRefusal) {
        self.line.mine().refused.count(why);
    }

    /// A request was sent again.
    pub fn retry(&self, reason: Retry) {
        self.line.mine().retries.count(reason);
    }

    /// One attempt at a backend ended; `duration` up to the answer's head. Not counted for a backend that
    /// [`PoolMetrics::set_backends`] did not name: it was taken out of the configuration meanwhile.
    pub fn attempt(&self, backend: &str, attempt: Attempt, duration: Duration) {
        let backends = self.backends.load();
        let Some(metrics) = backends.get(backend) else { return };
        let shard = metrics.shards.mine();
        match attempt {
            Attempt::Status(status) => shard.codes.count(status),
            Attempt::Error => {
                shard.errors.fetch_add(1, Relaxed);
            }
        }
        shard.durations.observe(duration);
    }

    /// A backend was taken out because of its answers.
    pub fn ejected(&self, backend: &str) {
        if let Some(metrics) = self.backends.load().get(backend) {
            metrics.ejections.fetch_add(1, Relaxed);
        }
    }

    /// Sets the backends of the pool. Each has its series at once, at 0; the series of all others end.
    pub fn set_backends<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) {
        self.backends.rcu(|old| {
            let kept = |name: &str| old.get(name).cloned().unwrap_or_default();
            names.clone().take(MAX_BACKENDS).map(|name| (name.into(), kept(name))).collect::<HashMap<_, _>>()
        });
    }
}

impl Metrics {
    /// The counters of the pool of that name, which has series from now on.
    pub fn pool(&self, name: &str) -> Arc<PoolMetrics> {
        let found = |pools: &PoolCounters| {
            pools.iter().find(|(own, _)| **own == *name).map(|(_, pool)| Arc::clone(pool))
        };
        if let Some(pool) = found(&self.pools.load()) {
            return pool;
        }
        let new = Arc::<PoolMetrics>::default();
        self.pools.rcu(|pools| {
            let mut pools = PoolCounters::clone(pools);
            if found(&pools).is_none() {
                pools.push((name.into(), Arc::clone(&new)));
            }
            pools
        });
        found(&self.pools.load()).unwrap_or(new)
    }

    /// Ends the series of all pools but these.
    pub fn keep_pools(&self, names: &[&str]) {
        self.pools.rcu(|pools| {
            pools.iter().filter(|(name, _)| names.contains(&&**name)).cloned().collect::<PoolCounters>()
        });
    }

    pub(super) fn visit_pools(&self, show: &mut Show<'_>) {
        let pools = self.pools.load();
        for (pool, metrics) in pools.iter() {
            let queued = metrics.line.level(|line| &line.queued);
            show(Family::QueueDepth, &[("pool", pool)], SeriesValue::Gauge(queued));
            for priority in Priority::ALL {
                let waits = HistogramSum::of(metrics.line.iter().map(|line| &line.waits[priority as usize]));
                let labels = [("pool", &**pool), ("priority", priority.name())];
                show(Family::QueueWaitSeconds, &labels, SeriesValue::Histogram(waits));
            }
            for why in QueueRefusal::ALL {
                let count = SeriesValue::Counter(metrics.line.sum(|line| line.refused.get(why)));
                show(Family::QueueRefused, &[("pool", pool), ("reason", why.name())], count);
            }
            metrics.visit_backends(pool, show);
            for reason in Retry::ALL {
                let count = SeriesValue::Counter(metrics.line.sum(|line| line.retries.get(reason)));
                show(Family::BackendRetries, &[("pool", pool), ("reason", reason.name())], count);
            }
        }
    }
}

impl PoolMetrics {
    fn visit_backends(&self, pool: &str, show: &mut Show<'_>) {
        let backends = self.backends.load();
        let mut backends: Vec<_> = backends.iter().collect();
        backends.sort_by_key(|(name, _)| *name);
        for (name, metrics) in &backends {
            let mut codes = Codes::sum(metrics.shards.iter().map(|shard| &shard.codes));
            codes.entry(200).or_insert(0);
            let errors = metrics.shards.sum(|shard| shard.errors.load(Relaxed));
            let codes = codes.into_iter().map(|(code, count)| (code.to_string(), count));
            for (code, count) in codes.chain([("error".to_owned(), errors)]) {
                let labels = [("pool", pool), ("backend", &***name), ("code", &*code)];
                show(Family::BackendRequests, &labels, SeriesValue::Counter(count));
            }
            let labels = [("pool", pool), ("backend", &***name)];
            let durations = HistogramSum::of(metrics.shards.iter().map(|shard| &shard.durations));
            show(Family::BackendRequestDurationSeconds, &labels, SeriesValue::Histogram(durations));
            let ejections = SeriesValue::Counter(metrics.ejections.load(Relaxed));
            show(Family::BackendEjections, &labels, ejections);
        }
    }
}

/// Every pool's counters, in the order in which they were made.
pub(super) type PoolCounters = Vec<(Box<str>, Arc<PoolMetrics>)>;
