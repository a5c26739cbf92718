//! The façade: what the proxy and the API know of the store.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use super::breaker::Breaker;
use super::core::{Core, Parts};
use super::ops::{self, Op};
use super::postgres::Postgres;
use super::session::{Fault, Store};
use super::sqlite::Sqlite;
use super::threads::{CallError, Lane, Threads};
use super::watch::Watch;
use super::{Row, StartError, StoreError};
use crate::clock::Clock;
use crate::config::{CacheConfig, Database, DatabaseUrl, RateLimit};
use crate::rules::Nanos;
use crate::rules::identity::ClientId;
use crate::rules::limit::Limit;
use crate::state::cache::{Cache, Counters, Found, Loader, Ticket, Urgency};
use crate::state::limiter::Limiter;
use crate::state::metrics::{Metrics, StoreOp};
use crate::state::ranges::Ranges;

/// Every client's limit: the cache and the ranges in memory, and the database behind them.
pub struct Limits {
    core: Arc<Core>,
    threads: Arc<Threads>,
    /// `cache.load_timeout`.
    patience: Duration,
    /// `database.timeout`.
    timeout: Duration,
    watch: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// What the first probe may take longer than `database.timeout`: several statements, one after the other.
const START_GRACE: Duration = Duration::from_millis(500);

impl Limits {
    /// Opens the store. A database that is down is waited for in the background, and is no error; a wrong URL, a file
    /// that can't be opened and a schema that is newer or somebody else's are. Waits for the first contact a little
    /// longer than `database.timeout`.
    pub fn start(
        database: &Database,
        cache: &CacheConfig,
        rate_limit: &RateLimit,
        limiter: Arc<Limiter>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Arc<Self>, StartError> {
        let size = u32::try_from(database.pool_size).unwrap_or(u32::MAX).max(1);
        let store: Box<dyn Store> = match &database.url {
            DatabaseUrl::Sqlite(path) => Box::new(Sqlite::open(path, size, database.timeout)?),
            DatabaseUrl::Postgres(url) => Box::new(Postgres::open(url, size, database.timeout)?),
        };
        let (wake, woken) = bounded(1);
        let core = Core::new(Parts {
            store,
            breaker: Breaker::new(wake),
            cache: Cache::new(cache.max_entries, cache.ttl, rate_limit.ipv6_prefix, clock.clone()),
            limiter,
            default: rate_limit.default,
            ipv6_prefix: rate_limit.ipv6_prefix,
            metrics,
            clock,
            within: database.timeout / 10 * 9,
        });
        let no_thread =
            |error: std::io::Error| StartError::System(format!("no thread for the store: {error}"));
        let threads = Arc::new(Threads::start(database.pool_size).map_err(no_thread)?);
        let (life, end) = bounded(0);
        let watch = Watch {
            core: Arc::clone(&core),
            threads: Arc::clone(&threads),
            wake: woken,
            end,
            ttl: cache.ttl,
        };
        let (tell, first) = bounded(1);
        let handle =
            Builder::new().name("store-watch".into()).spawn(move || watch.run(&tell)).map_err(no_thread)?;
        let limits = Arc::new(Self {
            core,
            threads,
            patience: cache.load_timeout,
            timeout: database.timeout,
            watch: Mutex::new(Some((life, handle))),
        });
        match first.recv_timeout(database.timeout + START_GRACE) {
            Ok(Err(fault @ Fault::Schema(_))) => {
                limits.stop();
                Err(fault.into())
            }
            // What is wrong has been said in the log.
            Ok(_) => Ok(limits),
            Err(_) => {
                limits.core.breaker.open("no answer yet".into());
                Ok(limits)
            }
        }
    }

    /// Stores a new limit; in force on this process's next request. Waits at most `database.timeout`.
    pub fn create(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError> {
        self.write(id, Op::Create(limit))
    }

    /// The limit of that id, or of one of equal value. Waits at most `database.timeout`.
    pub fn get(&self, id: &ClientId) -> Result<Row, StoreError> {
        let (core, id) = (Arc::clone(&self.core), id.clone());
        self.call(Lane::Read, move || core.ask(StoreOp::Get, |store| ops::get(store, core.within, &id)))
    }

    /// Replaces the numbers; the id stays as it was stored. In force on this process's next request. Waits at most
    /// `database.timeout`.
    pub fn update(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError> {
        self.write(id, Op::Update(limit))
    }

    /// Removes the limit; in force on this process's next request. Waits at most `database.timeout`.
    pub fn delete(&self, id: &ClientId) -> Result<(), StoreError> {
        self.write(id, Op::Delete)
    }

    /// At most `count` limits behind the id `after`, in byte order of the ids. Waits at most `database.timeout`.
    pub fn list(&self, after: Option<&str>, count: usize) -> Result<Vec<Row>, StoreError> {
        let (core, after) = (Arc::clone(&self.core), after.unwrap_or_default().to_owned());
        self.call(Lane::Read, move || {
            core.ask(StoreOp::List, |store| ops::list(store, core.within, &after, count))
        })
    }

    /// Who a request counts as, and by which numbers. `tcp_port` is the peer's when the peer is the client. Waits at
    /// most `cache.load_timeout`, and not at all for a client in the cache or while the database is down; a client that
    /// could not be looked up in time gets its range's limit, or the default.
    pub fn find(&self, client: IpAddr, tcp_port: Option<u16>, now: Nanos) -> Found {
        let known = self.core.cache.find(client, tcp_port, now, &Gate(self));
        self.core.found(known, client)
    }

    /// Puts another `rate_limit.default` in force. A bucket of a client that no entry names moves by CONTRACT's level rule.
    pub fn set_default(&self, default: Option<Limit>) {
        self.core.set_default(default);
    }

    /// Whether the database answers.
    pub fn up(&self) -> bool {
        self.core.breaker.up()
    }

    /// What the cache counted.
    pub fn cache_counters(&self) -> Counters {
        self.core.cache.counters()
    }

    /// The ranges in force.
    pub fn ranges(&self) -> Arc<Ranges> {
        self.core.ranges()
    }

    /// Ends the store's threads. Jobs that were taken are done, each within `database.timeout`; later calls are
    /// refused, and [`Limits::find`] says what memory knows.
    pub fn stop(&self) {
        let watch = self.watch.lock().take();
        if let Some((life, handle)) = watch {
            drop(life);
            if handle.join().is_err() {
                log::error!("store: the watch ended in a panic");
            }
        }
        self.threads.stop();
    }

    fn write(&self, id: &ClientId, op: Op) -> Result<(), StoreError> {
        let (core, id) = (Arc::clone(&self.core), id.clone());
        self.call(Lane::Write, move || core.write(&id, op))
    }

    fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let unavailable = |cause: String, outcome_unknown| StoreError::Unavailable { cause, outcome_unknown };
        let breaker = &self.core.breaker;
        if !breaker.up() {
            return Err(unavailable(format!("not asked: {}", breaker.cause()), false));
        }
        self.threads.call(lane, self.timeout, work).map_err(|error| match error {
            CallError::Fault(fault) => fault.into(),
            CallError::Refused(cause) => unavailable(cause.into(), false),
            CallError::TimedOut { begun } => {
                breaker.suspect("a call took longer than database.timeout");
                let cause = format!("no answer within database.timeout ({:?})", self.timeout);
                unavailable(cause, begun && lane == Lane::Write)
            }
        })
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How the cache reaches the store threads.
struct Gate<'a>(&'a Limits);

impl Loader for Gate<'_> {
    fn ready(&self) -> bool {
        self.0.core.breaker.trusted()
    }

    fn start(&self, ticket: Ticket, urgency: Urgency) {
        let lane = match urgency {
            Urgency::Unknown => Lane::Unknown,
            Urgency::Refresh => Lane::Read,
        };
        let core = Arc::clone(&self.0.core);
        // Without a slot the job is dropped, the ticket in it has failed, and nobody waits.
        drop(self.0.threads.submit(lane, Box::new(move || core.load(ticket))));
    }

    fn patience(&self) -> Duration {
        self.0.patience
    }

    fn gave_up(&self) {
        self.0.core.breaker.suspect("a load took longer than cache.load_timeout");
    }
}
