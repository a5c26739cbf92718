//! The properties that fuzzing looks for a breach of, one module a target: `check(data)` panics when one is broken.
//!
//! libFuzzer drives them through `targets/` (`fuzz/run`); `tests/fuzz.rs` includes this file as a module and drives the
//! same functions with the committed seeds and a few seconds of plain mutation, so that `cargo test` holds them, too.
//! Paths inside are therefore relative (`super::`).
#![warn(missing_docs)]

pub mod chunk;
pub mod cuts;
pub mod mutate;
pub mod proxy;
pub mod request;
pub mod response;
pub mod seeds;
pub mod stream;
