//! Bounds on requests at once.

use super::picks::entries;
use super::*;
use crate::outlier::OutlierPolicy;
use crate::policy::PoolPolicy;
use crate::queue::tests::{member, real_time};
use crate::queue::{LineStanding, QueuePolicy};

fn of(settings: &Settings, entries: &[BackendEntry]) -> Backends {
    let pool = Backends::new(settings, entries);
    for (entry, last) in entries.iter().zip(1..) {
        pool.resolved(entry, &[address(last)], NOW);
    }
    pool
}

/// With a line that has no bound.
fn queued(max_in_flight: Option<u32>, workers: Option<u32>, strategy: Strategy) -> Settings {
    let queue = QueuePolicy { size: usize::MAX, ..QueuePolicy::default() };
    let policy = Arc::new(PoolPolicy { queue, ..PoolPolicy::default() });
    Settings { max_in_flight, workers, policy, ..Settings::of(strategy) }
}

fn full(pool: &Backends) -> Unavailable {
    pool.snapshot().pick(&wanted(&[])).unwrap_err()
}

#[test]
fn a_full_backend_is_passed_over_and_full_is_not_nobody() {
    for strategy in STRATEGIES {
        let mut entries = entries(&["a", "b", "c"]);
        (entries[0].max_in_flight, entries[1].max_in_flight) = (most(2), most(3));
        entries[2].max_in_flight = most(1);
        entries[2].backup = true;
        let pool = of(&Settings::of(strategy), &entries);
        // The bound is for all of its addresses together.
        replace(&pool, "a", &[address(1), address(11)]);
        let mut held: Vec<_> = (0..6).map(|_| pick(&pool, &[]).unwrap()).collect();
        let count = |name: &str| held.iter().filter(|lease| &*lease.endpoint.backend == name).count();
        assert_eq!((count("a"), count("b"), count("c")), (2, 3, 1), "{strategy:?}");
        assert_eq!(
            held.last().unwrap().endpoint.backend.as_ref(),
            "c",
            "the backup when all others are full"
        );
        assert_eq!(full(&pool), Unavailable::Full, "{strategy:?}");
        drop(held.swap_remove(0));
        assert!(pick(&pool, &[]).is_some());
        // If the request has tried all of them, the pool is not full: there is no endpoint left for it.
        drop(held);
        let ids: Vec<_> = pool.snapshot().endpoints().iter().map(|one| one.id).collect();
        assert_eq!(pool.snapshot().pick(&wanted(&ids)).unwrap_err(), Unavailable::Nobody);
    }
}

#[test]
fn the_whole_pool_has_a_bound_too() {
    for strategy in STRATEGIES {
        let settings = Settings { max_in_flight: Some(4), ..Settings::of(strategy) };
        let pool = of(&settings, &entries(&["a", "b"]));
        let held: Vec<_> = (0..4).map(|_| pick(&pool, &[]).unwrap()).collect();
        assert_eq!(full(&pool), Unavailable::Full);
        drop(held);
        assert!(pick(&pool, &[]).is_some());
        let counts = |one: &Arc<Endpoint>| (one.in_flight(), one.group.in_flight(), one.group.calling());
        assert!(pool.snapshot().endpoints().iter().all(|one| counts(one) == (0, 0, 0)));
    }
}

#[test]
fn places_are_few_from_their_half_on() {
    // The backend's bound, the pool's, and the first request that holds one of few places.
    for (own, of_all, first) in [
        (None, None, None),
        (Some(1), None, Some(1)),
        (Some(4), None, Some(2)),
        (Some(5), None, Some(3)),
        (None, Some(4), Some(2)),
        (Some(100), Some(6), Some(3)),
    ] {
        let [mut entry] = entries(&["a"]).try_into().expect("one");
        entry.max_in_flight = own.and_then(most);
        let pool = of(&Settings { max_in_flight: of_all, ..Settings::of(Strategy::First) }, &[entry]);
        let mut held = Vec::new();
        let places = own.unwrap_or(8).min(of_all.unwrap_or(8));
        for number in 1..=places {
            held.push(pick(&pool, &[]).unwrap());
            let is_of_few = held.last().unwrap().is_of_few();
            assert_eq!(is_of_few, first.is_some_and(|first| number >= first), "{own:?} {of_all:?} {number}");
        }
    }
}

