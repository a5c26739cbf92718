//! The façade: what the proxy and the API know of the store.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{CacheConfig, Database, RateLimit};
use crate::rules::Nanos;
use crate::rules::identity::{ClientId, ClientKey};
use crate::rules::limit::Limit;
use crate::state::cache::{Found, Source};

use super::{Row, StartError, StoreError};

/// Every client's limit: the cache and the ranges in memory, and the database behind them.
pub struct Limits {
    ipv6_prefix: u8,
    default: Option<Limit>,
}

impl Limits {
    /// Opens the store. A database that is down is waited for in the background, and is no error.
    pub fn start(
        _database: &Database,
        _cache: &CacheConfig,
        rate_limit: &RateLimit,
        _clock: Clock,
    ) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { ipv6_prefix: rate_limit.ipv6_prefix, default: rate_limit.default }))
    }

    /// Stores a new limit; in force on this process's next request. Waits at most `database.timeout`.
    pub fn create(&self, _id: &ClientId, _limit: Limit) -> Result<(), StoreError> {
        Err(unavailable())
    }

    /// The limit of that id, or of one of equal value. Waits at most `database.timeout`.
    pub fn get(&self, _id: &ClientId) -> Result<Row, StoreError> {
        Err(unavailable())
    }

    /// Replaces the numbers; the id stays as it was stored. Waits at most `database.timeout`.
    pub fn update(&self, _id: &ClientId, _limit: Limit) -> Result<(), StoreError> {
        Err(unavailable())
    }

    /// Removes the limit. Waits at most `database.timeout`.
    pub fn delete(&self, _id: &ClientId) -> Result<(), StoreError> {
        Err(unavailable())
    }

    /// At most `count` limits behind the id `after`, in byte order of the ids. Waits at most `database.timeout`.
    pub fn list(&self, _after: Option<&str>, _count: usize) -> Result<Vec<Row>, StoreError> {
        Err(unavailable())
    }

    /// Who a request counts as, and by which numbers. `tcp_port` is the peer's when the peer is the client. Waits at
    /// most `cache.load_timeout`, and not at all for a client in the cache.
    pub fn find(&self, client: IpAddr, _tcp_port: Option<u16>, _now: Nanos) -> Found {
        let client = ClientKey::group(client, self.ipv6_prefix);
        Found { client, limit: self.default, source: Source::Default, entry: None }
    }

    /// Whether the database answers.
    pub fn up(&self) -> bool {
        false
    }

    /// Ends the store's threads. Jobs that were taken are done.
    pub fn stop(&self) {}
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { cause: "the store is not open yet".into(), outcome_unknown: false }
}
