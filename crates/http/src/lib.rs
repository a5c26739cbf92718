//! HTTP on the wire and between its parts: fields, heads, framing both ways, paths as they may be read,
//! routes, what is forwarded, CORS. Values in, values out: no socket, no clock, no file.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

pub mod accept;
pub mod cors;
pub mod credentials;
pub mod fields;
pub mod framing;
pub mod headers;
pub mod max_forwards;
pub mod message;
pub mod path;
pub mod rewrite;
pub mod routes;
pub mod template;
