//! Every metric of the process, gathered from where each is kept.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::{Series, Show};
use crate::engine::Frontend;
use crate::metrics::{ConnectionState, Metrics, Value};
use crate::store::{Limits, StoreState};
use balancer_limiter::limiter::Limiter;
use balancer_pool::backend_state::State;
use balancer_pool::backends::Backends;

/// What the one pool is called that there is.
const POOL: &str = "default";

/// What the exporter reads.
pub(super) struct Gathered {
    pub metrics: Arc<Metrics>,
    pub backends: Arc<Backends>,
    pub limiter: Arc<Limiter>,
    pub limits: Arc<Limits>,
    /// Set when it has started.
    pub frontend: Arc<OnceLock<Arc<Frontend>>>,
    pub started: SystemTime,
}

impl Series for Gathered {
    fn visit(&self, show: &mut Show<'_>) {
        self.metrics.visit(show);
        self.visit_backends(show);
        self.visit_frontend(show);
        let cache = self.limits.cache_counters();
        for (family, count) in [
            ("balancer_ratelimit_overflow_total", self.limiter.overflowed()),
            ("balancer_ratelimit_cache_hits_total", cache.hits),
            ("balancer_ratelimit_cache_misses_total", cache.misses),
            ("balancer_ratelimit_cache_evictions_total", cache.evictions),
        ] {
            show(family, &[], Value::Counter(count));
        }
        show("balancer_ratelimit_clients", &[], gauge(self.limiter.clients()));
        show("balancer_store_up", &[], Value::Gauge(i64::from(self.limits.state() == StoreState::Up)));
        show("balancer_build_info", &[("version", env!("CARGO_PKG_VERSION"))], Value::Gauge(1));
        self.visit_process(show);
    }
}

fn gauge(level: usize) -> Value {
    Value::Gauge(i64::try_from(level).unwrap_or(i64::MAX))
}

impl Gathered {
    fn visit_backends(&self, show: &mut Show<'_>) {
        let snapshot = self.backends.snapshot();
        for backend in snapshot.backends() {
            let labels = [("backend", &*backend.name)];
            let holds = snapshot.told(backend).state;
            show("balancer_backend_up", &labels, Value::Gauge(i64::from(holds == State::Up)));
            for state in State::ALL {
                let labels = [("pool", POOL), labels[0], ("state", state.name())];
                show("balancer_backend_state", &labels, Value::Gauge(i64::from(holds == state)));
            }
            show("balancer_backend_in_flight", &labels, Value::Gauge(backend.in_flight().into()));
            let (passed, failed) = backend.checks();
            for (result, count) in [("success", passed), ("failure", failed)] {
                let labels = [("backend", &*backend.name), ("result", result)];
                show("balancer_health_checks_total", &labels, Value::Counter(count));
            }
        }
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
            show("balancer_connections", &[("state", state.name())], gauge(connections));
        }
        show("balancer_workers_busy", &[], gauge(load.workers_busy));
    }

    /// As the Prometheus client libraries name them. What the system does not tell is left out.
    fn visit_process(&self, show: &mut Show<'_>) {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        show("process_start_time_seconds", &[], Value::Float(started.as_secs_f64()));
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_seconds = usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9;
        show("process_cpu_seconds_total", &[], Value::Float(cpu_seconds));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        show("process_max_fds", &[], Value::Float(limit.map_or(f64::INFINITY, |files| files as f64)));
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            show("process_open_fds", &[], gauge(files.count()));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| -> Option<i64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        if let Some(kib) = number("VmRSS:") {
            show("process_resident_memory_bytes", &[], Value::Gauge(kib * 1024));
        }
        if let Some(threads) = number("Threads:") {
            show("process_threads", &[], Value::Gauge(threads));
        }
    }
}
