//! What of the configuration a request is judged by, and the pools that it may go to. A reload swaps it in whole.

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::pools::Pools;
use super::routes::ActiveRoutes;
use crate::config::routes::RouteList;
use crate::config::{RateLimit, RateLimitHeaders};
use balancer_http::cors::Cors;
use balancer_http::fields::Fields;
use balancer_limiter::identity::{KeySource, UnknownKeys};
use balancer_limiter::request_rules::RequestRules;

/// See the module. Never changes; a reload makes a new one.
#[derive(Clone)]
pub struct ProxyPolicy {
    /// Whose forwarding headers and `X-Request-Id` count.
    pub trusted_proxies: Vec<IpNet>,
    /// Which parts of a request hold clients' keys.
    pub keys: Vec<KeySource>,
    /// What becomes of keys that the store does not know.
    pub unknown_keys: UnknownKeys,
    /// In which form answers have the limiter's fields.
    pub headers: RateLimitHeaders,
    /// What some requests need beside or instead of a token of their client's limit.
    pub rules: RequestRules,
    /// Scripts of which origins may see refusals; `None`: none.
    pub cors: Option<Cors>,
    /// The port that clients without TLS are sent to; `None`: they are served.
    pub redirect_to: Option<u16>,
    /// Where requests go.
    pub pools: Pools,
    /// Which go where, and what happens to them.
    pub routes: ActiveRoutes,
}

/// The policy in force. A request loads it once.
pub type PolicyInForce = ArcSwap<ProxyPolicy>;

impl ProxyPolicy {
    /// Whether a browser asks what it may send: such a request takes no token. From an origin of `rate_limit.cors` alone.
    pub fn is_preflight(&self, method: &str, fields: &Fields, has_body: bool) -> bool {
        self.cors.as_ref().is_some_and(|cors| cors.is_preflight(method, fields, has_body))
    }

    /// The same; clients without TLS are sent to that port.
    pub fn redirecting(self, redirect_to: Option<u16>) -> Self {
        Self { redirect_to, ..self }
    }

    /// The same with those routes, which lead to its pools.
    pub fn routing(self, list: &RouteList) -> Self {
        Self { routes: ActiveRoutes::new(list, &self.pools), ..self }
    }

    /// What a configuration says of it, with those pools.
    pub fn of(config: &RateLimit, pools: Pools) -> Self {
        Self {
            trusted_proxies: config.trusted_proxies.clone(),
            keys: config.keys.clone(),
            unknown_keys: config.unknown_keys,
            headers: config.headers,
            rules: config.rules.clone(),
            cors: config.cors.clone(),
            redirect_to: None,
            pools,
            routes: ActiveRoutes::default(),
        }
    }
}
