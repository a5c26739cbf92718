//! Passive health: which endpoints are ejected, which requests probe them, and which come back.

use std::time::Duration;

use super::picks::entries;
use super::*;
use crate::outlier::Cause;

const S: Duration = Duration::from_secs(1);

fn settings(strategy: Strategy, max_ejected: f64) -> Settings {
    let outlier =
        OutlierPolicy { consecutive: 3, ratio: None, window: nanos(10 * S), base_time: nanos(5 * S) };
    Settings { outlier: Some(outlier), max_ejected, ..Settings::of(strategy) }
}

fn of(names: &[&str], max_ejected: f64) -> (Backends, Clock) {
    let clock = Clock::manual();
    let entries = entries(names);
    let pool = Backends::new(&settings(Strategy::RoundRobin, max_ejected), &entries);
    for (entry, last) in entries.iter().zip(1..) {
        pool.resolved(entry, &[address(last)], NOW);
    }
    (pool, clock)
}

/// One request to this endpoint ends.
fn ask(pool: &Backends, clock: &Clock, endpoint: &Endpoint, failed: bool) -> Option<Ejection> {
    let snapshot = pool.snapshot();
    let others: Vec<_> =
        snapshot.endpoints().iter().map(|one| one.id).filter(|id| *id != endpoint.id).collect();
    let mut lease = snapshot.pick(&Wanted { now: clock.now(), ..wanted(&others) }).unwrap();
    snapshot.observe(&mut lease, 1, failed, clock.now())
}

fn next(pool: &Backends, clock: &Clock, may_probe: bool) -> Lease {
    pool.snapshot().pick(&Wanted { now: clock.now(), may_probe, ..wanted(&[]) }).unwrap()
}

#[test]
fn it_goes_is_probed_and_comes_back() {
    let (pool, clock) = of(&["a", "b"], 0.5);
    let [a, b]: [Arc<Endpoint>; 2] = pool.snapshot().endpoints().to_vec().try_into().unwrap();
    let only = |who: &Endpoint| (0..10).all(|_| next(&pool, &clock, true).endpoint.id == who.id);
    assert_eq!(ask(&pool, &clock, &a, true), None);
    assert_eq!(ask(&pool, &clock, &a, true), None);
    assert_eq!(ask(&pool, &clock, &a, true), Some(Ejection::Out(5 * S, Cause::Consecutive(3))));
    assert!(only(&b) && pool.any_up());

    // Its time is over. Only the next request that can be sent again probes it.
    clock.advance(5 * S);
    let cautious = next(&pool, &clock, false);
    assert_eq!(cautious.endpoint.id, b.id, "a request that can't be sent again is no probe");
    let mut probe = next(&pool, &clock, true);
    assert_eq!(probe.endpoint.id, a.id);
    assert!(only(&b));
    assert_eq!(pool.snapshot().observe(&mut probe, 1, true, clock.now()), Some(Ejection::StaysOut(10 * S)));
    drop(probe);
    assert!(only(&b));
    clock.advance(10 * S);
    // If a probe ends without a result, the next request may probe.
    drop(next(&pool, &clock, true));
    let mut probe = next(&pool, &clock, true);
    assert_eq!(probe.endpoint.id, a.id);
    assert_eq!(pool.snapshot().observe(&mut probe, 1, false, clock.now()), Some(Ejection::Back));
    drop(probe);
    assert!(!only(&b) && !only(&a));

    // If it fails again soon, it stays out for longer still. After some time without failures it starts at the base
    // time.
    let fail = || (0..3).filter_map(|_| ask(&pool, &clock, &a, true)).last();
    assert_eq!(fail(), Some(Ejection::Out(20 * S, Cause::Consecutive(3))));
    clock.advance(20 * S);
    assert_eq!(ask(&pool, &clock, &a, false), Some(Ejection::Back));
    clock.advance(60 * S);
    assert_eq!(fail(), Some(Ejection::Out(5 * S, Cause::Consecutive(3))));
}

