use super::*;
use crate::limit::Rate;
use proptest::prelude::*;

const SEC: Nanos = 1_000_000_000;

fn limit(capacity: u32, micro: u64, per_secs: u32) -> Limit {
    Limit { capacity, rate: Rate { micro, per_secs } }
}

/// One step of a table: when, cost, whether it is allowed, tokens left, wait.
struct Step(Nanos, u32, bool, u32, Option<Nanos>);

fn run(mut bucket: Bucket, steps: &[Step]) {
    for (i, Step(now, cost, allowed, left, wait_ns)) in steps.iter().enumerate() {
        let outcome = bucket.acquire(*cost, *now);
        assert_eq!(outcome, TakeOutcome { allowed: *allowed, left: *left, wait_ns: *wait_ns }, "step {i}");
    }
}

#[test]
fn a_new_bucket_is_full_and_refills_at_its_rate() {
    run(
        Bucket::full(limit(2, 4_000_000, 1), SEC),
        &[
            Step(SEC, 1, true, 1, Some(0)),
            Step(SEC, 1, true, 0, Some(SEC / 4)),
            Step(SEC, 1, false, 0, Some(SEC / 4)),
            Step(SEC + 1, 1, false, 0, Some(SEC / 4 - 1)),
            Step(SEC + SEC / 4 - 1, 1, false, 0, Some(1)),
            Step(SEC + SEC / 4, 1, true, 0, Some(SEC / 4)),
            // However long it waits, it never holds more than its capacity.
            Step(99 * SEC, 3, false, 2, None),
            Step(99 * SEC, 2, true, 0, Some(SEC / 4)),
        ],
    );
}

#[test]
fn a_refusal_takes_nothing_and_says_how_long_the_same_request_must_wait() {
    run(
        Bucket::full(limit(10, 1_000_000, 1), 0),
        &[
            Step(0, 8, true, 2, Some(0)),
            Step(0, 5, false, 2, Some(3 * SEC)),
            Step(0, 2, true, 0, Some(SEC)),
            Step(SEC / 2, 10, false, 0, Some(9 * SEC + SEC / 2)),
        ],
    );
}

#[test]
fn without_a_rate_it_never_refills_and_without_a_capacity_it_refuses_everything() {
    run(
        Bucket::full(limit(2, 0, 1), 0),
        &[Step(0, 1, true, 1, Some(0)), Step(SEC, 1, true, 0, None), Step(Nanos::MAX, 1, false, 0, None)],
    );
    run(
        Bucket::full(limit(0, 5_000_000, 1), 0),
        &[Step(0, 1, false, 0, None), Step(Nanos::MAX, 1, false, 0, None)],
    );
}

#[test]
fn a_clock_that_runs_back_changes_nothing() {
    run(
        Bucket::full(limit(1, 1_000_000, 1), 10 * SEC),
        &[
            Step(10 * SEC, 1, true, 0, Some(SEC)),
            Step(5 * SEC, 1, false, 0, Some(SEC)),
            Step(0, 1, false, 0, Some(SEC)),
            Step(10 * SEC + SEC / 2, 1, false, 0, Some(SEC / 2)),
            Step(9 * SEC, 1, false, 0, Some(SEC / 2)),
            Step(11 * SEC, 1, true, 0, Some(SEC)),
        ],
    );
}

#[test]
fn the_largest_and_the_smallest_numbers_fit() {
    let billion = Limit::MAX_CAPACITY;
    run(
        Bucket::full(limit(billion, Rate::MAX_MICRO, 1), 0),
        &[
            Step(0, billion, true, 0, Some(1)),
            Step(1, 1, true, 0, Some(1)),
            Step(Nanos::MAX, billion, true, 0, Some(1)),
        ],
    );
    // A millionth of a token a second: a million seconds for one.
    run(
        Bucket::full(limit(1, 1, 1), 0),
        &[
            Step(0, 1, true, 0, Some(1_000_000 * SEC)),
            Step(1_000_000 * SEC - 1, 1, false, 0, Some(1)),
            Step(1_000_000 * SEC, 1, true, 0, Some(1_000_000 * SEC)),
        ],
    );
    // Longer than 584 years.
    run(Bucket::full(limit(1, 1, 86_400), 0), &[Step(0, 1, true, 0, Some(Nanos::MAX))]);
    run(
        Bucket::full(limit(billion, 1, 86_400), 0),
        &[Step(0, billion, true, 0, Some(Nanos::MAX)), Step(Nanos::MAX, u32::MAX, false, 0, None)],
    );
}

