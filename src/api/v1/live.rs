//! What this instance is doing now, beside what the store keeps.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::status::Status;
use balancer_http::fields::Fields;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::ClientLimit;

/// One bucket as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BucketLevel {
    /// Its name.
    pub name: String,
    /// Most tokens that it holds.
    pub capacity: u32,
    /// Whole tokens in it.
    pub level: u32,
}

/// What a client has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In the order of its limit, or of its plan.
    pub buckets: Vec<BucketLevel>,
    /// Its requests under way in this instance.
    pub in_flight: u32,
}

/// A request that somebody might send.
#[derive(Clone, Debug)]
pub struct Question {
    /// The TCP peer.
    pub address: IpAddr,
    /// Its port, where that matters.
    pub port: Option<u16>,
    /// `GET` unless it is said.
    pub method: String,
    /// With or without a query; `/` unless it is said.
    pub path: String,
    /// Fields of its head.
    pub fields: Fields,
}

/// What that request would get now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it would be let through.
    pub allowed: bool,
    /// Who it counts as.
    pub identity: String,
    /// Every id that was looked for, most specific first; `default` last.
    pub candidates: Vec<String>,
    /// The stored id that decided, or `default`; `None`: nothing did.
    pub matched: Option<String>,
    /// `client`, `range`, `default`, or `none` without a limit.
    pub policy: &'static str,
    /// What it would need a token of.
    pub buckets: Vec<BucketLevel>,
}

/// A client by what it sent within a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCount {
    /// The stored id that names it, else its address or prefix.
    pub client_id: String,
    /// Requests, refused ones among them.
    pub requests: u64,
    /// Those that were refused.
    pub denied: u64,
    /// Why, most frequent first; only for [`Top::Denied`]. Shown by `/v1/limited` alone.
    #[serde(skip)]
    pub reasons: Vec<DeniedFor>,
}

/// Why requests of a client were refused, as it was decided then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeniedFor {
    /// `client`, `range` or `default`: the kind of entry whose bucket refused; `rule` for a rule's.
    pub policy: &'static str,
    /// The bucket, or `concurrency`.
    pub bucket: String,
    /// The rule that has the bucket.
    pub rule: Option<String>,
    /// How often.
    pub denied: u64,
}

/// By what clients are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Most requests first.
    Requests,
    /// Most refusals first, and only who was refused.
    Denied,
}

/// What the API asks of the running process. Nothing here takes a token from a bucket.
pub trait Live: Send + Sync {
    /// This instance's id, as in `Via`: answers about counts are its own.
    fn instance(&self) -> &str;

    /// What `GET /v1/status` shows. Must not wait.
    fn status(&self) -> Status;

    /// What the client of a stored limit has left here. A range that is not shared has a bucket for each address; it
    /// shows one that nobody used. Must not wait.
    fn usage(&self, id: &ClientId, limit: &ClientLimit) -> Usage;

    /// Makes the buckets of a stored limit's client full; of a range, those of every address in it. Must not wait.
    fn reset(&self, id: &ClientId, limit: &ClientLimit);

    /// What a request would get. Waits at most `cache.load_timeout`, as that request would.
    fn check(&self, question: &Question) -> Verdict;

    /// At most `count` clients of the last `window` (at most [`super::limited::MAX_WINDOW`]). Must not wait.
    fn top(&self, by: Top, window: Duration, count: usize) -> Vec<ClientCount>;
}
