//! PostgreSQL below the store: its connections, its errors, and who listens.

use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ::postgres::{Client, NoTls};

use super::super::postgres::Postgres;
use super::super::session::{Access, Cell, Session, Store, Word, inside};
use super::postgres::{self, Database};
use super::{PATIENCE, until};
use crate::config::Secret;
use crate::store::{CallOutcome, StoreError};

fn open(url: &str, pool_size: u32) -> Postgres {
    Postgres::open(&Secret::new(url), None, pool_size, Duration::from_secs(10)).unwrap()
}

/// Has the server end those other connections to this database for which the condition holds.
fn end_connections(url: &str, condition: &str) {
    let sql = format!(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
    );
    let mut client = Client::connect(url, NoTls).unwrap();
    let ended: Vec<i32> = client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(!ended.is_empty());
    let mut left = || client.query("SELECT 1 FROM pg_stat_activity WHERE pid = ANY($1)", &[&ended]).unwrap();
    until("they are gone", || left().is_empty().then_some(()));
}

/// Why the database could not be asked.
#[track_caller]
fn cause(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable { cause, outcome: CallOutcome::NotDone }) => cause,
        other => panic!("{other:?}"),
    }
}

/// The server's process behind a connection.
fn process(session: &mut dyn Session) -> Result<Vec<Vec<Cell>>, StoreError> {
    session.query("SELECT pg_backend_pid()", &[])
}

#[test]
fn who_gets_no_connection_is_told_why_and_at_once_where_none_can_be_made() {
    // Nobody listens there.
    let store = open("postgres://u@127.0.0.1:1/d", 1);
    let refused = |within| cause(store.with(within, Access::Read, &mut |_| Ok(())));
    for within in [Duration::from_secs(5), Duration::from_millis(10)] {
        let cause = refused(within);
        assert!(cause.contains("no connection: ") && cause.contains("refused"), "{cause}");
    }
    // There somebody listens and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = open(&format!("postgres://u@{}/d?sslmode=disable", silent.local_addr().unwrap()), 1);
    let waited = cause(store.with(Duration::from_millis(100), Access::Read, &mut |_| Ok(())));
    assert_eq!(waited, "no connection: none was free in time");
}

#[test]
fn a_caller_waits_for_the_connection_that_another_one_uses() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 1);
    let (begun, begins) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let hold = &mut |_: &mut dyn Session| {
                begun.send(()).unwrap();
                // Longer than a caller waits between two looks at why there is none.
                thread::sleep(Duration::from_millis(60));
                Ok(())
            };
            store.with(PATIENCE, Access::Read, hold).unwrap();
        });
        begins.recv_timeout(PATIENCE).unwrap();
        store.with(PATIENCE, Access::Read, &mut |_| Ok(())).unwrap();
    });
}

#[test]
fn dead_connections_are_passed_over_by_reads_and_writes() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 2);
    for access in [Access::Read, Access::Write] {
        let both =
            store.with(PATIENCE, Access::Read, &mut |_| store.with(PATIENCE, Access::Read, &mut |_| Ok(())));
        both.unwrap();
        end_connections(&database.url, "true");
        store.with(PATIENCE, access, &mut |session| process(session).map(drop)).unwrap();
    }
}

#[test]
fn a_question_is_asked_once_more_than_there_are_connections() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 2);
    let mut asked = 0;
    let result = store.with(PATIENCE, Access::Read, &mut |_| {
        asked += 1;
        Err(StoreError::down("a test's"))
    });
    assert_eq!((cause(result), asked), ("a test's".into(), 3));
}

