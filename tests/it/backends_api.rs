//! Changes of backends over the API: in force when they are answered, stored, in the audit, and followed by other instances.

use serde_json::{Value, json};

use crate::cli;
use crate::support::engine::{each_engine, each_store};
use crate::support::{Backend, Balancer, Conn, Database, Engine, Gate, Load, Setup, Then, until};

each_engine! {
    a_drained_backend_gets_nothing_new_and_ends_what_it_has,
    changes_under_load_cost_no_request,
}

each_store! {
    backends_come_change_and_go_and_survive_a_restart,
    another_instance_follows,
}

fn named(balancer: &Balancer, name: &str) -> Value {
    balancer.api("GET", &format!("/-/v1/backends/{name}"), &Value::Null).expect(200).json()
}

/// The backends that answer, over a number of requests.
fn answering(balancer: &Balancer) -> Vec<String> {
    let mut seen: Vec<String> = (0..8).map(|_| balancer.get("/").expect(200).text()).collect();
    seen.sort();
    seen.dedup();
    seen
}

fn metric(balancer: &Balancer, series: &str) -> Option<u64> {
    let page = balancer.get("/-/metrics").expect(200).text();
    page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn backends_come_change_and_go_and_survive_a_restart(database: &Database) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::auto()
        .store(database)
        .backend(a.address())
        .set("balancing.strategy", json!("round_robin"))
        .set("health_check", json!({ "interval": "1h", "timeout": "20s" }));
    let balancer = setup.start();
    let new = json!({ "name": "b", "url": b.url(), "weight": 2 });
    let made = balancer.api("POST", "/-/v1/backends", &new).expect(201);
    assert_eq!(made.field("location"), Some("/-/v1/backends/b"));
    balancer.api("POST", "/-/v1/backends", &new).problem(409);
    let of_file = json!({ "name": "a", "url": b.url() });
    balancer.api("POST", "/-/v1/backends", &of_file).problem(409);
    let own = json!({ "name": "c", "url": format!("http://{}", balancer.address) });
    balancer.api("POST", "/-/v1/backends", &own).problem(400);
    // Checked like every other, and then used.
    until("it is checked", || (named(&balancer, "b")["endpoints"][0]["health"] == "up").then_some(()));
    assert_eq!(answering(&balancer), ["a", "b"]);
    let list = balancer.api("GET", "/-/v1/backends", &Value::Null).expect(200).json();
    let told: Vec<_> = list["backends"].as_array().expect("a list").iter().collect();
    assert_eq!((&told[0]["source"], &told[1]["source"]), (&json!("file"), &json!("store")));
    assert_eq!(
        (&told[1]["weight"], &told[1]["up"], &told[1]["state"]),
        (&json!(2), &json!(true), &json!("up"))
    );

    // A backend of the file can be changed but not taken away; the change outlives a restart and a reload.
    let down = balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "down", "max_in_flight": 5 }));
    assert_eq!(down.expect(200).json()["state"], "down");
    assert_eq!(answering(&balancer), ["b"]);
    assert_eq!(metric(&balancer, "balancer_backend_up{pool=\"default\",backend=\"a\"}"), Some(0));
    let ready = balancer.get("/-/readyz?verbose").expect(200).json();
    assert_eq!(ready["backends"][0]["up"], false, "{ready}");
    balancer.api("DELETE", "/-/v1/backends/a", &Value::Null).problem(409);
    balancer.api("PATCH", "/-/v1/backends/nobody", &json!({ "weight": 1 })).problem(404);
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    assert_eq!(answering(&balancer), ["b"]);
    drop(balancer);
    let balancer = setup.start();
    assert_eq!(answering(&balancer), ["b"]);
    assert_eq!(named(&balancer, "a")["max_in_flight"], 5);
    let audit = balancer.api("GET", "/-/v1/audit", &Value::Null).expect(200).json();
    assert_eq!(audit["entries"][0]["action"], "down", "{audit}");
    assert_eq!(audit["entries"][0]["target"], json!({ "backend": "a" }), "{audit}");

    balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "up", "max_in_flight": null })).expect(200);
    balancer.api("DELETE", "/-/v1/backends/b", &Value::Null).expect(204);
    balancer.api("DELETE", "/-/v1/backends/b", &Value::Null).problem(404);
    assert_eq!(answering(&balancer), ["a"]);
    assert_eq!(metric(&balancer, "balancer_backend_up{pool=\"default\",backend=\"b\"}"), None);

    // A backend in the file takes the place of a stored one of the same name, and the log says so.
    balancer.api("POST", "/-/v1/backends", &new).expect(201);
    let both = setup.clone().backend_with(json!({ "name": "b", "url": a.url() }));
    both.write();
    let before = balancer.proc.err_lines();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    balancer.proc.wait_err(before, "a warning", |line| line.contains("[WARN]") && line.contains("backend b"));
    assert_eq!(named(&balancer, "b")["url"], a.url());
    assert_eq!(answering(&balancer), ["a"]);
}

