//! Each series of `/metrics` is moved by the event that it counts. Events that a whole program can hardly cause, such as a
//! panic, are tested beside the code that counts them.

use std::io::{Read, Write};

use serde_json::json;

use crate::support::backend::{OK, refusing};
use crate::support::balancer::Echo;
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Conn, Engine, Gate, Setup, Then, until};

each_engine! {
    every_reason_to_send_again_is_counted,
    an_ejected_backend_is_counted,
    checks_and_their_verdict_are_shown,
    every_policy_and_decision_is_counted,
    a_full_table_and_a_full_cache_are_counted,
    what_is_in_flight_is_shown,
    methods_are_labels_and_a_client_that_leaves_in_its_answer_had_the_status,
}

/// Waits until a series has at least that value. A request is counted when its answer is delivered, a moment after the
/// client has read it.
#[track_caller]
pub fn reaches(balancer: &Balancer, series: &str, at_least: f64) {
    until(&format!("{series} is at least {at_least}"), || {
        let text = balancer.api("GET", "/-/metrics", &json!(null)).expect(200).text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        (value.parse::<f64>().ok()? >= at_least).then_some(())
    });
}

/// The same for a gauge that must fall to 0.
#[track_caller]
fn is_zero(balancer: &Balancer, series: &str) {
    until(&format!("{series} is 0"), || {
        let text = balancer.api("GET", "/-/metrics", &json!(null)).expect(200).text();
        text.lines().any(|line| line == format!("{series} 0")).then_some(())
    });
}

fn every_reason_to_send_again_is_counted(engine: Engine) {
    let down = Backend::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    // Answers a first request, and resets its connections in the middle of each further one.
    let resets = Backend::scripted(|seen, stream| match seen.request_line().contains("/again") {
        false => {
            let _ = stream.write_all(OK);
            Then::Keep
        }
        true => Then::Reset,
    });
    let deaf = Backend::deaf();
    for (reason, bad, code) in [
        ("connect", refusing(), "error"),
        ("reset", resets.address(), "error"),
        ("timeout", deaf.address(), "error"),
        ("status", down.address(), "503"),
    ] {
        let good = Backend::named("good");
        let balancer = Setup::on(engine)
            .backend(bad)
            .backend(good.address())
            .set("outlier", json!(null))
            .set("balancing.strategy", json!("first"))
            .set("upstream.response_timeout", json!("1s"))
            .set("upstream.retry_on", json!(["connect", "reset", "timeout", "503"]))
            .start();
        if reason == "reset" {
            balancer.get("/").expect(200);
        }
        assert_eq!(balancer.get("/again").expect(200).text(), "good", "{reason}");
        reaches(
            &balancer,
            &format!("balancer_backend_retries_total{{pool=\"default\",reason=\"{reason}\"}}"),
            1.0,
        );
        reaches(
            &balancer,
            &format!("balancer_backend_requests_total{{pool=\"default\",backend=\"a\",code=\"{code}\"}}"),
            1.0,
        );
        reaches(
            &balancer,
            "balancer_backend_requests_total{pool=\"default\",backend=\"b\",code=\"200\"}",
            1.0,
        );
        reaches(
            &balancer,
            "balancer_backend_request_duration_seconds_count{pool=\"default\",backend=\"b\"}",
            1.0,
        );
    }
}

fn an_ejected_backend_is_counted(engine: Engine) {
    let good = Backend::named("good");
    let balancer = Setup::on(engine)
        .backend(refusing())
        .backend(good.address())
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", json!({ "consecutive": 1, "base_time": "1h" }))
        .start();
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    reaches(&balancer, "balancer_backend_ejections_total{pool=\"default\",backend=\"a\"}", 1.0);
    is_zero(&balancer, "balancer_backend_up{pool=\"default\",backend=\"a\"}");
    reaches(&balancer, "balancer_backend_up{pool=\"default\",backend=\"b\"}", 1.0);
}

fn checks_and_their_verdict_are_shown(engine: Engine) {
    let (well, ill) = (Echo::start(&[]), Echo::start(&["--fail-health"]));
    let check = json!({ "path": "/health", "interval": "50ms", "rise": 1, "fall": 1 });
    let balancer =
        Setup::on(engine).backend(well.address).backend(ill.address).set("health_check", check).start();
    reaches(
        &balancer,
        "balancer_health_checks_total{pool=\"default\",backend=\"a\",result=\"success\"}",
        2.0,
    );
    reaches(
        &balancer,
        "balancer_health_checks_total{pool=\"default\",backend=\"b\",result=\"failure\"}",
        2.0,
    );
    reaches(&balancer, "balancer_backend_up{pool=\"default\",backend=\"a\"}", 1.0);
    is_zero(&balancer, "balancer_backend_up{pool=\"default\",backend=\"b\"}");
    ill.proc.signal(rustix::process::Signal::USR1);
    reaches(&balancer, "balancer_backend_up{pool=\"default\",backend=\"b\"}", 1.0);
    reaches(
        &balancer,
        "balancer_health_checks_total{pool=\"default\",backend=\"b\",result=\"success\"}",
        1.0,
    );
}

