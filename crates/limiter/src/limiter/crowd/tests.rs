use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::answer::EntryKind;
use crate::identity::Crowds;
use crate::limit::{Limit, Rate};
use crate::limiter::{Grant, Saved};
use crate::terms::Terms;
use balancer_time::Nanos;

const SEC: Nanos = 1_000_000_000;

/// Sizes of the table.
const SIZES: [u32; 2] = [4, 20_000];

fn grant(capacity: u32, per_sec: u64, entry: EntryKind) -> Grant {
    let limit = Limit { capacity, rate: Rate::per_second(per_sec * 1_000_000) };
    Grant { terms: Terms::of_numbers(limit), entry, plan: None, per_instance: false }
}

fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 0 }
}

fn client(number: u32) -> ClientKey {
    ClientKey::address(Ipv4Addr::from(number).into())
}

fn range() -> Crowds {
    Crowds::of_range("10.0.0.0/8".parse().unwrap())
}

/// A request of a client of the default, of a member of a range, or of a client that an entry names.
fn ask(grant: &Grant) -> Ask<'_> {
    let room = match grant.entry {
        EntryKind::Client => Room::Own,
        EntryKind::Range => Room::Shared(range()),
        EntryKind::Default => Room::Shared(Crowds::OF_DEFAULT),
    };
    Ask { room, ..Ask::of(grant) }
}

/// How many of so many requests are allowed. Checks that [`Limiter::foresee`] says so before.
fn passed(limiter: &Limiter, client: ClientKey, grant: &Grant, requests: u32, now: Nanos) -> u32 {
    let allowed = |_: &u32| {
        let (said, levels) = limiter.foresee(client, ask(grant), at(now));
        let decision = limiter.acquire(client, ask(grant), at(now));
        assert_eq!(decision, said);
        assert_eq!(decision.allowed, levels[0] > 0, "{levels:?}");
        decision.allowed
    };
    (0..requests).filter(allowed).count() as u32
}

/// A table in which every row has an empty bucket.
fn full(size: u32) -> Limiter {
    let limiter = Limiter::new(size as usize);
    limiter.spread_by(7);
    let default = grant(1, 0, EntryKind::Default);
    for number in 0..size {
        assert!(limiter.acquire(client(number), ask(&default), at(SEC)).allowed);
    }
    limiter
}

#[test]
fn whom_an_entry_names_has_its_own_row_and_numbers() {
    for size in SIZES {
        let limiter = full(size);
        for number in 0..50 {
            let own = grant(2 + number, 0, EntryKind::Client);
            assert_eq!(passed(&limiter, client(1 << 31 | number), &own, 60, SEC), 2 + number, "{size}");
        }
        assert_eq!((limiter.clients(), limiter.crowds()), (size as usize + 50, 0));
    }
}

#[test]
fn members_of_a_range_share_its_numbers_and_clients_of_the_default_those_of_the_default() {
    for size in SIZES {
        let limiter = full(size);
        let kinds = [grant(3, 0, EntryKind::Range), grant(2, 0, EntryKind::Default)];
        for (kind, first) in kinds.iter().zip([1 << 30, 1 << 31]) {
            let allowed: u32 =
                (0..40_000).map(|number| passed(&limiter, client(first | number), kind, 1, SEC)).sum();
            let capacity = kind.terms.first().unwrap().capacity;
            assert_eq!(allowed, capacity * u32::from(Crowds::MOST), "{size} {kind:?}");
        }
        assert_eq!((limiter.clients(), limiter.crowds()), (size as usize, 2 * usize::from(Crowds::MOST)));
        // No client that is refused lost its row.
        let default = grant(1, 0, EntryKind::Default);
        assert!((0..size).all(|number| passed(&limiter, client(number), &default, 1, SEC) == 0));
    }
}

#[test]
fn who_is_always_refused_needs_no_row() {
    for size in SIZES {
        let limiter = full(size);
        let blocked =
            [EntryKind::Client, EntryKind::Range, EntryKind::Default].map(|entry| grant(0, 0, entry));
        for number in 0..1_000 {
            for grant in &blocked {
                assert_eq!(passed(&limiter, client(1 << 31 | number), grant, 2, SEC), 0);
            }
        }
        assert_eq!((limiter.clients(), limiter.crowds()), (size as usize, 0));
        assert_eq!(limiter.overflowed(), 0);
    }
}

#[test]
fn who_leaves_a_crowd_starts_from_what_it_has_left() {
    let limiter = Limiter::new(1);
    // The bucket is full again after a second; then there is room.
    let first = grant(1, 1, EntryKind::Default);
    assert!(limiter.acquire(client(1), ask(&first), at(SEC)).allowed);
    let slow = grant(5, 0, EntryKind::Default);
    assert_eq!(passed(&limiter, client(2), &slow, 4, SEC), 4);
    for _ in 0..16 {
        limiter.sweep(at(3 * SEC));
    }
    assert_eq!(limiter.clients(), 0);
    assert_eq!(passed(&limiter, client(2), &slow, 5, 3 * SEC), 1);
    assert_eq!((limiter.clients(), limiter.crowds()), (1, 1));
}

#[test]
fn who_has_requests_under_way_in_a_crowd_stays_in_it() {
    let limiter = Arc::new(Limiter::new(1));
    let mut bounded = grant(9, 0, EntryKind::Default);
    bounded.terms.max_in_flight = Some(1);
    limiter.acquire(client(1), ask(&grant(1, 1, EntryKind::Default)), at(SEC)).first();
    let (decision, seat) = limiter.admit(client(2), ask(&bounded), at(SEC));
    assert!(decision.overflow && decision.allowed);
    for _ in 0..16 {
        limiter.sweep(at(3 * SEC));
    }
    let (second, none) = limiter.admit(client(2), ask(&bounded), at(3 * SEC));
    assert!(second.overflow && second.crowded && none.is_none());
    drop(seat);
    assert!(!limiter.admit(client(2), ask(&bounded), at(3 * SEC)).0.overflow);
}

#[test]
fn a_restart_gives_no_crowd_and_nobody_beyond_the_bound_a_fresh_bucket() {
    for size in SIZES {
        let before = full(size);
        let kinds = [EntryKind::Client, EntryKind::Range, EntryKind::Default].map(|entry| grant(2, 0, entry));
        let ask_all = |limiter: &Limiter| {
            let asked = kinds.iter().enumerate();
            asked
                .map(|(kind, grant)| passed(limiter, client(1 << 31 | kind as u32), grant, 9, SEC))
                .sum::<u32>()
        };
        assert_eq!(ask_all(&before), 6);
        let after = Limiter::new(size as usize);
        after.spread_by(7);
        let mut saved: Vec<(ClientKey, Saved)> = Vec::new();
        before.changed_since(0, |client, slot| saved.push((client, slot.saved(SEC))));
        assert!(saved.iter().all(|(client, saved)| after.restore(*client, saved, 0, at(SEC))));
        assert_eq!(ask_all(&after), 0, "{size}");
    }
}

#[test]
fn many_ranges_have_fewer_crowds_each() {
    for (most, count) in [(1, 1), (10, 8), (1_000, 512), (1_024, 1_024), (1 << 20, 1_024)] {
        let crowds = range().at_most(most);
        let keys: std::collections::HashSet<_> = (0..5_000).map(|hash| crowds.key(hash).to_bytes()).collect();
        assert_eq!(keys.len(), count);
        assert!(
            keys.into_iter().all(|key| ClientKey::from_bytes(key).unwrap().crowd_owner() == Some(range()))
        );
    }
    assert_eq!(client(1).crowd_owner(), None);
}
