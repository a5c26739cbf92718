//! Keys that are allowed but have no effect in this configuration.

use super::{Config, PoolConfig};
use balancer_pool::backend::InFlightBound;

/// Keys of `balancing` that matter only to a pool's line.
const OF_LINES: [&str; 4] = ["queue_order", "queue_size", "queue_target", "queue_timeout"];

/// Keys of `balancing` that matter only to measured bounds.
const OF_MEASURED: [&str; 3] = ["auto.start", "auto.min", "auto.max"];

impl Config {
    /// A sentence for each key that is set and has no effect: one of a line in which no request ever waits, or of
    /// measured bounds where no bound is measured.
    pub fn idle_keys(&self) -> impl Iterator<Item = String> {
        self.changed.iter().filter_map(|key| {
            let (above, name) = key.rsplit_once("balancing.")?;
            let mut concerned = self.pools.iter().filter(|pool| above.is_empty() || pool.path() == above);
            if OF_LINES.contains(&name) && !concerned.any(PoolConfig::has_bounds) {
                Some(format!(
                    "{key} does nothing: requests wait in line only where balancing.max_in_flight or the max_in_flight of a backend is set, and on tiny_http where the workers are the bound"
                ))
            } else if OF_MEASURED.contains(&name) && !concerned.any(PoolConfig::measures) {
                Some(format!("{key} does nothing: no backend has \"max_in_flight\": \"auto\""))
            } else {
                None
            }
        })
    }
}

impl PoolConfig {
    /// Whether requests at once are bounded anywhere in it.
    fn has_bounds(&self) -> bool {
        self.balancing.max_in_flight.is_some() || self.backends.iter().any(|one| one.max_in_flight.is_some())
    }

    /// Whether a bound is measured anywhere in it.
    fn measures(&self) -> bool {
        self.backends.iter().any(|one| one.max_in_flight == Some(InFlightBound::Auto))
    }
}
