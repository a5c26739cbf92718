//! What the process remembers: locks and atomics, no I/O. Every function that takes a lock says so.

pub mod backends;
pub mod cache;
pub mod heavy_hitters;
pub mod limiter;
pub mod log_limit;
pub mod lone_peer;
pub mod metrics;
pub mod plans;
pub mod policy;
pub mod queue;
pub mod ranges;
pub mod retry_budget;
