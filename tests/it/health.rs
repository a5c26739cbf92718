//! Health checks: which backends are taken out, which come back, and what is logged.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::backend::refusing;
use crate::support::engine::each_engine;
use crate::support::{Backend, Engine, Setup, Then, aloud, until};

each_engine! {
    the_first_checks_decide_alone_before_it_listens,
    a_backend_goes_and_comes_back_with_one_line_each,
    without_a_healthy_backend_it_is_503,
    without_health_checks_everybody_is_healthy,
    hanging_backends_delay_nobody_elses_check,
    a_thousand_backends_of_which_a_hundred_hang_start_at_once_and_on_few_threads,
    a_hundred_pools_share_threads_and_descriptors_of_checks,
    checks_open_a_fresh_connection_and_spend_no_token,
    weight_0_gets_no_traffic,
}

fn quick(path: &str) -> Value {
    json!({ "path": path, "expect": "200-399", "interval": "100ms", "timeout": "5s", "rise": 2, "fall": 3 })
}

/// A backend whose `/health` answers with the status that the number says at the moment.
fn switchable(name: &'static str) -> (Backend, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let backend = Backend::scripted(move |seen, stream| {
        let code = if seen.request_line().contains(" /health ") { says.load(Ordering::SeqCst) } else { 200 };
        let _ = write!(stream, "HTTP/1.1 {code} Whatever\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        Then::Keep
    });
    (backend, status)
}

fn the_first_checks_decide_alone_before_it_listens(engine: Engine) {
    let good = Backend::named("good");
    let slow_check = json!({ "path": "/", "interval": "1h", "timeout": "1s", "rise": 5, "fall": 5 });
    let balancer =
        Setup::on(engine).backend(refusing()).backend(good.address()).set("health_check", slow_check).start();
    // The good one is up although `rise` is 5, and the other down although `fall` is 5: there is no second check.
    assert_eq!(good.seen().len(), 1);
    for _ in 0..20 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
    }
    balancer.get("/-/readyz").expect(200);
}

fn a_backend_goes_and_comes_back_with_one_line_each(engine: Engine) {
    let (a, status) = switchable("aaa");
    let b = Backend::named("bbb");
    let balancer = Setup::on(engine)
        .backend_with(json!({ "name": "alpha", "url": a.url() }))
        .backend_with(json!({ "name": "beta", "url": b.url() }))
        .set("health_check", quick("/health"))
        .start();
    // The lines of the first checks may come after the listening line, which another thread writes.
    balancer.proc.wait_err(0, "alpha is up", |line| line.contains("alpha (") && line.contains(" is up"));
    balancer.proc.wait_err(0, "beta is up", |line| line.contains("beta (") && line.contains(" is up"));
    let before = balancer.proc.err_lines();
    status.store(500, Ordering::SeqCst);
    let (at, line) = balancer
        .proc
        .wait_err(before, "alpha is down", |line| line.contains("alpha") && line.contains("down"));
    assert!(line.contains("500"), "the cause is missing: {line}");
    for _ in 0..20 {
        assert_eq!(balancer.get("/").expect(200).text(), "bbb");
    }
    status.store(200, Ordering::SeqCst);
    balancer.proc.wait_err(at, "alpha is up", |line| line.contains("alpha") && line.contains("up"));
    until("the backend that came back gets traffic", || (balancer.get("/").text() == "aaa").then_some(()));
    let err = balancer.proc.err();
    let lines: Vec<&str> =
        err.lines().filter(|line| line.contains("alpha") && !line.contains("first check")).collect();
    assert_eq!(lines.len(), 2, "one line for each change of state:\n{err}");
}

fn without_a_healthy_backend_it_is_503(engine: Engine) {
    let (a, status) = switchable("a");
    status.store(404, Ordering::SeqCst);
    let balancer = Setup::on(engine).backend(a.address()).set("health_check", quick("/health")).start();
    let answer = balancer.get("/");
    answer.problem(503);
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    balancer.get("/-/livez").expect(200);
    assert_eq!(balancer.get("/-/readyz").status, 503);
    status.store(200, Ordering::SeqCst);
    until("it serves again", || (balancer.get("/").status == 200).then_some(()));
    balancer.get("/-/readyz").expect(200);
}

fn without_health_checks_everybody_is_healthy(engine: Engine) {
    let a = Backend::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let balancer = Setup::on(engine).backend(a.address()).start();
    for _ in 0..10 {
        balancer.get("/").expect(500);
    }
    assert_eq!(a.seen().len(), 10, "an answer is an answer: it is not sent again, and nothing else asks");
}