#[test]
fn three_a_day_stays_three_a_day_when_it_is_asked_every_few_milliseconds() {
    // A third of a day is a whole number of nanoseconds, a millionth of a token is not.
    let day = 86_400 * SEC;
    let mut bucket = Bucket::full(limit(3, 3_000_000, 86_400), 0);
    let mut admitted = 0;
    let mut now = 0;
    while now <= 10 * day {
        admitted += u32::from(bucket.acquire(1, now).allowed);
        now += 13 * SEC + 7;
    }
    assert_eq!(admitted, 3 + 30 - 1);
    assert!(bucket.acquire(1, 10 * day + 13 * SEC).left <= 1);
}

#[test]
fn a_charge_can_leave_a_debt_that_is_refilled_first() {
    let mut bucket = Bucket::full(limit(10, 1_000_000, 1), 0);
    bucket.pay(14 * MICRO);
    assert_eq!((bucket.level_micro(), bucket.whole()), (-4 * MICRO, 0));
    assert_eq!(bucket.until_full(), Some(14 * SEC));
    let refused = bucket.acquire(1, 2 * SEC);
    assert_eq!(refused, TakeOutcome { allowed: false, left: 0, wait_ns: Some(3 * SEC) });
    bucket.pay(i64::MAX);
    bucket.pay(i64::MAX);
    assert_eq!(bucket.level_micro(), -MAX_DEBT);
    assert!(!bucket.is_full(1_000_000_009 * SEC) && bucket.is_full(1_000_000_012 * SEC));
}

#[test]
fn a_change_of_numbers_moves_the_level_by_as_much_as_the_capacity() {
    // capacity, taken, new capacity, level after
    let rows = [
        (10, 0, 20, 20),
        (10, 4, 20, 16),
        (10, 10, 20, 10),
        (20, 5, 10, 5),
        (20, 15, 10, 0),
        (20, 0, 10, 10),
        (10, 10, 10, 0),
        (10, 3, 0, 0),
        (0, 0, 7, 7),
    ];
    for (old, taken, new, level) in rows {
        let mut bucket = Bucket::full(limit(old, 0, 1), 0);
        assert!(bucket.acquire(taken, 0).allowed);
        bucket.retune(limit(new, 0, 1), 0);
        assert_eq!(bucket.whole(), level, "{old} − {taken} → {new}");
    }
    // What flowed in until the change did so at the old rate.
    let mut bucket = Bucket::full(limit(10, 1_000_000, 1), 0);
    bucket.acquire(10, 0);
    bucket.retune(limit(10, 60_000_000, 60), 3 * SEC + SEC / 2);
    assert_eq!(bucket.level_micro(), 3_500_000);
    assert_eq!(bucket.refilled(4 * SEC).level_micro(), 4_000_000);
    // The level stays at 0 or above, so a debt is forgiven.
    bucket.flow(4 * SEC);
    bucket.pay(100 * MICRO);
    bucket.retune(limit(10, 1_000_000, 1), 4 * SEC);
    assert_eq!(bucket.level_micro(), 0);
}

/// Spans that divide a day, so that the model needs no fractions.
const SPANS: [u32; 4] = [1, 60, 3_600, 86_400];

/// A simple model of the bucket: its level is one wide number, in units of 10^-15 of a token divided by the seconds of
/// a day.
struct Model {
    limit: Limit,
    level: i128,
    at: Nanos,
}

const UNIT: i128 = 1_000_000_000_000_000 * 86_400;

impl Model {
    fn refill(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let gained = i128::from(self.limit.rate.micro)
            .saturating_mul(i128::from(86_400 / self.limit.rate.per_secs))
            .saturating_mul(i128::from(elapsed));
        self.level = self.level.saturating_add(gained).min(i128::from(self.limit.capacity) * UNIT);
    }

    fn acquire(&mut self, cost: u32, now: Nanos) -> bool {
        self.refill(now);
        let price = i128::from(cost) * UNIT;
        let allowed = self.level >= price;
        if allowed {
            self.level -= price;
        }
        allowed
    }
}

fn any_limit() -> impl Strategy<Value = Limit> {
    let capacity = prop_oneof![0u32..20, 0..=Limit::MAX_CAPACITY];
    let micro = prop_oneof![Just(0u64), 1u64..10, 1u64..50_000_000, 0..=Rate::MAX_MICRO];
    (capacity, micro, prop::sample::select(&SPANS[..]))
        .prop_map(|(capacity, micro, per_secs)| limit(capacity, micro, per_secs))
}

