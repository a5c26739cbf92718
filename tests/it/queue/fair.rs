//! Several clients, and too few places for all of them.

use super::*;

each_engine! {
    who_has_had_the_least_goes_next,
    a_full_line_refuses_who_has_the_most_in_it,
    who_always_has_others_waiting_is_refused_after_queue_target,
    who_is_sent_again_keeps_its_place,
    who_cannot_use_a_place_is_passed_over,
    another_order_holds_for_who_waits,
    made_up_clients_take_no_room,
}

const GREEDY: &str = "127.0.0.2";
const MODEST: &str = "127.0.0.3";

pub(super) fn ask_from(balancer: &Balancer, source: &str, target: &str) -> Conn {
    let mut conn = Conn::from(source.parse().unwrap(), balancer.address);
    conn.send(head("GET", target, &[], None));
    conn
}

/// Asks, and waits until so many are in line.
pub(super) fn queue_from(balancer: &Balancer, source: &str, target: &str, count: usize) -> Conn {
    let conn = ask_from(balancer, source, target);
    until("it waits", || (waiting(balancer) == count as f64).then_some(()));
    conn
}

/// One client, the greedy one, has the only place and three requests in line. Behind them another client, the modest
/// one, has one.
fn greedy_and_modest(balancer: &Balancer, backend: &Backend) -> Vec<Conn> {
    let mut conns = vec![ask_from(balancer, GREEDY, "/held")];
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    conns.extend((0..3).map(|at| queue_from(balancer, GREEDY, &format!("/g{at}"), at + 1)));
    conns.push(queue_from(balancer, MODEST, "/m", 4));
    // Until the greedy one has had more of the place than a new client is counted to have had.
    let since = oldest(balancer);
    until("the greedy one has had its part", || (oldest(balancer) > since + 0.2).then_some(()));
    conns
}

/// Seconds that the oldest request in line has waited.
fn oldest(balancer: &Balancer) -> f64 {
    let pool = balancer.api("GET", "/v1/pools/default", &Value::Null).expect(200).json();
    pool["line"]["oldest"].as_f64().expect("somebody waits")
}

/// The targets that a backend saw, in order, after every client was answered.
fn served(gate: &Gate, backend: &Backend, conns: &mut [Conn]) -> Vec<String> {
    gate.open();
    for conn in conns {
        conn.read("GET").unwrap().expect(200);
    }
    let target = |line: String| line.split(' ').nth(1).unwrap_or_default().to_owned();
    backend.seen().iter().map(|seen| target(seen.request_line())).collect()
}

fn who_has_had_the_least_goes_next(engine: Engine) {
    for (order, expected) in
        [("fair", ["/held", "/m", "/g0", "/g1", "/g2"]), ("fifo", ["/held", "/g0", "/g1", "/g2", "/m"])]
    {
        assert_eq!(who_went_next(engine, order), expected, "{order}");
    }
}