fn hanging_backends_delay_nobody_elses_check(engine: Engine) {
    let hanging: Vec<Backend> = (0..20).map(|_| Backend::deaf()).collect();
    let (good, status) = switchable("good");
    // A hung check takes twenty intervals.
    let check = json!({ "path": "/health", "interval": "100ms", "timeout": "2s", "rise": 1, "fall": 1 });
    let mut setup = Setup::on(engine).backend_with(json!({ "name": "good", "url": good.url() }));
    for (i, backend) in hanging.iter().enumerate() {
        setup = setup.backend_with(json!({ "name": format!("hung{i}"), "url": backend.url() }));
    }
    let balancer = setup.set("health_check", check).start();
    until("every hanging backend was asked", || hanging.iter().all(|b| !b.seen().is_empty()).then_some(()));
    for (code, word) in [(500, "down"), (200, "up"), (500, "down"), (200, "up")] {
        let from = balancer.proc.err_lines();
        status.store(code, Ordering::SeqCst);
        balancer.proc.wait_err(from, word, |line| line.contains("good") && line.contains(word));
    }
    // If the checks of the good one waited for those that hang, they would be no more frequent.
    let (checks, of_one) = (good.seen().len(), || hanging[0].seen().len());
    let from = of_one();
    until("one that hangs was asked twice more", || (of_one() >= from + 2).then_some(()));
    let checks = good.seen().len() - checks;
    assert!(checks >= 8, "the good one was asked only {checks} times meanwhile");
}

fn a_thousand_backends_of_which_a_hundred_hang_start_at_once_and_on_few_threads(engine: Engine) {
    a_thousand_are_checked(engine, 1, 1);
}

fn a_hundred_pools_share_threads_and_descriptors_of_checks(engine: Engine) {
    // On few threads those that hang are waited for one after the other.
    a_thousand_are_checked(engine, 100, if engine == Engine::TinyHttp { 1 } else { 6 });
}

/// In so many pools. Of ten backends, `hang` do not answer.
fn a_thousand_are_checked(engine: Engine, pools: usize, hang: usize) {
    const TIMEOUT: Duration = Duration::from_millis(500);
    // A loaded machine and a build without optimisations take their time for the rest of the start.
    const SLACK: Duration = Duration::from_secs(10);
    let everywhere = |line: i32| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).expect("a free port");
        socket.listen(line).expect("a listener");
        TcpListener::from(socket)
    };
    // The kernel takes as many connections as its line is long, and answers nobody beyond: both kinds of hanging.
    let hanging = everywhere(50);
    let good = Backend::named_on(everywhere(4096), 7);
    let of = |number: usize| {
        let hangs = (number + 7) % 10 < hang;
        let port = if hangs { hanging.local_addr().expect("bound") } else { good.address() }.port();
        let url = format!("http://127.0.{}.{}:{port}", 1 + number / 250, 1 + number % 250);
        json!({ "name": format!("b{number}"), "url": url })
    };
    let size = 1000 / pools;
    let mut setup = (0..size).fold(Setup::on(engine), |setup, number| setup.backend_with(of(number)));
    for pool in 1..pools {
        let backends: Vec<Value> = (pool * size..(pool + 1) * size).map(of).collect();
        setup = setup.set(&format!("pools.p{pool}"), json!({ "backends": backends }));
    }
    let check = json!({ "path": "/", "interval": "1h", "timeout": "500ms" });
    let began = Instant::now();
    let setup = setup.set("health_check", check).set("frontend.workers", json!(4));
    let proc = setup.launch();
    let said = |word: &str| proc.err().lines().filter(|line| line.contains(word)).count();
    let mut files = 0;
    until("everybody was checked", || {
        files = files.max(proc.files());
        (said("(first check)") == 1000).then_some(())
    });
    let (took, threads) = (began.elapsed(), proc.threads());
    aloud(&format!(
        "1,000 backends in {pools} pools, {hang} in ten hang, {}: {took:?}, {threads} threads, {files} files",
        engine.name()
    ));
    // Those that hang are awaited by 16 threads at once.
    assert!(took < TIMEOUT * 7 + SLACK, "{took:?}");
    assert!(threads < 100, "{threads} threads");
    // Half of the descriptors that are kept for other things than clients, and those that an idle process has.
    assert!(files < 512 + 100, "{files} files");
    assert_eq!(said("is up: GET /: status 200 (first check)"), 1000 - 100 * hang);
    assert_eq!(said("is down: GET /: no "), 100 * hang);
    let balancer = setup.started(proc);
    assert_eq!(balancer.get("/").expect(200).text(), "07");
}

fn checks_open_a_fresh_connection_and_spend_no_token(engine: Engine) {
    let (a, _) = switchable("a");
    let balancer = Setup::on(engine)
        .backend(a.address())
        .set("health_check", quick("/health"))
        .set("rate_limit.default", json!({ "capacity": 2, "rate_per_sec": 0 }))
        .start();
    until("five checks were made", || (a.seen().len() >= 5).then_some(()));
    let seen = a.seen();
    let mut connections: Vec<usize> = seen.iter().map(|seen| seen.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), seen.len(), "each check on a connection of its own");
    assert!(seen.iter().all(|seen| seen.field("host").is_some()), "{seen:?}");
    balancer.get("/").expect(200);
    balancer.get("/-/livez").expect(200);
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
}

fn weight_0_gets_no_traffic(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let balancer = Setup::on(engine)
        .backend_with(json!({ "url": a.url(), "weight": 0 }))
        .backend_with(json!({ "url": b.url(), "weight": 1 }))
        .start();
    for _ in 0..20 {
        assert_eq!(balancer.get("/").expect(200).text(), "b");
    }
}
