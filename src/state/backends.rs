//! The pool: one snapshot of endpoints, picked from by a strategy, counted by leases.

use std::net::SocketAddr;

/// The unit of balancing: one address of one backend. Carried across snapshots while it does not change, with its
/// counters and its health.
#[derive(Debug)]
pub struct Endpoint {
    /// The backend's name in the configuration.
    pub backend: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Never used again in this process; what a pool of connections is keyed by.
    pub id: u64,
}
