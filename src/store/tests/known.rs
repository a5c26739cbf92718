//! What memory knows: what a change puts there, what a look at it costs, and what is done by hand.

use std::time::Duration;

use super::super::cache::Known;
use super::super::session::Access;
use super::super::v1::BatchOp;
use super::super::{CallOutcome, Limits, StoreError};
use super::start::by_hand;
use super::v1::plain;
use super::{PATIENCE, Setup, find, find_key, id, limit, postgres, tester, until};
use crate::clock::Clock;
use crate::config::DatabaseUrl;
use crate::store::StoreState;
use balancer_limiter::answer::EntryKind;
use balancer_limiter::limiter::Ask;

fn memory() -> Setup {
    Setup { clock: Clock::manual(), ..Setup::new(DatabaseUrl::Memory) }
}

/// What memory alone says about an address; `None`: it does not know.
fn peek(limits: &Limits, client: &str) -> Option<EntryKind> {
    limits.peek(client.parse().unwrap()).map(|found| found.source)
}

/// Takes tokens of an address, and returns how many are left.
fn take(setup: &Setup, limits: &Limits, client: &str, cost: u32) -> u32 {
    let now = setup.clock.moment();
    let found = find(limits, client, None, now.now);
    let ask = Ask { cost, ..Ask::of(found.granted.grant().unwrap()) };
    setup.limiter.acquire(found.client, ask, now).first().left
}

#[test]
fn a_look_that_is_no_request_asks_nobody_and_knows_what_memory_knows() {
    let limits = memory().start().unwrap();
    assert_eq!(peek(&limits, "1.2.3.4"), None, "a request would have to wait for it");
    assert!(limits.peek_key("tenant=a").is_none());
    find(&limits, "1.2.3.4", None, 1);
    assert_eq!(peek(&limits, "1.2.3.4"), Some(EntryKind::Default));
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    limits.create(&id("tenant=a"), limit(1), &tester()).unwrap();
    assert_eq!(peek(&limits, "1.2.3.4"), Some(EntryKind::Client));
    let entry = limits.peek_key("tenant=a").and_then(|found| found.entry);
    assert_eq!(entry.as_deref(), Some("tenant=a"));
}

#[test]
fn a_batch_puts_in_force_what_is_held_and_fills_memory_with_nothing_else() {
    let limits = memory().start().unwrap();
    find(&limits, "1.2.3.4", None, 1);
    find_key(&limits, "tenant=held");
    let ids = ["1.2.3.4", "5.5.5.5", "tenant=held", "tenant=other"];
    limits.batch(ids.map(|text| BatchOp::Create(id(text), plain(1))).into(), &tester()).unwrap();
    let known = |client: &str, key: &str| (peek(&limits, client), limits.peek_key(key).is_some());
    assert_eq!(known("1.2.3.4", "tenant=held"), (Some(EntryKind::Client), true));
    assert_eq!(known("5.5.5.5", "tenant=other"), (None, false));
    // Who writes one limit is likely to use it at once.
    limits.create(&id("6.6.6.6"), limit(1), &tester()).unwrap();
    limits.create(&id("tenant=new"), limit(1), &tester()).unwrap();
    assert_eq!(known("6.6.6.6", "tenant=new"), (Some(EntryKind::Client), true));
}

#[test]
fn the_newest_change_and_the_version_of_memory_are_those_of_the_last_write() {
    let limits = memory().start().unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    let before = limits.memory_version();
    limits.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
    assert_ne!(limits.memory_version(), before);
    let version = limits.get(&id("10.0.0.0/8")).unwrap().version;
    assert_eq!((limits.latest_change(), version), (Some(2), 2));
}

#[test]
fn a_fill_by_hand_is_in_force_at_once() {
    let setup = memory();
    let limits = setup.start().unwrap();
    limits.create(&id("1.2.3.4"), limit(3), &tester()).unwrap();
    assert_eq!(take(&setup, &limits, "1.2.3.4", 5), 25);
    limits.fill(&id("1.2.3.4"));
    assert_eq!(take(&setup, &limits, "1.2.3.4", 1), 29);
}

