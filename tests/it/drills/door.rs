//! Nobody at the door, and no descriptors left.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::farm::Farm;
use super::traffic::Traffic;
use super::{is_open, setup, turn};
use crate::support::backend::OK;
use crate::support::client::head;
use crate::support::{Backend, Conn, Engine, Fault, Then, get, until};

/// A request whose answer is still to come.
fn ask(to: std::net::SocketAddr, target: &str) -> Conn {
    let mut conn = Conn::open(to);
    conn.send(head("GET", target, &[], None));
    conn
}

#[test]
fn with_every_worker_at_a_hung_backend_the_door_is_still_answered() {
    const WORKERS: usize = 64;
    let _turn = turn();
    let farm = Farm::start();
    let balancer = setup(WORKERS as u32)
        .backend(farm.address())
        .set("frontend.worker_wait", json!("500ms"))
        .set("frontend.head_timeout", json!("1s"))
        .set("upstream.response_timeout", json!("6s"))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let mut kept = Conn::open(balancer.address);
    kept.get("/ok").expect(200);
    let began = Instant::now();
    let mut hung: Vec<Conn> = (0..WORKERS).map(|_| ask(balancer.address, "/hang")).collect();
    until("every worker waits for the backend", || (farm.hanging() == WORKERS).then_some(()));

    // Everybody who comes now is told to come again: on a new connection, and on a kept one.
    let mut slow = Conn::open(balancer.address);
    slow.send("GET /ok HT");
    // The backend may have the last request a moment before we have put it away and counted it: then one more is let in.
    let refused = until("the door is shut", || {
        Some(get(balancer.address, "/ok")).filter(|answer| answer.status != 200)
    });
    refused.problem(503);
    let before = farm.requests();
    assert!(refused.field("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()), "{refused:?}");
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "they are given worker_wait: {:?}",
        began.elapsed()
    );
    kept.get("/ok").problem(503);
    let mut upload = Conn::open(balancer.address);
    upload.ask("POST", "/sink", &[], &[b'x'; 100_000]).problem(503);
    get(balancer.address, "/-/livez").expect(200);
    get(balancer.admin, "/-/livez").expect(200);
    get(balancer.admin, "/limits").expect(200);
    balancer.limit("192.0.2.1", 1, 1);
    // And deadlines fire: a head's, then the backend's.
    slow.read("GET").unwrap().problem(408);
    assert_eq!(farm.hanging(), WORKERS, "all of that while every worker was waiting");
    assert_eq!(farm.requests(), before, "none of that reached the backend");
    for conn in &mut hung {
        conn.read("GET").unwrap().problem(504);
    }
    assert!(began.elapsed() >= Duration::from_secs(6), "response_timeout: {:?}", began.elapsed());
    until("the backend's connections were given up", || (farm.hanging() == 0).then_some(()));
    assert_eq!(farm.cut().len(), WORKERS);
    // The workers are back.
    for _ in 0..WORKERS {
        get(balancer.address, "/ok").expect(200);
    }
}

#[test]
fn a_slow_backend_that_answers_is_given_more_requests_than_there_are_workers() {
    const WORKERS: usize = 2;
    let (at_it, most, hangs) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (now, seen, stuck) = (at_it.clone(), most.clone(), hangs.clone());
    let backend = Backend::scripted(move |_, stream| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        until("it goes on", || (!stuck.load(Ordering::SeqCst)).then_some(()));
        now.fetch_sub(1, Ordering::SeqCst);
        let _ = stream.write_all(OK);
        Then::Keep
    });
    let balancer = setup(WORKERS as u32)
        .backend(backend.address())
        .set("frontend.worker_wait", json!("1s"))
        .set("upstream.response_timeout", json!("60s"))
        .start();
    let traffic = Traffic::start(balancer.address, Engine::Epoll);
    until("all eight clients are at the backend", || (most.load(Ordering::SeqCst) >= 8).then_some(()));

    // From now on nothing comes back, and whoever is not there yet is told so.
    hangs.store(true, Ordering::SeqCst);
    until("the door is shut", || {
        let mut conn = ask(balancer.address, "/");
        conn.wait_at_most(Duration::from_secs(3));
        conn.read("GET").ok().filter(|answer| answer.status == 503)
    });
    hangs.store(false, Ordering::SeqCst);
    traffic.goes_on(50);
    let (tally, _) = traffic.finish();
    assert!(tally.keys().all(|what| what == "200" || what == "503"), "{tally:?}");
    assert!(tally["200"] > 8, "{tally:?}");
}

#[test]
fn without_descriptors_accepting_pauses_and_recovers_by_itself() {
    const FILES: usize = 120;
    let farm = Farm::start();
    let mut balancer =
        setup(8).backend(farm.address()).set("admin.listen", json!("127.0.0.1:0")).open_files(FILES).start();
    let mut lines = 0;
    for round in 0..2 {
        get(balancer.address, "/ok").expect(200);
        // They say nothing, so none of them may be closed to make room for another.
        let mut held: Vec<Conn> = (0..2 * FILES).map(|_| Conn::open(balancer.address)).collect();
        until("every descriptor is taken", || (balancer.proc.files() >= FILES).then_some(()));
        if round == 0 {
            let said =
                |line: &str| line.contains("no new connections for now") && line.contains("open files");
            (lines, _) = balancer.proc.wait_err(lines, "the operator is told", said);
        }
        // Nobody more gets in: not served, and not refused.
        let mut waiting = ask(balancer.address, "/ok");
        waiting.wait_at_most(Duration::from_millis(300));
        assert_eq!(waiting.read("GET").unwrap_err(), Fault::TimedOut);
        assert!(balancer.proc.files() >= FILES, "{} files", balancer.proc.files());
        held.drain(..).for_each(Conn::reset);
        waiting.wait_at_most(crate::support::PATIENCE);
        waiting.read("GET").unwrap().expect(200);
        for _ in 0..20 {
            get(balancer.address, "/ok").expect(200);
        }
        get(balancer.admin, "/-/livez").expect(200);
    }
    assert!(balancer.proc.poll().is_none(), "the same process all the time");
}

#[test]
fn with_no_descriptor_left_a_kept_client_makes_room_for_a_new_one() {
    const FILES: usize = 120;
    let farm = Farm::start();
    let balancer = setup(8).backend(farm.address()).open_files(FILES).start();
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut kept = Vec::new();
    for number in 0..3 * FILES {
        let mut conn = Conn::try_from(from, balancer.address).expect("the kernel accepts");
        let answer = conn.get("/-/livez");
        assert_eq!(answer.status, 200, "connection {number}");
        kept.push(conn);
    }
    assert!(balancer.proc.err().contains("no new connections for now"), "{}", balancer.proc.story());
    let closed = kept.iter_mut().map(is_open).filter(|open| !open).count();
    assert!(closed >= 2 * FILES, "{closed} of {} kept connections were closed", kept.len());
}
