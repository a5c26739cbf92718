//! Where requests go: backends and their endpoints, leases that count requests on them, strategies, active and
//! passive health, retries, sticky sessions, and the line of requests that wait for a backend with room. Time is an
//! argument; no lock is held across I/O.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

pub mod backend;
pub mod backend_state;
pub mod backends;
pub mod fair;
pub mod health;
pub mod outlier;
pub mod policy;
pub mod queue;
pub mod retry;
pub mod retry_budget;
pub mod sticky;
pub mod strategy;
