//! A pool of backends as the configuration wants it.

use std::time::Duration;

use super::Secret;
use crate::tls::BackendTlsSettings;
use balancer_http::framing::response::HeadRules;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::DEFAULT_POOL;
use balancer_pool::fair::AutoBounds;
use balancer_pool::queue::QueueOrder;
use balancer_pool::strategy::{HashOn, Strategy};

/// One pool: its backends and how it is used.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Unique; `default` is the one at the top.
    pub name: String,
    /// Names are unique in a pool.
    pub backends: Vec<BackendEntry>,
    /// How a backend is picked.
    pub balancing: Balancing,
    /// How backends are called.
    pub upstream: UpstreamConfig,
    /// When an endpoint is taken out for how it answers; `None`: never.
    pub outlier: Option<Outlier>,
    /// `None`: every backend counts as healthy.
    pub health_check: Option<HealthCheck>,
}

impl PoolConfig {
    /// The beginning of the paths of its keys: `pools.api.`; nothing for the pool at the top.
    pub fn path(&self) -> String {
        if self.name == DEFAULT_POOL { String::new() } else { format!("pools.{}.", self.name) }
    }
}

/// `balancing`.
#[derive(Clone, Debug)]
pub struct Balancing {
    /// How one of several is picked.
    pub strategy: Strategy,
    /// What `hash` looks at.
    pub hash_on: HashOn,
    /// Most requests at once on all backends together.
    pub max_in_flight: Option<u32>,
    /// Where a measured bound of a backend begins, and its least and most.
    pub auto: AutoBounds,
    /// Most requests that wait for a backend with room.
    pub queue_size: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Which of them goes next.
    pub queue_order: QueueOrder,
    /// How long a request waits whose client has had others waiting for a second; `None`: `queue_timeout`.
    pub queue_target: Option<Duration>,
    /// Clients stay with the backend that they were given.
    pub sticky: Option<Sticky>,
}

/// `balancing.sticky`.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// What it is signed with.
    pub secret: Secret,
    /// Whether browsers may send it over TLS alone.
    pub secure: bool,
}

/// `outlier`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures in a row that eject an endpoint; 0: they don't matter.
    pub consecutive: u32,
    /// Share of failures within `window` that ejects it, above 0 to 1.
    pub ratio: Option<f64>,
    /// How long requests are counted together.
    pub window: Duration,
    /// How long it is out the first time; twice as long each further time.
    pub base_time: Duration,
    /// Share of the endpoints that may be out at once, 0 to 1.
    pub max_ejected: f64,
    /// Inclusive ranges of status codes that count as failures, beside connections and time-outs.
    pub statuses: Vec<(u16, u16)>,
}

/// `upstream`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct UpstreamConfig {
    pub connect_timeout: Duration,
    /// To the response's head.
    pub response_timeout: Duration,
    /// The longest silence inside its body.
    pub read_timeout: Duration,
    /// How long a kept backend connection may be idle.
    pub idle_timeout: Duration,
    /// How long a request may take in all, its answer's body included; `None`: no bound of its own.
    pub request_timeout: Option<Duration>,
    /// How often a request may be sent again.
    pub retries: u32,
    /// After what.
    pub retry_on: RetryOn,
    /// Share of the requests that may be sent again, 0 to 1.
    pub retry_budget: f64,
    /// How often backend names are resolved.
    pub resolve_interval: Duration,
    /// Most bytes of an answer's head.
    pub max_head_bytes: usize,
    pub max_headers: usize,
    /// Take answers of old applications that break RFC 9112 in ways that do no harm.
    pub accept_invalid: bool,
    /// Add `Via` to requests.
    pub via: bool,
    /// How backends with `https://` are authenticated.
    pub tls: BackendTlsSettings,
}

impl UpstreamConfig {
    /// How answers' heads are read.
    pub fn head_rules(&self) -> HeadRules {
        HeadRules {
            max_head_bytes: self.max_head_bytes,
            max_headers: self.max_headers,
            accept_invalid: self.accept_invalid,
        }
    }
}

/// `upstream.retry_on`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RetryOn {
    pub connect: bool,
    pub reset: bool,
    pub timeout: bool,
    /// Inclusive ranges of status codes.
    pub statuses: Vec<(u16, u16)>,
}

/// `health_check`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HealthCheck {
    pub path: String,
    /// Inclusive ranges of status codes that count as healthy.
    pub expect: Vec<(u16, u16)>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes in a row that bring a backend back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// `upstream.max_head_bytes` and `.accept_invalid`: an answer that a request takes, a check takes.
    pub head_rules: HeadRules,
}
