//! Balancer: spreads HTTP requests over a pool of backends and holds every client to its own token bucket.
//!
//! ```text
//! client ── frontend ── service ── proxy: admit ──── forward ──────── relay ── client
//!           accept,     ours or    who, may it       pick, lease,     body, end,
//!           parse,      theirs?      │               ureq → backend   account
//!           frame         │        limiter
//!                       admin        │
//!                         └──── limits cache (TTL + LRU) ── store threads ── PostgreSQL | SQLite
//! ```
//!
//! Rules decide, state remembers, the edge touches the world, the proxy tells the story. `ARCHITECTURE.md`
//! says who may use whom and which invariants hold; `tests/tidy.rs` checks it.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod error;
pub mod exchange;
pub mod proxy;
pub mod rules;
pub mod state;
