use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use super::lease::{LeaseTerms, Refused};
use super::*;
use crate::backend::InFlightBound;
use balancer_time::nanos;

mod bounds;
mod ejections;
mod measured;
mod picks;
mod reconfigured;
mod tiers;
mod told;

/// The time at which the tests begin.
const NOW: Nanos = 3_600_000_000_000;

/// A clock that moves only when a test moves it. Clones share its time.
#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn manual() -> Self {
        Self(Arc::new(AtomicU64::new(NOW)))
    }

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(nanos(by), Ordering::Relaxed);
    }
}

/// A bound on a backend's requests at once.
fn most(number: u32) -> Option<InFlightBound> {
    Some(InFlightBound::Number(number))
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 9000))
}

/// Backends `a`, `b`, … of these weights, each with the address `127.0.0.(index + 1)`.
fn pool(strategy: Strategy, weights: &[u32]) -> Backends {
    let entries: Vec<_> = weights
        .iter()
        .zip(b'a'..)
        .map(|(weight, name)| BackendEntry {
            weight: *weight,
            ..BackendEntry::new(&char::from(name).to_string(), "backend.test", 9000)
        })
        .collect();
    of_entries(strategy, &entries, NOW)
}

fn of_entries(strategy: Strategy, entries: &[BackendEntry], now: Nanos) -> Backends {
    let pool = Backends::new(&Settings::of(strategy), entries);
    for (entry, last) in entries.iter().zip(1..) {
        let change = pool.resolved(entry, &[address(last)], now);
        assert_eq!(change, AddressChange { added: vec![address(last)], ..AddressChange::default() });
    }
    pool
}

const STRATEGIES: [Strategy; 6] = [
    Strategy::LeastConnections,
    Strategy::RoundRobin,
    Strategy::RandomTwo,
    Strategy::PeakEwma,
    Strategy::Hash,
    Strategy::First,
];

fn wanted(tried: &[u64]) -> Wanted<'_> {
    Wanted { tried, key: fastrand::u64(..), now: NOW, may_probe: true, preferred: &[], bound_to: None }
}

/// Sets the addresses of the backend with this name.
fn replace(pool: &Backends, backend: &str, addresses: &[SocketAddr]) -> AddressChange {
    pool.resolved(&BackendEntry::new(backend, "backend.test", 9000), addresses, NOW)
}

/// Picks from the pool's current snapshot.
fn pick(pool: &Backends, tried: &[u64]) -> Option<Lease> {
    pool.snapshot().pick(&wanted(tried)).ok()
}

fn names(pool: &Backends) -> Vec<(String, SocketAddr)> {
    let snapshot = pool.snapshot();
    snapshot.endpoints().iter().map(|one| (one.backend.to_string(), one.address)).collect()
}

#[test]
fn a_retry_goes_to_another_endpoint_and_the_last_one_has_no_other() {
    for strategy in STRATEGIES {
        let pool = pool(strategy, &[1, 1, 1]);
        let snapshot = pool.snapshot();
        let mut tried = Vec::new();
        while let Ok(lease) = snapshot.pick(&wanted(&tried)) {
            assert!(!tried.contains(&lease.endpoint.id), "{strategy:?}");
            tried.push(lease.endpoint.id);
        }
        assert_eq!(tried.len(), 3, "{strategy:?}");
    }
}

#[test]
fn only_who_may_be_used_is_picked() {
    for strategy in STRATEGIES {
        let pool = pool(strategy, &[1, 1]);
        let snapshot = pool.snapshot();
        let [a, b] = snapshot.endpoints() else { panic!("two endpoints") };
        let picked = || pick(&pool, &[]).map(|lease| lease.endpoint.backend.to_string());
        let only = |name: &str| (0..20).all(|_| picked().as_deref() == Some(name));

        pool.set_health(a, Status::Down, NOW);
        assert!(only("b"));
        // An endpoint that was never checked is used only when no other is known to be up.
        pool.set_health(a, Status::Unknown, NOW);
        assert!(only("b"));
        pool.set_health(b, Status::Down, NOW);
        assert!(only("a") && pool.any_up());
        pool.set_health(a, Status::Down, NOW);
        assert!(picked().is_none() && !pool.any_up());

        pool.set_health(a, Status::Up, NOW);
        pool.set_health(b, Status::Up, NOW);
        for out in [Operator::Drain, Operator::Down] {
            a.group.set_operator(out);
            assert_eq!(a.group.operator(), out);
            assert!(only("b"));
        }
        b.group.set_operator(Operator::Drain);
        assert!(picked().is_none() && !pool.any_up());
        a.group.set_operator(Operator::Up);
        assert!(only("a"));
    }
}

