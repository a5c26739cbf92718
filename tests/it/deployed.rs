//! The files in `deploy/` for systemd and Kubernetes, as far as they can be checked while neither runs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;

use ipnet::IpNet;
use serde_json::Value;

use crate::support::balancer::{PROGRAM, listening};
use crate::support::{Conn, Proc, block, indented, installed, root, skip};

/// Most exposure of the service, in tenths: a little more than `systemd-analyze security` says of it.
const EXPOSURE: &str = "15";

/// Whether `systemd-analyze` is here to judge the units; said aloud where it is not.
fn systemd_analyze() -> bool {
    let here = installed("systemd-analyze");
    if !here {
        skip(
            "BALANCER_TEST_REQUIRE_SYSTEMD",
            "systemd-analyze is not installed",
            "systemd-analyze is not installed: the units were not judged",
        );
    }
    here
}

/// By Debian 12's systemd, 252, where that judges; what later ones alone know must not be there on any machine.
#[test]
fn the_units_load_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = |name: &str| {
        let text = std::fs::read_to_string(root().join("deploy/systemd").join(name)).expect(name);
        assert!(!text.contains("=notify-reload"), "{name}: systemd 252 does not know that type");
        // Whatever stands in ExecStart= has to be there.
        let text = text.replace("/usr/local/bin/balancer", PROGRAM);
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let units = [unit("balancer.service"), unit("balancer.socket")];
    let service = std::fs::read_to_string(&units[0]).expect("the service");
    let wants = service.lines().any(|line| line.starts_with("Wants=") && line.contains("balancer.socket"));
    assert!(wants, "the service alone would listen where the configuration says");
    // And so does what docs/tls.md puts into `systemctl edit balancer.socket`.
    let edited = folder.path().join("balancer.socket.d");
    std::fs::create_dir(&edited).expect("a folder");
    std::fs::write(edited.join("override.conf"), block("tls.md", "balancer.socket")).expect("written");
    if !systemd_analyze() {
        return;
    }
    // The manual page is not installed here.
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--no-pager"])
        .args(units)
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    // It also judges units of this machine that ours wait for; only lines about ours count.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("balancer")).collect();
    assert!(ours.is_empty(), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_unit_is_hardened() {
    if !systemd_analyze() {
        return;
    }
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", &format!("--threshold={EXPOSURE}"), "--no-pager"])
        .arg(root().join("deploy/systemd/balancer.service"))
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Overall exposure level for balancer.service"), "{said}");
}

/// The manifests, and the configuration in their ConfigMap.
fn kubernetes() -> (String, String) {
    let file = std::fs::read_to_string(root().join("deploy/kubernetes/balancer.yaml")).expect("a file");
    let (_, rest) = file.split_once("  config.json: |\n").expect("the ConfigMap");
    let config = indented(rest);
    (file, config)
}

/// What stands behind the first `key: ` of the manifests.
fn value_of<'f>(file: &'f str, key: &str) -> &'f str {
    let line = file
        .lines()
        .find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {key}")).trim_matches('"')
}

/// What we ship keeps the API off the port that clients and their proxies reach.
#[test]
fn what_is_shipped_has_the_api_on_a_port_of_its_own() {
    for (file, word) in [
        ("docker-compose.yml", "BALANCER__ADMIN__LISTEN: 0.0.0.0:9000"),
        ("docker-compose.scale.yml", "BALANCER__ADMIN__LISTEN: 0.0.0.0:9000"),
        ("deploy/systemd/balancer.service", "Environment=BALANCER__ADMIN__LISTEN=127.0.0.1:9000"),
        ("Dockerfile", "BALANCER__ADMIN__LISTEN=127.0.0.1:9000"),
        ("deploy/kubernetes/balancer.yaml", "BALANCER__ADMIN__LISTEN, value: \"0.0.0.0:9000\""),
        ("docs/recipes/behind-nginx.md", "\"admin\": { \"listen\": \"127.0.0.1:9000\" }"),
    ] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        assert!(text.contains(word), "{file}");
    }
}

/// The chart has the program's version. What it renders is judged by `deploy/try-chart.sh`.
#[test]
fn the_chart_is_of_this_version() {
    let chart = std::fs::read_to_string(root().join("deploy/helm/balancer/Chart.yaml")).expect("a chart");
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
        assert!(chart.lines().any(|one| one == line), "{line} in {chart}");
    }
}

