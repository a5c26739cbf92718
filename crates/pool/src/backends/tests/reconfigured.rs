//! A new configuration: backends that stay keep their state, and requests in flight end at the endpoint where they
//! began.

use super::*;

pub(super) fn placed(entry: BackendEntry, last: u8) -> Placed {
    Placed { entry, addresses: vec![address(last).into()], operator: None }
}

fn entry(name: &str) -> BackendEntry {
    BackendEntry::new(name, "backend.test", 9000)
}

fn reconfigured(added: &[&str], moved: &[&str], removed: &[&str]) -> Reconfigured {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    Reconfigured { added: names(added), moved: names(moved), removed: names(removed), left_out: 0 }
}

#[test]
fn what_stays_keeps_counters_health_and_the_operators_word() {
    let clock = Clock::manual();
    let pool = of_entries(Strategy::RoundRobin, &[entry("a"), entry("b"), entry("c")], clock.now());
    let before = pool.snapshot();
    let [a, b, c] = [0, 1, 2].map(|index| Arc::clone(&before.endpoints()[index]));
    let on_c = before.pick(&wanted(&[a.id, b.id])).unwrap();
    pool.set_health(&b, Status::Down, NOW);
    b.group.set_operator(Operator::Drain);
    for one in [&a, &b] {
        [true, true, false].into_iter().for_each(|passed| one.group.count_check(passed));
    }
    a.group.set_operator(Operator::Down);
    (0..3).for_each(|_| a.group.count_resent());
    a.group.count_delivered(42);

    // `a` moves, `b` gets another weight and bound, `c` goes and `d` comes, all in another order.
    let moved = BackendEntry { port: 9001, ..entry("a") };
    let changed = BackendEntry { weight: 5, backup: true, max_in_flight: most(3), ..entry("b") };
    assert_eq!(pool.new_among(&[moved.clone(), changed.clone(), entry("d")]), [&moved, &entry("d")]);
    let list = [placed(entry("d"), 4), placed(changed, 99), placed(moved, 9)];
    let told = pool.reconfigure(&Settings::of(Strategy::First), &list, NOW);
    assert_eq!(told, reconfigured(&["d"], &["a"], &["c"]));
    assert_eq!(names(&pool), [("d".into(), address(4)), ("b".into(), address(2)), ("a".into(), address(9))]);

    let after = pool.snapshot();
    assert!(Arc::ptr_eq(&b, &after.endpoints()[1]), "it was carried over");
    assert_eq!((b.health(), b.group.operator(), b.group.checks()), (Status::Down, Operator::Drain, (2, 1)));
    assert_eq!((b.group.weight(), b.group.backup(), b.group.max_in_flight()), (5, true, 3));
    let moved = &after.endpoints()[2];
    assert_ne!(moved.id, a.id, "at another place it is another endpoint");
    let counts = (moved.group.checks(), moved.group.resent(), moved.group.delivered());
    assert_eq!((counts, moved.group.operator()), (((2, 1), 3, 42), Operator::Down));
    assert!(Arc::ptr_eq(&moved.group.queue, pool.queue()));
    // The request at the backend that is gone is counted there until it ends.
    assert_eq!((c.in_flight(), c.group.in_flight()), (1, 1));
    drop(on_c);
    assert_eq!((c.in_flight(), c.group.in_flight()), (0, 0));
    assert_eq!(pick(&pool, &[]).unwrap().endpoint.backend.as_ref(), "d", "the new strategy is in force");
}

#[test]
fn a_bound_on_the_pool_goes_on_counting() {
    let bounded = |most| Settings { max_in_flight: Some(most), ..Settings::of(Strategy::RoundRobin) };
    let pool = Backends::new(&bounded(3), &[entry("a")]);
    replace(&pool, "a", &[address(1)]);
    let held = [pick(&pool, &[]).unwrap(), pick(&pool, &[]).unwrap()];
    pool.reconfigure(&bounded(2), &[placed(entry("a"), 1)], NOW);
    assert_eq!(pool.snapshot().pick(&wanted(&[])).unwrap_err(), Unavailable::Full);
    drop(held);
    let _held = [pick(&pool, &[]).unwrap(), pick(&pool, &[]).unwrap()];
    pool.reconfigure(&Settings::of(Strategy::RoundRobin), &[placed(entry("a"), 1)], NOW);
    assert!(pick(&pool, &[]).is_some());
}

