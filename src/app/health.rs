//! What the probes ask about.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::api::{BackendHealth, Health};
use crate::proxy::identify::{FindLimit, KeyFound};
use crate::proxy::lone_peer::{self, LonePeer};
use crate::store::cache::{Found, Known};
use crate::store::{Limits, StoreState};
use balancer_limiter::identity::ClientKey;
use balancer_pool::backends::{Backends, Told};
use balancer_time::Nanos;

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

impl FindLimit for Limits {
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found {
        Self::find(self, client, port, now)
    }

    fn find_key(&self, id: &str, now: Nanos) -> KeyFound {
        match Self::find_key(self, id, now) {
            Known::Entry(hit) => KeyFound::Known(self.of_entry(hit)),
            Known::Absent => KeyFound::Absent,
            Known::Unknown => KeyFound::Unknown,
        }
    }

    fn of_unknown_key(&self, id: &str) -> Found {
        self.of_default(ClientKey::digest(id.as_bytes()))
    }
}
