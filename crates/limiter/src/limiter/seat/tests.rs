use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::limit::{Limit, Rate};
use crate::limiter::{ClientLevels, Grant, Granted};
use crate::terms::Terms;

fn client(number: u32) -> ClientKey {
    ClientKey::address(Ipv4Addr::from(number).into())
}

fn grant(capacity: u32, most: u32) -> Grant {
    let terms = Terms::of_numbers(Limit { capacity, rate: Rate::per_second(0) });
    Grant::of_default(Terms { max_in_flight: Some(most), ..terms })
}

const NOW: Moment = Moment { now: 1_000_000_000, wall_s: 0 };

/// Runs `each` on that many threads at once. Returns the largest number of requests that were under way at the same
/// time.
fn most_at_once(
    limiter: &Arc<Limiter>,
    threads: u32,
    each: impl Fn(u32) -> (ClientKey, Grant) + Sync,
) -> u32 {
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let barrier = Barrier::new(threads as usize);
    thread::scope(|scope| {
        for number in 0..threads {
            let (inside, most, barrier, each) = (&inside, &most, &barrier, &each);
            scope.spawn(move || {
                let (client, grant) = each(number);
                barrier.wait();
                for _ in 0..2_000 {
                    let (decision, seat) = limiter.admit(client, Ask::of(&grant), NOW);
                    assert_eq!(decision.allowed, seat.is_some());
                    if seat.is_some() {
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    most.into_inner()
}

#[test]
fn there_are_never_more_inside_than_may_be_and_in_the_end_nobody_is() {
    let limiter = Arc::new(Limiter::new(100));
    let most = most_at_once(&limiter, 12, |_| (client(1), grant(1_000_000, 3)));
    assert!((1..=3).contains(&most), "{most}");
    let ClientLevels { in_flight, .. } = limiter.levels(client(1), Ask::of(&grant(1, 3)), NOW);
    assert_eq!(in_flight, 0);
}

#[test]
fn a_crowd_that_shares_an_overflow_bucket_shares_its_bound() {
    let limiter = Arc::new(Limiter::new(1));
    let (_, first) = limiter.admit(client(0), Ask::of(&grant(5, 1)), NOW);
    // Requests of one client share a crowd's row, so its bound of two holds.
    let most = most_at_once(&limiter, 8, |_| (client(1), grant(1_000_000, 2)));
    assert!((1..=2).contains(&most), "{most}");
    assert!(limiter.overflowed() >= 8 * 2_000);
    drop(first);
}

#[test]
fn the_bound_is_asked_first_and_its_refusal_takes_no_token() {
    let limiter = Arc::new(Limiter::new(10));
    let one = grant(5, 1);
    let (decision, seat) = limiter.admit(client(1), Ask::of(&one), NOW);
    assert_eq!((decision.allowed, decision.first().left), (true, 4));
    let (decision, none) = limiter.admit(client(1), Ask::of(&one), NOW);
    assert!(!decision.allowed && decision.crowded && none.is_none());
    assert_eq!(
        limiter.levels(client(1), Ask::of(&one), NOW),
        ClientLevels { buckets: vec![4], spent_elsewhere: vec![0], in_flight: 1 }
    );
    drop(seat);
    assert_eq!(limiter.admit(client(1), Ask::of(&one), NOW).0.first().left, 3);
}

#[test]
fn who_is_inside_is_not_forgotten() {
    let limiter = Arc::new(Limiter::new(1));
    let full = Grant { terms: Terms { max_in_flight: Some(1), ..grant(0, 1).terms }, ..grant(0, 1) };
    let free = Ask { cost: 0, ..Ask::of(&full) };
    let (_, seat) = limiter.admit(client(1), free, NOW);
    assert!(seat.is_some());
    for _ in 0..16 {
        limiter.sweep(NOW);
    }
    limiter.retune(client(1), &Granted::Unlimited, NOW);
    limiter.fill(client(1));
    assert_eq!(limiter.clients(), 1);
    assert!(limiter.admit(client(1), free, NOW).0.crowded);
    // Nor is there room for another client while the request is under way.
    assert!(limiter.acquire(client(2), Ask::of(&grant(5, 1)), NOW).overflow);
    drop(seat);
    for _ in 0..16 {
        limiter.sweep(NOW);
    }
    assert_eq!(limiter.clients(), 0);
    assert!(!limiter.acquire(client(2), Ask::of(&grant(5, 1)), NOW).overflow);
}
