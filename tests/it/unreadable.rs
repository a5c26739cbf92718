//! Rows that were damaged by hand: each is logged with its id, its client gets the default, and everything else works.

use serde_json::{Value, json};

use crate::support::engine::each_store;
use crate::support::{Backend, Balancer, Database, Setup, Store, execute};
use rustix::process::Signal;

each_store! {
    a_limit_that_can_not_be_read_leaves_its_client_the_default,
    a_plan_that_can_not_be_read_leaves_its_clients_the_default,
    rows_of_every_other_table_that_can_not_be_read_stop_nothing,
}

fn setup(database: &Database, backend: &Backend) -> Setup {
    Setup::auto()
        .store(database)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "capacity": 3, "rate_per_sec": 0 }))
        // On a busy machine the first look-up may take long; without this the default would decide.
        .set("cache.load_timeout", json!("10s"))
}

fn end(mut balancer: Balancer) {
    balancer.proc.signal(Signal::TERM);
    assert!(balancer.proc.wait().success());
}

/// What a client has left, as its own answer says.
fn shown(balancer: &Balancer, source: &str) -> String {
    balancer.get_from(source, "/").expect(200).field("ratelimit").unwrap().to_owned()
}

fn says(balancer: &Balancer, id: &str) {
    let (_, line) = balancer.proc.wait_err(0, id, |line| line.contains(id) && line.contains("can't be read"));
    assert!(!line.contains("panicked"));
}

