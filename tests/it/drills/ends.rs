//! The process is told to end under load, or runs out of descriptors.

use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::traffic::{Traffic, others};
use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Gate, PATIENCE, Setup, Then, get, until};

each_engine! {
    sigterm_under_load_costs_no_request,
    descriptors_run_out_and_come_back,
}

/// A connected client gets a whole answer and is told that the connection ends; one that comes later is refused.
fn sigterm_under_load_costs_no_request(engine: Engine) {
    let slow = Backend::scripted(|_, stream| {
        std::thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let quick = Backend::named("quick");
    for round in 0..3 {
        let mut balancer =
            Setup::on(engine).backend(slow.address()).backend(quick.address()).workers(32).start();
        let traffic = Traffic::start(balancer.address, engine);
        traffic.goes_on(200);
        let before = traffic.done();
        balancer.proc.signal(Signal::TERM);
        let status = balancer.proc.wait();
        assert_eq!(status.code(), Some(0), "{}", balancer.proc.story());
        assert!(traffic.done() > before, "it was under load");
        let (mut tally, slowest) = traffic.finish();
        assert!(tally.remove("refused").is_some(), "nobody listens any more: {tally:?}");
        // At most each client once: connected at the very moment at which the listener ended.
        assert!(tally.remove("turned away").unwrap_or(0) <= 8, "{tally:?}");
        // Connections that the crate keeps to itself end with the process: one request of each client at most.
        let most = if engine.can(Case::Ending) { 0 } else { 8 };
        assert!(others(&tally, "200") <= most, "round {round}: {tally:?}\n{}", balancer.proc.story());
        assert!(slowest < PATIENCE / 2, "{slowest:?}");
    }
}

fn descriptors_run_out_and_come_back(engine: Engine) {
    const FILES: usize = 120;
    if !engine.can(Case::Descriptors) {
        return;
    }
    // Clients' connections alone can't use them up, but each needs one more to the backend.
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |seen, stream| {
        if seen.request_line().contains("/wait") {
            opened.wait();
        }
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let mut balancer = Setup::on(engine)
        .backend(backend.address())
        .set("frontend.max_connections_per_ip", json!(1000))
        .open_files(FILES)
        .start();
    let ask = |target| {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("GET", target, &[], None));
        conn
    };
    get(balancer.address, "/").expect(200);
    let mut held: Vec<Conn> = Vec::new();
    until("every descriptor is taken", || {
        if held.len() < FILES / 2 {
            held.push(ask("/wait"));
        }
        (balancer.proc.files() >= FILES).then_some(())
    });
    let mut late = ask("/");
    // The answers come: every request is answered or was refused by us.
    gate.open();
    let statuses: Vec<u16> = held.iter_mut().map(|conn| conn.read("GET").unwrap().status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= FILES / 4 && statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!([200, 503].contains(&late.read("GET").unwrap().status), "served, or told");
    for _ in 0..20 {
        get(balancer.address, "/").expect(200);
    }
    assert!(balancer.proc.poll().is_none(), "the same process all the time");
}
