//! Several instances on one database, and databases that are not ours or not of our time.

use serde_json::json;

use crate::support::engine::each_store;
use crate::support::{Backend, Database, Setup, Store, until};

each_store! {
    instances_that_start_at_once_migrate_once,
    a_change_reaches_the_other_instance_within_the_ttl,
    a_database_from_the_future_is_refused_with_clear_words,
    a_foreign_schema_is_refused_with_clear_words,
}

fn instances_that_start_at_once_migrate_once(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    setup.write();
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let setup = setup.clone();
            std::thread::spawn(move || setup.launch())
        })
        .collect();
    let procs: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    let addresses: Vec<_> = procs
        .iter()
        .map(|proc| crate::support::balancer::listening(&proc.wait_out("listening on http://")))
        .collect();
    for (i, address) in addresses.iter().enumerate() {
        let body = json!({ "client_id": format!("from-{i}"), "capacity": 1, "rate_per_sec": 1 }).to_string();
        crate::support::request(*address, "POST", "/limits/create", &[], body.as_bytes()).expect(201);
    }
    for address in addresses {
        let listed = crate::support::get(address, "/limits").expect(200).json();
        assert_eq!(listed["limits"].as_array().unwrap().len(), 4);
    }
}

fn a_change_reaches_the_other_instance_within_the_ttl(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address()).set("cache.ttl", json!("200ms"));
    let (first, second) = (setup.start(), setup.start());
    // The other one knows that these have no limit.
    second.get_from("127.0.0.50", "/").expect(200);
    second.get_from("127.50.0.1", "/").expect(200);
    first.limit("127.0.0.50", 0, 0);
    first.limit("127.50.0.0/16", 0, 0);
    until("the client's limit is in force there", || {
        (second.get_from("127.0.0.50", "/").status == 429).then_some(())
    });
    until("the range is in force there", || (second.get_from("127.50.0.1", "/").status == 429).then_some(()));
    first.api("DELETE", "/limits/delete", &json!({ "client_id": "127.0.0.50" })).expect(204);
    until("its end, too", || (second.get_from("127.0.0.50", "/").status == 200).then_some(()));
}

/// Runs statements in the database.
fn execute(database: &Database, setup: &Setup, sql: &str) {
    match database.store {
        Store::Sqlite => {
            let file = rusqlite::Connection::open(setup.folder().join("balancer.db")).unwrap();
            file.execute_batch(sql).unwrap();
        }
        Store::Postgres => {
            let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
            client.batch_execute(sql).unwrap();
        }
    }
}

/// It must not serve limits from it, and must say why: either it ends, or it runs with the store down.
fn refuses(setup: &Setup, words: &[&str]) {
    let mut proc = setup.launch();
    let (_, line) = proc.wait_err(0, &format!("one of {words:?}"), |line| {
        let line = line.to_lowercase();
        words.iter().any(|word| line.contains(word))
    });
    assert!(!line.contains("panicked"), "{line}");
    let ended = until("it ends or listens", || match proc.poll() {
        Some(status) => Some(Some(status)),
        None => proc.out().contains("listening on").then_some(None),
    });
    match ended {
        Some(status) => assert!(matches!(status.code(), Some(1 | 2)), "{}", proc.story()),
        None => {
            let address = crate::support::balancer::listening(&proc.wait_out("listening on http://"));
            crate::support::get(address, "/limits").problem(503);
        }
    }
}

fn a_database_from_the_future_is_refused_with_clear_words(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    drop(setup.start());
    execute(database, &setup, "INSERT INTO balancer_migrations (number) VALUES (999)");
    refuses(&setup, &["newer"]);
}

fn a_foreign_schema_is_refused_with_clear_words(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    execute(database, &setup, "CREATE TABLE limits (something TEXT)");
    refuses(&setup, &["schema", "table", "migrat"]);
}