fn who_went_next(engine: Engine, order: &str) -> Vec<String> {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1).set("balancing.queue_order", json!(order)).start();
    let mut conns = greedy_and_modest(&balancer, &backend);
    let clients = if order == "fair" { 2.0 } else { 1.0 };
    assert_eq!(value(&balancer, "balancer_queue_clients{pool=\"default\"}"), clients);
    let line = &balancer.api("GET", "/v1/pools/default", &Value::Null).expect(200).json()["line"];
    assert_eq!(line["order"], order);
    assert!(line["oldest"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    let first = &line["busiest"][0];
    let in_flight = if order == "fair" { json!(1) } else { Value::Null };
    assert_eq!((&first["client_id"], &first["waiting"]), (&json!(GREEDY), &json!(3)), "{line}");
    assert_eq!((&first["priority"], &first["in_flight"]), (&json!("normal"), &in_flight), "{line}");
    let order = served(&gate, &backend, &mut conns);
    until("nobody waits", || {
        (value(&balancer, "balancer_queue_clients{pool=\"default\"}") == 0.0).then_some(())
    });
    order
}

fn a_full_line_refuses_who_has_the_most_in_it(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1)
        .set("balancing.queue_size", json!(3))
        .set("log.access", json!(true))
        .start();
    let mut held = ask_from(&balancer, GREEDY, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let mut greedy: Vec<_> =
        (0..3).map(|at| queue_from(&balancer, GREEDY, &format!("/g{at}"), at + 1)).collect();
    let mut modest = ask_from(&balancer, MODEST, "/m");
    let answer = greedy.pop().unwrap().read("GET").unwrap();
    let problem = answer.problem(503);
    assert_eq!(
        (&problem["detail"], &problem["cause"]),
        (&json!("the service is busy"), &json!("queue_full"))
    );
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    let line = balancer.proc.wait_out("/g2");
    assert!(line.contains(r#""cause":"queue_full""#), "{line}");
    // The greedy one's next request is refused itself.
    assert_eq!(ask_from(&balancer, GREEDY, "/g3").read("GET").unwrap().problem(503)["cause"], "queue_full");
    assert_eq!(waiting(&balancer), 3.0);
    assert_eq!(value(&balancer, "balancer_queue_refused_total{pool=\"default\",reason=\"full\"}"), 2.0);
    gate.open();
    for conn in greedy.iter_mut().chain([&mut held, &mut modest]) {
        conn.read("GET").unwrap().expect(200);
    }
}

fn who_always_has_others_waiting_is_refused_after_queue_target(engine: Engine) {
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1)
        .set("balancing.queue_target", json!("100ms"))
        .set("log.access", json!(true))
        .start();
    let mut held = ask_from(&balancer, GREEDY, "/held");
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let began = Instant::now();
    let mut first = queue_from(&balancer, GREEDY, "/g0", 1);
    let _second = queue_from(&balancer, GREEDY, "/g1", 2);
    let answer = first.read("GET").unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    let problem = answer.problem(503);
    assert_eq!(
        (&problem["detail"], &problem["cause"]),
        (&json!("the service is busy"), &json!("queue_target"))
    );
    let line = balancer.proc.wait_out("/g0");
    assert!(line.contains(r#""cause":"queue_target""#), "{line}");
    balancer.proc.wait_err(0, "which key it was", |line| line.contains("balancing.queue_target"));
    assert!(value(&balancer, "balancer_queue_refused_total{pool=\"default\",reason=\"target\"}") >= 1.0);
    gate.open();
    held.read("GET").unwrap().expect(200);
}

/// The second backend of two: `/fails` breaks off once the gate is open, `/held` waits for it, all else is answered.
fn second(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |seen, stream| {
        let line = seen.request_line();
        if line.contains("/fails") {
            gate.wait();
            return Then::Close;
        }
        if line.contains("/held") {
            gate.wait();
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
        Then::Keep
    })
}

fn two(engine: Engine, first: &Backend, second: &Backend) -> Setup {
    narrow(engine, first, 1)
        .backend_with(json!({ "url": second.url(), "max_in_flight": 1 }))
        .set("balancing.strategy", json!("first"))
        .set("outlier", Value::Null)
}

fn who_is_sent_again_keeps_its_place(engine: Engine) {
    let (gate, breaks) = (Gate::default(), Gate::default());
    let (first, second) = (gated(&gate), second(&breaks));
    let balancer = two(engine, &first, &second).start();
    let mut conns = vec![ask(&balancer, "/held")];
    until("it is at the first", || (first.seen().len() == 1).then_some(()));
    conns.push(ask(&balancer, "/fails"));
    until("it is at the second", || (second.seen().len() == 1).then_some(()));
    conns.push(queue(&balancer, "/later", 0));
    balancer.api("PATCH", "/v1/backends/b", &json!({ "state": "drain" })).expect(200);
    breaks.open();
    until("both wait", || (waiting(&balancer) == 2.0).then_some(()));
    assert_eq!(served(&gate, &first, &mut conns), ["/held", "/fails", "/later"]);
}

fn who_cannot_use_a_place_is_passed_over(engine: Engine) {
    let (gate, breaks) = (Gate::default(), Gate::default());
    let first = gated(&gate);
    let second = {
        let breaks = breaks.clone();
        Backend::scripted(move |seen, stream| {
            let line = seen.request_line();
            if line.contains("/fails") {
                return Then::Close;
            }
            if line.contains("/beside") {
                breaks.wait();
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
            Then::Keep
        })
    };
    let balancer = two(engine, &first, &second).start();
    let mut held = ask(&balancer, "/held");
    until("it is at the first", || (first.seen().len() == 1).then_some(()));
    // This request has failed at the second backend already, and can only wait for the first.
    let mut fails = queue(&balancer, "/fails", 0);
    let mut beside = ask(&balancer, "/beside");
    until("the second has room for others", || (second.seen().len() == 2).then_some(()));
    let mut behind = queue(&balancer, "/behind", 1);
    breaks.open();
    assert_eq!(beside.read("GET").unwrap().expect(200).text(), "second");
    assert_eq!(behind.read("GET").unwrap().expect(200).text(), "second", "it does not wait for who can't");
    assert_eq!(waiting(&balancer), 1.0);
    gate.open();
    assert_eq!(held.read("GET").unwrap().expect(200).text(), "/held");
    assert_eq!(fails.read("GET").unwrap().expect(200).text(), "/fails");
}

fn another_order_holds_for_who_waits(engine: Engine) {
    let by_arrival = ["/held", "/g0", "/g1", "/g2", "/m"];
    assert_eq!(served_after_a_change(engine, "fair", "fifo"), by_arrival);
    // With fifo clients' shares are not counted, so both begin alike.
    let by_share = ["/held", "/g0", "/m", "/g1", "/g2"];
    // What has its turn at the change counts for nobody: that may be the first in line, which looks for room each second.
    let without_the_first = ["/held", "/g0", "/g1", "/m", "/g2"];
    let is_by_share = (0..3).any(|_| {
        let order = served_after_a_change(engine, "fifo", "fair");
        assert!(order == by_share || order == without_the_first, "{order:?}");
        order == by_share
    });
    assert!(is_by_share);
}

/// The order in which a line is served that has another one since a reload.
fn served_after_a_change(engine: Engine, from: &str, to: &str) -> Vec<String> {
    let gate = Gate::default();
    let backend = gated(&gate);
    let setup = narrow(engine, &backend, 1).set("balancing.queue_order", json!(from));
    let balancer = setup.start();
    let mut conns = greedy_and_modest(&balancer, &backend);
    let lines = balancer.proc.err_lines();
    setup.clone().set("balancing.queue_order", json!(to)).write();
    balancer.proc.signal(rustix::process::Signal::HUP);
    balancer.proc.wait_err(lines, "it is in force", |line| line.contains("balancing.queue_order"));
    served(&gate, &backend, &mut conns)
}

/// A trusted proxy can make up any number of clients: the line and what is remembered of clients stay bounded.
fn made_up_clients_take_no_room(engine: Engine) {
    if !engine.can(Case::Parking) {
        return;
    }
    const SIZE: usize = 100;
    let gate = Gate::default();
    let backend = gated(&gate);
    let balancer = narrow(engine, &backend, 1)
        .set("balancing.queue_size", json!(SIZE))
        .set("rate_limit.trusted_proxies", json!(["127.0.0.0/8"]))
        .start();
    let name = |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let ask = |conn: &mut Conn, number: usize| {
        conn.send(head("GET", "/", &[("X-Forwarded-For", &name(number))], None));
    };
    let mut held = Conn::open(balancer.address);
    ask(&mut held, 0);
    until("it is at the backend", || (backend.seen().len() == 1).then_some(()));
    let mut line: Vec<Conn> = (1..=SIZE)
        .map(|number| {
            let mut conn = Conn::open(balancer.address);
            ask(&mut conn, number);
            conn
        })
        .collect();
    until("the line is full", || (waiting(&balancer) == SIZE as f64).then_some(()));
    let memory = || value(&balancer, "process_resident_memory_bytes");
    let mut conn = Conn::open(balancer.address);
    let mut crowd = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            ask(&mut conn, number);
            assert_eq!(conn.read("GET").unwrap().problem(503)["cause"], "queue_full");
        }
    };
    crowd(1_000..3_000);
    let before = memory();
    crowd(3_000..11_000);
    assert!(memory() - before < 8e6, "{before} {}", memory());
    assert_eq!(value(&balancer, "balancer_queue_clients{pool=\"default\"}"), SIZE as f64);
    assert_eq!(waiting(&balancer), SIZE as f64);
    let view = balancer.api("GET", "/v1/pools/default", &Value::Null).expect(200).json();
    assert_eq!(view["line"]["busiest"].as_array().map(Vec::len), Some(8), "{view}");
    // Clients that leave make room.
    line.drain(..SIZE / 2).for_each(Conn::reset);
    until("half of them are gone", || (waiting(&balancer) == (SIZE / 2) as f64).then_some(()));
    let mut late = Conn::open(balancer.address);
    ask(&mut late, 20_000);
    until("there is room", || (waiting(&balancer) == (SIZE / 2 + 1) as f64).then_some(()));
    gate.open();
    for conn in line.iter_mut().chain([&mut held, &mut late]) {
        conn.read("GET").unwrap().expect(200);
    }
    until("nobody is left", || {
        (value(&balancer, "balancer_queue_clients{pool=\"default\"}") == 0.0).then_some(())
    });
}
