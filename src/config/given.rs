//! The values of a configuration that are not defaults, so that two configurations can be compared key by key; and
//! which keys a reload can put in force.

use std::collections::BTreeMap;
use std::fmt;

use crate::declare::Node;

/// Keys that a reload puts in force, each with all below it. What is not here needs a restart: a socket is bound, a
/// thread is started or a table is made with it.
const LIVE: [&str; 32] = [
    "backends",
    "balancing.auto",
    "balancing.hash_on",
    "balancing.max_in_flight",
    "balancing.queue_order",
    "balancing.queue_size",
    "balancing.queue_target",
    "balancing.queue_timeout",
    "balancing.sticky",
    "balancing.strategy",
    "discovery.resolver",
    "health_check",
    "log.level",
    "otel",
    "outlier",
    "pools",
    "rate_limit.cors",
    "rate_limit.default",
    "rate_limit.headers",
    "rate_limit.key",
    "rate_limit.rules",
    "rate_limit.trusted_proxies",
    "rate_limit.unknown_keys",
    "routes",
    "shutdown_delay",
    "shutdown_timeout",
    "tls.alpn",
    "tls.certificates",
    "tls.client_auth",
    "tls.min_version",
    "tls.redirect",
    "upstream",
];

/// The same in `admin`: everything but where it listens.
const LIVE_ADMIN: [&str; 6] = [
    "admin.allow",
    "admin.hosts",
    "admin.insecure",
    "admin.metrics_without_token",
    "admin.token",
    "admin.tokens",
];

/// Every key that was given another value than its default, under its whole path (`backends[0].weight`). Shows no
/// value: there may be secrets among them.
#[derive(Clone, Default)]
pub struct Given(BTreeMap<String, Node>);

impl Given {
    /// Those values; they must be settled.
    pub(super) fn of(values: BTreeMap<String, Node>) -> Self {
        Self(values)
    }

    /// The keys whose values differ, sorted. A key of a list's element is named by the list. Keys below another one
    /// that differs are left out.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let differs = |path: &&String| match (self.0.get(*path), other.0.get(*path)) {
            (Some(a), Some(b)) => !a.same(b),
            (None, None) => false,
            _ => true,
        };
        let both = self.0.keys().chain(other.0.keys());
        let mut keys: Vec<String> = both.filter(differs).map(|path| list_of(path).to_owned()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut tops: Vec<String> = Vec::with_capacity(keys.len());
        for key in keys {
            if !tops.iter().any(|top| is_below(&key, top)) {
                tops.push(key);
            }
        }
        tops
    }

    /// These values where [`is_live`] says so, the other's elsewhere: what is in force after a reload from `other`.
    pub fn in_force_after(&self, other: &Self) -> Self {
        let live = self.0.iter().filter(|(path, _)| is_live(path));
        let rest = other.0.iter().filter(|(path, _)| !is_live(path));
        Self(live.chain(rest).map(|(path, node)| (path.clone(), node.clone())).collect())
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[values]")
    }
}

/// Whether a reload puts that key in force.
pub fn is_live(path: &str) -> bool {
    let path = list_of(path);
    LIVE.iter().chain(&LIVE_ADMIN).any(|live| path == *live || is_below(path, live))
}

/// All of them, for the tests.
#[cfg(test)]
pub(super) fn live_keys() -> impl Iterator<Item = &'static &'static str> {
    LIVE.iter().chain(&LIVE_ADMIN)
}

/// `backends[3].url` → `backends`.
fn list_of(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

/// Whether a key is below another one.
pub(super) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'))
}
