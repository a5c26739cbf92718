//! What is known of a request that is recorded, in plain values: the encoder makes attributes of them. Never a query,
//! and of the fields of a request nothing but `User-Agent`, `traceparent` and `tracestate`: keys and passwords stand in
//! the others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use balancer_http::trace::TraceParent;
use balancer_time::Nanos;

/// A request from its head to its last byte, and each time that it was sent to a backend. Times are nanoseconds since
/// the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSpans {
    /// The trace, the server span's id, and flags.
    pub place: TraceParent,
    /// The client's span, when there is one.
    pub parent: Option<u64>,
    /// `tracestate`, as it came.
    pub state: String,
    /// When the head was complete.
    pub start: Nanos,
    /// When the last byte was sent.
    pub end: Nanos,
    /// What was asked.
    pub asked: AskedFor,
    /// By which route it went: its path and its name.
    pub route: Option<(String, Arc<str>)>,
    /// The pool that it was for; `None`: it did not get so far.
    pub pool: Option<Arc<str>>,
    /// The target's path as backends got it, where the route has changed it.
    pub sent_path: Option<String>,
    /// `None`: none was sent.
    pub status: Option<u16>,
    /// What went wrong, in one of a few words, where the status does not say it.
    pub error: Option<&'static str>,
    /// One for each time that it was sent, in order.
    pub attempts: Vec<AttemptSpan>,
}

/// A request's head, as far as it is recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AskedFor {
    /// As the client wrote it; empty when none could be read.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// `Host`, or `:authority`.
    pub host: Option<String>,
    /// It came by TLS.
    pub is_secure: bool,
    /// `1.0`, `1.1`, `2`; `None`: that could not be read.
    pub version: Option<&'static str>,
    /// The client, after the walk over trusted proxies.
    pub client: Option<IpAddr>,
    /// The TCP peer.
    pub peer: Option<SocketAddr>,
    /// `User-Agent`; may be empty.
    pub agent: String,
}

/// One attempt at a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptSpan {
    /// The span's id.
    pub id: u64,
    /// When the backend was picked.
    pub start: Nanos,
    /// When its answer's head was there, or it had failed.
    pub end: Nanos,
    /// Where it was sent.
    pub to: SocketAddr,
    /// The host of the backend's URL.
    pub host: String,
    /// It is spoken to by TLS.
    pub is_secure: bool,
    /// What sentences call the backend: its name, behind that of its pool if that is not the default one.
    pub backend: Arc<str>,
    /// Which attempt it was: 0 for the first.
    pub resent: u32,
    /// The answer's, or a word for why there was none; `None` while it is under way.
    pub result: Option<Result<u16, &'static str>>,
}

impl RequestSpans {
    /// How many spans it is.
    pub fn count(&self) -> u64 {
        self.attempts.len() as u64 + 1
    }
}
