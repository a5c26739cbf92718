mod swept;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use parking_lot::RwLock;
use proptest::prelude::*;

use super::*;
use crate::answer::EntryKind;
use crate::bucket::Bucket;
use crate::identity::Crowds;
use crate::limit::{Limit, Rate};
use crate::terms::{BucketId, Terms};
use balancer_time::Nanos;

const SEC: Nanos = 1_000_000_000;

fn terms(capacity: u32, per_sec: u64) -> Terms {
    Terms::of_numbers(Limit { capacity, rate: Rate::per_second(per_sec * 1_000_000) })
}

fn grant(capacity: u32, per_sec: u64) -> Grant {
    Grant::of_default(terms(capacity, per_sec))
}

/// The instant `now`, with a wall clock that does not move.
fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 0 }
}

fn take(limiter: &Limiter, client: ClientKey, grant: &Grant, cost: u32, now: Nanos) -> Decision {
    limiter.acquire(client, Ask { cost, ..Ask::of(grant) }, at(now))
}

fn peek(limiter: &Limiter, client: ClientKey, now: Nanos) -> Option<Bucket> {
    limiter.peek(client, BucketId::of("default"), at(now))
}

fn client(number: u32) -> ClientKey {
    ClientKey::address(IpAddr::V4(Ipv4Addr::from(number)))
}

