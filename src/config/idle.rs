//! Keys that are allowed and do nothing as things are.

use super::{Config, PoolConfig};

/// Keys of `balancing` that only a pool's line goes by.
const OF_LINES: [&str; 4] = ["queue_order", "queue_size", "queue_target", "queue_timeout"];

impl Config {
    /// A sentence for each key of a line that is set where no request ever waits.
    pub fn idle_keys(&self) -> impl Iterator<Item = String> {
        let idle = |key: &&String| {
            let Some((above, name)) = key.rsplit_once("balancing.") else { return false };
            let concerns = |pool: &&PoolConfig| above.is_empty() || pool.path() == above;
            OF_LINES.contains(&name) && !self.pools.iter().filter(concerns).any(PoolConfig::has_bounds)
        };
        self.changed.iter().filter(idle).map(|key| {
            format!(
                "{key} does nothing: requests wait in line only where balancing.max_in_flight or the max_in_flight of a backend is set, and on tiny_http where the workers are the bound"
            )
        })
    }
}

impl PoolConfig {
    /// Whether requests at once are bounded anywhere in it.
    fn has_bounds(&self) -> bool {
        self.balancing.max_in_flight.is_some() || self.backends.iter().any(|one| one.max_in_flight.is_some())
    }
}
