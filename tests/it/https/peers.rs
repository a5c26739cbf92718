//! Programs of other projects: OpenSSL, curl, nghttp and h2load. Those that are not installed are named; in CI they are
//! required.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::handshakes;
use crate::support::backend::OK;
use crate::support::secure::tls_port;
use crate::support::tls_ends::setup;
use crate::support::{Backend, Balancer, Then, aloud, in_ci, installed, until};

/// Whether all of them are there.
fn have(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|program| !installed(program)).collect();
    assert!(missing.is_empty() || !in_ci(), "{missing:?} are not installed");
    if !missing.is_empty() {
        aloud(&format!("{missing:?} are not installed: TLS was not tried with them"));
    }
    missing.is_empty()
}

/// Runs a program in the balancer's folder, with that input: whether it ended well, and all that it said.
fn run(balancer: &Balancer, program: &str, args: &[&str], input: &[u8]) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(balancer.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // One that ends early takes none of it.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

fn s_client(balancer: &Balancer, more: &[&str]) -> (bool, String) {
    let at = tls_port(balancer).to_string();
    let always = ["s_client", "-connect", &at, "-CAfile", "server.pem", "-verify_return_error", "-ign_eof"];
    run(balancer, "openssl", &[&always[..], more].concat(), REQUEST)
}

#[test]
fn openssl_is_refused_what_is_old_and_served_what_is_not() {
    if !have(&["openssl"]) {
        return;
    }
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    for old in ["-tls1", "-tls1_1"] {
        let (is_well, said) = s_client(&balancer, &[old, "-cipher", "DEFAULT@SECLEVEL=0"]);
        // By the version or by what it cannot offer, whichever is looked at first.
        let is_refused = said.contains("alert protocol version") || said.contains("alert handshake failure");
        assert!(!is_well && is_refused, "{old}: {said}");
    }
    until("both are counted", || (handshakes(&balancer, "failed") == 2.0).then_some(()));
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let names = ["-servername", "a.example", "-verify_hostname", "a.example", version];
        let (is_well, said) = s_client(&balancer, &names);
        assert!(is_well && said.contains("HTTP/1.1 200 OK"), "{said}");
        assert!(said.contains(&format!("New, {name}")) && said.contains("Verification: OK"), "{said}");
    }
    // Without forward secrecy, or without authentication of what is encrypted.
    for weak in ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"] {
        let (is_well, said) = s_client(&balancer, &["-tls1_2", "-cipher", weak]);
        assert!(!is_well && said.contains("handshake failure"), "{weak}: {said}");
    }
}

#[test]
fn openssl_comes_back_by_its_ticket_also_behind_a_reload() {
    if !have(&["openssl"]) {
        return;
    }
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    for version in ["-tls1_2", "-tls1_3"] {
        let (is_well, said) = s_client(&balancer, &[version, "-sess_out", "session"]);
        assert!(is_well && said.contains("New, TLSv1."), "{said}");
        let (is_well, said) = s_client(&balancer, &[version, "-sess_in", "session"]);
        assert!(is_well && said.contains("Reused, TLSv1."), "{said}");
        let reloads = balancer.metric("balancer_config_reloads_total{result=\"success\"}");
        balancer.proc.signal(Signal::HUP);
        until("it is read again", || {
            (balancer.metric("balancer_config_reloads_total{result=\"success\"}") > reloads).then_some(())
        });
        let (is_well, said) = s_client(&balancer, &[version, "-sess_in", "session"]);
        assert!(is_well && said.contains("Reused, TLSv1.") && said.contains("200 OK"), "{said}");
    }
}

#[test]
fn openssl_changes_its_keys() {
    if !have(&["openssl"]) {
        return;
    }
    let backend = Backend::answering(OK);
    let balancer = setup().backend(backend.address()).start();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &tls_port(&balancer).to_string(), "-tls1_3", "-msg"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut wait = |what: &str| assert!(lines.any(|line| line.contains(what)), "no {what}");
    wait("NewSessionTicket");
    // New keys of both directions.
    input.write_all(b"K\n").unwrap();
    wait(">>> TLS 1.3, Handshake [length 0005], KeyUpdate");
    input.write_all(REQUEST).unwrap();
    wait("<<< TLS 1.3, Handshake [length 0005], KeyUpdate");
    wait("HTTP/1.1 200 OK");
    drop(input);
    child.wait().unwrap();
}

/// Gives every body back.
fn echo() -> Backend {
    Backend::scripted(|seen, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        let _ = stream.write_all(&seen.body);
        Then::Keep
    })
}

