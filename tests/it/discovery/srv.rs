//! `srv://` backends: at the addresses of SRV records, by their weights and priorities (RFC 2782).

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::addresses;
use crate::support::engine::each_engine;
use crate::support::names::{NameServer, Says};
use crate::support::{Backend, Balancer, Engine, Proc, Setup, Then, aloud, installed, until};

each_engine! {
    shares_go_by_weight_and_a_higher_priority_waits_for_all_lower_ones_to_fail,
    another_answer_changes_the_endpoints_that_are_there,
    a_dot_for_a_target_takes_the_addresses_away,
    a_name_server_that_hangs_costs_nothing_that_is_known,
}

const NAME: &str = "_http._tcp.api.test";

/// Answers with its name, and health checks with 503 while it is told to.
struct Node {
    backend: Backend,
    fails: Arc<AtomicBool>,
}

impl Node {
    fn start(name: &'static str) -> Self {
        let fails = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&fails);
        let backend = Backend::scripted(move |seen, stream| {
            let is_bad = own.load(Ordering::SeqCst) && seen.request_line().contains(" /up ");
            let status = if is_bad { "503 No" } else { "200 OK" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            Then::Keep
        });
        Self { backend, fails }
    }

    fn port(&self) -> u16 {
        self.backend.address().port()
    }
}

/// Three nodes on this machine, each the target of an SRV record.
struct Bench {
    server: NameServer,
    nodes: [Node; 3],
}

impl Bench {
    fn start() -> Self {
        let server = NameServer::start();
        for target in ["a.test", "b.test", "c.test"] {
            server.says(target, Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
        }
        Self { server, nodes: ["a", "b", "c"].map(Node::start) }
    }

    /// Sets the SRV records of the three: priority and weight.
    fn says(&self, of: [(u16, u16); 3]) {
        let targets = ["a.test.", "b.test.", "c.test."];
        let record = |((priority, weight), (node, target)): ((u16, u16), (&Node, &'static str))| {
            (priority, weight, node.port(), target)
        };
        let list = of.into_iter().zip(self.nodes.iter().zip(targets)).map(record).collect();
        self.server.says(NAME, Says::Services(list));
    }

    fn setup(&self, engine: Engine) -> Setup {
        Setup::on(engine)
            .backend_with(json!({ "name": "api", "url": format!("srv://{NAME}") }))
            .set("balancing.strategy", json!("round_robin"))
            .set("upstream.resolve_interval", json!("100ms"))
            .set("upstream.idle_timeout", json!("1h"))
            .set("discovery.resolver", json!(self.server.address.to_string()))
            // Each loop has connections of its own.
            .one_loop()
            .set(
                "health_check",
                json!({ "interval": "100ms", "timeout": "20s", "path": "/up", "rise": 1, "fall": 1 }),
            )
    }
}

/// How often each backend answers, of that many requests.
fn shares(balancer: &Balancer, requests: usize) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        *counts.entry(balancer.get("/").expect(200).text()).or_default() += 1;
    }
    counts
}

fn only(name: &str) -> HashMap<String, usize> {
    HashMap::from([(name.to_owned(), 8)])
}

fn shown(balancer: &Balancer) -> Value {
    balancer.api("GET", "/-/v1/backends/api", &Value::Null).expect(200).json()
}

fn shares_go_by_weight_and_a_higher_priority_waits_for_all_lower_ones_to_fail(engine: Engine) {
    let bench = Bench::start();
    let [a, b, c] = &bench.nodes;
    bench.says([(10, 1), (10, 3), (20, 0)]);
    let balancer = bench.setup(engine).start();
    assert_eq!(shares(&balancer, 80), HashMap::from([("a".into(), 20), ("b".into(), 60)]));

    let told = shown(&balancer);
    assert_eq!(told["url"], format!("srv://{NAME}"));
    for (node, tier, weight) in [(a, 0, 0.5), (b, 0, 1.5), (c, 1, 1.0)] {
        let address = node.backend.address().to_string();
        let list = told["endpoints"].as_array().expect("a list");
        let one = list.iter().find(|one| one["address"] == address).expect("listed");
        assert_eq!((&one["tier"], &one["weight"]), (&json!(tier), &json!(weight)), "{told}");
        // Checks name the service's domain, and clients' requests what the client named.
        let seen = node.backend.seen();
        let check = seen.iter().find(|one| one.request_line().contains(" /up ")).expect("checked");
        assert_eq!(check.field("host").as_deref(), Some("api.test"));
    }

    for (node, next) in [(b, "a"), (a, "c")] {
        node.fails.store(true, Ordering::SeqCst);
        until("nobody else is left", || (shares(&balancer, 8) == only(next)).then_some(()));
    }
    a.fails.store(false, Ordering::SeqCst);
    until("the first is back", || (shares(&balancer, 8) == only("a")).then_some(()));
    b.fails.store(false, Ordering::SeqCst);
    let both = HashMap::from([("a".to_owned(), 2), ("b".to_owned(), 6)]);
    until("both are back", || (shares(&balancer, 8) == both).then_some(()));
}

