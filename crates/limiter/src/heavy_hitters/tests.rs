use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;

use super::*;
use proptest::prelude::*;

fn client(number: u32) -> ClientKey {
    ClientKey::address(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number)))
}

fn refusal(bucket: &str, rule: Option<&str>) -> Refusal {
    let entry = rule.is_none().then_some(EntryKind::Default);
    Refusal { entry, bucket: BucketName::parse(bucket).unwrap(), rule: rule.map(Into::into) }
}

/// The reason of a refused request, always the same one.
fn why(refused: bool) -> Option<&'static Refusal> {
    static WHY: std::sync::LazyLock<Refusal> = std::sync::LazyLock::new(|| refusal("default", None));
    refused.then_some(&*WHY)
}

/// Some instant.
const NOW: Nanos = 1_000_000 * SECOND_NS;

const MINUTE: Nanos = 60 * SECOND_NS;

fn shown(heavy: &[Heavy]) -> Vec<(ClientKey, u64, u64)> {
    heavy.iter().map(|heavy| (heavy.client, heavy.requests, heavy.denied)).collect()
}

#[test]
fn few_clients_are_counted_exactly_and_ranked() {
    let hitters = HeavyHitters::default();
    let name: Arc<str> = "tenant".into();
    for number in 1..=20 {
        for turn in 0..number {
            hitters.count(client(number), (number == 20).then_some(&name), why(turn % 3 == 0), NOW);
        }
    }
    let top = hitters.by_requests(5 * MINUTE, 3, NOW);
    assert_eq!(shown(&top), [(client(20), 20, 7), (client(19), 19, 7), (client(18), 18, 6)]);
    assert_eq!((top[0].name.as_deref(), top[1].name.as_deref()), (Some("tenant"), None));
    let refused = hitters.by_refusals(5 * MINUTE, 100, NOW);
    assert_eq!(refused.len(), 20);
    assert_eq!(shown(&refused[..1]), [(client(19), 7, 7)]);
    assert!(refused.iter().all(|heavy| heavy.requests == heavy.denied));
}

#[test]
fn clients_are_spread_over_the_shards() {
    // A shard has room for 32; 8 of these are in each on average.
    let clients = 8 * SHARDS as u32;
    let hitters = HeavyHitters::default();
    (0..clients).for_each(|number| hitters.count(client(number), None, None, NOW));
    let all = hitters.by_requests(5 * MINUTE, 1_000, NOW);
    assert_eq!(all.len(), clients as usize);
    assert!(all.iter().all(|heavy| heavy.requests == 1));
}

#[test]
fn each_refusal_keeps_the_reason_that_it_had() {
    let hitters = HeavyHitters::default();
    let reasons =
        [refusal("default", None), refusal("minute", Some("login")), refusal("minute", Some("export"))];
    let begin = COARSE.step_ns * 5_000;
    for second in 0..60 {
        // The first reason once, the second twice, the third three times.
        for (place, reason) in reasons.iter().enumerate() {
            for _ in 0..=place {
                hitters.count(client(1), None, Some(reason), begin + second * SECOND_NS);
            }
        }
    }
    let now = begin + 60 * SECOND_NS - 1;
    for (window, each) in [(MINUTE, 60), (20 * SECOND_NS, 20)] {
        let top = hitters.by_refusals(window, 10, now);
        let expected: Vec<_> = [2, 1, 0]
            .map(|place: usize| RefusalReason {
                refusal: reasons[place].clone(),
                denied: each * (place as u64 + 1),
            })
            .into();
        assert_eq!((top[0].denied, &top[0].reasons), (6 * each, &expected));
        assert!(hitters.by_requests(window, 10, now)[0].reasons.is_empty());
    }
    for number in 0..20 {
        hitters.count(client(2), None, Some(&refusal(&number.to_string(), None)), now);
    }
    let of_many =
        hitters.by_refusals(MINUTE, 10, now).into_iter().find(|heavy| heavy.client == client(2)).unwrap();
    assert_eq!((of_many.denied, of_many.reasons.len()), (20, MAX_REASONS));
}

#[test]
fn a_window_slides() {
    let hitters = HeavyHitters::default();
    // At the beginning of a step of both kinds.
    let begin = COARSE.step_ns * 5_000;
    for second in 0..3_600 {
        hitters.count(client(1), None, None, begin + second * SECOND_NS);
    }
    let now = begin + 3_600 * SECOND_NS - 1;
    for (window, count) in [
        (SECOND_NS, 1),
        (15 * SECOND_NS, 15),
        (20 * SECOND_NS, 20),
        (MINUTE, 60),
        (5 * MINUTE, 300),
        (6 * MINUTE, 360),
        (10 * MINUTE, 600),
        (60 * MINUTE, 3_600),
        (600 * MINUTE, 3_600),
    ] {
        let top = hitters.by_requests(window, 10, now);
        assert_eq!(shown(&top), [(client(1), count, 0)], "{window}");
    }
    // Nobody has asked since.
    for (later, count) in [(0, 300), (MINUTE, 240), (4 * MINUTE, 60), (5 * MINUTE, 0), (500 * MINUTE, 0)] {
        let top = hitters.by_requests(5 * MINUTE, 10, now + later);
        assert_eq!(top.first().map_or(0, |heavy| heavy.requests), count, "{later}");
    }
    assert!(hitters.by_refusals(5 * MINUTE, 10, now).is_empty());
}

