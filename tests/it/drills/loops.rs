//! Several loops: which one gets which connection, and how the others go on when one of them hangs or panics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{setup, turn};
use crate::support::client::head;
use crate::support::{Backend, Balancer, Conn, Setup, aloud, get, request, until};

/// A series' value on the admin listener, whose connections are no loop's.
fn value(balancer: &Balancer, series: &str) -> usize {
    let text = get(balancer.admin, "/metrics").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a whole number")
}

fn connections(balancer: &Balancer, at: usize) -> usize {
    value(balancer, &format!("balancer_loop_connections{{loop=\"{at}\"}}"))
}

fn with_loops(loops: usize, backend: &Backend) -> Setup {
    setup()
        .backend(backend.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("frontend.workers", json!(loops))
}

#[test]
fn connections_are_dealt_evenly() {
    const ALL: usize = 64;
    let backend = Backend::named("a");
    for loops in [2, 4] {
        let balancer = with_loops(loops, &backend).start();
        // At once, as clients come after a restart; some ask and some do not yet.
        let mut conns: Vec<Conn> = (0..ALL).map(|_| Conn::open(balancer.address)).collect();
        for conn in &mut conns[..ALL / 2] {
            conn.get("/").expect(200);
        }
        let counts = until("all are accepted", || {
            let counts: Vec<usize> = (0..loops).map(|at| connections(&balancer, at)).collect();
            (counts.iter().sum::<usize>() == ALL).then_some(counts)
        });
        let fair = ALL / loops;
        assert!(counts.iter().all(|count| count.abs_diff(fair) <= 2), "{counts:?}");
        drop(conns);
        until("all have left", || (0..loops).all(|at| connections(&balancer, at) == 0).then_some(()));
    }
}

/// Asks for a probe, which we answer ourselves, many requests at once, until told to stop.
fn ask_much(mut conn: Conn, stop: &AtomicBool) {
    let many = head("GET", "/-/livez", &[], None).repeat(50);
    while !stop.load(Ordering::SeqCst) {
        conn.send(&many);
        for _ in 0..50 {
            conn.read("GET").unwrap().expect(200);
        }
    }
}

/// How long it may take until busy connections are moved.
const SOON: Duration = Duration::from_secs(3);

/// How long it took until busy connections of one of two loops were moved to the other, at most three times [`SOON`], and
/// which part of a processor the process had meanwhile (1 is a whole one).
fn moved_apart() -> (Duration, f64) {
    const EACH: usize = 6;
    let backend = Backend::named("a");
    let balancer = with_loops(2, &backend).start();
    // Those of loop 0 are to be busy, and those of loop 1 idle.
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    while busy.len() < EACH || idle.len() < EACH {
        let before = connections(&balancer, 0);
        let mut conn = Conn::open(balancer.address);
        conn.get("/").expect(200);
        let is_first = connections(&balancer, 0) > before;
        if is_first { busy.push(conn) } else { idle.push(conn) }
    }
    let before = connections(&balancer, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let busy = busy.into_iter().map(|conn| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || ask_much(conn, &stop))
    });
    let busy: Vec<_> = busy.collect();
    let (began, used) = (Instant::now(), balancer.proc.cpu_time());
    while connections(&balancer, 0) + 2 > before && began.elapsed() < 3 * SOON {
        thread::sleep(Duration::from_millis(5));
    }
    let (took, used) = (began.elapsed(), balancer.proc.cpu_time() - used);
    stop.store(true, Ordering::SeqCst);
    for one in busy {
        one.join().expect("all of its requests were answered");
    }
    // The idle connections, which were not moved, are still served.
    for conn in &mut idle {
        conn.get("/").expect(200);
    }
    (took, used.as_secs_f64() / took.as_secs_f64())
}

#[test]
fn busy_connections_of_one_loop_are_moved_apart_within_three_seconds() {
    let _turn = turn();
    // On a machine that is busy with something else the loop hardly runs, and so is not a busy one: that is said and
    // does not fail the test.
    let (mut tries, mut soon) = (Vec::new(), false);
    while !soon && tries.len() < 3 {
        let (took, part) = moved_apart();
        soon = took < SOON;
        tries.push((took, part));
    }
    let starved = tries.iter().all(|(_, part)| *part < 0.6);
    assert!(soon || starved, "{tries:?}");
    if !soon {
        aloud(&format!("not shown: the machine has no time for it: {tries:?}"));
    }
}

/// A balancer that commits the faults that it is asked for; `None`, said aloud, where it was built without that.
fn faulty(setup: Setup) -> Option<Balancer> {
    if !cfg!(debug_assertions) {
        aloud("skipped: only debug builds commit faults");
        return None;
    }
    Some(setup.env("BALANCER_TEST_FAULTS", "1").start())
}

