//! What is found out about backends apart from requests: the addresses of their names, and their health.

pub mod prober;
pub mod resolve;
