//! What the probes ask about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::api::{BackendHealth, Health};
use crate::proxy::lone_peer::{self, LonePeer};
use crate::store::{Limits, StoreState};
use balancer_pool::backends::{Backends, Told};

/// The process's health.
pub(super) struct State {
    pub backends: Arc<Backends>,
    pub limits: Arc<Limits>,
    pub draining: AtomicBool,
    pub lone_peer: Arc<LonePeer>,
}

impl Health for State {
    fn backends(&self) -> Vec<BackendHealth> {
        let snapshot = self.backends.snapshot();
        snapshot
            .backends()
            .iter()
            .map(|backend| {
                let Told { up, health, cause, .. } = snapshot.told(backend);
                let (name, state) = (backend.name.to_string(), backend.operator());
                BackendHealth { name, up, state, health, cause }
            })
            .collect()
    }

    fn any_backend_up(&self) -> bool {
        self.backends.any_up()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn store(&self) -> StoreState {
        self.limits.state()
    }

    fn notes(&self) -> Vec<String> {
        self.lone_peer.lone().map(lone_peer::text).into_iter().collect()
    }
}
