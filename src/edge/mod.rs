//! Everything that touches the world: sockets, databases, files.