fn ask(to: SocketAddr, target: &str) -> Conn {
    let mut conn = Conn::open(to);
    conn.send(head("GET", target, &[], None));
    conn
}

#[test]
fn a_loop_that_spins_is_named_within_a_second_and_gets_no_new_connections() {
    const TRIES: usize = 3;
    const SPIN: Duration = Duration::from_secs(4);
    let backend = Backend::named("a");
    let Some(balancer) = faulty(with_loops(2, &backend)) else { return };
    let (mut lines, mut tries) = (0, Vec::new());
    // A busy machine may leave no time for it in one try.
    for _ in 0..TRIES {
        let began = Instant::now();
        let mut spins = ask(balancer.address, &format!("/test/spin/{}", SPIN.as_millis()));
        let is_named =
            |line: &str| line.contains("[ERROR]") && line.contains("loop ") && line.contains("is stuck");
        (lines, _) = balancer.proc.wait_err(lines, "it is named", is_named);
        let named = began.elapsed();
        let stuck = value(&balancer, "balancer_loops_stuck");
        assert!(stuck > 0 || began.elapsed() >= SPIN, "it is not counted");
        get(balancer.admin, "/-/livez").expect(200);
        // Those that were served while it was spinning.
        let mut served = Vec::new();
        while served.len() < 40 {
            let mut conn = Conn::open(balancer.address);
            conn.get("/").expect(200);
            if began.elapsed() >= SPIN {
                break;
            }
            served.push(conn);
        }
        spins.read("GET").unwrap().expect(200);
        (lines, _) = balancer.proc.wait_err(lines, "it goes on", |line| line.contains("goes on"));
        until("none is stuck", || (value(&balancer, "balancer_loops_stuck") == 0).then_some(()));
        tries.push((named, served.len()));
        if named < Duration::from_secs(1) && served.len() >= 10 {
            return;
        }
    }
    panic!("named after so long, and so many connections served meanwhile: {tries:?}");
}

#[test]
fn a_panic_costs_its_own_request() {
    let backend = Backend::named("a");
    let Some(balancer) = faulty(with_loops(1, &backend)) else { return };
    let mut others: Vec<Conn> = (0..10).map(|_| Conn::open(balancer.address)).collect();
    others.iter_mut().for_each(|conn| conn.send("GET / HTTP/1.1\r\nHo"));
    for number in 1..=3 {
        let mut conn = ask(balancer.address, "/test/panic");
        let answer = conn.read("GET").unwrap();
        answer.problem(500);
        assert_eq!(answer.field("connection"), Some("close"));
        until("it is counted", || (value(&balancer, "balancer_panics_total") == number).then_some(()));
    }
    for conn in &mut others {
        conn.send("st: a\r\n\r\n");
        conn.read("GET").unwrap().expect(200);
        conn.get("/").expect(200);
    }
    until("nothing is left of them", || {
        (value(&balancer, "balancer_http_requests_in_flight") == 0).then_some(())
    });
}

/// Threads that no request waits for: a panic costs one turn, is counted, and the log names the thread.
#[test]
fn a_thread_that_panics_goes_on() {
    let backend = Backend::named("a");
    let check = json!({ "path": "/", "interval": "100ms", "timeout": "20s", "rise": 1, "fall": 1 });
    let Some(mut balancer) = faulty(with_loops(1, &backend).set("health_check", check)) else { return };
    let mut lines = 0;
    let mut panics = 0;
    let mut panicked = |balancer: &Balancer, thread: &str| {
        let is_named =
            |line: &str| line.contains("[ERROR]") && line.contains(&format!("{thread}: broken off"));
        (lines, _) = balancer.proc.wait_err(lines, "it is named", is_named);
        panics += 1;
        until("it is counted", || (value(balancer, "balancer_panics_total") == panics).then_some(()));
    };
    for _ in 0..2 {
        get(balancer.address, "/test/panic/ticker").expect(200);
        panicked(&balancer, "ticker");
    }
    for _ in 0..2 {
        get(balancer.address, "/test/panic/control").expect(200);
        request(balancer.admin, "POST", "/v1/reload", &[], b"").problem(503);
        panicked(&balancer, "control");
        // It carries out the next one.
        request(balancer.admin, "POST", "/v1/reload", &[], b"").expect(200);
        get(balancer.address, "/").expect(200);
    }
    // And the pool is looked after.
    drop(backend);
    let readyz = || get(balancer.admin, "/readyz").status;
    until("its pool is checked", || (readyz() == 503).then_some(()));
    assert!(balancer.proc.poll().is_none(), "it still runs");
}
