//! The limiter alone: one decision on one thread, on all cores with distinct clients, in a table of a million; what a
//! refusal costs, what sharing a budget costs, the fields of an answer, a look-up among many ranges; and what a million clients take in memory.
//!
//! `cargo bench --bench limiter`
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

use balancer_limiter::answer::{Standing, rate_limit_fields};
use balancer_limiter::bucket::Bucket;
use balancer_limiter::budget::{Budget, InstanceId, SpentReport};
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Ask, Grant, Limiter};
use balancer_limiter::ranges::{MAX_RANGES, Range, Ranges};
use balancer_limiter::terms::{BucketId, ClientLimit, Terms};
use balancer_time::{Moment, Nanos};

fn grant(limit: Limit) -> Grant {
    Grant::of_default(Terms::of_numbers(limit))
}

const USUAL: Limit = Limit { capacity: 1000, rate: Rate::per_second(500_000_000) };
const NEVER: Limit = Limit { capacity: 10, rate: Rate::per_second(0) };
const SLOW: Limit = Limit { capacity: 1, rate: Rate { micro: 7_000_000, per_secs: 86_400 } };

/// An instant, on a wall clock that stands still.
fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 1_800_000_000 }
}

fn client(number: u32) -> ClientKey {
    ClientKey::address(IpAddr::V4(Ipv4Addr::from(number)))
}

/// A table with that many clients, none of whose buckets is ever full again.
fn filled(clients: u32) -> Limiter {
    let limiter = Limiter::new(2_000_000);
    let never = grant(NEVER);
    for number in 0..clients {
        limiter.acquire(client(number), Ask::of(&never), at(1));
    }
    limiter
}

/// Decisions for `own` clients of its own on each of `threads` threads; the time of the slowest.
fn on_threads(limiter: &Limiter, threads: u32, own: u32, decisions: u64) -> Duration {
    let barrier = Barrier::new(threads as usize);
    let usual = grant(USUAL);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|number| {
                let (barrier, usual) = (&barrier, &usual);
                scope.spawn(move || {
                    barrier.wait();
                    let begun = Instant::now();
                    let mut now: Nanos = 1_000_000_000;
                    for step in 0..decisions {
                        now += 200;
                        let who = client((number << 24) + step as u32 % own);
                        black_box(limiter.acquire(who, Ask::of(usual), at(now)));
                    }
                    begun.elapsed()
                })
            })
            .collect();
        // A thread of a benchmark that panics ends it.
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default()
    })
}

fn decisions(c: &mut Criterion) {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let limiter = Limiter::new(1_000_000);
    let (usual, slow, never) = (grant(USUAL), grant(SLOW), grant(NEVER));
    let mut now = 1_000_000_000;
    c.bench_function("decision/one client", |b| {
        b.iter(|| {
            now += 200;
            black_box(limiter.acquire(client(1), Ask::of(&usual), at(now)))
        });
    });
    c.bench_function("decision/refused", |b| {
        limiter.acquire(client(2), Ask::of(&slow), at(now));
        b.iter(|| {
            now += 200;
            black_box(limiter.acquire(client(2), Ask::of(&slow), at(now)))
        });
    });
    for threads in [1, cores] {
        c.bench_function(&format!("decision/1000 clients on each of {threads} threads"), |b| {
            b.iter_custom(|count| on_threads(&limiter, threads, 1000, count));
        });
    }
    let million = filled(1_000_000);
    let mut number = 0u32;
    c.bench_function("decision/any of a million clients", |b| {
        b.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(million.acquire(client(number % 1_000_000), Ask::of(&never), at(1)))
        });
    });
    c.bench_function("decision/new client, table full", |b| {
        let full = Limiter::new(100_000);
        for number in 0..100_000 {
            full.acquire(client(number), Ask::of(&never), at(1));
        }
        b.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(full.acquire(client(number | 1 << 31), Ask::of(&never), at(1)))
        });
    });
}

