//! Levels survive a restart, `kill -9`, and a restart while the database is down.

use serde_json::{Value, json};

use crate::support::engine::{each_engine, each_store};
use crate::support::{Backend, Balancer, Database, Engine, Setup, Store, execute, until};
use rustix::process::Signal;

each_engine! { levels_survive_a_restart }

each_store! {
    levels_survive_a_kill,
    a_reset_survives_a_kill,
    a_window_that_was_saved_while_the_clock_was_ahead_is_the_current_one,
    what_was_saved_in_the_future_is_as_old_as_the_first_start_that_saw_it,
}

/// Two tokens, and none comes back during the test.
const SLOW: &str = "2/d";

fn limited(engine: Option<Engine>, database: Option<&Database>, backend: &Backend) -> Setup {
    let setup = engine.map_or_else(Setup::auto, Setup::on);
    let setup = setup.backend(backend.address()).set("rate_limit.default", json!(SLOW));
    database.map_or(setup.clone(), |database| setup.store(database))
}

fn levels_survive_a_restart(engine: Engine) {
    let backend = Backend::named("a");
    let setup = limited(Some(engine), None, &backend);
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    balancer.get("/").expect(429);
    balancer.proc.signal(Signal::TERM);
    assert!(balancer.proc.wait().success());
    let again = setup.start();
    again.get("/").expect(429);
    again.proc.wait_err(0, "levels were put back", |line| line.contains("were put back"));
}

/// Waits until the process has saved what it knows now, which may be done at most twice. A save that is under way may have
/// begun before that, so the one behind it is waited for. Only a change is saved: each time a client takes a token.
fn saved(balancer: &Balancer, setup: &Setup) {
    let file = setup.folder().join("data/levels.snapshot");
    let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
    for client in ["127.0.77.1", "127.0.77.2"] {
        let before = written();
        balancer.get_from(client, "/").expect(200);
        until("the levels are saved", || written().filter(|now| Some(*now) != before));
    }
}

