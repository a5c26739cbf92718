//! Reload: what was changed is in force, what was not changed goes on as before, and a wrong file changes nothing.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::balancer::PROGRAM;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Conn, Engine, Gate, Load, Proc, Setup, Then, request, until};

each_engine! {
    what_changed_is_in_force,
    a_wrong_configuration_changes_nothing_and_says_why,
    what_did_not_change_goes_on,
    a_new_default_moves_levels,
    what_needs_a_restart_is_named_until_it_is_done,
    access_rules_change_with_the_next_call,
    two_hundred_reloads_cost_no_request,
    the_command_reloads,
    a_backend_that_leads_back_to_us_is_refused,
}

/// Makes the balancer read what `setup` says by now.
fn reload(balancer: &Balancer, setup: &Setup) -> Value {
    setup.write();
    let answer = balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200).json();
    assert_eq!(answer["reloaded"], true, "{answer}");
    answer
}

/// How many reloads came to that: `success` or `failure`.
fn reloads(balancer: &Balancer, result: &str) -> f64 {
    balancer.metric(&format!("balancer_config_reloads_total{{result=\"{result}\"}}"))
}

/// Requests under way at backend `a`.
fn under_way(balancer: &Balancer) -> f64 {
    balancer.metric("balancer_backend_in_flight{pool=\"default\",backend=\"a\"}")
}

fn what_changed_is_in_force(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let base = || Setup::on(engine);
    let setup = base().backend(a.address());
    let balancer = setup.start();
    assert_eq!(balancer.get("/").expect(200).text(), "a");

    let both = setup.clone().backend(b.address()).set("balancing.strategy", json!("round_robin"));
    let answer = reload(&balancer, &both);
    assert_eq!(answer["changed"], json!(["backends", "balancing.strategy"]));
    assert_eq!(answer["needs_restart"], json!([]));
    let mut seen: Vec<String> = (0..4).map(|_| balancer.get("/").expect(200).text()).collect();
    seen.sort();
    assert_eq!(seen, ["a", "a", "b", "b"]);

    // By signal, with only the second backend left.
    let gone = setup.clone().set("backends", json!([{ "name": "b", "url": b.url() }]));
    gone.write();
    balancer.proc.signal(Signal::HUP);
    until("only b is asked", || (0..4).all(|_| balancer.get("/").text() == "b").then_some(()));
    // It is counted a moment after it is in force.
    until("both reloads are counted", || (reloads(&balancer, "success") == 2.0).then_some(()));
    assert_eq!(reloads(&balancer, "failure"), 0.0);
    let page = balancer.get("/-/metrics").text();
    assert!(
        !page.contains("backend=\"a\"")
            && page.contains("balancer_backend_up{pool=\"default\",backend=\"b\"} 1"),
        "{page}"
    );

    // The same again changes nothing.
    assert_eq!(reload(&balancer, &gone)["changed"], json!([]));
}

fn a_wrong_configuration_changes_nothing_and_says_why(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address()).set("rate_limit.default", json!("5/d"));
    let balancer = setup.start();
    assert_eq!(balancer.get("/").expect(200).field("ratelimit-policy"), Some("\"default\";q=5;w=86400"));

    let wrong = setup.clone().set("rate_limit.default", json!("9/d")).set("upstream.retries", json!(99));
    wrong.set("balancing.strategies", json!("first")).write();
    let before = balancer.proc.err_lines();
    let problem = balancer.api("POST", "/-/v1/reload", &Value::Null).problem(400);
    let errors = problem["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 2, "{problem}");
    assert!(errors.iter().any(|one| one["pointer"] == "/upstream/retries"), "{problem}");
    assert!(errors.iter().any(|one| one["pointer"] == "/balancing/strategies"), "{problem}");
    balancer.proc.wait_err(before, "the fault is logged with its line", |line| {
        line.contains("[ERROR]") && line.contains("config.json:") && line.contains("upstream.retries")
    });
    balancer.proc.signal(Signal::HUP);
    until("the signal's reload failed, too", || (reloads(&balancer, "failure") == 2.0).then_some(()));
    std::fs::write(setup.folder().join("config.json"), "{").expect("written");
    balancer.api("POST", "/-/v1/reload", &Value::Null).problem(400);
    std::fs::remove_file(setup.folder().join("config.json")).expect("removed");
    balancer.api("POST", "/-/v1/reload", &Value::Null).problem(400);
    // Nothing of it is in force.
    let answer = balancer.get("/").expect(200);
    assert_eq!(answer.field("ratelimit-policy"), Some("\"default\";q=5;w=86400"));
    assert_eq!(reload(&balancer, &setup)["changed"], json!([]));
}

