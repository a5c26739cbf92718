//! HTTP/2 (RFC 9113) for clients: the `h2` crate, which the loop polls between two buffers in memory. Each stream is a
//! client of the loop like any other, whose bytes come from the stream instead of a socket. The parser of HTTP/1.1
//! judges its head. `frames` has what the loop does.

mod connection;
mod head;
mod pipe;
mod stream;
mod watch;

pub(super) use self::connection::{Http2, NewStream, Polled};
pub(super) use self::head::write as write_head;
pub(super) use self::stream::{Stream, WokenClients};

/// What a client sends first on a connection of HTTP/2 (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
