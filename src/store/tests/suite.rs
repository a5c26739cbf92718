//! What the store must do on every database.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Limits, Row, StoreError};
use super::{Setup, id, limit, on_both, tester};
use crate::clock::Clock;
use crate::store::CallOutcome;
use crate::store::cache::Found;
use balancer_limiter::answer::EntryKind;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Ask, Limiter};
use balancer_limiter::terms::{BucketId, Terms};

fn find(limits: &Limits, client: &str, port: u16) -> Found {
    super::find(limits, client, Some(port), 1)
}

/// The numbers of the first bucket.
fn numbers(found: &Found) -> Option<Limit> {
    found.granted.grant().and_then(|grant| grant.terms.first())
}

/// The entry that decides: its kind, its capacity (0 for none) and its stored id.
fn decided(limits: &Limits, client: &str, port: u16) -> (EntryKind, u32, String) {
    let found = find(limits, client, port);
    let entry = found.entry.as_ref().map_or(String::new(), |entry| entry.to_string());
    (found.source, numbers(&found).map_or(0, |limit| limit.capacity), entry)
}

#[test]
fn ids_are_unique_by_value_and_come_back_as_they_were_given() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        // created, equal to it, not equal to it
        let table = [
            ("::ffff:1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4:80", "1.2.3.4:81"),
            ("2001:DB8::0:1", "2001:db8::1", "2001:db8::2"),
            ("10.1.2.3/8", "10.0.0.0/8", "10.0.0.0/9"),
            ("a'; DROP TABLE limits; --", "a'; DROP TABLE limits; --", "A'; DROP TABLE limits; --"),
            ("a/b\"c%_🦀$1", "a/b\"c%_🦀$1", "a/b\"c%_🦀$2"),
        ];
        for (given, equal, other) in table {
            limits.create(&id(given), limit(1), &tester()).unwrap();
            assert_eq!(limits.create(&id(equal), limit(2), &tester()), Err(StoreError::Exists), "{given}");
            let row = limits.get(&id(equal)).unwrap();
            assert_eq!((row.client_id.as_str(), row.limit), (given, limit(1)));
            assert_eq!(limits.get(&id(other)), Err(StoreError::NotFound), "{other}");
            limits.update(&id(equal), limit(3), &tester()).unwrap();
            let updated = limits.get(&id(given)).unwrap();
            assert_eq!((updated.client_id.as_str(), updated.limit), (given, limit(3)));
            assert!(updated.version > row.version);
            assert_eq!(limits.update(&id(other), limit(3), &tester()), Err(StoreError::NotFound));
            assert_eq!(limits.delete(&id(other), &tester()), Err(StoreError::NotFound));
        }
        assert_eq!(limits.list(None, 100).unwrap().len(), table.len());
        for (_, equal, _) in table {
            limits.delete(&id(equal), &tester()).unwrap();
            assert_eq!(limits.get(&id(equal)), Err(StoreError::NotFound));
        }
        assert_eq!(limits.list(None, 100).unwrap(), []);
    });
}

#[test]
fn the_bounds_of_numbers_and_ids_survive_the_database() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let longest = "é".repeat(128);
        let rows = [
            (longest.as_str(), 1_000_000_000, 1_000_000_000_000_000, 1),
            ("x", 0, 0, 86_400),
            ("y", 1, 1, 60),
        ];
        for (client_id, capacity, micro, per_secs) in rows {
            let limit = Limit { capacity, rate: Rate { micro, per_secs } };
            limits.create(&id(client_id), limit, &tester()).unwrap();
            assert_eq!(limits.get(&id(client_id)).unwrap().limit, limit, "{client_id}");
        }
    });
}

#[test]
fn a_listing_goes_in_byte_order_page_by_page() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let mut ids = ["b", "a", "B", "ä", "10.0.0.1", "9.9.9.9", "_", "ab", "a b", "🦀", "a-b", "Ab"];
        for one in ids {
            limits.create(&id(one), limit(1), &tester()).unwrap();
        }
        ids.sort_unstable();
        let mut seen: Vec<Row> = Vec::new();
        loop {
            let page = limits.list(seen.last().map(|row| row.client_id.as_str()), 5).unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 5);
            seen.extend(page);
        }
        assert_eq!(seen.iter().map(|row| row.client_id.as_str()).collect::<Vec<_>>(), ids);
    });
}

