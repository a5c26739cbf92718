use super::*;
use crate::backend_state::State;
use crate::backends::BackendReport;

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
    pool.snapshot().endpoints()[1..].iter().for_each(|one| down(one, "late"));
    let cause = "127.0.0.1:9000: refused; 127.0.0.2:9000: late; 127.0.0.3:9000: late; 2 more of 5 addresses";
    told(State::Down, false, "down", cause);

    replace(&pool, "a", &[]);
    told(State::Down, false, "down", "its name has no address yet");
    group.set_absence("x does not resolve");
    told(State::Down, false, "down", "x does not resolve");
}
