//! `/metrics` for real monitoring: a real Prometheus scrapes the real balancer, `promtool` checks the page and the alerts,
//! and every query of the Grafana dashboard returns data.
//!
//! Without Prometheus this is skipped, and says so; `BALANCER_TEST_REQUIRE_PROMETHEUS=1` makes that a failure.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::support::backend::{OK, refusing};
use crate::support::balancer::Echo;
use crate::support::client::head;
use crate::support::secure::{Papers, SecureConn, tls_port, with_tls};
use crate::support::{
    Backend, Balancer, Conn, Proc, Setup, Then, get, installed, request, reserved, root, skip, until,
};

/// What stands for `$__rate_interval`: a few scrapes.
const RATE_INTERVAL: &str = "5s";

fn here() -> bool {
    let here = installed("prometheus") && installed("promtool");
    if !here {
        skip(
            "BALANCER_TEST_REQUIRE_PROMETHEUS",
            "prometheus or promtool is not installed",
            "Prometheus is not installed: skipped",
        );
    }
    here
}

/// Runs `promtool`; gives its exit code and everything that it wrote.
fn promtool(args: &[&str], stdin: &str) -> (Option<i32>, String) {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A value of a `key: value` line of YAML, for every line that has it.
fn values<'a>(yaml: &'a str, key: &str) -> BTreeSet<&'a str> {
    let line = |line: &'a str| line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(": ");
    yaml.lines().filter_map(line).collect()
}

fn deployed(path: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(path)).expect(path)
}

#[test]
fn every_alert_has_a_test_and_a_place_in_the_manual() {
    let (rules, tests) = (deployed("prometheus/alerts.yml"), deployed("prometheus/alerts_test.yml"));
    let manual = std::fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let alerts = values(&rules, "alert");
    assert!(alerts.len() >= 10, "{alerts:?}");
    assert_eq!(alerts, values(&tests, "alertname"));
    for alert in alerts {
        for half in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("name: {alert} {half}\n")), "{alert} {half}");
        }
        assert!(manual.contains(&format!("\n### {alert}\n")), "docs/operations.md says nothing of {alert}");
    }
}

#[test]
fn the_alerts_are_sound_and_fire_when_they_should() {
    if !here() {
        return;
    }
    for args in [
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["test", "rules", "deploy/prometheus/alerts_test.yml"],
    ] {
        let (code, said) = promtool(&args, "");
        assert_eq!(code, Some(0), "promtool {args:?}\n{said}");
        assert!(said.contains("SUCCESS") && !said.contains("FAILED"), "promtool {args:?}\n{said}");
    }
}

/// A balancer to which everything happens that the dashboard shows, again and again.
struct Scene {
    balancer: Balancer,
    tls: SocketAddr,
    client: Arc<ClientConfig>,
    _backends: (Backend, Echo),
}