#[test]
fn without_safe_requests_any_will_do_in_the_end() {
    let (pool, clock) = of(&["a", "b"], 0.5);
    let [a, b]: [Arc<Endpoint>; 2] = pool.snapshot().endpoints().to_vec().try_into().unwrap();
    for _ in 0..3 {
        ask(&pool, &clock, &a, true);
    }
    clock.advance(10 * S);
    assert_eq!(next(&pool, &clock, false).endpoint.id, b.id);
    clock.advance(S);
    assert_eq!(next(&pool, &clock, false).endpoint.id, a.id);
}

#[test]
fn some_always_stay_and_an_ejected_one_is_better_than_nobody() {
    let (pool, clock) = of(&["a", "b", "c"], 0.5);
    let endpoints = pool.snapshot().endpoints().to_vec();
    let gone: Vec<_> =
        endpoints.iter().flat_map(|one| (0..10).filter_map(|_| ask(&pool, &clock, one, true))).collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    pool.set_health(&endpoints[1], Status::Down, NOW);
    pool.set_health(&endpoints[2], Status::Down, NOW);
    // The only one left is used although it is ejected, and an answer brings it back before its time.
    let mut lease = next(&pool, &clock, false);
    assert_eq!(lease.endpoint.id, endpoints[0].id);
    // A failure before its time is no news.
    assert_eq!(pool.snapshot().observe(&mut lease, 1, true, clock.now()), None);
    drop(lease);
    assert_eq!(ask(&pool, &clock, &endpoints[0], false), Some(Ejection::Back));
}

/// It stays out for longer if it fails within the time for which it was out.
#[test]
fn a_relapse_is_one_within_the_time_that_it_was_out() {
    for (peace, out) in [(5 * S, 10 * S), (5 * S + Duration::from_nanos(1), 5 * S)] {
        let (pool, clock) = of(&["a", "b"], 0.5);
        let a = Arc::clone(&pool.snapshot().endpoints()[0]);
        let fail = || (0..3).filter_map(|_| ask(&pool, &clock, &a, true)).last();
        assert_eq!(fail(), Some(Ejection::Out(5 * S, Cause::Consecutive(3))));
        clock.advance(5 * S);
        assert_eq!(ask(&pool, &clock, &a, false), Some(Ejection::Back));
        clock.advance(peace);
        assert_eq!(fail(), Some(Ejection::Out(out, Cause::Consecutive(3))), "{peace:?}");
    }
}

#[test]
fn a_probe_of_one_that_the_health_checks_let_in_says_nothing() {
    for failed in [true, false] {
        let (pool, clock) = of(&["a", "b"], 0.5);
        let a = Arc::clone(&pool.snapshot().endpoints()[0]);
        for _ in 0..3 {
            ask(&pool, &clock, &a, true);
        }
        clock.advance(5 * S);
        let mut probe = next(&pool, &clock, true);
        assert!(probe.is_probe() && a.is_ejected());
        pool.set_health(&a, Status::Down, clock.now());
        pool.set_health(&a, Status::Up, clock.now());
        assert_eq!(pool.snapshot().observe(&mut probe, 1, failed, clock.now()), None, "{failed}");
        assert!(!a.is_ejected());
    }
}

#[test]
fn while_others_are_full_one_that_fails_is_left_alone() {
    let clock = Clock::manual();
    let mut entries = entries(&["a", "b"]);
    entries[1].max_in_flight = most(1);
    let pool = Backends::new(&settings(Strategy::LeastConnections, 0.5), &entries);
    replace(&pool, "a", &[address(1)]);
    replace(&pool, "b", &[address(2)]);
    let a = Arc::clone(&pool.snapshot().endpoints()[0]);
    for _ in 0..3 {
        ask(&pool, &clock, &a, true);
    }
    let held = next(&pool, &clock, true);
    assert_eq!(&*held.endpoint.backend, "b");
    let refused = pool.snapshot().pick(&Wanted { now: clock.now(), ..wanted(&[]) }).unwrap_err();
    assert_eq!(refused, Unavailable::Full);
}

