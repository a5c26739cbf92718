//! How a pool is used, beside whom it holds. A part of its snapshot, so that a request sees one state of both and a reload
//! swaps one thing.

use std::time::Duration;

use crate::queue::QueuePolicy;
use crate::retry;
use crate::strategy::HashOn;
use balancer_time::Nanos;

/// See the module. Never changes; a reload makes a new one. The default sends nothing again and keeps no request waiting.
#[derive(Clone, Debug, Default)]
pub struct PoolPolicy {
    /// When a request is sent again.
    pub retry: retry::RetryPolicy,
    /// Inclusive ranges of status codes after which a request is sent again, if it may be.
    pub retry_statuses: Vec<(u16, u16)>,
    /// Share of the requests that may be sent again, 0 to 1.
    pub retry_budget: f64,
    /// How long a request may take in all, its answer's body included.
    pub request_timeout: Option<Duration>,
    /// Requests go on with `Via`; else with a field of ours.
    pub via: bool,
    /// How requests wait for a backend with room.
    pub queue: QueuePolicy,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Inclusive ranges of status codes that count as an endpoint's failure.
    pub outlier_statuses: Vec<(u16, u16)>,
    /// What the pool's strategy hashes requests on; `None`: it does not hash.
    pub hash_on: Option<HashOn>,
    /// Clients stay with the endpoint that a cookie names.
    pub sticky: Option<StickyCookie>,
    /// How one backend is called.
    pub call: CallPolicy,
}

/// How long parts of a call to a backend may take, and how its answer's head is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallPolicy {
    /// For a connection.
    pub connect: Nanos,
    /// From the end of the request to the answer's head.
    pub response: Nanos,
    /// Silence inside an answer's body.
    pub read: Nanos,
    /// How long a kept connection may be idle.
    pub idle: Nanos,
    /// Most bytes of an answer's head.
    pub max_head_bytes: usize,
    /// Most field lines in it.
    pub max_headers: usize,
    /// Takes answers of old applications that break RFC 9112 in ways that do no harm.
    pub accept_invalid: bool,
}

/// The cookie of sticky sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// Whether browsers may send it over TLS alone.
    pub secure: bool,
}
