//! What a request costs in its pool while nobody waits: the pick, the lease, and what a line is told of both, by the order of
//! the line and with and without a bound.
//!
//!     cargo bench --bench lease

#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use balancer_importance::Priority;
use balancer_pool::backend::{BackendEntry, InFlightBound};
use balancer_pool::backends::{Backends, Settings, Wanted};
use balancer_pool::fair::Who;
use balancer_pool::policy::PoolPolicy;
use balancer_pool::queue::{QueueOrder, QueuePolicy};
use balancer_pool::strategy::Strategy;
use criterion::{Criterion, criterion_group, criterion_main};

/// Three backends of one address each.
fn pool(order: QueueOrder, bound: Option<u32>) -> Backends {
    let mut entries = ["a", "b", "c"].map(|name| BackendEntry::new(name, "127.0.0.1", 80));
    for (entry, port) in entries.iter_mut().zip(9001..) {
        (entry.port, entry.max_in_flight) = (port, bound.map(InFlightBound::Number));
    }
    let queue = QueuePolicy { order, size: 1024, target: Some(500_000_000) };
    let policy = Arc::new(PoolPolicy { queue, ..PoolPolicy::default() });
    let pool = Backends::new(&Settings { policy, ..Settings::of(Strategy::LeastConnections) }, &entries);
    for entry in &entries {
        pool.resolved(entry, &[format!("127.0.0.1:{}", entry.port).parse().expect("an address")], 0);
    }
    pool
}

/// As the proxy does for each request.
fn request(pool: &Backends, client: u64, now: u64) {
    let snapshot = pool.snapshot();
    assert!(pool.queue().is_empty());
    let wanted = Wanted { tried: &[], key: 0, now, may_probe: true, preferred: &[], bound_to: None };
    let mut lease = snapshot.pick(&wanted).expect("room");
    if lease.is_of_few() && snapshot.policy().queue.order == QueueOrder::Fair {
        let who = Who { client, priority: Priority::Normal };
        lease.came_by(pool.queue().went_straight(who), now);
    }
    black_box(&lease);
    lease.end(now + 1);
}

fn leases(c: &mut Criterion) {
    let rows = [
        ("no bound", QueueOrder::Fair, None, 0),
        ("bound, fifo", QueueOrder::Fifo, Some(64), 0),
        ("bound, fair", QueueOrder::Fair, Some(64), 0),
        ("half of it taken, fifo", QueueOrder::Fifo, Some(64), 99),
        ("half of it taken, fair", QueueOrder::Fair, Some(64), 99),
    ];
    for (name, order, bound, taken) in rows {
        let pool = pool(order, bound);
        let wanted = Wanted { tried: &[], key: 0, now: 1, may_probe: true, preferred: &[], bound_to: None };
        let _taken: Vec<_> = (0..taken).map(|_| pool.snapshot().pick(&wanted).expect("room")).collect();
        let mut client = 0;
        c.bench_function(&format!("pick and lease, {name}"), |b| {
            b.iter(|| {
                // A thousand clients, each in a slot of its own.
                client = (client + 1) % 1000;
                request(&pool, black_box(client), 1);
            });
        });
    }
}

criterion_group!(benches, leases);
criterion_main!(benches);