#[test]
fn health_checks_that_bring_it_back_end_the_ejection() {
    let (pool, clock) = of(&["a", "b"], 0.5);
    let a = Arc::clone(&pool.snapshot().endpoints()[0]);
    for _ in 0..3 {
        ask(&pool, &clock, &a, true);
    }
    pool.set_health(&a, Status::Up, NOW);
    assert_ne!(next(&pool, &clock, true).endpoint.id, a.id, "it was up before: that is no news");
    pool.set_health(&a, Status::Down, NOW);
    pool.set_health(&a, Status::Up, NOW);
    let met: HashSet<_> = (0..4).map(|_| next(&pool, &clock, true).endpoint.id).collect();
    assert!(met.contains(&a.id));
}

/// Many threads see all endpoints fail at once. Never more than the allowed share is ejected, and if many threads see
/// an endpoint whose time is over, exactly one of them probes it.
#[test]
fn the_share_and_the_single_probe_hold_across_threads() {
    const THREADS: usize = 8;
    for _ in 0..20 {
        let (pool, clock) = of(&["a", "b", "c", "d", "e"], 0.5);
        let start = Barrier::new(THREADS);
        let gone = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for endpoint in pool.snapshot().endpoints() {
                        for _ in 0..5 {
                            if ask(&pool, &clock, endpoint, true).is_some() {
                                gone.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let out = |one: &&Arc<Endpoint>| one.standing.out(clock.now()) != outlier::Out::No;
        let snapshot = pool.snapshot();
        assert_eq!(snapshot.endpoints().iter().filter(out).count(), 2);
        clock.advance(300 * S);
        let probes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    probes.lock().push(next(&pool, &clock, true));
                });
            }
        });
        let probes = probes.into_inner();
        for endpoint in snapshot.endpoints().iter().filter(out) {
            let on = probes.iter().filter(|lease| lease.endpoint.id == endpoint.id).count();
            assert_eq!(on, 1, "{}", endpoint.backend);
        }
    }
}

#[test]
fn room_that_only_others_can_take_is_seen() {
    let clock = Clock::manual();
    let mut limited = entries(&["a", "b"]);
    limited.iter_mut().for_each(|entry| entry.max_in_flight = most(1));
    let bounded = Settings { max_in_flight: Some(2), ..settings(Strategy::RoundRobin, 0.5) };
    let pool = Backends::new(&bounded, &limited);
    for (entry, last) in limited.iter().zip(1..) {
        pool.resolved(entry, &[address(last)], NOW);
    }
    let [a, b] = pool.snapshot().endpoints().to_vec().try_into().unwrap();
    let leaves_room = |tried: &[u64], may_probe| {
        pool.snapshot().leaves_room(&Wanted { now: clock.now(), may_probe, ..wanted(tried) })
    };
    // A backend that this request has tried leaves room for others.
    assert!(leaves_room(&[a.id], true) && !leaves_room(&[], true));
    let held = pool.snapshot().pick(&Wanted { now: clock.now(), ..wanted(&[b.id]) }).unwrap();
    assert!(!leaves_room(&[a.id], true) && leaves_room(&[b.id], true));
    // An ejected endpoint has room for no request. When its time is over, it has room for one that can be sent again.
    (0..3).for_each(|_| assert!(ask(&pool, &clock, &b, true).is_none() || b.standing.is_out()));
    assert!(b.standing.is_out() && !leaves_room(&[], false) && !leaves_room(&[b.id], false));
    clock.advance(6 * S);
    assert!(leaves_room(&[], false) && !leaves_room(&[], true));
    // The pool itself is full.
    let probe = next(&pool, &clock, true);
    assert!(probe.is_probe() && !held.is_probe());
    assert!(!leaves_room(&[a.id, b.id], true));
}