fn another_instance_follows(database: &Database) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup =
        Setup::auto().store(database).backend(a.address()).set("balancing.strategy", json!("round_robin"));
    let (one, other) = (setup.start(), setup.start());
    one.api("POST", "/-/v1/backends", &json!({ "name": "b", "url": b.url() })).expect(201);
    assert_eq!(answering(&one), ["a", "b"], "at once where it was asked for");
    until("the other one has it", || (answering(&other) == ["a", "b"]).then_some(()));
    other.api("PATCH", "/-/v1/backends/a", &json!({ "state": "drain" })).expect(200);
    assert_eq!(answering(&other), ["b"]);
    until("the first one follows", || (answering(&one) == ["b"]).then_some(()));
    one.api("PATCH", "/-/v1/backends/a", &json!({ "state": "up" })).expect(200);
    one.api("DELETE", "/-/v1/backends/b", &Value::Null).expect(204);
    until("the other one lets go", || (answering(&other) == ["a"]).then_some(()));
}

fn a_drained_backend_gets_nothing_new_and_ends_what_it_has(engine: Engine) {
    let gate = Gate::default();
    let own = gate.clone();
    let slow = Backend::scripted(move |_, stream| {
        own.wait();
        let _ = std::io::Write::write_all(stream, crate::support::backend::OK);
        Then::Keep
    });
    let b = Backend::named("b");
    let balancer = Setup::on(engine).backend(b.address()).set("balancing.strategy", json!("first")).start();
    balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "down" })).expect(200);
    balancer.api("POST", "/-/v1/backends", &json!({ "name": "slow", "url": slow.url() })).expect(201);
    let mut conn = Conn::open(balancer.address);
    conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it is at the backend", || (slow.seen().len() == 1).then_some(()));
    balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "up" })).expect(200);
    balancer.api("DELETE", "/-/v1/backends/slow?drain=1h", &Value::Null).expect(204);
    // Listed while its request is under way.
    let one = named(&balancer, "slow");
    assert_eq!((&one["state"], &one["in_flight"]), (&json!("drain"), &json!(1)));
    assert_eq!(answering(&balancer), ["b"]);
    assert_eq!(slow.seen().len(), 1);
    gate.open();
    assert_eq!(conn.read("GET").expect("answered").text(), "ok");
    until("it is gone", || {
        (balancer.api("GET", "/-/v1/backends/slow", &Value::Null).status == 404).then_some(())
    });
}

fn changes_under_load_cost_no_request(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::on(engine).backend(a.address());
    let balancer = setup.start();
    // tiny_http may leave a kept connection waiting for ever.
    let load = Load::start(balancer.address, 16, engine == Engine::Epoll);
    until("there is load", || (load.answered() > 50).then_some(()));
    let cli = |args: &[&str]| cli::backends(&balancer, args);
    for _ in 0..10 {
        let before = b.seen().len();
        let added = cli(&["add", "b", &b.url(), "--weight", "2"]);
        assert_eq!(added, format!("added backend b: {}, up, weight 2\n", b.url()));
        assert!(cli(&["drain", "a"]).starts_with("changed backend a: "));
        until("b is asked", || (b.seen().len() > before).then_some(()));
        cli(&["set", "a", "--state", "up", "--weight", "3", "--max-in-flight", "none"]);
        assert_eq!(cli(&["rm", "b", "--drain", "10s"]), "removed backend b\n");
        until("b is gone", || (!cli(&["ls"]).contains("b\thttp")).then_some(()));
    }
    let (answered, faults) = load.finish();
    assert!(faults.is_empty(), "{} of {answered}: {faults:?}\n{}", faults.len(), balancer.proc.story());
    let list = cli(&["ls"]);
    assert_eq!(list, format!("a\t{}\tup\tup\t3\t0\tfile\n", a.url()));
}
