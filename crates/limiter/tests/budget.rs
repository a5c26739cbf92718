//! One budget over several instances, simulated: rules that hold under every load. `cargo bench --bench budget` prints
//! a table of results.

mod simulation;

use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_time::Nanos;
use proptest::prelude::*;
use simulation::loads::{Load, all, per_second};
use simulation::{Carrier, Outcome, SEC, START, World, bound, run};

fn limit(capacity: u32, per_second: f64) -> Limit {
    Limit { capacity, rate: Rate::per_second((per_second * 1e6) as u64) }
}

/// 100 tokens, 50 a second.
const USUAL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

fn plain(instances: usize, limit: Limit, load: &Load) -> Outcome {
    run(instances, limit, load, Carrier::default(), 7)
}

#[test]
fn every_load_is_admitted_as_by_one_bucket_and_the_bound() {
    let sizes = [
        (2, USUAL),
        (3, USUAL),
        (10, USUAL),
        (4, limit(250, 20.0)),
        (6, limit(30, 15.0)),
        (8, limit(20, 0.5)),
    ];
    for (instances, limit) in sizes {
        for load in all(instances, limit, 11).iter().filter(|load| load.stopped.is_none()) {
            let outcome = plain(instances, limit, load);
            let most = bound(instances, limit, load.offered, Carrier::default().delay);
            let name =
                format!("{instances} instances, {limit:?}, {}: {outcome:?}, bound {most:.1}", load.name);
            assert!(outcome.excess as f64 <= most.ceil(), "{name}");
            assert_eq!(outcome.charged_twice, 0, "{name}");
            let expected = if load.name.starts_with("1 s on") { 0.9 } else { 0.95 };
            assert!(outcome.admitted as f64 >= expected * outcome.ideal as f64, "{name}");
            if load.name.contains("0.9 r") || load.name.starts_with("C") {
                assert!(outcome.falsely as f64 <= 0.005 * outcome.offered as f64, "{name}");
            }
        }
    }
}

#[test]
fn a_load_of_nine_tenths_is_refused_nowhere() {
    let small =
        [(1, 1.0), (1, 0.5), (2, 2.0), (5, 5.0), (10, 50.0), (10, 100.0), (100, 200.0), (100, 1_000.0)];
    let sizes = small.map(|(capacity, rate)| limit(capacity, rate));
    for limit in sizes.into_iter().chain([USUAL, limit(1, 1.0 / 60.0)]) {
        for instances in [2, 3, 10, 15] {
            let mut random = fastrand::Rng::with_seed(1);
            for name in ["in turn", "moving each second", "at random"] {
                let mut way = |at: u64, now: Nanos| match name {
                    "in turn" => at as usize,
                    "moving each second" => (now / SEC) as usize,
                    _ => random.usize(..),
                };
                // At even distances, so that one bucket would refuse nothing.
                let gap = (1e9 / (0.9 * per_second(limit))) as u64;
                let length = (1_000 * gap).clamp(20 * SEC, 600 * SEC);
                let whens = (0..length / gap).map(|at| (at, START + at * gap));
                let requests = whens.map(|(at, now)| (now, way(at, now) % instances)).collect();
                let outcome = plain(instances, limit, &Load::of(name, requests, per_second(limit)));
                let what = format!("{instances}, {limit:?}, {name}: {outcome:?}");
                if f64::from(limit.capacity) >= per_second(limit) {
                    assert_eq!((outcome.admitted, outcome.falsely), (outcome.offered, 0), "{what}");
                } else {
                    // When the load moves, the last instance is assumed to go on for half a second.
                    assert!(outcome.admitted * 100 >= outcome.offered * 99, "{what}");
                    assert!(name.starts_with("moving") || outcome.falsely == 0, "{what}");
                }
            }
        }
    }
}

#[test]
fn the_whole_capacity_is_admitted_at_once_by_one_idle_instance() {
    for instances in [2, 3, 10, 15] {
        let outcome = plain(instances, USUAL, &Load::capacity_at_one(USUAL));
        assert_eq!((outcome.offered, outcome.admitted, outcome.excess), (100, 100, 0), "{instances}");
    }
}

