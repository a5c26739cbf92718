//! What is known about a request at its end, and the trait of what takes it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use balancer_http::message::{TlsSession, Version};
use balancer_limiter::terms::BucketName;

/// The name of the entry when no stored limit decided.
pub const DEFAULT_ENTRY: &str = "default";

/// Takes records of finished requests; never blocks.
pub trait Journal: Send + Sync {
    /// Whether there is a log at all; if not, no records need to be made.
    fn wanted(&self) -> bool;

    /// Whether records should have [`AccessRecord::agent`].
    fn wants_agent(&self) -> bool {
        false
    }

    /// Whether records should have the query, which may contain secrets that should not be logged.
    fn wants_query(&self) -> bool {
        false
    }

    /// Takes a record. When there is no room for it, it is dropped and counted.
    fn record(&self, record: AccessRecord);
}

/// One finished request, proxied or answered by us.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head was complete.
    pub time: SystemTime,
    /// The id that the answer has.
    pub request_id: String,
    /// The trace id inside its `traceparent`, 32 hexadecimal digits; empty without a valid one.
    pub trace_id: String,
    /// The client, after the walk over trusted proxies.
    pub client_addr: IpAddr,
    /// The stored id that names the client, where there is one, else its address.
    pub client_id: Option<Arc<str>>,
    /// As the client wrote it; empty when no method could be read.
    pub method: String,
    /// The target, with its query when [`Journal::wants_query`]; empty when none could be read.
    pub path: String,
    /// As the client speaks it; `None` when that could not be read.
    pub protocol: Option<Version>,
    /// How the connection was secured; `None`: it was not.
    pub secure: Option<Arc<TlsSession>>,
    /// The status that was sent, 499 when the client left before the head.
    pub status: u16,
    /// Bytes of the body that were sent, framing not counted.
    pub body_bytes: u64,
    /// From the complete head to the last byte of the answer.
    pub duration: Duration,
    /// The part of it that was spent on the last backend, up to the head of its answer.
    pub upstream_duration: Option<Duration>,
    /// The pool that it was for; `None` when it ended before a pool was chosen.
    pub pool: Option<Arc<str>>,
    /// The backend whose answer was passed on, or that failed last.
    pub backend: Option<Arc<str>>,
    /// How often the request was sent again.
    pub retries: u32,
    /// Why we refused it, or that its client left; at most 512 bytes and a mark that it was longer.
    pub cause: Option<Cow<'static, str>>,
    /// How the limiter decided; `None` when it was not asked.
    pub limit: Option<LimitRecord>,
    /// What the client says about itself, when [`Journal::wants_agent`].
    pub agent: Option<Box<AgentRecord>>,
}

/// What a client says about itself.
#[derive(Clone, Debug)]
pub struct AgentRecord {
    /// Its name in `Authorization: Basic` (RFC 7617), not checked; empty when there is none.
    pub user: Vec<u8>,
    /// `Referer` without fragment, and without query unless [`Journal::wants_query`]. Empty when there is none.
    pub referer: Vec<u8>,
    /// `User-Agent`; empty when there is none.
    pub user_agent: Vec<u8>,
}

/// What the limiter decided on a request.
#[derive(Clone, Debug)]
pub struct LimitRecord {
    /// The stored id of the entry that decided; `None`: the default did.
    pub entry: Option<Arc<str>>,
    /// Whether that entry names this client alone; a range and the default hold many.
    pub names_client: bool,
    /// The id of the key that the client showed, if that key decided who the client is.
    pub key: Option<Arc<str>>,
    /// The bucket that refused, or that has the least left; `None` for a client that is exempt.
    pub bucket: Option<BucketName>,
    /// Let through or refused.
    pub allowed: bool,
    /// Whole tokens left; `None` without a limit.
    pub remaining: Option<u64>,
}

impl LimitRecord {
    /// The stored id that names this client and no other: its key, or the entry that decided.
    pub fn client_id(&self) -> Option<&Arc<str>> {
        self.key.as_ref().or_else(|| self.entry.as_ref().filter(|_| self.names_client))
    }
}
