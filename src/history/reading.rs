//! What the counters say at one moment, and what two such readings say about the time between them.

use std::collections::BTreeMap;

use crate::metrics::{BUCKETS_NS, Family, HistogramSum, LabelPair, Metrics, QueueRefusal, SeriesValue};
use balancer_time::Nanos;

/// The name of a pool, and of a backend in it.
pub type BackendKey = (String, String);

/// Answers that were counted: those of a backend, or those of all requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AnswerCounts {
    /// By the first digit of the status, 0 to 9.
    classes: [u64; 10],
    /// Attempts at a backend without an answer; 0 for all requests.
    pub broken: u64,
    times: HistogramSum,
}

/// See the module. Counters only grow, except that a pool or backend that was removed and came back begins again at 0.
#[derive(Clone, Debug, Default)]
pub(super) struct CounterReading {
    pub at: Nanos,
    pub all: AnswerCounts,
    /// Requests that were answered 429, by us or by a backend; below it, 503.
    pub too_many: u64,
    pub unavailable: u64,
    /// Requests that the limiter refused.
    pub limited: u64,
    pub in_flight: i64,
    pub pools: BTreeMap<String, PoolReading>,
    pub backends: BTreeMap<BackendKey, AnswerCounts>,
}

/// What the counters say about one pool.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolReading {
    pub waiting: i64,
    pub retries: u64,
    /// Requests that its line refused, in the order of [`QueueRefusal::ALL`].
    pub refused: [u64; QueueRefusal::ALL.len()],
}

/// What happened between two readings, per second. Percentiles are in seconds, and NaN where there was nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerRates {
    /// Requests, or attempts at a backend.
    pub requests: f64,
    /// By the first digit of the status: 2xx, 3xx, 4xx, 5xx.
    pub classes: [f64; 4],
    /// 5xx, and attempts without an answer.
    pub errors: f64,
    /// Half of them took no longer.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

impl Default for AnswerRates {
    fn default() -> Self {
        let [p50, p95, p99] = [f64::NAN; 3];
        Self { requests: 0.0, classes: [0.0; 4], errors: 0.0, p50, p95, p99 }
    }
}

impl CounterReading {
    /// What the counters say now. Waits for nothing.
    pub fn of(metrics: &Metrics, at: Nanos) -> Self {
        let mut reading = Self { at, ..Self::default() };
        metrics.visit(&mut |family, labels, value| reading.take(family, labels, value));
        reading
    }

    /// Puts one series where it belongs; those that have no place here are left out.
    fn take(&mut self, family: Family, labels: &[LabelPair<'_>], value: SeriesValue) {
        let label = |name: &str| {
            let found = labels.iter().find(|(own, _)| *own == name);
            found.map_or("", |(_, value)| *value)
        };
        let backend = || (label("pool").to_owned(), label("backend").to_owned());
        match (family, value) {
            (Family::HttpRequests, SeriesValue::Counter(count)) => {
                let code = label("code");
                self.all.count(code, count);
                match code {
                    "429" => self.too_many += count,
                    "503" => self.unavailable += count,
                    _ => {}
                }
            }
            (Family::HttpRequestDurationSeconds, SeriesValue::Histogram(sum)) => self.all.times = sum,
            (Family::HttpRequestsInFlight, SeriesValue::Gauge(level)) => self.in_flight = level,
            (Family::RatelimitRequests, SeriesValue::Counter(count)) if label("decision") == "denied" => {
                self.limited += count;
            }
            (Family::QueueDepth, SeriesValue::Gauge(level)) => {
                self.pools.entry(label("pool").to_owned()).or_default().waiting = level;
            }
            (Family::QueueRefused, SeriesValue::Counter(count)) => {
                let reason = QueueRefusal::ALL.into_iter().position(|one| one.name() == label("reason"));
                let pool = self.pools.entry(label("pool").to_owned()).or_default();
                if let Some(place) = reason {
                    pool.refused[place] += count;
                }
            }
            (Family::BackendRetries, SeriesValue::Counter(count)) => {
                self.pools.entry(label("pool").to_owned()).or_default().retries += count;
            }
            (Family::BackendRequests, SeriesValue::Counter(count)) => {
                self.backends.entry(backend()).or_default().count(label("code"), count);
            }
            (Family::BackendRequestDurationSeconds, SeriesValue::Histogram(sum)) => {
                self.backends.entry(backend()).or_default().times = sum;
            }
            _ => {}
        }
    }
}

impl AnswerCounts {
    fn count(&mut self, code: &str, count: u64) {
        match code.bytes().next() {
            Some(digit) if digit.is_ascii_digit() => self.classes[usize::from(digit - b'0')] += count,
            _ => self.broken += count,
        }
    }

    /// Requests, or attempts at a backend.
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum::<u64>() + self.broken
    }

    /// 5xx, and attempts without an answer.
    pub fn errors(&self) -> u64 {
        self.classes[5] + self.broken
    }

    /// What was counted since an earlier reading.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            classes: std::array::from_fn(|class| grown(self.classes[class], before.classes[class])),
            broken: grown(self.broken, before.broken),
            times: times_since(&self.times, &before.times),
        }
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        self.classes.iter_mut().zip(other.classes).for_each(|(own, more)| *own += more);
        self.broken += other.broken;
        self.times.count += other.times.count;
        self.times.cumulative.iter_mut().zip(other.times.cumulative).for_each(|(own, more)| *own += more);
    }

    /// The counts as rates, if they came within so many seconds.
    pub fn within(&self, seconds: f64) -> AnswerRates {
        let rate = |count: u64| count as f64 / seconds;
        AnswerRates {
            requests: rate(self.requests()),
            classes: std::array::from_fn(|class| rate(self.classes[class + 2])),
            errors: rate(self.errors()),
            p50: quantile(&self.times, 0.5),
            p95: quantile(&self.times, 0.95),
            p99: quantile(&self.times, 0.99),
        }
    }
}

