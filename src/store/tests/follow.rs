//! Changes by one instance are in force on another, long before its entries grow old.

use std::sync::Arc;
use std::time::Duration;

use super::super::Limits;
use super::super::v1::{BatchOp, Condition};
use super::postgres::{self, Postgres};
use super::start::by_hand;
use super::v1::{of_plan, plan};
use super::{Setup, find, find_key, id, limit, on_both, tester, until};
use crate::clock::Clock;
use crate::config::DatabaseUrl;
use crate::store::cache::Known;
use balancer_limiter::answer::EntryKind;
use balancer_limiter::terms::ClientLimit;

/// Two instances on one database. Their entries do not grow old during a test.
fn two(setup: &Setup) -> (Arc<Limits>, Arc<Limits>) {
    (setup.start().unwrap(), setup.another().start().unwrap())
}

fn source(limits: &Limits, client: &str) -> EntryKind {
    find(limits, client, Some(7), 1).source
}

#[track_caller]
fn comes_to(limits: &Limits, client: &str, wanted: EntryKind) {
    until(&format!("{client} gets what a {wanted:?} gets"), || {
        (source(limits, client) == wanted).then_some(())
    });
}

#[test]
fn limits_and_ranges_follow_every_kind_of_change() {
    on_both(|setup| {
        let (here, there) = two(setup);
        let (create, delete) = (
            |what: &str| here.create(&id(what), limit(1), &tester()),
            |what: &str| here.delete(&id(what), &tester()),
        );
        for client in ["1.2.3.4", "10.1.1.1", "2001:db8::1"] {
            assert_eq!(source(&there, client), EntryKind::Default);
        }
        create("1.2.3.4:7").unwrap();
        comes_to(&there, "1.2.3.4", EntryKind::Client);
        create("10.0.0.0/8").unwrap();
        comes_to(&there, "10.1.1.1", EntryKind::Range);
        create("2001:db8::/48").unwrap();
        comes_to(&there, "2001:db8::1", EntryKind::Range);
        create("2001:db8::1").unwrap();
        comes_to(&there, "2001:db8::1", EntryKind::Client);
        delete("1.2.3.4:7").unwrap();
        comes_to(&there, "1.2.3.4", EntryKind::Default);
        delete("10.0.0.0/8").unwrap();
        comes_to(&there, "10.1.1.1", EntryKind::Default);
        let batch =
            (1..200).map(|n| BatchOp::Create(id(&format!("1.2.3.{n}")), ClientLimit::of_numbers(limit(1))));
        here.batch(batch.collect(), &tester()).unwrap();
        comes_to(&there, "1.2.3.4", EntryKind::Client);
    });
}

/// The capacity of a client's first bucket; 0 for none.
fn capacity(limits: &Limits, client: &str) -> u32 {
    let found = find(limits, client, Some(7), 1);
    found.granted.grant().and_then(|grant| grant.terms.first()).map_or(0, |limit| limit.capacity)
}

#[test]
fn plans_follow_for_clients_that_are_known_already() {
    on_both(|setup| {
        let (here, there) = two(setup);
        here.create_plan(&plan("free", 7), &tester()).unwrap();
        let batch = ["1.2.3.4", "10.0.0.0/8"].map(|text| BatchOp::Create(id(text), of_plan("free")));
        here.batch(batch.into(), &tester()).unwrap();
        for client in ["1.2.3.4", "10.1.1.1"] {
            until("the plan is in force there", || (capacity(&there, client) == 7).then_some(()));
        }
        here.put_plan(&plan("free", 8), &Condition::None, &tester()).unwrap();
        assert_eq!(capacity(&here, "1.2.3.4"), 8, "in force here at once");
        for client in ["1.2.3.4", "10.1.1.1"] {
            until("the changed plan is in force there", || (capacity(&there, client) == 8).then_some(()));
        }
    });
}

#[test]
fn opaque_ids_are_found_and_follow_too() {
    on_both(|setup| {
        let (here, there) = two(setup);
        let stored = |limits: &Limits| match find_key(limits, "tenant=ä/1") {
            Known::Entry(hit) => Some(hit.id.to_string()),
            Known::Absent => None,
            Known::Unknown => panic!("the database was not asked"),
        };
        assert_eq!((stored(&here), stored(&there)), (None, None));
        here.create(&id("tenant=ä/1"), limit(1), &tester()).unwrap();
        assert_eq!(stored(&here).as_deref(), Some("tenant=ä/1"), "in force here at once");
        until("the other one knows it", || stored(&there));
        here.batch(vec![BatchOp::Delete(id("tenant=ä/1"))], &tester()).unwrap();
        assert_eq!(stored(&here), None);
        until("the other one knows it no more", || stored(&there).is_none().then_some(()));
        assert_eq!(here.cache_counters().misses, 1);
    });
}

