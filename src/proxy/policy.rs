//! What requests are judged by: the proxy's part of the configuration, the pools and the routes. A reload replaces all
//! of it at once.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::pools::Pools;
use super::routes::ActiveRoutes;
use crate::config::routes::RouteList;
use crate::config::{RateLimit, RateLimitHeaders};
use crate::otel::Tracer;
use balancer_http::cors::Cors;
use balancer_http::fields::Fields;
use balancer_limiter::identity::{KeySource, UnknownKeys};
use balancer_limiter::request_rules::RequestRules;

/// See the module. It never changes: a reload makes a new one.
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
    /// The origins whose scripts may read refusals; `None`: none.
    pub cors: Option<Cors>,
    /// The port that clients without TLS are sent to; `None`: they are served.
    pub redirect_to: Option<u16>,
    /// Where requests go.
    pub pools: Pools,
    /// Which requests go to which pool, and what happens to them on the way.
    pub routes: ActiveRoutes,
    /// Records them; `None`: nothing does.
    pub tracer: Option<Arc<Tracer>>,
}

/// The policy in force. A request loads it once.
pub type PolicyInForce = ArcSwap<ProxyPolicy>;

impl ProxyPolicy {
    /// Whether it is a CORS preflight, by which a browser asks what it may send, from an origin of `rate_limit.cors`.
    /// Such a request takes no token.
    pub fn is_preflight(&self, method: &str, fields: &Fields, has_body: bool) -> bool {
        self.cors.as_ref().is_some_and(|cors| cors.is_preflight(method, fields, has_body))
    }

    /// The same; clients without TLS are sent to that port.
    pub fn redirecting(self, redirect_to: Option<u16>) -> Self {
        Self { redirect_to, ..self }
    }

    /// The same, recorded by that one.
    pub fn tracing(self, tracer: Option<Arc<Tracer>>) -> Self {
        Self { tracer, ..self }
    }

    /// The same with those routes, which lead to its pools.
    pub fn routing(self, list: &RouteList) -> Self {
        Self { routes: ActiveRoutes::new(list, &self.pools), ..self }
    }

    /// From a configuration, with those pools and no routes.
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
            tracer: None,
        }
    }
}
