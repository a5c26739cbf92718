//! Balancer: spreads HTTP requests over pools of backends, and holds every client to its own token buckets.
//!
//! ```text
//! client ── engine ──── service ── proxy: admit ──── forward ──────── relay ── client
//!           loops, or   ours or    who, may it?      pick, lease,     the head;
//!           tiny_http   theirs?      │               retry            the engine moves the body
//!             │           │        limiter
//!          backends      api         │
//!                         └──── limits cache (TTL + LRU) ── store threads ── PostgreSQL | SQLite
//! ```
//!
//! The libraries under `crates/` decide and remember, without any I/O; the rooms here touch the world.
//! `ARCHITECTURE.md` says which room may use which, and which invariants hold; cargo and `tests/tidy.rs` check it.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

pub mod api;
pub mod app;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
mod declare;
pub mod engine;
pub mod error;
pub mod files;
pub mod history;
pub mod log;
pub mod metrics;
pub mod otel;
pub mod proxy;
pub mod store;
pub mod timed;
pub mod tls;
pub mod upstream;