#[test]
fn a_connection_is_used_again_unless_something_went_wrong_on_it() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 1);
    let used = || inside(&store, PATIENCE, Access::Read, process).unwrap();
    let first = used();
    assert_eq!(used(), first);
    // The work says that the connection broke: it is tried again on another one.
    let mut seen = Vec::new();
    let tried = store.with(PATIENCE, Access::Read, &mut |session| {
        seen.push(process(session)?);
        if seen.len() < 2 { Err(StoreError::down("a test's")) } else { Ok(()) }
    });
    tried.unwrap();
    assert!(seen[0] == first && seen[1] != first, "{first:?} {seen:?}");
    // It was closed, and the work did not mind.
    let closed = store.with(PATIENCE, Access::Read, &mut |session| {
        let _ = session.batch("SELECT pg_terminate_backend(pg_backend_pid())");
        until("it is closed", || session.batch("SELECT 1").err());
        Ok(())
    });
    closed.unwrap();
    let mut asked = 0;
    let next = store.with(PATIENCE, Access::Read, &mut |session| {
        asked += 1;
        process(session).map(drop)
    });
    next.unwrap();
    assert_eq!(asked, 1, "no dead connection was lent");
}

#[test]
fn a_call_that_missed_its_deadline_is_not_begun_again() {
    let Some(server) = postgres::Postgres::start() else { return };
    let store = open(&server.url(), 2);
    store.with(PATIENCE, Access::Read, &mut |_| store.with(PATIENCE, Access::Read, &mut |_| Ok(()))).unwrap();
    server.pause();
    for access in [Access::Read, Access::Write] {
        let work = &mut |session: &mut dyn Session| process(session).map(drop);
        let cause = cause(store.with(Duration::from_millis(100), access, work));
        assert!(cause.contains("did not answer in time"), "{access:?}: {cause}");
    }
    server.resume();
}

#[test]
fn the_server_ends_what_takes_longer_than_a_call() {
    let Some(database) = Database::postgres() else { return };
    let store = Postgres::open(&Secret::new(&database.url), None, 1, Duration::from_secs(2)).unwrap();
    let sql = "SELECT setting FROM pg_settings \
        WHERE name IN ('idle_in_transaction_session_timeout', 'statement_timeout') ORDER BY name";
    let settings = inside(&store, PATIENCE, Access::Read, |session| session.query(sql, &[])).unwrap();
    assert_eq!(settings, [[Cell::Text("3000".into())], [Cell::Text("1500".into())]]);
}

#[test]
fn errors_of_the_server_are_told_apart_by_their_class() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 1);
    let class = |fault| match fault {
        StoreError::Unavailable { .. } => "down",
        StoreError::Schema(_) => "schema",
        StoreError::Refused { state, .. } => state.word(),
        other => panic!("{other:?}"),
    };
    for (code, expected) in [
        ("08006", "down"),
        ("57P01", "down"),
        ("42501", "schema"),
        ("3F000", "schema"),
        ("25006", "read-only"),
        ("53100", "full"),
        // Something is locked, or was cancelled.
        ("57014", "up"),
        ("40001", "up"),
    ] {
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '{code}'; END $$");
        let fault = store.with(PATIENCE, Access::Read, &mut |session| session.batch(&raise)).unwrap_err();
        assert_eq!(class(fault), expected, "{code}");
    }
}

#[test]
fn a_listener_that_lost_its_connection_hears_again_and_says_that_it_missed_something() {
    let Some(database) = Database::postgres() else { return };
    let store = open(&database.url, 1);
    let ((tell, told), (life, end)) = (channel(), crossbeam_channel::bounded(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let hear = |word: Word<'_>| {
                let text = match word {
                    Word::Changes => None,
                    Word::Budget(text) => Some(text.to_owned()),
                };
                tell.send(text).unwrap();
            };
            store.listener().run(&hear, &end);
        });
        let life = life;
        for text in ["one", "two"] {
            assert_eq!(
                told.recv_timeout(PATIENCE),
                Ok(None),
                "something may have changed before it listened"
            );
            let mut client = Client::connect(&database.url, NoTls).unwrap();
            client.batch_execute(&format!("NOTIFY balancer_budget, '{text}'")).unwrap();
            assert_eq!(told.recv_timeout(PATIENCE).unwrap().as_deref(), Some(text));
            end_connections(&database.url, "query LIKE '%LISTEN balancer_budget'");
        }
        drop(life);
    });
}