#[test]
fn curl_speaks_both() {
    if !have(&["curl"]) {
        return;
    }
    let backend = echo();
    let balancer = setup().set("frontend.h2c", json!(true)).backend(backend.address()).start();
    let body: Vec<u8> = (0..3u32 << 20).map(|n| (n ^ n >> 8) as u8).collect();
    std::fs::write(balancer.folder().join("up"), &body).unwrap();
    let port = tls_port(&balancer).port();
    let url = format!("https://a.example:{port}/");
    let plain = format!("http://{}/", balancer.address);
    let resolve = format!("a.example:{port}:127.0.0.1");
    let rows = [
        (&url, "--http1.1", "1.1 200"),
        (&url, "--http2", "2 200"),
        (&plain, "--http1.1", "1.1 200"),
        (&plain, "--http2-prior-knowledge", "2 200"),
    ];
    for (url, flag, told) in rows {
        for more in [&["-T", "up"][..], &["-T", "up", "-H", "Transfer-Encoding: chunked"]] {
            let shown = "%{http_version} %{response_code}";
            let args = [
                "-sS",
                flag,
                "--cacert",
                "server.pem",
                "--resolve",
                &resolve,
                "-o",
                "down",
                "-w",
                shown,
                url,
            ];
            let (is_well, said) = run(&balancer, "curl", &[&args[..], more].concat(), b"");
            assert!(is_well && said == told, "{flag} {more:?}: {said}");
            let down = std::fs::read(balancer.folder().join("down")).unwrap();
            assert!(down == body, "{flag} {more:?}: {} bytes", down.len());
        }
    }
    // Many at once, over one connection.
    let many = format!("https://a.example:{port}/[1-200]");
    let args = [
        "-sS",
        "-Z",
        "--http2",
        "--cacert",
        "server.pem",
        "--resolve",
        &resolve,
        "-w",
        "%{response_code}\n",
        &many,
    ];
    let (is_well, said) = run(&balancer, "curl", &args, b"");
    assert!(is_well && said.lines().filter(|line| *line == "200").count() == 200, "{said}");
}

#[test]
fn large_uploads_may_be_refused_one_after_the_other() {
    if !have(&["h2load"]) {
        return;
    }
    let backend = echo();
    let none = json!({ "capacity": 0, "rate_per_sec": 0 });
    let balancer = setup().backend(backend.address()).set("rate_limit.default", none).start();
    let url = format!("https://localhost:{}/", tls_port(&balancer).port());
    std::fs::write(balancer.folder().join("up"), vec![b'x'; 200_000]).unwrap();
    let args = ["-n", "1000", "-c", "1", "-m", "50", "-d", "up", &url];
    let (is_well, said) = run(&balancer, "h2load", &args, b"");
    assert!(is_well && said.contains("status codes: 0 2xx, 0 3xx, 1000 4xx, 0 5xx"), "{said}");
    assert_eq!(balancer.metric("balancer_http2_abuse_total"), 0.0);
}

#[test]
fn nghttp_and_h2load_are_served() {
    if !have(&["nghttp", "h2load"]) {
        return;
    }
    let backend = echo();
    let balancer = setup().backend(backend.address()).start();
    let url = format!("https://localhost:{}/", tls_port(&balancer).port());
    let body = vec![b'x'; 500_000];
    std::fs::write(balancer.folder().join("up"), &body).unwrap();
    let (is_well, said) = run(&balancer, "nghttp", &["-d", "up", &url], b"");
    assert!(is_well && said.contains(&"x".repeat(500_000)), "{} bytes came", said.len());
    let trailer = ["-nv", "-d", "up", "--trailer", "x-sum: 1", &url];
    let (is_well, said) = run(&balancer, "nghttp", &trailer, b"");
    assert!(is_well && said.contains(":status: 200"), "{said}");
    let (is_well, said) = run(&balancer, "nghttp", &["-nv", "-m", "20", &url], b"");
    assert!(is_well && said.matches(":status: 200").count() == 20 && !said.contains("RST_STREAM"), "{said}");
    for more in [&["-m", "10"][..], &["-m", "100", "-d", "up"], &["--h1"]] {
        let args = [&["-n", "400", "-c", "4"][..], more, &[&url]].concat();
        let (is_well, said) = run(&balancer, "h2load", &args, b"");
        assert!(
            is_well && said.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{more:?}: {said}"
        );
    }
    assert_eq!(balancer.metric("balancer_http2_abuse_total"), 0.0);
}
