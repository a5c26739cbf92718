//! Cores without threads, on a database in memory: a test does what the watch and the store threads would do. The
//! clock stands still.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::store::breaker::Breaker;
use crate::store::cache::Cache;
use crate::store::core::{Core, CoreParts};
use crate::store::ops::Keep;
use crate::store::session::{Access, Cells, Dialect, Listener, Session, SqlValue, Store, Work};
use crate::store::sqlite::Sqlite;
use balancer_limiter::limiter::Limiter;
use balancer_limiter::terms::Terms;

/// How long one call to the database may take.
pub const WITHIN: Duration = Duration::from_secs(10);

/// What is done before each statement, which is not run after an error.
type Before = dyn Fn(&str) -> Result<(), StoreError> + Send + Sync;

/// A database in memory. Cores on clones of it are like several processes on one database.
#[derive(Clone)]
pub struct BenchStore {
    store: Arc<Sqlite>,
    before: Arc<Before>,
}

impl BenchStore {
    /// A database without tables.
    pub fn empty() -> Self {
        Self { store: Arc::new(Sqlite::in_memory(WITHIN)), before: Arc::new(|_| Ok(())) }
    }

    /// The same database, to which something happens before each statement of this core.
    pub fn with_before(
        &self,
        before: impl Fn(&str) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { before: Arc::new(before), ..self.clone() }
    }

    /// Runs statements by hand.
    pub fn by_hand(&self, sql: &str) {
        self.store.with(WITHIN, Access::Read, &mut |session| session.batch(sql)).unwrap();
    }

    /// A core that knows nothing yet, and what wakes its watch. Its default is 90 tokens, 9 a second.
    pub fn core(&self, clock: &Clock) -> (Arc<Core>, Receiver<()>) {
        let (wake, woken) = bounded(1);
        let core = Core::new(CoreParts {
            store: Box::new(self.clone()),
            breaker: Breaker::new(wake),
            cache: Cache::new(1_000, Duration::from_secs(600), 64, clock.clone()),
            limiter: Arc::new(Limiter::new(1_000)),
            default: Some(Terms::of_numbers(super::limit(9))),
            ipv6_prefix: 64,
            metrics: Arc::new(Metrics::default()),
            clock: clock.clone(),
            within: WITHIN,
            keep: Keep { age: Duration::from_secs(86_400), rows: 1_000 },
        });
        (core, woken)
    }

    /// A core that has read all that the database holds, with its tables.
    pub fn started(&self) -> Arc<Core> {
        let (core, _) = self.core(&Clock::manual());
        core.probe(false).unwrap();
        core.breaker.close();
        core
    }
}

impl Store for BenchStore {
    fn with(&self, within: Duration, access: Access, work: &mut Work<'_>) -> Result<(), StoreError> {
        self.store.with(within, access, &mut |session| {
            work(&mut BenchSession { session, before: self.before.as_ref() })
        })
    }

    fn listener(&self) -> Box<dyn Listener> {
        self.store.listener()
    }

    fn dialect(&self) -> &'static Dialect {
        self.store.dialect()
    }
}

struct BenchSession<'a> {
    session: &'a mut dyn Session,
    before: &'a Before,
}

impl Session for BenchSession<'_> {
    fn query(&mut self, sql: &str, values: &[SqlValue<'_>]) -> Result<Cells, StoreError> {
        (self.before)(sql)?;
        self.session.query(sql, values)
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        (self.before)(sql)?;
        self.session.batch(sql)
    }

    fn copy(&mut self, table: &str, columns: &[&str], values: &[SqlValue<'_>]) -> Result<(), StoreError> {
        self.session.copy(table, columns, values)
    }

    fn stage(&self) -> &'static str {
        self.session.stage()
    }

    fn now_us(&self) -> &'static str {
        self.session.now_us()
    }

    fn announce(&self) -> &'static str {
        self.session.announce()
    }
}
