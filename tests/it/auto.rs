//! `"max_in_flight": "auto"`: measured bounds.

use std::io::Write;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::head;
use crate::support::engine::{Case, each_engine, each_store};
use crate::support::{Backend, Balancer, Conn, Database, Engine, Framing, Gate, Load, Setup, Then, until};

each_engine! {
    streams_hold_no_place_and_what_waits_for_its_head_does,
    a_bound_rises_and_falls_with_what_is_measured,
    a_reload_goes_on_with_what_was_measured,
}

each_store! {
    a_measured_bound_is_asked_for_by_the_api_and_kept,
}

fn shown(balancer: &Balancer) -> Value {
    balancer.api("GET", "/-/v1/backends", &Value::Null).expect(200).json()["backends"][0].take()
}

fn limit(balancer: &Balancer) -> u64 {
    shown(balancer)["limit"].as_u64().expect("a bound")
}

/// A setup with one backend whose bound is measured, by the numbers of `balancing.auto`.
fn measured(engine: Engine, backend: &Backend, auto: Value) -> Setup {
    Setup::on(engine)
        .backend_with(json!({ "url": backend.url(), "max_in_flight": "auto" }))
        .set("balancing.auto", auto)
        .set("balancing.queue_timeout", json!("1m"))
        .set("admin.listen", json!("127.0.0.1:0"))
        .workers(64)
}

fn ask(balancer: &Balancer, target: &str) -> Conn {
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", target, &[], None));
    conn
}

fn streams_hold_no_place_and_what_waits_for_its_head_does(engine: Engine) {
    let (of_heads, of_bodies) = (Gate::default(), Gate::default());
    let gates = (of_heads.clone(), of_bodies.clone());
    let backend = Backend::scripted(move |seen, stream| {
        let line = seen.request_line();
        if line.starts_with("GET /held ") {
            gates.0.wait();
        }
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        if line.starts_with("GET /stream ") {
            gates.1.wait();
        }
        let _ = stream.write_all(b"2\r\nok\r\n0\r\n\r\n");
        Then::Keep
    });
    let balancer = measured(engine, &backend, json!({ "start": 1, "max": 1 })).start();
    let mut streams: Vec<Conn> = (0..3).map(|_| ask(&balancer, "/stream")).collect();
    if engine.can(Case::Streaming) {
        for stream in &mut streams {
            assert_eq!(stream.read_head("GET").expect("a head").status, 200);
        }
    }
    let now = until("all have their heads", || {
        Some(shown(&balancer)).filter(|now| now["in_flight"] == 3 && now["measured"]["held"] == 0)
    });
    assert_eq!((&now["max_in_flight"], &now["limit"]), (&json!("auto"), &json!(1)), "{now}");
    balancer.get("/").expect(200);

    let mut held = ask(&balancer, "/held");
    until("its place is held", || (shown(&balancer)["measured"]["held"] == 1).then_some(()));
    let mut waits = ask(&balancer, "/");
    until("it waits in line", || (balancer.metric("balancer_queue_depth") == 1.0).then_some(()));
    assert_eq!(balancer.metric("balancer_backend_limit{"), 1.0);
    of_heads.open();
    for conn in [&mut held, &mut waits] {
        assert_eq!(conn.read("GET").expect("an answer").expect(200).text(), "ok");
    }
    of_bodies.open();
    for mut stream in streams {
        let mut body: Vec<u8> = Vec::new();
        match engine.can(Case::Streaming) {
            true => stream.read_body(Framing::Chunked, &mut |bytes| body.extend(bytes)).expect("its end"),
            false => body.extend(stream.read("GET").expect("an answer").expect(200).text().bytes()),
        }
        assert_eq!(body, b"ok");
    }
    until("nothing is in flight", || (shown(&balancer)["in_flight"] == 0).then_some(()));
}

/// A backend that works at `places` requests at once, for the time `work` each; the others wait in it.
fn working(places: usize, work: Duration) -> Backend {
    let (free, freed) = (Mutex::new(places), Condvar::new());
    Backend::scripted(move |_, stream| {
        let mut left = freed.wait_while(free.lock().expect("no panic"), |left| *left == 0).expect("no panic");
        *left -= 1;
        drop(left);
        thread::sleep(work);
        *free.lock().expect("no panic") += 1;
        freed.notify_one();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    })
}

