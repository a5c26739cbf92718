//! What one bad backend may cost, and what it may not: bounds on requests at once, and ejection by its answers.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Gate, Setup, Then, request, until};

each_engine! {
    a_full_backend_is_passed_over,
    when_all_are_full_and_nobody_may_wait_it_is_503_with_retry_after,
    a_failing_backend_is_ejected_and_comes_back_by_a_probe,
    statuses_eject_by_choice,
    a_backend_alone_is_never_ejected,
}

/// A backend that answers with its name once the gate is open.
fn gated(name: &'static str, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |_, stream| {
        gate.wait();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        Then::Keep
    })
}

/// Sends a GET and waits until a backend has it; its answer is still to be read.
fn hold(balancer: &crate::support::Balancer, backends: &[&Backend]) -> Conn {
    let seen = || backends.iter().map(|backend| backend.seen().len()).sum::<usize>();
    let before = seen();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    until("a backend has the request", || (seen() > before).then_some(()));
    conn
}

fn a_full_backend_is_passed_over(engine: Engine) {
    for strategy in ["least_connections", "round_robin", "random_two", "peak_ewma", "hash", "first"] {
        let gate = Gate::default();
        let (small, big) = (gated("small", &gate), gated("big", &gate));
        let balancer = Setup::on(engine)
            .backend_with(json!({ "url": small.url(), "max_in_flight": 2 }))
            .backend_with(json!({ "url": big.url() }))
            .set("balancing.strategy", json!(strategy))
            .start();
        let mut held: Vec<Conn> = (0..20).map(|_| hold(&balancer, &[&small, &big])).collect();
        assert!(small.seen().len() <= 2, "{strategy}: {}", small.seen().len());
        gate.open();
        for conn in &mut held {
            conn.read("GET").unwrap().expect(200);
        }
    }
}

fn when_all_are_full_and_nobody_may_wait_it_is_503_with_retry_after(engine: Engine) {
    let none = || json!(null);
    for (bound, together) in [([json!(2), json!(1)], none()), ([none(), none()], json!(3))] {
        let gate = Gate::default();
        let (a, b) = (gated("a", &gate), gated("b", &gate));
        let [of_a, of_b] = bound;
        let balancer = Setup::on(engine)
            .backend_with(json!({ "url": a.url(), "max_in_flight": of_a }))
            .backend_with(json!({ "url": b.url(), "max_in_flight": of_b }))
            .set("balancing.max_in_flight", together)
            .set("balancing.queue_size", json!(0))
            .start();
        let mut held: Vec<Conn> = (0..3).map(|_| hold(&balancer, &[&a, &b])).collect();
        let answer = balancer.get("/");
        let problem = answer.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("busy"), "{problem}");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
        gate.open();
        for conn in &mut held {
            conn.read("GET").unwrap().expect(200);
        }
        until("there is room again", || (balancer.get("/").status == 200).then_some(()));
    }
}

/// One of two backends hangs with as many requests as it is given, and the other one goes on. On the other engine a request
/// that waits holds no worker.
#[test]
fn one_backend_never_holds_all_the_workers_of_the_portable_engine() {
    for strategy in ["round_robin", "first"] {
        let (deaf, good) = (Backend::deaf(), Backend::named("good"));
        let balancer = Setup::on(Engine::TinyHttp)
            .backend(deaf.address())
            .backend(good.address())
            .set("balancing.strategy", json!(strategy))
            .workers(8)
            .start();
        let mut hung = Vec::new();
        let mut answered = 0;
        while answered < 20 {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[], None));
            let sent = hung.len() + answered + 1;
            until("it is on a backend", || (deaf.seen().len() + good.seen().len() >= sent).then_some(()));
            if deaf.seen().len() > hung.len() {
                hung.push(conn);
            } else {
                assert_eq!(conn.read("GET").unwrap().expect(200).text(), "good");
                answered += 1;
            }
        }
        // Three quarters of eight.
        assert_eq!(hung.len(), 6, "{strategy}");
    }
}

fn a_failing_backend_is_ejected_and_comes_back_by_a_probe(engine: Engine) {
    let broken = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&broken);
    let flaky = Backend::scripted(move |_, stream| {
        if says.load(Ordering::SeqCst) {
            return Then::Reset;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nflaky");
        Then::Keep
    });
    let good = Backend::named("good");
    let balancer = Setup::on(engine)
        .backend_with(json!({ "name": "flaky", "url": flaky.url() }))
        .backend_with(json!({ "name": "good", "url": good.url() }))
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", json!({ "consecutive": 3, "base_time": "200ms" }))
        .start();
    let from = balancer.proc.err_lines();
    let mut conn = Conn::open(balancer.address);
    let (at, line) = loop {
        // No client sees any of the failures.
        assert_eq!(conn.get("/").expect(200).text(), "good");
        if flaky.seen().len() == 3 {
            break balancer.proc.wait_err(from, "it is ejected", |line| line.contains("is ejected"));
        }
    };
    assert!(line.contains("flaky") && line.contains("3 failures in a row"), "{line}");
    let shown = balancer.api("GET", "/-/v1/backends/flaky", &Value::Null).expect(200).json();
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.contains("ejected")), "{shown}");
    let shown = balancer.api("GET", "/-/v1/backends/good", &Value::Null).expect(200).json();
    assert_eq!(shown["cause"], Value::Null);
    // Probes fail, each after twice the time.
    let (at, line) = until("a probe failed", || {
        assert_eq!(conn.get("/").expect(200).text(), "good");
        (flaky.seen().len() == 4)
            .then(|| balancer.proc.wait_err(at, "it stays out", |line| line.contains("stays ejected")))
    });
    assert!(line.contains("400ms"), "{line}");
    broken.store(false, Ordering::SeqCst);
    until("it is back", || (conn.get("/").expect(200).text() == "flaky").then_some(()));
    balancer.proc.wait_err(at, "it is back", |line| line.contains("flaky") && line.contains("no longer"));
}

fn statuses_eject_by_choice(engine: Engine) {
    let bad = Backend::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let good = Backend::named("good");
    let setup = Setup::on(engine)
        .backend(bad.address())
        .backend(good.address())
        .set("balancing.strategy", json!("round_robin"));
    let bad_answers = |setup: &Setup| {
        let balancer = setup.start();
        (0..40).filter(|_| balancer.get("/").status == 500).count()
    };
    assert_eq!(bad_answers(&setup), 20, "an answer is an answer");
    let outlier = json!({ "consecutive": 3, "base_time": "1h", "statuses": "500,502-504" });
    assert_eq!(bad_answers(&setup.set("outlier", outlier)), 3);
}

fn a_backend_alone_is_never_ejected(engine: Engine) {
    let backend = Backend::saying("", Then::Reset);
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("outlier", json!({ "consecutive": 1, "max_ejected": 0.9 }))
        .start();
    for sent in 1..=10 {
        request(balancer.address, "POST", "/", &[], b"x").problem(502);
        assert_eq!(backend.seen().len(), sent);
    }
    assert!(!balancer.proc.err().contains("ejected"), "{}", balancer.proc.story());
}
