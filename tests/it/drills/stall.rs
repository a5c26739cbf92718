//! A fast backend that stalls all of a sudden.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{setup, turn};
use crate::support::{Backend, Conn, Gate, Then, until};

const WORKERS: usize = 64;
/// What one of several backends may hold of them.
const SHARE: usize = WORKERS * 3 / 4;
const CLIENTS: usize = 96;
const STALL: Duration = Duration::from_secs(5);
/// What an answer takes at most that has nothing to wait for, on a machine that is busy with other tests.
const QUICK: Duration = Duration::from_secs(2);

/// Answers with its name; from `stalled` on only when `gate` is open.
fn backend(
    name: &'static str,
    stalled: &Arc<AtomicBool>,
    waiting: &Arc<AtomicUsize>,
    gate: &Gate,
) -> Backend {
    let (stalled, waiting, gate) = (Arc::clone(stalled), Arc::clone(waiting), gate.clone());
    Backend::scripted(move |_, stream| {
        if stalled.load(Ordering::SeqCst) {
            waiting.fetch_add(1, Ordering::SeqCst);
            gate.wait();
        }
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        Then::Keep
    })
}

struct Answered {
    by: String,
    began: Instant,
    took: Duration,
}

/// Asks one request after the other until told to stop.
fn ask(to: SocketAddr, stop: &AtomicBool, answered: &Mutex<Vec<Answered>>) {
    let mut conn = Conn::open(to);
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let by = conn.get("/").expect(200).text();
        let one = Answered { by, began, took: began.elapsed() };
        answered.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
}

#[test]
fn a_backend_that_stalls_takes_no_traffic_of_the_others_with_it() {
    let _turn = turn();
    let (stalled, waiting, gate) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Gate::default());
    let never = Arc::<AtomicBool>::default();
    let (stalls, other) =
        (backend("stalls", &stalled, &waiting, &gate), backend("other", &never, &waiting, &gate));
    let balancer = setup(WORKERS as u32)
        .backend(stalls.address())
        .backend(other.address())
        // Unlike the default, it would go on sending half of all requests to the one that stalls.
        .set("balancing.strategy", json!("round_robin"))
        .start();
    let (stop, answered) = (AtomicBool::new(false), Mutex::<Vec<Answered>>::default());
    let count = |by: &str| {
        let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.iter().filter(|one| one.by == by).count()
    };
    let (from, to) = std::thread::scope(|scope| {
        // A failed assertion in here must not leave the clients running.
        let stopped = StopOnDrop(&stop, &gate);
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| ask(balancer.address, &stop, &answered))).collect();
        until("both serve", || (count("stalls") > 200 && count("other") > 200).then_some(()));
        stalled.store(true, Ordering::SeqCst);
        until("as many wait for it as may", || (waiting.load(Ordering::SeqCst) >= SHARE).then_some(()));
        let from = Instant::now();
        until("it has stalled for long enough", || (from.elapsed() >= STALL).then_some(()));
        assert_eq!(waiting.load(Ordering::SeqCst), SHARE, "no more than its share wait for it");
        let to = Instant::now();
        drop(stopped);
        clients.into_iter().for_each(|client| client.join().expect("every answer is a 200"));
        (from, to)
    });
    let answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    let meanwhile: Vec<_> = answered.iter().filter(|one| one.began > from && one.began < to).collect();
    let slow: Vec<_> = meanwhile.iter().filter(|one| one.took > QUICK).map(|one| one.took).collect();
    assert!(meanwhile.len() > 500, "{} answers in {STALL:?}", meanwhile.len());
    // One that began at the very end may have got a place that came free.
    let ended = |one: &&&Answered| one.began + one.took < to;
    assert!(meanwhile.iter().filter(ended).all(|one| one.by == "other"), "the one that stalls answered");
    assert!(slow.is_empty(), "of {} answers meanwhile these were slow: {slow:?}", meanwhile.len());
    let late = answered.iter().filter(|one| one.by == "stalls" && one.took >= STALL).count();
    assert_eq!(late, SHARE, "those that waited were answered in the end");
}

/// Lets everything go on to its end.
struct StopOnDrop<'a>(&'a AtomicBool, &'a Gate);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.open();
    }
}
