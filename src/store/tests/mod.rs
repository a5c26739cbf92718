//! Tests of the store on real databases: the same tests on SQLite and on a PostgreSQL that is started for them.

mod backends;
pub(super) mod bench;
mod channel;
mod follow;
mod import;
mod known;
mod levels;
mod outage;
mod parked;
mod security;
mod server;
mod start;
mod suite;
mod v1;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Audit, CacheConfig, Database, DatabaseUrl, RateLimit, RateLimitHeaders, Secret};
use crate::metrics::Metrics;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::Limiter;
use balancer_limiter::terms::Terms;
use balancer_time::Nanos;

use super::cache::{Found, Known, Pending};
use super::v1::Actor;
use super::{Limits, Sources, StartError};

#[path = "../../../tests/it/support/ports.rs"]
mod ports;
/// The PostgreSQL server of the integration tests, which use more of this file.
#[allow(dead_code)]
#[path = "../../../tests/it/support/postgres.rs"]
mod postgres;
#[allow(dead_code)]
#[path = "../../../tests/it/support/watchdog.rs"]
mod watchdog;

/// A test that needs longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` returns something; fails with `what` after [`PATIENCE`].
#[track_caller]
pub(super) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::real();
    let started = clock.now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = Duration::from_nanos(clock.now() - started);
        assert!(waited < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes to stderr past the test runner, which would hide it: what was skipped, and why.
fn aloud(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "store: {text}");
}

/// 10 × `n` tokens, refilled by `n` a second.
pub(super) fn limit(n: u32) -> Limit {
    Limit { capacity: 10 * n, rate: Rate::per_second(1_000_000 * u64::from(n)) }
}

/// The final result of `look`. Blocks where a request would wait for the database.
fn waited<T>(limits: &Limits, look: impl Fn(Option<Pending>) -> Result<T, Pending>) -> T {
    look(None).unwrap_or_else(|pending| {
        pending.wait(limits.load_timeout());
        look(Some(pending)).unwrap()
    })
}

fn find(limits: &Limits, client: &str, port: Option<u16>, now: Nanos) -> Found {
    let client: IpAddr = client.parse().unwrap();
    waited(limits, |pending| limits.find(client, port, now, pending))
}

fn find_key(limits: &Limits, id: &str) -> Known {
    waited(limits, |pending| limits.find_key(id, 1, pending))
}

pub(super) fn id(text: &str) -> ClientId {
    ClientId::parse(text).unwrap()
}

/// The actor of all writes in these tests.
pub(super) fn tester() -> Actor {
    Actor("tester".into())
}

/// How a test starts the store.
#[derive(Clone)]
struct Setup {
    url: DatabaseUrl,
    listen_url: Option<String>,
    pool_size: usize,
    timeout: Duration,
    load_timeout: Duration,
    ttl: Duration,
    max_entries: usize,
    audit_keep: Duration,
    audit_rows: u64,
    default: Option<Limit>,
    clock: Clock,
    limiter: Arc<Limiter>,
}

impl Setup {
    fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            listen_url: None,
            pool_size: 4,
            timeout: Duration::from_secs(10),
            load_timeout: Duration::from_secs(10),
            ttl: Duration::from_secs(600),
            max_entries: 1000,
            audit_keep: Duration::from_secs(86_400),
            audit_rows: 1000,
            default: Some(limit(9)),
            clock: Clock::real(),
            limiter: Arc::new(Limiter::new(1000)),
        }
    }

    fn sqlite(folder: &Path) -> Self {
        Self::new(DatabaseUrl::Sqlite(folder.join("deep/er/limits.db")))
    }

    fn postgres(url: &str) -> Self {
        Self::new(DatabaseUrl::Postgres(Secret::new(url)))
    }

    /// Another instance: its own buckets, the same database.
    fn another(&self) -> Self {
        Self { limiter: Arc::new(Limiter::new(1000)), ..self.clone() }
    }

    fn start(&self) -> Result<Arc<Limits>, StartError> {
        let database = Database {
            url: self.url.clone(),
            listen_url: self.listen_url.as_deref().map(Secret::new),
            pool_size: self.pool_size,
            timeout: self.timeout,
        };
        let cache =
            CacheConfig { max_entries: self.max_entries, ttl: self.ttl, load_timeout: self.load_timeout };
        let rate_limit = RateLimit {
            keys: Vec::new(),
            unknown_keys: Default::default(),
            default: self.default.map(Terms::of_numbers),
            ipv6_prefix: 64,
            max_clients: 1000,
            shared_budget: Default::default(),
            trusted_proxies: Vec::new(),
            headers: RateLimitHeaders::Draft11,
            rules: balancer_limiter::request_rules::RequestRules::default(),
            cors: None,
        };
        let audit = Audit { keep: self.audit_keep, max_rows: self.audit_rows };
        Limits::start(
            &Sources { database: &database, audit, cache: &cache, rate_limit: &rate_limit },
            Arc::clone(&self.limiter),
            Arc::new(Metrics::default()),
            self.clock.clone(),
        )
    }
}

/// A store in memory, with its threads.
pub(super) fn in_memory() -> Arc<Limits> {
    Setup::new(DatabaseUrl::Memory).start().unwrap()
}

/// A store whose database is down: nobody listens there.
pub(super) fn down() -> Arc<Limits> {
    let mut setup = Setup::postgres("postgres://balancer@127.0.0.1:1/balancer");
    (setup.timeout, setup.load_timeout) = (Duration::from_millis(200), Duration::from_millis(200));
    setup.start().unwrap()
}

/// Runs a test on SQLite and, where it is installed, on PostgreSQL, each with an empty database.
fn on_both(test: impl Fn(&Setup)) {
    let folder = tempfile::tempdir().unwrap();
    test(&Setup::sqlite(folder.path()));
    if let Some(database) = postgres::Database::postgres() {
        test(&Setup::postgres(&database.url));
    }
}