fn scene() -> Scene {
    let ill = Echo::start(&["--fail-health"]);
    let well = Backend::scripted(|seen, stream| {
        let broken = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        if seen.request_line().contains("/narrow") {
            // Long enough for another request to wait for its place.
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = stream.write_all(if seen.request_line().contains("/broken") { broken } else { OK });
        Then::Keep
    });
    let setup = Setup::auto();
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let narrow = json!({ "name": "narrow", "url": well.url(), "max_in_flight": "auto" });
    let balancer = with_tls(setup, &[papers.pair("default", &["127.0.0.1"])])
        .set("tls.redirect", json!(false))
        .backend(well.address())
        .backend(refusing())
        .backend(ill.address)
        .set(
            "pools",
            json!({ "narrow": { "backends": [narrow], "balancing": { "auto": { "start": 1, "max": 1 } } } }),
        )
        .set("routes", json!([{ "path": "/narrow", "pool": "narrow" }]))
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", json!({ "consecutive": 1, "base_time": "10ms" }))
        .set("health_check", json!({ "path": "/health", "interval": "100ms", "fall": 100, "rise": 1 }))
        .set("rate_limit.default", json!({ "capacity": 2, "rate_per_sec": 5 }))
        .start();
    let (tls, client) = (tls_port(&balancer), papers.client(None));
    Scene { balancer, tls, client, _backends: (well, ill) }
}

impl Scene {
    /// A handful of requests: served, refused, broken, sent again.
    fn traffic(&self) {
        for target in ["/", "/broken", "/", "/"] {
            self.balancer.get(target);
        }
        // Of two at once one waits for the other's place.
        let mut both =
            [127, 128].map(|last| Conn::from(IpAddr::from([127, 0, 0, last]), self.balancer.address));
        both.iter_mut().for_each(|conn| conn.send(head("GET", "/narrow", &[], None)));
        both.iter_mut().for_each(|conn| drop(conn.read("GET")));
        SecureConn::open(self.tls, &self.client, "127.0.0.1").expect("a handshake");
        let limit = json!({ "client_id": "somebody", "capacity": 1, "rate_per_sec": 1 });
        self.balancer.api("POST", "/limits/create", &limit);
        self.balancer.api("DELETE", "/limits/delete?client_id=somebody", &Value::Null);
    }
}

/// Starts a Prometheus on the repository's own configuration, but for the target and the pace.
fn prometheus(folder: &Path, target: SocketAddr) -> (Proc, SocketAddr) {
    let config = deployed("prometheus/prometheus.yml");
    let ours =
        config.replace("127.0.0.1:8080", &target.to_string()).replace("_interval: 15s", "_interval: 250ms");
    assert_eq!(ours.matches("_interval: 250ms").count(), 2, "{config}");
    assert!(ours.contains(&target.to_string()), "{config}");
    std::fs::write(folder.join("prometheus.yml"), ours).expect("written");
    std::fs::write(folder.join("alerts.yml"), deployed("prometheus/alerts.yml")).expect("written");
    // It can't say which port it took.
    let own = reserved();
    let listen = format!("--web.listen-address={own}");
    let args = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn", &listen];
    (Proc::start("prometheus", &args, folder, &[]), own)
}

/// Percent-encodes everything that is not plainly harmless.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// What a query gives right now.
fn query(prometheus: SocketAddr, expression: &str) -> Vec<Value> {
    let target = format!("/api/v1/query?query={}", encoded(expression));
    let answer = get(prometheus, &target).json();
    assert_eq!(answer["status"], "success", "{expression}\n{answer}");
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

/// Every `expr` in the dashboard, as Prometheus takes it.
fn expressions(dashboard: &Value, found: &mut BTreeSet<String>) {
    match dashboard {
        Value::Object(members) => {
            if let Some(expr) = members.get("expr").and_then(Value::as_str) {
                found.insert(expr.replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".*"));
            }
            members.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn a_real_prometheus_scrapes_us_and_the_dashboard_has_data() {
    if !here() {
        return;
    }
    let scene = scene();
    scene.traffic();
    let page = scene.balancer.get("/-/metrics").expect(200).text();
    let (code, said) = promtool(&["check", "metrics"], &page);
    assert_eq!((code, said.as_str()), (Some(0), ""), "promtool check metrics has nothing to say");

    let folder = tempfile::Builder::new().prefix("balancer-it-prom-").tempdir().expect("a folder");
    let (_process, prometheus) = prometheus(folder.path(), scene.balancer.address);
    until("Prometheus is ready", || {
        std::net::TcpStream::connect(prometheus).ok()?;
        (get(prometheus, "/-/ready").status == 200).then_some(())
    });
    let up = "up{job=\"balancer\"} == 1";
    until("the balancer was scraped", || (!query(prometheus, up).is_empty()).then_some(()));

    let dashboard: Value = serde_json::from_str(&deployed("grafana/balancer.json")).expect("JSON");
    let mut left = BTreeSet::new();
    expressions(&dashboard, &mut left);
    assert!(left.len() >= 30, "{left:?}");
    assert!(left.iter().all(|expr| !expr.contains('$')), "{left:?}");
    until("every query of the dashboard gives data", || {
        scene.traffic();
        left.retain(|expr| {
            let numbers = query(prometheus, expr);
            !numbers.iter().any(|sample| sample["value"][1].as_str().is_some_and(|number| number != "NaN"))
        });
        if left.is_empty() { Some(()) } else { None }
    });

    // OpenMetrics is what it asks for first, and what it understood: the type is known for counters without `_total`.
    let metadata = get(prometheus, "/api/v1/metadata?metric=balancer_http_requests").json();
    assert_eq!(metadata["data"]["balancer_http_requests"][0]["type"], "counter", "{metadata}");
    let rules = get(prometheus, "/api/v1/rules").json();
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert_eq!(rules.len(), values(&deployed("prometheus/alerts.yml"), "alert").len());
    until("no rule fails on real data", || {
        let rules = get(prometheus, "/api/v1/rules").json();
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(())
    });
    // The alert about a backend that is down sees the one that is.
    let alerts = until("the alert about a down backend is pending", || {
        let alerts = get(prometheus, "/api/v1/alerts").json()["data"]["alerts"].as_array()?.clone();
        let down = |alert: &Value| alert["labels"]["alertname"] == "BalancerBackendDown";
        alerts.iter().find(|alert| down(alert)).cloned()
    });
    assert_eq!(alerts["labels"]["job"], "balancer", "{alerts}");
}

#[test]
fn a_scraper_without_the_token_is_refused() {
    let backend = Backend::named("a");
    let balancer =
        Setup::auto().backend(backend.address()).set("admin.token", json!("token-of-the-scraper")).start();
    balancer.get("/-/metrics").problem(401);
    let token = [("Authorization", "Bearer token-of-the-scraper")];
    request(balancer.address, "GET", "/-/metrics", &token, b"").expect(200);
}
