use std::net::SocketAddr;

use super::super::tests::{entry, pool, settings};
use super::*;
use balancer_pool::backend_state::Failed;
use balancer_pool::health::Status;

const S: Nanos = 1_000_000_000;

fn addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// A pool of that many endpoints, checked a second apart, and its number.
fn watched(schedule: &mut Schedule, count: u16, now: Nanos) -> (Arc<Backends>, u64) {
    let pool = pool(&addresses(count));
    let number = watch(schedule, &pool, now);
    (pool, number)
}

fn watch(schedule: &mut Schedule, pool: &Arc<Backends>, now: Nanos) -> u64 {
    let (second, changed) = (Duration::from_secs(1), Arc::new(AtomicBool::new(true)));
    let settings = HealthCheck { interval: second, ..settings(second) };
    let number = schedule.watch(pool, settings, &changed);
    pool.on_change(move || {
        changed.store(true, Ordering::Release);
        true
    });
    schedule.follow(now);
    number
}

/// Ports and numbers of the checks that are to be made now.
fn due(schedule: &mut Schedule, now: Nanos) -> Vec<(u16, u64)> {
    std::iter::from_fn(|| schedule.next(now)).map(|one| (one.endpoint.address.port(), one.number)).collect()
}

fn ports(checks: &[(u16, u64)]) -> Vec<u16> {
    checks.iter().map(|(port, _)| *port).collect()
}

fn timed_out() -> CheckResult {
    Err(Failed::NoAnswer.into())
}

/// So `rise` checks of a backend that is up again fit in `rise` intervals, even after one that timed out.
#[test]
fn checks_start_at_most_an_interval_apart() {
    let ms = Duration::from_millis;
    for (took, random, expected) in
        [(0, 0.0, 2_000), (0, 0.5, 1_900), (1_000, 0.0, 1_000), (1_000, 0.5, 900), (2_500, 0.0, 0)]
    {
        assert_eq!(pause(ms(2_000), ms(took), random), ms(expected), "{took} {random}");
    }
}

#[test]
fn each_is_due_at_once_and_then_within_an_interval_of_its_start() {
    let mut schedule = Schedule::new(9);
    let _pool = watched(&mut schedule, 3, 0);
    assert_eq!(schedule.until(), Some(0));
    let all = due(&mut schedule, 0);
    assert_eq!(ports(&all), [1, 2, 3]);
    assert_eq!(schedule.until(), None, "all are under way");
    for (_, number) in &all {
        schedule.ended(*number, 0, &Ok(200), S / 2);
    }
    assert!(due(&mut schedule, S * 9 / 10 - 1).is_empty());
    assert_eq!(due(&mut schedule, S).len(), 3);
}

#[test]
fn what_a_check_of_a_removed_one_finds_is_not_written_down() {
    let mut schedule = Schedule::new(9);
    let (pool, _) = watched(&mut schedule, 2, 0);
    let removed = Arc::clone(&pool.snapshot().endpoints()[0]);
    let under_way = schedule.next(0).unwrap();
    assert_eq!(under_way.endpoint.id, removed.id);
    // The same address comes back: it is another endpoint, with a first check of its own.
    for addresses in [&[][..], &addresses(1)] {
        pool.resolved(&entry(), addresses, 1);
        schedule.follow(1);
    }
    assert!(!schedule.has(under_way.number));
    schedule.ended(under_way.number, 0, &timed_out(), 2);
    assert_eq!((removed.health(), pool.backends()[0].checks()), (Status::Unknown, (0, 0)));
    let again = schedule.next(2).unwrap();
    assert_eq!((again.endpoint.address.port(), schedule.until()), (1, None));
    assert_ne!(again.endpoint.id, removed.id);
}

