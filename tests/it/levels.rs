//! Levels survive a restart, `kill -9`, and a restart while the database is down.

use serde_json::{Value, json};

use crate::support::engine::{each_engine, each_store};
use crate::support::{Backend, Database, Engine, Setup, until};
use rustix::process::Signal;

each_engine! { levels_survive_a_restart }

each_store! { levels_survive_a_kill, a_reset_survives_a_kill }

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
    assert!(again.proc.err().contains("were put back"), "{}", again.proc.err());
}

/// Waits until the process has saved what it knows now: two ticks.
fn saved(data: &std::path::Path) {
    let written = || std::fs::metadata(data.join("levels.snapshot")).and_then(|file| file.modified()).ok();
    let before = written();
    until("the levels are saved", || written().filter(|now| Some(*now) != before));
}

fn levels_survive_a_kill(database: &Database) {
    let backend = Backend::named("a");
    let setup = limited(None, Some(database), &backend);
    let mut balancer = setup.start();
    let data = setup.folder().join("data");
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    saved(&data);
    // Something else has to change for another tick to write.
    balancer.get_from("127.0.0.2", "/").expect(200);
    saved(&data);
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
    let data = setup.folder().join("data");
    balancer.api("PUT", "/-/v1/limits/127.0.0.1", &limit()).expect(201);
    balancer.get("/").expect(200);
    balancer.get("/").expect(429);
    saved(&data);
    balancer.api("POST", "/-/v1/limits/127.0.0.1/reset", &Value::Null).expect(204);
    saved(&data);
    balancer.proc.kill();
    setup.start().get("/").expect(200);
}

fn limit() -> Value {
    json!({ "buckets": [{ "name": "day", "amount": 1, "per": "1d", "capacity": 1 }] })
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

/// Where the configuration's own folder may be read alone: under systemd, in containers.
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
    // Nobody listens there.
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
    assert!(again.proc.err().contains("the database is down"), "{}", again.proc.err());
}