#[test]
fn ones_own_changes_are_not_read_again() {
    on_both(|setup| {
        let (here, there) = two(setup);
        assert_eq!(source(&here, "1.2.3.4"), EntryKind::Default);
        for n in 0..50 {
            here.put_limit(
                &id("1.2.3.4"),
                &ClientLimit::of_numbers(limit(n % 9)),
                &Default::default(),
                &tester(),
            )
            .unwrap();
            assert_eq!(source(&here, "1.2.3.4"), EntryKind::Client);
        }
        // When this instance has followed a later change of the other one, it has also seen its own changes in the list.
        there.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
        comes_to(&here, "10.1.1.1", EntryKind::Range);
        assert_eq!(source(&here, "1.2.3.4"), EntryKind::Client);
        assert_eq!(here.cache_counters().misses, 2, "the first look at each of two");
    });
}

#[test]
fn after_a_gap_in_the_list_everything_is_looked_up_anew() {
    on_both(|setup| {
        let (here, there) = two(setup);
        assert_eq!(
            (source(&there, "1.2.3.4"), source(&there, "10.1.1.1")),
            (EntryKind::Default, EntryKind::Default)
        );
        here.create(&id("a"), limit(1), &tester()).unwrap();
        // As if more changes than are kept had come and been removed.
        let jump = match setup.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => {
                "UPDATE sqlite_sequence SET seq = seq + 100000 WHERE name = 'changes'"
            }
            DatabaseUrl::Postgres(_) => "SELECT setval('change_seq', nextval('change_seq') + 100000)",
        };
        let address = match setup.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => "x'01020304'",
            DatabaseUrl::Postgres(_) => "'\\x01020304'::bytea",
        };
        let row = |id: &str, kind: u8| {
            format!(
                "INSERT INTO limits (canonical, client_id, kind, address, buckets, version) \
                 SELECT '{id}', '{id}', {kind}, {address}, buckets, 1 FROM limits WHERE client_id = 'a';"
            )
        };
        by_hand(&setup.url, &format!("{} {} {jump}", row("1.2.3.4", 1), row("10.0.0.0/8", 3)));
        assert_eq!(source(&there, "1.2.3.4"), EntryKind::Default, "nobody was told");
        here.create(&id("b"), limit(1), &tester()).unwrap();
        comes_to(&there, "1.2.3.4", EntryKind::Client);
        comes_to(&there, "10.1.1.1", EntryKind::Range);
        // From there on, changes are followed as before.
        here.delete(&id("1.2.3.4"), &tester()).unwrap();
        comes_to(&there, "1.2.3.4", EntryKind::Default);
    });
}

#[test]
fn after_a_restart_of_the_server_changes_are_followed_again() {
    let Some(mut server) = Postgres::start() else { return };
    let setup = Setup { timeout: Duration::from_secs(2), ..Setup::postgres(&server.url()) };
    let (here, there) = two(&setup);
    assert_eq!(
        (source(&there, "1.2.3.4"), source(&there, "10.1.1.1")),
        (EntryKind::Default, EntryKind::Default)
    );
    server.stop();
    server.run();
    for n in 1..=3u32 {
        until("a write is done", || here.create(&id(&format!("1.2.3.{n}")), limit(1), &tester()).ok());
    }
    until("a write is done", || here.create(&id("1.2.3.4"), limit(1), &tester()).ok());
    comes_to(&there, "1.2.3.4", EntryKind::Client);
    here.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
    comes_to(&there, "10.1.1.1", EntryKind::Range);
}

#[test]
fn a_change_that_was_made_while_an_instance_could_not_listen_is_caught_up_with() {
    let Some(database) = postgres::Database::postgres() else { return };
    // Nothing answers at that address, so the listener never hears a word. The watch looks by itself every `ttl`; by this clock no
    // entry ever gets that old.
    let deaf = Setup {
        listen_url: Some("postgres://postgres@127.0.0.1:1/postgres".into()),
        ttl: Duration::from_millis(100),
        clock: Clock::manual(),
        ..Setup::postgres(&database.url)
    };
    let there = deaf.start().unwrap();
    let here = Setup::postgres(&database.url).start().unwrap();
    assert_eq!(source(&there, "1.2.3.4"), EntryKind::Default);
    here.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    comes_to(&there, "1.2.3.4", EntryKind::Client);
}

#[test]
fn a_round_that_finds_nothing_new_goes_on_from_where_it_was() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
        let followed = || limits.core.book.lock().followed;
        let last = until("its own change is followed", || followed().filter(|last| *last > 0));
        limits.core.follow().unwrap();
        assert_eq!(followed(), Some(last));
    });
}
