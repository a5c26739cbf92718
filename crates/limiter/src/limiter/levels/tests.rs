use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::{Ask, Grant, Granted, HearingSince};
use super::*;
use crate::limit::{Limit, Rate};
use crate::reports::SpentReport;
use crate::reset::Reset;
use crate::terms::{BucketName, BucketSpec, Terms};

const SEC: Nanos = 1_000_000_000;

const HOUR_SECS: u64 = 3_600;

fn client(number: u32) -> ClientKey {
    ClientKey::address(Ipv4Addr::from(number).into())
}

/// An instant on both clocks.
fn at(secs: u64) -> Moment {
    Moment { now: (secs + 1) * SEC, wall_s: 1_000 * HOUR_SECS + secs }
}

/// Buckets of these names and capacities; a token a second each.
fn grant(buckets: &[(&str, u32)]) -> Grant {
    let bucket = |(name, capacity): &(&str, u32)| {
        let limit = Limit { capacity: *capacity, rate: Rate::per_second(1_000_000) };
        BucketSpec::new(BucketName::parse(name).unwrap(), limit)
    };
    Grant::of_default(Terms { buckets: buckets.iter().map(bucket).collect(), ..Terms::default() })
}

fn hourly(capacity: u32) -> Grant {
    let limit = Limit { capacity, rate: Rate { micro: 1_000_000 * u64::from(capacity), per_secs: 3_600 } };
    let name = BucketName::parse("hour").unwrap();
    let spec = BucketSpec { reset: Some(Reset::Hour), ..BucketSpec::new(name, limit) };
    Grant::of_default(Terms { buckets: Arc::new([spec]), ..Terms::default() })
}

fn take(limiter: &Limiter, grant: &Grant, cost: u32, when: Moment) -> bool {
    limiter.acquire(client(1), Ask { cost, ..Ask::of(grant) }, when).allowed
}

fn saved(limiter: &Limiter) -> Vec<(ClientKey, Saved)> {
    let mut all = Vec::new();
    limiter.changed_since(0, |client, slot| all.push((client, slot.saved(at(0).now))));
    all
}

#[test]
fn levels_are_shown_by_the_numbers_in_force_and_nothing_is_taken() {
    let limiter = Limiter::new(10);
    let both = grant(&[("second", 5), ("day", 50)]);
    assert!(take(&limiter, &both, 3, at(0)));
    for _ in 0..2 {
        let levels = limiter.levels(client(1), Ask::of(&both), at(1));
        assert_eq!(levels, ClientLevels { buckets: vec![3, 48], spent_elsewhere: vec![0; 2], in_flight: 0 });
    }
    // With the numbers that the next request will put in force.
    let larger = grant(&[("day", 60), ("new", 7)]);
    assert_eq!(limiter.levels(client(1), Ask::of(&larger), at(1)).buckets, [58, 7]);
    assert_eq!(limiter.levels(client(2), Ask::of(&larger), at(1)).buckets, [60, 7]);
}

#[test]
fn a_preview_says_what_the_next_request_gets_and_leaves_it_to_it() {
    let limiter = Limiter::new(10);
    let one = grant(&[("one", 1)]);
    let preview = || limiter.preview(client(1), Ask::of(&one), at(0));
    assert!(preview().allowed && preview().allowed);
    assert_eq!(limiter.clients(), 0);
    assert!(take(&limiter, &one, 1, at(0)));
    assert!(!preview().allowed);
}

#[test]
fn filling_makes_every_bucket_full_and_keeps_count_of_what_is_under_way() {
    let limiter = Arc::new(Limiter::new(10));
    let one = grant(&[("one", 1)]);
    let (decision, seat) = limiter.admit(client(1), Ask::of(&one), at(0));
    assert!(decision.allowed && !take(&limiter, &one, 1, at(0)));
    limiter.fill(client(1));
    let levels = limiter.levels(client(1), Ask::of(&one), at(0));
    assert_eq!(levels, ClientLevels { buckets: vec![1], spent_elsewhere: vec![0], in_flight: 1 });
    drop(seat);
    limiter.fill(client(1));
    assert_eq!(limiter.clients(), 0);
}

#[test]
fn saved_levels_come_back_with_what_flowed_in_since() {
    let before = Limiter::new(10);
    let both = grant(&[("second", 5), ("day", 50)]);
    assert!(take(&before, &both, 5, at(0)));
    let saved = saved(&before);
    assert_eq!(saved.len(), 2);
    let after = Limiter::new(10);
    for (client, saved) in &saved {
        after.restore(*client, saved, 2 * SEC, at(0));
    }
    assert_eq!(after.levels(client(1), Ask::of(&both), at(0)).buckets, [2, 47]);
    assert!(take(&after, &both, 2, at(0)) && !take(&after, &both, 1, at(0)));
    // Saved so long ago that it is full again: no row is made.
    let late = Limiter::new(10);
    assert!(saved.iter().all(|(client, saved)| late.restore(*client, saved, 60 * SEC, at(0))));
    assert_eq!(late.clients(), 0);
}

