//! Who may call the API on the public port without a token: a process of Balancer's own user on this machine, and no other.
//! Above all, not clients behind a real nginx or HAProxy in its default configuration. Tests with other users need root,
//! and are skipped without it, which they say.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::recipes::{Nginx, nginx};
use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{
    Backend, Balancer, Conn, Engine, Proc, Setup, aloud, installed, request, reserved, skip, until,
};

each_engine! {
    processes_of_other_users_are_refused,
    the_superuser_is_another_user,
    a_caller_that_has_gone_changes_nothing,
    behind_nginx_nobody_is_a_caller,
    behind_haproxy_nobody_is_a_caller,
    http_1_0_and_trusted_proxies_are_no_callers,
    with_a_token_or_a_port_of_its_own_other_users_are_asked_for_nothing_else,
}

/// The number of a user that does not exist.
const OTHER: u32 = 4_242;

/// Our paths on the public port that are not for everybody.
const OURS: [&str; 11] = [
    "/limits",
    "/limits/get?client_id=x",
    "/limits/create",
    "/-/v1/limits",
    "/-/v1/nothing",
    "/-/metrics",
    "/-/openapi.json",
    "/-/dashboard",
    "/-/dashboard.js",
    "/-/dashboard.svg",
    "/-/readyz?verbose",
];

/// Paths that are for everybody.
const OPEN: [&str; 3] = ["/-/livez", "/-/readyz", "/theirs"];

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        aloud("not root: processes of other users were not tried");
    }
    root
}

/// The status that a `curl` of another user gets, and the body.
fn curl_as(user: u32, url: &str, more: &[&str]) -> (String, String) {
    let user = user.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "curl", "-s", "-w", "\n%{http_code}"])
        .args(more)
        .arg(url)
        .current_dir("/")
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn create(url: &str, user: u32) -> String {
    curl_as(
        user,
        &format!("{url}/limits/create"),
        &["-d", r#"{"client_id":"x","capacity":1,"rate_per_sec":1}"#],
    )
    .0
}

#[track_caller]
fn nothing_was_changed(balancer: &Balancer) {
    assert_eq!(balancer.api("GET", "/limits", &Value::Null).expect(200).json()["limits"], json!([]));
}

/// Checks that all our paths are 403 for what comes from that address, asked by that user.
#[track_caller]
fn refused(balancer: &Balancer, url: &str, user: u32) {
    for path in OURS {
        let (status, body) = curl_as(user, &format!("{url}{path}"), &[]);
        assert_eq!(status, "403", "{path}: {body}\n{}", balancer.proc.story());
        assert!(body.contains("admin.token") && body.contains("admin.listen"), "{body}");
    }
    assert_eq!(create(url, user), "403");
    for path in OPEN {
        assert_eq!(curl_as(user, &format!("{url}{path}"), &[]).0, "200", "{path}");
    }
    nothing_was_changed(balancer);
}

fn processes_of_other_users_are_refused(engine: Engine) {
    let backend = Backend::named("a");
    let mut listens = vec![("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")];
    if engine.can(Case::Callers) {
        listens.extend([("[::]:0", "127.0.0.1"), ("[::]:0", "[::1]"), ("0.0.0.0:0", "127.0.0.1")]);
    }
    for (listen, to) in listens {
        let balancer = Setup::on(engine).backend(backend.address()).set("listen", json!(listen)).start();
        let url = format!("http://{to}:{}", balancer.address.port());
        for path in OURS.iter().filter(|path| !path.contains("create") && !path.contains("client_id")) {
            let status = curl(&[&format!("{url}{path}")]);
            let expected = if path.contains("nothing") { "404" } else { "200" };
            assert_eq!(status, expected, "{listen} {to} {path}\n{}", balancer.proc.story());
        }
        if !is_root() {
            continue;
        }
        refused(&balancer, &url, OTHER);
        let said = format!("its socket is user {OTHER}'s, and this process is user 0's");
        balancer.proc.wait_err(0, &said, |line| line.contains(&said));
    }
}

/// The status that our own `curl` gets.
fn curl(args: &[&str]) -> String {
    let output =
        Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(args).output();
    String::from_utf8_lossy(&output.expect("curl").stdout).into_owned()
}

fn the_superuser_is_another_user(engine: Engine) {
    if !is_root() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).run_by(OTHER).start();
    let url = format!("http://{}", balancer.address);
    for path in OURS {
        assert_eq!(curl(&[&format!("{url}{path}")]), "403", "{path}\n{}", balancer.proc.story());
    }
    assert_eq!(curl_as(OTHER, &format!("{url}/limits"), &[]).0, "200");
    assert_eq!(create(&url, OTHER), "201");
    assert_eq!(create(&url, OTHER + 1), "403");
}

