//! Backends' addresses and their health: what is looked up and asked beside requests.

pub mod prober;
pub mod resolve;
