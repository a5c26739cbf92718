//! How long a change on one instance takes until another one refuses by it: two real processes on one PostgreSQL, a
//! hundred changes, then a hundred more after PostgreSQL was restarted.
//!
//! `cargo bench --bench instances` starts a throwaway server and prints milliseconds from the moment at which the call to
//! the first instance was answered, and from the moment at which it was sent.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, dead_code, unused_imports, unused_macros)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::json;

use support::postgres::Postgres;
use support::{Backend, Balancer, Conn, Setup, until};

const CHANGES: usize = 100;

fn main() {
    let Some(mut server) = Postgres::start() else { return };
    let database = server.database("instances");
    let backend = Backend::named("a");
    let setup = Setup::auto().store(&database).backend(backend.address()).set("cache.ttl", json!("1h"));
    let (here, there) = (setup.start(), setup.start());
    report("at rest", &measure(&here, &there, 70));
    server.stop();
    server.run();
    let body = json!({ "client_id": "ready", "capacity": 0, "rate_per_sec": 0 });
    until("writes are taken again", || {
        (here.api("POST", "/limits/create", &body).status == 201).then_some(())
    });
    report("after a restart of PostgreSQL", &measure(&here, &there, 71));
}

/// For each change: since its answer came, and since it was sent.
fn measure(here: &Balancer, there: &Balancer, net: u8) -> Vec<(Duration, Duration)> {
    let one = |n: usize| {
        let client = format!("127.{net}.0.{}", n + 1);
        let mut conn = Conn::from(client.parse().expect("an address"), there.address);
        assert_eq!(conn.get("/").status, 200);
        let sent = Instant::now();
        here.limit(&client, 0, 0);
        let answered = Instant::now();
        while conn.get("/").status != 429 {
            assert!(answered.elapsed() < support::PATIENCE, "{client} is still let through");
        }
        (answered.elapsed(), sent.elapsed())
    };
    (0..CHANGES).map(one).collect()
}

fn report(when: &str, times: &[(Duration, Duration)]) {
    let line = |what: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        println!(
            "{when}, {what}: median {:.2} ms, p90 {:.2} ms, longest {:.2} ms of {}",
            at(50),
            at(90),
            at(100),
            times.len()
        );
    };
    line("since the answer", times.iter().map(|(answered, _)| *answered).collect());
    line("since the call", times.iter().map(|(_, sent)| *sent).collect());
}
