//! What is counted while requests are served. Counting takes no lock, and threads that count at the same time rarely
//! share a cache line: counters lie in shards, each thread uses one of them, and a reader adds them up.
//!
//! Some numbers are kept by another part of the program and are read from there (`app::series`): backends' health,
//! checks and requests in flight (the pool), the cache (`store::cache`), clients and overflow (the limiter),
//! connections and busy workers (the engine). Labels are bounded: never a client's id, never a path.
//!
//! Every metric is declared here, also where another part keeps its number: its name, kind and help are a line of
//! [`Family`], and nothing else can be shown.

mod door;
mod family;
mod labels;
mod pool;
mod shards;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use family::{Family, FamilyKind};
pub use labels::{
    Attempt, ConnectionState, Decision, Handshake, Http2Flood, KeyResult, Label, Policy, QueueRefusal,
    Rejection, Reload, Retry, SpanDrop, StoreOp, method_label,
};
pub use pool::PoolMetrics;
pub use shards::{BUCKETS_NS, HistogramSum};

use door::Door;
use labels::{METHODS, OTHER_METHOD, method_index};
use pool::PoolCounters;
use shards::{Codes, Gauge, Histogram, PerLabel, Shards};

/// All counters of the process. There is one, in an [`Arc`].
#[derive(Debug, Default)]
pub struct Metrics {
    hot: Shards<Arc<Hot>>,
    pools: ArcSwap<PoolCounters>,
    rejections: PerLabel<Rejection>,
    reloads: PerLabel<Reload>,
    store_durations: [Histogram; StoreOp::ALL.len()],
    store_errors: PerLabel<StoreOp>,
    panics: AtomicU64,
    spans_sent: AtomicU64,
    span_drops: PerLabel<SpanDrop>,
    door: Shards<Door>,
}

/// What nearly every request touches. Two cache lines at least, as in [`shards`]: the shards are allocated one by one.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    requests: [Codes; METHODS.len() + 1],
    durations: Histogram,
    loop_lag: Histogram,
    in_flight: Gauge,
    decisions: [PerLabel<Decision>; Policy::ALL.len()],
    keys: PerLabel<KeyResult>,
}

/// A request that is being served; counts as in flight until it is dropped. It holds its shard and not [`Metrics`],
/// whose reference count would be a cache line that all threads write.
#[derive(Debug)]
pub struct InFlight(Arc<Hot>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.add(-1);
    }
}

impl Metrics {
    /// Everything at 0.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A request's head is complete.
    pub fn begin(&self) -> InFlight {
        let hot = Arc::clone(self.hot.mine());
        hot.in_flight.add(1);
        InFlight(hot)
    }

    /// A loop has handled all events that it was told of at once, which took that long.
    pub fn loop_lag(&self, took: Duration) {
        self.hot.mine().loop_lag.observe(took);
    }

    /// A request was answered, or its client left (status 499). `duration` as in the access log.
    pub fn request(&self, method: &str, status: u16, duration: Duration) {
        let hot = self.hot.mine();
        hot.requests[method_index(method)].count(status);
        hot.durations.observe(duration);
    }

    /// A connection was not accepted, or was closed, for that reason.
    pub fn rejected(&self, reason: Rejection) {
        self.rejections.count(reason);
    }

    /// A worker panicked; its request was answered 500.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// A request showed a key.
    pub fn key(&self, result: KeyResult) {
        self.hot.mine().keys.count(result);
    }

    /// The limiter decided.
    pub fn decision(&self, policy: Policy, decision: Decision) {
        self.hot.mine().decisions[policy.place()].count(decision);
    }

    /// The store was asked; `ok`: it answered without an error.
    pub fn store(&self, op: StoreOp, duration: Duration, ok: bool) {
        self.store_durations[op.place()].observe(duration);
        if !ok {
            self.store_errors.count(op);
        }
    }

    /// A reload was asked for.
    pub fn reload(&self, result: Reload) {
        self.reloads.count(result);
    }

    /// The collector has taken so many spans.
    pub fn spans_sent(&self, spans: u64) {
        self.spans_sent.fetch_add(spans, Relaxed);
    }

    /// So many will never come to it.
    pub fn spans_dropped(&self, why: SpanDrop, spans: u64) {
        self.span_drops.add(why, spans);
    }

    /// How many reloads ended so.
    pub fn reloads(&self, result: Reload) -> u64 {
        self.reloads.get(result)
    }
}

/// The value of a series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(i64),
    /// A counter or a gauge that has fractions.
    Float(f64),
    /// A distribution of seconds.
    Histogram(HistogramSum),
}

