//! Several pools in one process: each has its own settings, counters and names, and comes and goes by a reload.

use std::io::Write;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::routes::user_line;
use crate::support::balancer::PROGRAM;
use crate::support::engine::{each_engine, each_store};
use crate::support::{Backend, Balancer, Conn, Database, Engine, Gate, Load, Response, Setup, Then, until};

each_engine! {
    pools_stand_side_by_side_and_come_and_go_by_a_reload,
    each_pool_is_checked_as_it_says,
    a_pool_that_goes_ends_what_it_has,
    a_question_says_route_and_pool,
    a_backend_that_moves_to_another_pool_costs_no_request,
    who_asked_before_a_backend_moves_gets_there,
}

each_store! {
    backends_of_a_pool_are_changed_over_the_api,
    a_backend_is_reached_by_its_own_pool_alone,
    what_is_stored_of_a_pool_that_is_gone_can_be_taken_away,
}

fn get(balancer: &Balancer, target: &str) -> Value {
    balancer.api("GET", target, &Value::Null).expect(200).json()
}

fn page(balancer: &Balancer) -> String {
    balancer.get("/-/metrics").expect(200).text()
}

fn names(pools: &Value) -> Vec<&str> {
    pools["pools"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pool| pool["name"].as_str().expect("a name"))
        .collect()
}

/// A backend that answers `slow`, each request once the gate is open.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |_, stream| {
        gate.wait();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").expect("sent");
        Then::Keep
    })
}

fn pools_stand_side_by_side_and_come_and_go_by_a_reload(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let alone = Setup::on(engine).backend(a.address()).set("balancing.strategy", json!("round_robin"));
    let two = alone.clone().set("pools", json!({ "api": { "backends": [b.url()] } }));
    let balancer = two.start();
    let pools = get(&balancer, "/-/v1/pools");
    assert_eq!(names(&pools), ["default", "api"]);
    let api = get(&balancer, "/-/v1/pools/api");
    assert_eq!(pools["pools"][1], api);
    assert_eq!(
        (&api["strategy"], &api["up"], &api["waiting"]),
        (&json!("round_robin"), &json!(true), &json!(0))
    );
    let one = &api["backends"][0];
    assert_eq!((&one["pool"], &one["name"]), (&json!("api"), &json!(b.address().to_string())));
    assert_eq!(get(&balancer, "/-/v1/backends")["backends"].as_array().expect("a list").len(), 1);
    balancer.api("GET", "/-/v1/pools/img", &Value::Null).problem(404);
    let up = format!("balancer_backend_up{{pool=\"api\",backend=\"{}\"}} 1\n", b.address());
    assert!(
        page(&balancer).contains(&up) && page(&balancer).contains("balancer_queue_depth{pool=\"api\"} 0\n")
    );
    let ready = balancer.get("/-/readyz?verbose").expect(200).json();
    assert_eq!(
        (&ready["backends"][0]["pool"], &ready["backends"][1]["pool"]),
        (&json!("default"), &json!("api"))
    );

    // Another one beside it, and its word in the log.
    let three = two.clone().set("pools.img", json!({ "backends": [{ "name": "i", "url": b.url() }] }));
    three.write();
    let (before, changed) = (balancer.proc.err_lines(), balancer.api("POST", "/-/v1/reload", &Value::Null));
    let changed = changed.expect(200).json();
    assert_eq!(changed["changed"], json!(["pools.img.backends"]), "{changed}");
    balancer.proc.wait_err(before, "the new pool", |line| line.ends_with("pools that are new: img"));
    assert_eq!(names(&get(&balancer, "/-/v1/pools")), ["default", "api", "img"]);
    assert_eq!(get(&balancer, "/-/v1/pools/img")["up"], true);

    // A pool that is taken out leaves nothing behind.
    alone.write();
    let before = balancer.proc.err_lines();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    balancer.proc.wait_err(before, "the old pools", |line| line.contains("pools that are gone: "));
    assert_eq!(names(&get(&balancer, "/-/v1/pools")), ["default"]);
    assert!(!page(&balancer).contains("pool=\"api\"") && !page(&balancer).contains("pool=\"img\""));
    balancer.get("/").expect(200);
}