#[test]
fn of_two_saved_levels_the_lower_counts_whatever_comes_first() {
    let grant = grant(&[("day", 10)]);
    let saved: HashMap<u32, Saved> = [3, 8]
        .into_iter()
        .map(|taken| {
            let limiter = Limiter::new(10);
            assert!(take(&limiter, &grant, taken, at(0)));
            (taken, saved(&limiter)[0].1)
        })
        .collect();
    for order in [[3, 8], [8, 3]] {
        let limiter = Limiter::new(10);
        assert!(order.iter().all(|taken| limiter.restore(client(1), &saved[taken], 0, at(0))));
        assert_eq!(limiter.levels(client(1), Ask::of(&grant), at(0)).buckets, [2]);
    }
}

#[test]
fn a_bucket_with_a_reset_comes_back_as_it_was_until_its_period_turns() {
    let before = Limiter::new(10);
    let hourly = hourly(10);
    assert!(take(&before, &hourly, 10, at(0)));
    let saved = saved(&before);
    assert_eq!(saved[0].1.reset, Some((Reset::Hour, 1_000)));
    let after = Limiter::new(10);
    after.restore(client(1), &saved[0].1, 1_800 * SEC, at(1_800));
    assert!(!take(&after, &hourly, 1, at(1_800)) && !take(&after, &hourly, 1, at(HOUR_SECS - 1)));
    assert!(take(&after, &hourly, 10, at(HOUR_SECS)));
    let late = Limiter::new(10);
    late.restore(client(1), &saved[0].1, HOUR_SECS * SEC, at(HOUR_SECS));
    assert_eq!(late.clients(), 0);
}

#[test]
fn a_bucket_that_is_held_to_a_part_comes_back_as_what_is_left_of_the_whole() {
    let before = Limiter::new(10);
    before.link.set_members(2, false);
    let hourly = hourly(100);
    let passed = |limiter: &Limiter| (0..1_000).take_while(|_| take(limiter, &hourly, 1, at(0))).count();
    assert_eq!(passed(&before), 50);
    let after = Limiter::new(10);
    for (client, saved) in saved(&before) {
        assert!(after.restore(client, &saved, 0, at(0)));
    }
    assert_eq!(passed(&after), 0);
}

#[test]
fn a_look_says_what_a_request_gets_while_the_others_are_not_heard_and_afterwards() {
    let limiter = Limiter::new(10);
    let grant = grant(&[("a", 30)]);
    limiter.link.set_members(3, false);
    let left = |when| {
        let (said, levels) = limiter.foresee(client(1), Ask::of(&grant), when);
        assert_eq!(limiter.levels(client(1), Ask::of(&grant), when).buckets, levels);
        let decision = limiter.acquire(client(1), Ask::of(&grant), when);
        assert_eq!((&decision, decision.first().left), (&said, levels[0].saturating_sub(1)));
        levels[0]
    };
    // Nobody is heard: a third of 30.
    let in_silence: Vec<u32> = (0..12).map(|_| left(at(0))).collect();
    assert_eq!(in_silence, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]);
    limiter.link.returned(at(3).now);
    limiter.link.heard(at(5).now, at(5).now);
    limiter.link.heard_by_others_until(at(5).now);
    assert_eq!((left(at(5)), left(at(5))), (5, 4));
    // The next silence.
    assert_eq!(left(at(30)), 9);
}

#[test]
fn a_range_that_is_filled_fills_those_of_whom_it_is_not_known_yet_that_it_decides() {
    let before = Limiter::new(10);
    let few = grant(&[("few", 5)]);
    assert!(take(&before, &few, 4, at(0)));
    let range = Grant { entry: EntryKind::Range, ..few.clone() };
    let own = Grant { entry: EntryKind::Client, ..few };
    for (grant, left) in [(&range, 5), (&own, 1)] {
        let after = Limiter::new(10);
        for (client, saved) in saved(&before) {
            assert!(after.restore(client, &saved, 0, at(0)));
        }
        after.fill_where(|_, entry| entry == EntryKind::Range);
        assert_eq!(after.levels(client(1), Ask::of(grant), at(0)).buckets, [left]);
        assert!(take(&after, grant, left, at(0)) && !take(&after, grant, 1, at(0)));
        // From then on it is known what decides.
        after.fill_where(|_, entry| entry == EntryKind::Range);
        assert_eq!(take(&after, grant, 5, at(0)), left == 5);
    }
}

