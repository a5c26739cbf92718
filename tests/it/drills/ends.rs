//! The process itself is told to end under load, or has no descriptor left.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::traffic::{Traffic, others};
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Fault, PATIENCE, Setup, get, until};

each_engine! {
    sigterm_under_load_costs_no_request,
    descriptors_run_out_and_come_back,
}

/// Whoever is connected is answered, whole, and told that the connection ends; whoever comes later is refused.
fn sigterm_under_load_costs_no_request(engine: Engine) {
    let slow = Backend::scripted(|_, stream| {
        use std::io::Write;
        std::thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(crate::support::backend::OK);
        crate::support::Then::Keep
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
    let backend = Backend::named("a");
    let mut balancer = Setup::on(engine)
        .backend(backend.address())
        .workers(16)
        .set("frontend.max_connections_per_ip", json!(1000))
        .open_files(FILES)
        .start();
    for _ in 0..2 {
        get(balancer.address, "/").expect(200);
        let mut held: Vec<Conn> = (0..2 * FILES).map(|_| Conn::open(balancer.address)).collect();
        until("every descriptor is taken", || (balancer.proc.files() + 1 >= FILES).then_some(()));
        let mut waiting = Conn::open(balancer.address);
        waiting.send(crate::support::client::head("GET", "/", &[], None));
        waiting.wait_at_most(Duration::from_millis(300));
        assert_eq!(waiting.read("GET").unwrap_err(), Fault::TimedOut, "not served, and not refused");
        held.drain(..).for_each(Conn::reset);
        let began = Instant::now();
        waiting.wait_at_most(PATIENCE);
        waiting.read("GET").unwrap().expect(200);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        for _ in 0..20 {
            get(balancer.address, "/").expect(200);
        }
    }
    assert!(balancer.proc.poll().is_none(), "the same process all the time");
}
