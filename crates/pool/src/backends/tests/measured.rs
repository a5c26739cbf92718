//! Bounds that are measured: `max_in_flight: auto`.

use super::reconfigured::placed;
use super::*;
use crate::fair::{AutoBounds, AutoMove, ProbeVerdict};
use crate::queue::tests::member;
use crate::queue::{LineStanding, Passage, QueuePolicy};

const MS: Nanos = 1_000_000;

fn settings(start: u32) -> Settings {
    // A bound that could grow into thousands would take a minute to fill.
    let auto = AutoBounds { start, max: 64, ..AutoBounds::default() };
    let queue = QueuePolicy { size: 9, ..QueuePolicy::default() };
    let policy = Arc::new(PoolPolicy { queue, ..PoolPolicy::default() });
    Settings { auto, policy, ..Settings::of(Strategy::LeastConnections) }
}

fn auto() -> BackendEntry {
    BackendEntry { max_in_flight: Some(InFlightBound::Auto), ..BackendEntry::new("a", "backend.test", 9000) }
}

fn one(settings: &Settings) -> (Backends, Arc<Backend>) {
    let pool = Backends::new(settings, &[auto()]);
    pool.resolved(&auto(), &[address(1), address(2)], NOW);
    let group = pool.backends()[0].clone();
    (pool, group)
}

fn at(pool: &Backends, now: Nanos) -> Option<Lease> {
    pool.snapshot().pick(&Wanted { now, ..wanted(&[]) }).ok()
}

#[test]
fn a_place_is_held_up_to_the_answers_head_alone() {
    let (pool, group) = one(&settings(3));
    let mut held: Vec<Lease> = (0..3).map(|_| at(&pool, NOW).unwrap()).collect();
    assert_eq!(pool.snapshot().pick(&wanted(&[])).unwrap_err(), Unavailable::Full);
    assert_eq!((group.max_in_flight(), group.in_flight()), (3, 3));
    // Two answers have begun: they still count as requests, and hold no place.
    held[0].answered(NOW + MS);
    held[0].answered(NOW + 2 * MS);
    held[1].answered(NOW + MS);
    let more: Vec<Lease> = (0..2).map(|_| at(&pool, NOW + MS).unwrap()).collect();
    assert!(at(&pool, NOW + MS).is_none());
    assert_eq!((group.in_flight(), group.measured().unwrap().held), (5, 3));
    // A request that was not answered gives its place back, too.
    drop(more);
    assert_eq!(group.measured().unwrap().held, 1);
    drop(held);
    assert_eq!((group.in_flight(), group.measured().unwrap().held), (0, 0));
}

#[test]
fn a_sticky_client_finds_no_place_either() {
    let (pool, group) = one(&settings(1));
    let lease = at(&pool, NOW).unwrap();
    let bound = Wanted { bound_to: Some(lease.endpoint.id), ..wanted(&[]) };
    assert_eq!(pool.snapshot().pick(&bound).unwrap_err(), Unavailable::Full);
    drop(lease);
    assert!(pool.snapshot().pick(&bound).is_ok());
    assert_eq!(group.in_flight(), 0);
}

/// A request gives back its client's place with the head of its answer, whether it waited in line or went straight.
#[test]
fn a_stream_is_charged_up_to_its_answers_head() {
    let (pool, _) = one(&settings(3));
    let (queue, who) = (pool.queue(), member(1, NOW).who);
    let passages = [queue.went_straight(who), queue.join(member(1, NOW), NOW).expect("room").leave(false)];
    assert!(matches!(passages, [Passage::Straight(_), Passage::Waited { .. }]), "{passages:?}");
    let mut held = passages.map(|passage| {
        let mut lease = at(&pool, NOW).expect("room");
        lease.came_by(passage, NOW);
        lease
    });
    assert_eq!(queue.counted(who), 2);
    held.iter_mut().for_each(|lease| lease.answered(NOW + MS));
    assert_eq!(queue.counted(who), 0, "the streams go on");
    drop(held);
    assert_eq!(queue.counted(who), 0, "and end but once");
}

