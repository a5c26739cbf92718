//! Which backend a request goes to, what is sent again, and what a client sees when backends fail.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::backend::{OK, refusing};
use crate::support::balancer::Echo;
use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Gate, Setup, Then, request, until};

each_engine! {
    least_connections_avoids_the_busy_backend,
    round_robin_keeps_the_weights,
    least_connections_spreads_ties,
    kept_connections_are_used_again,
    a_refusing_backend_costs_no_request,
    when_every_backend_refuses_it_is_502,
    a_stale_connection_costs_no_idempotent_request,
    a_post_is_never_sent_twice,
    a_reset_before_any_answer_is_502_for_a_post,
    retries_are_bounded,
    a_backend_that_dies_under_load_is_noticed_by_no_client,
    a_client_that_leaves_frees_its_backend,
    unresolvable_names_are_502_or_503_and_the_others_go_on,
}

fn least_connections_avoids_the_busy_backend(engine: Engine) {
    let gated = |name: &'static str, gate: &Gate| {
        let gate = gate.clone();
        Backend::scripted(move |_, stream| {
            gate.wait();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{name}");
            Then::Keep
        })
    };
    let (closed, open) = (Gate::default(), Gate::default());
    let (slow, fast) = (gated("slow", &closed), gated("fast", &open));
    let balancer = Setup::on(engine).backend(slow.address()).backend(fast.address()).start();
    let mut held: Vec<Conn> = (1..=10)
        .map(|sent| {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[], None));
            until("it hangs on a backend", || (slow.seen().len() + fast.seen().len() == sent).then_some(()));
            conn
        })
        .collect();
    assert_eq!((slow.seen().len(), fast.seen().len()), (5, 5), "as many on each");
    open.open();
    let mut astray = Vec::new();
    let gone_astray = until("the fast one has answered", || {
        // Each answer of the fast backend gives a lease back, and from then on it has fewer requests than the slow one.
        // A request that comes before that may still be sent to the slow one; it is kept open with the others there.
        let mut conn = Conn::open(balancer.address);
        conn.wait_at_most(Duration::from_millis(500));
        conn.send(head("GET", "/", &[], None));
        match conn.read("GET") {
            Ok(answer) => {
                assert_eq!(answer.expect(200).text(), "fast");
                Some(std::mem::take(&mut astray))
            }
            Err(_) => {
                astray.push(conn);
                None
            }
        }
    });
    for _ in 0..20 {
        assert_eq!(balancer.get("/").expect(200).text(), "fast");
    }
    drop(gone_astray);
    closed.open();
    for conn in &mut held {
        conn.read("GET").unwrap().expect(200);
    }
}

fn shares(balancer: &crate::support::Balancer, requests: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    let mut conn = Conn::open(balancer.address);
    for _ in 0..requests {
        *shares.entry(conn.get("/").expect(200).text()).or_default() += 1;
    }
    shares
}

fn round_robin_keeps_the_weights(engine: Engine) {
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let balancer = Setup::on(engine)
        .backend_with(json!({ "url": a.url(), "weight": 1 }))
        .backend_with(json!({ "url": b.url(), "weight": 2 }))
        .backend_with(json!({ "url": c.url(), "weight": 3 }))
        .set("balancing.strategy", json!("round_robin"))
        .start();
    let shares = shares(&balancer, 60);
    assert_eq!((shares["a"], shares["b"], shares["c"]), (10, 20, 30));
}

fn least_connections_spreads_ties(engine: Engine) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let balancer = Setup::on(engine).backend(a.address()).backend(b.address()).start();
    let shares = shares(&balancer, 200);
    // A fair coin fails this once in 10^17 runs.
    assert!(shares["a"] > 40 && shares["b"] > 40, "{shares:?}");
}

fn kept_connections_are_used_again(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    for _ in 0..30 {
        balancer.get("/").expect(200);
    }
    assert_eq!(backend.connections(), 1);
}

fn a_refusing_backend_costs_no_request(engine: Engine) {
    let good = Backend::named("good");
    let balancer = Setup::on(engine).backend(refusing()).backend(good.address()).start();
    for _ in 0..30 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
        // A request with a body, too: nothing of it was sent to the backend that refused.
        request(balancer.address, "POST", "/", &[], b"hello").expect(200);
    }
}

fn when_every_backend_refuses_it_is_502(engine: Engine) {
    let balancer = Setup::on(engine).backend(refusing()).backend(refusing()).start();
    let problem = balancer.get("/").problem(502);
    assert!(!problem["detail"].as_str().unwrap().contains("127.0.0.1"), "{problem}");
    // The line is written when the answer is delivered, so perhaps a moment later than it is read here.
    until("the operator sees the cause", || balancer.proc.err().contains("refused").then_some(()));
}

