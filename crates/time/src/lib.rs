//! Words for time, which all crates share. Nothing here reads a clock.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds on the process's monotonic clock. 0 is an instant before the process's first request. 2^64 ns are 584
/// years.
pub type Nanos = u64;

/// One instant on both clocks: spans of time are measured on the monotonic one, calendar periods begin by the wall
/// clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// On the monotonic clock.
    pub now: Nanos,
    /// On the wall clock: seconds since the Unix epoch. May jump in both directions.
    pub wall_s: u64,
}

/// A duration in whole nanoseconds, at most `u64::MAX`.
pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Seconds since the Unix epoch; 0 before it.
pub fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_dates_in_whole_numbers() {
        assert_eq!(nanos(Duration::new(2, 3)), 2_000_000_003);
        assert_eq!(nanos(Duration::MAX), Nanos::MAX);
        assert_eq!(seconds(UNIX_EPOCH + Duration::from_millis(5_900)), 5);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_secs(9)), 0);
    }
}
