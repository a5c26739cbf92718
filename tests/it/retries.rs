//! Which requests are sent again, how often, and for how long.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::backend::refusing;
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, Then, request};

each_engine! {
    a_time_out_is_sent_again_by_choice,
    a_status_is_sent_again_by_choice,
    without_choice_nothing_is_sent_again,
    retries_cannot_double_an_overload,
    a_deadline_bounds_all_attempts_together,
    a_deadline_bounds_the_body_too,
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nlate";

fn pair(engine: Engine, bad: &Backend, good: &Backend, retry_on: Value) -> Setup {
    Setup::on(engine)
        .backend(bad.address())
        .backend(good.address())
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", Value::Null)
        .set("upstream.retry_on", retry_on)
}

fn a_time_out_is_sent_again_by_choice(engine: Engine) {
    let (deaf, good) = (Backend::deaf(), Backend::named("good"));
    let setup = pair(engine, &deaf, &good, json!(["timeout"])).set("upstream.response_timeout", json!("1s"));
    let balancer = setup.clone().start();
    for sent in 1..=2 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
        assert_eq!(balancer.get("/").expect(200).text(), "good");
        assert_eq!(deaf.seen().len(), sent, "every other one was tried there first");
    }
    let post = |balancer: &crate::support::Balancer| {
        let statuses = [(); 2].map(|()| request(balancer.address, "POST", "/", &[], b"order").status);
        assert!(statuses == [200, 504] || statuses == [504, 200], "{statuses:?}");
    };
    post(&balancer);
    // Nor is a GET sent again after a time-out that `retry_on` does not name.
    let balancer = setup.set("upstream.retry_on", json!(["connect", "reset"])).start();
    let statuses = [(); 2].map(|()| balancer.get("/").status);
    assert!(statuses == [200, 504] || statuses == [504, 200], "{statuses:?}");
    balancer.proc.wait_err(0, "which time-out it was", |line| line.contains("upstream.response_timeout"));
}

fn a_status_is_sent_again_by_choice(engine: Engine) {
    let (busy, good) = (Backend::answering(UNAVAILABLE), Backend::named("good"));
    let balancer = pair(engine, &busy, &good, json!(["502-504"])).start();
    for _ in 0..10 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
    }
    assert_eq!(busy.seen().len(), 5);
    let posts: Vec<_> =
        (0..4).map(|_| request(balancer.address, "POST", "/", &[], b"order").status).collect();
    assert_eq!(posts.iter().filter(|status| **status == 503).count(), 2, "{posts:?}");
    // With no other backend to ask, the failed answer is passed on.
    let alone = Setup::on(engine).backend(busy.address()).set("upstream.retry_on", json!(["503"])).start();
    let before = busy.seen().len();
    let answer = alone.get("/").expect(503);
    assert_eq!((answer.text().as_str(), answer.field("content-type")), ("late", None), "the backend's own");
    assert_eq!(busy.seen().len(), before + 1);
}

fn without_choice_nothing_is_sent_again(engine: Engine) {
    let good = Backend::named("good");
    let reset = Backend::saying("", Then::Reset);
    for bad in [refusing(), reset.address()] {
        let setup = Setup::on(engine)
            .backend(bad)
            .backend(good.address())
            .set("balancing.strategy", json!("round_robin"));
        let statuses = |setup: &Setup| {
            let balancer = setup.start();
            let mut statuses = [(); 2].map(|()| balancer.get("/").status);
            statuses.sort_unstable();
            statuses
        };
        assert_eq!(statuses(&setup.clone().set("upstream.retry_on", json!([]))), [200, 502]);
        assert_eq!(statuses(&setup), [200, 200]);
    }
}

fn retries_cannot_double_an_overload(engine: Engine) {
    let backends = [(); 2].map(|()| Backend::saying("", Then::Close));
    let seen = || backends.iter().map(|backend| backend.seen().len()).sum::<usize>();
    for (budget, share) in [(0.0, 0), (0.2, 60)] {
        let setup = pair(engine, &backends[0], &backends[1], json!(["reset"]));
        let balancer = setup.set("upstream.retry_budget", json!(budget)).start();
        let (before, began) = (seen(), Instant::now());
        for _ in 0..300 {
            balancer.get("/").problem(502);
        }
        let again = seen() - before - 300;
        // A hundred in ten seconds are always allowed, and a slow machine takes several times ten seconds.
        let windows = 1 + began.elapsed().as_secs() as usize / 10;
        assert!(again <= (100 + share) * windows, "{again} of 300 were sent again with {budget}");
        assert!(again >= 100, "{again} of 300 were sent again with {budget}");
    }
}

fn a_deadline_bounds_all_attempts_together(engine: Engine) {
    let deaf = [(); 3].map(|()| Backend::deaf());
    let setup = deaf
        .iter()
        .fold(Setup::on(engine), |setup, backend| setup.backend(backend.address()))
        .set("upstream.retry_on", json!(["timeout"]))
        .set("upstream.retries", json!(10));
    // Two attempts end by themselves, the third is cut short.
    let balancer = setup
        .clone()
        .set("upstream.response_timeout", json!("1s"))
        .set("upstream.request_timeout", json!("2500ms"))
        .start();
    let began = Instant::now();
    balancer.get("/").problem(504);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2_500) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(deaf.iter().map(|backend| backend.seen().len()).sum::<usize>(), 3);
    balancer.proc.wait_err(0, "which time-out it was", |line| line.contains("upstream.request_timeout"));
    // A single attempt does not outlive the deadline either.
    let balancer = setup.set("upstream.request_timeout", json!("300ms")).start();
    let began = Instant::now();
    balancer.get("/").problem(504);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

fn a_deadline_bounds_the_body_too(engine: Engine) {
    // Where nothing cuts it off, it is whole after twenty seconds.
    let dripping = Backend::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..400 {
            if stream.write_all(b"5\r\nhello\r\n").is_err() {
                return Then::Close;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Then::Close
    });
    let balancer =
        Setup::on(engine).backend(dripping.address()).set("upstream.request_timeout", json!("500ms")).start();
    let mut conn = Conn::open(balancer.address);
    let began = Instant::now();
    conn.send(head("GET", "/", &[], None));
    let fault = conn.read("GET").expect_err("a whole answer");
    assert!(began.elapsed() < Duration::from_secs(15), "{fault:?} after {:?}", began.elapsed());
    balancer.proc.wait_err(0, "the cause", |line| line.contains("upstream.request_timeout"));
    crate::support::until("the backend is let go", || (dripping.open() == 0).then_some(()));
}
