//! The database is down, paused, restarted, locked.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Limits, StartError, StoreError};
use super::postgres::{self, Postgres};
use super::{Setup, find, id, limit, tester, until};
use crate::clock::Clock;
use crate::config::DatabaseUrl;
use crate::store::{CallOutcome, StoreState};
use balancer_limiter::answer::EntryKind;

/// How much later than its bound something may end, on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(2);

fn source(limits: &Limits, client: &str) -> EntryKind {
    find(limits, client, Some(7), Clock::real().now()).source
}

/// Runs something and measures how long it took.
fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let clock = Clock::real();
    let started = clock.now();
    let result = what();
    (result, Duration::from_nanos(clock.now() - started))
}

fn impatient(url: &str) -> Setup {
    Setup { timeout: Duration::from_secs(1), load_timeout: Duration::from_millis(50), ..Setup::postgres(url) }
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    match result {
        Err(StoreError::Unavailable { outcome, .. }) => outcome == CallOutcome::Unknown,
        Err(StoreError::Refused { .. }) => false,
        other => panic!("{other:?}"),
    }
}

/// Waits until the store is back, and does a write and a load.
fn serves(limits: &Limits, client: &str) {
    until("the store is back", || limits.up().then_some(()));
    until("a write is done", || limits.create(&id(client), limit(1), &tester()).ok());
    assert_eq!(source(limits, client), EntryKind::Client);
}

#[test]
fn a_paused_server_holds_up_nobody_and_is_used_again_when_it_goes_on() {
    let Some(server) = Postgres::start() else { return };
    let setup = impatient(&server.url());
    let limits = setup.start().unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    limits.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
    server.pause();

    let (found, took) = timed(|| source(&limits, "10.1.1.1"));
    assert_eq!(found, EntryKind::Range, "what is known decides");
    assert!(took < setup.load_timeout + SLACK, "{took:?}");
    assert_eq!(limits.cache_counters().timeouts, 1);
    // From now on no request waits at all: a thousand waits of 50 ms would take 50 s.
    let ((), took) = timed(|| {
        for n in 0..1000 {
            assert_eq!(source(&limits, &format!("9.9.{}.{}", n / 250, n % 250)), EntryKind::Default);
        }
    });
    assert!(took < SLACK, "{took:?}");
    assert_eq!(source(&limits, "1.2.3.4"), EntryKind::Client, "the cache holds");
    // Until the probe has failed as well, the API still asks the database, and waits no longer than it may.
    let (result, took) = timed(|| limits.create(&id("5.5.5.5"), limit(1), &tester()));
    assert!(took < setup.timeout + SLACK, "{took:?}");
    unavailable(result);
    until("the store counts as down", || (!limits.up()).then_some(()));
    let (result, took) = timed(|| limits.get(&id("1.2.3.4")));
    assert!(!unavailable(result) && took < Duration::from_millis(500), "{took:?}");
    // Long enough for every connection to reach its deadline.
    std::thread::sleep(setup.timeout + Duration::from_millis(200));

    server.resume();
    serves(&limits, "7.7.7.7");
    assert_eq!(limits.get(&id("1.2.3.4")).unwrap().client_id, "1.2.3.4");
}

/// Makes the server take longer for a commit than its caller waits; in the end the server does it.
const SLOW_COMMIT: &str = "
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(2.5);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER dawdle AFTER UPDATE ON limits DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION dawdle();";

#[test]
fn a_commit_without_an_answer_has_an_unknown_outcome_and_memory_learns_the_truth() {
    let Some(database) = postgres::Database::postgres() else { return };
    let setup = impatient(&database.url);
    let limits = setup.start().unwrap();
    until("a write is done", || limits.create(&id("1.2.3.4"), limit(1), &tester()).ok());
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    client.batch_execute(SLOW_COMMIT).unwrap();
    assert!(!limits.core.has_doubts());
    assert!(unavailable(limits.update(&id("1.2.3.4"), limit(2), &tester())), "it may still be done");
    let in_force = || {
        let found = find(&limits, "1.2.3.4", None, Clock::real().now());
        found.granted.grant().and_then(|grant| grant.terms.first())
    };
    // It is not committed yet: the old numbers are in force, and a load would bring them.
    assert_eq!(in_force(), Some(limit(1)));
    until("memory has the numbers that were committed after all", || {
        (in_force() == Some(limit(2))).then_some(())
    });
    assert_eq!(limits.get(&id("1.2.3.4")).unwrap().limit, limit(2));
    until("nothing is in doubt", || (!limits.core.has_doubts()).then_some(()));
}

