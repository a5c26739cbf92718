//! What the API asks of the running process.

use std::sync::Arc;

use crate::clock::Clock;
use crate::edge::admin::{Health, Live, Status};
use crate::rules::Nanos;
use crate::state::limiter::Limiter;
use crate::state::metrics::Metrics;

/// The process as the API sees it.
pub(super) struct Running {
    pub instance: String,
    pub started_at: Nanos,
    pub health: Arc<dyn Health>,
    pub metrics: Arc<Metrics>,
    pub limiter: Arc<Limiter>,
    pub clock: Clock,
}

impl Live for Running {
    fn instance(&self) -> &str {
        &self.instance
    }

    fn status(&self) -> Status {
        let totals = self.metrics.totals();
        let draining = self.health.draining();
        Status {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.clock.now().saturating_sub(self.started_at) / 1_000_000_000,
            ready: !draining && self.health.any_backend_up(),
            draining,
            store: if self.health.store_up() { "up" } else { "down" },
            requests: totals.requests,
            in_flight: totals.in_flight,
            allowed: totals.allowed,
            denied: totals.denied,
            clients: self.limiter.clients() as u64,
        }
    }
}
