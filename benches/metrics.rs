//! What counting costs: everything that one proxied request counts, on one thread and on all cores at once. Beside a
//! request's CPU time (docs/measuring.md) it is the share that metrics take.
//!
//!     cargo bench --bench metrics

#![forbid(unsafe_code)]
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use balancer::metrics::{Attempt, Decision, Metrics, Policy, PoolMetrics};
use criterion::{Criterion, criterion_group, criterion_main};

fn metrics() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let pool = metrics.pool("default");
    pool.set_backends(["a", "b"].into_iter());
    metrics
}

/// What `admit`, `forward` and the end of a request count.
fn one_request(metrics: &Arc<Metrics>, pool: &PoolMetrics, took: Duration) {
    let in_flight = metrics.begin();
    metrics.decision(Policy::Default, Decision::Allowed);
    pool.attempt("a", Attempt::Status(200), took);
    metrics.request("GET", 200, took);
    drop(in_flight);
}

fn counting(c: &mut Criterion) {
    let metrics = metrics();
    let pool = metrics.pool("default");
    let took = black_box(Duration::from_micros(730));
    c.bench_function("all counters of a request, one thread", |b| {
        b.iter(|| one_request(&metrics, &pool, took))
    });

    // The others count all the time while this one is measured.
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let others: Vec<_> = (1..cores)
        .map(|_| {
            let (metrics, pool, stop) = (Arc::clone(&metrics), Arc::clone(&pool), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    one_request(&metrics, &pool, took);
                }
            })
        })
        .collect();
    c.bench_function("all counters of a request, every core", |b| {
        b.iter(|| one_request(&metrics, &pool, took))
    });
    stop.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

criterion_group!(benches, counting);
criterion_main!(benches);