#[test]
fn while_the_database_is_in_doubt_no_look_up_asks_it() {
    let setup = Setup { load_timeout: Duration::from_millis(1), ..memory() };
    let limits = setup.start().unwrap();
    // This holds the only connection, so nothing can end the doubt.
    let held = limits.core.store.with(PATIENCE, Access::Read, &mut |_| {
        let pending = limits.find_key("tenant=a", 1, None).unwrap_err();
        pending.wait(limits.load_timeout());
        assert!(limits.core.breaker.trusted());
        limits.find_key("tenant=a", 1, Some(pending)).unwrap();
        assert!(!limits.core.breaker.trusted(), "a request waited in vain");
        let known = limits.find_key("tenant=b", 1, None).unwrap();
        assert!(matches!(known, Known::Unknown), "{known:?}");
        Ok(())
    });
    held.unwrap();
}

#[test]
fn a_write_that_was_not_begun_in_time_was_not_done_for_certain() {
    let setup = Setup { timeout: Duration::from_millis(50), ..memory() };
    let limits = setup.start().unwrap();
    until("the store is up", || limits.up().then_some(()));
    let ((begun, begins), (release, released)) =
        (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            limits.change(move |_| {
                begun.send(()).unwrap();
                let _ = released.recv();
                Ok(())
            })
        });
        begins.recv_timeout(PATIENCE).unwrap();
        let outcome = |result| match result {
            Err(StoreError::Unavailable { outcome, .. }) => outcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome(limits.create(&id("1.2.3.4"), limit(1), &tester())), CallOutcome::NotDone);
        assert_eq!(outcome(writer.join().unwrap()), CallOutcome::Unknown, "it may still be done");
        drop(release);
    });
}

#[test]
fn the_database_gives_up_a_call_a_little_before_its_caller_does() {
    let setup = Setup { timeout: Duration::from_secs(20), ..memory() };
    assert_eq!(setup.start().unwrap().core.within, Duration::from_secs(18));
}

#[test]
fn a_store_that_is_let_go_has_written_all_into_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::sqlite(folder.path());
    let limits = setup.start().unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    let DatabaseUrl::Sqlite(path) = &setup.url else { unreachable!() };
    let log = path.with_extension("db-wal");
    assert!(log.exists());
    drop(limits);
    assert!(!log.exists());
}

#[test]
fn each_change_is_told_to_whoever_listens_by_its_number() {
    let Some(database) = postgres::Database::postgres() else { return };
    let limits = Setup::postgres(&database.url).start().unwrap();
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    client.batch_execute("LISTEN balancer_changes").unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    use ::postgres::fallible_iterator::FallibleIterator;
    let word = client.notifications().timeout_iter(PATIENCE).next().unwrap().expect("it is told");
    assert_eq!(word.payload(), limits.get(&id("1.2.3.4")).unwrap().version.to_string());
}

#[test]
fn a_database_that_is_read_only_is_known_for_it_until_it_takes_changes() {
    let Some(database) = postgres::Database::postgres() else { return };
    let setup = Setup { pool_size: 1, ..Setup::postgres(&database.url) };
    let limits = setup.start().unwrap();
    assert_eq!(limits.state(), StoreState::Up);
    limits.stop();
    let name = database.url.rsplit_once('/').unwrap().1.split('?').next().unwrap();
    let turn = |word: &str| {
        let alter = format!("ALTER DATABASE {name} SET default_transaction_read_only = {word}");
        by_hand(&setup.url, &format!("BEGIN READ WRITE; {alter}; COMMIT"));
    };
    turn("on");
    let limits = setup.start().unwrap();
    assert_eq!(limits.state(), StoreState::ReadOnly, "it says so");
    let create = || limits.create(&id("1.2.3.4"), limit(1), &tester());
    assert!(matches!(create(), Err(StoreError::Refused { state: StoreState::ReadOnly, .. })));
    turn("off");
    // A connection that is open stays read-only, so it is given up with the change that it refuses.
    until("a change is done", || create().ok());
    assert_eq!(limits.state(), StoreState::Up);
}
