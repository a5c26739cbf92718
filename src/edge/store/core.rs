//! What the store threads, the watch and the façade share: the database, and what memory knows of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::breaker::Breaker;
use super::ops::{self, Op, RangeMark, Written};
use super::session::{Fault, Store};
use super::{Row, migrate};
use crate::clock::Clock;
use crate::rules::identity::{ClientId, ClientKey, IdForm, group};
use crate::rules::limit::Limit;
use crate::state::cache::{Cache, Entry, Found, Known, Source, Ticket};
use crate::state::limiter::{Limiter, Shared};
use crate::state::metrics::{Metrics, StoreOp};
use crate::state::ranges::{Range, Ranges};

/// Shared by everything that knows the database.
pub struct Core {
    pub store: Box<dyn Store>,
    pub breaker: Breaker,
    pub cache: Arc<Cache>,
    ranges: ArcSwap<Ranges>,
    /// What the snapshot of ranges stands on. Held while one is made and swapped in, never across I/O.
    book: Mutex<Book>,
    /// Groups of writes whose outcome is unknown: one for each time the connection broke in a commit, until the
    /// database is back.
    doubts: Mutex<BTreeSet<IpNet>>,
    pub limiter: Arc<Limiter>,
    default: ArcSwap<Option<Limit>>,
    /// Held while the limiter hears of ranges and default, so that who tells last tells the newest; over no I/O.
    telling: Mutex<()>,
    pub ipv6_prefix: u8,
    pub clock: Clock,
    /// How long the database may take for one call: a little less than its caller waits, who then hears whether it was
    /// done and not merely that time is over.
    pub within: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Book {
    /// Writes to ranges by this process: a list that was read before one of them is too old.
    writes: u64,
    /// How far the snapshot follows the database's changes.
    mark: Option<RangeMark>,
}

/// What a [`Core`] is made of.
pub struct Parts {
    pub store: Box<dyn Store>,
    pub breaker: Breaker,
    pub cache: Arc<Cache>,
    pub limiter: Arc<Limiter>,
    pub default: Option<Limit>,
    pub ipv6_prefix: u8,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub within: Duration,
}

impl Core {
    /// Puts the parts together, without a range.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, breaker, cache, limiter, default, ipv6_prefix, metrics, clock, within } = parts;
        Arc::new(Self {
            store,
            breaker,
            cache,
            ranges: ArcSwap::from_pointee(Ranges::default()),
            book: Mutex::new(Book::default()),
            doubts: Mutex::new(BTreeSet::new()),
            limiter,
            default: ArcSwap::from_pointee(default),
            telling: Mutex::new(()),
            ipv6_prefix,
            clock,
            within,
            metrics,
        })
    }

    /// The snapshot of ranges.
    pub fn ranges(&self) -> Arc<Ranges> {
        self.ranges.load_full()
    }

    /// What decides about a client that no entry names.
    pub fn by_range(&self, address: IpAddr) -> Found {
        match self.ranges.load().longest(address) {
            Some(range) => Found {
                client: ClientKey::in_range(address, self.ipv6_prefix, range.net),
                limit: Some(range.limit),
                source: Source::Range,
                entry: Some(Arc::clone(&range.id)),
            },
            None => Found {
                client: ClientKey::group(address, self.ipv6_prefix),
                limit: **self.default.load(),
                source: Source::Default,
                entry: None,
            },
        }
    }

    /// What decides about a client, by the cache's word.
    pub fn found(&self, known: Known, address: IpAddr) -> Found {
        match known {
            Known::Entry(hit) => Found {
                client: hit.client,
                limit: Some(hit.limit),
                source: Source::Client,
                entry: Some(hit.id),
            },
            Known::Absent | Known::Unknown => self.by_range(address),
        }
    }

    /// Asks the database and keeps account of it: one that answers, be it with a refusal, is there.
    pub fn ask<T>(
        &self,
        op: StoreOp,
        question: impl FnOnce(&dyn Store) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let started = self.clock.now();
        let result = question(self.store.as_ref());
        let fault = match &result {
            Ok(_) | Err(Fault::NotFound | Fault::Exists | Fault::Full(_)) => None,
            Err(fault) => Some(fault),
        };
        let took = Duration::from_nanos(self.clock.now().saturating_sub(started));
        self.metrics.store(op, took, fault.is_none());
        match fault {
            None => self.breaker.answered(),
            // The probe's own word comes from the watch.
            Some(fault @ (Fault::Down { .. } | Fault::Schema(_))) if op != StoreOp::Probe => {
                self.breaker.suspect(&fault.to_string());
            }
            Some(fault) => log::debug!("store: {}: {fault}", op.name()),
        }
        result
    }

    /// Loads a group, on a store thread.
    pub fn load(&self, ticket: Ticket) {
        if !self.breaker.up() {
            // The database went while this waited for its turn; the ticket's drop tells those who wait for it.
            return;
        }
        let rows = self.ask(StoreOp::Load, |store| ops::load(store, self.within, ticket.network()));
        if let Ok(rows) = rows {
            ticket.finish(entries(rows));
        }
    }