/// The configuration inside of the ConfigMap is one, and what the pod waits for fits to it.
#[test]
fn the_configuration_for_kubernetes_is_one() {
    let (file, config) = kubernetes();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), &config).expect("written");
    let token = [("BALANCER_ADMIN_TOKEN".to_owned(), "a-token-for-tests".to_owned())];
    let mut check = Proc::start(PROGRAM, &["check", "--config", "config.json"], folder.path(), &token);
    assert_eq!(check.wait().code(), Some(0), "{config}\n{}", check.story());
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let seconds = |text: &Value| -> u64 {
        text.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok()).expect("whole seconds")
    };
    let number = |key: &str| value_of(&file, key).parse::<u64>().expect(key);
    let leaving = seconds(&config["shutdown_delay"]) + seconds(&config["shutdown_timeout"]);
    assert!(number("terminationGracePeriodSeconds") > leaving + 3, "the pod is killed before it has drained");
    let (_, readiness) = file.split_once("readinessProbe:").expect("a readiness probe");
    assert!(
        value_of(readiness, "periodSeconds").parse::<u64>().unwrap() < seconds(&config["shutdown_delay"])
    );
}

/// One address of each range that pods and nodes have: RFC 1918, RFC 6598 (the big clouds' second choice), RFC 4193.
#[test]
fn every_private_address_is_of_the_cluster() {
    let (_, config) = kubernetes();
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let networks = |list: &Value| -> Vec<IpNet> {
        let text = |net: &Value| net.as_str().and_then(|text| text.parse().ok()).expect("a network");
        list.as_array().expect("a list").iter().map(text).collect()
    };
    let lists = [&config["rate_limit"]["trusted_proxies"], &config["admin"]["allow"]].map(networks);
    for address in
        ["10.244.1.7", "172.16.0.1", "172.31.255.254", "192.168.3.4", "100.64.0.1", "100.127.9.9", "fd00::1"]
    {
        let address: IpAddr = address.parse().expect("an address");
        assert!(lists.iter().all(|list| list.iter().any(|net| net.contains(&address))), "{address}");
    }
    for address in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
        let address: IpAddr = address.parse().expect("an address");
        assert!(lists.iter().flatten().all(|net| !net.contains(&address)), "{address}");
    }
}

/// The address by which others see this machine, if it has one of a private range. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("10.255.255.255:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(v4) if v4.is_private() => Some(v4.into()),
        _ => None,
    }
}

/// With the configuration, the variables and the annotations as they are shipped; only the ports are free ones.
#[test]
fn prometheus_reads_what_the_annotations_name() {
    const TOKEN: &str = "a-token-for-tests";
    let (file, config) = kubernetes();
    assert_eq!(value_of(&file, "prometheus.io/scrape"), "true");
    let (port, path) = (value_of(&file, "prometheus.io/port"), value_of(&file, "prometheus.io/path"));
    let written: Value = serde_json::from_str(&config).expect("JSON");
    let listen: SocketAddr =
        written["admin"]["listen"].as_str().and_then(|at| at.parse().ok()).expect("admin.listen");
    assert!(listen.ip().is_unspecified() && listen.port().to_string() == port, "{listen} {port}");
    assert!(file.contains(&format!("name: admin, containerPort: {port}")), "{port}");

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), &config).expect("written");
    let database = format!("sqlite:{}", folder.path().join("b.db").display());
    let env = [
        ("BALANCER_LISTEN", "127.0.0.1:0"),
        ("BALANCER__ADMIN__LISTEN", "0.0.0.0:0"),
        ("BALANCER_ADMIN_TOKEN", TOKEN),
        ("BALANCER_DATABASE_URL", &database),
        // Kubernetes sets these because there are Services of those names.
        ("BALANCER_PORT", "tcp://10.0.0.1:80"),
        ("BALANCER_ADMIN_PORT", "tcp://10.0.0.2:9000"),
        ("BALANCER_ADMIN_SERVICE_HOST", "10.0.0.2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let proc = Proc::start(PROGRAM, &["run", "--config", "config.json"], folder.path(), &env);
    let admin = listening(&proc.wait_out("admin on http://"));

    let from = [Some("127.0.0.1".parse().expect("an address")), own_address()];
    for address in from.into_iter().flatten() {
        let at = SocketAddr::new(address, admin.port());
        let host = at.to_string();
        let scrape = |target: &str| {
            let fields = [
                ("Host", host.as_str()),
                ("User-Agent", "Prometheus/3.0.0"),
                (
                    "Accept",
                    "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                ("X-Prometheus-Scrape-Timeout-Seconds", "10"),
            ];
            Conn::open(at).ask("GET", target, &fields, b"")
        };
        let page = scrape(path).expect(200);
        assert!(page.text().contains("balancer_build_info"), "{}", page.text());
        // Nothing but the metrics is open.
        scrape("/v1/limits").expect(401);
        scrape("/limits").expect(401);
    }
}