#[test]
fn the_most_specific_entry_decides_and_every_change_is_in_force_on_the_next_request() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let at = |port| decided(&limits, "1.2.3.4", port);
        assert_eq!(at(7), (EntryKind::Default, 90, String::new()));
        limits.create(&id("1.0.0.0/8"), limit(1), &tester()).unwrap();
        assert_eq!(at(7), (EntryKind::Range, 10, "1.0.0.0/8".into()));
        limits.create(&id("1.2.3.9/16"), limit(2), &tester()).unwrap();
        assert_eq!(at(7), (EntryKind::Range, 20, "1.2.3.9/16".into()));
        limits.create(&id("1.2.3.4"), limit(3), &tester()).unwrap();
        assert_eq!(at(7), (EntryKind::Client, 30, "1.2.3.4".into()));
        limits.create(&id("1.2.3.4:7"), limit(4), &tester()).unwrap();
        assert_eq!(at(7), (EntryKind::Client, 40, "1.2.3.4:7".into()));
        assert_eq!(at(8), (EntryKind::Client, 30, "1.2.3.4".into()));
        limits.update(&id("1.2.3.4:7"), limit(5), &tester()).unwrap();
        assert_eq!(at(7).1, 50);
        limits.update(&id("1.2.0.0/16"), limit(6), &tester()).unwrap();
        assert_eq!(decided(&limits, "1.2.3.5", 7), (EntryKind::Range, 60, "1.2.3.9/16".into()));
        for (gone, left) in [
            ("1.2.3.4:7", (EntryKind::Client, 30)),
            ("1.2.3.4", (EntryKind::Range, 60)),
            ("1.2.0.0/16", (EntryKind::Range, 10)),
            ("1.0.0.0/8", (EntryKind::Default, 90)),
        ] {
            limits.delete(&id(gone), &tester()).unwrap();
            let (source, capacity, _) = at(7);
            assert_eq!((source, capacity), left, "without {gone}");
        }
        // Only the first look at each of two clients was a miss, since writes put their entries into the cache.
        assert_eq!(limits.cache_counters().misses, 2);
    });
}

#[test]
fn ipv6_clients_share_their_prefix_unless_an_entry_names_one() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let prefix = |address: &str| find(&limits, address, 1).client;
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::2"));
        limits.create(&id("2001:db8::1"), limit(1), &tester()).unwrap();
        let one = find(&limits, "2001:db8::1", 1);
        assert_eq!((one.source, numbers(&one)), (EntryKind::Client, Some(limit(1))));
        assert_eq!(one.client, ClientKey::address("2001:db8::1".parse().unwrap()));
        assert_eq!(find(&limits, "2001:db8::2", 1).source, EntryKind::Default);
        limits.create(&id("[2001:db8::2]:5"), limit(2), &tester()).unwrap();
        assert_eq!(numbers(&find(&limits, "2001:db8::2", 5)), Some(limit(2)));
        assert_eq!(find(&limits, "2001:db8::2", 6).source, EntryKind::Default);
        assert_eq!(find(&limits, "2001:db8:0:1::2", 5).source, EntryKind::Default);
        // By their bytes, IPv4 addresses sort among IPv6 addresses; they must not be loaded with them.
        limits.create(&id("32.1.13.184"), limit(3), &tester()).unwrap();
        limits.create(&id("0.0.0.0"), limit(3), &tester()).unwrap();
        assert_eq!(find(&limits, "::1", 1).source, EntryKind::Default);
        assert_eq!(numbers(&find(&limits, "::ffff:32.1.13.184", 1)), Some(limit(3)));
    });
}

#[test]
fn everything_is_there_after_a_restart() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        for one in ["1.2.3.4", "1.2.3.4:80", "10.0.0.0/8", "tenant", "2001:db8::1"] {
            limits.create(&id(one), limit(1), &tester()).unwrap();
        }
        let version = limits.list(None, 10).unwrap().iter().map(|row| row.version).max().unwrap();
        limits.delete(&id("tenant"), &tester()).unwrap();
        limits.stop();
        assert!(matches!(
            limits.get(&id("1.2.3.4")),
            Err(StoreError::Unavailable { outcome: CallOutcome::Question, .. })
        ));
        let limits = setup.start().unwrap();
        assert_eq!(limits.list(None, 10).unwrap().len(), 4);
        assert_eq!(decided(&limits, "1.2.3.4", 80), (EntryKind::Client, 10, "1.2.3.4:80".into()));
        assert_eq!(decided(&limits, "10.9.9.9", 80), (EntryKind::Range, 10, "10.0.0.0/8".into()));
        // No version is used twice, not even that of a deleted row.
        limits.create(&id("tenant"), limit(1), &tester()).unwrap();
        assert!(limits.get(&id("tenant")).unwrap().version > version + 1);
    });
}