/// A backend that answers the first request of each connection and closes without a word at the second.
fn forgetful() -> Backend {
    Backend::raw(|index, stream, keep| {
        let mut buffer = Vec::new();
        let Some(seen) = crate::support::backend::read_request(index, stream, &mut buffer) else {
            return Then::Close;
        };
        keep(seen);
        let _ = stream.write_all(OK);
        if let Some(seen) = crate::support::backend::read_request(index, stream, &mut buffer) {
            keep(seen);
        }
        Then::Close
    })
}

fn a_stale_connection_costs_no_idempotent_request(engine: Engine) {
    if !engine.can(Case::Stale) {
        return;
    }
    let backend = forgetful();
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    let methods = ["GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "GET", "GET"];
    for method in methods {
        request(balancer.address, method, "/", &[], b"").expect(200);
    }
    assert!(backend.seen().len() > methods.len() + 1, "none met a stale connection");
}

fn a_post_is_never_sent_twice(engine: Engine) {
    let backend = forgetful();
    let balancer = Setup::on(engine).one_loop().backend(backend.address()).start();
    let mut statuses = Vec::new();
    for i in 0..8 {
        statuses.push(request(balancer.address, "POST", &format!("/{i}"), &[], b"order").status);
    }
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)), "{statuses:?}");
    assert!(statuses.contains(&502), "none met a stale connection");
    let mut lines: Vec<String> = backend.seen().iter().map(|seen| seen.request_line()).collect();
    lines.sort();
    let sent = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), sent, "a POST was sent twice: {lines:?}");
}

fn a_reset_before_any_answer_is_502_for_a_post(engine: Engine) {
    let backend = Backend::saying("", Then::Reset);
    let other = Backend::saying("", Then::Reset);
    let balancer = Setup::on(engine).backend(backend.address()).backend(other.address()).start();
    request(balancer.address, "POST", "/", &[], b"order").problem(502);
    assert_eq!(backend.seen().len() + other.seen().len(), 1, "the POST was sent again");
}

fn retries_are_bounded(engine: Engine) {
    let ports: Vec<_> = (0..5).map(|_| Backend::saying("", Then::Close)).collect();
    for retries in [0usize, 2] {
        let mut setup = Setup::on(engine).set("upstream.retries", json!(retries));
        for backend in &ports {
            setup = setup.backend(backend.address());
        }
        let balancer = setup.start();
        let before: usize = ports.iter().map(|backend| backend.seen().len()).sum();
        balancer.get("/").problem(502);
        let sent = ports.iter().map(|backend| backend.seen().len()).sum::<usize>() - before;
        assert_eq!(sent, retries + 1, "{retries} retries made {sent} requests");
    }
}

fn a_backend_that_dies_under_load_is_noticed_by_no_client(engine: Engine) {
    let (mut a, b, c) =
        (Echo::start(&["--name", "a"]), Echo::start(&["--name", "b"]), Echo::start(&["--name", "c"]));
    let balancer = Setup::on(engine)
        .backend(a.address)
        .backend(b.address)
        .backend(c.address)
        .set(
            "health_check",
            json!({ "path": "/", "interval": "200ms", "timeout": "1s", "rise": 1, "fall": 2 }),
        )
        .start();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, served, address) = (Arc::clone(&stop), Arc::clone(&served), balancer.address);
            std::thread::spawn(move || {
                let mut conn = Conn::open(address);
                while !stop.load(Ordering::SeqCst) {
                    let answer = conn.get("/");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let from = served.load(Ordering::SeqCst);
        until("the load goes on", || (served.load(Ordering::SeqCst) >= from + count).then_some(()));
    };
    more(500);
    a.proc.kill();
    balancer.proc.wait_err(0, "it is down", |line| line.contains("backend a ") && line.contains(" is down"));
    more(500);
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no client noticed anything");
    }
}

fn a_client_that_leaves_frees_its_backend(engine: Engine) {
    // An answer that never ends: only the client can end it.
    let backend = Backend::raw(|_, stream, _| {
        let mut buffer = Vec::new();
        let _ = crate::support::backend::read_request(0, stream, &mut buffer);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"5\r\nhello\r\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Then::Close
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    conn.read_head("GET").unwrap().expect(200);
    assert_eq!(backend.open(), 1);
    conn.reset();
    until("the backend connection is closed", || (backend.open() == 0).then_some(()));
}

fn unresolvable_names_are_502_or_503_and_the_others_go_on(engine: Engine) {
    let good = Backend::named("good");
    let alone = Setup::on(engine).backend_with(json!({ "url": "http://no-such-host.invalid:80" }));
    let balancer = alone.clone().start();
    let status = balancer.get("/").status;
    assert!(matches!(status, 502 | 503), "{status}\n{}", balancer.proc.story());
    drop(balancer);
    let balancer = alone.backend(good.address()).start();
    for _ in 0..10 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
    }
    // A name that resolves is a backend like any other.
    let by_name = json!({ "url": format!("http://localhost:{}", good.address().port()) });
    let balancer = Setup::on(engine).backend_with(by_name).start();
    assert_eq!(balancer.get("/").expect(200).text(), "good");
}
