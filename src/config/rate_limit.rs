//! `rate_limit`, checked.

use ipnet::IpNet;

use balancer_http::cors::Cors;
use balancer_limiter::identity::{KeySource, UnknownKeys};
use balancer_limiter::request_rules::RequestRules;
use balancer_limiter::terms::Terms;

/// Which rate-limit fields answers have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateLimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11.
    Draft11,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, in seconds from now.
    Legacy,
    /// All five.
    Both,
    /// None.
    #[default]
    Off,
}

/// Which instances take from one budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetScope {
    /// All that are on one PostgreSQL.
    #[default]
    Auto,
    /// Each counts alone.
    Off,
}

/// `rate_limit`.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Where a client's key is looked for, in order; its address comes after them.
    pub keys: Vec<KeySource>,
    /// What becomes of a key that the store does not know.
    pub unknown_keys: UnknownKeys,
    /// The limit of a client that no entry names; `None`: no limit. The default is `None`; the shipped file has 1000
    /// tokens at 500 a second.
    pub default: Option<Terms>,
    /// IPv6 clients are grouped by this many bits; 1 to 128.
    pub ipv6_prefix: u8,
    /// Most buckets in memory.
    pub max_clients: usize,
    /// Whether instances share one budget.
    pub shared_budget: BudgetScope,
    /// Peers whose forwarding headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Which rate-limit fields answers have.
    pub headers: RateLimitHeaders,
    /// What some requests need beside or instead of a token of their client's limit.
    pub rules: RequestRules,
    /// Origins whose scripts may see refusals; `None`: none.
    pub cors: Option<Cors>,
}
