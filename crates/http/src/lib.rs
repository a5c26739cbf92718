//! HTTP as values: header fields, heads, framing (read and written), the ways in which a path may be read, routes,
//! which fields are forwarded, CORS. Nothing here uses a socket, a clock or a file.
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
pub mod trace;
