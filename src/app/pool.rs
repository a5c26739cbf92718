//! The pool as a configuration wants it, and the threads that keep it: look-ups and health checks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::backends::wanted;
use super::tls::Tls;
use super::{StartFailure, failed};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::backends::BackendRow;
use crate::upstream::prober::{CheckDriver, Prober};
use crate::upstream::resolve::{Lookup, Resolver};
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::{Backends, Operator, Settings};
use balancer_pool::outlier::OutlierPolicy;
use balancer_pool::policy::{CallPolicy, PoolPolicy, StickyCookie};
use balancer_pool::retry;
use balancer_pool::sticky::SigningKey;
use balancer_pool::strategy::Strategy;
use balancer_time::nanos;

/// What the pool is run by.
pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        strategy: config.balancing.strategy,
        checked: config.health_check.is_some(),
        max_in_flight: config.balancing.max_in_flight,
        // Only where a request that waits for its backend holds one.
        workers: (config.frontend.engine.is_portable())
            .then(|| u32::try_from(config.frontend.workers()).unwrap_or(u32::MAX)),
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

fn policy(config: &Config) -> PoolPolicy {
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
        queue_size: balancing.queue_size,
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

/// The pool without addresses, and its backends' entries.
pub(super) fn begin(
    config: &Config,
    stored: &[BackendRow],
    metrics: &Metrics,
) -> (Arc<Backends>, Vec<BackendEntry>) {
    let wanted = wanted(&config.backends, stored);
    let entries: Vec<_> = wanted.iter().map(|one| one.entry.clone()).collect();
    metrics.set_backends(entries.iter().map(|backend| backend.name.as_str()));
    let backends = Backends::new(&settings(config), &entries);
    for (group, one) in backends.backends().iter().zip(&wanted) {
        group.set_operator(one.operator.unwrap_or(Operator::Up));
    }
    (Arc::new(backends), entries)
}

/// How long first look-ups and first checks are awaited.
pub(super) fn first_patience(config: &Config) -> Duration {
    config.health_check.as_ref().map_or(config.upstream.connect_timeout, |check| check.timeout)
}

/// Finds the backends' addresses and checks each once, before anything is promised.
pub(super) fn watch(
    config: &Config,
    entries: &[BackendEntry],
    backends: &Arc<Backends>,
    lookup: &Lookup,
    tls: &Tls,
    clock: &Clock,
) -> Result<(Resolver, Option<Prober>), StartFailure> {
    let first = first_patience(config);
    tls.apply_pool(config, entries);
    let resolver = Resolver::start(backends, entries, config.upstream.resolve_interval, lookup, clock)
        .map_err(failed("names can't be resolved"))?;
    resolver.wait_first(first);
    let prober = checks(config, backends, tls, clock).map_err(failed("health checks can't be started"))?;
    if let Some(prober) = &prober {
        prober.wait_first(first);
    }
    Ok((resolver, prober))
}

/// Starts the health checks that are configured, if any are.
pub(super) fn checks(
    config: &Config,
    backends: &Arc<Backends>,
    tls: &Tls,
    clock: &Clock,
) -> io::Result<Option<Prober>> {
    let driver = CheckDriver::of(config.frontend.engine);
    let start = |check| Prober::start(Arc::clone(backends), check, driver, &tls.backends, clock.clone());
    config.health_check.clone().map(start).transpose()
}
