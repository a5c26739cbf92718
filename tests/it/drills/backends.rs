//! One of three backends fails, in every way in which backends fail, while clients send without a pause. Requests that
//! another backend can answer are answered by another backend.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::traffic::{Tally, Traffic, others};
use crate::support::balancer::Echo;
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Gate, Setup, Then, request, until};

each_engine! {
    one_that_is_killed,
    one_that_is_paused,
    one_that_accepts_and_never_answers,
    one_that_answers_garbage,
    one_that_resets_in_mid_body,
    one_that_closes_kept_connections_at_random,
    one_that_answers_500_in_bursts,
    one_that_resets_before_its_answer,
}

/// How long a backend may take. A good one must not take as long on a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Three backends, the first of which will fail. Requests that timed out are sent again, and a backend that was ejected
/// comes back soon.
fn setup(engine: Engine, backends: [SocketAddr; 3]) -> Setup {
    let setup = Setup::on(engine)
        .set("admin.listen", json!("127.0.0.1:0"))
        .workers(32)
        .set("upstream.response_timeout", json!(format!("{RESPONSE_TIMEOUT:?}")))
        .set("upstream.retry_on", json!(["connect", "reset", "timeout"]))
        .set("outlier", json!({ "base_time": "300ms" }));
    backends.into_iter().fold(setup, Setup::backend)
}

/// Answers of backend `a`, whether they were passed on or the request was sent again.
fn of_a(balancer: &Balancer, code: &str) -> usize {
    let series = format!("balancer_backend_requests_total{{pool=\"default\",backend=\"a\",code=\"{code}\"}}");
    balancer.metric(&series) as usize
}

/// How often requests were sent again for that reason.
fn sent_again(balancer: &Balancer, reason: &str) -> usize {
    let series = format!("balancer_backend_retries_total{{pool=\"default\",reason=\"{reason}\"}}");
    balancer.series(&series) as usize
}

/// How often backend `a` was ejected.
fn ejections(balancer: &Balancer) -> f64 {
    balancer.series("balancer_backend_ejections_total{pool=\"default\",backend=\"a\"}")
}

#[track_caller]
fn nothing_was_lost(tally: &Tally, balancer: &Balancer) {
    assert_eq!(others(tally, "200"), 0, "{tally:?}\n{}", balancer.proc.story());
}

/// The letter in `/proc/PID/stat` for the state of a process.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn one_that_is_killed(engine: Engine) {
    let [mut a, b, c] = [(); 3].map(|()| Echo::start(&[]));
    let balancer = setup(engine, [a.address, b.address, c.address]).start();
    let traffic = Traffic::start(balancer.address, engine);
    until("it is at work", || (of_a(&balancer, "200") > 50).then_some(()));
    a.proc.kill();
    assert_eq!(process_state(a.proc.pid()), None, "it is gone");
    traffic.goes_on(500);
    until("somebody was sent there in vain", || (of_a(&balancer, "error") > 0).then_some(()));
    traffic.goes_on(500);
    let (tally, _) = traffic.finish();
    nothing_was_lost(&tally, &balancer);
}

fn one_that_is_paused(engine: Engine) {
    let [a, b, c] = [(); 3].map(|()| Echo::start(&[]));
    let balancer = setup(engine, [a.address, b.address, c.address]).start();
    let traffic = Traffic::start(balancer.address, engine);
    until("it is at work", || (of_a(&balancer, "200") > 50).then_some(()));
    a.proc.signal(Signal::STOP);
    until("it is stopped", || (process_state(a.proc.pid()) == Some('T')).then_some(()));
    until("somebody waited there in vain", || (of_a(&balancer, "error") > 0).then_some(()));
    traffic.goes_on(500);
    assert_eq!(process_state(a.proc.pid()), Some('T'));
    let before = of_a(&balancer, "200");
    a.proc.signal(Signal::CONT);
    until("it is back at work", || (of_a(&balancer, "200") > before + 50).then_some(()));
    let (tally, slowest) = traffic.finish();
    nothing_was_lost(&tally, &balancer);
    assert!(slowest >= RESPONSE_TIMEOUT, "somebody waited for it: {slowest:?}");
}

