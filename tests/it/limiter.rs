//! The limiter: which entry limits which client, how much it allows, and the exact fields that say so.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Response, Setup, until};

each_engine! {
    the_fields_are_exact,
    a_refusal_is_a_problem_with_the_time_to_wait,
    rate_0_and_capacity_0_promise_nothing,
    unlimited_clients_get_no_fields,
    headers_can_be_off,
    a_backends_own_fields_are_kept,
    the_most_specific_entry_decides,
    a_range_gives_each_address_its_own_bucket,
    a_written_limit_is_in_force_on_the_next_request,
    levels_move_with_the_numbers,
    every_token_is_spent_once,
    a_token_is_not_given_back_for_a_failure,
    calls_of_ours_cost_nothing,
    tokens_come_back,
    ipv6_clients_are_grouped_by_prefix,
    a_flood_of_new_clients_frees_nobody,
}

fn limited(engine: Engine, default: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).set("rate_limit.default", default).start();
    (backend, balancer)
}

fn rate(capacity: u64, rate: impl Into<Value>) -> Value {
    json!({ "capacity": capacity, "rate_per_sec": rate.into() })
}

fn fields(answer: &Response) -> (Option<&str>, Option<&str>) {
    assert!(answer.all("ratelimit").len() <= 1 && answer.all("ratelimit-policy").len() <= 1, "{answer:?}");
    (answer.field("ratelimit-policy"), answer.field("ratelimit"))
}