/// Where the pool has a bound of its own, a stream goes on holding a place of that one: its client stays charged, and
/// who waits for a place of the backend has a turn all the same.
#[test]
fn a_stream_stays_charged_while_it_holds_a_place_of_the_pool() {
    let (pool, _) = one(&Settings { max_in_flight: Some(2), ..settings(1) });
    let (queue, who) = (pool.queue(), member(1, NOW).who);
    let mut stream = at(&pool, NOW).expect("room");
    stream.came_by(queue.went_straight(who), NOW);
    let mut waits = queue.join(member(2, NOW), NOW).expect("room in the line");
    assert_eq!((waits.standing(), at(&pool, NOW).is_none()), (LineStanding::Trying, true));
    assert!(waits.sleep(false, NOW));
    stream.answered(NOW + MS);
    assert_eq!(waits.standing(), LineStanding::Trying, "the backend's place is free");
    assert_eq!(queue.counted(who), 1, "the pool's is not");
    drop(at(&pool, NOW + MS).expect("room for one more"));
    drop((waits, stream));
    assert_eq!(queue.counted(who), 0);
}

/// A try that finds no place of a measured bound frees nothing, and so gives nobody in line a turn.
#[test]
fn a_try_in_vain_wakes_nobody() {
    let (pool, group) = one(&settings(1));
    let held = at(&pool, NOW).expect("room");
    let mut waits = pool.queue().join(member(2, NOW), NOW).expect("room in the line");
    assert!(waits.sleep(false, NOW));
    assert_eq!(Lease::take(&held.endpoint, terms(None)).unwrap_err(), Refused::Full);
    assert_eq!((waits.standing(), group.in_flight()), (LineStanding::Asleep, 1));
    drop(held);
    assert_eq!(waits.standing(), LineStanding::Trying);
}

/// Keeps the backend full for half a second, and answers each request after 20 ms. Returns the time at the end.
fn quick_half(pool: &Backends, from: Nanos) -> Nanos {
    let mut now = from;
    while now < from + 500 * MS {
        let mut leases: Vec<Lease> = std::iter::from_fn(|| at(pool, now)).take(65).collect();
        now += 20 * MS;
        leases.iter_mut().for_each(|lease| lease.answered(now));
    }
    now
}

/// The same for that many seconds, and lets the bound move.
fn quick(pool: &Backends, from: Nanos, seconds: u64) -> Nanos {
    (0..2 * seconds).fold(from, |now, _| {
        let now = quick_half(pool, now);
        pool.measure(now);
        now
    })
}

#[test]
fn a_bound_moves_with_what_is_measured_and_says_why() {
    let (pool, group) = one(&settings(4));
    assert_eq!((group.max_in_flight(), group.measured().unwrap().moved), (4, None));
    assert_eq!(ProbeVerdict::ALL.map(|verdict| group.probes(verdict)), [0; 3]);
    assert!(pool.snapshot().measures());
    let now = quick(&pool, NOW, 10);
    assert!(group.max_in_flight() > 16, "{}", group.max_in_flight());
    let told = group.measured().unwrap();
    assert_eq!((told.median_s, told.moved), (Some(0.02), Some(AutoMove::Quick)));
    // From time to time a lower bound is tried.
    quick(&pool, now, 30);
    let found: Vec<u64> = ProbeVerdict::ALL.map(|verdict| group.probes(verdict)).to_vec();
    assert!(found.iter().sum::<u64>() > 0, "{found:?}");
}

