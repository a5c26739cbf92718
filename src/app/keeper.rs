//! What pools are kept with, and what a pool is run by as its configuration says.

use std::ops::Deref;
use std::sync::Arc;

use super::tls::Tls;
use crate::clock::Clock;
use crate::config::{Config, Frontend, PoolConfig};
use crate::metrics::Metrics;
use crate::store::backends::BackendRow;
use crate::upstream::prober::Prober;
use crate::upstream::resolve::Lookup;
use balancer_pool::backends::Settings;
use balancer_pool::outlier::OutlierPolicy;
use balancer_pool::policy::{CallPolicy, PoolPolicy, StickyCookie};
use balancer_pool::queue::QueuePolicy;
use balancer_pool::retry;
use balancer_pool::sticky::SigningKey;
use balancer_pool::strategy::Strategy;
use balancer_time::nanos;

/// What all pools are made and changed with, whatever the configuration is.
#[derive(Clone)]
pub(super) struct Keeper {
    pub metrics: Arc<Metrics>,
    pub tls: Tls,
    pub lookup: Lookup,
    pub prober: Arc<Prober>,
    pub clock: Clock,
}

/// The same, with the configuration that they are kept by.
#[derive(Clone, Copy)]
pub(super) struct Keeping<'a> {
    pub keeper: &'a Keeper,
    pub frontend: &'a Frontend,
    /// Whether the default pool is the only one.
    pub alone: bool,
    /// The stored backends.
    pub stored: &'a [BackendRow],
}

impl Keeper {
    pub fn by<'a>(&'a self, config: &'a Config, stored: &'a [BackendRow]) -> Keeping<'a> {
        Keeping { keeper: self, frontend: &config.frontend, alone: config.pools.len() == 1, stored }
    }
}

impl Deref for Keeping<'_> {
    type Target = Keeper;

    fn deref(&self) -> &Keeper {
        self.keeper
    }
}

/// The settings of a pool's backends.
pub(super) fn settings(config: &PoolConfig, keeping: &Keeping<'_>) -> Settings {
    let frontend = keeping.frontend;
    Settings {
        pool: config.name.as_str().into(),
        strategy: config.balancing.strategy,
        checked: config.health_check.is_some(),
        max_in_flight: config.balancing.max_in_flight,
        auto: config.balancing.auto,
        // Only on the engine on which a request that waits for its backend holds a worker.
        workers: (frontend.engine.is_portable())
            .then(|| u32::try_from(frontend.workers()).unwrap_or(u32::MAX)),
        alone: keeping.alone,
        outlier: config.outlier.as_ref().map(|outlier| OutlierPolicy {
            consecutive: outlier.consecutive,
            ratio: outlier.ratio,
            window: nanos(outlier.window),
            base_time: nanos(outlier.base_time),
        }),
        max_ejected: config.outlier.as_ref().map_or(0.0, |outlier| outlier.max_ejected),
        sticky: (config.balancing.sticky.as_ref())
            .map(|sticky| SigningKey::new(sticky.secret.reveal().as_bytes())),
        policy: Arc::new(policy(config)),
    }
}

fn policy(config: &PoolConfig) -> PoolPolicy {
    let (upstream, balancing) = (&config.upstream, &config.balancing);
    let on = &upstream.retry_on;
    PoolPolicy {
        retry: retry::RetryPolicy {
            retries: upstream.retries,
            on_connect: on.connect,
            on_reset: on.reset,
            on_timeout: on.timeout,
        },
        retry_statuses: on.statuses.clone(),
        retry_budget: upstream.retry_budget,
        request_timeout: upstream.request_timeout,
        via: upstream.via,
        queue: QueuePolicy {
            order: balancing.queue_order,
            size: balancing.queue_size,
            target: balancing.queue_target.map(nanos),
        },
        queue_timeout: balancing.queue_timeout,
        outlier_statuses: config.outlier.as_ref().map(|one| one.statuses.clone()).unwrap_or_default(),
        hash_on: (balancing.strategy == Strategy::Hash).then(|| balancing.hash_on.clone()),
        sticky: (balancing.sticky.as_ref())
            .map(|sticky| StickyCookie { name: sticky.cookie.clone(), secure: sticky.secure }),
        call: CallPolicy {
            connect: nanos(upstream.connect_timeout),
            response: nanos(upstream.response_timeout),
            read: nanos(upstream.read_timeout),
            idle: nanos(upstream.idle_timeout),
            max_head_bytes: upstream.max_head_bytes,
            max_headers: upstream.max_headers,
            accept_invalid: upstream.accept_invalid,
        },
    }
}
