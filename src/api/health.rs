//! Whether this process should get traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::proxy::lone_peer::LonePeer;
use crate::proxy::policy::PolicyInForce;
use crate::store::Limits;

/// What readiness is judged by. Never waits: a loop asks it.
pub struct ProcessHealth {
    /// Has the pools.
    pub policy: Arc<PolicyInForce>,
    /// Shown, and decides nothing: limits in the cache stay in force without the database.
    pub limits: Arc<Limits>,
    /// Whether the process is on its way out (`shutdown_delay` has begun).
    pub draining: AtomicBool,
    /// A proxy in front of us that is taken for a client.
    pub lone_peer: Arc<LonePeer>,
}

impl ProcessHealth {
    /// Whether the process is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Some backend of some pool would be given a request now, and the process is not on its way out. One service that
    /// is down is no reason to take the others' requests elsewhere.
    pub(super) fn ready(&self) -> bool {
        !self.draining() && self.policy.load().pools.any_up()
    }
}
