//! The access log (a line for each request), the error log (what the operator reads), and the threads that write them,
//! so that no request waits for a disk.

pub mod access;
pub mod errors;
pub mod lines;
pub mod record;
pub mod repeats;
