//! Calls to backends.

pub mod resolve;
