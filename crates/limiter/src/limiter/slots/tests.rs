mod kept;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::bucket::TakeOutcome;
use crate::limit::Rate;
use crate::limiter::{Grant, Room};
use crate::request_rules::{Effect, RequestRule};
use crate::terms::{BucketName, Mode, Terms};

const SEC: Nanos = NANOS_PER_SEC;

const HOUR: u64 = 3_600;

fn spec(name: &str, capacity: u32, micro: u64, mode: Mode) -> BucketSpec {
    let limit = Limit { capacity, rate: Rate::per_second(micro) };
    BucketSpec { mode, ..BucketSpec::new(BucketName::parse(name).unwrap(), limit) }
}

fn grant(buckets: Vec<BucketSpec>) -> Grant {
    Grant::of_default(Terms { buckets: buckets.into(), ..Terms::default() })
}

fn of_rule(rule: u32, capacity: u32) -> BucketSpec {
    BucketSpec { id: BucketId::of_rule(&rule.to_string(), "a"), ..spec("a", capacity, 0, Mode::Enforced) }
}

fn at(secs: u64) -> Moment {
    Moment { now: secs * SEC, wall_s: 1_000 * HOUR + secs }
}

const UNSAID: Verdict =
    Verdict { outcome: TakeOutcome { allowed: false, left: 0, wait_ns: None }, resets: false };

/// Whether a request is allowed, and the answer of every bucket.
fn ask(slots: &mut Slots, grant: &Grant, cost: u32, when: Moment) -> (bool, Vec<Verdict>) {
    let ask = Ask { cost, ..Ask::of(grant) };
    let mut verdicts = vec![UNSAID; grant.terms.buckets.len()];
    (slots.acquire(ask, when, &mut verdicts), verdicts)
}

#[test]
fn a_slot_takes_64_bytes() {
    assert_eq!(size_of::<Slot>(), 64);
}

#[test]
fn a_bucket_with_a_reset_is_filled_at_the_turn_and_at_no_other_time() {
    let hourly = BucketSpec { reset: Some(Reset::Hour), ..spec("hour", 2, 1_000_000, Mode::Enforced) };
    let grant = grant(vec![hourly]);
    let mut slots = Slots::default();
    // Wall clock in seconds from the beginning of an hour, allowed, left, seconds to wait. The monotonic clock goes on.
    let steps = [
        (3_000, true, 1, 600),
        (3_599, true, 0, 1),
        (3_599, false, 0, 1),
        (3_600, true, 1, 3_600),
        (3_601, true, 0, 3_599),
        // Back into the hour before: nothing is filled, and the next hour is again the one that fills it.
        (3_000, false, 0, 600),
        (3_600, true, 1, 3_600),
        (3_601, true, 0, 3_599),
        (7_199, false, 0, 1),
        // Several periods at once fill it once.
        (20_000, true, 1, 1_600),
    ];
    for (place, (wall, allowed, left, wait)) in steps.into_iter().enumerate() {
        let when = Moment { now: (place as u64 + 1) * 1_000 * SEC, wall_s: 1_000 * HOUR + wall };
        let (got, verdicts) = ask(&mut slots, &grant, 1, when);
        let outcome = TakeOutcome { allowed, left, wait_ns: Some(wait * SEC) };
        assert_eq!((got, verdicts[0]), (allowed, Verdict { outcome, resets: true }), "step {place}");
    }
    // As much as it can hold, and more than that.
    assert_eq!(ask(&mut slots, &grant, 2, at(20_000)).1[0].outcome.wait_ns, Some(1_600 * SEC));
    assert_eq!(ask(&mut slots, &grant, 3, at(20_000)).1[0].outcome.wait_ns, None);
}

/// Seconds by which a wall clock is wrong before it is set right.
const STEPS: [u64; 4] = [60, HOUR, 24 * HOUR, 3_653 * 24 * HOUR];

#[test]
fn a_clock_that_ran_ahead_and_was_set_right_refuses_for_the_rest_of_one_period() {
    let periods = [(Reset::Hour, HOUR), (Reset::Day, 24 * HOUR), (Reset::Month, 31 * 24 * HOUR)];
    for ((reset, longest), ahead) in periods.into_iter().flat_map(|one| STEPS.map(|ahead| (one, ahead))) {
        let grant = grant(vec![BucketSpec { reset: Some(reset), ..spec("x", 2, 0, Mode::Enforced) }]);
        // Just before, at and just after 2026-03-01T00:00:00Z, where a period of each kind begins.
        for wall_s in [1_772_323_170, 1_772_323_200, 1_772_323_230] {
            let said = format!("{reset:?}, {ahead} s ahead at {wall_s}");
            let at = |wall_s, secs| Moment { now: (1_000 + secs) * SEC, wall_s };
            let mut slots = Slots::default();
            assert!(ask(&mut slots, &grant, 2, at(wall_s + ahead, 0)).0, "{said}");
            let saved = slots.iter().next().unwrap().saved(1_000 * SEC);
            let mut restored = Slots::default();
            restored.restore(Slot::restored(&saved, 0, at(wall_s, 1)), at(wall_s, 1));
            for mut slots in [slots, restored] {
                let (allowed, verdicts) = ask(&mut slots, &grant, 1, at(wall_s, 1));
                let wait = verdicts[0].outcome.wait_ns.unwrap() / SEC;
                assert!(!allowed && (1..=longest).contains(&wait), "{said}: {allowed}, {wait} s to wait");
                assert_eq!(
                    slots.iter().next().unwrap().until_full(at(wall_s, 1)),
                    Some(wait * SEC),
                    "{said}"
                );
                assert!(!ask(&mut slots, &grant, 1, at(wall_s + wait - 1, wait)).0, "{said}");
                assert!(ask(&mut slots, &grant, 2, at(wall_s + wait, 1 + wait)).0, "{said}");
            }
        }
    }
}