#[test]
fn a_flood_of_clients_hides_nobody_and_takes_bounded_memory() {
    let hitters = HeavyHitters::default();
    // A hundred thousand clients with two requests each, and one with a ninth of all.
    for number in 0..100_000 {
        hitters.count(client(number + 10), None, why(true), NOW);
        hitters.count(client(number + 10), None, why(true), NOW);
        if number % 4 == 0 {
            hitters.count(client(1), None, why(true), NOW);
        }
    }
    for top in [hitters.by_requests(MINUTE, 5, NOW), hitters.by_refusals(MINUTE, 5, NOW)] {
        assert_eq!(top[0].client, client(1));
        // A shard counted about 225,000 / 32, of which a 32nd may be missing; hashes do not spread clients quite
        // evenly.
        assert!(top[0].requests <= 25_000 && top[0].requests > 25_000 - 2_000, "{top:?}");
        assert!(top[1].requests <= 2, "what is shown is sure: {top:?}");
    }
    for shard in &hitters.requests.shards {
        let shard = shard.lock();
        let rows = |steps: &[Step]| steps.iter().map(|step| step.rows.capacity()).max();
        assert!(rows(&shard.fine) <= Some(2 * ROWS) && rows(&shard.coarse) <= Some(2 * ROWS));
    }
    let rows = SHARDS * (FINE.count + COARSE.count) * ROWS;
    let most = 2 * rows * (size_of::<Row>() + 4) + rows * MAX_REASONS * size_of::<RefusalReason>();
    assert!(most <= 20 << 20, "{most}");
}

#[test]
fn threads_lose_nothing() {
    let hitters = HeavyHitters::default();
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (hitters, barrier) = (&hitters, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for turn in 0..2_000 {
                    hitters.count(client(turn % 8), None, why(thread == 0), NOW);
                }
            });
        }
    });
    let top = hitters.by_requests(MINUTE, 100, NOW);
    assert_eq!(top.len(), 8);
    assert!(top.iter().all(|heavy| (heavy.requests, heavy.denied) == (1_000, 250)), "{top:?}");
}

#[test]
fn a_window_that_the_short_steps_do_not_cover_is_read_from_the_long_ones() {
    let hitters = HeavyHitters::default();
    let begin = COARSE.step_ns * 5_000;
    for second in 0..=3_600 {
        hitters.count(client(1), None, None, begin + second * SECOND_NS);
    }
    // A step of both kinds began just now, and has the last request.
    let now = begin + 3_600 * SECOND_NS;
    for (window, count) in [(0, 1), (300, 301), (315, 316), (330, 331)] {
        let top = hitters.by_requests(window * SECOND_NS, 10, now);
        assert_eq!(top.first().map_or(0, |heavy| heavy.requests), count, "{window}");
    }
    // A step that begins later is not in the window.
    hitters.count(client(2), None, None, now + COARSE.step_ns);
    for window in [5 * MINUTE, 6 * MINUTE] {
        assert_eq!(hitters.by_requests(window, 10, now).len(), 1);
    }
}

#[test]
fn what_rounds_to_nothing_is_not_shown() {
    let hitters = HeavyHitters::default();
    let (often, rarely) = (refusal("default", None), refusal("minute", Some("login")));
    let begin = COARSE.step_ns * 5_000;
    hitters.count(client(1), None, Some(&rarely), begin);
    (1..30).for_each(|_| hitters.count(client(1), None, Some(&often), begin));
    hitters.count(client(2), None, Some(&often), begin);
    // A third of the step is in the window.
    let top = hitters.by_refusals(5 * SECOND_NS, 10, begin + 15 * SECOND_NS);
    assert_eq!(shown(&top), [(client(1), 10, 10)]);
    assert_eq!(top[0].reasons, [RefusalReason { refusal: often.clone(), denied: 10 }]);
    assert_eq!((often.policy(), rarely.policy()), ("default", "rule"));
    let rounded = [(1, 4, 10), (1, 5, 10), (3, 5, 10), (7, 2, 3), (u64::MAX, 9, 3)]
        .map(|(counted, within, whole)| scaled(counted, within, whole));
    assert_eq!(rounded, [0, 1, 2, 5, u64::MAX]);
}

proptest! {
    /// The bound of one summary: never too high, and too low by at most one [`ROWS`]th.
    #[test]
    fn a_summary_is_within_its_bound(counted in proptest::collection::vec(0u32..200, 0..2_000)) {
        let mut step = Step::default();
        let mut exact: HashMap<u32, u64> = HashMap::new();
        for number in &counted {
            // Only seven tags, so that they collide.
            step.count(number % 7, client(*number), None, number % 2 == 0);
            *exact.entry(*number).or_default() += 1;
        }
        let bound = (counted.len() / ROWS) as u64;
        for (number, exact) in exact {
            let sure = step.rows.iter().find(|row| row.client == client(number)).map_or(0, |row| row.count - row.error);
            prop_assert!(sure <= exact && exact <= sure + bound, "{} of {}", sure, exact);
        }
        prop_assert!(step.rows.len() <= ROWS);
    }
}
