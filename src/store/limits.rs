//! [`Limits`]: everything that the proxy and the API ask of the store.

mod backends;
mod channel;
mod levels;
mod peek;
mod v1;

pub use channel::BudgetChannel;
use channel::Ears;

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use super::breaker::Breaker;
use super::core::{Core, CoreParts};
use super::ops::{self, Change, Done, Keep, To, Written};
use super::postgres::Postgres;
use super::session::Store;
use super::sqlite::Sqlite;
use super::threads::{CallError, StoreLane, Threads};
use super::v1::{Actor, BatchError, Condition, LimitFilter};
use super::watch::{Watch, WatchState};
use super::{CallOutcome, Row, StartError, StoreError, StoreState};
use crate::clock::Clock;
use crate::config::{Audit, CacheConfig, Database, DatabaseUrl, RateLimit};
use crate::metrics::{Metrics, StoreOp};
use crate::store::cache::{
    Cache, Counters, EntryKind, Found, Hit, Known, LoadTicket, Loader, Pending, Urgency,
};
use balancer_limiter::identity::{ClientId, ClientKey};
use balancer_limiter::limit::Limit;
use balancer_limiter::limiter::{Granted, Limiter};
use balancer_limiter::ranges::Ranges;
use balancer_limiter::terms::{ClientLimit, Terms};
use balancer_time::Nanos;

/// Every client's limit: the cache and the ranges in memory, and the database behind them.
pub struct Limits {
    pub(super) core: Arc<Core>,
    threads: Arc<Threads>,
    /// `cache.load_timeout`.
    load_timeout: Duration,
    /// `database.timeout`.
    timeout: Duration,
    beside: Mutex<Option<Beside>>,
    channel: Mutex<Option<BudgetChannel>>,
}

/// The threads of the watch and of the listener.
struct Beside {
    /// Dropped to stop them.
    life: Sender<()>,
    handles: [JoinHandle<()>; 2],
}

/// The parts of the configuration that the store needs.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// `database`.
    pub database: &'a Database,
    /// `audit`.
    pub audit: Audit,
    /// `cache`.
    pub cache: &'a CacheConfig,
    /// `rate_limit`.
    pub rate_limit: &'a RateLimit,
}

/// How much longer than `database.timeout` the first probe may take, since it has several statements.
const START_GRACE: Duration = Duration::from_millis(500);