/// Buckets that hold less than what flows in between two reports are not charged all that others report.
#[test]
fn a_small_bucket_is_given_out_once_and_the_bound() {
    for limit in [limit(10, 50.0), limit(1, 1.0), limit(3, 20.0), limit(20, 60.0)] {
        for instances in [2, 3, 10] {
            let mut loads = all(instances, limit, 11);
            for warm in [0.0, 0.5, 2.0] {
                let gap = (1e9 / (warm * per_second(limit) + 1e-9)) as u64;
                let warm = (0..10 * SEC / gap).map(|at| (START + at * gap, at as usize % instances));
                let all =
                    |at: u64| (0..instances).map(move |number| (START + 10 * SEC + at * SEC / 500, number));
                let at_once = warm.chain((0..4 * u64::from(limit.capacity)).flat_map(all)).collect();
                loads.push(Load::of("4 C at each at once", at_once, 500.0 * instances as f64));
            }
            for load in loads.iter().filter(|load| load.stopped.is_none()) {
                let outcome = plain(instances, limit, load);
                let most = bound(instances, limit, load.offered, Carrier::default().delay);
                let name = format!("{instances}, {limit:?}, {}: {outcome:?}, bound {most:.1}", load.name);
                assert!(outcome.excess as f64 <= most.ceil(), "{name}");
            }
        }
    }
}

/// A client bursts at one instance, goes on there so slowly that it is not reported any more, and moves to another.
#[test]
fn whoever_went_on_slowly_at_one_instance_has_the_whole_capacity_at_another() {
    let slow = SEC / 15;
    for after_s in [11, 15, 19] {
        let mut requests = vec![(START, 1); 40];
        requests.extend((1..after_s * 15).map(|at| (START + at * slow, 1)));
        requests.extend([(START + after_s * SEC + SEC / 5, 0); 100]);
        let outcome = plain(3, USUAL, &Load::of("moves", requests, 800.0));
        assert_eq!((outcome.admitted, outcome.excess), (outcome.offered, 0), "{after_s} s");
    }
}

#[test]
fn while_the_database_is_stopped_the_parts_are_about_one_budget() {
    for instances in [2, 3, 10] {
        let outcome = plain(instances, USUAL, &Load::spread(instances, USUAL, 12.0, 5).stopped());
        // 60 s, of which it was stopped for 30.
        let most = outcome.ideal as f64 + 0.25 * (100.0 + 30.0 * 50.0);
        assert!((outcome.admitted as f64) < most, "{instances}: {outcome:?}");
        // The instances do not all give out a bucket at once, neither when it stops nor when it is back.
        assert!(outcome.excess <= 100, "{instances}: {outcome:?}");
        let outcome = plain(instances, USUAL, &Load::at_one(USUAL, 0.9, 5).stopped());
        assert!(outcome.admitted as f64 >= 0.95 * outcome.offered as f64, "{instances}: {outcome:?}");
    }
}

/// Tokens are spent from shortly before the database stops until the instances notice; these are not reported.
#[test]
fn what_was_spent_as_a_silence_began_is_taken_off_every_part() {
    let (stop, end) = (START + 20 * SEC, START + 50 * SEC);
    let daily = limit(1_000, 1_000.0 / 86_400.0);
    let rows = [(3, daily, 600, 300, 1_250), (3, USUAL, 600, 0, 1_800), (15, USUAL, 6_000, 0, 2_700)];
    for (instances, limit, per_second, before_ms, most) in rows {
        let first = stop - before_ms * 1_000_000;
        let whens = (0..30 * per_second).map(|at| first + at * SEC / per_second);
        let requests = whens.enumerate().map(|(at, now)| (now, at % instances)).collect();
        let load = Load { stopped: Some((stop, end)), ..Load::of("at the stop", requests, 6_000.0) };
        let outcome = plain(instances, limit, &load);
        assert!(outcome.admitted <= most, "{instances}, {limit:?}: {outcome:?}");
    }
}