fn levels_survive_a_kill(database: &Database) {
    let backend = Backend::named("a");
    let setup = limited(None, Some(database), &backend);
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    saved(&balancer, &setup);
    balancer.get_from("127.0.0.2", "/").expect(200);
    saved(&balancer, &setup);
    balancer.proc.kill();
    let again = setup.start();
    again.get("/").expect(429);
    let answer = again.get_from("127.0.0.2", "/").expect(200);
    let left = answer.field("ratelimit").unwrap();
    assert!(left.starts_with(r#""default";r=0;"#), "{left}");
}

fn a_reset_survives_a_kill(database: &Database) {
    let backend = Backend::named("a");
    let setup = limited(None, Some(database), &backend);
    let mut balancer = setup.start();
    balancer.api("PUT", "/-/v1/limits/127.0.0.1", &limit()).expect(201);
    balancer.get("/").expect(200);
    balancer.get("/").expect(429);
    saved(&balancer, &setup);
    balancer.api("POST", "/-/v1/limits/127.0.0.1/reset", &Value::Null).expect(204);
    saved(&balancer, &setup);
    balancer.proc.kill();
    setup.start().get("/").expect(200);
}

/// The instance that saved the levels is dead, so it can't write newer ones over them.
#[test]
fn a_reset_counts_for_what_dead_instances_saved_before_it() {
    let Some(database) = &Database::postgres() else { return };
    let backend = Backend::named("a");
    let dead = limited(None, Some(database), &backend);
    let mut balancer = dead.start();
    let put = |id: &str, limit: &Value| balancer.api("PUT", &format!("/-/v1/limits/{id}"), limit).expect(201);
    put("127.0.0.1", &limit());
    put("127.0.8.0%2F24", &limit());
    for client in ["127.0.0.1", "127.0.8.1", "127.0.9.1"] {
        let left = if client == "127.0.9.1" { 2 } else { 1 };
        (0..left).for_each(|_| drop(balancer.get_from(client, "/").expect(200)));
        balancer.get_from(client, "/").expect(429);
    }
    saved(&balancer, &dead);
    balancer.proc.kill();
    // In a folder of its own: another instance.
    let other = limited(None, Some(database), &backend);
    let another = other.start();
    another.get("/").expect(429);
    for id in ["127.0.0.1", "127.0.8.0%2F24"] {
        another.api("POST", &format!("/-/v1/limits/{id}/reset"), &Value::Null).expect(204);
    }
    let third = limited(None, Some(database), &backend).start();
    third.get("/").expect(200);
    third.get_from("127.0.8.1", "/").expect(200);
    // This client was not reset.
    third.get_from("127.0.9.1", "/").expect(429);
}

fn limit() -> Value {
    json!({ "buckets": [{ "name": "day", "amount": 1, "per": "1d", "capacity": 1 }] })
}

const DAY_SECS: u64 = 86_400;

/// The pieces of levels in the database, with what `change` makes of them.
fn change_pieces(database: &Database, setup: &Setup, change: impl Fn(&mut Vec<u8>)) {
    const READ: &str = "SELECT segment, bytes FROM instance_state";
    const WRITE: &str = "UPDATE instance_state SET bytes = $1 WHERE segment = $2";
    match database.store {
        Store::Sqlite => {
            let file = rusqlite::Connection::open(setup.folder().join("balancer.db")).unwrap();
            let mut read = file.prepare(READ).unwrap();
            let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let rows: Vec<(i64, Vec<u8>)> = rows.map(Result::unwrap).collect();
            for (segment, mut bytes) in rows {
                change(&mut bytes);
                file.execute(WRITE, (bytes, segment)).unwrap();
            }
        }
        Store::Postgres => {
            let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
            for row in client.query(READ, &[]).unwrap() {
                let (segment, mut bytes): (i16, Vec<u8>) = (row.get(0), row.get(1));
                change(&mut bytes);
                client.execute(WRITE, &[&bytes, &segment]).unwrap();
            }
        }
    }
}

/// Records are 54 bytes behind one of version; the period stands in the last four (`store::levels::pack`).
fn move_periods(piece: &mut [u8], by: u32) {
    for record in piece[1..].chunks_exact_mut(54) {
        let (_, turn) = record.split_last_chunk_mut::<4>().unwrap();
        *turn = (u32::from_be_bytes(*turn) + by).to_be_bytes();
    }
}

fn daily(balancer: &Balancer) {
    let day = json!([{ "name": "day", "amount": 1, "per": "1d", "capacity": 1, "reset": "utc" }]);
    balancer.api("PUT", "/-/v1/limits/127.0.0.1", &json!({ "buckets": day })).expect(201);
}

/// The database and the file hold what was saved while the clock ran ahead, by a day or by ten years, before it was set
/// right.
fn a_window_that_was_saved_while_the_clock_was_ahead_is_the_current_one(database: &Database) {
    let backend = Backend::named("a");
    for days in [1, 3_653] {
        let setup = limited(None, Some(database), &backend);
        let mut balancer = setup.start();
        daily(&balancer);
        balancer.get("/").expect(200);
        balancer.proc.signal(Signal::TERM);
        assert!(balancer.proc.wait().success());
        change_pieces(database, &setup, |piece| move_periods(piece, days));
        let wait = |balancer: &Balancer| {
            let refused = balancer.get("/").expect(429);
            refused.field("retry-after").unwrap().parse::<u64>().unwrap()
        };
        let mut again = setup.start();
        assert!(wait(&again) <= DAY_SECS);
        again.proc.signal(Signal::TERM);
        assert!(again.proc.wait().success());
        let snapshot = setup.folder().join("data/levels.snapshot");
        let mut file = std::fs::read(&snapshot).unwrap();
        // The mark and the time of writing come first.
        move_periods(&mut file[16..], days);
        let ahead = u64::from(days) * DAY_SECS;
        let written = u64::from_be_bytes(file[8..16].try_into().unwrap());
        file[8..16].copy_from_slice(&(written + ahead).to_be_bytes());
        std::fs::write(&snapshot, file).unwrap();
        let nowhere = "postgres://nobody@127.0.0.1:1/nothing?connect_timeout=1";
        let third = setup.clone().set("database.url", json!(nowhere)).start();
        assert!(wait(&third) <= DAY_SECS);
        drop(third);
        setup.start().api("DELETE", "/-/v1/limits/127.0.0.1", &Value::Null).expect(204);
        execute(database, setup.folder(), "DELETE FROM instance_state");
    }
}

/// Tokens flow in from the first start on: later starts do not take the row for a new one.
fn what_was_saved_in_the_future_is_as_old_as_the_first_start_that_saw_it(database: &Database) {
    let backend = Backend::named("a");
    let setup = limited(None, Some(database), &backend);
    drop(setup.start());
    let lost = "INSERT INTO instance_state (instance, segment, bytes, saved_at_us) \
                SELECT 'gone', 0, {}, {} + 1000000000000000";
    let (bytes, now) = match database.store {
        Store::Sqlite => ("x'01'", "unixepoch() * 1000000"),
        Store::Postgres => ("'\\x01'::bytea", "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"),
    };
    execute(database, setup.folder(), &lost.replacen("{}", bytes, 1).replacen("{}", now, 1));
    drop(setup.start());
    // Fails if the row is still in the future.
    let claim = match database.store {
        Store::Sqlite => format!(
            "INSERT INTO plans (name, buckets, version) SELECT '', '', 1 FROM instance_state WHERE saved_at_us > {now} + 60000000"
        ),
        Store::Postgres => {
            format!("SELECT 1 / (1 - count(*)) FROM instance_state WHERE saved_at_us > {now} + 60000000")
        }
    };
    execute(database, setup.folder(), &claim);
}

/// What one instance saved counts for every other: a client can't have more by being sent to another one.
#[test]
fn levels_survive_on_another_folder() {
    let Some(database) = Database::postgres() else { return };
    let backend = Backend::named("a");
    let mut balancer = limited(None, Some(&database), &backend).start();
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    balancer.proc.signal(Signal::TERM);
    assert!(balancer.proc.wait().success());
    limited(None, Some(&database), &backend).start().get("/").expect(429);
}

/// For a configuration in a folder that can only be read, as under systemd and in containers.
#[test]
fn what_is_kept_lies_where_the_service_manager_says() {
    let backend = Backend::named("a");
    let state = tempfile::tempdir().expect("a folder");
    let name = state.path().to_str().expect("UTF-8");
    let setup = limited(None, None, &backend).env("STATE_DIRECTORY", name);
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.proc.signal(Signal::TERM);
    assert!(balancer.proc.wait().success());
    assert!(state.path().join("levels.snapshot").is_file());
    assert!(!setup.folder().join("data/levels.snapshot").exists());
}

/// A restart while the database is down: its customers keep their limits, and what they have left.
#[test]
fn limits_and_levels_survive_a_restart_without_the_database() {
    let Some(database) = Database::postgres() else { return };
    let backend = Backend::named("a");
    let setup = limited(None, Some(&database), &backend);
    let mut balancer = setup.start();
    let plan =
        json!({ "name": "pro", "buckets": [{ "name": "day", "amount": 3, "per": "1d", "capacity": 3 }] });
    balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    balancer.api("PUT", "/-/v1/limits/127.0.0.2", &json!({ "plan": "pro" })).expect(201);
    balancer.limit("127.0.0.3", 9, 0);
    balancer.limit("127.0.4.0/24", 8, 0);
    for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.4.1"] {
        balancer.get_from(address, "/").expect(200);
    }
    balancer.get("/").expect(200);
    balancer.proc.signal(Signal::TERM);
    assert!(balancer.proc.wait().success());
    // Nothing listens there.
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing?connect_timeout=1";
    let again = setup.clone().set("database.url", json!(nowhere)).start();
    let left = |address: &str| {
        let answer = again.get_from(address, "/").expect(200);
        let item = answer.field("ratelimit").unwrap().to_owned();
        item.split(";t=").next().unwrap().to_owned()
    };
    again.get("/").expect(429);
    assert_eq!(left("127.0.0.2"), r#""day";r=1"#);
    assert_eq!(left("127.0.0.3"), r#""client";r=7"#);
    assert_eq!(left("127.0.4.1"), r#""range";r=6"#);
    again.proc.wait_err(0, "the database is down", |line| line.contains("the database is down"));
}