fn another_answer_changes_the_endpoints_that_are_there(engine: Engine) {
    let bench = Bench::start();
    let [a, b, c] = &bench.nodes;
    bench.says([(10, 1), (10, 3), (20, 0)]);
    let setup = bench.setup(engine).set("health_check", json!({ "interval": "1h", "timeout": "20s" }));
    let balancer = setup.start();
    assert_eq!(shares(&balancer, 8), HashMap::from([("a".into(), 2), ("b".into(), 6)]));
    let connections = || [a, b, c].map(|node| node.backend.connections());
    let before = connections();

    let skip = balancer.proc.err_lines();
    bench.says([(1, 3), (1, 1), (2, 0)]);
    let swapped = HashMap::from([("a".to_owned(), 6), ("b".to_owned(), 2)]);
    until("the weights are the others'", || (shares(&balancer, 8) == swapped).then_some(()));
    let (_, line) = balancer.proc.wait_err(skip, "it is said", |line| line.contains("another weight"));
    for part in [NAME, &a.backend.address().to_string(), &b.backend.address().to_string()] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains(&c.backend.address().to_string()), "{line}");
    assert_eq!(connections(), before, "none was connected to or checked anew");

    // Priorities change places, and one goes.
    bench.server.says(NAME, Says::Services(vec![(2, 0, a.port(), "a.test."), (1, 0, c.port(), "c.test.")]));
    until("the spare one comes first", || (shares(&balancer, 8) == only("c")).then_some(()));
    let told = shown(&balancer);
    assert_eq!(told["endpoints"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(connections()[0], before[0]);

    // A target that can't be looked up keeps its place while it is named.
    let skip = balancer.proc.err_lines();
    bench.server.says("c.test", Says::Fails);
    balancer.proc.wait_err(skip, "it is said", |line| line.contains("c.test. keeps its last addresses"));
    assert_eq!(shares(&balancer, 8), only("c"));
    bench.server.says("c.test", Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
    balancer.proc.wait_err(skip, "it is well again", |line| line.contains("resolves now"));
}

fn a_dot_for_a_target_takes_the_addresses_away(engine: Engine) {
    let bench = Bench::start();
    bench.says([(0, 0), (0, 0), (1, 0)]);
    let balancer = bench.setup(engine).start();
    shares(&balancer, 2);
    bench.server.says(NAME, Says::Services(vec![(0, 0, 0, ".")]));
    until("nobody is left", || (balancer.get("/").status == 503).then_some(()));
    let told = shown(&balancer);
    assert_eq!((&told["up"], &told["endpoints"]), (&json!(false), &json!([])));
    let cause = told["cause"].as_str().expect("a cause").to_owned();
    assert!(cause.contains("not available") && cause.contains(NAME), "{cause}");
    balancer.proc.wait_err(0, "it is said", |line| line.contains(&cause) && line.contains("api is down"));
    bench.says([(0, 0), (0, 0), (1, 0)]);
    until("they are back", || (balancer.get("/").status == 200).then_some(()));
    balancer.proc.wait_err(0, "it is said", |line| line.contains("resolves now"));
}

fn a_name_server_that_hangs_costs_nothing_that_is_known(engine: Engine) {
    let bench = Bench::start();
    bench.server.says(NAME, Says::Silent);
    // Nothing is known at the start, which waits as long as for a check: that is said, and requests are refused.
    let balancer = bench.setup(engine).set("health_check.timeout", json!("1s")).start();
    balancer.get("/").problem(503);
    balancer.proc.wait_err(0, "it is said", |line| line.contains("api is down") && line.contains(NAME));
    assert!(shown(&balancer)["cause"].as_str().is_some_and(|cause| cause.contains("timed out")));
    bench.says([(0, 0), (0, 0), (1, 0)]);
    until("they are there", || (balancer.get("/").status == 200).then_some(()));

    for bad in [Says::Silent, Says::Fails, Says::Services(Vec::new()), addresses(&[12])] {
        let skip = balancer.proc.err_lines();
        bench.server.says(NAME, bad);
        balancer.proc.wait_err(skip, "it is said", |line| line.contains("keeping its last addresses"));
        assert_eq!(shares(&balancer, 8), HashMap::from([("a".into(), 4), ("b".into(), 4)]));
        bench.says([(0, 0), (0, 0), (1, 0)]);
        balancer.proc.wait_err(skip, "it is well again", |line| line.contains("resolves now"));
    }
}

/// Without `discovery.resolver` those of /etc/resolv.conf are asked, which this process sees as it should be.
#[test]
fn the_systems_name_servers_are_asked_when_no_other_is_named() {
    const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 7, 53)), 53);
    if !rustix::process::geteuid().is_root() || !installed("unshare") || !installed("nsenter") {
        return aloud("skipped: another resolv.conf needs root, unshare and nsenter");
    }
    let Ok(socket) = UdpSocket::bind(SERVER) else { return aloud("skipped: port 53 can't be had") };
    let bench = Bench { server: NameServer::on(socket), nodes: ["a", "b", "c"].map(Node::start) };
    for target in ["a.test", "b.test", "c.test"] {
        bench.server.says(target, Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
    }
    bench.says([(0, 1), (0, 3), (1, 0)]);
    let setup = bench.setup(Engine::Epoll).set("discovery.resolver", Value::Null);
    let file = setup.folder().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", SERVER.ip())).expect("written");
    let script = format!(
        "mount --bind '{}' /etc/resolv.conf && echo mounted && exec sleep 1000 || echo refused",
        file.display()
    );
    let holder = Proc::start("unshare", &["-m", "sh", "-c", &script], setup.folder(), &[]);
    if holder.wait_out("").contains("refused") {
        return aloud(&format!("skipped: a file may not be mounted: {}", holder.err()));
    }
    let balancer = setup.with_mounts_of(holder.pid()).start();
    assert_eq!(shares(&balancer, 8), HashMap::from([("a".into(), 2), ("b".into(), 6)]));
}
