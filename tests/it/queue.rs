//! Requests while every backend is full: they wait in line, those of one client in the order in which they came, and no
//! longer than they may. On `epoll` they hold no worker.

mod fair;
mod importance;
mod leaving;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::backend::refusing;
use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Conn, Engine, Fault, Gate, PATIENCE, Setup, Then, until};

each_engine! {
    who_waits_is_served_in_the_order_of_coming,
    a_full_line_is_503_at_once_and_so_is_none,
    waiting_ends_after_queue_timeout_with_503,
    a_request_has_one_deadline_for_waiting_and_all_else,
    who_has_spent_its_time_in_line_gets_nobody_ejected,
    a_backend_that_comes_up_serves_who_waits,
    a_reload_that_makes_room_serves_who_waits,
    what_failed_elsewhere_waits_too,
    uploads_wait_too,
    a_crowd_passes_through_a_narrow_door,
}

/// The gauge or counter of that name.
fn value(balancer: &Balancer, series: &str) -> f64 {
    let text = crate::support::request(balancer.admin, "GET", "/-/metrics", &[], b"").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
}

fn waiting(balancer: &Balancer) -> f64 {
    value(balancer, "balancer_queue_depth{pool=\"default\"}")
}

/// A backend that answers with the target, each request once the gate is open.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |seen, stream| {
        gate.wait();
        let line = seen.request_line();
        let target = line.split(' ').nth(1).unwrap_or_default();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
        Then::Keep
    })
}

