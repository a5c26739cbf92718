//! Which buckets are kept, and what of them.

use super::*;
use crate::identity::ClientKey;
use crate::limiter::hot_table::{HotCounts, HotTable};

/// One bucket of that name: 100 tokens, one a second.
fn one(name: &str) -> Grant {
    grant(vec![spec(name, 100, 1_000_000, Mode::Enforced)])
}

fn names(slots: &Slots) -> usize {
    slots.iter().count()
}

/// The place of a hot bucket.
fn hot_place() -> HotPlace {
    let counts = HotCounts::default();
    HotTable::default().add(ClientKey::digest(b"a"), BucketId(1), &counts, 0).unwrap()
}

fn slot_at(level: i64, when: Moment) -> Slot {
    let limit = Limit { capacity: 10, rate: Rate::per_second(0) };
    let saved = Saved { id: BucketId(1), of_rule: false, limit, level_micro: level * 1_000_000, reset: None };
    Slot::restored(&saved, 0, when)
}

#[test]
fn the_bounds_are_four_limits_of_four_and_what_all_rules_and_routes_can_have() {
    assert_eq!((MAX_OF_LIMITS, MAX_OF_RULES), (16, 10_064 * 4));
}

#[test]
fn buckets_that_are_full_again_leave_their_memory_to_the_next_but_those_asked_for_stay() {
    let mut slots = Slots::default();
    let bytes = [("a", 0), ("b", 128), ("c", 256), ("d", 256)].map(|(name, bytes)| {
        ask(&mut slots, &one(name), 50, at(0));
        (slots.heap_bytes(), bytes)
    });
    assert!(bytes.iter().all(|(is, should)| is == should), "{bytes:?}");
    assert!(ask(&mut slots, &one("e"), 1, at(100)).0);
    assert_eq!(names(&slots), 1, "four were full");
    let mut slots = Slots::default();
    ask(&mut slots, &one("a"), 50, at(0));
    let both = grant(vec![spec("a", 100, 1_000_000, Mode::Enforced), spec("b", 7, 0, Mode::Enforced)]);
    let left: Vec<u32> =
        ask(&mut slots, &both, 1, at(100)).1.iter().map(|verdict| verdict.outcome.left).collect();
    assert_eq!((left, names(&slots)), (vec![99, 6], 2));
}

#[test]
fn a_limits_bucket_goes_when_there_are_too_many_of_limits_however_many_there_are_of_rules() {
    let mut slots = Slots::default();
    let of_limit = |name: u32, capacity| grant(vec![spec(&name.to_string(), capacity, 0, Mode::Enforced)]);
    for rule in 0..20 {
        let rule = RequestRule::new("a", Vec::new(), "/", Effect::Buckets([of_rule(rule, 1_000)].into()));
        let ask = Ask { grant: None, rules: &[&rule], cost: 1, room: Room::Own };
        assert!(slots.acquire(ask, at(0), &mut [UNSAID]));
    }
    for name in 0..MAX_OF_LIMITS as u32 {
        // The first has the most tokens, and the second is the fullest.
        let (capacity, cost) = [(1_000, 100), (20, 1)].get(name as usize).copied().unwrap_or((100, 50));
        assert!(ask(&mut slots, &of_limit(name, capacity), cost, at(0)).0);
        assert_eq!(names(&slots), 21 + name as usize);
    }
    let is_here = |slots: &Slots, name: u32| slots.get(BucketId::of(&name.to_string()), at(0)).is_some();
    for (name, gone) in [(90, 1), (91, 90)] {
        assert!(ask(&mut slots, &of_limit(name, 100), 1, at(0)).0);
        assert_eq!(names(&slots), 20 + MAX_OF_LIMITS);
        assert!(is_here(&slots, name) && !is_here(&slots, gone), "{name}");
    }
    // The fullest that is here is asked for.
    let both = [spec("91", 100, 0, Mode::Enforced), spec("92", 100, 0, Mode::Enforced)];
    assert!(ask(&mut slots, &grant(both.into()), 1, at(0)).0);
    assert!(is_here(&slots, 91) && is_here(&slots, 92) && !is_here(&slots, 0));
    assert!(slots.forget_limits());
    assert_eq!(names(&slots), 20);
    slots.forget();
    assert_eq!(names(&slots), 0);
    ask(&mut slots, &one("a"), 1, at(0));
    assert!(!slots.forget_limits());
}

