//! Clients and a scanner in Python: httpx and hyper-h2 with HTTP/2, and sslyze.
//!
//! Without them this is skipped, and says so; `BALANCER_TEST_REQUIRE_TLS_PEERS=1` makes that a failure.
//! `BALANCER_TEST_TLS_PYTHON` names the interpreter of a virtual environment that has them.

use std::io::Write;
use std::process::Command;

use crate::support::secure::tls_port;
use crate::support::tls_ends::setup;
use crate::support::{Backend, Balancer, Then, root, skip};

/// The interpreter; `None`, said aloud, where there is none.
fn python() -> Option<String> {
    let named = std::env::var("BALANCER_TEST_TLS_PYTHON").unwrap_or_else(|_| "python3".into());
    let tried = Command::new(&named).args(["-c", "import httpx, h2, sslyze"]).output();
    if tried.is_ok_and(|said| said.status.success()) {
        return Some(named);
    }
    skip(
        "BALANCER_TEST_REQUIRE_TLS_PEERS",
        &format!("{named} has no httpx, h2 or sslyze"),
        "httpx, h2 and sslyze are not installed: TLS was not looked at by others",
    );
    None
}

/// Runs one of our scripts, which says at its end that all is well.
fn run(python: &str, script: &str, args: &[&str], balancer: &Balancer) {
    let output = Command::new(python)
        .arg(root().join("tests/peers").join(script))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(balancer.folder())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim_end() == "all of it is fine",
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        balancer.proc.story()
    );
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
    assert_eq!(balancer.metric("balancer_http2_abuse_total"), 0.0);
}

/// Gives bodies back, and two fields.
fn echo() -> Backend {
    Backend::scripted(|seen, stream| {
        let field = |name: &str| seen.field(name).unwrap_or_default();
        let (echo, cookie) = (field("x-echo"), field("cookie"));
        let body = if echo.is_empty() { &seen.body[..] } else { b"ok" };
        let head = seen.request_line().starts_with("HEAD ");
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nX-Echo: {echo}\r\nX-Cookie: {cookie}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if !head {
            let _ = stream.write_all(body);
        }
        Then::Keep
    })
}

#[test]
fn httpx_speaks_http2() {
    let Some(python) = python() else { return };
    let backend = echo();
    let balancer = setup().backend(backend.address()).start();
    let url = format!("https://{}", tls_port(&balancer));
    run(&python, "httpx_client.py", &[&url, "server.pem"], &balancer);
}

#[test]
fn hyper_h2_finds_no_fault() {
    let Some(python) = python() else { return };
    let backend = echo();
    let balancer = setup().backend(backend.address()).start();
    let at = tls_port(&balancer);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    run(&python, "h2_client.py", &[&host, &port, "server.pem"], &balancer);
}

#[test]
fn sslyze_finds_nothing_but_that_the_certificate_is_signed_by_itself() {
    let Some(python) = python() else { return };
    let backend = echo();
    let balancer = setup().backend(backend.address()).start();
    let output = Command::new(python)
        .args(["-m", "sslyze", "--mozilla_config=intermediate", "--json_out=scan.json"])
        .arg(tls_port(&balancer).to_string())
        .current_dir(balancer.folder())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("COMPLIANCE AGAINST TLS CONFIGURATION"), "{said}");
    let found: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("        * ")).collect();
    // Faults of a certificate that no public authority has signed: its path, and its lifespan.
    let known = ["certificate_path_validation: ", "maximum_certificate_lifespan: "];
    let is_known = |line: &&str| known.iter().any(|known| line.starts_with(known));
    assert!(found.iter().all(is_known), "{said}");
    let scan: serde_json::Value =
        serde_json::from_slice(&std::fs::read(balancer.folder().join("scan.json")).unwrap()).unwrap();
    let result = |of: &str| {
        let scanned = &scan["server_scan_results"][0]["scan_result"][of];
        assert_eq!(scanned["status"], "COMPLETED", "{of}: {scanned}");
        scanned["result"].clone()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        let taken = &result(&format!("{old}_cipher_suites"))["accepted_cipher_suites"];
        assert_eq!(*taken, serde_json::json!([]), "{old}");
    }
    for new in ["tls_1_2", "tls_1_3"] {
        let taken = &result(&format!("{new}_cipher_suites"))["accepted_cipher_suites"];
        assert_eq!(taken.as_array().map(Vec::len), Some(3), "{new}: {taken}");
    }
    for (of, member, expected) in [
        ("tls_compression", "supports_compression", false),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false),
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false),
        ("session_renegotiation", "supports_secure_renegotiation", true),
        ("tls_fallback_scsv", "supports_fallback_scsv", true),
        ("tls_extended_master_secret", "supports_ems_extension", true),
    ] {
        assert_eq!(result(of)[member], expected, "{of}");
    }
    assert_eq!(balancer.metric("balancer_panics_total"), 0.0);
}