/// Sums over all requests at one moment, for a status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were answered or whose client left.
    pub requests: u64,
    /// Requests whose answers are not delivered yet.
    pub in_flight: u64,
    /// Requests that the limiter let through, unlimited ones among them.
    pub allowed: u64,
    /// Requests that it refused.
    pub denied: u64,
}

/// A label's name and value.
pub type LabelPair<'a> = (&'static str, &'a str);

/// Shows a series: its family, labels and value.
pub type Show<'a> = dyn FnMut(Family, &[LabelPair<'_>], SeriesValue) + 'a;

impl Metrics {
    /// Shows every series, those of a family together. Series whose labels are known in advance are there from the
    /// start, at 0. Counts that other threads make meanwhile may be in some series and not yet in others.
    pub fn visit(&self, show: &mut Show<'_>) {
        self.visit_requests(show);
        self.visit_connections(show);
        self.visit_door(show);
        self.visit_pools(show);
        for policy in Policy::ALL {
            for decision in Decision::ALL {
                let total = self.hot.sum(|hot| hot.decisions[policy.place()].get(decision));
                let labels = [("policy", policy.name()), ("decision", decision.name())];
                show(Family::RatelimitRequests, &labels, SeriesValue::Counter(total));
            }
        }
        for result in KeyResult::ALL {
            let count = SeriesValue::Counter(self.hot.sum(|hot| hot.keys.get(result)));
            show(Family::RatelimitKeys, &[("result", result.name())], count);
        }
        for op in StoreOp::ALL {
            let sum = HistogramSum::of(std::iter::once(&self.store_durations[op.place()]));
            show(Family::StoreOperationDurationSeconds, &[("op", op.name())], SeriesValue::Histogram(sum));
        }
        for op in StoreOp::ALL {
            let errors = SeriesValue::Counter(self.store_errors.get(op));
            show(Family::StoreErrors, &[("op", op.name())], errors);
        }
        show(Family::OtelSpansSent, &[], SeriesValue::Counter(self.spans_sent.load(Relaxed)));
        for reason in SpanDrop::ALL {
            let spans = SeriesValue::Counter(self.span_drops.get(reason));
            show(Family::OtelSpansDropped, &[("reason", reason.name())], spans);
        }
        for result in Reload::ALL {
            let reloads = SeriesValue::Counter(self.reloads.get(result));
            show(Family::ConfigReloads, &[("result", result.name())], reloads);
        }
    }

    /// The sums of this moment.
    pub fn totals(&self) -> Totals {
        let codes = self.hot.iter().flat_map(|hot| &hot.requests);
        let decisions = |decision| {
            let of = |policy: Policy| self.hot.sum(|hot| hot.decisions[policy.place()].get(decision));
            Policy::ALL.into_iter().map(of).sum()
        };
        Totals {
            requests: Codes::sum(codes).values().sum(),
            in_flight: u64::try_from(self.hot.level(|hot| &hot.in_flight)).unwrap_or(0),
            allowed: decisions(Decision::Allowed),
            denied: decisions(Decision::Denied),
        }
    }

    fn visit_requests(&self, show: &mut Show<'_>) {
        for (index, method) in METHODS.into_iter().chain([OTHER_METHOD]).enumerate() {
            let mut codes = Codes::sum(self.hot.iter().map(|hot| &hot.requests[index]));
            if method == "GET" {
                codes.entry(200).or_insert(0);
            }
            for (code, count) in codes {
                let labels = [("method", method), ("code", &*code.to_string())];
                show(Family::HttpRequests, &labels, SeriesValue::Counter(count));
            }
        }
        let durations = HistogramSum::of(self.hot.iter().map(|hot| &hot.durations));
        show(Family::HttpRequestDurationSeconds, &[], SeriesValue::Histogram(durations));
        let lag = HistogramSum::of(self.hot.iter().map(|hot| &hot.loop_lag));
        show(Family::LoopLagSeconds, &[], SeriesValue::Histogram(lag));
        let in_flight = self.hot.level(|hot| &hot.in_flight);
        show(Family::HttpRequestsInFlight, &[], SeriesValue::Gauge(in_flight));
        show(Family::Panics, &[], SeriesValue::Counter(self.panics.load(Relaxed)));
    }

    fn visit_connections(&self, show: &mut Show<'_>) {
        for reason in Rejection::ALL {
            let count = SeriesValue::Counter(self.rejections.get(reason));
            show(Family::ConnectionsRejected, &[("reason", reason.name())], count);
        }
    }
}
