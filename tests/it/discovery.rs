//! Backends that are given by name: their addresses follow a name server, and bad answers change nothing.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::names::{NameServer, Says};
use crate::support::{Backend, Balancer, Conn, Engine, Setup, until};

mod srv;

each_engine! {
    addresses_follow_the_name_server_and_bad_answers_keep_them,
    another_name_server_is_asked_after_a_reload,
}

/// Backends on one port of several of this machine's addresses, each named by its address's last number.
fn on_one_port(count: u8) -> (u16, Vec<Backend>) {
    'port: loop {
        let first = TcpListener::bind("127.0.0.11:0").expect("a port");
        let port = first.local_addr().expect("bound").port();
        let mut listeners = vec![first];
        for last in 12..11 + count {
            match TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)) {
                Ok(listener) => listeners.push(listener),
                Err(_) => continue 'port,
            }
        }
        let backends =
            listeners.into_iter().zip(11..).map(|(listener, last)| Backend::named_on(listener, last));
        return (port, backends.collect());
    }
}

fn addresses(lasts: &[u8]) -> Says {
    Says::Addresses(lasts.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect())
}

/// The backends that answer, over a number of requests.
fn answering(balancer: &Balancer, requests: usize) -> Vec<String> {
    let mut seen: Vec<String> = (0..requests).map(|_| balancer.get("/").expect(200).text()).collect();
    seen.sort();
    seen.dedup();
    seen
}

/// How many health checks the backend has passed.
fn checks(balancer: &Balancer) -> f64 {
    balancer.series("balancer_health_checks_total{pool=\"default\",backend=\"a\",result=\"success\"}")
}

fn addresses_follow_the_name_server_and_bad_answers_keep_them(engine: Engine) {
    let (port, backends) = on_one_port(3);
    let server = NameServer::start();
    server.says("app.test", addresses(&[11, 12]));
    let setup = Setup::on(engine)
        .backend_with(json!({ "name": "a", "url": format!("http://app.test:{port}") }))
        .set("balancing.strategy", json!("round_robin"))
        .set("upstream.resolve_interval", json!("100ms"))
        .set("upstream.idle_timeout", json!("1h"))
        .set("discovery.resolver", json!(server.address.to_string()))
        // Each loop has connections of its own.
        .one_loop()
        .set("health_check", json!({ "interval": "1h", "timeout": "20s" }));
    let balancer = setup.start();
    assert_eq!(answering(&balancer, 8), ["11", "12"]);
    let mut kept = Conn::open(balancer.address);
    assert_eq!(checks(&balancer), 2.0);
    let connections = backends[0].connections();

    for bad in [Says::Fails, addresses(&[]), Says::Silent] {
        let before = balancer.proc.err_lines();
        server.says("app.test", bad.clone());
        // A name server that does not answer is waited for, so this takes a while.
        balancer.proc.wait_err(before, "it is said", |line| line.contains("keeping its last addresses"));
        assert_eq!(answering(&balancer, 8), ["11", "12"]);
        let before = balancer.proc.err_lines();
        server.says("app.test", addresses(&[11, 12]));
        balancer
            .proc
            .wait_err(before, "it is said that it is well again", |line| line.contains("resolves now"));
    }
    // One address goes and one comes. The one that stays keeps its connection, its health and its counters.
    server.says("app.test", addresses(&[13, 11]));
    until("it moved", || (answering(&balancer, 8) == ["11", "13"]).then_some(()));
    kept.get("/").expect(200);
    assert_eq!(backends[0].connections(), connections, "it was neither connected to nor checked anew");
    assert_eq!(checks(&balancer), 3.0, "the newcomer's first check");
}

fn another_name_server_is_asked_after_a_reload(engine: Engine) {
    let (port, backends) = on_one_port(2);
    let (one, other) = (NameServer::start(), NameServer::start());
    one.says("app.test", addresses(&[11]));
    other.says("app.test", addresses(&[12]));
    let setup = Setup::on(engine)
        .backend_with(json!({ "name": "a", "url": format!("http://app.test:{port}") }))
        .set("upstream.resolve_interval", json!("1h"));
    let by = |server: &NameServer| setup.clone().set("discovery.resolver", json!(server.address.to_string()));
    let balancer = by(&one).start();
    assert_eq!(answering(&balancer, 2), ["11"]);
    assert!(other.asked() == 0 && one.asked() > 0);
    by(&other).write();
    let answer = balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200).json();
    assert_eq!(answer["changed"], json!(["discovery.resolver"]));
    until("the other one's word counts", || (answering(&balancer, 2) == ["12"]).then_some(()));
    // A new backend has its addresses from the first moment.
    other.says("new.test", addresses(&[11]));
    let entries = json!([{ "name": "n", "url": format!("http://new.test:{port}") }]);
    by(&other).set("backends", entries).write();
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    assert_eq!(answering(&balancer, 4), ["11"]);
    drop(backends);
}