#[test]
fn one_backend_holds_three_quarters_of_the_workers_while_there_is_another() {
    for (workers, share) in [(8, 6), (256, 192), (3, 2), (1, 1), (u32::MAX, 3_221_225_471)] {
        let settings = Settings { workers: Some(workers), ..Settings::of(Strategy::First) };
        assert_eq!(settings.picker(None).most_workers, share);
    }
    let settings = Settings { workers: Some(8), ..Settings::of(Strategy::First) };
    let pool = of(&settings, &entries(&["a", "b"]));
    let [a, b] = pool.snapshot().endpoints().to_vec().try_into().unwrap();
    let mut held: Vec<_> = (0..8).map(|_| pick(&pool, &[]).unwrap()).collect();
    assert_eq!((a.in_flight(), b.in_flight()), (6, 2));
    assert!(held.iter().all(|lease| !lease.is_of_few()), "workers are no places that somebody has");
    // From the head of the answer on the worker is not counted, and the request still is.
    held[0].free_worker();
    held[0].free_worker();
    assert_eq!((a.group.calling(), a.in_flight()), (5, 6));
    held.push(pick(&pool, &[]).unwrap());
    assert_eq!((a.group.calling(), a.in_flight(), b.in_flight()), (6, 7, 2));
    // If it is the only backend that can be used, it may have all workers.
    pool.set_health(&b, Status::Down, NOW);
    held.extend((0..4).map(|_| pick(&pool, &[]).unwrap()));
    assert_eq!((a.group.calling(), a.in_flight()), (10, 11));
    drop(held);
    assert_eq!((a.group.calling(), a.in_flight()), (0, 0));
}

/// To take a place and give it back would look like room to whoever waits.
#[test]
fn what_a_client_prefers_in_a_full_pool_gives_nobody_a_turn() {
    let sticky = Some(SigningKey::new(b"0123456789abcdef"));
    let pool = of(&Settings { sticky, ..queued(Some(1), None, Strategy::First) }, &entries(&["a"]));
    let _held = pick(&pool, &[]).unwrap();
    let mut place = pool.queue().join(member(1, 0), 0).unwrap();
    assert!(place.standing() == LineStanding::Trying && place.sleep(false, 0));
    let snapshot = pool.snapshot();
    let endpoint = &snapshot.endpoints()[0];
    let sent = endpoint.token().unwrap();
    let by_cookie = Wanted { preferred: &[sent.as_str().as_bytes()], ..wanted(&[]) };
    let by_connection = Wanted { bound_to: Some(endpoint.id), ..wanted(&[]) };
    for wanted in [by_cookie, by_connection] {
        assert_eq!(snapshot.pick(&wanted).unwrap_err(), Unavailable::Full);
        assert_eq!(place.standing(), LineStanding::Asleep);
    }
}

/// Many threads take leases at the same time, and no bound is ever exceeded.
#[test]
fn bounds_hold_across_threads() {
    const THREADS: usize = 8;
    for strategy in STRATEGIES {
        let mut entries = entries(&["a", "b"]);
        (entries[0].max_in_flight, entries[1].max_in_flight) = (most(2), most(3));
        let settings = Settings { max_in_flight: Some(4), ..Settings::of(strategy) };
        let pool = of(&settings, &entries);
        let start = Barrier::new(THREADS);
        let refused = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let snapshot = pool.snapshot();
                    let [a, b] = snapshot.endpoints() else { panic!("two endpoints") };
                    start.wait();
                    for round in 0..2_000 {
                        match snapshot.pick(&wanted(&[])) {
                            Ok(lease) => {
                                assert!(a.group.in_flight() <= 2 && b.group.in_flight() <= 3);
                                if round % 7 == 0 {
                                    thread::yield_now();
                                }
                                drop(lease);
                            }
                            Err(why) => {
                                assert_eq!(why, Unavailable::Full);
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        for one in pool.snapshot().endpoints() {
            assert_eq!((one.in_flight(), one.group.in_flight(), one.group.calling()), (0, 0, 0));
        }
        let held: Vec<_> = (0..5).filter_map(|_| pick(&pool, &[])).collect();
        assert_eq!(held.len(), 4, "{strategy:?}: exactly the pool's bound, {refused:?} refused before");
    }
}

/// No thread sleeps in line while there is room, whichever bound holds. Each waits until it has a lease, as requests
/// do.
#[test]
fn nobody_waits_beside_room() {
    const THREADS: usize = 8;
    for (total, workers) in [(None, None), (Some(3), None), (None, Some(2))] {
        let mut entries = entries(&["a", "b"]);
        if workers.is_none() {
            (entries[0].max_in_flight, entries[1].max_in_flight) = (most(1), most(2));
        }
        for strategy in [Strategy::LeastConnections, Strategy::RoundRobin] {
            let pool = of(&queued(total, workers, strategy), &entries);
            let (queue, now) = (pool.queue(), real_time());
            let take = || -> Lease {
                if queue.is_empty()
                    && let Some(mut lease) = pick(&pool, &[])
                {
                    lease.came_by(queue.went_straight(member(1, 0).who), now());
                    return lease;
                }
                let mut place = queue.join(member(1, now()), now()).unwrap();
                loop {
                    assert!(place.wait(now() + 60_000_000_000, &now), "a wake-up was lost");
                    if let Some(mut lease) = pick(&pool, &[]) {
                        lease.came_by(place.leave(false), now());
                        return lease;
                    }
                    let _ = place.sleep(false, now());
                }
            };
            let start = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        for round in 0..500 {
                            let mut lease = take();
                            if round % 5 == 0 {
                                thread::yield_now();
                            }
                            if round % 2 == 0 {
                                lease.free_worker();
                            }
                        }
                    });
                }
            });
            assert!(queue.is_empty(), "{total:?} {workers:?} {strategy:?}");
            assert_eq!(queue.counted(member(1, 0).who), 0, "whatever went past the line has ended");
            assert!(pool.backends().iter().all(|one| one.in_flight() == 0 && one.calling() == 0));
        }
    }
}

