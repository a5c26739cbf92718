//! What is written down: a line a request, what the operator reads, and the thread that writes both so that no request waits.

pub mod access;
pub mod errors;
pub mod lines;
pub mod record;
pub mod repeats;