#[test]
fn without_health_checks_everybody_is_up_and_new_ones_begin_as_the_settings_say() {
    let settings = |checked| Settings { checked, ..Settings::of(Strategy::RoundRobin) };
    let pool = Backends::new(&settings(true), &[entry("a")]);
    replace(&pool, "a", &[address(1)]);
    let a = Arc::clone(&pool.snapshot().endpoints()[0]);
    assert_eq!(a.health(), Status::Unknown);
    pool.set_health(&a, Status::Down, NOW);
    assert!(pick(&pool, &[]).is_none());
    pool.reconfigure(&settings(false), &[placed(entry("a"), 1)], NOW);
    assert_eq!(a.health(), Status::Up);
    pool.reconfigure(&settings(true), &[placed(entry("a"), 1), placed(entry("b"), 2)], NOW);
    let health: Vec<_> = pool.snapshot().endpoints().iter().map(|one| one.health()).collect();
    assert_eq!(health, [Status::Up, Status::Unknown]);
}

#[test]
fn tokens_follow_the_secret() {
    let settings = |secret: Option<&str>| Settings {
        sticky: secret.map(|text| SigningKey::new(text.as_bytes())),
        ..Settings::of(Strategy::RoundRobin)
    };
    let pool = Backends::new(&settings(None), &[entry("a")]);
    replace(&pool, "a", &[address(1)]);
    let token = || pool.snapshot().endpoints()[0].token().map(|token| token.as_str().to_owned());
    assert_eq!(token(), None);
    let mut seen = HashSet::new();
    for secret in ["one", "two"] {
        pool.reconfigure(&settings(Some(secret)), &[placed(entry("a"), 1)], NOW);
        assert!(seen.insert(token().unwrap()));
    }
    pool.reconfigure(&settings(None), &[placed(entry("a"), 1)], NOW);
    assert_eq!(token(), None);
}

#[test]
fn the_bound_on_endpoints_keeps_whom_there_is() {
    let pool = of_entries(Strategy::RoundRobin, &[entry("a")], NOW);
    let many: Vec<_> = (0..MAX_ENDPOINTS)
        .map(|index| SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 80)).into())
        .collect();
    let list = [Placed { entry: entry("b"), addresses: many, operator: None }, placed(entry("a"), 1)];
    assert_eq!(pool.reconfigure(&Settings::of(Strategy::RoundRobin), &list, NOW).left_out, 1);
    assert_eq!(pool.snapshot().endpoints().len(), MAX_ENDPOINTS);
    assert_eq!(names(&pool).last(), Some(&("a".into(), address(1))));
}

/// Requests go on while the pool is configured again and again: none finds the pool empty, and at the end all counts
/// are zero.
#[test]
fn nobody_is_lost_while_configurations_change() {
    const ROUNDS: u32 = 500;
    for strategy in STRATEGIES {
        let pool = of_entries(strategy, &[entry("a"), entry("b")], NOW);
        let (start, done) = (Barrier::new(5), AtomicBool::new(false));
        let seen = Mutex::new(HashMap::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    while !done.load(Ordering::Relaxed) {
                        let lease = pool.snapshot().pick(&wanted(&[])).expect("somebody is always there");
                        seen.lock().entry(lease.endpoint.id).or_insert_with(|| Arc::clone(&lease.endpoint));
                    }
                });
            }
            start.wait();
            for round in 0..ROUNDS {
                // `a` moves each time and `b` goes each second time, so the only endpoint may be a new one.
                let port = 9000 + (round % 7) as u16;
                let moved = BackendEntry { port, ..entry("a") };
                let settings = Settings { max_in_flight: Some(1_000), ..Settings::of(strategy) };
                let list =
                    [placed(moved, 1), placed(BackendEntry { weight: 1 + round % 3, ..entry("b") }, 2)];
                pool.reconfigure(&settings, &list[..1 + round as usize % 2], NOW);
            }
            done.store(true, Ordering::Relaxed);
        });
        let seen = seen.into_inner();
        assert!(seen.values().all(|one| one.in_flight() == 0 && one.group.in_flight() == 0), "{strategy:?}");
        assert!(pool.snapshot().backends().iter().all(|group| group.in_flight() == 0));
    }
}

#[test]
fn new_backends_share_what_room_there_is() {
    let pool = Backends::new(&Settings::of(Strategy::RoundRobin), &[]);
    let list = ["a", "b", "c"].map(|name| {
        let of = |index: usize| {
            SocketAddr::from(([10, name.as_bytes()[0], (index >> 8) as u8, index as u8], 80)).into()
        };
        Placed { entry: entry(name), addresses: (0..400).map(of).collect(), operator: None }
    });
    let told = pool.reconfigure(&Settings::of(Strategy::RoundRobin), &list, NOW);
    assert_eq!(told.left_out, 3 * 400 - MAX_ENDPOINTS);
    let counts = pool.backends().iter().map(|group| pool.snapshot().own(group).count()).collect::<Vec<_>>();
    assert_eq!(counts, [400, 400, MAX_ENDPOINTS - 800]);
}
