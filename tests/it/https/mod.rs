//! TLS with clients and with backends (RFC 8446, RFC 5246): peers that control every record, that misbehave, and that are
//! programs of other projects.

mod backends;
mod broken;
mod browser;
mod ends;
mod peers;
mod python;
mod traps;

use crate::support::{Balancer, until};

/// Handshakes that came to that.
fn handshakes(balancer: &Balancer, result: &str) -> f64 {
    balancer.metric(&format!("balancer_tls_handshakes_total{{result=\"{result}\"}}"))
}

/// Waits until there is no connection but that which asks.
fn until_alone(balancer: &Balancer) {
    until("no connection is left", || (balancer.metric("balancer_connections{") == 1.0).then_some(()));
}
