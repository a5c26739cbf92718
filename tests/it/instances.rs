//! Several instances on one database; and databases that are not ours, or of another version.

use std::path::Path;

use serde_json::json;

use crate::support::engine::each_store;
use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Database, Setup, Store, execute, until};

each_store! {
    instances_that_start_at_once_migrate_once,
    what_no_change_tells_of_is_in_force_after_the_ttl,
    what_is_changed_on_one_is_in_force_on_the_other,
    after_a_gap_in_the_changes_the_other_instance_looks_everything_up_anew,
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

/// Stores a limit for 127.0.0.`last`, with the numbers of the client `somebody`. No change tells of it, as if its change had
/// been pruned.
fn store_unsaid(database: &Database, folder: &Path, last: u8) {
    let address = match database.store {
        Store::Sqlite => format!("x'7f0000{last:02x}'"),
        Store::Postgres => format!("'\\x7f0000{last:02x}'::bytea"),
    };
    let sql = format!(
        "INSERT INTO limits (canonical, client_id, kind, address, buckets, version) \
         SELECT '127.0.0.{last}', '127.0.0.{last}', 1, {address}, buckets, 1 FROM limits WHERE client_id = 'somebody'"
    );
    execute(database, folder, &sql);
}

fn what_no_change_tells_of_is_in_force_after_the_ttl(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address()).set("cache.ttl", json!("200ms"));
    let balancer = setup.start();
    balancer.limit("somebody", 0, 0);
    // That it has no limit is held in memory from now on.
    balancer.get_from("127.0.0.50", "/").expect(200);
    store_unsaid(database, balancer.folder(), 50);
    becomes(&balancer, "127.0.0.50", 429);
}

/// Two balancers on one database. What they know would not grow old within a test.
fn two(database: &Database) -> (Balancer, Balancer, Backend) {
    let backend = Backend::named("a");
    let setup = Setup::auto()
        .store(database)
        .backend(backend.address())
        .set("cache.ttl", json!("1h"))
        .set("cache.load_timeout", json!("5s"));
    (setup.start(), setup.start(), backend)
}

#[track_caller]
fn becomes(balancer: &Balancer, client: &str, status: u16) {
    until(&format!("{client} gets {status}"), || {
        (balancer.get_from(client, "/").status == status).then_some(())
    });
}

/// The capacity that the answers to a client show.
fn shown(balancer: &Balancer, client: &str) -> String {
    balancer.get_from(client, "/").field("RateLimit-Policy").unwrap_or_default().to_owned()
}

fn what_is_changed_on_one_is_in_force_on_the_other(database: &Database) {
    let (here, there, _backend) = two(database);
    for client in ["127.0.0.60", "127.60.0.1"] {
        there.get_from(client, "/").expect(200);
    }
    here.limit("127.0.0.60", 0, 0);
    becomes(&there, "127.0.0.60", 429);
    here.limit("127.60.0.0/16", 0, 0);
    becomes(&there, "127.60.0.1", 429);
    here.api("DELETE", "/limits/delete", &json!({ "client_id": "127.0.0.60" })).expect(204);
    becomes(&there, "127.0.0.60", 200);
    here.api("DELETE", "/limits/delete", &json!({ "client_id": "127.60.0.0/16" })).expect(204);
    becomes(&there, "127.60.0.1", 200);

    let bucket = |capacity: u32| json!([{ "name": "hour", "amount": 1, "per": "1h", "capacity": capacity }]);
    here.api("POST", "/-/v1/plans", &json!({ "name": "free", "buckets": bucket(40) })).expect(201);
    here.api("POST", "/-/v1/limits", &json!({ "client_id": "127.0.0.61", "plan": "free" })).expect(201);
    until("the plan's client is known there", || shown(&there, "127.0.0.61").contains("q=40;").then_some(()));
    here.api("PUT", "/-/v1/plans/free", &json!({ "buckets": bucket(50) })).expect(200);
    until("the changed plan is in force there", || {
        shown(&there, "127.0.0.61").contains("q=50;").then_some(())
    });
    here.api("PUT", "/-/v1/plans/free", &json!({ "buckets": bucket(0) })).expect(200);
    becomes(&there, "127.0.0.61", 429);

    // A bucket that is reset on one instance is full on the other.
    here.limit("127.0.0.62", 1, 0);
    until("the limit is there", || shown(&there, "127.0.0.62").contains("q=1").then_some(()));
    becomes(&there, "127.0.0.62", 429);
    here.api("POST", "/-/v1/limits/127.0.0.62/reset", &json!(null)).expect(204);
    becomes(&there, "127.0.0.62", 200);
}

fn after_a_gap_in_the_changes_the_other_instance_looks_everything_up_anew(database: &Database) {
    let (here, there, _backend) = two(database);
    there.get_from("127.0.0.63", "/").expect(200);
    here.limit("somebody", 0, 0);
    store_unsaid(database, here.folder(), 63);
    let jump = match database.store {
        Store::Sqlite => "UPDATE sqlite_sequence SET seq = seq + 100000 WHERE name = 'changes'",
        Store::Postgres => "SELECT setval('change_seq', nextval('change_seq') + 100000)",
    };
    execute(database, here.folder(), jump);
    there.get_from("127.0.0.63", "/").expect(200);
    here.limit("somebody-else", 0, 0);
    becomes(&there, "127.0.0.63", 429);
    here.limit("127.0.0.64", 0, 0);
    becomes(&there, "127.0.0.64", 429);
}

#[test]
fn after_a_restart_of_postgresql_the_instances_hear_of_each_other_again() {
    let Some(mut server) = Postgres::start() else { return };
    let database = server.database("shared");
    let (here, there, _backend) = two(&database);
    there.get_from("127.0.0.65", "/").expect(200);
    server.stop();
    server.run();
    let body = json!({ "client_id": "127.0.0.65", "capacity": 0, "rate_per_sec": 0 });
    until("a write is done", || (here.api("POST", "/limits/create", &body).status == 201).then_some(()));
    becomes(&there, "127.0.0.65", 429);
    here.limit("127.65.0.0/16", 0, 0);
    becomes(&there, "127.65.0.1", 429);
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
    execute(database, setup.folder(), "INSERT INTO balancer_migrations (number) VALUES (999)");
    refuses(&setup, &["newer"]);
}

fn a_foreign_schema_is_refused_with_clear_words(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    execute(database, setup.folder(), "CREATE TABLE limits (something TEXT)");
    refuses(&setup, &["schema", "table", "migrat"]);
}