/// How far the clock moves, and how much is asked for. The clock may go back.
fn any_steps() -> impl Strategy<Value = Vec<(i64, u32)>> {
    let moved = prop_oneof![
        3 => Just(0i64), 3 => 0i64..2_000_000_000, 2 => 0i64..100_000_000_000_000, 1 => 0..i64::MAX / 64,
        1 => -3_000_000_000i64..0
    ];
    let cost = prop_oneof![6 => Just(1u32), 2 => 0u32..12, 1 => any::<u32>()];
    prop::collection::vec((moved, cost), 1..60)
}

proptest! {
    #[test]
    fn it_agrees_with_the_plain_model_to_the_last_part(limit in any_limit(), start in 0u64..u64::MAX / 4,
                                                       steps in any_steps()) {
        let mut bucket = Bucket::full(limit, start);
        let mut model = Model { limit, level: i128::from(limit.capacity) * UNIT, at: start };
        let mut now = start;
        for (moved, cost) in steps {
            now = now.saturating_add_signed(moved);
            let outcome = bucket.acquire(cost, now);
            prop_assert_eq!(outcome.allowed, model.acquire(cost, now));
            prop_assert_eq!(i128::from(bucket.level_micro()), model.level.div_euclid(UNIT / i128::from(MICRO)));
            prop_assert_eq!(i128::from(outcome.left), model.level.div_euclid(UNIT));
        }
    }

    #[test]
    fn a_wait_is_exact(limit in any_limit(), cost in 1u32..10, idle in 0u64..1_000_000_000) {
        let mut bucket = Bucket::full(limit, 0);
        bucket.acquire(limit.capacity, 0);
        let refused = bucket.acquire(cost, idle);
        prop_assume!(!refused.allowed);
        match refused.wait_ns {
            None => prop_assert!(limit.rate.micro == 0 || cost > limit.capacity),
            Some(wait) if wait < u64::MAX / 2 => {
                let mut early = bucket;
                prop_assert!(!early.acquire(cost, idle + wait - 1).allowed);
                prop_assert!(bucket.acquire(cost, idle + wait).allowed);
            }
            Some(_) => {}
        }
    }

    #[test]
    fn until_full_is_exact(limit in any_limit(), taken in 1u32..20) {
        let mut bucket = Bucket::full(limit, 0);
        prop_assume!(bucket.acquire(taken, 0).allowed);
        match bucket.until_full() {
            None => prop_assert_eq!(limit.rate.micro, 0),
            Some(wait) if wait < u64::MAX => {
                prop_assert!(!bucket.is_full(wait - 1));
                prop_assert!(bucket.is_full(wait));
            }
            Some(_) => {}
        }
    }

    #[test]
    fn any_span_admits_at_most_the_capacity_and_what_flows_in(limit in any_limit(), steps in any_steps()) {
        let mut bucket = Bucket::full(limit, 0);
        let (mut now, mut admitted) = (0u64, Vec::new());
        for (moved, cost) in steps {
            // The rule holds for a clock that does not go back.
            now = now.saturating_add(moved.unsigned_abs());
            let tokens = if bucket.acquire(cost, now).allowed { u128::from(cost) } else { 0 };
            admitted.push((now, tokens));
        }
        let per_token = 1_000_000_000_000_000u128 * u128::from(limit.rate.per_secs);
        for first in 0..admitted.len() {
            let mut sum = 0;
            for (at, tokens) in &admitted[first..] {
                sum += tokens;
                let flown = u128::from(limit.rate.micro) * u128::from(at - admitted[first].0);
                prop_assert!((sum - u128::from(limit.capacity).min(sum)) * per_token <= flown);
            }
        }
    }

    #[test]
    fn a_level_stays_between_zero_and_the_capacity_through_every_change(
        limits in prop::collection::vec(any_limit(), 1..8), steps in any_steps()
    ) {
        let mut bucket = Bucket::full(limits[0], 0);
        let mut now = 0u64;
        for (i, (moved, cost)) in steps.into_iter().enumerate() {
            now = now.saturating_add_signed(moved);
            bucket.acquire(cost, now);
            if i % 3 == 2 {
                let (new, before) = (limits[i % limits.len()], bucket.refilled(now));
                bucket.retune(new, now);
                let moved = before.level_micro() + top(new) - top(before.limit());
                prop_assert_eq!(bucket.level_micro(), moved.clamp(0, top(new)));
                prop_assert!(!before.is_full(now) || bucket.is_full(now));
            }
            prop_assert!((0..=top(bucket.limit())).contains(&bucket.level_micro()));
            prop_assert!(bucket.carry < parts(bucket.limit()));
        }
    }
}