/// A decision while three instances share the budget, about a quiet bucket and about a hot one of which the two others told.
fn shared(c: &mut Criterion) {
    let usual = grant(USUAL);
    let spare = grant(Limit { capacity: 1_000_000, rate: Rate::per_second(5_000_000_000_000) });
    let others = [InstanceId(2), InstanceId(3)];
    let mut now = 1_000_000_000;
    let share = |now: Nanos| {
        let limiter = Arc::new(Limiter::new(1_000_000));
        let budget = Budget::new(Arc::clone(&limiter), InstanceId(1), now);
        [InstanceId(1)].into_iter().chain(others).for_each(|from| budget.heard(from, &[], at(now)));
        (limiter, budget)
    };
    let (limiter, budget) = share(now);
    c.bench_function("decision/one client, shared, quiet", |b| {
        b.iter(|| {
            // Slower than a third of its rate.
            now += 10_000_000;
            if now % 500_000_000 == 0 {
                others.into_iter().chain([InstanceId(1)]).for_each(|from| budget.heard(from, &[], at(now)));
            }
            black_box(limiter.acquire(client(1), Ask::of(&usual), at(now)))
        });
    });
    assert_eq!(budget.stats(now).hot_buckets, 0, "it was quiet");
    let (limiter, budget) = share(now);
    c.bench_function("decision/one client, shared, hot", |b| {
        let mut step = 0u64;
        b.iter(|| {
            now += 200;
            step += 1;
            // As often as reports come, and so seldom that they cost nothing here.
            if step % 100_000 == 1 {
                let mut reports = Vec::new();
                budget.tick(at(now), &mut reports);
                let report = told(step / 100_000 + 1);
                others.into_iter().for_each(|from| budget.heard(from, &[report], at(now)));
                budget.heard(InstanceId(1), &[], at(now));
            }
            let decision = black_box(limiter.acquire(client(2), Ask::of(&spare), at(now)));
            assert!(decision.allowed);
            decision
        });
    });
    assert_eq!(budget.stats(now).hot_buckets, 1, "it was hot");
}

/// Another instance spends slowly.
fn told(spent: u64) -> SpentReport {
    SpentReport {
        client: client(2),
        bucket: BucketId::of("default"),
        of_rule: false,
        has_own_row: false,
        limit: Limit { capacity: 1_000_000, rate: Rate::per_second(5_000_000_000_000) },
        reset: None,
        episode: 1,
        spent,
        fresh: 1,
        rate_micro: 1_000_000,
    }
}

fn rules(c: &mut Criterion) {
    let mut bucket = Bucket::full(USUAL, 0);
    let mut now = 0;
    c.bench_function("bucket alone", |b| {
        b.iter(|| {
            now += 200;
            black_box(bucket.acquire(1, now))
        });
    });
    let outcome = Bucket::full(USUAL, 0).acquire(1, 1);
    let standing = Standing { policy: "default", limit: USUAL, outcome, resets: false };
    c.bench_function("fields of an answer", |b| {
        b.iter(|| black_box(rate_limit_fields(&[black_box(standing)], None)))
    });
    let limit = Arc::new(ClientLimit::of_numbers(USUAL));
    let ranges = (0..MAX_RANGES as u32).map(|number| {
        let bits = number.wrapping_mul(0x9e37_79b9);
        let address = match number % 2 {
            0 => IpAddr::V4(bits.into()),
            _ => IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 80)),
        };
        let prefix = (16 + number / 7 % if number % 2 == 0 { 17 } else { 49 }) as u8;
        let net = ipnet::IpNet::new(address, prefix).unwrap_or_else(|_| address.into());
        Range::new(net, Arc::clone(&limit), net.to_string().into(), 1)
    });
    let ranges = Ranges::new(ranges).unwrap_or_default();
    let mut number = 0u32;
    c.bench_function(&format!("longest of {} ranges", ranges.len()), |b| {
        b.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(ranges.longest(IpAddr::V4(number.into())))
        });
    });
}

/// Resident bytes of this process (proc(5), `statm`), 0 where there is no such file.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn memory(_: &mut Criterion) {
    let before = resident_bytes();
    let limiter = filled(1_000_000);
    let resident = resident_bytes().saturating_sub(before);
    println!(
        "a million clients: {} bytes each by capacities, {} resident",
        limiter.memory_bytes() / 1_000_000,
        resident / 1_000_000
    );
}

criterion_group! {
    name = limiter;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    // Memory first: what the others free would be used again, and not be seen.
    targets = memory, decisions, shared, rules
}
criterion_main!(limiter);
