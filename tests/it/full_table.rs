//! More clients than `rate_limit.max_clients` have buckets: no limit becomes weaker by that.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Setup, request};

each_engine! {
    a_full_table_makes_no_limit_weaker,
    what_is_said_of_a_full_table_is_what_happens,
    made_up_keys_push_out_nobody_who_is_refused,
}

/// The sizes of the table; the larger one is filled by keys that no entry names.
const SMALL: u32 = 4;
const LARGE: u32 = 20_000;

fn rate(capacity: u64) -> Value {
    json!({ "capacity": capacity, "rate_per_sec": 0 })
}

fn keyed(engine: Engine, backend: &Backend, max_clients: u32) -> Setup {
    Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", rate(2))
        .set("rate_limit.max_clients", json!(max_clients))
        .set("rate_limit.key", json!("header:X-Key"))
        .set("rate_limit.unknown_keys", json!("own_bucket"))
}

/// Fills the table: every row is taken by a client whose bucket is not full.
fn fill(balancer: &Balancer, rows: u32) {
    let mut conn = Conn::open(balancer.address);
    for number in 0..rows {
        conn.ask("GET", "/", &[("X-Key", &format!("key {number}"))], b"").expect(200);
    }
}

fn check(balancer: &Balancer, address: &str) -> Value {
    balancer.api("POST", "/-/v1/check", &json!({ "address": address })).expect(200).json()
}

/// How many requests of a client pass; each is asked about beforehand.
fn passed(balancer: &Balancer, source: &str, requests: u32) -> u32 {
    let passes = |_: &u32| {
        let said = check(balancer, source);
        let answer = balancer.get_from(source, "/");
        assert_eq!(
            said["decision"],
            if answer.status == 200 { "allowed" } else { "denied" },
            "{source}: {said}"
        );
        answer.status == 200
    };
    (0..requests).filter(passes).count() as u32
}

fn a_full_table_makes_no_limit_weaker(engine: Engine) {
    let backend = Backend::named("a");
    for rows in [SMALL, LARGE] {
        let balancer = keyed(engine, &backend, rows).start();
        balancer.limit("127.0.5.1", 5, 0);
        balancer.limit("127.0.5.2", 0, 0);
        balancer.limit("127.0.6.0/24", 1, 0);
        let plan =
            json!({ "name": "pro", "buckets": [{ "name": "day", "amount": 1, "per": "1d", "capacity": 3 }] });
        balancer.api("POST", "/-/v1/plans", &plan).expect(201);
        balancer.api("PUT", "/-/v1/limits/127.0.5.3", &json!({ "plan": "pro" })).expect(201);
        fill(&balancer, rows);
        // A client that an entry names is held to the exact numbers of the entry.
        assert_eq!(passed(&balancer, "127.0.5.1", 8), 5);
        assert_eq!(passed(&balancer, "127.0.5.2", 2), 0);
        assert_eq!(passed(&balancer, "127.0.5.3", 5), 3);
        // Members of a range never get more than the range's numbers, nor clients of the default more than the
        // default's.
        for member in 1..=40 {
            assert!(passed(&balancer, &format!("127.0.6.{member}"), 3) <= 1, "127.0.6.{member}");
            assert!(passed(&balancer, &format!("127.0.7.{member}"), 4) <= 2, "127.0.7.{member}");
        }
        let shown = balancer.get("/-/metrics").expect(200).text();
        assert!(!shown.contains("balancer_ratelimit_overflow_total 0\n"), "{rows} rows are not full");
    }
}

fn what_is_said_of_a_full_table_is_what_happens(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = keyed(engine, &backend, SMALL).start();
    fill(&balancer, SMALL);
    balancer.get_from("127.0.7.1", "/").expect(200);
    assert_eq!(
        check(&balancer, "127.0.7.1")["buckets"],
        json!([{ "name": "default", "capacity": 2, "level": 1 }])
    );
    assert_eq!(passed(&balancer, "127.0.7.1", 3), 1);
    assert_eq!(check(&balancer, "127.0.7.1")["buckets"][0]["level"], 0);
}

fn made_up_keys_push_out_nobody_who_is_refused(engine: Engine) {
    let backend = Backend::named("a");
    // Filling the larger one takes the portable engine too long, and the table is the same.
    let rows = if engine == Engine::Epoll { &[SMALL, LARGE][..] } else { &[SMALL] };
    for &rows in rows {
        let balancer = keyed(engine, &backend, rows).start();
        assert_eq!(passed(&balancer, "127.0.8.1", 4), 2);
        fill(&balancer, rows - 1);
        for number in 0..300 {
            request(balancer.address, "GET", "/", &[("X-Key", &format!("made up {number}"))], b"");
        }
        assert_eq!(passed(&balancer, "127.0.8.1", 2), 0, "{rows} rows");
    }
}

/// All addresses of a /64 have one bucket, and a client with many such prefixes pushes no other client out.
#[test]
fn rotated_addresses_push_out_nobody_who_is_refused() {
    let backend = Backend::named("a");
    for rows in [SMALL, LARGE] {
        let balancer = keyed(Engine::Epoll, &backend, rows)
            .set("frontend.proxy_protocol", json!(true))
            .set("rate_limit.trusted_proxies", json!(["127.0.0.2"]))
            .start();
        let allowed = |address: &str| {
            let mut conn = Conn::from(IpAddr::from([127, 0, 0, 2]), balancer.address);
            conn.send(format!("PROXY TCP6 {address} ::1 4660 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
            conn.read("GET").expect("an answer").status == 200
        };
        let count = |addresses: &dyn Fn(u32) -> String| (0..300).filter(|n| allowed(&addresses(*n))).count();
        let of_one = |number: u32| format!("2001:db8::{:x}", number + 1);
        assert_eq!(count(&of_one), 2, "{rows} rows");
        fill(&balancer, rows - 1);
        count(&|number| format!("2001:db8:1:{number:x}::1"));
        assert_eq!(count(&of_one), 0, "{rows} rows");
    }
}
