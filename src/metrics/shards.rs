//! Counters that many threads raise at once: each thread counts in a shard, and a reader adds the shards up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::time::Duration;

use super::labels::Label;
use balancer_time::nanos;

/// How many shards there are. Threads take them in turn, so that from the ninth thread on some share one: their counts
/// stay right, but two cores may then wait for the same cache line.
const SHARDS: usize = 8;

/// Aligned to two cache lines, since processors fetch neighbouring lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A `T` for each shard.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[Padded<T>]>);

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The shard of the calling thread.
    pub(super) fn mine(&self) -> &T {
        &self.0[shard() % self.0.len()].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }

    pub(super) fn sum(&self, counter: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(counter).fold(0, u64::wrapping_add)
    }

    /// A gauge's level. One thread may raise what another lowers, so only the sum over all shards means something.
    pub(super) fn level(&self, gauge: impl Fn(&T) -> &Gauge) -> i64 {
        self.iter().map(|shard| gauge(shard).0.load(Relaxed)).fold(0, i64::wrapping_add)
    }
}

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<Option<usize>> = const { Cell::new(None) });
    MINE.get().unwrap_or_else(|| {
        let mine = NEXT.fetch_add(1, Relaxed) % SHARDS;
        MINE.set(Some(mine));
        mine
    })
}

/// A shard's part of a gauge.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn add(&self, change: i64) {
        self.0.fetch_add(change, Relaxed);
    }
}

/// Most values of a label that [`PerLabel`] has room for.
const MAX_VALUES: usize = 12;

/// A counter for each value of a label.
#[derive(Debug)]
pub(super) struct PerLabel<L>([AtomicU64; MAX_VALUES], PhantomData<L>);

impl<L: Label> Default for PerLabel<L> {
    fn default() -> Self {
        const { assert!(L::VALUES.len() <= MAX_VALUES) };
        Self(Default::default(), PhantomData)
    }
}

impl<L: Label> PerLabel<L> {
    pub(super) fn count(&self, label: L) {
        self.add(label, 1);
    }

    pub(super) fn add(&self, label: L, count: u64) {
        self.0[label.place()].fetch_add(count, Relaxed);
    }

    pub(super) fn get(&self, label: L) -> u64 {
        self.0[label.place()].load(Relaxed)
    }
}

/// How many status codes a class has.
const CLASS: usize = 100;

/// A counter for each status code. A class takes its memory when its first code is counted.
#[derive(Debug, Default)]
pub(super) struct Codes([OnceLock<Box<[AtomicU64; CLASS]>>; 10]);

impl Codes {
    /// Counts a status; one of more than three digits as 999.
    pub(super) fn count(&self, status: u16) {
        let status = usize::from(status).min(10 * CLASS - 1);
        let class = self.0[status / CLASS].get_or_init(|| Box::new([const { AtomicU64::new(0) }; CLASS]));
        class[status % CLASS].fetch_add(1, Relaxed);
    }

    /// The sums over all of them, without codes that were never counted.
    pub(super) fn sum<'a>(codes: impl Iterator<Item = &'a Self>) -> BTreeMap<usize, u64> {
        let mut sum = BTreeMap::new();
        for shard in codes {
            for (class, counters) in shard.0.iter().enumerate() {
                let counters = counters.get().into_iter().flat_map(|counters| counters.iter().enumerate());
                for (code, counter) in counters {
                    let count = counter.load(Relaxed);
                    if count > 0 {
                        *sum.entry(class * CLASS + code).or_insert(0) += count;
                    }
                }
            }
        }
        sum
    }
}

/// Upper bounds of the buckets, inclusive, in nanoseconds; `/metrics` shows them in seconds.
pub const BUCKETS_NS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// A distribution of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// For each bucket by itself; the last is for durations above every bound.
    counts: [AtomicU64; BUCKETS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let ns = nanos(duration);
        self.counts[BUCKETS_NS.partition_point(|bound| *bound < ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }
}

/// A histogram at one moment, with cumulative buckets as Prometheus wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// How many observations are at most each bound of [`BUCKETS_NS`].
    pub cumulative: [u64; BUCKETS_NS.len()],
    /// All observations.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

impl HistogramSum {
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut sum = Self::default();
        let mut counts = [0_u64; BUCKETS_NS.len() + 1];
        for part in parts {
            for (total, count) in counts.iter_mut().zip(&part.counts) {
                *total += count.load(Relaxed);
            }
            sum.sum_ns = sum.sum_ns.wrapping_add(part.sum_ns.load(Relaxed));
        }
        for (cumulative, count) in sum.cumulative.iter_mut().zip(&counts) {
            sum.count += count;
            *cumulative = sum.count;
        }
        sum.count += counts[BUCKETS_NS.len()];
        sum
    }
}
