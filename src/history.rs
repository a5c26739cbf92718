//! What happened within the last hour, in steps of 10 seconds: for all requests, for each pool and for each backend;
//! and the moments that explain it. A thread that calls [`History::tick`] reads it from the counters, so that requests
//! pay nothing for it.
//!
//! Its memory is bounded: a number takes 4 bytes, so a backend 9 × 360 × 4 = 13 KB, a pool 20 KB, all requests together
//! 23 KB. Beside that the counters are kept as they were at two moments, 1.1 KB a backend, whether it has a history or
//! not. With 257 pools, the most that can be configured, and [`MAX_BACKENDS`] backends it is 9 MB, with 21 backends in
//! one pool 0.3 MB.

mod marks;
mod reading;
mod ring;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::metrics::{Metrics, QueueRefusal, Reload};
use balancer_time::Nanos;

pub use marks::{BackendNow, HistoryMark, MAX_MARKS, MarkKind, backends_now};
pub use reading::{AnswerRates, BEYOND_S, BackendKey};
pub use ring::{STEP_S, STEPS};

use marks::Marks;
use reading::{AnswerCounts, CounterReading, PoolReading, grown};
use ring::Ring;

/// Most backends that have a history of their own. Others get one as soon as one of these is removed.
pub const MAX_BACKENDS: usize = 256;

const STEP_NS: Nanos = STEP_S * 1_000_000_000;

/// The metrics of every scope. Rates are per second, percentiles in seconds.
const SHARED: [&str; 9] = ["requests", "2xx", "3xx", "4xx", "5xx", "errors", "p50", "p95", "p99"];

/// More metrics for all requests: refused by a limit; answered 429 and 503, by us or by a backend; under way at the end
/// of the step; refused because every backend was full, in the order of [`QueueRefusal::ALL`].
const OF_ALL: [&str; 7] =
    ["limited", "429", "503", "in_flight", "queue_full", "queue_target", "queue_timeout"];

/// More metrics for a pool: requests in its line at the end of the step; requests that were sent again; refused as
/// above.
const OF_POOLS: [&str; 5] = ["waiting", "retries", "queue_full", "queue_target", "queue_timeout"];

/// Whose history it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryScope {
    /// All requests.
    All,
    /// Those of a pool.
    Pool(String),
    /// Those of a backend.
    Backend(BackendKey),
}

impl HistoryScope {
    /// Whether some scope has a metric of that name.
    pub fn know(metric: &str) -> bool {
        SHARED.iter().chain(&OF_ALL).chain(&OF_POOLS).any(|known| *known == metric)
    }

    /// The metrics that it has, in the order of the columns.
    pub fn metrics(&self) -> impl Iterator<Item = &'static str> {
        let own: &[&str] = match self {
            Self::All => &OF_ALL,
            Self::Pool(_) => &OF_POOLS,
            Self::Backend(_) => &[],
        };
        SHARED.iter().chain(own).copied()
    }
}

/// The values of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryColumn {
    /// When its first step began.
    pub from: Nanos,
    /// One value for each step; NaN where nothing is known.
    pub values: Vec<f32>,
}

/// What happens now: within the last 10 to 20 seconds, or since the start.
#[derive(Clone, Debug, Default)]
pub struct RecentRates {
    /// All requests.
    pub all: AnswerRates,
    /// Requests that a limit refused, a second.
    pub limited: f64,
    /// In that time: all requests, and how many of them were answered 5xx.
    pub counted: (u64, u64),
    /// The same for each backend.
    pub backends: BTreeMap<BackendKey, RecentBackend>,
}

/// [`RecentRates`] of one backend, and its counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecentBackend {
    /// Rates of attempts at it.
    pub rates: AnswerRates,
    /// In that time: attempts, and how many of them failed.
    pub counted: (u64, u64),
    /// Attempts since the start.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
}

/// See the module. Shared by the thread that ticks and those that ask.
pub struct History {
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
}

struct Kept {
    /// When the first step began.
    started: Nanos,
    all: Ring,
    pools: HashMap<String, Ring>,
    backends: HashMap<BackendKey, Ring>,
    /// At the beginning of this step, and of the one before.
    last: CounterReading,
    before: CounterReading,
    marks: Marks,
}

impl History {
    /// Begins now.
    pub fn new(metrics: Arc<Metrics>, now: Nanos) -> Self {
        let last = CounterReading::of(&metrics, now);
        let mut marks = Marks::default();
        marks.add(now, MarkKind::Start, "Balancer was started".into());
        let kept = Kept {
            started: now,
            all: Ring::new(SHARED.len() + OF_ALL.len()),
            pools: HashMap::new(),
            backends: HashMap::new(),
            before: last.clone(),
            last,
            marks,
        };
        Self { metrics, kept: Mutex::new(kept) }
    }

    /// To be called about once a second: marks what changed about backends and reloads, and ends a step when its time
    /// is over.
    pub fn tick(&self, backends: impl Iterator<Item = BackendNow>, now: Nanos) {
        let reloads = (self.metrics.reloads(Reload::Success), self.metrics.reloads(Reload::Failure));
        let mut kept = self.kept.lock();
        kept.marks.saw_reloads(now, reloads);
        kept.marks.saw_backends(now, backends);
        if now.saturating_sub(kept.started) / STEP_NS > kept.last.at.saturating_sub(kept.started) / STEP_NS {
            kept.end_step(CounterReading::of(&self.metrics, now));
        }
    }

    /// Since when a backend has the state that it has; `None` for one that no tick has seen.
    pub fn since(&self, key: &BackendKey) -> Option<Nanos> {
        self.kept.lock().marks.since(key)
    }

