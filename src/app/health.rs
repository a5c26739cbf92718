//! What the probes ask about.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::edge::admin::{BackendHealth, Health};
use crate::edge::store::Limits;
use crate::proxy::admit::FindLimit;
use crate::rules::Nanos;
use crate::state::backends::{Backends, Operator};
use crate::state::cache::Found;

/// The process's health.
pub(super) struct State {
    pub backends: Arc<Backends>,
    pub limits: Arc<Limits>,
    pub draining: AtomicBool,
}

impl Health for State {
    fn backends(&self) -> Vec<BackendHealth> {
        let snapshot = self.backends.snapshot();
        snapshot
            .backends()
            .iter()
            .map(|backend| {
                let mut own = snapshot
                    .endpoints()
                    .iter()
                    .filter(|endpoint| endpoint.backend == backend.name)
                    .peekable();
                let resolved = own.peek().is_some();
                let up = own.any(|endpoint| endpoint.is_up());
                let cause = match (up, backend.operator(), resolved) {
                    (true, ..) => None,
                    (false, Operator::Drain, _) => Some("the operator drains it"),
                    (false, Operator::Down, _) => Some("the operator took it out of service"),
                    (false, Operator::Up, _) if backend.weight() == 0 => Some("its weight is 0"),
                    (false, Operator::Up, true) => Some("its health checks fail"),
                    (false, Operator::Up, false) => Some("its name has no address"),
                };
                BackendHealth { name: backend.name.to_string(), up, cause: cause.map(str::to_owned) }
            })
            .collect()
    }

    fn any_backend_up(&self) -> bool {
        self.backends.any_up()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn store_up(&self) -> bool {
        self.limits.up()
    }
}

impl FindLimit for Limits {
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found {
        Self::find(self, client, port, now)
    }
}