fn what_did_not_change_goes_on(engine: Engine) {
    let gate = Gate::default();
    let own = gate.clone();
    let slow = Backend::scripted(move |seen, stream| {
        if seen.request_line().contains("/slow") {
            own.wait();
        }
        let _ = std::io::Write::write_all(stream, crate::support::backend::OK);
        Then::Keep
    });
    let (b, c) = (Backend::named("b"), Backend::named("c"));
    let setup = Setup::on(engine)
        .backend(slow.address())
        .set("rate_limit.default", json!({ "capacity": 10, "rate_per_sec": 0 }))
        .set("upstream.idle_timeout", json!("1h"))
        .set("balancing.strategy", json!("first"));
    let balancer = setup.start();
    let mut slow_one = Conn::open(balancer.address);
    slow_one.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it is at the backend", || (slow.seen().len() == 1).then_some(()));
    let mut kept = Conn::open(balancer.address);
    for left in [8, 7] {
        let answer = kept.get("/").expect(200);
        assert_eq!(answer.field("ratelimit"), Some(format!("\"default\";r={left}").as_str()));
    }
    // An answer counts as under way until we know that the kernel has it; its client may read it a moment earlier.
    until("the slow one alone is under way", || (under_way(&balancer) == 1.0).then_some(()));
    assert_eq!(slow.connections(), 2);

    // Another backend joins in front of `a` and gets new requests; `a` goes on as before.
    let joined = setup.clone().set(
        "backends",
        json!([{ "name": "c", "url": c.url() }, { "name": "a", "url": slow.url(), "weight": 7 }]),
    );
    reload(&balancer, &joined);
    assert_eq!(under_way(&balancer), 1.0, "it is counted still");
    // The client's connection stays open, its level goes on, and the new backend answers.
    let answer = kept.get("/").expect(200);
    assert_eq!((answer.text().as_str(), answer.field("ratelimit")), ("c", Some("\"default\";r=6")));
    // The connection to `a` that was kept is taken again.
    reload(&balancer, &setup);
    assert_eq!(kept.get("/").expect(200).text(), "ok");
    assert_eq!(slow.connections(), 2, "no new connection was needed");

    // `a` is taken out while a request is under way there, which is still answered.
    reload(&balancer, &setup.clone().set("backends", json!([{ "name": "b", "url": b.url() }])));
    assert_eq!(kept.get("/").expect(200).text(), "b");
    gate.open();
    assert_eq!(slow_one.read("GET").expect("answered").text(), "ok");
}

fn a_new_default_moves_levels(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address());
    let numbers = |capacity: u32| {
        setup.clone().set("rate_limit.default", json!({ "capacity": capacity, "rate_per_sec": 0 }))
    };
    let balancer = numbers(10).start();
    let left = || balancer.get("/").field("ratelimit").map(str::to_owned);
    for _ in 0..4 {
        balancer.get("/").expect(200);
    }
    // level' = clamp(level + capacity' − capacity, 0, capacity')
    assert_eq!(reload(&balancer, &numbers(7))["changed"], json!(["rate_limit.default.capacity"]));
    assert_eq!(left().as_deref(), Some("\"default\";r=2"));
    reload(&balancer, &numbers(20));
    assert_eq!(left().as_deref(), Some("\"default\";r=14"));
    reload(&balancer, &numbers(1));
    balancer.get("/").problem(429);
    reload(&balancer, &setup);
    assert_eq!(left(), None);
    // The fields themselves can go, too.
    reload(&balancer, &numbers(9).set("rate_limit.headers", json!("off")));
    assert_eq!(left(), None);
}

fn what_needs_a_restart_is_named_until_it_is_done(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address());
    let balancer = setup.start();
    let other = setup
        .clone()
        .set("frontend.workers", json!(3))
        .set("database.pool_size", json!(2))
        .set("listen", json!("127.0.0.1:1"))
        .set("cache.ttl", json!("9s"))
        .set("upstream.retries", json!(2));
    let restart = json!(["cache.ttl", "database.pool_size", "frontend.workers", "listen"]);
    let before = balancer.proc.err_lines();
    let answer = reload(&balancer, &other);
    assert_eq!((&answer["changed"], &answer["needs_restart"]), (&json!(["upstream.retries"]), &restart));
    balancer.proc.wait_err(before, "the log names them", |line| {
        line.contains("[WARN]") && line.contains("frontend.workers") && line.contains("restart")
    });
    // Still bound where it was, and still to be restarted.
    balancer.get("/").expect(200);
    let answer = reload(&balancer, &other);
    assert_eq!((&answer["changed"], &answer["needs_restart"]), (&json!([]), &restart));
    assert_eq!(reload(&balancer, &setup)["needs_restart"], json!([]));
}