fn each_pool_is_checked_as_it_says(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let check = json!({ "path": "/top", "interval": "1h" });
    let balancer = Setup::on(engine)
        .backend(a.address())
        .set("health_check", check)
        .set("pools", json!({
            "api": { "backends": [{ "name": "a", "url": b.url() }], "health_check": { "path": "/own", "expect": "404" } },
            "off": { "backends": [b.url()], "health_check": null },
        }))
        .start();
    assert_eq!(a.only().request_line(), "GET /top HTTP/1.1");
    assert_eq!(b.only().request_line(), "GET /own HTTP/1.1");
    until("its answers are not what it expects", || {
        (get(&balancer, "/-/v1/pools/api")["backends"][0]["health"] == "down").then_some(())
    });
    let cause = get(&balancer, "/-/v1/pools/api")["backends"][0]["cause"].to_string();
    assert!(cause.contains("GET /own: status 200"), "{cause}");
    let line = |line: &str| line.contains("backend api/a (") && line.contains("is down: GET /own");
    balancer.proc.wait_err(0, "the line that names it", line);
    assert_eq!(get(&balancer, "/-/v1/pools/off")["backends"][0]["health"], "up");
    // One service that is down does not make the process unready.
    balancer.get("/-/readyz").expect(200);
}

/// New pools need time to start, so a backend stays in its old pool until requests go by the new one.
fn a_backend_that_moves_to_another_pool_costs_no_request(engine: Engine) {
    let (a, deaf) = (Backend::named("a"), Backend::deaf());
    let slow = json!({ "backends": [deaf.url()], "health_check": { "timeout": "2s" } });
    // A busy machine must not make a check fail: the pool would have no backend then, and rightly say so.
    let top = Setup::on(engine)
        .set("backends", json!([a.url()]))
        .set("health_check", json!({ "timeout": "20s", "interval": "20s" }));
    let moved = top
        .clone()
        .set("backends", json!([]))
        .set("pools", json!({ "all": { "backends": [a.url()] }, "slow": slow }))
        .set("routes", json!([{ "pool": "all" }, { "path": "/slow", "pool": "slow" }]));
    let balancer = top.start();
    // Kept connections hold workers of the portable engine.
    let load = Load::start(balancer.address, 4, engine == Engine::Epoll);
    for setup in [&moved, &top, &moved, &top] {
        setup.write();
        let before = load.answered();
        balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
        until("it goes on", || (load.answered() > before + 50).then_some(()));
    }
    let (answered, faults) = load.finish();
    assert!(faults.is_empty(), "{} of {answered}: {faults:?}", faults.len());
}

/// One waits for its password to be checked, one in line behind a third, when all of them lose their pool.
fn who_asked_before_a_backend_moves_gets_there(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let narrow = json!([{ "name": "a", "url": backend.url(), "max_in_flight": 1 }]);
    let routes =
        |pool: &str| json!([{ "path": "/in", "pool": pool, "basic_auth": "users" }, { "pool": pool }]);
    let top = Setup::on(engine)
        .workers(8)
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("health_check", Value::Null)
        .set("backends", narrow.clone())
        .set("routes", routes("default"));
    // Takes a quarter of a second to check.
    std::fs::write(top.folder().join("users"), user_line("alice", "wonderland", 12)).expect("written");
    let balancer = top.start();
    let ask = |path: &str, more: &str| {
        let mut conn = Conn::open(balancer.address);
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{more}\r\n"));
        conn
    };
    let in_flight = |count: f64| {
        until("it has begun", || {
            (balancer.series("balancer_http_requests_in_flight") == count).then_some(())
        });
    };
    let mut held = ask("/held", "");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let mut in_line = ask("/line", "");
    in_flight(2.0);
    let mut checked = ask("/in", "Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n");
    in_flight(3.0);
    let moved = top
        .clone()
        .set("backends", json!([]))
        .set("pools", json!({ "all": { "backends": narrow } }))
        .set("routes", routes("all"));
    moved.write();
    thread::scope(|scope| {
        let reload = scope.spawn(|| balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200));
        until("requests go by the new pool", || {
            (names(&get(&balancer, "/-/v1/pools")).len() == 2).then_some(())
        });
        gate.open();
        for conn in [&mut held, &mut in_line, &mut checked] {
            assert_eq!(conn.read("GET").expect("an answer").expect(200).text(), "slow");
        }
        reload.join().expect("reloaded");
    });
    assert_eq!(get(&balancer, "/-/v1/pools/default")["backends"], json!([]));
}

