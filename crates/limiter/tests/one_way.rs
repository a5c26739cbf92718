//! An instance that hears the others but is not heard by them, or the other way round; simulated.

mod simulation;

use balancer_limiter::limit::{Limit, Rate};
use simulation::{Carrier, SEC, START, World};

fn limit(capacity: u32, per_second: f64) -> Limit {
    Limit { capacity, rate: Rate::per_second((per_second * 1e6) as u64) }
}

const USUAL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

/// The first instance can't send for 40 s, but hears the others.
fn one_is_mute(instances: usize, limit: Limit) -> World {
    let mut world = World::new(instances, limit, Carrier::default(), 5);
    world.mute = Some((START + 10 * SEC, START + 50 * SEC));
    world
}

#[test]
fn what_one_spends_that_nobody_hears_is_missing_once_when_it_is_heard_again() {
    let daily = limit(1_000, 1_000.0 / 86_400.0);
    // Tokens spent at the first instance, at another one, and at the first one before it can't send.
    for (instances, own, others, before) in
        [(2, 300, 500, 0), (3, 300, 500, 0), (2, 300, 0, 100), (3, 0, 500, 100), (2, 40, 300, 300)]
    {
        let mut world = one_is_mute(instances, daily);
        let ask = |world: &mut World, at, number, count| {
            (0..count).filter(|step| world.ask(number, at + step * SEC / 1_000)).count() as u64
        };
        let mut admitted = ask(&mut world, START + 9 * SEC + SEC / 2, 0, before);
        admitted += ask(&mut world, START + 12 * SEC, 0, own);
        admitted += ask(&mut world, START + 15 * SEC, 1, others);
        let name = format!("{instances}, {own} and {others}");
        assert_eq!(admitted, before + own + others, "{name}: nobody has spent more");
        let left = |admitted: u64| 1_000 - admitted;
        // The first instance knows what the others spent; they do not know what it spent.
        let heard =
            (0..1_000).take_while(|at| world.ask(0, START + 20 * SEC + at * 1_000_000)).count() as u64;
        assert!(heard.abs_diff(left(admitted)) <= 2, "{name}: {heard}");
        let more = ask(&mut world, START + 52 * SEC, 1, 1_000);
        assert!(more <= 2, "{name}: {more} beyond the budget");
    }
}

#[test]
fn nobody_is_refused_because_one_could_not_make_itself_heard() {
    let end = START + 50 * SEC;
    for instances in [2, 3] {
        let mut world = one_is_mute(instances, USUAL);
        // 45 a second, at another instance every five seconds; then the whole capacity at one of them.
        for at in 0..70 * 45 {
            let number = (at / 225) as usize % instances;
            assert!(world.ask(number, START + at * SEC / 45), "{instances}: {at}");
        }
        let mut world = one_is_mute(instances, USUAL);
        for step in 0..100 {
            assert!(world.ask(0, START + 20 * SEC + step));
        }
        for step in 0..100 {
            assert!(
                world.ask(1, end + 2 * SEC + step * SEC / 1_000),
                "what was spent long ago has flowed in"
            );
        }
    }
}

#[test]
fn while_one_is_not_heard_the_others_and_it_give_out_one_budget_and_no_more_than_a_bucket_beside() {
    for instances in [2, 3] {
        let mut world = one_is_mute(instances, USUAL);
        let requests = 60 * 600;
        let admitted =
            (0..requests).filter(|at| world.ask(*at as usize % instances, START + at * SEC / 600)).count();
        assert!((3_050..=3_220).contains(&admitted), "{instances}: {admitted}");
    }
}

/// The first instance hears nothing for 40 s, and then everything at once; the others go on.
#[test]
fn whoever_heard_nothing_for_a_while_knows_afterwards_what_was_spent() {
    let daily = limit(1_000, 1_000.0 / 86_400.0);
    for (instances, own, others) in [(2, 0, 500), (2, 100, 500), (3, 100, 500), (2, 100, 0), (2, 100, 50)] {
        let mut world = World::new(instances, daily, Carrier::default(), 5);
        // All instances know of these.
        let before = (0..200).filter(|at| world.ask(1, START + 8 * SEC + at * SEC / 100)).count() as u64;
        world.deaf = Some((START + 10 * SEC, START + 50 * SEC));
        for step in 0..own.max(others) {
            assert!(step >= others || world.ask(1, START + 15 * SEC + step * SEC / 100));
            assert!(step >= own || world.ask(0, START + 15 * SEC + step * SEC / 100));
        }
        let left = 1_000 - before - own - others;
        let seen = (0..1_000).filter(|at| world.ask(0, START + 52 * SEC + at * SEC / 1_000)).count() as u64;
        // It holds the smallest part, and assumes that the others give out theirs; and others may hide a few tokens.
        let least = left - (own * (2 * instances as u64 - 1)).saturating_sub(others);
        let most = left + 1_000 / (4 * instances as u64) + 2;
        assert!((least - 2..=most).contains(&seen), "{instances}, {own} and {others}: {seen} of {left}");
    }
}
