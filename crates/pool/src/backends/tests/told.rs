use super::*;
use crate::backend_state::State;
use crate::backends::BackendReport;
use crate::health::LastCheck;
use crate::outlier::OutlierPolicy;

#[test]
fn the_operators_word_comes_first_and_health_stands_apart() {
    let pool = pool(Strategy::RoundRobin, &[1]);
    let group = Arc::clone(&pool.backends()[0]);
    let down = |endpoint: &Endpoint, cause: &str| {
        endpoint.set_failing(cause);
        pool.set_health(endpoint, Status::Down, NOW);
    };
    let told = |state, up, health, cause: &str| {
        let cause = Some(cause.to_owned()).filter(|cause| !cause.is_empty());
        assert_eq!(pool.snapshot().told(&group), BackendReport { state, up, health, cause });
    };
    told(State::Up, true, "up", "");
    group.set_operator(Operator::Drain);
    told(State::Drain, false, "up", "the operator drains it");
    down(&pool.snapshot().endpoints()[0], "refused");
    told(State::Drain, false, "down", "the operator drains it; refused");
    group.set_operator(Operator::Up);
    told(State::Down, false, "down", "refused");

    // If one address of several is down, the backend is up and tells which address is down.
    let all: Vec<_> = (1..=5).map(address).collect();
    replace(&pool, "a", &all);
    told(State::Up, true, "up", "127.0.0.1:9000: refused");
    let late = |range: std::ops::Range<usize>| {
        pool.snapshot().endpoints()[range].iter().for_each(|one| down(one, "late"));
    };
    late(1..3);
    told(State::Up, true, "up", "127.0.0.1:9000: refused; 127.0.0.2:9000: late; 127.0.0.3:9000: late");
    late(3..5);
    let cause = "127.0.0.1:9000: refused; 127.0.0.2:9000: late; 127.0.0.3:9000: late; 2 more of 5 addresses";
    told(State::Down, false, "down", cause);

    replace(&pool, "a", &[]);
    told(State::Down, false, "down", "its name has no address yet");
    group.set_absence("x does not resolve");
    told(State::Down, false, "down", "x does not resolve");
}

#[test]
fn what_answers_took_out_and_what_was_never_checked_is_told() {
    let outlier = OutlierPolicy { consecutive: 1, ratio: None, window: 10, base_time: 10 };
    let outlier = Some(outlier);
    let settings =
        Settings { checked: true, outlier, max_ejected: 1.0, ..Settings::of(Strategy::RoundRobin) };
    let pool = Backends::new(&settings, &[BackendEntry::new("a", "backend.test", 9000)]);
    replace(&pool, "a", &[address(1)]);
    let (snapshot, group) = (pool.snapshot(), Arc::clone(&pool.backends()[0]));
    let endpoint = &snapshot.endpoints()[0];
    let told = |state, health, cause: Option<&str>| {
        let report =
            BackendReport { state, up: state != State::Down, health, cause: cause.map(str::to_owned) };
        assert_eq!(snapshot.told(&group), report);
        assert_eq!((endpoint.health_word(), endpoint.cause().as_deref()), (health, cause));
    };
    told(State::Up, "unknown", None);
    assert!(!endpoint.is_ejected());
    let mut lease = snapshot.pick(&wanted(&[])).unwrap();
    assert!(snapshot.observe(&mut lease, 1, true, NOW).is_some());
    told(State::Ejected, "ejected", Some("its answers took it out"));
    assert!(endpoint.is_ejected());
    endpoint.set_ejected_for("three of three failed");
    told(State::Ejected, "ejected", Some("three of three failed"));
    pool.set_health(endpoint, Status::Down, NOW);
    told(State::Down, "down", Some("its health checks fail"));
    pool.set_health(endpoint, Status::Up, NOW);
    told(State::Up, "up", None);
}

#[test]
fn a_backend_counts_and_is_named_by_its_pool() {
    let settings = Settings { pool: "api".into(), ..Settings::of(Strategy::RoundRobin) };
    let entries = ["a", "b"].map(|name| BackendEntry::new(name, "backend.test", 9000));
    let pool = Backends::new(&settings, &entries);
    let [a, b] = pool.backends().try_into().unwrap();
    assert_eq!((&**pool.name(), &*a.title, a.url()), ("api", "api/a", "http://backend.test:9000"));
    assert_eq!(title(DEFAULT_POOL, "a"), "a");
    [true, true, false].into_iter().for_each(|passed| a.count_check(passed));
    (0..3).for_each(|_| a.count_resent());
    a.count_delivered(40);
    a.count_delivered(2);
    assert_eq!((a.checks(), a.resent(), a.delivered()), ((2, 1), 3, 42));
    // Only the backend of that name and URL hears why it has no address.
    pool.set_absence(&BackendEntry { port: 9001, ..entries[0].clone() }, "late");
    assert_eq!((a.absence(), b.absence()), (None, None));
    pool.set_absence(&entries[1], "unknown");
    assert_eq!((a.absence(), b.absence().as_deref()), (None, Some("unknown")));
    // The last check of an endpoint.
    replace(&pool, "a", &[address(1)]);
    let snapshot = pool.snapshot();
    let endpoint = &snapshot.endpoints()[0];
    assert_eq!(endpoint.last_check(), None);
    let check = LastCheck { passed: true, came: "GET /: status 200".into(), took: 1, ended: NOW };
    endpoint.set_last_check(check.clone());
    assert_eq!(endpoint.last_check().as_deref(), Some(&check));
}
