//! The recipes of `docs/`, as they are written there, some with a real nginx. Without nginx those are skipped, and say so;
//! `BALANCER_TEST_REQUIRE_NGINX=1` makes that a failure.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::balancer::PROGRAM;
use crate::support::{Backend, Conn, Proc, Setup, aloud, block, installed, reserved, skip, until};

/// nginx, where Debian puts it or in `PATH`.
pub fn nginx() -> Option<PathBuf> {
    let sbin = PathBuf::from("/usr/sbin/nginx");
    let found = if sbin.is_file() { Some(sbin) } else { installed("nginx").then(|| "nginx".into()) };
    if found.is_none() {
        skip(
            "BALANCER_TEST_REQUIRE_NGINX",
            "nginx is not installed",
            "nginx is not installed: the recipes were not tried",
        );
    }
    found
}

/// An nginx on the `nginx.conf` of a folder, in the foreground. Its workers outlive a master that is killed, so it is told to
/// end and awaited.
pub struct Nginx(Proc);

impl Nginx {
    pub fn start(program: &Path, folder: &Path) -> Self {
        let (program, prefix) = (program.to_str().expect("UTF-8"), folder.to_str().expect("UTF-8"));
        Self(Proc::start(program, &["-p", prefix, "-c", "nginx.conf"], folder, &[]))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A test that has failed already ends as it can.
        if !std::thread::panicking() {
            self.0.signal(Signal::TERM);
            self.0.wait();
        }
    }
}

/// Runs nginx in the foreground with that inside of its `http` block, and waits until it listens.
fn run(program: &Path, folder: &Path, http: &str, listens: SocketAddr) -> Nginx {
    let config = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr;\n{}events {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n{http}\n}}\n",
        if rustix::process::geteuid().is_root() { "user root;\n" } else { "" }
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("written");
    let nginx = Nginx::start(program, folder);
    until("nginx listens", || TcpStream::connect(listens).ok());
    nginx
}

