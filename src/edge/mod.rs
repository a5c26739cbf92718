//! Everything that touches the world: sockets, databases, files.

pub mod frontend;
pub mod prober;
pub mod store;