#[test]
fn weight_zero_gets_nothing_and_weights_are_kept() {
    for strategy in STRATEGIES.into_iter().filter(|one| *one != Strategy::First) {
        fastrand::seed(1);
        let pool = pool(strategy, &[0, 1, 4]);
        let mut picks: HashMap<String, u32> = HashMap::new();
        for _ in 0..10_000 {
            let lease = pick(&pool, &[]).unwrap();
            *picks.entry(lease.endpoint.backend.to_string()).or_default() += 1;
        }
        assert_eq!(picks.len(), 2, "{strategy:?} {picks:?}");
        assert!(picks["b"].abs_diff(2_000) < 120, "{strategy:?} {picks:?}");
    }
    assert!(pick(&pool(Strategy::RoundRobin, &[0]), &[]).is_none());
}

#[test]
fn held_requests_are_spread_by_weight() {
    let pool = pool(Strategy::LeastConnections, &[1, 3]);
    let held: Vec<_> = (0..40).filter_map(|_| pick(&pool, &[])).collect();
    let snapshot = pool.snapshot();
    let counts: Vec<_> = snapshot.endpoints().iter().map(|one| one.in_flight()).collect();
    assert_eq!(counts, [10, 30]);
    assert_eq!(snapshot.endpoints()[1].group.in_flight(), 30);
    drop(held);
    assert!(snapshot.endpoints().iter().all(|one| one.in_flight() == 0 && one.group.in_flight() == 0));
}

#[test]
fn endpoints_that_stay_are_carried_over_and_others_are_not() {
    let pool = pool(Strategy::RoundRobin, &[1, 1]);
    let before = pool.snapshot();
    let kept = Arc::clone(&before.endpoints()[0]);
    let lease = before.pick(&wanted(&[before.endpoints()[1].id])).unwrap();
    pool.set_health(&kept, Status::Down, NOW);

    let change = replace(&pool, "a", &[address(9), address(1), address(1)]);
    assert_eq!(change, AddressChange { added: vec![address(9)], ..AddressChange::default() });
    assert_eq!(names(&pool), [("a".into(), address(1)), ("a".into(), address(9)), ("b".into(), address(2))]);
    let after = pool.snapshot();
    assert!(Arc::ptr_eq(&kept, &after.endpoints()[0]));
    assert_eq!((kept.in_flight(), kept.health()), (1, Status::Down));

    // The same addresses again make no change and no new snapshot.
    assert_eq!(replace(&pool, "a", &[address(1), address(9)]), AddressChange::default());
    assert!(Arc::ptr_eq(&after, &pool.snapshot()));

    let change = replace(&pool, "a", &[address(9)]);
    assert_eq!(change, AddressChange { removed: vec![address(1)], ..AddressChange::default() });
    // It has left the pool, and its request is counted until it ends. When the address comes back, it is a new
    // endpoint.
    assert_eq!((kept.in_flight(), kept.group.in_flight()), (1, 1));
    drop(lease);
    assert_eq!((kept.in_flight(), kept.group.in_flight()), (0, 0));
    replace(&pool, "a", &[address(1)]);
    assert_ne!(pool.snapshot().endpoints()[0].id, kept.id);

    assert_eq!(replace(&pool, "nobody", &[address(3)]), AddressChange::default());
    replace(&pool, "a", &[]);
    assert_eq!(names(&pool), [("b".into(), address(2))]);
}

#[test]
fn the_pool_is_bounded_and_keeps_whom_it_has() {
    let pool = pool(Strategy::LeastConnections, &[1, 1]);
    let many: Vec<_> = (0..MAX_ENDPOINTS)
        .map(|index| SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 80)))
        .collect();
    let change = replace(&pool, "b", &many);
    assert_eq!((change.added.len(), change.removed.len(), change.left_out), (MAX_ENDPOINTS - 1, 1, 1));
    assert_eq!(pool.snapshot().endpoints().len(), MAX_ENDPOINTS);
    let change = replace(&pool, "a", &[address(1), address(0)]);
    assert_eq!(change, AddressChange { left_out: 1, ..AddressChange::default() });
    assert_eq!(names(&pool)[0], ("a".into(), address(1)));
}

#[test]
fn listeners_hear_of_every_change_and_only_once() {
    let pool = pool(Strategy::LeastConnections, &[1]);
    let changes = pool.changes();
    assert!(changes.try_recv().is_ok(), "what was before counts as a change");
    assert!(changes.try_recv().is_err());
    replace(&pool, "a", &[address(2)]);
    pool.set_health(&pool.snapshot().endpoints()[0], Status::Down, NOW);
    assert!(changes.try_recv().is_ok());
    assert!(changes.try_recv().is_err());
    drop(changes);
    replace(&pool, "a", &[address(3)]);
    assert!(pool.listeners.0.lock().is_empty());
}