/// Runs `each(thread)` on that many threads at once and adds up what they return.
fn at_once(threads: u32, each: impl Fn(u32) -> u64 + Sync) -> u64 {
    let barrier = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let start = |number| {
            let (barrier, each) = (&barrier, &each);
            scope.spawn(move || {
                barrier.wait();
                each(number)
            })
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn exactly_the_capacity_passes_however_many_threads_ask() {
    let limiter = Limiter::new(1000);
    let passed = at_once(24, |_| {
        (0..100).filter(|_| take(&limiter, client(1), &grant(200, 0), 1, SEC).allowed).count() as u64
    });
    assert_eq!(passed, 200);
    assert_eq!(peek(&limiter, client(1), SEC).unwrap().level_micro(), 0);
    assert_eq!((limiter.clients(), limiter.overflowed()), (1, 0));
}

#[test]
fn every_client_gets_exactly_its_own_tokens_when_threads_ask_for_many() {
    let limiter = Limiter::new(10_000);
    let (clients, capacity) = (500u32, 7);
    let passed = at_once(8, |thread| {
        let mut random = fastrand::Rng::with_seed(u64::from(thread));
        let mut order: Vec<u32> = (0..clients * 4).map(|i| i % clients).collect();
        random.shuffle(&mut order);
        let ask = |number: &&u32| take(&limiter, client(**number), &grant(capacity, 0), 1, SEC).allowed;
        order.iter().filter(ask).count() as u64
    });
    assert_eq!(passed, u64::from(clients * capacity));
    assert_eq!(limiter.clients(), clients as usize);
}

#[test]
fn no_token_is_made_or_lost_while_the_numbers_change() {
    let limiter = Limiter::new(1000);
    // Each thread asks under a read lock, so that it never asks with replaced numbers.
    let in_force = RwLock::new(grant(100, 0));
    let changing = AtomicBool::new(true);
    let passed = at_once(9, |thread| {
        if thread == 0 {
            for step in 2..=50 {
                let mut in_force = in_force.write();
                *in_force = grant(step * 100, 0);
                limiter.retune(client(1), &Granted::Limited(in_force.clone()), at(SEC));
            }
            changing.store(false, Ordering::SeqCst);
            return 0;
        }
        let mut passed = 0;
        loop {
            let last_round = !changing.load(Ordering::SeqCst);
            let in_force = in_force.read();
            let allowed = take(&limiter, client(1), &in_force, 1, SEC).allowed;
            passed += u64::from(allowed);
            assert!(passed <= 5_000, "more than the largest capacity");
            if last_round && !allowed {
                return passed;
            }
        }
    });
    assert_eq!(passed, 5_000);
}

#[test]
fn a_flood_of_new_addresses_pushes_out_nobody_who_is_held_back() {
    let limiter = Limiter::new(1000);
    let held = Grant { entry: EntryKind::Client, ..grant(5, 0) };
    let victims: Vec<ClientKey> = (0..100).map(client).collect();
    for victim in &victims {
        assert!(take(&limiter, *victim, &held, 5, SEC).allowed);
    }
    let passed = at_once(4, |thread| {
        let first = 1_000_000 * (thread + 1);
        let ask = |number: &u32| take(&limiter, client(first + number), &grant(3, 0), 1, SEC).allowed;
        (0..20_000).filter(ask).count() as u64
    });
    assert_eq!(limiter.clients(), 1000);
    assert_eq!(limiter.overflowed(), 80_000 - 900);
    // 900 clients have buckets of their own; the others share 1,024 crowds, about 77 clients each.
    assert_eq!(passed, 900 + 3 * u64::from(Crowds::MOST));
    for victim in &victims {
        assert!(!take(&limiter, *victim, &held, 1, SEC).allowed);
    }
    // A client with an entry has its own row and numbers all the same.
    let decision =
        take(&limiter, client(77_000_000), &Grant { entry: EntryKind::Client, ..grant(50, 0) }, 50, SEC);
    assert!(!decision.overflow && decision.allowed);
}

#[test]
fn without_a_default_a_full_table_lifts_nobodys_limit() {
    let limiter = Limiter::new(1);
    take(&limiter, client(1), &grant(5, 0), 1, SEC);
    let passed = (0..100).filter(|_| take(&limiter, client(2), &grant(5, 0), 1, SEC).allowed).count();
    assert_eq!((passed, limiter.overflowed()), (5, 100));
}

#[test]
fn full_buckets_make_room_for_new_clients() {
    let limiter = Limiter::new(1000);
    for number in 0..50_000u32 {
        // Each bucket is full again after a second, in which a hundred others come.
        let now = SEC + Nanos::from(number) * SEC / 100;
        let decision = take(&limiter, client(number), &grant(10, 1), 1, now);
        assert!(decision.allowed && !decision.overflow, "{number}");
    }
    assert!(limiter.clients() < 1000, "{}", limiter.clients());
    for _ in 0..SWEEP_CALLS {
        limiter.sweep(at(1000 * SEC));
    }
    assert_eq!(limiter.clients(), 0);
    let empty = Limiter::new(1000).memory_bytes();
    assert!(limiter.memory_bytes() <= empty + SHARDS * 200, "{}", limiter.memory_bytes());
}

#[test]
fn a_sweep_keeps_whoever_is_not_full() {
    let limiter = Limiter::new(100_000);
    for number in 0..20_000 {
        let slow = if number % 3 == 0 { 0 } else { 1 };
        take(&limiter, client(number), &grant(10, slow), 1, SEC);
    }
    for _ in 0..SWEEP_CALLS {
        limiter.sweep(at(3 * SEC));
    }
    assert_eq!(limiter.clients(), 20_000usize.div_ceil(3));
    assert!((0..20_000).all(|number| peek(&limiter, client(number), 3 * SEC).is_some() == (number % 3 == 0)));
}

#[test]
fn a_million_clients_take_less_than_200_bytes_each() {
    // As allocated for rows and index, also while they grow; `benches/limiter.rs` measures the resident size.
    let limiter = Limiter::new(1_000_000);
    let mut most = 0;
    for number in 0..1_000_000 {
        take(&limiter, client(number), &grant(10, 0), 1, SEC);
        if number % 50_000 == 49_999 {
            most = most.max(limiter.memory_bytes() as u64 * 1000 / u64::from(number + 1));
        }
    }
    assert_eq!((limiter.clients(), limiter.overflowed()), (1_000_000, 0));
    assert!(limiter.memory_bytes() < 144 * 1_000_000, "{} bytes", limiter.memory_bytes());
    assert!(most < 200_000, "{most} millibytes a client");
}

#[test]
fn what_changed_is_told_once_the_dust_has_settled() {
    const CAPACITY: u32 = 1_000_000;
    let spent = |slot: &Slot| u64::from(CAPACITY - slot.bucket().whole());
    let limiter = Limiter::new(10_000);
    let working = AtomicU64::new(4);
    let told = Mutex::new(HashMap::new());
    at_once(5, |thread| {
        if thread == 4 {
            let mut seq = 0;
            loop {
                let last_round = working.load(Ordering::SeqCst) == 0;
                seq = limiter.changed_since(seq, |client, slot| {
                    told.lock().insert(client, spent(slot));
                });
                if last_round {
                    return 0;
                }
            }
        }
        let mut random = fastrand::Rng::with_seed(u64::from(thread));
        for _ in 0..20_000 {
            take(&limiter, client(random.u32(0..2_000)), &grant(1_000_000, 0), 1, SEC);
        }
        working.fetch_sub(1, Ordering::SeqCst);
        0
    });
    let told = told.into_inner();
    assert_eq!(told.values().sum::<u64>(), 80_000);
    let seq = limiter.changed_since(0, |client, slot| assert_eq!(told[&client], spent(slot)));
    let mut again = Vec::new();
    take(&limiter, client(7), &grant(1_000_000, 0), 1, SEC);
    limiter.changed_since(seq, |client, _| again.push(client));
    assert_eq!(again, [client(7)]);
}

#[test]
fn forgetting_sets_free() {
    let limiter = Limiter::new(10);
    take(&limiter, client(1), &grant(10, 1), 9, SEC);
    limiter.forget(client(1));
    limiter.forget(client(1));
    assert_eq!(limiter.clients(), 0);
    assert_eq!(take(&limiter, client(1), &grant(10, 1), 1, SEC).first().left, 9);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u32, usize, u32),
    Retune(u32, usize),
    Sweep,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..6, 0usize..4, 1u32..5).prop_map(|(client, grant, cost)| Step::Acquire(client, grant, cost)),
        1 => (0u32..6, 0usize..4).prop_map(|(client, grant)| Step::Retune(client, grant)),
        2 => Just(Step::Sweep),
        2 => (0u64..3 * SEC).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Compares with one bucket for each client that is never forgotten, through changes of numbers too.
    #[test]
    fn forgetting_full_buckets_can_not_be_seen(steps in prop::collection::vec(any_step(), 1..80)) {
        let grants = [grant(3, 1), grant(10, 2), grant(10, 0), grant(0, 1)];
        let limiter = Limiter::new(100);
        let mut plain: HashMap<u32, Bucket> = HashMap::new();
        let mut now = SEC;
        for step in steps {
            match step {
                Step::Acquire(number, grant, cost) => {
                    let limit = grants[grant].terms.first().unwrap();
                    let bucket = plain.entry(number).or_insert(Bucket::full(limit, now));
                    if bucket.limit() != limit {
                        bucket.retune(limit, now);
                    }
                    let expected = bucket.acquire(cost, now);
                    let decision = take(&limiter, client(number), &grants[grant], cost, now);
                    prop_assert_eq!((decision.first(), decision.overflow), (expected, false));
                }
                Step::Retune(number, grant) => {
                    if let Some(bucket) = plain.get_mut(&number) {
                        bucket.retune(grants[grant].terms.first().unwrap(), now);
                    }
                    limiter.retune(client(number), &Granted::Limited(grants[grant].clone()), at(now));
                }
                Step::Sweep => (0..SWEEP_CALLS).for_each(|_| limiter.sweep(at(now))),
                Step::Wait(ns) => now += ns,
            }
        }
    }
}
