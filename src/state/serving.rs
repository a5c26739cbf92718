//! How requests are served: what of the configuration the request path reads beside the backends themselves. It is a
//! part of the pool's snapshot, so that a request sees one state of both and a reload swaps one thing.

use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Config, HashOn, RateLimitHeaders};
use crate::rules::cors::Cors;
use crate::rules::identity::{KeySource, UnknownKeys};
use crate::rules::request_rules::RequestRules;
use crate::rules::retry::Policy;
use crate::rules::strategy::Strategy;

/// See the module. Never changes; a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Whose forwarding headers and `X-Request-Id` count.
    pub trusted_proxies: Vec<IpNet>,
    /// Where clients' keys stand.
    pub keys: Vec<KeySource>,
    /// What becomes of keys that the store does not know.
    pub unknown_keys: UnknownKeys,
    /// How the limiter's fields stand in answers.
    pub headers: RateLimitHeaders,
    /// What some requests need beside or instead of a token of their client's limit.
    pub rules: RequestRules,
    /// Scripts of which origins may see refusals; `None`: none.
    pub cors: Option<Cors>,
    /// When a request is sent again.
    pub retry: Policy,
    /// Inclusive ranges of status codes after which a request is sent again, if it may be.
    pub retry_statuses: Vec<(u16, u16)>,
    /// Share of the requests that may be sent again, 0 to 1.
    pub retry_budget: f64,
    /// How long a request may take in all, its answer's body included.
    pub request_timeout: Option<Duration>,
    /// Most requests that wait for a backend with room; 0: none does.
    pub queue_size: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Inclusive ranges of status codes that count as an endpoint's failure.
    pub outlier_statuses: Vec<(u16, u16)>,
    /// What the pool's strategy hashes requests on; `None`: it does not hash.
    pub hash_on: Option<HashOn>,
    /// Clients stay with the endpoint that a cookie names.
    pub sticky: Option<StickyCookie>,
}

/// The cookie of sticky sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// Whether browsers may send it over TLS alone.
    pub secure: bool,
}

impl Serving {
    /// What a configuration says of it.
    pub fn of(config: &Config) -> Self {
        let (upstream, balancing) = (&config.upstream, &config.balancing);
        let on = &upstream.retry_on;
        Self {
            trusted_proxies: config.rate_limit.trusted_proxies.clone(),
            keys: config.rate_limit.keys.clone(),
            unknown_keys: config.rate_limit.unknown_keys,
            headers: config.rate_limit.headers,
            rules: config.rate_limit.rules.clone(),
            cors: config.rate_limit.cors.clone(),
            retry: Policy {
                retries: upstream.retries,
                on_connect: on.connect,
                on_reset: on.reset,
                on_timeout: on.timeout,
            },
            retry_statuses: on.statuses.clone(),
            retry_budget: upstream.retry_budget,
            request_timeout: upstream.request_timeout,
            queue_size: balancing.queue_size,
            queue_timeout: balancing.queue_timeout,
            outlier_statuses: config.outlier.as_ref().map(|one| one.statuses.clone()).unwrap_or_default(),
            hash_on: (balancing.strategy == Strategy::Hash).then(|| balancing.hash_on.clone()),
            sticky: balancing
                .sticky
                .as_ref()
                .map(|sticky| StickyCookie { name: sticky.cookie.clone(), secure: sticky.secure }),
        }
    }
}

/// Nobody is trusted, nothing is sent again, nobody waits for room.
impl Default for Serving {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            keys: Vec::new(),
            unknown_keys: UnknownKeys::Next,
            headers: RateLimitHeaders::Off,
            rules: RequestRules::default(),
            cors: None,
            retry: Policy { retries: 0, on_connect: false, on_reset: false, on_timeout: false },
            retry_statuses: Vec::new(),
            retry_budget: 0.0,
            request_timeout: None,
            queue_size: 0,
            queue_timeout: Duration::ZERO,
            outlier_statuses: Vec::new(),
            hash_on: None,
            sticky: None,
        }
    }
}