#[test]
fn a_write_that_never_came_to_its_commit_was_not_done_for_certain() {
    let Some(database) = postgres::Database::postgres() else { return };
    let setup = Setup { timeout: Duration::from_millis(500), ..impatient(&database.url) };
    let limits = setup.start().unwrap();
    // Another writer holds the lock.
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    client.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(x'62616c616e636572'::bigint)").unwrap();
    let result = limits.create(&id("1.2.3.4"), limit(1), &tester());
    assert!(!unavailable(result), "the server ended the wait, and said so");
    assert!(limits.up(), "readers are served");
    client.batch_execute("COMMIT").unwrap();
    until("a write is done", || limits.create(&id("1.2.3.4"), limit(1), &tester()).ok());
}

#[test]
fn a_server_that_is_restarted_is_found_again_by_dead_connections_too() {
    let Some(mut server) = Postgres::start() else { return };
    let limits = impatient(&server.url()).start().unwrap();
    // The server restarts while nothing is asked: every connection in the pool is dead, but the first call still succeeds.
    server.stop();
    server.run();
    until("a write is done", || limits.create(&id("1.2.3.4"), limit(1), &tester()).ok());
    server.stop();
    until("the store counts as down", || {
        source(&limits, "8.8.8.8");
        (!limits.up()).then_some(())
    });
    assert_eq!(source(&limits, "1.2.3.4"), EntryKind::Client);
    server.run();
    serves(&limits, "7.7.7.7");
}

#[test]
fn a_start_without_the_server_is_no_error_and_migrates_when_it_comes() {
    let Some(mut server) = Postgres::start() else { return };
    let setup = impatient(&server.url());
    server.stop();
    let (limits, took) = timed(|| setup.start().unwrap());
    assert!(took < setup.timeout + Duration::from_millis(500) + SLACK, "{took:?}");
    assert!(!limits.up());
    assert_eq!(source(&limits, "1.2.3.4"), EntryKind::Default);
    assert!(!unavailable(limits.create(&id("1.2.3.4"), limit(1), &tester())));
    server.run();
    serves(&limits, "1.2.3.4");
}

#[test]
fn a_stop_during_an_outage_takes_no_longer_than_the_calls_may() {
    let Some(server) = Postgres::start() else { return };
    let setup = impatient(&server.url());
    let limits = setup.start().unwrap();
    server.pause();
    let begun = Arc::clone(&limits);
    let writer = std::thread::spawn(move || begun.create(&id("1.2.3.4"), limit(1), &tester()));
    source(&limits, "9.9.9.9");
    let ((), took) = timed(|| limits.stop());
    assert!(took < setup.timeout * 4 + SLACK, "{took:?}");
    unavailable(writer.join().unwrap());
    server.resume();
}

#[test]
fn a_file_that_another_process_holds_is_waited_for_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { timeout: Duration::from_millis(300), ..Setup::sqlite(folder.path()) };
    let limits = setup.start().unwrap();
    let DatabaseUrl::Sqlite(path) = &setup.url else { unreachable!() };
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // On a busy machine the caller may give up a moment before SQLite does.
    until("SQLite gives up", || {
        let result = limits.create(&id("1.2.3.4"), limit(1), &tester());
        matches!(result, Err(StoreError::Refused { state: StoreState::Up, .. })).then_some(())
    });
    assert_eq!(source(&limits, "5.5.5.5"), EntryKind::Default);
    assert_eq!(limits.list(None, 10).unwrap(), [], "readers are not held up");
    other.execute_batch("COMMIT").unwrap();
    until("a write is done", || limits.create(&id("1.2.3.5"), limit(1), &tester()).ok());
    assert!(limits.up());
}

#[test]
fn a_file_that_was_deleted_is_made_anew_with_all_that_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::sqlite(folder.path());
    let limits = setup.start().unwrap();
    let DatabaseUrl::Sqlite(path) = &setup.url else { unreachable!() };
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
    std::fs::remove_file(path).unwrap();
    until("a write is done", || limits.create(&id("1.2.3.5"), limit(2), &tester()).ok());
    assert!(path.exists() && limits.up());
    limits.stop();
    let kept = setup.another().start().unwrap().list(None, 10).unwrap();
    assert_eq!(kept.iter().map(|row| &*row.client_id).collect::<Vec<_>>(), ["1.2.3.4", "1.2.3.5"]);
}

#[test]
fn a_host_that_answers_nothing_is_an_outage_and_no_fault_of_the_configuration() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:hunter2@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let setup = Setup { timeout: Duration::from_millis(300), ..Setup::postgres(&url) };
    let limits = setup.start().unwrap();
    assert!(!limits.up());
    let Err(StoreError::Unavailable { cause, outcome: CallOutcome::Question }) = limits.get(&id("a")) else {
        panic!("it answered")
    };
    assert!(!cause.contains("hunter2"), "{cause}");
    let wrong = Setup::postgres("postgres://u:hunter2@h/d?sslmode=perhaps").start();
    let Err(StartError::Url(text)) = wrong else { panic!("it started") };
    assert!(!text.contains("hunter2") && text.contains("verify-full"), "{text}");
}
