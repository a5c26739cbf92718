//! The only place that reads time. Everything else takes `now` as an argument or holds a [`Clock`].

use balancer_time::{nanos, seconds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use balancer_time::{Moment, Nanos};

/// A monotone clock and a wall clock. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real { origin: Instant },
    Manual { now_ns: Arc<AtomicU64> },
}

/// The time at which a monotone clock starts, so that "an hour ago" is not below 0.
const START_NS: Nanos = 3_600_000_000_000;

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        Self(Source::Real { origin: Instant::now() })
    }

    /// A clock that moves only by [`Clock::advance`]. For tests.
    pub fn manual() -> Self {
        Self(Source::Manual { now_ns: Arc::new(AtomicU64::new(START_NS)) })
    }

    /// Monotone time in nanoseconds, which never goes back.
    pub fn now(&self) -> Nanos {
        match &self.0 {
            Source::Real { origin } => START_NS + nanos(origin.elapsed()),
            Source::Manual { now_ns } => now_ns.load(Ordering::Relaxed),
        }
    }

    /// Wall-clock time, for dates that people read. May jump.
    #[allow(clippy::disallowed_methods)]
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::Real { .. } => SystemTime::now(),
            Source::Manual { .. } => UNIX_EPOCH + Duration::from_nanos(self.now()),
        }
    }

    /// Both at once.
    pub fn moment(&self) -> Moment {
        Moment { now: self.now(), wall_s: seconds(self.wall()) }
    }

    /// Moves a manual clock on; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { now_ns } = &self.0 {
            now_ns.fetch_add(nanos(by), Ordering::Relaxed);
        }
    }
}