impl Limits {
    /// Opens the store. Waits for the first answer of the database a little longer than `database.timeout`. A database that
    /// is down is not an error: it is waited for in the background.
    ///
    /// # Errors
    /// For a wrong URL, a file that can't be opened, and a schema that is newer or not ours.
    pub fn start(
        sources: &Sources<'_>,
        limiter: Arc<Limiter>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Arc<Self>, StartError> {
        let Sources { database, audit, cache, rate_limit } = *sources;
        let size = u32::try_from(database.pool_size).unwrap_or(u32::MAX).max(1);
        let store: Box<dyn Store> = match &database.url {
            DatabaseUrl::Sqlite(path) => Box::new(Sqlite::open(path, size, database.timeout)?),
            DatabaseUrl::Memory => Box::new(Sqlite::in_memory(database.timeout)),
            DatabaseUrl::Postgres(url) => {
                Box::new(Postgres::open(url, database.listen_url.as_ref(), size, database.timeout)?)
            }
        };
        let (wake, woken) = bounded(1);
        let core = Core::new(CoreParts {
            store,
            breaker: Breaker::new(wake),
            cache: Cache::new(cache.max_entries, cache.ttl, rate_limit.ipv6_prefix, clock.clone()),
            limiter,
            default: rate_limit.default.clone(),
            ipv6_prefix: rate_limit.ipv6_prefix,
            metrics,
            clock,
            within: database.timeout / 10 * 9,
            keep: Keep { age: audit.keep, rows: audit.max_rows },
        });
        let no_thread =
            |error: std::io::Error| StartError::System(format!("no thread for the store: {error}"));
        let threads = Arc::new(Threads::start(database.pool_size).map_err(no_thread)?);
        let (life, end) = bounded(0);
        // One pending signal is as good as many.
        let (tell_news, news) = bounded(1);
        let watch = Watch {
            core: Arc::clone(&core),
            threads: Arc::clone(&threads),
            wake: woken,
            news,
            end: end.clone(),
            ttl: cache.ttl,
            state: WatchState::default(),
        };
        let (tell, first) = bounded(0);
        let watching =
            Builder::new().name("store-watch".into()).spawn(move || watch.run(&tell)).map_err(no_thread)?;
        let listener = core.store.listener();
        let (ears, channel) = Ears::of(core.store.notifier(), tell_news);
        let listening = Builder::new()
            .name("store-listen".into())
            .spawn(move || listener.run(&|word| ears.hear(word), &end))
            .map_err(no_thread)?;
        let limits = Arc::new(Self {
            core,
            threads,
            load_timeout: cache.load_timeout,
            timeout: database.timeout,
            beside: Mutex::new(Some(Beside { life, handles: [watching, listening] })),
            channel: Mutex::new(channel),
        });
        match first.recv_timeout(database.timeout + START_GRACE) {
            Ok(Err(fault @ StoreError::Schema(_))) => {
                limits.stop();
                Err(fault.into())
            }
            // If something is wrong, it was logged.
            Ok(_) => Ok(limits),
            Err(_) => {
                limits.core.breaker.open_at_start();
                Ok(limits)
            }
        }
    }

    /// Stores a new limit. It is in force on the next request to this process. Waits at most `database.timeout`.
    pub fn create(&self, id: &ClientId, limit: Limit, actor: &Actor) -> Result<(), StoreError> {
        self.write_one(id, To::New(ClientLimit::of_numbers(limit)), Condition::None, actor).map(drop)
    }

    /// The first bucket of the limit of that id, or of an id of equal value. Waits at most `database.timeout`.
    pub fn get(&self, id: &ClientId) -> Result<Row, StoreError> {
        let id = id.clone();
        let row = self.read(StoreOp::Get, move |store, within| {
            ops::numbers(store, within, vec![ops::get(store, within, &id)?])
        })?;
        row.into_iter().next().ok_or(StoreError::NotFound)
    }

    /// Replaces the numbers, and takes the limit off its plan; the id stays as it was stored. In force on the next request
    /// to this process. Waits at most `database.timeout`.
    pub fn update(&self, id: &ClientId, limit: Limit, actor: &Actor) -> Result<(), StoreError> {
        self.write_one(id, To::Numbers(limit), Condition::None, actor).map(drop)
    }

    /// Removes the limit. In force on the next request to this process. Waits at most `database.timeout`.
    pub fn delete(&self, id: &ClientId, actor: &Actor) -> Result<(), StoreError> {
        self.write_one(id, To::Gone, Condition::None, actor).map(drop)
    }

    /// At most `count` limits after the id `after`, in byte order of the ids, each with its first bucket. Waits at most
    /// `database.timeout`.
    pub fn list(&self, after: Option<&str>, count: usize) -> Result<Vec<Row>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.read(StoreOp::List, move |store, within| {
            ops::numbers(store, within, ops::list(store, within, &LimitFilter::default(), &after, count)?)
        })
    }

    /// Which client a request counts as, and what it may do. `tcp_port`: the port of the peer, if the peer is the client. A
    /// client that can't be looked up in time gets the limit of its range, or the default. `waited`: the error of an
    /// earlier call, for whose end the caller has waited at most [`Limits::load_timeout`].
    ///
    /// # Errors
    /// A load that the caller has to wait for. Never for a fresh entry of the cache, while the database is down, or with
    /// `waited`.
    pub fn find(
        &self,
        client: IpAddr,
        tcp_port: Option<u16>,
        now: Nanos,
        waited: Option<Pending>,
    ) -> Result<Found, Pending> {
        let known = match waited {
            Some(pending) => pending.known(&Gate(self)),
            None => self.core.cache.find(client, tcp_port, now, &Gate(self))?,
        };
        Ok(self.core.found(known, client))
    }

    /// What is stored for an opaque id, by its canonical text; otherwise like [`Limits::find`]. That an id has no limit is
    /// remembered, too; where there is no room, such ids drive out only each other.
    pub fn find_key(&self, id: &str, now: Nanos, waited: Option<Pending>) -> Result<Known, Pending> {
        match waited {
            Some(pending) => Ok(pending.known(&Gate(self))),
            None => self.core.cache.find_id(id, now, &Gate(self)),
        }
    }

    /// `cache.load_timeout`: the longest that a request waits for one look-up.
    pub fn load_timeout(&self) -> Duration {
        self.load_timeout
    }

    /// Fills the buckets of a stored limit; for a range that is not shared, those of every client that it decides about.
    pub fn fill(&self, id: &ClientId) {
        self.core.fill(id);
    }

    /// What decides when an entry names the client.
    pub fn of_entry(&self, hit: Hit) -> Found {
        self.core.of_entry(hit)
    }

    /// What decides when nothing names the client.
    pub fn of_default(&self, client: ClientKey) -> Found {
        self.core.of_default(client)
    }