fn the_fields_are_exact(engine: Engine) {
    // (capacity, rate, requests before, policy, item); slow rates, so that no token comes back meanwhile.
    let cases = [
        (rate(100, 0.01), 0, r#""default";q=100;w=10000"#, r#""default";r=99;t=9900"#),
        (rate(100, 0.01), 57, r#""default";q=100;w=10000"#, r#""default";r=42;t=4200"#),
        (rate(2, 0.001), 1, r#""default";q=2;w=2000"#, r#""default";r=0;t=1000"#),
        // The capacity is below the rate: q is what a second admits.
        (rate(2, 1000), 0, r#""default";q=1000;w=1"#, r#""default";r=1;t=1"#),
        (json!("600/m burst 50"), 0, r#""default";q=50;w=5"#, r#""default";r=49;t=5"#),
    ];
    for (limit, before, policy, item) in cases {
        let (_backend, balancer) = limited(engine, limit.clone());
        for _ in 0..before {
            balancer.get("/").expect(200);
        }
        let answer = balancer.get("/").expect(200);
        assert_eq!(fields(&answer), (Some(policy), Some(item)), "{limit}");
    }
}

fn a_refusal_is_a_problem_with_the_time_to_wait(engine: Engine) {
    let (backend, balancer) = limited(engine, rate(1, 0.001));
    balancer.get("/").expect(200);
    let answer = balancer.get("/");
    let problem = answer.problem(429);
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["title"], "Quota Exceeded");
    assert_eq!(problem["violated-policies"], json!(["default"]));
    assert_eq!(problem["instance"], answer.field("x-request-id").unwrap());
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let (policy, item) = fields(&answer);
    assert_eq!(policy, Some(r#""default";q=1;w=1000"#));
    let wait: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((900..=1000).contains(&wait), "{wait}");
    assert_eq!(item, Some(format!(r#""default";r=0;t={wait}"#).as_str()));
    assert_eq!(backend.seen().len(), 1);

    // Any method, also with a body, which is not read: the connection goes on or is closed, but the answer comes.
    let mut conn = Conn::open(balancer.address);
    conn.ask("POST", "/", &[], &[b'x'; 1000]).problem(429);
    assert_eq!(backend.seen().len(), 1);
}

fn rate_0_and_capacity_0_promise_nothing(engine: Engine) {
    let (_backend, balancer) = limited(engine, rate(2, 0));
    let answer = balancer.get("/").expect(200);
    assert_eq!(fields(&answer), (Some(r#""default";q=2"#), Some(r#""default";r=1"#)));
    balancer.get("/").expect(200);
    let answer = balancer.get("/");
    answer.problem(429);
    assert_eq!(fields(&answer), (Some(r#""default";q=2"#), Some(r#""default";r=0"#)));
    assert!(answer.field("retry-after").is_none(), "{answer:?}");

    for refill in [0, 5] {
        let (_backend, balancer) = limited(engine, rate(0, refill));
        let answer = balancer.get("/");
        answer.problem(429);
        assert_eq!(fields(&answer), (Some(r#""default";q=0"#), Some(r#""default";r=0"#)), "rate {refill}");
        assert!(answer.field("retry-after").is_none(), "{answer:?}");
    }
}

fn unlimited_clients_get_no_fields(engine: Engine) {
    let (_backend, balancer) = limited(engine, Value::Null);
    let answer = balancer.get("/").expect(200);
    assert_eq!(fields(&answer), (None, None));
}

fn headers_can_be_off(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", rate(1, 0))
        .set("rate_limit.headers", json!("off"))
        .start();
    for status in [200, 429] {
        assert_eq!(fields(&balancer.get("/").expect(status)), (None, None));
    }
}

fn a_backends_own_fields_are_kept(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nRateLimit-Policy: \"inner\";q=5;w=1\r\nRateLimit: \"inner\";r=4;t=1\r\nContent-Length: 0\r\n\r\n",
    );
    let balancer =
        Setup::on(engine).backend(backend.address()).set("rate_limit.default", rate(100, 0.01)).start();
    let answer = balancer.get("/").expect(200);
    assert_eq!(answer.all("ratelimit-policy").join(", "), r#""inner";q=5;w=1, "default";q=100;w=10000"#);
    assert_eq!(answer.all("ratelimit").join(", "), r#""inner";r=4;t=1, "default";r=99;t=9900"#);
}

/// The policy item's name and q, as a client at that address sees them.
fn policy(conn: &mut Conn) -> String {
    let answer = conn.get("/");
    let policy = answer.field("ratelimit-policy").unwrap_or("none").to_owned();
    policy.split(";w=").next().unwrap().to_owned()
}

fn the_most_specific_entry_decides(engine: Engine) {
    let (_backend, balancer) = limited(engine, rate(1000, 1));
    let at = |ip: &str| Conn::from(ip.parse().unwrap(), balancer.address);
    let mut conn = at("127.5.6.7");
    assert_eq!(policy(&mut conn), r#""default";q=1000"#);
    balancer.limit("127.0.0.0/8", 800, 1);
    assert_eq!(policy(&mut conn), r#""range";q=800"#);
    balancer.limit("127.5.0.0/16", 700, 1);
    assert_eq!(policy(&mut conn), r#""range";q=700"#);
    // A wider range that comes later doesn't take over.
    balancer.limit("127.0.0.0/12", 750, 1);
    assert_eq!(policy(&mut conn), r#""range";q=700"#);
    balancer.limit("127.5.6.7", 600, 1);
    assert_eq!(policy(&mut conn), r#""client";q=600"#);
    balancer.limit(&conn.local().to_string(), 500, 1);
    assert_eq!(policy(&mut conn), r#""client";q=500"#);
    // Another port of the same address is another client to that entry.
    assert_eq!(policy(&mut at("127.5.6.7")), r#""client";q=600"#);
    assert_eq!(policy(&mut at("127.5.6.8")), r#""range";q=700"#);
    assert_eq!(policy(&mut at("127.4.6.8")), r#""range";q=750"#);
    assert_eq!(policy(&mut at("127.64.6.8")), r#""range";q=800"#);

    // And back.
    let delete = |id: &str| balancer.api("DELETE", "/limits/delete", &json!({ "client_id": id })).expect(204);
    delete(&conn.local().to_string());
    assert_eq!(policy(&mut conn), r#""client";q=600"#);
    delete("127.5.6.7");
    delete("127.5.0.0/16");
    delete("127.0.0.0/12");
    assert_eq!(policy(&mut conn), r#""range";q=800"#);
    delete("127.0.0.0/8");
    assert_eq!(policy(&mut conn), r#""default";q=1000"#);
}

fn a_range_gives_each_address_its_own_bucket(engine: Engine) {
    let (_backend, balancer) = limited(engine, Value::Null);
    balancer.limit("127.9.0.0/16", 1, 0);
    for ip in ["127.9.0.1", "127.9.0.2", "127.9.255.255"] {
        balancer.get_from(ip, "/").expect(200);
        balancer.get_from(ip, "/").problem(429);
    }
    balancer.get_from("127.10.0.1", "/").expect(200);
}

fn a_written_limit_is_in_force_on_the_next_request(engine: Engine) {
    let (_backend, balancer) = limited(engine, Value::Null);
    let mut conn = Conn::open(balancer.address);
    conn.get("/").expect(200);
    let body = |capacity: u64| json!({ "client_id": "127.0.0.1", "capacity": capacity, "rate_per_sec": 0 });
    for _ in 0..20 {
        balancer.api("POST", "/limits/create", &body(1)).expect(201);
        conn.get("/").expect(200);
        conn.get("/").problem(429);
        balancer.api("PUT", "/limits/update", &body(2)).expect(204);
        conn.get("/").expect(200);
        conn.get("/").problem(429);
        balancer.api("DELETE", "/limits/delete", &json!({ "client_id": "127.0.0.1" })).expect(204);
        for _ in 0..5 {
            conn.get("/").expect(200);
        }
    }
}

fn levels_move_with_the_numbers(engine: Engine) {
    let (_backend, balancer) = limited(engine, rate(10, 0));
    let left = || balancer.get("/").field("ratelimit").unwrap().to_owned();
    let update = |capacity: u64| {
        let body = json!({ "client_id": "127.0.0.1", "capacity": capacity, "rate_per_sec": 0 });
        balancer.api("PUT", "/limits/update", &body).expect(204);
    };
    for expected in ["9", "8", "7", "6"] {
        assert_eq!(left(), format!(r#""default";r={expected}"#));
    }
    // 6 of 10 left. Created with 12: 8 left; one is spent by asking.
    balancer.limit("127.0.0.1", 12, 0);
    assert_eq!(left(), r#""client";r=7"#);
    // 12 → 100: 95.
    update(100);
    assert_eq!(left(), r#""client";r=94"#);
    // 100 → 3: clamped to nothing.
    update(3);
    assert_eq!(left(), r#""client";r=0"#);
    // 3 → 5: two more, one spent.
    update(5);
    assert_eq!(left(), r#""client";r=1"#);
    // Deleted: the default's 10 instead of 5, 1 + 5, one spent.
    balancer.api("DELETE", "/limits/delete", &json!({ "client_id": "127.0.0.1" })).expect(204);
    assert_eq!(left(), r#""default";r=5"#);
}

fn every_token_is_spent_once(engine: Engine) {
    let (backend, balancer) = limited(engine, rate(200, 0));
    let (threads, each) = (24, 20);
    let start = Arc::new(Barrier::new(threads));
    let clients: Vec<_> = (0..threads)
        .map(|_| {
            let (start, address) = (Arc::clone(&start), balancer.address);
            std::thread::spawn(move || {
                let mut conn = Conn::open(address);
                start.wait();
                (0..each).filter(|_| conn.get("/").status == 200).count()
            })
        })
        .collect();
    let passed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(passed, 200);
    assert_eq!(backend.seen().len(), 200);
}

fn a_token_is_not_given_back_for_a_failure(engine: Engine) {
    let balancer = Setup::on(engine)
        .backend(crate::support::backend::refusing())
        .set("rate_limit.default", rate(2, 0))
        .start();
    for left in [1, 0] {
        let answer = balancer.get("/");
        answer.problem(502);
        assert_eq!(answer.field("ratelimit"), Some(format!(r#""default";r={left}"#).as_str()));
        assert_eq!(answer.field("ratelimit-policy"), Some(r#""default";q=2"#));
    }
    balancer.get("/").problem(429);
}

fn calls_of_ours_cost_nothing(engine: Engine) {
    let (_backend, balancer) = limited(engine, rate(1, 0));
    for _ in 0..5 {
        balancer.get("/-/livez").expect(200);
        balancer.get("/-/readyz").expect(200);
        balancer.get("/limits").expect(200);
        balancer.get("/limits/get?client_id=nobody").problem(404);
    }
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
    balancer.get("/limits").expect(200);
}

fn tokens_come_back(engine: Engine) {
    let (_backend, balancer) = limited(engine, rate(1, 5));
    balancer.get("/").expect(200);
    until("a token came back", || (balancer.get("/").status == 200).then_some(()));
}

fn a_flood_of_new_clients_frees_nobody(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", rate(2, 0))
        .set("rate_limit.max_clients", json!(100))
        .start();
    for status in [200, 200, 429] {
        assert_eq!(balancer.get_from("127.1.1.1", "/").status, status);
    }
    // Five times as many clients as there are buckets; those without one share the overflow.
    for i in 0..500u16 {
        let [high, low] = i.to_be_bytes();
        balancer.get_from(&format!("127.2.{high}.{low}"), "/");
    }
    balancer.get_from("127.1.1.1", "/").problem(429);
}

fn ipv6_clients_are_grouped_by_prefix(engine: Engine) {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return crate::support::aloud("skipped: this machine has no IPv6 loopback");
    }
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("listen", json!("[::1]:0"))
        .set("rate_limit.default", rate(3, 0))
        .start();
    let get = || Conn::from("::1".parse().unwrap(), balancer.address).get("/");
    assert_eq!(get().expect(200).field("ratelimit"), Some(r#""default";r=2"#));
    // The prefix as a range, however it is written.
    balancer.limit("::/64", 2, 0);
    assert_eq!(get().expect(200).field("ratelimit"), Some(r#""range";r=0"#));
    // An entry for the one address wins over its prefix.
    balancer.limit("0:0:0:0:0:0:0:1", 9, 0);
    let own = get().expect(200);
    assert_eq!(own.field("ratelimit-policy"), Some(r#""client";q=9"#));
}
