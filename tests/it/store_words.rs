//! The state of the store in one word: `up`, `read-only`, `full`, `down`. On SQLite, `full` is tested in `drills/store` and
//! `read-only` in `replaced`.

use serde_json::{Value, json};

use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Setup, until};

/// A balancer on a database of that server, and a superuser in it.
fn start(server: &Postgres, backend: &Backend) -> (Balancer, postgres::Client) {
    let database = server.database("words");
    let setup = Setup::auto().store(&database).backend(backend.address());
    let client = postgres::Client::connect(&database.url, postgres::NoTls).expect("PostgreSQL answers");
    (setup.set("cache.ttl", json!("100ms")).start(), client)
}

fn says(balancer: &Balancer, word: &str) {
    let told = |target: &str| balancer.get(target).expect(200).json()["store"].clone();
    let up = if word == "up" { "balancer_store_up 1\n" } else { "balancer_store_up 0\n" };
    until(word, || {
        let words = told("/-/readyz?verbose") == word && told("/-/v1/status") == word;
        (words && balancer.get("/-/metrics").expect(200).text().contains(up)).then_some(())
    });
}

/// It answers questions, refuses changes with a word about them, and limits in force stay.
fn is_read_alone(balancer: &Balancer) {
    let body = json!({ "client_id": "new", "capacity": 1, "rate_per_sec": 0 });
    let detail = balancer.api("POST", "/limits/create", &body).problem(503)["detail"].to_string();
    assert!(detail.contains("nothing was changed"), "{detail}");
    balancer.api("GET", "/limits/get?client_id=127.0.0.66", &Value::Null).expect(200);
    balancer.get_from("127.0.0.66", "/").problem(429);
}

#[test]
fn a_postgresql_that_takes_no_changes_is_read_only_before_anybody_tries_one() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let (balancer, mut client) = start(&server, &backend);
    says(&balancer, "up");
    balancer.limit("127.0.0.66", 1, 0);
    balancer.get_from("127.0.0.66", "/").expect(200);
    // As a standby says it.
    let mut set = |to: &str| {
        client
            .batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {to}"))
            .expect("a superuser");
        client.batch_execute("SELECT pg_reload_conf()").expect("a superuser");
    };
    set("on");
    says(&balancer, "read-only");
    is_read_alone(&balancer);
    says(&balancer, "read-only");
    balancer.proc.wait_err(0, "it is said", |line| line.contains("the database is read-only"));
    set("off");
    says(&balancer, "up");
    balancer.limit("new", 1, 0);
    balancer.proc.wait_err(0, "it is said", |line| line.contains("takes changes again"));
}

#[test]
fn a_postgresql_without_room_is_full_and_the_next_change_behind_that_is_taken() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let (balancer, mut client) = start(&server, &backend);
    balancer.limit("127.0.0.66", 1, 0);
    balancer.get_from("127.0.0.66", "/").expect(200);
    client
        .batch_execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$; \
             CREATE TRIGGER no_room BEFORE INSERT ON limits FOR EACH ROW EXECUTE FUNCTION no_room(); \
             CREATE TRIGGER no_room BEFORE INSERT ON instance_state FOR EACH ROW EXECUTE FUNCTION no_room();",
        )
        .expect("a superuser");
    is_read_alone(&balancer);
    says(&balancer, "full");
    balancer.proc.wait_err(0, "it is said", |line| line.contains("the database is full"));
    client
        .batch_execute("DROP TRIGGER no_room ON limits; DROP TRIGGER no_room ON instance_state")
        .expect("a superuser");
    balancer.limit("new", 1, 0);
    says(&balancer, "up");
}