/// Its endpoints stay, and the checks that were under way may end after the first ones of the new kind have begun.
#[test]
fn a_pool_that_is_checked_otherwise_begins_anew() {
    let mut schedule = Schedule::new(4);
    let (pool, before) = watched(&mut schedule, 2, 0);
    let first = due(&mut schedule, 0);
    for (_, number) in &first {
        schedule.ended(*number, 0, &timed_out(), S);
    }
    assert_eq!(due(&mut schedule, 3 * S).len(), 2);
    assert_eq!((schedule.late_under_way, pool.backends()[0].checks()), (2, (0, 2)));
    schedule.forget(before);
    assert_eq!((schedule.late_under_way, schedule.until()), (0, None));
    watch(&mut schedule, &pool, 3 * S);
    let anew = due(&mut schedule, 3 * S);
    assert_eq!(ports(&anew), [1, 2], "known to hang, and asked at once all the same");
    for (_, number) in first {
        assert!(!schedule.has(number));
        schedule.ended(number, 3 * S, &Ok(200), 4 * S);
    }
    assert_eq!(pool.backends()[0].checks(), (0, 2), "what the former found is not written down");
    for (_, number) in anew {
        schedule.ended(number, 3 * S, &Ok(200), 4 * S);
    }
    assert_eq!(pool.backends()[0].checks(), (2, 2));
}

/// A driver need not have followed the pool before it hands in a result.
#[test]
fn a_result_comes_too_late_for_an_endpoint_that_has_gone_meanwhile() {
    let mut schedule = Schedule::new(4);
    let (pool, _) = watched(&mut schedule, 1, 0);
    let under_way = schedule.next(0).unwrap();
    pool.resolved(&entry(), &[], 1);
    schedule.ended(under_way.number, 0, &timed_out(), S);
    assert_eq!(pool.backends()[0].checks(), (0, 0));
}

#[test]
fn those_that_timed_out_get_half_of_the_places_among_them() {
    let mut schedule = Schedule::new(4);
    let (pool, _) = watched(&mut schedule, 10, 0);
    let all = due(&mut schedule, 0);
    for (port, number) in &all {
        schedule.ended(*number, 0, &if *port <= 6 { timed_out() } else { Ok(200) }, S);
    }
    // The sound ones, and two of the six.
    let now = due(&mut schedule, 3 * S);
    assert_eq!(now.iter().filter(|(port, _)| *port <= 6).count(), 2, "{now:?}");
    assert_eq!(now.len(), 4 + 2);
    assert_eq!(schedule.until(), None);
    // One that answers again makes room, as one that hangs on does, and one that is removed.
    let late: Vec<_> = now.iter().filter(|(port, _)| *port <= 6).collect();
    schedule.ended(late[0].1, 3 * S, &Ok(200), 4 * S);
    assert_eq!(due(&mut schedule, 4 * S).len(), 1);
    schedule.ended(late[1].1, 3 * S, &timed_out(), 4 * S);
    assert_eq!(due(&mut schedule, 4 * S).len(), 1);
    pool.resolved(&entry(), &addresses(10)[6..], 1);
    schedule.follow(5 * S);
    let late: usize = schedule.pools.values().map(|pool| pool.late.len()).sum();
    assert_eq!((schedule.late_under_way, late), (0, 0));
}

#[test]
fn half_of_the_places_is_for_those_of_all_pools() {
    let mut schedule = Schedule::new(4);
    let _pools: Vec<_> = (0..3).map(|_| watched(&mut schedule, 2, 0)).collect();
    for (_, number) in due(&mut schedule, 0) {
        schedule.ended(number, 0, &timed_out(), S);
    }
    let late: Vec<u64> = due(&mut schedule, 3 * S).into_iter().map(|(_, number)| number).collect();
    let pools: HashSet<u64> = late.iter().map(|number| schedule.watched[number].pool).collect();
    assert_eq!((late.len(), pools.len()), (2, 2), "of two pools");
}

/// The pool with the fewest checks under way gets the next free place, however long others have been due.
#[test]
fn a_pool_with_many_leaves_the_next_place_to_one_with_few() {
    let mut schedule = Schedule::new(9);
    let (_many, of_many) = watched(&mut schedule, 20, 0);
    let held: Vec<_> = std::iter::from_fn(|| schedule.next(0)).take(8).collect();
    let (_few, of_few) = watched(&mut schedule, 3, 1);
    let next: Vec<_> = std::iter::from_fn(|| schedule.next(1)).take(4).collect();
    let of = |check: &DueCheck| schedule.watched[&check.number].pool;
    assert_eq!(held.iter().map(of).collect::<Vec<_>>(), [of_many; 8]);
    assert_eq!(next.iter().map(of).collect::<Vec<_>>(), [of_few, of_few, of_few, of_many]);
}