fn a_limit_that_can_not_be_read_leaves_its_client_the_default(database: &Database) {
    let backend = Backend::named("a");
    let setup = setup(database, &backend);
    let balancer = setup.start();
    for id in ["127.0.0.1", "127.0.0.2", "127.0.6.0/24", "tenant", "zebra"] {
        balancer.limit(id, 9, 0);
    }
    end(balancer);
    let broken =
        "UPDATE limits SET buckets = 'nonsense' WHERE client_id IN ('127.0.0.2', '127.0.6.0/24', 'tenant')";
    execute(database, setup.folder(), broken);
    let balancer = setup.start();
    assert_eq!(shown(&balancer, "127.0.0.1"), r#""client";r=8"#);
    assert_eq!(shown(&balancer, "127.0.0.2"), r#""default";r=2"#);
    assert_eq!(shown(&balancer, "127.0.6.1"), r#""default";r=2"#);
    assert_eq!(balancer.get("/-/readyz").status, 200);
    for id in ["\"127.0.0.2\"", "\"127.0.6.0/24\""] {
        says(&balancer, id);
    }
    // Listings answer with what can be read, page by page, to their end.
    for (listing, rows) in [("/limits", "limits"), ("/-/v1/limits", "limits")] {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = balancer.get(&format!("{listing}?limit=1{cursor}")).expect(200).json();
            ids.extend(
                page[rows]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["client_id"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(ids, ["127.0.0.1", "zebra"], "{listing}");
    }
    says(&balancer, "\"tenant\"");
    balancer.get("/-/v1/limits/127.0.0.2").problem(404);
    // It can be mended, and taken away.
    let bucket = json!([{ "name": "day", "amount": 1, "per": "1d", "capacity": 5 }]);
    balancer.api("PUT", "/-/v1/limits/127.0.0.2", &json!({ "buckets": bucket })).expect(200);
    assert!(shown(&balancer, "127.0.0.2").starts_with(r#""day";r=4"#));
    balancer.api("DELETE", "/limits/delete", &json!({ "client_id": "tenant" })).expect(204);
    balancer.api("DELETE", "/-/v1/limits/127.0.6.0%2F24", &Value::Null).expect(204);
    balancer.get("/-/v1/audit").expect(200);
}

fn a_plan_that_can_not_be_read_leaves_its_clients_the_default(database: &Database) {
    let backend = Backend::named("a");
    let setup = setup(database, &backend);
    let balancer = setup.start();
    for name in ["a", "free", "pro"] {
        let plan =
            json!({ "name": name, "buckets": [{ "name": "day", "amount": 1, "per": "1d", "capacity": 9 }] });
        balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    }
    for (id, plan) in [("127.0.0.1", "free"), ("127.0.0.2", "pro"), ("127.0.0.3", "a")] {
        balancer.api("PUT", &format!("/-/v1/limits/{id}"), &json!({ "plan": plan })).expect(201);
    }
    end(balancer);
    let broken = "UPDATE plans SET buckets = '{' WHERE name = 'free'; UPDATE plans SET buckets = '[]' WHERE name = 'a'";
    execute(database, setup.folder(), broken);
    let balancer = setup.start();
    assert!(shown(&balancer, "127.0.0.1").ends_with(r#"r=2"#));
    assert!(shown(&balancer, "127.0.0.3").ends_with(r#"r=2"#));
    assert!(shown(&balancer, "127.0.0.2").starts_with(r#""day";r=8"#));
    says(&balancer, "\"free\"");
    let plans = balancer.get("/-/v1/plans?limit=1").expect(200).json();
    assert_eq!((&plans["plans"][0]["name"], &plans["next_cursor"]), (&json!("pro"), &Value::Null));
    let bucket = json!([{ "name": "day", "amount": 1, "per": "1d", "capacity": 5 }]);
    assert!(balancer.api("PUT", "/-/v1/plans/free", &json!({ "buckets": bucket })).status < 300);
    assert!(shown(&balancer, "127.0.0.1").starts_with(r#""day""#));
}

fn rows_of_every_other_table_that_can_not_be_read_stop_nothing(database: &Database) {
    let backend = Backend::named("a");
    let setup = setup(database, &backend);
    let balancer = setup.start();
    balancer.limit("127.0.0.1", 9, 0);
    balancer.limit("127.0.0.2", 9, 0);
    balancer.get("/").expect(200);
    end(balancer);
    let bytes = match database.store {
        Store::Sqlite => "x'0199'",
        Store::Postgres => "'\\x0199'::bytea",
    };
    let broken = format!(
        "UPDATE audit SET before = 'no JSON' WHERE target LIKE '%127.0.0.1%'; \
         INSERT INTO backends (name, settings, version) VALUES ('broken', 'nonsense', 1); \
         INSERT INTO instance_state (instance, segment, bytes) VALUES ('broken', 7, {bytes})"
    );
    execute(database, setup.folder(), &broken);
    if database.store == Store::Sqlite {
        // What only this database lets in: values of another type, and text that is no text.
        let more = "UPDATE changes SET kind = x'00' WHERE seq = 1; \
                    UPDATE limits SET version = 1.5 WHERE client_id = '127.0.0.2'; \
                    INSERT INTO audit (seq, actor, action, target, before, after) \
                    VALUES (1000, CAST(x'ff' AS TEXT), 'put', 'null', 'null', 'null')";
        execute(database, setup.folder(), more);
    }
    let balancer = setup.start();
    assert_eq!(shown(&balancer, "127.0.0.1"), r#""client";r=7"#);
    if database.store == Store::Sqlite {
        assert_eq!(shown(&balancer, "127.0.0.2"), r#""default";r=2"#);
    }
    let audit = balancer.get("/-/v1/audit?limit=1").expect(200).json();
    assert_eq!(audit["entries"][0]["target"], json!({ "client_id": "127.0.0.2" }));
    assert_eq!(audit["next_cursor"], Value::Null);
    says(&balancer, "\"broken\"");
    balancer.proc.wait_err(0, "the piece of levels", |line| line.contains("piece 7 of instance broken"));
    balancer.get("/-/v1/backends").expect(200);
    balancer.limit("127.0.0.3", 9, 0);
    end(balancer);
    // When the database is down, the file that this machine keeps takes its place.
    let data = setup.folder().join("data");
    let limits = std::fs::read(data.join("limits.snapshot")).unwrap();
    let (head, lines) = limits.split_at(16);
    let lines = String::from_utf8(lines.to_vec()).unwrap();
    assert!(lines.contains("127.0.0.1"), "{lines}");
    let lines = lines.replace("\"mode\":\"enforced\"", "\"mode\":\"none\"") + "no line of ours\n";
    std::fs::write(data.join("limits.snapshot"), [head, lines.as_bytes()].concat()).unwrap();
    std::fs::write(data.join("levels.snapshot"), b"nonsense").unwrap();
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing?connect_timeout=1";
    let balancer = setup.clone().set("database.url", json!(nowhere)).start();
    assert_eq!(shown(&balancer, "127.0.0.1"), r#""default";r=2"#);
    says(&balancer, "\"127.0.0.1\"");
    says(&balancer, "levels.snapshot");
}