/// Requests in line have a turn when the bound has moved, and not after every look.
#[test]
fn a_bound_that_moves_wakes_the_line() {
    let (pool, group) = one(&settings(4));
    let held: Vec<Lease> = (0..4).map(|_| at(&pool, NOW).expect("room")).collect();
    let mut waits = pool.queue().join(member(2, NOW), NOW).expect("room in the line");
    assert!(waits.sleep(false, NOW));
    pool.measure(NOW);
    assert_eq!((waits.standing(), group.max_in_flight()), (LineStanding::Asleep, 4));
    // Places that are held for long are not counted.
    pool.measure(NOW + 60_000 * MS);
    assert_eq!((waits.standing(), group.max_in_flight()), (LineStanding::Trying, 8));
    drop(held);
}

#[test]
fn a_look_says_whether_the_bound_has_moved() {
    let (pool, group) = one(&settings(4));
    let (mut now, mut seen) = (NOW, [false; 2]);
    for _ in 0..60 {
        now = quick_half(&pool, now);
        let before = group.max_in_flight();
        let moved = group.bound.tick(now);
        assert_eq!(moved, group.max_in_flight() != before);
        seen[usize::from(moved)] = true;
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn a_reload_goes_on_with_what_was_measured_and_begins_anew_otherwise() {
    let (pool, group) = one(&settings(4));
    let now = quick(&pool, NOW, 10);
    let (before, held) = (group.max_in_flight(), at(&pool, now).unwrap());
    let reload = |settings: &Settings, bound: Option<InFlightBound>| {
        pool.reconfigure(settings, &[placed(BackendEntry { max_in_flight: bound, ..auto() }, 1)], now);
        group.max_in_flight()
    };
    // Another start value does not change a bound that is already measured.
    assert_eq!(reload(&settings(9), Some(InFlightBound::Auto)), before);
    assert_eq!(group.measured().unwrap().held, 1);
    let narrow = Settings { auto: AutoBounds { start: 4, min: 1, max: 8 }, ..settings(4) };
    assert_eq!(reload(&narrow, Some(InFlightBound::Auto)), 8);
    assert_eq!(group.measured().unwrap().moved, Some(AutoMove::Bounds));
    assert_eq!((reload(&narrow, most(2)), group.measured()), (2, None));
    assert!(!pool.snapshot().measures());
    // A bound that is a number counts requests up to their ends, and those that began before it, too.
    assert_eq!(group.in_flight(), 1);
    let other = at(&pool, now).unwrap();
    assert!(at(&pool, now).is_none());
    assert_eq!(reload(&narrow, None), u32::MAX);
    assert_eq!(reload(&settings(9), Some(InFlightBound::Auto)), 9);
    assert_eq!(group.measured().unwrap().held, 0, "what began before is not counted");
    drop((held, other));
    assert_eq!((group.in_flight(), group.measured().unwrap().held), (0, 0));
}

#[test]
fn a_backend_at_another_place_begins_anew_and_keeps_what_was_counted() {
    let (pool, group) = one(&settings(4));
    let now = quick(&pool, NOW, 60);
    let counted = ProbeVerdict::ALL.map(|verdict| group.probes(verdict));
    assert!(counted.iter().sum::<u64>() > 0);
    pool.reconfigure(&settings(4), &[placed(BackendEntry { port: 9001, ..auto() }, 1)], now);
    let moved = &pool.backends()[0];
    assert_eq!((moved.max_in_flight(), moved.measured().unwrap().moved), (4, None));
    assert_eq!(ProbeVerdict::ALL.map(|verdict| moved.probes(verdict)), counted);
}

/// Many threads take places at the same time: never more than there are, and none is lost.
#[test]
fn places_hold_across_threads() {
    let (pool, group) = one(&settings(3));
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for round in 0..2_000u64 {
                    let Some(mut lease) = at(&pool, NOW) else { continue };
                    let held = group.measured().unwrap().held;
                    assert!((1..=3).contains(&held), "{held}");
                    if round % 3 == 0 {
                        lease.answered(NOW);
                    }
                }
            });
        }
    });
    assert_eq!((group.in_flight(), group.measured().unwrap().held), (0, 0));
}
