//! What the probes ask about.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::edge::admin::{BackendHealth, Health};
use crate::edge::store::{Limits, StoreState};
use crate::proxy::admit::FindLimit;
use crate::proxy::identify::KeyFound;
use crate::rules::Nanos;
use crate::rules::identity::ClientKey;
use crate::state::backends::{Backend, Backends, Endpoint, Operator, Snapshot};
use crate::state::cache::{Found, Known};
use crate::state::lone_peer::{self, LonePeer};

/// The process's health.
pub(super) struct State {
    pub backends: Arc<Backends>,
    pub limits: Arc<Limits>,
    pub draining: AtomicBool,
    pub lone_peer: Arc<LonePeer>,
}

/// The endpoints of one backend.
pub(super) fn own<'a>(
    snapshot: &'a Snapshot,
    backend: &'a Arc<Backend>,
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    snapshot.endpoints().iter().filter(move |endpoint| Arc::ptr_eq(&endpoint.group, backend))
}

/// Whether a backend is given requests.
pub(super) fn is_up(snapshot: &Snapshot, backend: &Arc<Backend>) -> bool {
    own(snapshot, backend).any(|endpoint| endpoint.is_up())
}

/// Why a backend is given nothing, or hardly anything; `None`: it is given its share.
pub(super) fn cause(snapshot: &Snapshot, backend: &Arc<Backend>) -> Option<&'static str> {
    if is_up(snapshot, backend) {
        let mut left = own(snapshot, backend).filter(|endpoint| endpoint.is_up());
        return left
            .all(|endpoint| endpoint.is_ejected())
            .then_some("it is ejected for how it answered; one request at a time tries it");
    }
    Some(match backend.operator() {
        Operator::Drain => "the operator drains it",
        Operator::Down => "the operator took it out of service",
        Operator::Up if backend.weight() == 0 => "its weight is 0",
        Operator::Up if own(snapshot, backend).next().is_some() => "its health checks fail",
        Operator::Up => "its name has no address",
    })
}

impl Health for State {
    fn backends(&self) -> Vec<BackendHealth> {
        let snapshot = self.backends.snapshot();
        snapshot
            .backends()
            .iter()
            .map(|backend| {
                let up = is_up(&snapshot, backend);
                let cause = cause(&snapshot, backend);
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