fn a_backend_is_reached_by_its_own_pool_alone(database: &Database) {
    let a = Backend::named("a");
    let setup = Setup::auto().store(database).backend(a.address());
    let balancer = setup.set("pools", json!({ "api": { "backends": [a.url()] } })).start();
    balancer.api("POST", "/-/v1/pools/api/backends", &json!({ "name": "x", "url": a.url() })).expect(201);
    let before = get(&balancer, "/-/v1/pools/api/backends/x");
    for place in ["/-/v1/backends", "/-/v1/pools/default/backends"] {
        balancer.api("PATCH", &format!("{place}/api%2Fx"), &json!({ "state": "down" })).problem(404);
        balancer.api("DELETE", &format!("{place}/api%2Fx"), &Value::Null).problem(404);
    }
    assert_eq!(get(&balancer, "/-/v1/pools/api/backends/x"), before);
}

fn what_is_stored_of_a_pool_that_is_gone_can_be_taken_away(database: &Database) {
    let a = Backend::named("a");
    let setup = Setup::auto().store(database).backend(a.address());
    let two = setup.clone().set("pools", json!({ "api": { "backends": [a.url()] } }));
    let balancer = two.start();
    balancer.api("POST", "/-/v1/pools/api/backends", &json!({ "name": "x", "url": a.url() })).expect(201);
    setup.write();
    let before = balancer.proc.err_lines();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    balancer
        .proc
        .wait_err(before, "what is left", |line| line.contains("[WARN]") && line.ends_with(": api/x"));
    balancer.api("DELETE", "/-/v1/pools/api/backends/x", &Value::Null).expect(204);
    balancer.api("DELETE", "/-/v1/pools/api/backends/x", &Value::Null).problem(404);
    two.write();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    assert_eq!(get(&balancer, "/-/v1/pools/api/backends")["backends"].as_array().expect("a list").len(), 1);
}

/// A GET for a host.
fn get_for(balancer: &Balancer, host: &str, target: &str) -> Response {
    let mut conn = Conn::open(balancer.address);
    conn.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    conn.read("GET").expect("an answer")
}