    /// Puts another `rate_limit.default` in force, also on the existing buckets of clients that no entry names.
    pub fn set_default(&self, default: Option<Terms>) {
        self.core.set_default(default);
    }

    /// Whether the database answers.
    pub fn up(&self) -> bool {
        self.core.breaker.up()
    }

    /// The state of the database.
    pub fn state(&self) -> StoreState {
        self.core.breaker.what()
    }

    /// The number of the newest change of limits, plans and backends that memory knows of, by any instance.
    pub fn latest_change(&self) -> Option<i64> {
        self.core.book.lock().latest()
    }

    /// What the cache counted.
    pub fn cache_counters(&self) -> Counters {
        self.core.cache.counters()
    }

    /// The ranges in force.
    pub fn ranges(&self) -> Arc<Ranges> {
        self.core.ranges()
    }

    /// What a stored limit allows, with the plans in force.
    pub fn granted(&self, limit: &ClientLimit, source: EntryKind) -> Granted {
        self.core.in_force().shared().resolve(limit, source)
    }

    /// Ends the store's threads. Jobs that wait are still done, each within `database.timeout`. Later calls are refused, and
    /// [`Limits::find`] answers from memory.
    pub fn stop(&self) {
        let beside = self.beside.lock().take();
        if let Some(Beside { life, handles }) = beside {
            drop(life);
            for handle in handles {
                if handle.join().is_err() {
                    log::error!("store: the watch, or what listens for it, ended in a panic");
                }
            }
        }
        self.threads.stop();
        self.core.store.close();
    }

    /// Does one change, and returns what became of it.
    pub(super) fn write_one(
        &self,
        id: &ClientId,
        to: To,
        condition: Condition,
        actor: &Actor,
    ) -> Result<Done, StoreError> {
        let wish = Change { id: id.clone(), to, condition };
        let written = self.write(vec![wish], actor, false).map_err(|failed| failed.error)?;
        written.done.into_iter().next().ok_or(StoreError::NotFound)
    }

    /// Does all of the changes, or none.
    pub(super) fn write(
        &self,
        wishes: Vec<Change>,
        actor: &Actor,
        is_batch: bool,
    ) -> Result<Written, BatchError> {
        let actor = actor.clone();
        self.attempt(move |core| core.write(&wishes, &actor, is_batch))
    }

    /// Does work that changes many things, on the one thread that writes.
    pub(super) fn attempt<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, BatchError> {
        self.change(move |core| Ok(work(core)))?
    }

    /// Asks a question, which changes nothing.
    pub(super) fn read<T: Send + 'static>(
        &self,
        op: StoreOp,
        question: impl FnOnce(&dyn Store, Duration) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let core = Arc::clone(&self.core);
        let asked = self.call(StoreLane::Read, move || core.ask(op, |store| question(store, core.within)));
        asked.map_err(StoreError::of_question)
    }

    /// Does work that changes something, on the one thread that writes.
    pub(super) fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let core = Arc::clone(&self.core);
        self.call(StoreLane::Write, move || work(&core))
    }

    fn call<T: Send + 'static>(
        &self,
        lane: StoreLane,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let breaker = &self.core.breaker;
        if !breaker.up() {
            return Err(StoreError::down(format!("not asked: {}", breaker.cause())));
        }
        let given_up = |cause, begun| {
            let begun = begun && lane == StoreLane::Write;
            let outcome = if begun { CallOutcome::Unknown } else { CallOutcome::NotDone };
            StoreError::Unavailable { cause, outcome }
        };
        self.threads.call(lane, self.timeout, work).map_err(|error| match error {
            CallError::Store(error) => error,
            CallError::Refused(cause) => StoreError::down(cause),
            CallError::Panicked => given_up("the call ended in a panic, a fault of Balancer".into(), true),
            CallError::TimedOut { begun } => {
                breaker.suspect("a call took longer than database.timeout");
                given_up(format!("no answer within database.timeout ({:?})", self.timeout), begun)
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

    fn start(&self, ticket: LoadTicket, urgency: Urgency) {
        let lane = match urgency {
            Urgency::Unknown => StoreLane::Unknown,
            Urgency::Refresh => StoreLane::Read,
        };
        let core = Arc::clone(&self.0.core);
        // If there is no slot, the job is dropped with its ticket. So the load has failed, and no request waits for it.
        drop(self.0.threads.submit(lane, Box::new(move || core.load(ticket))));
    }

    fn gave_up(&self) {
        self.0.core.breaker.suspect("a load took longer than cache.load_timeout");
    }
}
