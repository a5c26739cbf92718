use super::peers::NoRoom;
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
    // Who shares nothing, or hears nothing, is not unheard besides.
    let alone = self::budget();
    alone.heard(OTHER, &[], at(5 * SEC));
    alone.left(OTHER);
    assert_eq!((alone.stats(5 * SEC).members, alone.stats(5 * SEC).unheard), (1, false));
    assert!(!budget.stats(7 * SEC).unheard && SILENT_AFTER == 3 * TICK);
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
    // What is urgent waits until a gap has passed since the last reports, however often it is asked.
    let flushed = now + 2 * TICK + GAP;
    spend(300..302, flushed);
    assert_eq!(tick(flushed + GAP / 5), (0, GAP * 4 / 5));
    assert_eq!(tick(flushed + GAP - 1), (0, 1));
    assert!((2..=3).contains(&tick(flushed + GAP).0));
    assert_eq!(tick(flushed + GAP + 1).0, 0);
}

#[test]
fn as_many_as_fit_leave_nothing_for_the_next_flush() {
    for (clients, due) in [(MAX_REPORTS, TICK), (MAX_REPORTS + 1, GAP)] {
        let limiter = Arc::new(Limiter::new(1000));
        let budget = Budget::new(Arc::clone(&limiter), OWN, SEC);
        let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
        let grant = Grant::of_default(Terms::of_numbers(limit));
        let now = 2 * SEC;
        [OWN, OTHER].into_iter().for_each(|from| budget.heard(from, &[], at(now)));
        for number in 0..clients {
            limiter.acquire(
                ClientKey::digest(&number.to_be_bytes()),
                Ask { cost: 60, ..Ask::of(&grant) },
                at(now),
            );
        }
        let mut out = Vec::new();
        let next = budget.tick(at(now), &mut out) - now;
        assert_eq!((out.len(), next), (MAX_REPORTS, due), "{clients}");
    }
}

#[test]
fn what_could_not_be_sent_is_told_again_and_so_is_the_rest_when_it_ends() {
    let limiter = Arc::new(Limiter::new(1000));
    let budget = Budget::new(Arc::clone(&limiter), OWN, SEC);
    let grant = Grant::of_default(Terms::of_numbers(Limit { capacity: 100, rate: Rate::per_second(0) }));
    let woken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&woken);
    budget.wake_by(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    [OWN, OTHER].into_iter().for_each(|from| budget.heard(from, &[], at(SEC)));
    let spend = |cost, now| {
        let client = ClientKey::digest(b"a");
        assert!(limiter.acquire(client, Ask { cost, ..Ask::of(&grant) }, at(now)).allowed);
    };
    let mut out = Vec::new();
    let fresh = |out: &[SpentReport]| out.iter().map(|report| report.fresh).collect::<Vec<_>>();
    budget.tick(at(SEC), &mut out);
    spend(60, SEC);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    budget.tick(at(SEC + GAP), &mut out);
    assert_eq!(fresh(&out), [60]);
    budget.not_sent(&[]);
    assert!(!limiter.link().is_asked());
    budget.not_sent(&out);
    assert!(limiter.link().is_asked());
    budget.tick(at(SEC + 2 * GAP), &mut out);
    assert_eq!(fresh(&out), [60]);
    spend(2, SEC + 2 * GAP);
    budget.last_words(at(SEC + 2 * GAP), &mut out);
    assert_eq!(fresh(&out), [2]);
}

#[test]
fn a_new_instance_takes_the_place_of_the_one_that_is_missed_for_longest() {
    let mut peers = Peers::new(OWN, SEC);
    assert_eq!(peers.heard(OWN, 2 * SEC), Ok(None));
    assert_eq!((peers.heard_until(), peers.members(), peers.misses_one()), (5 * SEC, 1, false));
    for number in 0..MAX_PEERS as u32 {
        // The third and the fifth are missed.
        let now = [SEC, SEC, SEC / 2, SEC, SEC / 4].get(number as usize).map_or(2 * SEC, |early| SEC + early);
        assert_eq!(peers.heard(InstanceId(100 + u64::from(number)), now), Ok(Some(number)));
    }
    assert_eq!(peers.heard(InstanceId(99), 2 * SEC), Err(NoRoom));
    peers.miss_dead(2 * SEC + DEAD_AFTER);
    assert_eq!((peers.members(), peers.misses_one()), (MAX_PEERS - 1, true));
    let number = MAX_PEERS as u32;
    assert_eq!(peers.heard(InstanceId(99), 5 * SEC), Ok(Some(number)));
    let missed: Vec<_> = peers.iter().filter(|peer| peer.is_missed).map(|peer| peer.id).collect();
    assert_eq!(missed, [InstanceId(102)]);
    assert_eq!(peers.heard(InstanceId(102), 5 * SEC), Ok(Some(2)));
    assert!(!peers.misses_one());
    peers.miss_dead(2 * SEC + MISSED_FOR);
    assert_eq!(peers.iter().count(), MAX_PEERS);
    peers.miss_dead(2 * SEC + MISSED_FOR + 1);
    assert_eq!(peers.iter().map(|peer| peer.id.0).collect::<Vec<_>>(), [102, 99]);
    peers.remove(InstanceId(102));
    assert_eq!(peers.iter().map(|peer| peer.id.0).collect::<Vec<_>>(), [99]);
}

#[test]
fn it_is_new_for_a_tick_and_a_gap_after_it_began_or_began_again() {
    let mut peers = Peers::new(OWN, SEC);
    for now in [SEC, 9 * SEC] {
        peers.begin_again(now);
        for (after, is_new) in [(0, true), (TICK + GAP, true), (TICK + GAP + 1, false)] {
            let since = peers.hearing_since(3, true, now + after);
            assert_eq!((since.began, since.is_new, since.is_silent, since.last), (now, is_new, true, 3));
        }
    }
    assert!(peers.hearing_since(0, false, SEC).is_new, "a clock that goes back");
}