/// How much a counter grew. A counter that went back has begun again at 0.
pub(super) const fn grown(now: u64, before: u64) -> u64 {
    if now < before { now } else { now - before }
}

fn times_since(now: &HistogramSum, before: &HistogramSum) -> HistogramSum {
    if now.count < before.count {
        return now.clone();
    }
    HistogramSum {
        cumulative: std::array::from_fn(|at| now.cumulative[at].saturating_sub(before.cumulative[at])),
        count: now.count - before.count,
        sum_ns: now.sum_ns.saturating_sub(before.sum_ns),
    }
}

/// The last bound of the buckets, in seconds: a percentile of that value lies above it.
pub const BEYOND_S: u64 = BUCKETS_NS[BUCKETS_NS.len() - 1] / 1_000_000_000;

/// What a percentile within the bounds says at most.
const MOST_S: f64 = BEYOND_S as f64 - 0.001;

/// The duration in seconds that the given part (0 to 1) of all observations did not exceed, computed as Prometheus'
/// `histogram_quantile` does: evenly spread within a bucket, and the last bound ([`BEYOND_S`]) if it lies above every
/// bound, and only then. NaN without any.
fn quantile(sum: &HistogramSum, part: f64) -> f64 {
    if sum.count == 0 {
        return f64::NAN;
    }
    let rank = part * sum.count as f64;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound_ns, up_to) in BUCKETS_NS.iter().zip(sum.cumulative) {
        let (bound, up_to) = (*bound_ns as f64 / 1e9, up_to as f64);
        if up_to >= rank {
            let within = low + (bound - low) * (rank - below) / (up_to - below).max(f64::MIN_POSITIVE);
            return within.min(MOST_S);
        }
        (low, below) = (bound, up_to);
    }
    BEYOND_S as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Attempt, Decision, Policy, Retry};

    #[test]
    fn percentiles_lie_where_prometheus_puts_them() {
        // So many at or below 0.5 ms, 1 ms, 2.5 ms, …; the rest is above every bound.
        let sum = |counts: &[u64], above: u64| {
            let mut sum = HistogramSum::default();
            let mut all = 0;
            for (at, cumulative) in sum.cumulative.iter_mut().enumerate() {
                all += counts.get(at).unwrap_or(&0);
                *cumulative = all;
            }
            sum.count = all + above;
            sum
        };
        for (counts, above, part, expected) in [
            (&[10_u64][..], 0, 0.5, 0.000_25),
            (&[0, 10], 0, 0.5, 0.000_75),
            (&[50, 50], 0, 0.5, 0.000_5),
            (&[50, 50], 0, 0.99, 0.000_99),
            (&[1], 99, 0.5, 30.0),
            // Not beyond the last bound: at it.
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 1, 0.5, 29.999),
            (&[0, 0, 4], 0, 1.0, 0.002_5),
        ] {
            let found = quantile(&sum(counts, above), part);
            assert!((found - expected).abs() < 1e-9, "{counts:?} {above} {part}: {found}");
        }
        assert!(quantile(&HistogramSum::default(), 0.5).is_nan());
    }

    #[test]
    fn a_reading_has_what_was_counted_and_two_have_what_came_between() {
        let metrics = Metrics::new();
        let pool = metrics.pool("api");
        pool.set_backends(["a"].into_iter());
        let ms = Duration::from_millis;
        metrics.request("GET", 200, ms(1));
        let before = CounterReading::of(&metrics, 0);
        for status in [200, 204, 304, 404, 429, 499, 500, 503] {
            metrics.request("GET", status, ms(1));
        }
        metrics.decision(Policy::Client, Decision::Denied);
        metrics.decision(Policy::Client, Decision::ShadowDenied);
        pool.attempt("a", Attempt::Status(200), ms(1));
        pool.attempt("a", Attempt::Status(502), ms(1));
        pool.attempt("a", Attempt::Error, ms(1));
        pool.retry(Retry::Connect);
        pool.queued();
        pool.queue_refused(QueueRefusal::Target);
        std::mem::forget(metrics.begin());
        let after = CounterReading::of(&metrics, 1);
        assert_eq!((after.too_many, after.unavailable, after.limited, after.in_flight), (1, 1, 1, 1));
        let own = &after.pools["api"];
        assert_eq!((own.waiting, own.retries, own.refused), (1, 1, [0, 1, 0]));
        let rates = after.all.since(&before.all).within(2.0);
        assert_eq!((rates.requests, rates.errors, rates.classes), (4.0, 1.0, [1.0, 0.5, 1.5, 1.0]));
        let key = ("api".to_owned(), "a".to_owned());
        let own = after.backends[&key].since(&before.backends[&key]);
        assert_eq!((own.requests(), own.errors()), (3, 2));
        assert!((own.within(1.0).p50 - 0.000_75).abs() < 1e-9);
        // One that came back under the same name.
        assert_eq!(before.backends[&key].since(&after.backends[&key]), before.backends[&key]);
    }
}
