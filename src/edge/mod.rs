//! Everything that touches the world: sockets, databases, files.

pub mod access_log;
pub mod admin;
pub mod error_log;
pub mod files;
pub mod frontend;
pub mod levels;
pub mod lines;
pub mod prober;
pub mod store;
pub mod upstream;
