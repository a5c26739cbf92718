//! How a pool is used. The policy is a part of the pool's snapshot, beside its endpoints, so that a request sees one
//! state of both and a reload replaces them together.

use std::time::Duration;

use crate::queue::QueuePolicy;
use crate::retry;
use crate::strategy::HashOn;
use balancer_time::Nanos;

/// How a pool is used. Never changes; a reload makes a new one. By default, no request is sent again and none waits.
#[derive(Clone, Debug, Default)]
pub struct PoolPolicy {
    /// When a request is sent again.
    pub retry: retry::RetryPolicy,
    /// Inclusive ranges of status codes after which a request is sent again, if it may be.
    pub retry_statuses: Vec<(u16, u16)>,
    /// The share of requests that may be sent again, 0 to 1.
    pub retry_budget: f64,
    /// How long a request may take in all, its answer's body included.
    pub request_timeout: Option<Duration>,
    /// Requests to backends have `Via`; else `X-Balancer-Instance`.
    pub via: bool,
    /// How requests wait for a backend with room.
    pub queue: QueuePolicy,
    /// How long a request waits at most.
    pub queue_timeout: Duration,
    /// Inclusive ranges of status codes that count as a failure of the endpoint.
    pub outlier_statuses: Vec<(u16, u16)>,
    /// What the pool's strategy hashes requests on; `None`: it does not hash.
    pub hash_on: Option<HashOn>,
    /// The cookie by which clients stay with one endpoint; `None`: they do not.
    pub sticky: Option<StickyCookie>,
    /// How a backend is called.
    pub call: CallPolicy,
}

/// How long the parts of a call to a backend may take, and how its answer's head is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallPolicy {
    /// Most time for making a connection.
    pub connect: Nanos,
    /// Most time from the end of the request to the answer's head.
    pub response: Nanos,
    /// Most time without a byte inside an answer's body.
    pub read: Nanos,
    /// How long a kept connection may be idle.
    pub idle: Nanos,
    /// Most bytes of an answer's head.
    pub max_head_bytes: usize,
    /// Most field lines of an answer's head.
    pub max_headers: usize,
    /// Accepts answers that break RFC 9112 in harmless ways, as old applications do.
    pub accept_invalid: bool,
}

/// The cookie of sticky sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// Whether browsers send it only over TLS.
    pub secure: bool,
}