/// A client that is bound to a backend goes on beyond that one's share of the workers only if no other can be used.
#[test]
fn the_share_of_workers_holds_for_who_is_bound_to_a_backend() {
    let outlier = Some(OutlierPolicy { consecutive: 1, ratio: None, window: 10, base_time: 10 });
    let settings =
        Settings { workers: Some(4), outlier, max_ejected: 1.0, ..Settings::of(Strategy::RoundRobin) };
    let pool = of(&settings, &entries(&["a", "b"]));
    // Another address of the same backend is no other backend.
    replace(&pool, "a", &[address(1), address(11)]);
    let snapshot = pool.snapshot();
    let [a, other, b] = snapshot.endpoints() else { panic!("three endpoints") };
    let bound = || snapshot.pick(&Wanted { bound_to: Some(a.id), ..wanted(&[]) }).unwrap();
    let _held: Vec<_> = (0..3).map(|_| bound()).collect();
    assert_eq!((a.in_flight(), other.in_flight(), bound().endpoint.id), (3, 0, b.id));
    // If the other one is out because of its answers, or down, it can't be used.
    let mut lease = snapshot.pick(&wanted(&[a.id, other.id])).unwrap();
    assert!(!lease.is_probe() && snapshot.observe(&mut lease, 1, true, NOW).is_some());
    drop(lease);
    assert_eq!(bound().endpoint.id, a.id);
    pool.set_health(b, Status::Down, NOW);
    assert_eq!(bound().endpoint.id, a.id);
    // What is half open is probed, and what is in is not.
    let later = |one: &Endpoint| Wanted { bound_to: Some(one.id), now: NOW + 1_000, ..wanted(&[]) };
    assert!(!snapshot.pick(&later(a)).unwrap().is_probe());
    let mut lease = snapshot.pick(&later(a)).unwrap();
    assert!(snapshot.observe(&mut lease, 1, true, NOW).is_some());
    drop(lease);
    assert!(snapshot.pick(&later(a)).unwrap().is_probe());
}

/// A request that is told when it ends is charged up to then.
#[test]
fn who_held_a_place_for_a_second_goes_behind_who_did_not() {
    let pool = of(&queued(None, None, Strategy::First), &entries(&["a"]));
    let queue = pool.queue();
    let come = |client, now| queue.join(member(client, now), now).expect("room in the line");
    let mut lease = pick(&pool, &[]).unwrap();
    lease.came_by(come(1, NOW).leave(false), NOW);
    let later = NOW + 1_000_000_000;
    lease.end(later);
    let mut places = [3, 1, 2].map(|client| come(client, later));
    assert!(places[0].sleep(false, later));
    (0..2).for_each(|_| queue.freed());
    let standing = places.each_ref().map(|place| place.standing());
    assert_eq!(standing, [LineStanding::Trying, LineStanding::Asleep, LineStanding::Trying]);
}