fn every_policy_and_decision_is_counted(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0 }))
        .start();
    balancer.limit("127.0.0.2", 1, 0);
    balancer.limit("127.3.0.0/16", 1, 0);
    for (policy, client) in [("client", "127.0.0.2"), ("range", "127.3.0.1"), ("default", "127.0.0.4")] {
        balancer.get_from(client, "/").expect(200);
        balancer.get_from(client, "/").expect(429);
        for decision in ["allowed", "denied"] {
            let series =
                format!("balancer_ratelimit_requests_total{{policy=\"{policy}\",decision=\"{decision}\"}}");
            reaches(&balancer, &series, 1.0);
        }
    }
    reaches(&balancer, "balancer_ratelimit_clients", 3.0);
    let unlimited = Setup::on(engine).backend(backend.address()).start();
    unlimited.get("/").expect(200);
    reaches(&unlimited, "balancer_ratelimit_requests_total{policy=\"none\",decision=\"allowed\"}", 1.0);
}

fn a_full_table_and_a_full_cache_are_counted(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.default", json!({ "capacity": 5, "rate_per_sec": 0 }))
        .set("rate_limit.max_clients", json!(1))
        .set("cache.max_entries", json!(1))
        .start();
    // Where a table is divided, each part has room for one client: of so many, some meet in a part.
    for client in 1..=200u8 {
        balancer.get_from(&format!("127.0.1.{client}"), "/");
    }
    balancer.get_from("127.0.1.200", "/");
    for series in ["overflow_total", "cache_hits_total", "cache_misses_total", "cache_evictions_total"] {
        reaches(&balancer, &format!("balancer_ratelimit_{series}"), 1.0);
    }
}

fn what_is_in_flight_is_shown(engine: Engine) {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        held.wait();
        let _ = stream.write_all(OK);
        Then::Keep
    });
    let balancer =
        Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    let mut all = vec![
        "balancer_http_requests_in_flight",
        "balancer_backend_in_flight{pool=\"default\",backend=\"a\"}",
        "balancer_connections{state=\"busy\"}",
    ];
    if engine == Engine::TinyHttp {
        all.push("balancer_workers_busy");
    }
    for series in all {
        reaches(&balancer, series, 1.0);
    }
    gate.open();
    conn.read("GET").unwrap().expect(200);
    is_zero(&balancer, "balancer_backend_in_flight{pool=\"default\",backend=\"a\"}");
    is_zero(&balancer, "balancer_http_requests_in_flight");
    reaches(&balancer, "balancer_http_request_duration_seconds_count", 1.0);
}

fn methods_are_labels_and_a_client_that_leaves_in_its_answer_had_the_status(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| match seen.request_line().contains("/big") {
        false => {
            // The connection is kept: a POST that meets the end of its connection may not be sent again.
            let _ = stream.write_all(OK);
            Then::Keep
        }
        true => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
            Then::Close
        }
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    for (method, label) in [("POST", "POST"), ("BREW", "other")] {
        Conn::open(balancer.address).ask(method, "/", &[], b"").expect(200);
        let series = format!("balancer_http_requests_total{{method=\"{label}\",code=\"200\"}}");
        reaches(&balancer, &series, 1.0);
    }
    let mut leaver = Conn::open(balancer.address);
    leaver.send(head("GET", "/big", &[], None));
    leaver.read_head("GET").unwrap().expect(200);
    leaver.reset();
    // The status was sent, so that is what is counted.
    reaches(&balancer, "balancer_http_requests_total{method=\"GET\",code=\"200\"}", 1.0);
}

/// The states that only the loops can tell apart, and why they refused a connection.
#[test]
#[cfg(target_os = "linux")]
fn connections_are_counted_by_what_they_do() {
    let backend = Backend::scripted(|seen, stream| match seen.request_line().contains("/socket") {
        true => {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            Then::Hang
        }
        false if seen.request_line().contains("/big") => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
            Then::Close
        }
        false => {
            let _ = stream.write_all(OK);
            Then::Keep
        }
    });
    let balancer =
        Setup::on(Engine::Epoll).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    let mut idle = Conn::open(balancer.address);
    idle.get("/").expect(200);
    reaches(&balancer, "balancer_connections{state=\"idle\"}", 1.0);
    let mut reading = Conn::open(balancer.address);
    reading.send("GET / HT");
    reaches(&balancer, "balancer_connections{state=\"reading\"}", 1.0);
    let mut slow = Conn::open(balancer.address);
    slow.send(head("GET", "/big", &[], None));
    reaches(&balancer, "balancer_connections{state=\"parked\"}", 1.0);
    let mut socket = Conn::open(balancer.address);
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    socket.send(head("GET", "/socket", &fields, None));
    assert_eq!(socket.read_head("GET").unwrap().status, 101);
    reaches(&balancer, "balancer_connections{state=\"relay\"}", 1.0);
}