fn access_rules_change_with_the_next_call(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address()).set("admin.listen", json!("127.0.0.1:0"));
    let balancer = setup.start();
    reload(&balancer, &setup.clone().set("admin.token", json!("topsecret-of-the-api")));
    balancer.api("GET", "/limits", &Value::Null).problem(401);
    for path in ["/v1/reload", "/-/v1/reload"] {
        request(balancer.admin, "POST", path, &[], b"").problem(401);
        request(balancer.admin, "POST", path, &[("Authorization", "Bearer topsecret-of-the-api")], b"")
            .expect(200);
    }
    assert!(!balancer.proc.err().contains("topsecret-of-the-api"));
    // On the public port it is an ordinary path.
    assert_eq!(request(balancer.address, "POST", "/-/v1/reload", &[], b"").expect(200).text(), "a");
    setup.write();
    request(balancer.admin, "POST", "/v1/reload", &[("Authorization", "Bearer topsecret-of-the-api")], b"")
        .expect(200);
    balancer.api("GET", "/limits", &Value::Null).expect(200);
    request(balancer.admin, "GET", "/v1/reload", &[], b"").problem(405);
}

fn two_hundred_reloads_cost_no_request(engine: Engine) {
    const RELOADS: u32 = 200;
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    let setup = Setup::on(engine).set("rate_limit.default", json!("1000000000/s"));
    let entry = |index: usize| json!({ "name": format!("n{index}"), "url": backends[index].url() });
    let balancer = setup.clone().set("backends", json!([entry(0), entry(1)])).start();
    let keeps = engine.can(Case::ManyKept);
    let load = Load::start(balancer.address, 64, keeps);
    until("there is load", || (load.answered() > 200).then_some(()));
    for round in 0..RELOADS {
        // Another pair each time, in part carried over and in part new, now and then under another name.
        let first = usize::try_from(round).expect("small") % 4;
        let mut list = vec![entry(first), entry((first + 1) % 4)];
        list[0]["weight"] = json!(1 + round % 3);
        if round % 5 == 0 {
            list[0]["name"] = json!("renamed");
        }
        let strategies = ["least_connections", "round_robin", "random_two", "peak_ewma", "hash"];
        let next = setup
            .clone()
            .set("backends", json!(list))
            .set("balancing.strategy", json!(strategies[first]))
            .set("upstream.retries", json!(round % 3))
            .set("rate_limit.default", json!(format!("{}/s", 900_000_000 + round)));
        reload(&balancer, &next);
    }
    let before = load.answered();
    until("it goes on", || (load.answered() > before + 200).then_some(()));
    let connections = load.connections();
    let (answered, faults) = load.finish();
    assert!(faults.is_empty(), "{} of {answered}: {faults:?}\n{}", faults.len(), balancer.proc.story());
    assert!(!keeps || connections == 64, "reloads closed connections: {connections}");
    assert_eq!(reloads(&balancer, "success"), f64::from(RELOADS));
    assert!(backends.iter().all(|backend| !backend.seen().is_empty()), "every backend was asked");
}

fn the_command_reloads(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address()).set("admin.token", json!("topsecret-of-the-api"));
    let balancer = setup.start();
    let command = |url: Option<String>| {
        let mut command = Command::new(PROGRAM);
        command.args(["reload", "--config"]).arg(setup.folder().join("config.json"));
        command.args(url.iter().flat_map(|url| ["--url", url.as_str()]));
        command.env("BALANCER_ADMIN_TOKEN", "topsecret-of-the-api").current_dir(setup.folder());
        let mut proc = Proc::run(command);
        let code = proc.wait().code();
        (code, proc.out(), proc.err())
    };
    setup.clone().set("upstream.retries", json!(3)).set("frontend.workers", json!(3)).write();
    let (code, out, err) = command(Some(format!("http://{}", balancer.address)));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, "reloaded; changed: upstream.retries\nin force after a restart alone: frontend.workers");
    // A command finds the balancer by the file, unless the file has port 0.
    let (code, _, err) = command(None);
    assert_eq!(code, Some(2));
    assert!(err.contains("--url"), "{err}");
    // A wrong file: the command that reads it says so, and so does the balancer that is asked to reload.
    setup.clone().set("upstream.retries", json!("many")).write();
    let (code, out, err) = command(None);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("upstream.retries: must be"), "{err}");
    let mut remote = Command::new(PROGRAM);
    remote.args(["reload", "--url", &format!("http://{}", balancer.address)]);
    remote.env("BALANCER_ADMIN_TOKEN", "topsecret-of-the-api").current_dir("/");
    let mut remote = Proc::run(remote);
    assert_eq!(remote.wait().code(), Some(1));
    let err = remote.err();
    assert!(err.contains("nothing was changed") && err.contains("upstream.retries: must be"), "{err}");
}

fn a_backend_that_leads_back_to_us_is_refused(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address());
    let balancer = setup.start();
    setup.clone().backend(balancer.address).write();
    let problem = balancer.api("POST", "/-/v1/reload", &Value::Null).problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "/backends/1/url", "{problem}");
}
