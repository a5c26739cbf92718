//! Requests that leave the line: their client is gone, or the process stops.

use super::*;

each_engine! {
    a_client_that_resets_leaves_the_line_within_a_second,
    a_crowd_that_leaves_at_random_leaves_nothing_behind,
    a_stop_waits_for_the_line,
}

fn a_client_that_resets_leaves_the_line_within_a_second(engine: Engine) {
    if !engine.can(Case::Parking) {
        return;
    }
    let left_after = || {
        let gate = Gate::default();
        let backend = gated(&gate);
        let balancer = narrow(engine, &backend, 1).set("log.access", json!(true)).start();
        let mut held = ask(&balancer, "/held");
        until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
        let gone = queue(&balancer, "/gone", 0);
        let mut stays = queue(&balancer, "/stays", 1);
        let began = Instant::now();
        gone.reset();
        until("it has left", || (waiting(&balancer) == 1.0).then_some(()));
        let left_after = began.elapsed();
        let line = balancer.proc.wait_out("/gone");
        assert!(line.contains("\"status\":499"), "{line}");
        gate.open();
        held.read("GET").unwrap().expect(200);
        assert_eq!(stays.read("GET").unwrap().expect(200).text(), "/stays");
        assert!(backend.seen().iter().all(|seen| !seen.request_line().contains("gone")));
        left_after
    };
    // A machine that is busy with something else may take longer, but not every time.
    assert!((0..5).any(|_| left_after() < Duration::from_secs(1)));
}

/// Resets at any moment, in line or at a backend, time-outs and pipelined requests: afterwards every count is 0, and
/// there is as much room as before.
fn a_crowd_that_leaves_at_random_leaves_nothing_behind(engine: Engine) {
    if !engine.can(Case::Parking) {
        return;
    }
    let slow = |name: &'static str| {
        Backend::scripted(move |_, stream| {
            thread::sleep(Duration::from_millis(3));
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}");
            Then::Keep
        })
    };
    let backends = ["a", "b"].map(slow);
    let mut setup = Setup::on(engine).workers(8);
    for backend in &backends {
        setup = setup.backend_with(json!({ "url": backend.url(), "max_in_flight": 2 }));
    }
    let balancer = setup
        .set("balancing.queue_timeout", json!("60ms"))
        .set("balancing.queue_size", json!(40))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let address = balancer.address;
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..48u64 {
            let (served, refused) = (&served, &refused);
            scope.spawn(move || {
                for round in 0..30 {
                    let mut conn = Conn::open(address);
                    let request = head("GET", "/", &[], None);
                    let pipelined = (client + round) % 5 == 0;
                    conn.send(if pipelined { request.repeat(3) } else { request });
                    if (client * 7 + round) % 3 == 0 {
                        thread::sleep(Duration::from_millis((client + round * 11) % 40));
                        conn.reset();
                        continue;
                    }
                    for _ in 0..if pipelined { 3 } else { 1 } {
                        match conn.read("GET").expect("an answer").status {
                            200 => served.fetch_add(1, Ordering::SeqCst),
                            503 => refused.fetch_add(1, Ordering::SeqCst),
                            other => panic!("{other}"),
                        };
                    }
                }
            });
        }
    });
    assert!(
        served.load(Ordering::SeqCst) > 0 && refused.load(Ordering::SeqCst) > 0,
        "{served:?} {refused:?}"
    );
    until("nobody waits and nothing is under way", || {
        let parked = value(&balancer, "balancer_connections{state=\"parked\"}");
        let at_work = ["a", "b"].map(|name| {
            value(&balancer, &format!("balancer_backend_in_flight{{pool=\"default\",backend=\"{name}\"}}"))
        });
        let all = value(&balancer, "balancer_http_requests_in_flight");
        (waiting(&balancer) == 0.0 && parked == 0.0 && at_work == [0.0, 0.0] && all == 0.0).then_some(())
    });
    for _ in 0..20 {
        balancer.get("/").expect(200);
    }
    assert_eq!(waiting(&balancer), 0.0);
}

/// After a stop, requests in line still have their turn, and each connection is closed behind its answer.
fn a_stop_waits_for_the_line(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let mut balancer = narrow(engine, &backend, 1).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let mut waits = queue(&balancer, "/waits", 0);
    balancer.proc.signal(rustix::process::Signal::TERM);
    until("it accepts no more", || {
        Conn::try_from("127.0.0.1".parse().unwrap(), balancer.address).is_err().then_some(())
    });
    gate.open();
    held.read("GET").unwrap().expect(200);
    assert_eq!(waits.read("GET").unwrap().expect(200).text(), "/waits");
    assert!(matches!(waits.wait_closed().1, Fault::Closed));
    assert!(balancer.proc.wait().success());
}
