//! What a flood of made-up keys costs clients that are known: a real process on a real PostgreSQL, one client that asks at a
//! steady pace, and beside it one address that sends a new key with every request.
//!
//! `cargo bench --bench flood` starts a throwaway server, measures the known client alone and beside the flood in turns, and
//! prints both 50th and 99th percentiles. The flood runs at a pace of its own, so that what is measured is the look-ups and not
//! a machine without a core left.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, dead_code, unused_imports, unused_macros)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use support::postgres::Postgres;
use support::{Backend, Conn, Setup};

/// `printf alice | sha256sum`, the first half.
const ALICE: &str = "sha256:2bd806c97f0e00af1a1fc3328fa763a9";
/// Keys that are made up in all.
const KEYS: usize = 10_000;
/// Turns with the flood, each after one without.
const TURNS: usize = 10;
/// Requests of the known client in a turn.
const ASKED: usize = 500;
/// Between two requests of the known client.
const PACE: Duration = Duration::from_millis(2);
/// Between two requests of the flood.
const FLOOD_PACE: Duration = Duration::from_micros(500);

fn main() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let setup = Setup::auto().store(&server.database("flood")).backend(backend.address());
    let setup = setup.set("rate_limit.key", json!("header:X-Api-Key"));
    let setup = setup.set("rate_limit.default", json!({ "capacity": 100, "rate_per_sec": 0 }));
    let balancer = setup.set("cache.ttl", json!("1s")).start();
    balancer.limit(ALICE, 1_000_000_000, 0);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let sent = Arc::new(AtomicUsize::new(0));
    let allowed = Arc::new(AtomicUsize::new(0));
    for _ in 0..TURNS {
        alone.extend(ask(balancer.address));
        let stop = Arc::new(AtomicBool::new(false));
        let flood = {
            let (stop, sent, allowed) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&allowed));
            let to = balancer.address;
            thread::spawn(move || flood(to, &stop, &sent, &allowed))
        };
        beside.extend(ask(balancer.address));
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("the flood ends by itself");
    }
    report("alone", alone);
    report("beside the flood", beside);
    println!(
        "{} made-up keys from one address; {} of their requests were let through (its bucket holds 100)",
        sent.load(Ordering::Relaxed),
        allowed.load(Ordering::Relaxed)
    );
}

fn ask(to: SocketAddr) -> Vec<Duration> {
    let mut conn = Conn::from("127.0.0.2".parse().expect("an address"), to);
    let one = |_| {
        thread::sleep(PACE);
        let started = Instant::now();
        assert_eq!(conn.ask("GET", "/", &[("X-Api-Key", "alice")], b"").status, 200);
        started.elapsed()
    };
    (0..ASKED).map(one).collect()
}

fn flood(to: SocketAddr, stop: &AtomicBool, sent: &AtomicUsize, allowed: &AtomicUsize) {
    let mut conn = Conn::open(to);
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= KEYS {
            sent.store(KEYS, Ordering::Relaxed);
            return;
        }
        let key = format!("made-up-{number}");
        if conn.ask("GET", "/", &[("X-Api-Key", &key)], b"").status == 200 {
            allowed.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(FLOOD_PACE);
    }
}

fn report(when: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("a known client {when}: median {:.2} ms, p99 {:.2} ms of {}", at(50), at(99), times.len());
}