/// A client that sends and closes leaves a socket without an owner, which the kernel shows as the superuser's.
fn a_caller_that_has_gone_changes_nothing(engine: Engine) {
    if !is_root() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let body = r#"{"client_id":"x","capacity":1,"rate_per_sec":1}"#;
    let fields = format!("Host: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let script = format!(
        "for _ in $(seq 300); do printf %s \"$0\" >/dev/tcp/127.0.0.1/{} || true; done",
        balancer.address.port()
    );
    let user = OTHER.to_string();
    let status = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "bash", "-c", &script])
        .arg(format!("POST /limits/create HTTP/1.1\r\n{fields}"))
        .current_dir("/")
        .status()
        .expect("bash");
    assert!(status.success());
    balancer.proc.wait_err(0, "they came", |line| line.contains("POST /limits/create"));
    nothing_was_changed(&balancer);
}

/// nginx as Debian runs it: workers of a user of their own, and `proxy_pass` alone, in HTTP/1.0 and in 1.1.
fn behind_nginx_nobody_is_a_caller(engine: Engine) {
    let Some(program) = nginx() else { return };
    if !is_root() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let folder = tempfile::Builder::new().prefix("balancer-it-nginx-").tempdir().expect("a folder");
    let (plain, newer) = (reserved(), reserved());
    let to = balancer.address;
    let http = format!(
        "server {{ listen {plain}; location / {{ proxy_pass http://{to}; }} }}\n\
         server {{ listen {newer}; location / {{ proxy_pass http://{to}; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}\n"
    );
    let config = format!(
        "user nobody nogroup; daemon off; worker_processes 1; pid nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; \
         uwsgi_temp_path u; scgi_temp_path s;\n{http} }}"
    );
    std::fs::write(folder.path().join("nginx.conf"), config).expect("written");
    let _nginx = Nginx::start(&program, folder.path());
    behind(&balancer, &[plain, newer]);
}

/// HAProxy as Debian runs it: a user of its own, `mode http` and nothing about forwarding.
fn behind_haproxy_nobody_is_a_caller(engine: Engine) {
    let program = "/usr/sbin/haproxy";
    let program = if Path::new(program).is_file() { program } else { "haproxy" };
    if !Path::new(program).is_file() && !installed("haproxy") {
        skip(
            "BALANCER_TEST_REQUIRE_HAPROXY",
            "haproxy is not installed",
            "haproxy is not installed: calls through it were not tried",
        );
        return;
    }
    if !is_root() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let folder = tempfile::Builder::new().prefix("balancer-it-haproxy-").tempdir().expect("a folder");
    let listens = reserved();
    let config = format!(
        "global\n  uid {OTHER}\n  gid {OTHER}\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  \
         timeout server 50s\nfrontend f\n  bind {listens}\n  default_backend b\nbackend b\n  server s {}\n",
        balancer.address
    );
    std::fs::write(folder.path().join("haproxy.cfg"), config).expect("written");
    let _haproxy = Proc::start(program, &["-db", "-f", "haproxy.cfg"], folder.path(), &[]);
    behind(&balancer, &[listens]);
}

/// Checks that none of these proxies makes a caller of its client, even though our own user asks it and it reaches a
/// backend.
#[track_caller]
fn behind(balancer: &Balancer, proxies: &[SocketAddr]) {
    for &proxy in proxies {
        until("the proxy listens", || TcpStream::connect(proxy).ok());
        until("the proxy has its backend", || {
            (curl(&[&format!("http://{proxy}/theirs")]) == "200").then_some(())
        });
        refused(balancer, &format!("http://{proxy}"), rustix::process::geteuid().as_raw());
    }
}

