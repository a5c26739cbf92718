//! What is remembered of a finished request: one record for the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Takes records of finished requests; never blocks.
pub trait Journal: Send + Sync {
    /// Whether anybody reads them; if not, none need be made.
    fn wanted(&self) -> bool;

    /// Takes one. When the journal is full the record is dropped and counted.
    fn record(&self, record: AccessRecord);
}

/// One finished request, proxied or answered by us.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head was complete.
    pub time: SystemTime,
    /// The id that stands in the answer.
    pub request_id: String,
    /// The trace id inside its `traceparent`, 32 hexadecimal digits; empty when nothing was proxied.
    pub trace_id: String,
    /// The client, after the walk over trusted proxies.
    pub client_addr: IpAddr,
    /// The limiter's name for the client when a stored limit decided, else `None`.
    pub client_id: Option<Arc<str>>,
    /// As the client wrote it; empty when no method could be read.
    pub method: String,
    /// The target without its query; empty when none could be read.
    pub path: String,
    /// The status that was sent, 499 when the client left before the head.
    pub status: u16,
    /// Bytes of the body that were sent, framing not counted.
    pub body_bytes: u64,
    /// From the complete head to the last byte of the answer.
    pub duration: Duration,
    /// What of it was spent on the last backend, up to its head.
    pub upstream_duration: Option<Duration>,
    /// The backend whose answer was passed on, or that failed last.
    pub backend: Option<Arc<str>>,
    /// How often the request was sent again.
    pub retries: u32,
    /// How the limiter decided; `None` when it was not asked.
    pub limit: Option<LimitRecord>,
}

/// What the limiter decided on a request.
#[derive(Clone, Debug)]
pub struct LimitRecord {
    /// The stored id of the entry that decided, or `default`.
    pub entry: Arc<str>,
    /// The bucket.
    pub bucket: &'static str,
    /// Let through or refused.
    pub allowed: bool,
    /// Whole tokens left; `None` without a limit.
    pub remaining: Option<u64>,
}