/// What was taken off for others is given back when they report what they spent.
#[test]
fn whoever_spent_at_one_instance_as_a_silence_began_has_the_rest_afterwards() {
    let (stop, end) = (START + 20 * SEC, START + 25 * SEC);
    let limit = limit(1_000, 0.0);
    for asks_between in [false, true] {
        let mut requests = vec![(stop + SEC / 10, 0); 600];
        requests.extend(asks_between.then_some((stop + 3 * SEC, 0)));
        requests.extend((0..1_000).map(|at| (end + 2 * SEC + at * SEC / 20, at as usize % 3)));
        let load = Load { stopped: Some((stop, end)), ..Load::of("rest", requests, 100.0) };
        let outcome = plain(3, limit, &load);
        assert!((995..=1_040).contains(&outcome.admitted), "{asks_between}: {outcome:?}");
    }
}

/// A bucket that is never refilled, and is asked just after a silence without requests.
#[test]
fn as_soon_as_a_silence_is_over_the_budget_is_one_again() {
    let limit = limit(300, 0.0);
    let end = START + 50 * SEC;
    let admitted = |stopped| {
        let each = |later_ms: u64| {
            let mut world = World::new(3, limit, Carrier { stopped, ..Carrier::default() }, 5);
            let first = end + later_ms * 1_000_000;
            (0..800).filter(|at| world.ask(at % 3, first + *at as u64 * SEC / 200)).count()
        };
        (1_500..2_000).step_by(50).map(each).collect::<Vec<usize>>()
    };
    let (after, undisturbed) = (admitted(Some((START + 20 * SEC, end))), admitted(None));
    let (most, usual) = (after.iter().max(), undisturbed.iter().max());
    assert!(most <= usual.map(|usual| usual + 5).as_ref(), "{after:?}, {undisturbed:?} without it");
}

/// The whole capacity is asked for at each of three instances, one after another, after a silence without requests.
#[test]
fn a_burst_behind_a_silence_is_given_out_once() {
    for (since_ms, step_ms) in [(100, 100), (200, 50), (300, 300), (700, 200), (5_000, 200)] {
        for length_s in [3, 8, 15] {
            let stop = START + 20 * SEC;
            let end = stop + length_s * SEC;
            let mut requests: Vec<_> = (0..20 * 45).map(|at| (START + at * SEC / 45, 0)).collect();
            for number in 0..3 {
                let when = end + (since_ms + number as u64 * step_ms) * 1_000_000;
                requests.extend(vec![(when, number); 100]);
            }
            let load = Load::of("burst", requests, 2_000.0);
            let stopped = plain(3, USUAL, &Load { stopped: Some((stop, end)), ..load.clone() });
            let undisturbed = plain(3, USUAL, &load);
            let most = undisturbed.excess + 10;
            assert!(stopped.excess <= most, "{length_s} s, {since_ms} ms: {stopped:?}, {undisturbed:?}");
        }
    }
}

/// What one instance could not report before a silence has flowed in again long before the silence ends.
#[test]
fn what_was_not_told_before_a_silence_is_missing_to_nobody_when_it_has_flowed_in() {
    let stop = START + 20 * SEC;
    let end = stop + 12 * SEC;
    for asked_between in [false, true] {
        let mut requests: Vec<_> = (0..43 * 45 / 2).map(|at| (START + at * SEC / 45, 0)).collect();
        requests.extend(asked_between.then_some((stop + 6 * SEC, 1)));
        requests.push((end + 2 * SEC, 0));
        requests.extend(vec![(end + 5 * SEC / 2, 1); 99]);
        let load = Load { stopped: Some((stop, end)), ..Load::of("moves", requests, 45.0) };
        let outcome = plain(3, USUAL, &load);
        assert_eq!((outcome.falsely, outcome.admitted), (0, outcome.offered), "{asked_between}");
    }
}

#[test]
fn ten_thousand_clients_far_below_their_limits_cost_few_messages() {
    let mut world = World::new(10, USUAL, Carrier::default(), 3);
    let mut random = fastrand::Rng::with_seed(3);
    let clients: Vec<ClientKey> =
        (0..10_000u32).map(|number| ClientKey::digest(&number.to_be_bytes())).collect();
    // 2.5 requests a second of each client, a twentieth of its limit, for 2 s.
    let requests = 10_000 * 5;
    let (before, reports) = (world.messages, world.reports);
    for at in 0..requests {
        let now = START + at * 2 * SEC / requests;
        let client = clients[random.usize(..clients.len())];
        assert!(world.ask_as(client, random.usize(..10), now));
    }
    world.run_until(START + 2 * SEC);
    // One message a second from each instance, and a few for clients that came to one instance several times.
    assert!(world.messages - before <= 10 * 2 * 5, "{}", world.messages - before);
    assert!(world.reports - reports < requests / 20, "{}", world.reports - reports);
}