    /// Writes, on the one thread that does, and puts what was committed in force before anybody is told.
    pub fn write(&self, id: &ClientId, op: Op) -> Result<(), Fault> {
        let network = id.address().map(|address| group(address, self.ipv6_prefix));
        let name = match op {
            Op::Create(_) => StoreOp::Create,
            Op::Update(_) => StoreOp::Update,
            Op::Delete => StoreOp::Delete,
        };
        match self.ask(name, |store| ops::write(store, self.within, id, op, network)) {
            Ok(written) => {
                self.apply(id, op, written, network);
                Ok(())
            }
            Err(fault) => {
                if let (Fault::Down { outcome_unknown: true, .. }, Some(network)) = (&fault, network) {
                    self.cache.doubt(network);
                    self.doubts.lock().insert(network);
                }
                Err(fault)
            }
        }
    }

    /// Whether a write's outcome is still unknown. Takes a lock for a look.
    pub fn has_doubts(&self) -> bool {
        !self.doubts.lock().is_empty()
    }

    /// Learns what became of the writes whose outcome was unknown, on the thread that writes. Such a write holds the
    /// writers' lock to its end, and the database may commit it long after its caller gave up: what is read under that
    /// lock is true, what was read before it may not have been.
    pub fn settle(&self) {
        let doubts = std::mem::take(&mut *self.doubts.lock());
        for network in doubts {
            match self.ask(StoreOp::Load, |store| ops::load_settled(store, self.within, network)) {
                Ok(rows) => self.cache.put(network, entries(rows)),
                Err(_) => {
                    self.doubts.lock().insert(network);
                }
            }
        }
    }

    /// Memory follows what was committed. The limiter hears of a new entry before the cache does: a bucket of its own
    /// then starts from the one that its client had until now.
    fn apply(&self, id: &ClientId, op: Op, written: Written, network: Option<IpNet>) {
        if let IdForm::Range(net) = id.form() {
            self.apply_range(net, &written, op);
        }
        let limit = match op {
            Op::Create(limit) | Op::Update(limit) => Some(limit),
            Op::Delete => None,
        };
        let tell = || {
            let _telling = self.telling.lock();
            let ranges = self.ranges.load();
            self.limiter.entry_changed(id, limit, self.shared(&ranges), self.clock.now());
        };
        let is_new = matches!(op, Op::Create(_));
        if is_new {
            tell();
        }
        if let Some(network) = network {
            self.cache.put(network, entries(written.group));
        }
        if !is_new {
            tell();
        }
    }

    fn shared<'a>(&self, ranges: &'a Ranges) -> Shared<'a> {
        Shared { ranges, default: **self.default.load(), ipv6_prefix: self.ipv6_prefix }
    }

    /// A range was written by this process.
    fn apply_range(&self, net: IpNet, written: &Written, op: Op) {
        let mut book = self.book.lock();
        book.writes += 1;
        let ranges = self.ranges.load();
        let next = match op {
            Op::Create(limit) | Op::Update(limit) => {
                ranges.with(range(net, limit, &written.client_id, written.version))
            }
            Op::Delete => Ok(ranges.without(net)),
        };
        match next {
            Ok(next) => self.ranges.store(Arc::new(next)),
            // The database holds the bound for all instances; only rows that came past it can lead here.
            Err(error) => log::error!("store: {error}; {} is not in force", written.client_id),
        }
    }

    /// Reads the ranges again if they have changed.
    pub fn refresh_ranges(&self) -> Result<(), Fault> {
        let (seen, writes) = {
            let book = self.book.lock();
            (book.mark, book.writes)
        };
        let read = self.ask(StoreOp::Ranges, |store| ops::ranges(store, self.within, seen))?;
        let (mark, Some(rows)) = read else { return Ok(()) };
        let list = rows.into_iter().filter_map(|row| match parsed(&row)?.form() {
            IdForm::Range(net) => Some(range(net, row.limit, &row.client_id, row.version)),
            _ => None,
        });
        let next = Arc::new(Ranges::new(list).map_err(|error| Fault::Schema(error.to_string()))?);
        let mut book = self.book.lock();
        if book.writes != writes {
            // A write came in between, and may not be in the list. The next round reads again.
            book.mark = None;
            return Ok(());
        }
        book.mark = Some(mark);
        self.ranges.store(next);
        drop(book);
        self.tell_shared();
        Ok(())
    }

    /// Another default is in force from now on, on the buckets that there are too. Takes every lock of the limiter, one
    /// after another.
    pub fn set_default(&self, default: Option<Limit>) {
        self.default.store(Arc::new(default));
        self.tell_shared();
    }

    fn tell_shared(&self) {
        let _telling = self.telling.lock();
        let ranges = self.ranges.load();
        self.limiter.shared_changed(self.shared(&ranges), self.clock.now());
    }

    /// Brings the database up: its schema, then what stays in memory.
    pub fn probe(&self, migrated: bool) -> Result<(), Fault> {
        let look = if migrated { migrate::check } else { migrate::migrate };
        self.ask(StoreOp::Probe, |store| look(store, self.within))?;
        self.refresh_ranges()
    }
}

fn range(net: IpNet, limit: Limit, client_id: &str, version: i64) -> Range {
    Range { net, limit, id: client_id.into(), version: u64::try_from(version).unwrap_or(0) }
}

/// What concerns addresses; a row that somebody wrote by hand and that is no id is left out.
fn entries(rows: Vec<Row>) -> Vec<Entry> {
    rows.iter().filter_map(|row| Entry::new(&parsed(row)?, row.limit)).collect()
}

fn parsed(row: &Row) -> Option<ClientId> {
    ClientId::parse(&row.client_id)
        .inspect_err(|fault| log::error!("store: a stored id is left out: it {fault}"))
        .ok()
}