/// Many threads take leases, hold a few and give them back, while addresses come and go. No thread gets an endpoint
/// that its snapshot does not hold, and at the end every count is zero.
#[test]
fn leases_return_to_zero_while_snapshots_are_swapped() {
    const THREADS: usize = 8;
    const ROUNDS: u32 = 2_000;
    const SWAPS: u32 = 100;
    for strategy in STRATEGIES {
        let pool = pool(strategy, &[1, 2, 3]);
        let first = pool.snapshot();
        let start = Barrier::new(THREADS + 1);
        let (done, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
        let seen = Mutex::new(HashMap::new());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let mut held = Vec::new();
                        for round in 0.. {
                            if round >= ROUNDS && swaps.load(Ordering::Relaxed) >= SWAPS {
                                break;
                            }
                            let snapshot = pool.snapshot();
                            let lease = snapshot.pick(&wanted(&[])).unwrap();
                            assert!(snapshot.endpoints().iter().any(|one| one.id == lease.endpoint.id));
                            seen.lock().insert(lease.endpoint.id, Arc::clone(&lease.endpoint));
                            held.push(lease);
                            if round % 3 == 0 {
                                held.clear();
                            }
                        }
                    })
                })
                .collect();
            let swapper = scope.spawn(|| {
                start.wait();
                while !done.load(Ordering::Relaxed) {
                    let turn = swaps.fetch_add(1, Ordering::Relaxed) % 50;
                    replace(&pool, "b", &[address(100 + turn as u8), address(2)]);
                }
            });
            let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            // Before anything is said of them: a worker that failed must not leave the swapper at it for ever.
            done.store(true, Ordering::Relaxed);
            swapper.join().unwrap();
            ended.into_iter().for_each(|worker| worker.unwrap());
        });
        for (last, before) in first.endpoints().iter().enumerate() {
            let now = pool.snapshot();
            let same = now.endpoints().iter().find(|one| one.address == address(last as u8 + 1)).unwrap();
            assert!(Arc::ptr_eq(before, same), "carried over through every swap");
        }
        let seen = seen.into_inner();
        assert!(seen.len() > 3 || strategy == Strategy::First, "{strategy:?} met only {}", seen.len());
        assert!(seen.values().all(|one| one.in_flight() == 0 && one.group.in_flight() == 0));
    }
}

/// Of a pool without bounds of its own.
fn terms(seen: Option<u32>) -> LeaseTerms<'static> {
    LeaseTerms { seen, most_workers: u32::MAX, share: u32::MAX, total: None, as_probe: false, now: NOW }
}

/// If two requests decided on the same count, only one gets its lease. The other has to decide again.
#[test]
fn a_count_is_taken_only_as_it_was_seen() {
    let endpoint = Endpoint::alone("a", address(1));
    let take_at = |seen| Lease::take(&endpoint, terms(Some(seen)));
    let first = take_at(0).unwrap();
    assert_eq!(take_at(0).unwrap_err(), Refused::Moved);
    let second = take_at(1).unwrap();
    assert_eq!((endpoint.in_flight(), endpoint.group.in_flight()), (2, 2));
    drop((first, second));
    assert_eq!((endpoint.in_flight(), endpoint.group.in_flight()), (0, 0));
}

/// Requests of many threads at the same time are spread as well as those of one: no thread decides on an old count.
#[test]
fn a_burst_does_not_pile_up_on_one() {
    const THREADS: usize = 16;
    for _ in 0..50 {
        let pool = pool(Strategy::LeastConnections, &[1, 1, 1, 1]);
        let start = Barrier::new(THREADS);
        let leases = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    leases.lock().push(pick(&pool, &[]).unwrap());
                });
            }
        });
        let counts: Vec<_> = pool.snapshot().endpoints().iter().map(|one| one.in_flight()).collect();
        assert_eq!(counts.iter().sum::<u32>(), 16);
        // A count may change while a thread reads the others, so a few may differ, but never sixteen go to one.
        assert!(counts.iter().all(|count| (2..=6).contains(count)), "{counts:?}");
    }
}

/// Round robin keeps its shares exactly when many threads pick.
#[test]
fn turns_are_exact_across_threads() {
    let pool = pool(Strategy::RoundRobin, &[1, 3]);
    let start = Barrier::new(8);
    let counts = Mutex::new(HashMap::<String, u32>::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..500 {
                    let lease = pick(&pool, &[]).unwrap();
                    *counts.lock().entry(lease.endpoint.backend.to_string()).or_default() += 1;
                }
            });
        }
    });
    assert_eq!(counts.into_inner(), HashMap::from([("a".to_owned(), 1_000), ("b".to_owned(), 3_000)]));
}

/// No two endpoints ever share an id, not even those of two pools.
#[test]
fn ids_are_never_used_again() {
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let pool = pool(Strategy::RoundRobin, &[1, 1]);
        for last in 0..20 {
            replace(&pool, "a", &[address(last + 50)]);
            ids.extend(pool.snapshot().endpoints().iter().map(|one| one.id));
        }
    }
    assert_eq!(ids.len(), 3 * 21);
}