#[test]
#[cfg(target_os = "linux")]
fn every_reason_to_turn_a_connection_away_is_counted() {
    let backend = Backend::named("a");
    let setup =
        || Setup::on(Engine::Epoll).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0"));
    let crowd = |balancer: &Balancer, count: usize| -> Vec<std::net::TcpStream> {
        (0..count).map(|_| std::net::TcpStream::connect(balancer.address).unwrap()).collect()
    };
    let balancer = setup().set("frontend.max_connections_per_ip", json!(2)).start();
    let _held = crowd(&balancer, 6);
    reaches(&balancer, "balancer_connections_rejected_total{reason=\"max_connections_per_ip\"}", 1.0);

    // A silent connection makes room, one that waits for an answer does not.
    let deaf = Backend::deaf();
    let ask = |balancer: &Balancer| {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("GET", "/", &[], None));
        conn
    };
    let setup_deaf =
        || Setup::on(Engine::Epoll).backend(deaf.address()).set("admin.listen", json!("127.0.0.1:0"));
    let balancer = setup_deaf().set("frontend.max_connections", json!(2)).start();
    let _waiting = [ask(&balancer), ask(&balancer)];
    until("both are at the backend", || (deaf.seen().len() == 2).then_some(()));
    let _held = crowd(&balancer, 6);
    reaches(&balancer, "balancer_connections_rejected_total{reason=\"max_connections\"}", 4.0);
    let balancer = setup()
        .set("frontend.proxy_protocol", json!(true))
        .set("rate_limit.trusted_proxies", json!(["127.0.0.1"]))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let mut wrong = std::net::TcpStream::connect(balancer.address).unwrap();
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = wrong.read(&mut [0; 64]);
    reaches(&balancer, "balancer_connections_rejected_total{reason=\"proxy_protocol\"}", 1.0);
    let balancer = setup_deaf().open_files(120).start();
    let mut waiting = Vec::new();
    until("it is said", || {
        if waiting.len() < 60 {
            waiting.push(ask(&balancer));
        }
        balancer.proc.err().contains("no new connections for now").then_some(())
    });
    waiting.into_iter().for_each(Conn::reset);
    reaches(&balancer, "balancer_connections_rejected_total{reason=\"descriptors\"}", 1.0);
}

/// Every operation by name, and each but `ranges`, which no call asks for, once more with the database gone, so that it fails
/// under its own name.
#[test]
fn every_operation_of_the_store_is_timed_and_its_failure_counted() {
    let Some(mut server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .store(&server.database("series"))
        .backend(backend.address())
        .set("cache.ttl", json!("30s"))
        .start();
    reaches(&balancer, "balancer_store_up", 1.0);
    let clients = std::cell::Cell::new(1u8);
    let limit = json!({ "client_id": "somebody", "capacity": 1, "rate_per_sec": 1 });
    let none = json!(null);
    let ask = |op: &str| match op {
        "create" => balancer.api("POST", "/limits/create", &limit).status,
        "update" => balancer.api("PUT", "/limits/update", &limit).status,
        "get" => balancer.api("GET", "/limits/get?client_id=somebody", &none).status,
        "list" => balancer.api("GET", "/limits", &none).status,
        "delete" => balancer.api("DELETE", "/limits/delete?client_id=somebody", &none).status,
        _ => {
            clients.set(clients.get() + 1);
            balancer.get_from(&format!("127.0.2.{}", clients.get()), "/").expect(200).status
        }
    };
    let operations = ["create", "update", "get", "list", "delete", "load", "ranges"];
    for op in operations {
        assert!(ask(op) < 300, "{op}");
        let count = format!("balancer_store_operation_duration_seconds_count{{op=\"{op}\"}}");
        reaches(&balancer, &count, 1.0);
    }
    reaches(&balancer, "balancer_store_up", 1.0);
    // The watch may notice the outage before the call does, and then the database is not asked any more: tried again.
    for op in &operations[..6] {
        let count = format!("balancer_store_errors_total{{op=\"{op}\"}}");
        until(&count, || {
            server.stop();
            ask(op);
            is_zero(&balancer, "balancer_store_up");
            reaches(&balancer, "balancer_store_errors_total{op=\"probe\"}", 1.0);
            let failed = balancer.metric(&count);
            server.run();
            reaches(&balancer, "balancer_store_up", 1.0);
            (failed >= 1.0).then_some(())
        });
    }
}