#[test]
fn what_is_full_is_forgotten_unless_it_is_hot() {
    let mut slots = Slots::default();
    ask(&mut slots, &one("a"), 3, at(0));
    ask(&mut slots, &one("b"), 5, at(0));
    slots.trim(at(3));
    assert_eq!((names(&slots), slots.are_full(at(4)), slots.are_full(at(5))), (1, false, true));
    slots.0[0].hot = Some(hot_place());
    slots.trim(at(5));
    assert_eq!((names(&slots), slots.are_full(at(5))), (1, false));
    let over = slots.starting_over();
    assert!(over.are_full(at(5)) && !over.are_full(at(4)));
}

#[test]
fn numbers_come_into_force_if_capacity_rate_or_period_differ() {
    let plain = spec("a", 10, 0, Mode::Enforced);
    let hourly = BucketSpec { reset: Some(Reset::Hour), ..plain.clone() };
    let daily = BucketSpec { reset: Some(Reset::Day), ..plain.clone() };
    let faster = spec("a", 10, 5, Mode::Enforced);
    let larger = spec("a", 11, 0, Mode::Enforced);
    let shadow = spec("a", 10, 0, Mode::Shadow);
    let elsewhere = spec("b", 11, 0, Mode::Enforced);
    let rows = [
        (&plain, &plain, false),
        (&plain, &shadow, false),
        (&plain, &elsewhere, false),
        (&plain, &larger, true),
        (&plain, &faster, true),
        (&plain, &hourly, true),
        (&hourly, &daily, true),
        (&hourly, &hourly, false),
        (&daily, &plain, true),
    ];
    for (before, after, changes) in rows {
        let mut slots = Slots::default();
        ask(&mut slots, &grant(vec![before.clone()]), 1, at(0));
        assert_eq!(slots.put_in_force(std::slice::from_ref(after), at(0)), changes, "{before:?} {after:?}");
        let now = if after.id == before.id { after } else { before };
        let slot = slots.iter().next().unwrap();
        assert_eq!(
            (slot.bucket().limit(), slot.reset()),
            (now.in_force(), now.reset.map(|reset| (reset, reset.turn(at(0).wall_s)))),
        );
        assert!(!slots.put_in_force(std::slice::from_ref(now), at(0)));
    }
}

#[test]
fn a_period_that_has_begun_fills_by_the_new_numbers_of_the_same_period() {
    let hourly = |capacity| BucketSpec { reset: Some(Reset::Hour), ..spec("a", capacity, 0, Mode::Enforced) };
    let mut slots = Slots::default();
    ask(&mut slots, &grant(vec![hourly(10)]), 9, at(0));
    assert!(slots.put_in_force(&[hourly(20)], at(HOUR)));
    assert_eq!(slots.get(hourly(20).id, at(HOUR)).unwrap().bucket().whole(), 20);
}

#[test]
fn of_two_levels_the_lower_counts_and_what_is_hot_and_hidden_stays() {
    for (here, saved, level) in [(5, 7, 5), (5, 5, 5), (7, 5, 5)] {
        let mut slots = Slots::default();
        slots.restore(slot_at(here, at(0)), at(0));
        slots.0[0].hot = Some(hot_place());
        slots.0[0].mark.hide(3, Limit { capacity: 10, rate: Rate::per_second(0) }, 2);
        let reset = Slot { turn: 9, ..slot_at(saved, at(0)) };
        slots.restore(reset, at(0));
        let slot = slots.iter().next().unwrap();
        assert_eq!(
            (names(&slots), slot.bucket().whole(), slot.turn),
            (1, level as u32, if here > level { 9 } else { 0 })
        );
        assert!(slot.is_hot() && slot.mark.hidden() == 3, "{here} {saved}");
    }
}