#[test]
fn a_clock_that_was_set_back_leaves_the_level_alone() {
    let daily = BucketSpec { reset: Some(Reset::Day), ..spec("day", 5, 0, Mode::Enforced) };
    let grant = grant(vec![daily]);
    for back in STEPS {
        let wall_s = 1_772_323_230;
        let mut slots = Slots::default();
        assert_eq!(ask(&mut slots, &grant, 2, Moment { now: SEC, wall_s }).1[0].outcome.left, 3);
        let when = Moment { now: 2 * SEC, wall_s: wall_s - back };
        assert_eq!(ask(&mut slots, &grant, 1, when).1[0].outcome.left, 2, "{back} s back");
        // The Unix epoch, which a clock without a battery shows.
        let when = Moment { now: 3 * SEC, wall_s: 0 };
        assert_eq!(ask(&mut slots, &grant, 1, when).1[0].outcome.left, 1, "{back} s back");
    }
}

#[test]
fn a_bucket_carries_its_level_into_a_reset_and_out_of_it() {
    let plain = grant(vec![spec("x", 10, 1_000_000, Mode::Enforced)]);
    let hourly = BucketSpec { reset: Some(Reset::Hour), ..plain.terms.buckets[0].clone() };
    let hourly = grant(vec![hourly]);
    let mut slots = Slots::default();
    ask(&mut slots, &plain, 10, at(0));
    assert_eq!(ask(&mut slots, &hourly, 1, at(3)).1[0].outcome.left, 2);
    assert_eq!(ask(&mut slots, &hourly, 1, at(1_000)).1[0].outcome.left, 1);
    assert_eq!(ask(&mut slots, &plain, 1, at(1_000)).1[0].outcome.left, 0);
    assert!(!ask(&mut slots, &plain, 1, at(1_000)).0 && ask(&mut slots, &plain, 1, at(1_001)).0);
}

#[test]
fn a_shadow_bucket_takes_tokens_of_what_is_allowed_alone_and_keeps_its_level() {
    let [day, trial] = [Mode::Enforced, Mode::Shadow].map(|mode| spec("trial", 3, 0, mode));
    let shadowed = grant(vec![spec("day", 5, 0, Mode::Enforced), trial]);
    let mut slots = Slots::default();
    for left in [2, 1, 0, 0, 0] {
        let (allowed, verdicts) = ask(&mut slots, &shadowed, 1, at(0));
        assert!(allowed);
        assert_eq!(verdicts[1].outcome.left, left);
    }
    assert!(!ask(&mut slots, &shadowed, 1, at(0)).0);
    let mut slots = Slots::default();
    ask(&mut slots, &shadowed, 2, at(0));
    // A request that the other bucket refuses takes no tokens.
    assert!(!ask(&mut slots, &shadowed, 4, at(0)).0);
    assert_eq!(
        ask(&mut slots, &grant(vec![day]), 1, at(0)),
        (
            true,
            vec![Verdict { outcome: TakeOutcome { allowed: true, left: 0, wait_ns: None }, resets: false }]
        )
    );
}