#[test]
fn a_change_moves_the_level_of_the_clients_bucket() {
    on_both(|setup| {
        // With a manual clock no tokens are refilled, however long the database takes.
        let setup = Setup { clock: Clock::manual(), ..setup.clone() };
        let limits = setup.start().unwrap();
        let now = setup.clock.moment();
        let take = |client: &str, n: u32| {
            let found = super::find(&limits, client, None, now.now);
            let ask = Ask { cost: n, ..Ask::of(found.granted.grant().unwrap()) };
            setup.limiter.acquire(found.client, ask, now).first().left
        };
        let level = |client: &str| {
            let address: IpAddr = client.parse().unwrap();
            setup
                .limiter
                .peek(ClientKey::address(address), BucketId::of("default"), now)
                .map(|bucket| bucket.whole())
        };
        assert_eq!(take("1.2.3.4", 5), 85);
        limits.create(&id("1.2.3.4"), limit(3), &tester()).unwrap();
        assert_eq!(level("1.2.3.4"), Some(25));
        limits.update(&id("1.2.3.4"), limit(4), &tester()).unwrap();
        assert_eq!(level("1.2.3.4"), Some(35));
        assert_eq!(take("1.2.3.5", 1), 89);
        limits.create(&id("1.2.3.0/24"), limit(1), &tester()).unwrap();
        assert_eq!((level("1.2.3.4"), level("1.2.3.5")), (Some(35), Some(9)), "an entry of its own wins");
        limits.delete(&id("1.2.3.4"), &tester()).unwrap();
        assert_eq!(level("1.2.3.4"), Some(5));
    });
}

#[test]
fn writers_and_readers_at_once_lose_nothing_and_versions_never_repeat() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(8));
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let (limits, barrier) = (&limits, Arc::clone(&barrier));
                scope.spawn(move || {
                    barrier.wait();
                    let mine = format!("10.0.{thread}.1");
                    limits.create(&id(&mine), limit(1), &tester()).unwrap();
                    // All threads try to create this one, and exactly one succeeds.
                    let shared = limits.create(&id("10.9.9.9"), limit(1), &tester());
                    assert!(matches!(shared, Ok(()) | Err(StoreError::Exists)), "{shared:?}");
                    for n in 1..8 {
                        limits.update(&id(&mine), limit(n), &tester()).unwrap();
                        assert_eq!(decided(limits, &mine, 1).1, 10 * n);
                    }
                });
            }
        });
        let rows = limits.list(None, 100).unwrap();
        assert_eq!(rows.len(), 9);
        let mut versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 9);
    });
}

#[test]
fn what_another_instance_writes_is_in_force_when_the_time_of_an_entry_is_over() {
    on_both(|setup| {
        let mut setup = Setup { ttl: std::time::Duration::from_millis(200), ..setup.clone() };
        let one = setup.start().unwrap();
        setup.limiter = Arc::new(Limiter::new(1000));
        let other = setup.start().unwrap();
        let now = || setup.clock.now();
        let source = |client: &str| super::find(&one, client, None, now()).source;
        assert_eq!((source("1.2.3.4"), source("10.1.1.1")), (EntryKind::Default, EntryKind::Default));
        other.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
        other.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
        super::until("the entry and the range are seen", || {
            (source("1.2.3.4") == EntryKind::Client && source("10.1.1.1") == EntryKind::Range).then_some(())
        });
        other.delete(&id("10.0.0.0/8"), &tester()).unwrap();
        super::until("the range is gone", || (source("10.1.1.1") == EntryKind::Default).then_some(()));
    });
}

#[test]
fn another_default_moves_the_buckets_of_clients_that_no_entry_names() {
    on_both(|setup| {
        // Buckets that are never refilled, so that the clock does not matter.
        let fixed = |capacity| Terms::of_numbers(Limit { capacity, rate: Rate::per_second(0) });
        let limits = setup.start().unwrap();
        limits.create(&id("1.2.3.4"), limit(7), &tester()).unwrap();
        let now = setup.clock.moment();
        let take = |client: &str, cost| {
            let found = find(&limits, client, 1);
            let ask = Ask { cost, ..Ask::of(found.granted.grant().unwrap()) };
            let outcome = setup.limiter.acquire(found.client, ask, now).first();
            outcome.allowed.then_some(outcome.left)
        };
        limits.set_default(Some(fixed(10)));
        assert_eq!(take("9.9.9.9", 4), Some(6));
        // level' = clamp(level + capacity' − capacity, 0, capacity'): 6 of 10 become 1 of 5, without another request.
        limits.set_default(Some(fixed(5)));
        let client = ClientKey::address("9.9.9.9".parse().unwrap());
        let bucket = || setup.limiter.peek(client, BucketId::of("default"), now);
        assert_eq!(bucket().map(|bucket| bucket.limit()), fixed(5).first());
        assert_eq!(take("9.9.9.9", 1), Some(0));
        assert_eq!(
            numbers(&find(&limits, "1.2.3.4", 1)),
            Some(limit(7)),
            "an entry of its own stays as it is"
        );
        limits.set_default(None);
        assert_eq!(numbers(&find(&limits, "9.9.9.9", 1)), None);
        assert!(bucket().is_none(), "unlimited counts as full");
    });
}