#[test]
fn what_others_spend_of_a_range_after_it_was_filled_is_missing_to_its_clients() {
    let limiter = Limiter::new(10);
    limiter.link.set_members(2, false);
    limiter.link.heard(at(9).now, at(9).now);
    limiter.link.heard_by_others_until(at(9).now);
    let range = Grant { entry: EntryKind::Range, ..grant(&[("few", 5)]) };
    let spec = &range.terms.buckets[0];
    let told = |spent, fresh| SpentReport {
        client: client(1),
        bucket: spec.id,
        of_rule: false,
        has_own_row: false,
        limit: spec.in_force(),
        reset: None,
        episode: 1,
        spent,
        fresh,
        rate_micro: 0,
    };
    let since = HearingSince { began: 1, is_new: false, is_silent: false, last: 1 };
    limiter.charge_reported(1, &told(4, 4), since, at(2));
    limiter.fill_where(|_, entry| entry == EntryKind::Range);
    limiter.charge_reported(1, &told(7, 3), since, at(2));
    assert_eq!(limiter.levels(client(1), Ask::of(&range), at(2)).buckets, [2]);
    assert!(take(&limiter, &range, 2, at(2)) && !take(&limiter, &range, 1, at(2)));
}

#[test]
fn a_range_that_is_filled_forgets_who_has_no_request_under_way() {
    let limiter = Arc::new(Limiter::new(10));
    let range = Grant { entry: EntryKind::Range, ..grant(&[("few", 5)]) };
    let (_, seat) = limiter.admit(client(1), Ask::of(&range), at(0));
    assert!(limiter.acquire(client(2), Ask::of(&range), at(0)).allowed);
    assert_eq!((limiter.clients(), limiter.fills()), (2, 0));
    limiter.fill_where(|_, entry| entry == EntryKind::Client);
    assert_eq!((limiter.clients(), limiter.fills()), (2, 1));
    limiter.fill_where(|_, entry| entry == EntryKind::Range);
    let levels = limiter.levels(client(1), Ask::of(&range), at(0));
    assert_eq!((limiter.clients(), levels.buckets, levels.in_flight), (1, vec![5], 1));
    drop(seat);
    limiter.fill(client(1));
    limiter.fill(client(1));
    assert_eq!((limiter.clients(), limiter.fills()), (0, 3), "there was nothing to fill");
}

#[test]
fn what_changed_is_told_once_and_a_change_of_numbers_is_one() {
    let limiter = Limiter::new(10);
    let told = |seq: u32| {
        let mut clients = Vec::new();
        let seq = limiter.changed_since(seq, |client, _| clients.push(client));
        (seq, clients)
    };
    let few = grant(&[("few", 5)]);
    assert!(take(&limiter, &few, 1, at(0)));
    let (seq, clients) = told(0);
    assert_eq!(clients, [client(1)]);
    let (seq, clients) = told(seq);
    assert_eq!(clients, []);
    assert!(limiter.acquire(client(2), Ask::of(&few), at(0)).allowed);
    let (mut seq, clients) = told(seq);
    assert_eq!(clients, [client(2)]);
    let of_client = Grant { entry: EntryKind::Client, ..few.clone() };
    let more = Grant { entry: EntryKind::Client, ..grant(&[("few", 9)]) };
    for (grant, changes) in [(few, false), (of_client.clone(), true), (of_client, false), (more, true)] {
        limiter.retune(client(1), &Granted::Limited(grant), at(0));
        let clients;
        (seq, clients) = told(seq);
        assert_eq!(clients == [client(1)], changes);
        assert_eq!(clients.is_empty(), !changes);
    }
}

#[test]
fn what_is_restored_may_exceed_twice_the_bound_by_so_many_and_no_more() {
    let limiter = Limiter::new(5);
    let rows = [
        (131_081, 0, true),
        (131_082, 0, false),
        (0, 131_081, true),
        (131_000, 81, true),
        (131_000, 82, false),
        (131_083, 0, false),
    ];
    let donor = Limiter::new(5);
    assert!(take(&donor, &grant(&[("few", 5)]), 1, at(0)));
    let saved = saved(&donor)[0].1;
    for (number, (clients, crowds, has_room)) in rows.into_iter().enumerate() {
        limiter.clients.store(clients, Ordering::Relaxed);
        limiter.crowds.store(crowds, Ordering::Relaxed);
        assert_eq!(limiter.has_room_beyond(), has_room, "{clients} {crowds}");
        assert_eq!(limiter.restore(client(10 + number as u32), &saved, 0, at(0)), has_room);
        assert_eq!(limiter.clients(), clients + usize::from(has_room));
    }
    assert!(limiter.restore(client(10), &saved, 0, at(0)), "it is here already");
}