fn a_pool_that_goes_ends_what_it_has(engine: Engine) {
    let (a, gate) = (Backend::named("a"), Gate::default());
    let slow = gated(&gate);
    let alone = Setup::on(engine).backend(a.address()).set("health_check", Value::Null);
    let two = alone
        .clone()
        .set("pools", json!({ "api": { "backends": [slow.url()] } }))
        .set("routes", json!([{ "host": "api.test", "pool": "api" }]));
    let balancer = two.start();
    assert_eq!(get_for(&balancer, "other.test", "/").expect(200).text(), "a");
    let mut waiting = Conn::open(balancer.address);
    waiting.send("GET /1 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    until("it is asked", || (slow.seen().len() == 1).then_some(()));
    alone.write();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    assert_eq!(get_for(&balancer, "API.test.:80", "/").expect(200).text(), "a");
    // Back again, into a new pool of the old name, while the first request is still under way.
    two.write();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    gate.open();
    assert_eq!(waiting.read("GET").expect("an answer").expect(200).text(), "slow");
    assert_eq!(get_for(&balancer, "Api.Test.", "/2").expect(200).text(), "slow");
    // A request ends a moment after its client has read the answer.
    until("none is under way", || {
        (get(&balancer, "/-/v1/pools/api")["backends"][0]["in_flight"] == 0).then_some(())
    });
}

fn a_question_says_route_and_pool(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let balancer = Setup::on(engine)
        .backend(a.address())
        .set("pools", json!({ "api": { "backends": [b.url()] } }))
        .set(
            "routes",
            json!([
                { "host": "api.test", "pool": "api", "limit": "1/d", "name": "the api", "priority": "critical" },
                { "host": "api.test", "path": "/closed", "pool": "api", "deny": ["127.0.0.0/8"] },
                { "host": "*.test", "redirect": { "to": "https://new.test" } },
            ]),
        )
        .start();
    let ask = |host: Value, path: &str| {
        let question = json!({ "address": "127.0.0.1", "host": host, "path": path });
        balancer.api("POST", "/-/v1/check", &question).expect(200).json()
    };
    let rows = [
        (json!("API.test:8080"), "/x", json!("the api"), json!("api"), "allowed"),
        (json!("api.test"), "/closed/x", json!("api.test/closed"), json!("api"), "denied"),
        (json!("api.test"), "/x/..%2fclosed", json!("the api"), json!("api"), "denied"),
        (json!("www.test"), "/", json!("*.test/"), Value::Null, "allowed"),
        (json!("else.where"), "/", Value::Null, json!("default"), "allowed"),
        (Value::Null, "/", Value::Null, json!("default"), "allowed"),
    ];
    for (host, path, route, pool, decision) in rows {
        let told = ask(host, path);
        assert_eq!(
            (&told["route"], &told["pool"], &told["decision"]),
            (&route, &pool, &json!(decision)),
            "{told}"
        );
    }
    // The route's priority wins over its client's, whose weight stays.
    let limit = json!({ "client_id": "127.0.0.1", "mode": "exempt", "weight": 7, "priority": "background" });
    balancer.api("POST", "/-/v1/limits", &limit).expect(201);
    for (host, priority) in [("api.test", "critical"), ("www.test", "background")] {
        let told = ask(json!(host), "/");
        assert_eq!((&told["weight"], &told["priority"]), (&json!(7), &json!(priority)), "{told}");
    }
    balancer.api("DELETE", "/-/v1/limits/127.0.0.1", &Value::Null).expect(204);
    assert_eq!(ask(json!("api.test"), "/")["buckets"][0]["level"], 1);
    get_for(&balancer, "api.test", "/").expect(200);
    let told = ask(json!("api.test"), "/");
    assert_eq!((&told["decision"], &told["buckets"][0]["level"]), (&json!("denied"), &json!(0)), "{told}");
    let routes = get(&balancer, "/-/v1/routes");
    let shown: Vec<_> = routes["routes"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(shown, [&json!("the api"), &json!("api.test/closed"), &json!("*.test/")]);
    assert_eq!(routes["routes"][2]["redirect"], json!({ "to": "https://new.test", "status": 308 }));
}

fn backends_of_a_pool_are_changed_over_the_api(database: &Database) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    // As long as names may be.
    let (pool, name) = ("p".repeat(63), "n".repeat(128));
    let setup = Setup::auto()
        .store(database)
        .backend(a.address())
        .set("pools", json!({ &*pool: { "backends": [{ "name": "a", "url": a.url() }] } }));
    let balancer = setup.start();
    let all = format!("/-/v1/pools/{pool}/backends");
    let made = balancer.api("POST", &all, &json!({ "name": name, "url": b.url() })).expect(201);
    assert_eq!(made.field("location"), Some(&*format!("{all}/{name}")));
    balancer.api("POST", &all, &json!({ "name": name, "url": b.url() })).problem(409);
    balancer.api("POST", "/-/v1/pools/none/backends", &json!({ "name": "x", "url": b.url() })).problem(404);
    // The same name in another pool is another backend.
    balancer.api("PATCH", &format!("{all}/a"), &json!({ "state": "drain" })).expect(200);
    assert_eq!(get(&balancer, "/-/v1/backends/a")["state"], "up");
    let audit = get(&balancer, "/-/v1/audit");
    assert_eq!(audit["entries"][0]["target"], json!({ "pool": pool, "backend": "a" }), "{audit}");
    drop(balancer);
    let balancer = setup.start();
    assert_eq!(get(&balancer, &format!("{all}/a"))["state"], "drain");
    assert_eq!(get(&balancer, &all)["backends"].as_array().expect("a list").len(), 2);

    let cli = |args: &[&str]| {
        let url = format!("http://{}", balancer.admin);
        let output = Command::new(PROGRAM).args(args).args(["--url", &url]).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let table = cli(&["backends", "ls"]);
    assert!(table.starts_with("default\ta\t") && table.contains(&format!("\n{pool}\ta\t")), "{table}");
    assert!(cli(&["backends", "set", "a", "--state", "up", "--pool", &pool]).contains(&format!("{pool}/a")));
    cli(&["backends", "rm", &name, "--pool", &pool]);
    assert!(cli(&["backends", "ls", "--pool", &pool]).starts_with("a\t"));
    assert_eq!(get(&balancer, &all)["backends"].as_array().expect("a list").len(), 1);
}