    /// The marks from that moment on, oldest first.
    pub fn marks(&self, from: Nanos) -> Vec<HistoryMark> {
        self.kept.lock().marks.from(from)
    }

    /// What happens now.
    pub fn recent(&self, now: Nanos) -> RecentRates {
        let live = CounterReading::of(&self.metrics, now);
        self.kept.lock().recent(&live)
    }

    /// A metric from that moment on. `None` when that pool or backend has no history, or the scope has no such metric.
    pub fn column(&self, scope: &HistoryScope, metric: &str, from: Nanos) -> Option<HistoryColumn> {
        let column = scope.metrics().position(|name| name == metric)?;
        let kept = self.kept.lock();
        let ring = match scope {
            HistoryScope::All => &kept.all,
            HistoryScope::Pool(name) => kept.pools.get(name)?,
            HistoryScope::Backend(key) => kept.backends.get(key)?,
        };
        let (first, values) = ring.column(column, from.saturating_sub(kept.started) / STEP_NS);
        Some(HistoryColumn { from: kept.started + first * STEP_NS, values })
    }

    /// No value yet, from the step on that is under way: of what is there, and has no history so far.
    pub fn nothing_yet(&self) -> HistoryColumn {
        let kept = self.kept.lock();
        let (first, values) = kept.all.column(0, u64::MAX);
        HistoryColumn { from: kept.started + first * STEP_NS, values }
    }

    /// When the last whole step of all requests began, and its values in the order of [`HistoryScope::metrics`].
    pub fn last(&self) -> Option<(Nanos, Vec<f32>)> {
        let kept = self.kept.lock();
        let (step, row) = kept.all.last()?;
        Some((kept.started + step * STEP_NS, row))
    }
}

impl Kept {
    fn end_step(&mut self, reading: CounterReading) {
        let step = (reading.at - self.started) / STEP_NS - 1;
        let seconds = secs(reading.at - self.last.at);
        let rate = |now, before| (grown(now, before) as f64 / seconds) as f32;
        let mut row = columns(&reading.all.since(&self.last.all).within(seconds));
        row.extend([
            rate(reading.limited, self.last.limited),
            rate(reading.too_many, self.last.too_many),
            rate(reading.unavailable, self.last.unavailable),
            reading.in_flight as f32,
        ]);
        let no_pool = PoolReading::default();
        let before = |name: &String| self.last.pools.get(name).unwrap_or(&no_pool);
        row.extend(QueueRefusal::ALL.iter().enumerate().map(|(place, _)| {
            let of = |(name, pool): (&String, &PoolReading)| {
                grown(pool.refused[place], before(name).refused[place])
            };
            // Each pool by itself, since a sum over the pools goes back when one of them is removed.
            rate(reading.pools.iter().map(of).sum(), 0)
        }));
        self.all.push(step, &row);
        let mut of_pools: HashMap<&str, AnswerCounts> = HashMap::new();
        self.backends.retain(|key, _| reading.backends.contains_key(key));
        self.pools.retain(|name, _| reading.pools.contains_key(name));
        let nothing = AnswerCounts::default();
        for (key, counts) in &reading.backends {
            let own = counts.since(self.last.backends.get(key).unwrap_or(&nothing));
            of_pools.entry(&key.0).or_default().add(&own);
            if self.backends.len() < MAX_BACKENDS || self.backends.contains_key(key) {
                let ring = self.backends.entry(key.clone()).or_insert_with(|| Ring::new(SHARED.len()));
                ring.push(step, &columns(&own.within(seconds)));
            }
        }
        for (name, pool) in &reading.pools {
            let own = of_pools.remove(name.as_str()).unwrap_or_default();
            let mut row = columns(&own.within(seconds));
            let before = before(name);
            row.extend([pool.waiting as f32, rate(pool.retries, before.retries)]);
            row.extend(pool.refused.iter().zip(before.refused).map(|(now, before)| rate(*now, before)));
            let new = || Ring::new(SHARED.len() + OF_POOLS.len());
            self.pools.entry(name.clone()).or_insert_with(new).push(step, &row);
        }
        self.before = std::mem::replace(&mut self.last, reading);
    }

    fn recent(&self, live: &CounterReading) -> RecentRates {
        let seconds = secs(live.at.saturating_sub(self.before.at)).max(1.0);
        let all = live.all.since(&self.before.all);
        let nothing = AnswerCounts::default();
        let of_backend = |(key, counts): (&BackendKey, &AnswerCounts)| {
            let own = counts.since(self.before.backends.get(key).unwrap_or(&nothing));
            let recent = RecentBackend {
                rates: own.within(seconds),
                counted: (own.requests(), own.errors()),
                requests: counts.requests(),
                errors: counts.errors(),
            };
            (key.clone(), recent)
        };
        RecentRates {
            all: all.within(seconds),
            limited: grown(live.limited, self.before.limited) as f64 / seconds,
            counted: (all.requests(), all.errors()),
            backends: live.backends.iter().map(of_backend).collect(),
        }
    }
}

fn secs(ns: Nanos) -> f64 {
    ns as f64 / 1e9
}

/// In the order of [`SHARED`].
fn columns(rates: &AnswerRates) -> Vec<f32> {
    let AnswerRates { requests, classes: [ok, moved, client, server], errors, p50, p95, p99 } = *rates;
    [requests, ok, moved, client, server, errors, p50, p95, p99].map(|value| value as f32).into()
}

#[cfg(test)]
mod tests;
