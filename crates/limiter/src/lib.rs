//! Who a client is and what it may do: identities, token buckets, limits and plans, rules for requests, the sharded
//! table of buckets, the budget that instances share, and the fields of an answer. Time is an argument; no lock is held
//! across I/O.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

pub mod answer;
pub mod bucket;
pub mod budget;
pub mod document;
pub mod heavy_hitters;
pub mod identity;
pub mod importance;
pub mod limit;
pub mod limiter;
pub mod message;
pub mod plans;
pub mod ranges;
pub mod reports;
pub mod request_rules;
pub mod reset;
pub mod terms;
