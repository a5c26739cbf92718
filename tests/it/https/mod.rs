//! TLS at the front door and behind it (RFC 8446, RFC 5246), as peers see it that are in control of every record, that
//! misbehave, and that are programs of others.

mod backends;
mod broken;
mod browser;
mod ends;
mod peers;
mod python;
mod traps;

use crate::support::{Balancer, until};

/// The sum of a metric's series whose line begins with that text.
fn metric(balancer: &Balancer, of: &str) -> f64 {
    let text = balancer.get("/-/metrics").text();
    text.lines()
        .filter(|line| line.starts_with(of))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Handshakes that came to that.
fn handshakes(balancer: &Balancer, result: &str) -> f64 {
    metric(balancer, &format!("balancer_tls_handshakes_total{{result=\"{result}\"}}"))
}

/// Waits until there is no connection but that which asks.
fn until_alone(balancer: &Balancer) {
    until("no connection is left", || (metric(balancer, "balancer_connections{") == 1.0).then_some(()));
}