#[test]
fn behind_nginx_with_tls_clients_are_who_they_are() {
    let Some(program) = nginx() else { return };
    let backend = Backend::named("hello");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("rate_limit.trusted_proxies", json!(["127.0.0.1"]))
        .set("rate_limit.default", json!({ "capacity": 2, "rate_per_sec": 0 }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("log.access", json!(true))
        .start();
    let folder = tempfile::Builder::new().prefix("balancer-it-nginx-").tempdir().expect("a folder");
    let (key, certificate) = (folder.path().join("key"), folder.path().join("pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=app.example",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let listens = reserved();
    let written = block("recipes/behind-nginx.md", "nginx.conf");
    let ours = written
        .replace("127.0.0.1:8080", "BALANCER")
        .replace("listen 443 ssl", "listen LISTENS ssl")
        .replace("/etc/ssl/app.example.pem", certificate.to_str().expect("UTF-8"))
        .replace("/etc/ssl/app.example.key", key.to_str().expect("UTF-8"));
    // Checked before the ports are filled in, since those may hold any digits.
    assert!(!ours.contains(":8080") && !ours.contains("443") && !ours.contains("/etc/ssl"), "{ours}");
    let ours =
        ours.replace("BALANCER", &balancer.address.to_string()).replace("LISTENS", &listens.to_string());
    let _nginx = run(&program, folder.path(), &ours, listens);
    let status = |client: &str, target: &str, forwarded: Option<&str>| -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--interface", client]);
        if let Some(forwarded) = forwarded {
            curl.args(["-H", &format!("X-Forwarded-For: {forwarded}")]);
        }
        let output = curl.arg(format!("https://{listens}{target}")).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Two clients, a bucket each; one that names another address in every request still has its own.
    for (client, forwarded) in [("127.0.0.5", None), ("127.0.0.6", Some("192.0.2."))] {
        let seen: Vec<String> = (0..3)
            .map(|number| status(client, "/who", forwarded.map(|net| format!("{net}{number}")).as_deref()))
            .collect();
        assert_eq!(seen, ["200", "200", "429"], "{client}");
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen[0].all("x-forwarded-for"), ["127.0.0.5, 127.0.0.1"]);
    let line: Value = serde_json::from_str(&balancer.proc.wait_out("\"path\":\"/who\"")).expect("JSON");
    assert_eq!((&line["client_addr"], &line["client_id"]), (&json!("127.0.0.5"), &json!("127.0.0.5")));
    assert_eq!(line["request_id"].as_str().map(str::len), Some(32), "nginx' own id: {line}");
    // The API is not behind nginx: that path is a backend's.
    assert_eq!(status("127.0.0.7", "/limits", None), "200");
    assert!(backend.seen().last().is_some_and(|seen| seen.request_line().contains("/limits")));
}

/// The same clients, the same requests, in the same order, to nginx' `limit_req` and to us.
#[test]
fn what_limit_req_lets_through_we_let_through() {
    let Some(program) = nginx() else { return };
    let backend = Backend::named("hello");
    for (burst, rate, asked) in [
        ("burst=20 nodelay", "10r/s", 40),
        ("burst=10 nodelay", "6r/m", 30),
        ("", "6r/m", 5),
        ("burst=3 nodelay", "30r/m", 9),
    ] {
        let extra =
            burst.trim_start_matches("burst=").trim_end_matches(" nodelay").parse::<u32>().unwrap_or(0);
        let (number, unit) = rate.split_once("r/").expect("a rate");
        let a_minute: f64 = number.parse::<f64>().expect("a rate") * if unit == "s" { 60.0 } else { 1.0 };
        let default = json!({ "capacity": extra + 1, "rate_per_sec": a_minute / 60.0 });
        if unit == "s" {
            // The pair that the page shows.
            let (theirs, ours) =
                (block("migrate/nginx.md", "nginx.conf"), block("migrate/nginx.md", "config.json"));
            assert!(
                theirs.contains(&format!("rate={rate};")) && theirs.contains(&format!(" {burst};")),
                "{theirs}"
            );
            let ours: Value = serde_json::from_str(&format!("{{{ours}}}")).expect("JSON");
            let numbers = |value: &Value| [&value["capacity"], &value["rate_per_sec"]].map(Value::as_f64);
            assert_eq!(numbers(&ours["rate_limit"]["default"]), numbers(&default));
        }
        let balancer = Setup::auto().backend(backend.address()).set("rate_limit.default", default).start();
        let folder = tempfile::Builder::new().prefix("balancer-it-nginx-").tempdir().expect("a folder");
        let listens = reserved();
        let http = format!(
            "limit_req_zone $binary_remote_addr zone=per_ip:1m rate={rate};\nserver {{ listen {listens};\n\
             location / {{ limit_req zone=per_ip {burst}; limit_req_status 429; proxy_pass http://{}; }} }}",
            backend.address()
        );
        let _nginx = run(&program, folder.path(), &http, listens);
        let begun = std::time::Instant::now();
        for client in ["127.0.0.8", "127.0.0.9"] {
            let statuses = |to: SocketAddr| -> Vec<u16> {
                let source = client.parse().expect("an address");
                (0..asked).map(|_| Conn::from(source, to).get("/").status).collect()
            };
            let (theirs, ours) = (statuses(listens), statuses(balancer.address));
            // Meanwhile a token may have come back to either, on a machine that is busy with something else.
            let earned = (begun.elapsed().as_secs_f64() * a_minute / 60.0) as usize;
            let passed = |all: &[u16]| all.iter().filter(|status| **status == 200).count();
            let due = usize::try_from(extra).expect("small") + 1;
            for (who, all) in [("nginx", &theirs), ("we", &ours)] {
                assert!((due..=due + earned).contains(&passed(all)), "{who}: {all:?}, {burst} {rate}");
                assert!(all[..due].iter().all(|status| *status == 200), "{who}: {all:?}, {burst} {rate}");
            }
            if earned == 0 {
                assert_eq!(theirs, ours, "{burst} {rate}");
            }
        }
    }
}

/// The page's steps from nothing to a certificate that somebody signed, at other places and ports, without systemd and
/// without an authority.
#[test]
fn https_from_the_first_certificate_to_the_next() {
    if !installed("openssl") || !installed("curl") {
        return aloud("openssl or curl is not installed: the recipe for TLS was not tried");
    }
    let (app, acme) = (Backend::named("hello"), Backend::named("challenge"));
    let folder = tempfile::Builder::new().prefix("balancer-it-tls-").tempdir().expect("a folder");
    let place = folder.path().to_str().expect("UTF-8");
    let group = rustix::process::getgid().as_raw().to_string();
    // Our folder and our group instead of root's.
    let here = |text: &str| {
        let text = text.replace("sudo ", "").replace("/etc/balancer", place);
        text.replace("-g balancer", &format!("-g {group}"))
            .replace("chgrp balancer", &format!("chgrp {group}"))
    };
    let shell = |script: &str, env: &[(&str, &str)]| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-ec", script]).envs(env.iter().copied()).output().expect("sh");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let make = |name: &str| shell(&here(&block("tls.md", "first")).replace("/tls", &format!("/{name}")), &[]);
    make("tls");
    let config = here(&block("tls.md", "config.json"))
        .replace("0.0.0.0:80", "127.0.0.1:0")
        .replace("0.0.0.0:443", "127.0.0.1:0")
        .replace("http://127.0.0.1:9001", &app.url())
        .replace("http://127.0.0.1:8888", &acme.url());
    assert!(!config.contains("/etc/") && !config.contains("0.0.0.0"), "{config}");
    std::fs::write(folder.path().join("config.json"), config).expect("written");
    let proc = Proc::start(PROGRAM, &["run"], folder.path(), &[]);
    let port = |scheme: &str| {
        let line = proc.wait_out(&format!("listening on {scheme}://"));
        line.trim().rsplit(':').next().expect("a port").to_owned()
    };
    let (plain, secure) = (port("http"), port("https"));
    // What a client gets that trusts the certificate in that folder alone, and whether it got anything.
    let curl = |trusts: &str, url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sSL", "--cacert", &format!("{place}/{trusts}/fullchain.pem")]);
        for port in [&plain, &secure] {
            curl.args(["--resolve", &format!("app.example:{port}:127.0.0.1")]);
        }
        let output = curl.arg(url).output().expect("curl");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let site = format!("https://app.example:{secure}/");
    assert_eq!(curl("tls", &site).as_deref(), Some("hello"));
    // As an authority asks, by way of the redirect.
    let asked = format!("http://app.example:{plain}/.well-known/acme-challenge/token");
    assert_eq!(curl("tls", &asked).as_deref(), Some("challenge"));

    let hook = here(&block("tls.md", "hook"))
        .replace("systemctl reload balancer", &format!("kill -HUP {}", proc.pid()));
    for (name, cert, key) in [
        ("certbot", "RENEWED_LINEAGE", None),
        ("lego", "LEGO_HOOK_CERT_PATH", Some("LEGO_HOOK_CERT_KEY_PATH")),
        ("lego4", "LEGO_CERT_PATH", Some("LEGO_CERT_KEY_PATH")),
    ] {
        make(name);
        assert_eq!(curl(name, &site), None, "the one before is still shown");
        let made = format!("{place}/{name}");
        let (chain, private) = (format!("{made}/fullchain.pem"), format!("{made}/privkey.pem"));
        match key {
            None => shell(&hook, &[(cert, &made)]),
            Some(key) => shell(&hook, &[(cert, &chain), (key, &private)]),
        };
        until("the new one is shown", || curl(name, &site).map(|body| assert_eq!(body, "hello")));
    }
    let expiry = block("tls.md", "expiry").replace("app.example:443", &format!("127.0.0.1:{secure}"));
    assert!(shell(&expiry, &[]).starts_with("notAfter="));
}
