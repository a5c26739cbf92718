//! Pure rules: values in, values out. `now` is an argument; nothing here reads a clock, a socket or a lock, and
//! nothing can fail on the outside world.

pub mod answer;
pub mod backend;
pub mod backend_state;
pub mod bucket;
pub mod cors;
pub mod credentials;
pub mod fields;
pub mod framing;
pub mod headers;
pub mod health;
pub mod identity;
pub mod limit;
pub mod max_forwards;
pub mod message;
pub mod outlier;
pub mod path;
pub mod request_rules;
pub mod reset;
pub mod retry;
pub mod sticky;
pub mod strategy;
pub mod terms;

/// Nanoseconds on the process's monotone clock ([`crate::clock::Clock`]); 0 is an instant before the process's
/// first request. 2^64 ns are 584 years.
pub type Nanos = u64;

/// One instant on both clocks: spans are measured on the monotone one, periods of the calendar turn on the wall's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// On the monotone clock.
    pub now: Nanos,
    /// Seconds since the Unix epoch, in UTC. May jump, either way.
    pub wall_s: u64,
}
