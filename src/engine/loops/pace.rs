//! How long a side may be silent, and how slow it may be.

use crate::config::Frontend;
use balancer_time::{Nanos, nanos};
use std::time::Duration;

/// The time-outs of the configuration, in nanoseconds, and the minimum rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub head: Nanos,
    pub body: Nanos,
    pub idle: Nanos,
    pub write: Nanos,
    pub grace: Nanos,
    pub tunnel: Nanos,
    /// A whole TLS handshake.
    pub handshake: Nanos,
    pub min_bytes_per_sec: u64,
}

impl Timeouts {
    pub fn new(config: &Frontend, handshake: Duration) -> Self {
        Self {
            head: nanos(config.head_timeout),
            body: nanos(config.body_timeout),
            idle: nanos(config.idle_timeout),
            write: nanos(config.write_timeout),
            grace: nanos(config.slow_grace),
            tunnel: nanos(config.tunnel_timeout),
            handshake: nanos(handshake),
            min_bytes_per_sec: config.min_bytes_per_sec,
        }
    }
}

/// How fast one side moves bytes, measured from when we first had to wait for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since: Nanos,
    last: Nanos,
    bytes: u64,
}

impl Pace {
    pub fn new(now: Nanos) -> Self {
        Self { since: now, last: now, bytes: 0 }
    }

    /// When something moved last.
    pub fn last(&self) -> Nanos {
        self.last
    }

    /// Bytes moved.
    pub fn moved(&mut self, bytes: usize, now: Nanos) {
        self.bytes += bytes as u64;
        self.last = now;
    }

    /// When the side is too slow unless more bytes move before: `silence` after the last one, or when the mean since
    /// the start, less a grace, falls below the minimum rate.
    pub fn due(&self, silence: Nanos, timeouts: &Timeouts) -> Nanos {
        let silent = self.last.saturating_add(silence);
        if timeouts.min_bytes_per_sec == 0 {
            return silent;
        }
        let earned = u128::from(self.bytes) * 1_000_000_000 / u128::from(timeouts.min_bytes_per_sec);
        let earned = Nanos::try_from(earned).unwrap_or(Nanos::MAX);
        silent.min(self.since.saturating_add(timeouts.grace).saturating_add(earned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_too_slow_by_silence_or_by_its_mean() {
        const S: Nanos = 1_000_000_000;
        let timeouts = Timeouts {
            head: 0,
            body: 0,
            idle: 0,
            write: 0,
            tunnel: 0,
            handshake: 0,
            grace: 5 * S,
            min_bytes_per_sec: 100,
        };
        let mut pace = Pace::new(10 * S);
        // (bytes at second, deadline in seconds): silence is 30 s, the rate 100 B/s after 5 s.
        assert_eq!(pace.due(30 * S, &timeouts), 15 * S);
        for (at, bytes, due) in [(11, 100, 16), (12, 400, 20), (13, 1_000_000, 43), (40, 1, 70)] {
            pace.moved(bytes, at * S);
            assert_eq!(pace.due(30 * S, &timeouts), due * S, "at {at}");
        }
        let unbounded = Timeouts { min_bytes_per_sec: 0, ..timeouts };
        assert_eq!(Pace::new(0).due(30 * S, &unbounded), 30 * S);
    }
}