#[test]
fn of_too_many_names_the_fullest_that_is_not_asked_for_goes() {
    let one = |number: u32| grant(vec![spec(&number.to_string(), 100, 0, Mode::Enforced)]);
    let mut slots = Slots::default();
    for number in 0..MAX_OF_LIMITS as u32 {
        // The one with number 5 is the fullest.
        ask(&mut slots, &one(number), if number == 5 { 1 } else { 50 }, at(0));
    }
    ask(&mut slots, &one(99), 1, at(0));
    assert_eq!(slots.iter().count(), MAX_OF_LIMITS);
    assert!(slots.get(BucketId::of("5"), at(0)).is_none() && slots.get(BucketId::of("4"), at(0)).is_some());
    // Buckets of rules and routes have a bound of their own.
    const RULES: u32 = 1_000;
    for rule in 0..RULES {
        let rule = RequestRule::new("a", Vec::new(), "/", Effect::Buckets([of_rule(rule, 2)].into()));
        let ask = Ask { grant: None, rules: &[&rule], cost: 1, room: Room::Own };
        assert!(slots.acquire(ask, at(0), &mut [UNSAID]));
    }
    assert_eq!(slots.iter().count(), MAX_OF_LIMITS + RULES as usize);
    assert!(slots.get(of_rule(0, 2).id, at(0)).is_some());
    slots.forget_limits();
    assert_eq!(slots.iter().count(), RULES as usize);
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn any_terms() -> impl Strategy<Value = Grant> {
    let numbers = (0u32..12, prop_oneof![Just(0u64), 1u64..3_000_000], any::<bool>());
    let names = Just(NAMES.to_vec()).prop_shuffle();
    (names, prop::collection::vec(numbers, 1..=4)).prop_map(|(names, numbers)| {
        let mode = |shadow| if shadow { Mode::Shadow } else { Mode::Enforced };
        let specs = names.iter().zip(numbers);
        grant(
            specs
                .map(|(name, (capacity, micro, shadow))| spec(name, capacity, micro, mode(shadow)))
                .collect(),
        )
    })
}

/// Steps: index of the terms, cost, and time since the last request.
fn any_steps() -> impl Strategy<Value = Vec<(usize, u32, u64)>> {
    prop::collection::vec((0usize..3, 0u32..4, prop_oneof![Just(0u64), 0..4 * SEC]), 1..80)
}

proptest! {
    /// Compares with plain buckets by name that are never forgotten: all or nothing, and levels that carry over.
    #[test]
    fn it_agrees_with_buckets_by_name(terms in prop::collection::vec(any_terms(), 3), steps in any_steps()) {
        let mut slots = Slots::default();
        let mut plain: HashMap<&str, Bucket> = HashMap::new();
        let mut now = SEC;
        for (which, cost, idle) in steps {
            now += idle;
            let when = Moment { now, wall_s: 0 };
            let grant = &terms[which];
            let named = |spec: &BucketSpec| NAMES.into_iter().find(|name| *name == spec.name.as_str()).unwrap();
            for spec in grant.terms.buckets.iter() {
                let bucket = plain.entry(named(spec)).or_insert(Bucket::full(spec.limit, now));
                if bucket.limit() != spec.limit {
                    bucket.retune(spec.limit, now);
                }
            }
            let mut holds = |spec: &BucketSpec| plain.get_mut(named(spec)).unwrap().holds(cost, now);
            let enough: Vec<bool> = grant.terms.buckets.iter().map(&mut holds).collect();
            let expected = grant.terms.buckets.iter().zip(&enough).all(|(spec, enough)| !spec.is_enforced() || *enough);
            let (allowed, verdicts) = ask(&mut slots, grant, cost, when);
            prop_assert_eq!(allowed, expected);
            for ((spec, enough), verdict) in grant.terms.buckets.iter().zip(enough).zip(verdicts) {
                let bucket = plain.get_mut(named(spec)).unwrap();
                if expected && enough {
                    bucket.take(cost);
                }
                prop_assert_eq!(verdict.outcome, bucket.outcome(cost, enough));
            }
            if cost == 3 {
                slots.trim(when);
            }
        }
    }

    #[test]
    fn any_span_admits_at_most_capacity_and_rate_times_it_of_each_enforced_bucket(
        terms in any_terms(), steps in any_steps()
    ) {
        let mut slots = Slots::default();
        let (mut now, mut admitted) = (SEC, Vec::new());
        for (_, cost, idle) in steps {
            now += idle;
            let allowed = ask(&mut slots, &terms, cost, Moment { now, wall_s: 0 }).0;
            admitted.push((now, if allowed { u128::from(cost) } else { 0 }));
        }
        for bucket in terms.terms.buckets.iter().filter(|bucket| bucket.is_enforced()) {
            let (capacity, micro) = (u128::from(bucket.limit.capacity), u128::from(bucket.limit.rate.micro));
            for first in 0..admitted.len() {
                let mut sum = 0;
                for (at, tokens) in &admitted[first..] {
                    sum += tokens;
                    let flown = micro * u128::from(at - admitted[first].0);
                    prop_assert!(sum.saturating_sub(capacity) * 1_000_000 * u128::from(SEC) <= flown);
                }
            }
        }
    }
}

#[test]
fn saved_and_restored_it_is_the_same() {
    let grant = grant(vec![spec("a", 10, 1_000_000, Mode::Enforced)]);
    let mut slots = Slots::default();
    ask(&mut slots, &grant, 7, at(5));
    let saved = slots.iter().next().unwrap().saved(5 * SEC);
    let back = Slot::restored(&saved, 2 * SEC, at(100));
    assert_eq!((back.bucket().whole(), back.until_full(at(100))), (5, Some(5 * SEC)));
}

#[test]
fn settling_says_what_flowed_in_and_what_of_it_found_no_room() {
    let limit = Limit { capacity: 10, rate: Rate::per_second(1_000_000) };
    for (level_micro, over) in [(0, 0), (7_000_000, 0), (9_000_000, 2_000_000), (10_000_000, 3_000_000)] {
        let saved = Saved { id: BucketId(1), of_rule: false, limit, level_micro, reset: None };
        let mut slot = Slot::restored(&saved, 0, at(10));
        assert_eq!(slot.settle(at(13)), Flow::In(3_000_000, over), "{level_micro}");
    }
}
