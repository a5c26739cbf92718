//! Pure rules: values in, values out. `now` is an argument; nothing here reads a clock, a socket or a lock, and
//! nothing can fail on the outside world.

pub mod answer;
pub mod bucket;
pub mod fields;
pub mod framing;
pub mod headers;
pub mod health;
pub mod identity;
pub mod limit;
pub mod outlier;
pub mod retry;
pub mod sticky;
pub mod strategy;
pub mod terms;

/// Nanoseconds on the process's monotone clock ([`crate::clock::Clock`]); 0 is an instant before the process's
/// first request. 2^64 ns are 584 years.
pub type Nanos = u64;