fn http_1_0_and_trusted_proxies_are_no_callers(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.trusted_proxies", json!(["127.0.0.9", "::1"]));
    let balancer = setup.start();
    let mut old = Conn::open(balancer.address);
    old.send("GET /limits HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    old.read("GET").expect("an answer").problem(403);
    balancer.get_from("127.0.0.9", "/limits").problem(403);
    balancer.get_from("127.0.0.9", "/-/dashboard").problem(403);
    balancer.get_from("127.0.0.8", "/limits").expect(200);
    // Such a field with `_` for `-` is not passed on, but shows a proxy as well.
    for name in ["X_Original_URL", "X_Forwarded_For", "x-forwarded_host", "X_Real_IP", "X_CLIENT_IP"] {
        request(balancer.address, "GET", "/limits", &[(name, "1")], b"").problem(403);
        request(balancer.address, "GET", "/theirs", &[(name, "1")], b"").expect(200);
    }
    balancer.get("/limits").expect(200);
    // A listener of its own asks for none of it.
    let own = setup.set("admin.listen", json!("127.0.0.1:0")).start();
    let mut old = Conn::open(own.admin);
    old.send("GET /limits HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    old.read("GET").expect("an answer").expect(200);
    Conn::from(IpAddr::from([127, 0, 0, 9]), own.admin).get("/limits").expect(200);
}

fn with_a_token_or_a_port_of_its_own_other_users_are_asked_for_nothing_else(engine: Engine) {
    if !is_root() {
        return;
    }
    let backend = Backend::named("a");
    let token = "correct-horse-battery-staple";
    let balancer = Setup::on(engine).backend(backend.address()).set("admin.token", json!(token)).start();
    let url = format!("http://{}", balancer.address);
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(curl_as(OTHER, &format!("{url}/limits"), &["-H", &bearer]).0, "200");
    assert_eq!(curl_as(OTHER, &format!("{url}/limits"), &[]).0, "401");
    let (status, page) = curl_as(OTHER, &format!("{url}/-/dashboard"), &[]);
    assert!(status == "200" && page.contains("data-token=\"needed\""), "{status} {page}");
    let own = Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    for path in ["/limits", "/", "/metrics"] {
        assert_eq!(curl_as(OTHER, &format!("http://{}{path}", own.admin), &[]).0, "200", "{path}");
    }
}

/// A PROXY header of a trusted peer that names loopback, or no client at all, does not make that client a caller of the
/// API: neither without a token nor by an `admin.allow` of this machine alone.
#[test]
fn whom_a_proxy_header_names_is_no_process_of_this_machine() {
    let backend = Backend::named("a");
    let token = "correct-horse-battery-staple";
    let setup = Setup::on(Engine::Epoll)
        .backend(backend.address())
        .set("frontend.proxy_protocol", json!(true))
        .set("rate_limit.trusted_proxies", json!(["127.0.0.2"]));
    let local_v2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let headers: [Vec<u8>; 5] = [
        b"PROXY TCP4 127.0.0.1 127.0.0.1 4660 80\r\n".to_vec(),
        b"PROXY TCP6 ::1 ::1 4660 80\r\n".to_vec(),
        b"PROXY TCP6 ::ffff:127.0.0.1 ::1 4660 80\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        local_v2,
    ];
    let with_token = setup.clone().set("admin.token", json!(token)).set("database.url", json!("sqlite:t.db"));
    for balancer in [setup.start(), with_token.start()] {
        for header in &headers {
            for path in ["/limits", "/-/v1/limits", "/-/dashboard", "/-/readyz?verbose"] {
                let mut conn = Conn::from("127.0.0.2".parse().expect("an address"), balancer.address);
                let bearer = format!("Bearer {token}");
                let ask = head("GET", path, &[("Host", "127.0.0.1"), ("Authorization", &bearer)], None);
                conn.send([&header[..], &ask[..]].concat());
                conn.read("GET").expect("an answer").problem(403);
            }
        }
        let bearer = format!("Bearer {token}");
        request(balancer.address, "GET", "/limits", &[("Authorization", &bearer)], b"").expect(200);
    }
}