#[test]
fn no_price_is_too_high_for_a_debt() {
    let mut bucket = Bucket::full(Limit { capacity: 1, rate: Rate::per_second(0) }, 0);
    bucket.pay(5 * MICRO);
    bucket.lower(i64::MAX, -9 * MICRO);
    assert_eq!(bucket.level_micro(), -9 * MICRO);
}

#[test]
fn a_bucket_is_restored_as_it_would_be_by_now() {
    let limit = limit(10, 1_000_000, 1);
    for (level, age, restored) in [
        (2_500_000, 3 * SEC, 5_500_000),
        (-4 * MICRO, SEC, -3 * MICRO),
        (i64::MIN, 0, -MAX_DEBT),
        (i64::MAX, 0, 10 * MICRO),
        (0, 99 * SEC, 10 * MICRO),
    ] {
        let mut bucket = Bucket::restored(limit, level, age, 100 * SEC);
        assert_eq!(bucket.level_micro(), restored, "{level} {age}");
        assert_eq!(bucket.flow(101 * SEC), 1_000_000, "its clock stands at now");
    }
}

#[test]
fn a_level_is_moved_by_hand_within_its_bounds() {
    let mut bucket = Bucket::full(limit(10, 1_000_000, 1), 0);
    bucket.pay(6 * MICRO);
    for (lifted, level) in [(2, 6), (-3, 6), (3, 9), (5, 10)] {
        bucket.lift(lifted * MICRO);
        assert_eq!(bucket.level_micro(), level * MICRO, "{lifted}");
    }
    bucket.shift(-13 * MICRO);
    assert_eq!(bucket.level_micro(), -3 * MICRO);
    bucket.shift(MICRO);
    assert_eq!(bucket.level_micro(), -2 * MICRO);
    bucket.lower(MICRO, 5 * MICRO);
    assert_eq!(bucket.level_micro(), -2 * MICRO, "below the floor already");
    bucket.forgive(SEC);
    assert_eq!(bucket.level_micro(), 0);
    bucket.forgive(4 * SEC);
    assert_eq!(bucket.level_micro(), 3 * MICRO, "there was no debt");
    // Filling an earlier instant does not turn its clock back.
    bucket.flow(4 * SEC + 1);
    bucket.fill(2 * SEC);
    assert_eq!((bucket.level_micro(), bucket.carry, bucket.at), (10 * MICRO, 0, 4 * SEC + 1));
    bucket.fill(9 * SEC);
    assert_eq!(bucket.at, 9 * SEC);
}

#[test]
fn a_remainder_is_kept_through_a_change_unless_the_level_meets_a_bound() {
    // A millionth every second, of which a quarter has flown in.
    let slow = limit(10, 1, 1);
    let mut bucket = Bucket::full(slow, 0);
    bucket.pay(5 * MICRO);
    bucket.flow(SEC / 4);
    let quarter = SEC / 4;
    for (new, carry) in [
        (slow, quarter),
        (limit(10, 60, 60), 60 * quarter),
        (limit(12, 1, 1), quarter),
        (limit(5, 1, 1), quarter),
        (limit(4, 1, 1), 0),
    ] {
        let mut changed = bucket;
        changed.retune(new, quarter);
        assert_eq!(changed.carry, carry, "{new:?}");
    }
    bucket.lift(5 * MICRO);
    bucket.retune(slow, quarter);
    assert_eq!(bucket, Bucket::full(slow, quarter));
}

#[test]
fn sums_beyond_64_bits_keep_their_remainder() {
    let micro = 1_999_999_999;
    let mut bucket = Bucket::full(limit(Limit::MAX_CAPACITY, micro, 1), 0);
    bucket.pay(MAX_DEBT);
    assert_eq!((bucket.flow(1), bucket.carry), (1, 999_999_999));
    let whole = 10_u128.pow(24).div_ceil(micro.into()) as Nanos;
    assert_eq!(bucket.until_full(), Some(whole - 1));
    let mut bucket = Bucket::full(limit(Limit::MAX_CAPACITY, Rate::MAX_MICRO - 1, 1), 0);
    bucket.pay(MAX_DEBT);
    assert_eq!((bucket.flow(1), bucket.carry), (999_999, 999_999_999));
    assert_eq!((bucket.flow(20_001), bucket.carry), (20_000_000_000, 999_979_999));
    assert_eq!(bucket.level_micro(), 20_000_999_999);
}
