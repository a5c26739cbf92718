//! Gathers every metric of the process from where it is kept.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::budget::SharedBudget;
use crate::engine::RunningEngine;
use crate::metrics::{ConnectionState, Family, Metrics, SeriesValue, Show};
use crate::proxy::policy::PolicyInForce;
use crate::store::{Limits, StoreState};
use crate::tls::front::FrontTls;
use balancer_limiter::limiter::Limiter;
use balancer_pool::backend_state::State;
use balancer_pool::backends::Snapshot;
use balancer_pool::fair::ProbeVerdict;

/// What the exporter reads.
pub(super) struct Gathered {
    pub metrics: Arc<Metrics>,
    pub policy: Arc<PolicyInForce>,
    pub limiter: Arc<Limiter>,
    pub limits: Arc<Limits>,
    pub budget: Arc<SharedBudget>,
    /// Set once the public engine has started.
    pub frontend: Arc<OnceLock<Arc<RunningEngine>>>,
    /// `None`: there is no TLS port.
    pub tls: Option<Arc<FrontTls>>,
    pub started: SystemTime,
}

impl Gathered {
    /// Shows each series once. It does not wait for other threads.
    pub fn visit(&self, show: &mut Show<'_>) {
        self.metrics.visit(show);
        for pool in self.policy.load().pools.iter() {
            let clients = pool.backends.queue().clients();
            show(Family::QueueClients, &[("pool", pool.name())], gauge(clients));
            visit_backends(&pool.backends.snapshot(), pool.name(), show);
        }
        self.visit_frontend(show);
        let cache = self.limits.cache_counters();
        for (family, count) in [
            (Family::RatelimitOverflow, self.limiter.overflowed()),
            (Family::RatelimitCacheHits, cache.hits),
            (Family::RatelimitCacheMisses, cache.misses),
            (Family::RatelimitCacheEvictions, cache.evictions),
        ] {
            show(family, &[], SeriesValue::Counter(count));
        }
        show(Family::RatelimitClients, &[], gauge(self.limiter.clients()));
        self.visit_budget(show);
        show(Family::StoreUp, &[], SeriesValue::Gauge(i64::from(self.limits.state() == StoreState::Up)));
        show(Family::BuildInfo, &[("version", env!("CARGO_PKG_VERSION"))], SeriesValue::Gauge(1));
        self.visit_process(show);
    }

    fn visit_budget(&self, show: &mut Show<'_>) {
        let (state, counts) = (self.budget.state(), self.budget.counts());
        show(Family::BudgetPeers, &[], gauge(state.peers));
        show(Family::BudgetHotClients, &[], SeriesValue::Gauge(state.hot_clients.into()));
        show(Family::BudgetMessagesSent, &[], SeriesValue::Counter(counts.sent));
        show(Family::BudgetMessagesReceived, &[], SeriesValue::Counter(counts.received));
        show(Family::BudgetMessagesDropped, &[], SeriesValue::Counter(counts.dropped));
        show(Family::BudgetMessagesOtherVersion, &[], SeriesValue::Counter(counts.other_versions));
        let lag = state.lag.unwrap_or_default();
        show(Family::BudgetLagSeconds, &[], SeriesValue::Float(lag.as_secs_f64()));
        show(Family::BudgetCutOff, &[], SeriesValue::Gauge(state.cut_off.into()));
    }

    fn visit_frontend(&self, show: &mut Show<'_>) {
        let load = self.frontend.get().map(|frontend| frontend.load()).unwrap_or_default();
        for (state, connections) in [
            (ConnectionState::Reading, load.reading),
            (ConnectionState::Busy, load.busy),
            (ConnectionState::Idle, load.idle),
            (ConnectionState::Parked, load.parked),
            (ConnectionState::Relay, load.relay),
        ] {
            show(Family::Connections, &[("state", state.name())], gauge(connections));
        }
        for certificate in self.tls.iter().flat_map(|tls| tls.certificates()) {
            let until = certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let until = SeriesValue::Gauge(i64::try_from(until).unwrap_or(i64::MAX));
            show(Family::TlsCertificateExpiry, &[("name", &certificate.name)], until);
        }
        show(Family::WorkersBusy, &[], gauge(load.workers_busy));
        for (number, connections) in load.loops.iter().enumerate() {
            let number = number.to_string();
            show(Family::LoopConnections, &[("loop", &number)], gauge(*connections));
        }
        show(Family::LoopsStuck, &[], gauge(load.loops_stuck));
        show(Family::Http2Connections, &[], gauge(load.http2_connections));
        show(Family::Http2Streams, &[], gauge(load.http2_streams));
    }

    /// Metrics of the process, named as by the Prometheus client libraries. What the system does not tell is left out.
    fn visit_process(&self, show: &mut Show<'_>) {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        show(Family::ProcessStartTimeSeconds, &[], SeriesValue::Float(started.as_secs_f64()));
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_seconds = usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9;
        show(Family::ProcessCpuSeconds, &[], SeriesValue::Float(cpu_seconds));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        show(
            Family::ProcessMaxFds,
            &[],
            SeriesValue::Float(limit.map_or(f64::INFINITY, |files| files as f64)),
        );
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            show(Family::ProcessOpenFds, &[], gauge(files.count()));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| -> Option<i64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        if let Some(kib) = number("VmRSS:") {
            show(Family::ProcessResidentMemoryBytes, &[], SeriesValue::Gauge(kib * 1024));
        }
        if let Some(threads) = number("Threads:") {
            show(Family::ProcessThreads, &[], SeriesValue::Gauge(threads));
        }
    }
}

fn visit_backends(snapshot: &Snapshot, pool: &str, show: &mut Show<'_>) {
    for backend in snapshot.backends() {
        let labels = [("pool", pool), ("backend", &*backend.name)];
        let holds = snapshot.told(backend).state;
        show(Family::BackendUp, &labels, SeriesValue::Gauge(i64::from(holds == State::Up)));
        for state in State::ALL {
            let labels = [labels[0], labels[1], ("state", state.name())];
            show(Family::BackendState, &labels, SeriesValue::Gauge(i64::from(holds == state)));
        }
        show(Family::BackendInFlight, &labels, SeriesValue::Gauge(backend.in_flight().into()));
        show(Family::BackendResponseBytes, &labels, SeriesValue::Counter(backend.delivered()));
        let limit = match backend.max_in_flight() {
            u32::MAX => SeriesValue::Float(f64::INFINITY),
            most => SeriesValue::Gauge(most.into()),
        };
        show(Family::BackendLimit, &labels, limit);
        for verdict in ProbeVerdict::ALL {
            let labels = [labels[0], labels[1], ("verdict", verdict.name())];
            show(Family::BackendLimitProbes, &labels, SeriesValue::Counter(backend.probes(verdict)));
        }
        let (passed, failed) = backend.checks();
        for (result, count) in [("success", passed), ("failure", failed)] {
            let labels = [labels[0], labels[1], ("result", result)];
            show(Family::HealthChecks, &labels, SeriesValue::Counter(count));
        }
    }
}

fn gauge(level: usize) -> SeriesValue {
    SeriesValue::Gauge(i64::try_from(level).unwrap_or(i64::MAX))
}