/// A backend that fails in its way for as long as its gate is closed, and counts how often. Its answers are its name.
fn failing(
    gate: &Gate,
    fails: impl Fn(usize, &mut std::net::TcpStream) -> Then + Send + Sync + 'static,
) -> (Backend, Arc<AtomicUsize>) {
    let failures = Arc::new(AtomicUsize::new(0));
    let (gate, count) = (gate.clone(), Arc::clone(&failures));
    let backend = Backend::scripted(move |_, stream| {
        if !gate.is_open() {
            return fails(count.fetch_add(1, Ordering::SeqCst), stream);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
        Then::Keep
    });
    (backend, failures)
}

/// The course of each failure that no client may notice: it happens at least `least` times, no request is lost, and
/// when it ends the backend comes back.
fn unnoticed(
    engine: Engine,
    least: usize,
    change: impl FnOnce(Setup) -> Setup,
    fails: impl Fn(usize, &mut std::net::TcpStream) -> Then + Send + Sync + 'static,
) -> (Balancer, usize) {
    let gate = Gate::default();
    let (a, failures) = failing(&gate, fails);
    let [b, c] = ["b", "c"].map(Backend::named);
    let balancer = change(setup(engine, [a.address(), b.address(), c.address()])).start();
    let traffic = Traffic::start(balancer.address, engine);
    until("it failed", || (failures.load(Ordering::SeqCst) >= least).then_some(()));
    traffic.goes_on(500);
    gate.open();
    until("it is back at work", || (of_a(&balancer, "200") > 20).then_some(()));
    let (tally, _) = traffic.finish();
    nothing_was_lost(&tally, &balancer);
    (balancer, failures.load(Ordering::SeqCst))
}

fn one_that_accepts_and_never_answers(engine: Engine) {
    let (balancer, _) = unnoticed(engine, 5, |setup| setup, |_, _| Then::Hang);
    let again = sent_again(&balancer, "timeout");
    assert!(again >= 5, "{again}");
}

fn one_that_answers_garbage(engine: Engine) {
    const GARBAGE: [&[u8]; 4] = [
        b"\0\xff garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
    ];
    let (balancer, _) = unnoticed(
        engine,
        8,
        |setup| setup,
        |number, stream| {
            let _ = stream.write_all(GARBAGE[number % GARBAGE.len()]);
            Then::Close
        },
    );
    assert!(ejections(&balancer) >= 1.0);
    // A request that must not be sent twice is answered 502, and only that.
    let backend = Backend::saying(GARBAGE[0], Then::Close);
    let good = Backend::named("good");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .backend(good.address())
        .set("balancing.strategy", json!("first"))
        .start();
    request(balancer.address, "POST", "/", &[], b"order").problem(502);
    assert_eq!(good.seen().len(), 0);
}

fn one_that_resets_before_its_answer(engine: Engine) {
    unnoticed(engine, 8, |setup| setup, |_, _| Then::Reset);
}

fn one_that_answers_500_in_bursts(engine: Engine) {
    let bursts = |setup: Setup| {
        setup.set("upstream.retry_on", json!(["connect", "reset", "500-599"])).set("outlier", json!(null))
    };
    let (balancer, failures) = unnoticed(engine, 200, bursts, |number, stream| {
        // Ten bad ones, ten good ones.
        let bad = number / 10 % 2 == 0;
        let line = if bad { "500 Internal Server Error" } else { "200 OK" };
        let _ = write!(stream, "HTTP/1.1 {line}\r\nContent-Length: 1\r\n\r\na");
        Then::Keep
    });
    let again = sent_again(&balancer, "status");
    assert!(again >= failures / 20 * 10, "half of {failures} were 500, {again} were sent again");
}

fn one_that_closes_kept_connections_at_random(engine: Engine) {
    // Right behind an answer or some milliseconds later, by a close or by a reset.
    let (balancer, _) = unnoticed(
        engine,
        200,
        |setup| setup,
        |number, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
            match number * 7 % 11 {
                0 => Then::Close,
                1 => Then::Reset,
                2 => {
                    let Ok(later) = stream.try_clone() else { return Then::Close };
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(number as u64 % 20));
                        let _ = later.shutdown(std::net::Shutdown::Both);
                    });
                    Then::Keep
                }
                _ => Then::Keep,
            }
        },
    );
    assert_eq!(ejections(&balancer), 0.0, "that is no failure");
}

/// An answer that has begun can't be sent again: its client sees that it was cut off, and no other client sees
/// anything.
fn one_that_resets_in_mid_body(engine: Engine) {
    let gate = Gate::default();
    // Long enough that no engine reads it whole before it sends the head.
    const LENGTH: usize = 200_000;
    let (a, failures) = failing(&gate, |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; LENGTH / 2]);
        Then::Reset
    });
    let [b, c] = ["b", "c"].map(Backend::named);
    let balancer = setup(engine, [a.address(), b.address(), c.address()]).start();
    let traffic = Traffic::start(balancer.address, engine);
    until("it has cut", || (failures.load(Ordering::SeqCst) >= 20).then_some(()));
    gate.open();
    traffic.goes_on(200);
    let (tally, _) = traffic.finish();
    let cuts = failures.load(Ordering::SeqCst);
    assert_eq!(tally.get("truncated").copied().unwrap_or(0), cuts, "each is seen, {tally:?}");
    assert_eq!(others(&tally, "200"), cuts, "and nothing else: {tally:?}");
    Conn::open(balancer.address).get("/").expect(200);
}