fn a_bound_rises_and_falls_with_what_is_measured(engine: Engine) {
    let backend = working(8, Duration::from_millis(30));
    // `max` is below the number of clients: a bound above that would never be full, and so never be tried.
    let balancer = measured(engine, &backend, json!({ "start": 8, "max": 24 })).start();
    assert_eq!(limit(&balancer), 8);
    // tiny_http may leave a kept connection waiting for ever.
    let load = Load::start(balancer.address, 30, engine == Engine::Epoll);
    until("it is tried with more", || (limit(&balancer) > 8).then_some(()));
    let now = shown(&balancer);
    assert!(now["measured"]["median_seconds"].as_f64().expect("answers came") > 0.01, "{now}");
    assert!(now["measured"]["moved"].is_string(), "{now}");
    // Requests beyond the eight places only wait in the backend; a trial with fewer requests finds that out.
    let idle = r#"balancer_backend_limit_probes_total{pool="default",backend="a",verdict="idle"}"#;
    until("some are taken away", || (balancer.metric(idle) >= 1.0).then_some(()));
    let (answered, faults) = load.finish();
    assert!(answered > 0 && faults.is_empty(), "{faults:?}");
    until("nothing is in flight", || (shown(&balancer)["in_flight"] == 0).then_some(()));
    assert_eq!(shown(&balancer)["measured"]["held"], 0);
}

fn a_reload_goes_on_with_what_was_measured(engine: Engine) {
    let backend = Backend::named("a");
    let of = |weight: u32, bound: Value| json!([{ "name": "a", "url": backend.url(), "weight": weight, "max_in_flight": bound }]);
    let setup = measured(engine, &backend, json!({ "start": 4, "max": 4 }));
    let balancer = setup.start();
    let setup = setup.set("balancing.auto", json!({ "start": 2, "max": 4 }));
    let reload = |setup: Setup| {
        setup.write();
        balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
        (setup, shown(&balancer))
    };
    let (setup, now) = reload(setup.set("backends", of(7, json!("auto"))));
    assert_eq!((&now["weight"], &now["limit"]), (&json!(7), &json!(4)), "it goes on");
    let (setup, now) = reload(setup.set("balancing.auto", json!({ "start": 2, "max": 3 })));
    assert_eq!((&now["limit"], &now["measured"]["moved"]), (&json!(3), &json!("bounds")));
    let (setup, now) = reload(setup.set("backends", of(7, json!(9))));
    assert_eq!((&now["limit"], &now["measured"]), (&json!(9), &Value::Null));
    let (setup, now) = reload(setup.set("backends", of(7, Value::Null)));
    assert_eq!((&now["max_in_flight"], &now["limit"]), (&Value::Null, &Value::Null));
    assert!(balancer.metric("balancer_backend_limit{").is_infinite());
    let (_, now) = reload(setup.set("backends", of(7, json!("auto"))));
    assert_eq!((&now["limit"], &now["measured"]["moved"]), (&json!(2), &Value::Null), "it begins anew");
    balancer.get("/").expect(200);
}

fn a_measured_bound_is_asked_for_by_the_api_and_kept(database: &Database) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::auto().store(database).backend(a.address());
    let balancer = setup.start();
    let new = json!({ "name": "b", "url": b.url(), "max_in_flight": "auto" });
    let made = balancer.api("POST", "/-/v1/backends", &new).expect(201).json();
    assert_eq!((&made["max_in_flight"], &made["limit"]), (&json!("auto"), &json!(16)), "{made}");
    let of_file = balancer.api("PATCH", "/-/v1/backends/a", &json!({ "max_in_flight": "auto" }));
    assert_eq!(of_file.expect(200).json()["limit"], 16);
    let problem = balancer.api("PATCH", "/-/v1/backends/b", &json!({ "max_in_flight": "many" })).problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "/max_in_flight", "{problem}");
    let audit = balancer.api("GET", "/-/v1/audit?limit=1", &Value::Null).expect(200).json();
    assert_eq!(audit["entries"][0]["after"]["max_in_flight"], "auto", "{audit}");
    drop(balancer);
    let balancer = setup.start();
    let list = balancer.api("GET", "/-/v1/backends", &Value::Null).expect(200).json();
    let bounds: Vec<_> =
        list["backends"].as_array().expect("a list").iter().map(|one| &one["limit"]).collect();
    assert_eq!(bounds, [&json!(16), &json!(16)], "{list}");
}
