//! What `deploy/` holds for systemd and Kubernetes, as far as it can be judged without either of them running.

use std::process::Command;

use crate::support::balancer::PROGRAM;
use crate::support::{aloud, installed, root};

/// Most exposure of the service, in tenths; what `systemd-analyze security` said of it when it was written, and some.
const EXPOSURE: &str = "15";

#[test]
fn the_unit_is_hardened() {
    if !installed("systemd-analyze") {
        return aloud("systemd-analyze is not installed: the unit was not judged");
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

/// The configuration inside of the ConfigMap is one, and what the pod waits for fits to it.
#[test]
fn the_configuration_for_kubernetes_is_one() {
    let file = std::fs::read_to_string(root().join("deploy/kubernetes/balancer.yaml")).expect("a file");
    let (_, rest) = file.split_once("  config.json: |\n").expect("the ConfigMap");
    let config: String =
        rest.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, &config).expect("written");
    let output = Command::new(PROGRAM)
        .args(["check", "--config"])
        .arg(&path)
        .env("BALANCER_ADMIN_TOKEN", "a-token")
        .output()
        .expect("balancer check");
    assert!(output.status.success(), "{config}\n{output:?}");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let seconds = |text: &serde_json::Value| -> u64 {
        text.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok()).expect("whole seconds")
    };
    let number = |key: &str| -> u64 {
        let line = file.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key}"))
    };
    let leaving = seconds(&config["shutdown_delay"]) + seconds(&config["shutdown_timeout"]);
    assert!(number("terminationGracePeriodSeconds") > leaving + 3, "the pod is killed before it has drained");
    let (_, readiness) = file.split_once("readinessProbe:").expect("a readiness probe");
    let period =
        readiness.lines().find_map(|line| line.trim().strip_prefix("periodSeconds: ")).expect("a period");
    assert!(period.parse::<u64>().unwrap() < seconds(&config["shutdown_delay"]));
}