#[test]
fn a_flood_of_hot_clients_is_bounded_and_forgotten() {
    let mut world = World::new(2, USUAL, Carrier::default(), 3);
    let clients = 20_000u32;
    for number in 0..clients {
        let client = ClientKey::digest(&number.to_be_bytes());
        for _ in 0..13 {
            assert!(world.ask_as(client, 0, START + SEC));
        }
    }
    let stats = world.budgets().next().unwrap().stats(START + SEC);
    assert_eq!(stats.hot_buckets, 16_384);
    assert!(stats.not_hot > 0);
    world.run_until(START + 2 * SEC);
    // 250 reports a flush, 20 flushes a second.
    assert!((4_000..=5_250).contains(&world.reports), "{}", world.reports);
    world.run_until(START + 40 * SEC);
    for budget in world.budgets() {
        assert_eq!(budget.stats(START + 40 * SEC).hot_buckets, 0);
    }
}

#[test]
fn of_whoever_spends_much_the_others_hear_however_many_are_hot() {
    let mut world = World::new(2, USUAL, Carrier::default(), 3);
    for number in 0..40_000u32 {
        for _ in 0..13 {
            assert!(world.ask_as(ClientKey::digest(&number.to_be_bytes()), 0, START + SEC));
        }
    }
    let big = START + 3 * SEC;
    for _ in 0..100 {
        assert!(world.ask(0, big));
    }
    world.run_until(big + SEC / 5);
    let left = (0..100).take_while(|_| world.ask(1, big + SEC / 5)).count();
    assert!(left <= 10, "{left} of what came in a fifth of a second");
}

/// Any load: spans of time in which requests come fast or slowly, at one instance or at all.
fn any_load(instances: usize, limit: Limit) -> impl Strategy<Value = Load> {
    let span = (1u64..3_000, 0.05f64..8.0, prop::option::of(0..instances));
    (prop::collection::vec(span, 1..12), any::<u64>()).prop_map(move |(spans, seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut now, mut requests) = (START, Vec::new());
        let mut most = 0.0_f64;
        for (length_ms, times, at) in spans {
            let rate = times * per_second(limit).max(f64::from(limit.capacity) / 20.0);
            most = most.max(rate);
            let end = now + length_ms * 1_000_000;
            let mut next = now;
            while next < end {
                requests.push((next, at.unwrap_or_else(|| random.usize(..instances))));
                next += (2.0 * random.f64() * 1e9 / rate) as u64 + 1;
            }
            now = end;
        }
        Load::of("any", requests, 2.0 * most)
    })
}

fn any_size() -> impl Strategy<Value = (usize, Limit)> {
    (2usize..8, 1u32..300, 0.5f64..200.0)
        .prop_map(|(instances, capacity, rate)| (instances, limit(capacity, rate)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_span_admits_at_most_what_one_bucket_does_and_the_bound(
        (size, load) in any_size().prop_flat_map(|size| (Just(size), any_load(size.0, size.1))), delay_ms in 1u64..40,
    ) {
        let (instances, limit) = size;
        let carrier = Carrier { delay: delay_ms * 1_000_000, ..Carrier::default() };
        let outcome = run(instances, limit, &load, carrier, 1);
        let most = bound(instances, limit, load.offered, carrier.delay);
        prop_assert!(outcome.excess as f64 <= most.ceil(), "{:?}, bound {}", outcome, most);
    }

    /// Messages are lost, come twice and out of order: still no instance is charged more than the others admitted.
    #[test]
    fn nothing_is_charged_twice(
        (size, load) in any_size().prop_flat_map(|size| (Just(size), any_load(size.0, size.1))),
        lost_permille in 0u32..300, again_permille in 0u32..500, delay_ms in 1u64..40,
    ) {
        let (instances, limit) = size;
        let delay = delay_ms * 1_000_000;
        let carrier = Carrier { delay, lost_permille, again_permille, stopped: None };
        let outcome = run(instances, limit, &load, carrier, 1);
        prop_assert_eq!(outcome.charged_twice, 0);
    }
}
