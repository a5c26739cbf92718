use super::*;
use crate::identity::ClientKey;
use crate::limit::{Limit, Rate};
use crate::limiter::{Ask, Grant};
use crate::terms::{BucketId, Terms};

const SEC: Nanos = 1_000_000_000;

/// The instant `now`, with a wall clock that stands still.
fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 0 }
}

const OWN: InstanceId = InstanceId(1);
const OTHER: InstanceId = InstanceId(2);
const THIRD: InstanceId = InstanceId(3);

fn budget() -> Budget {
    Budget::new(Arc::new(Limiter::new(1000)), OWN, SEC)
}

/// Number of members, and whether the instance is cut off, after a tick.
fn stands(budget: &Budget, now: Nanos) -> (usize, bool) {
    budget.tick(at(now), &mut Vec::new());
    let stats = budget.stats(now);
    (stats.members, stats.cut_off)
}

#[test]
fn members_are_those_that_were_heard_within_three_seconds() {
    let budget = budget();
    assert_eq!(stands(&budget, SEC), (1, false));
    for from in [OWN, OTHER, THIRD, OTHER] {
        budget.heard(from, &[], at(2 * SEC));
    }
    assert_eq!(stands(&budget, 2 * SEC), (3, false));
    for second in 3..=5 {
        budget.heard(OWN, &[], at(second * SEC));
        budget.heard(OTHER, &[], at(second * SEC));
    }
    assert_eq!(stands(&budget, 5 * SEC), (3, false));
    assert_eq!(stands(&budget, 5 * SEC + 1), (2, false));
    budget.left(OTHER);
    assert_eq!(stands(&budget, 5 * SEC + 2), (1, false));
}

#[test]
fn whoever_hears_nobody_is_cut_off_and_forgets_nobody() {
    let budget = budget();
    for from in [OWN, OTHER, THIRD] {
        budget.heard(from, &[], at(2 * SEC));
    }
    assert_eq!(stands(&budget, 2 * SEC + SILENT_AFTER), (3, false));
    assert_eq!(stands(&budget, 2 * SEC + SILENT_AFTER + 1), (3, true));
    assert_eq!(stands(&budget, 60 * SEC), (3, true));
    budget.heard(OWN, &[], at(61 * SEC));
    assert_eq!(stands(&budget, 61 * SEC), (3, false));
    // The others have three seconds to be heard again.
    budget.heard(OWN, &[], at(62 * SEC));
    budget.heard(OWN, &[], at(63 * SEC));
    budget.heard(OWN, &[], at(64 * SEC));
    assert_eq!(stands(&budget, 64 * SEC), (3, false));
    assert_eq!(stands(&budget, 64 * SEC + 1), (1, false));
}

#[test]
fn whoever_is_not_heard_by_others_is_not_cut_off_while_it_hears_them() {
    let budget = budget();
    budget.heard(OWN, &[], at(2 * SEC));
    for second in 2..=5 {
        budget.heard(OTHER, &[], at(second * SEC));
    }
    assert_eq!(stands(&budget, 5 * SEC), (2, false));
    assert!(!budget.stats(5 * SEC).unheard);
    assert_eq!(stands(&budget, 5 * SEC + 1), (2, false));
    assert!(budget.stats(5 * SEC + 1).unheard);
    // Only an own message ends a silence, since others may have been held up.
    assert_eq!(stands(&budget, 7 * SEC), (2, true));
    budget.heard(OTHER, &[], at(7 * SEC));
    assert_eq!(stands(&budget, 7 * SEC), (2, true));
    budget.heard(OWN, &[], at(8 * SEC));
    assert_eq!(stands(&budget, 8 * SEC), (2, false));
    assert!(!budget.stats(8 * SEC).unheard);
}

#[test]
fn beyond_the_bound_nobody_is_known() {
    let budget = budget();
    for number in 0..MAX_PEERS as u64 + 5 {
        budget.heard(InstanceId(100 + number), &[], at(2 * SEC));
    }
    let stats = budget.stats(2 * SEC);
    assert_eq!((stats.members, stats.too_many_peers), (MAX_PEERS + 1, 5));
}

/// A process that was suspended hears all at once what it missed, and its own messages last.
#[test]
fn what_was_missed_in_a_silence_is_not_charged_when_it_comes_late() {
    let limiter = Arc::new(Limiter::new(1000));
    let budget = Budget::new(Arc::clone(&limiter), OWN, SEC);
    let client = ClientKey::digest(b"somebody");
    let id = BucketId::of("default");
    let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
    let told = |spent, fresh| SpentReport {
        client,
        bucket: id,
        of_rule: false,
        has_own_row: false,
        limit,
        reset: None,
        episode: 1,
        spent,
        fresh,
        rate_micro: 0,
    };
    for second in 1..=4 {
        budget.heard(OWN, &[], at(second * SEC));
        budget.heard(OTHER, &[], at(second * SEC));
    }
    let level = |now| limiter.peek(client, id, at(now)).map(|bucket| bucket.whole());
    budget.heard(OTHER, &[told(10, 10)], at(4 * SEC));
    assert_eq!(level(4 * SEC), Some(90));
    budget.heard(OTHER, &[told(3_010, 3_000)], at(64 * SEC));
    budget.heard(OWN, &[], at(64 * SEC));
    assert_eq!(level(64 * SEC), Some(100));
    // From then on new tokens are charged.
    budget.heard(OTHER, &[told(3_015, 5)], at(64 * SEC + 1));
    assert_eq!(level(64 * SEC + 1), Some(95));
}

#[test]
fn it_is_to_be_called_again_sooner_while_there_is_more_to_tell() {
    let limiter = Arc::new(Limiter::new(1000));
    let budget = Budget::new(Arc::clone(&limiter), OWN, SEC);
    let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
    let grant = Grant::of_default(Terms::of_numbers(limit));
    let spend = |clients: std::ops::Range<usize>, now| {
        for number in clients {
            let client = ClientKey::digest(&number.to_be_bytes());
            limiter.acquire(client, Ask { cost: 60, ..Ask::of(&grant) }, at(now));
        }
    };
    // How many reports there are, and after what time it is to be called again.
    let tick = |now| {
        let mut out = Vec::new();
        let due = budget.tick(at(now), &mut out);
        (out.len(), due - now)
    };
    let now = 2 * SEC;
    [OWN, OTHER].into_iter().for_each(|from| budget.heard(from, &[], at(now)));
    assert_eq!(tick(now), (0, TICK));
    spend(0..1, now);
    assert_eq!(tick(now + TICK), (1, TICK));
    spend(1..MAX_REPORTS + 11, now + TICK);
    assert_eq!(tick(now + 2 * TICK), (MAX_REPORTS, GAP));
    let (left, due) = tick(now + 2 * TICK + GAP);
    assert!((10..=11).contains(&left), "{left}");
    assert!(due > GAP, "{due}");
}