/// One backend with that bound, a metrics port of its own, eight workers where there are workers.
fn narrow(engine: Engine, backend: &Backend, bound: u32) -> Setup {
    Setup::on(engine)
        .backend_with(json!({ "url": backend.url(), "max_in_flight": bound }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .workers(8)
        .set("balancing.queue_timeout", json!("1m"))
        .set("balancing.queue_target", Value::Null)
}

fn ask(balancer: &Balancer, target: &str) -> Conn {
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", target, &[], None));
    conn
}

/// Asks, and waits until the request is in line behind `before` others.
fn queue(balancer: &Balancer, target: &str, before: usize) -> Conn {
    let conn = ask(balancer, target);
    until("it waits", || (waiting(balancer) == (before + 1) as f64).then_some(()));
    conn
}

fn who_waits_is_served_in_the_order_of_coming(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    // More than there are workers, where they need none.
    let count = if engine == Engine::Epoll { 40 } else { 4 };
    let mut line: Vec<Conn> = (0..count).map(|at| queue(&balancer, &format!("/{at}"), at)).collect();
    if engine == Engine::Epoll {
        assert_eq!(value(&balancer, "balancer_connections{state=\"parked\"}"), count as f64);
    }
    assert_eq!(backend.seen().len(), 1);
    gate.open();
    assert_eq!(held.read("GET").unwrap().expect(200).text(), "/held");
    for (at, conn) in line.iter_mut().enumerate() {
        assert_eq!(conn.read("GET").unwrap().expect(200).text(), format!("/{at}"));
    }
    let order: Vec<_> = backend.seen().iter().skip(1).map(|seen| seen.request_line()).collect();
    let expected: Vec<_> = (0..count).map(|at| format!("GET /{at} HTTP/1.1")).collect();
    until("nobody waits", || (waiting(&balancer) == 0.0).then_some(()));
    assert_eq!(
        value(&balancer, "balancer_queue_wait_seconds_count{pool=\"default\",priority=\"normal\"}"),
        count as f64
    );
    assert!(value(&balancer, "balancer_queue_wait_seconds_sum{pool=\"default\",priority=\"normal\"}") > 0.0);
    assert_eq!(order, expected);
}

fn a_full_line_is_503_at_once_and_so_is_none(engine: Engine) {
    for size in [0, 2] {
        let gate = Gate::default();
        let backend = gated(&gate);
        let balancer = narrow(engine, &backend, 1).set("balancing.queue_size", json!(size)).start();
        let mut held = ask(&balancer, "/held");
        until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
        let mut line: Vec<Conn> = (0..size).map(|at| queue(&balancer, "/waits", at)).collect();
        let began = Instant::now();
        let answer = balancer.get("/");
        let problem = answer.problem(503);
        assert!(began.elapsed() < Duration::from_secs(20), "at once, with a minute to wait");
        assert_eq!(problem["detail"], "the service is busy");
        assert_eq!(problem["cause"], "queue_full");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
        balancer.proc.wait_err(0, "why", |line| line.contains("balancing.queue_size"));
        gate.open();
        for conn in [&mut held].into_iter().chain(&mut line) {
            conn.read("GET").unwrap().expect(200);
        }
    }
}

fn waiting_ends_after_queue_timeout_with_503(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1).set("balancing.queue_timeout", json!("300ms")).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let mut conn = Conn::open(balancer.address);
    let began = Instant::now();
    for _ in 0..2 {
        let answer = conn.get("/late");
        answer.problem(503);
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    assert!(began.elapsed() >= Duration::from_millis(600));
    balancer.proc.wait_err(0, "which time-out it was", |line| line.contains("balancing.queue_timeout"));
    assert_eq!(waiting(&balancer), 0.0);
    gate.open();
    held.read("GET").unwrap().expect(200);
    assert_eq!(conn.get("/on-time").expect(200).text(), "/on-time");
    assert_eq!(backend.seen().len(), 2, "who gave up was never sent");
}

fn a_request_has_one_deadline_for_waiting_and_all_else(engine: Engine) {
    let backend = Backend::deaf();
    let balancer = narrow(engine, &backend, 1).set("upstream.request_timeout", json!("700ms")).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    // It waits in line while the first has its time, and then has only the rest of its own time for the backend.
    let mut late = ask(&balancer, "/late");
    let began = Instant::now();
    held.read("GET").unwrap().problem(504);
    late.read("GET").unwrap().problem(504);
    assert!(began.elapsed() < Duration::from_millis(700) + PATIENCE / 3, "{:?}", began.elapsed());
    // Requests that spend all of their time in line, behind one that has just begun.
    let mut first = ask(&balancer, "/first");
    until("it is at the backend", || {
        backend.seen().iter().any(|seen| seen.request_line().contains("first")).then_some(())
    });
    let from = balancer.proc.err_lines();
    let line: Vec<Conn> = (0..3).map(|_| ask(&balancer, "/behind")).collect();
    first.read("GET").unwrap().problem(504);
    for mut conn in line {
        conn.read("GET").unwrap().problem(504);
    }
    balancer.proc.wait_err(from, "which time-out it was", |line| line.contains("upstream.request_timeout"));
}

/// Under an overload many requests reach a backend with next to no time left. That is not the backend's fault.
fn who_has_spent_its_time_in_line_gets_nobody_ejected(engine: Engine) {
    let slow = || {
        Backend::scripted(|_, stream| {
            thread::sleep(Duration::from_secs(3));
            let _ = stream.write_all(crate::support::backend::OK);
            Then::Keep
        })
    };
    let backends = [slow(), slow()];
    let mut setup = Setup::on(engine).workers(32);
    for backend in &backends {
        setup = setup.backend_with(json!({ "url": backend.url(), "max_in_flight": 1 }));
    }
    let balancer = setup
        // Two seconds more than one takes, and too little for two.
        .set("upstream.request_timeout", json!("5s"))
        // Both of one client: the second would be refused after a second.
        .set("balancing.queue_target", Value::Null)
        .set("outlier", json!({ "consecutive": 1, "base_time": "1m" }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let mut conns: Vec<Conn> = (0..4).map(|_| ask(&balancer, "/")).collect();
    let mut statuses: Vec<_> = conns.iter_mut().map(|conn| conn.read("GET").unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 504, 504]);
    assert_eq!(backends.iter().map(|backend| backend.seen().len()).sum::<usize>(), 4, "all were sent");
    let ejected = ["a", "b"].map(|name| {
        value(&balancer, &format!("balancer_backend_ejections_total{{pool=\"default\",backend=\"{name}\"}}"))
    });
    assert_eq!(ejected, [0.0, 0.0], "{}", balancer.proc.story());
}

fn a_backend_that_comes_up_serves_who_waits(engine: Engine) {
    let (gate, well) = (Gate::default(), Gate::default());
    // Its health checks pass while its requests wait.
    let opens = gate.clone();
    let full = Backend::scripted(move |seen, stream| {
        if !seen.request_line().contains("/health") {
            opens.wait();
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfull");
        Then::Keep
    });
    let is_well = well.clone();
    let late = Backend::scripted(move |_, stream| {
        let answer: &[u8] = if is_well.is_open() {
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"
        } else {
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
        };
        let _ = stream.write_all(answer);
        Then::Keep
    });
    let balancer = narrow(engine, &full, 1)
        .backend(late.address())
        .set("health_check", json!({ "path": "/health", "interval": "50ms", "rise": 1, "fall": 1 }))
        .start();
    let asked = || full.seen().iter().filter(|seen| seen.request_line().contains("/held")).count();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (asked() == 1).then_some(()));
    let mut line: Vec<Conn> = (0..4).map(|at| queue(&balancer, &format!("/{at}"), at)).collect();
    well.open();
    for conn in &mut line {
        assert_eq!(conn.read("GET").unwrap().expect(200).text(), "late");
    }
    assert_eq!(asked(), 1, "the other one is as full as it was");
    gate.open();
    assert_eq!(held.read("GET").unwrap().expect(200).text(), "full");
}

fn a_reload_that_makes_room_serves_who_waits(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let setup = narrow(engine, &backend, 1);
    let balancer = setup.start();
    let mut line = vec![ask(&balancer, "/held")];
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    line.extend((0..3).map(|at| queue(&balancer, &format!("/{at}"), at)));
    let wider = json!([{ "name": "a", "url": backend.url(), "max_in_flight": 3 }]);
    setup.clone().set("backends", wider).write();
    balancer.proc.signal(rustix::process::Signal::HUP);
    until("two more are at the backend", || (backend.seen().len() == 3).then_some(()));
    assert_eq!(waiting(&balancer), 1.0, "the third has to wait");
    gate.open();
    for conn in &mut line {
        conn.read("GET").unwrap().expect(200);
    }
}

fn what_failed_elsewhere_waits_too(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1)
        .backend(refusing())
        .set("balancing.strategy", json!("first"))
        .set("outlier", Value::Null)
        .start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    // The one with room refuses the connection: no 502 when another one will have room in a moment.
    let mut waits = queue(&balancer, "/waits", 0);
    assert_eq!(
        value(&balancer, "balancer_backend_requests_total{pool=\"default\",backend=\"b\",code=\"error\"}"),
        1.0
    );
    gate.open();
    held.read("GET").unwrap().expect(200);
    assert_eq!(waits.read("GET").unwrap().expect(200).text(), "/waits");
    assert_eq!(value(&balancer, "balancer_backend_retries_total{pool=\"default\",reason=\"connect\"}"), 1.0);
}

fn uploads_wait_too(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let sizes = [100, 60_000, 300_000];
    let mut line: Vec<Conn> = Vec::new();
    for (at, size) in sizes.into_iter().enumerate() {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("POST", &format!("/{size}"), &[], Some(size)));
        conn.send(vec![b'x'; size]);
        until("it waits", || (waiting(&balancer) == (at + 1) as f64).then_some(()));
        line.push(conn);
    }
    gate.open();
    held.read("GET").unwrap().expect(200);
    for (conn, size) in line.iter_mut().zip(sizes) {
        assert_eq!(conn.read("POST").unwrap().expect(200).text(), format!("/{size}"));
    }
    let bodies: Vec<_> = backend.seen().iter().skip(1).map(|seen| seen.body.len()).collect();
    assert_eq!(bodies, sizes);
}

/// Many clients and room for six: every client gets all its answers, and no bound is passed.
fn a_crowd_passes_through_a_narrow_door(engine: Engine) {
    const EACH: usize = 20;
    // Half of the workers may wait where waiting takes one.
    let clients = if engine == Engine::Epoll { 64 } else { 16 };
    let backends = ["a", "b", "c"].map(Backend::named);
    let mut setup = Setup::on(engine).workers(64);
    for backend in &backends {
        setup = setup.backend_with(json!({ "url": backend.url(), "max_in_flight": 2 }));
    }
    let balancer =
        setup.set("admin.listen", json!("127.0.0.1:0")).set("balancing.queue_target", Value::Null).start();
    let address = balancer.address;
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(move || {
                for _ in 0..EACH {
                    Conn::open(address).get("/").expect(200);
                }
            });
        }
    });
    let served: usize = backends.iter().map(|backend| backend.seen().len()).sum();
    assert_eq!(served, clients * EACH);
    for backend in &backends {
        assert!(backend.connections() <= served / 3, "kept connections are used: {}", backend.connections());
    }
    until("nobody waits", || (waiting(&balancer) == 0.0).then_some(()));
    assert!(
        value(&balancer, "balancer_queue_wait_seconds_count{pool=\"default\",priority=\"normal\"}") > 0.0,
        "somebody had to wait"
    );
}
