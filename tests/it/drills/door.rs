//! Connections that send nothing keep no client out; and running out of descriptors counts as no backend's failure.

use std::time::Duration;

use serde_json::json;

use super::farm::Farm;
use super::{is_open, setup};
use crate::support::client::head;
use crate::support::{Balancer, Conn, Fault, PATIENCE, get, until};

/// How many files the process may have open: half of them for clients.
const FILES: usize = 120;

/// A request whose answer is still to come.
fn ask(balancer: &Balancer, target: &str) -> Conn {
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", target, &[], None));
    conn
}

#[test]
fn silent_connections_never_use_the_descriptors_up() {
    let farm = Farm::start();
    let balancer = setup()
        .backend(farm.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        // Silent connections would end by it.
        .set("frontend.head_timeout", json!("5m"))
        .open_files(FILES)
        .start();
    balancer.proc.wait_err(0, "fewer are taken", |line| {
        line.contains("120 open files are allowed") && line.contains("60 connections are taken at most")
    });
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.extend((0..2 * FILES).map(|_| Conn::open(balancer.address)));
        // One more client is served at once, whether its head comes in pieces or whole, and so are those behind it.
        let mut slow = Conn::open(balancer.address);
        slow.send("GET /ok HTTP/1.1\r\nHo");
        for _ in 0..20 {
            get(balancer.address, "/ok").expect(200);
        }
        slow.send("st: a\r\n\r\n");
        slow.read("GET").unwrap().expect(200);
        get(balancer.admin, "/-/livez").expect(200);
    }
    let open = silent.iter_mut().map(is_open).filter(|open| *open).count();
    assert!(open <= FILES / 2, "{open} are open");
    let err = balancer.proc.err();
    assert!(!err.contains("no new connections for now"), "{err}");
}

#[test]
fn a_kept_client_makes_room_for_a_new_one() {
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).open_files(FILES).start();
    let mut kept = Vec::new();
    for number in 0..3 * FILES {
        let mut conn = Conn::open(balancer.address);
        let answer = conn.get("/ok");
        assert_eq!(answer.status, 200, "connection {number}");
        kept.push(conn);
    }
    let closed = kept.iter_mut().map(is_open).filter(|open| !open).count();
    assert!(closed >= kept.len() - FILES / 2, "{closed} of {} kept connections were closed", kept.len());
    assert!(!balancer.proc.err().contains("no new connections for now"), "{}", balancer.proc.story());
}

/// Each request that waits for its backend has two descriptors, so that clients within their bound use all up.
#[test]
fn without_descriptors_no_backend_is_blamed_and_accepting_goes_on_by_itself() {
    let farm = Farm::start();
    let mut balancer = setup()
        .backend(farm.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("outlier", json!({ "consecutive": 1 }))
        .open_files(FILES)
        .start();
    for _ in 0..2 {
        get(balancer.address, "/ok").expect(200);
        // In the middle of their heads these are neither silent nor idle.
        let begin = || {
            let mut conn = Conn::open(balancer.address);
            conn.send("GET /ok HTTP/1.1\r\nHo");
            conn
        };
        let mut open: Vec<Conn> = (0..4).map(|_| begin()).collect();
        let mut hung = Vec::new();
        while balancer.proc.files() + 8 < FILES {
            hung.push(ask(&balancer, "/hang"));
            until("it is at the backend", || (farm.hanging() == hung.len()).then_some(()));
        }
        let mut others = Vec::new();
        until("every descriptor is taken", || {
            others.push(begin());
            (balancer.proc.files() >= FILES).then_some(())
        });
        // Takes descriptors that were freed since.
        others.extend((0..4).map(|_| begin()));
        // The line comes once in ten seconds at most.
        balancer.proc.wait_err(0, "the operator is told", |line| {
            line.contains("no new connections for now") && line.contains("open files")
        });
        // No further client gets in: it is neither served nor refused.
        let mut waiting = ask(&balancer, "/ok");
        waiting.wait_at_most(Duration::from_millis(300));
        assert_eq!(waiting.read("GET").unwrap_err(), Fault::TimedOut);
        assert!(balancer.proc.files() + 4 >= FILES, "{} files", balancer.proc.files());
        // A client that is in already is served, or told that the fault is ours.
        let served_or_told = |conn: &mut Conn| {
            let answer = conn.read("GET").unwrap();
            if answer.status != 200 {
                answer.problem(503);
                assert!(answer.field("retry-after").is_some(), "{answer:?}");
            }
        };
        for conn in &mut open {
            conn.send("st: a\r\n\r\n");
            served_or_told(conn);
        }
        hung.into_iter().chain(others).for_each(Conn::reset);
        waiting.wait_at_most(PATIENCE);
        served_or_told(&mut waiting);
        for _ in 0..20 {
            get(balancer.address, "/ok").expect(200);
        }
    }
    let metrics = get(balancer.admin, "/metrics").expect(200).text();
    for series in [
        "balancer_backend_up{pool=\"default\",backend=\"a\"} 1\n",
        "balancer_backend_ejections_total{pool=\"default\",backend=\"a\"} 0\n",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    let err = balancer.proc.err();
    assert!(!err.contains("is down") && !err.contains("is ejected"), "{err}");
    assert!(balancer.proc.poll().is_none(), "the same process all the time");
}
