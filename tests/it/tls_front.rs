//! TLS with clients, over real sockets: which certificate they are shown, how a changed one comes into force, which clients
//! are let in, and what the plain port does.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::balancer::PROGRAM;
use crate::support::secure::{Papers, SecureConn, tls_port, with_tls};
use crate::support::{Backend, Balancer, Conn, Engine, Proc, Setup, request, reserved, until};

fn setup() -> Setup {
    Setup::on(Engine::Epoll)
}

/// The first line of the access log whose path is that.
fn logged(balancer: &Balancer, path: &str) -> Value {
    let line = balancer.proc.wait_out(&format!("\"path\":\"{path}\""));
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address()).set("log.access", json!(true));
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let pairs = [
        papers.pair("default", &["default.test", "127.0.0.1"]),
        papers.pair("wild", &["*.a.test"]),
        papers.pair("exact", &["www.a.test"]),
    ];
    let balancer = with_tls(setup, &pairs).start();
    let (port, client) = (tls_port(&balancer), papers.client(None));
    for (name, expected) in
        [("default.test", "default"), ("x.a.test", "wild"), ("www.a.test", "exact"), ("127.0.0.1", "default")]
    {
        let mut conn = SecureConn::open(port, &client, name).expect("a handshake");
        assert_eq!(conn.shown(), papers.der(expected), "{name}");
        assert_eq!(conn.get(name, &format!("/{name}")).expect("an answer").body, "a");
        let line = logged(&balancer, &format!("/{name}"));
        let sni = if name == "127.0.0.1" { Value::Null } else { json!(name) };
        assert_eq!(
            [&line["tls_version"], &line["sni"], &line["protocol"]],
            [&json!("TLSv1.3"), &sni, &json!("HTTP/1.1")]
        );
        assert!(line["tls_cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")), "{line}");
    }
    // No certificate is for that name: the default's is shown, and this client does not take it.
    let error = SecureConn::open(port, &client, "elsewhere.test").err().expect("no handshake");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    assert!(backend.seen().iter().all(|seen| seen.field("x-forwarded-proto").as_deref() == Some("https")));
    for (result, count) in [("ok", 4.0), ("failed", 1.0)] {
        // The client knows of it before this end does.
        until("every handshake is counted", || {
            let series = format!("balancer_tls_handshakes_total{{result=\"{result}\"}}");
            (balancer.metric(&series) == count).then_some(())
        });
    }
    let metrics = balancer.api("GET", "/-/metrics", &json!(null)).expect(200).text();
    for name in ["default.test", "*.a.test", "www.a.test"] {
        assert!(
            metrics
                .contains(&format!("balancer_tls_certificate_expiry_timestamp_seconds{{name=\"{name}\"}} "))
        );
    }
    let status = balancer.api("GET", "/-/v1/status", &json!(null)).json();
    assert_eq!(status["tls"]["certificates"][2]["names"], json!(["www.a.test"]), "{status}");
}

#[test]
fn a_reload_shows_new_certificates_and_a_broken_pair_changes_nothing() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address());
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let pair = papers.pair("site", &["a.test"]);
    let balancer = with_tls(setup, &[pair]).start();
    let (port, client) = (tls_port(&balancer), papers.client(None));
    // A client of its own: one that comes back by a ticket is shown nothing.
    let shown = || SecureConn::open(port, &papers.client(None), "a.test").expect("a handshake").shown();
    let mut kept = SecureConn::open(port, &client, "a.test").expect("a handshake");
    let first = papers.der("site");
    assert_eq!(shown(), first);
    papers.pair("site", &["a.test"]);
    assert_eq!(shown(), first, "nothing was read yet");
    let lines = balancer.proc.err_lines();
    balancer.proc.signal(Signal::HUP);
    let (lines, _) = balancer.proc.wait_err(lines, "the reload", |line| line.contains("SIGHUP: reloaded"));
    assert_eq!(shown(), papers.der("site"));
    assert_eq!(kept.get("a.test", "/").expect("it was not lost").body, "a");
    // A key that does not fit.
    let second = papers.der("site");
    papers.pair("other", &["a.test"]);
    std::fs::copy(folder.join("other.key"), folder.join("site.key")).expect("copied");
    balancer.proc.signal(Signal::HUP);
    balancer.proc.wait_err(lines, "the fault", |line| {
        line.contains("tls.certificates[0].key") && line.contains("does not fit the first certificate of")
    });
    assert_eq!(shown(), second);
    assert_eq!(kept.get("a.test", "/").expect("it was not lost").body, "a");
}

#[test]
fn files_that_change_are_taken_within_a_minute_without_a_word() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address()).set("frontend.idle_timeout", json!("5m"));
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let pair = papers.pair("site", &["a.test"]);
    let balancer = with_tls(setup, &[pair]).start();
    let (port, client) = (tls_port(&balancer), papers.client(None));
    let mut kept = SecureConn::open(port, &client, "a.test").expect("a handshake");
    // A connection that never sent a request would not be kept for so long.
    assert_eq!(kept.get("a.test", "/").expect("an answer").body, "a");
    papers.pair("site", &["a.test"]);
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        let shown = SecureConn::open(port, &papers.client(None), "a.test").expect("a handshake").shown();
        if shown == papers.der("site") {
            break;
        }
        assert!(Instant::now() < deadline, "still the old certificate");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The line is written after the new certificates are in force.
    balancer.proc.wait_err(0, "its word", |line| line.contains("tls: certificates were read again"));
    assert_eq!(kept.get("a.test", "/").expect("it was not lost").body, "a");
}

#[test]
fn the_plain_port_leads_to_the_other_one_and_answers_what_is_ours() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address()).set("rate_limit.trusted_proxies", json!(["127.0.0.9"]));
    let folder = setup.folder().to_owned();
    let pair = Papers::named(&folder, "ca").pair("site", &["a.test"]);
    let setup = with_tls(setup, &[pair]);
    let balancer = setup.start();
    let port = tls_port(&balancer).port();
    let answer = Conn::open(balancer.address).ask("POST", "/x?y=%20", &[("Host", "a.test:80")], b"body");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.field("location"), Some(&*format!("https://a.test:{port}/x?y=%20")));
    for target in ["/-/livez", "/-/v1/status", "/limits"] {
        balancer.get(target).expect(200);
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    // A proxy in front received the request over TLS.
    let by_tls = [("Host", "a.test"), ("X-Forwarded-Proto", "https")];
    let from = |source: &str| {
        Conn::from(source.parse().expect("an address"), balancer.address).ask("GET", "/", &by_tls, b"")
    };
    assert_eq!(from("127.0.0.9").status, 200);
    assert_eq!(from("127.0.0.8").status, 308);
    // A reload puts the change in force.
    setup.set("tls.redirect", json!(false)).write();
    balancer.proc.signal(Signal::HUP);
    until("the plain port serves", || (balancer.get("/").status == 200).then_some(()));
}

#[test]
fn certificates_of_clients_are_asked_for_and_are_keys_of_limits() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address()).set("log.access", json!(true));
    let folder = setup.folder().to_owned();
    let (papers, strange) = (Papers::named(&folder, "ca"), Papers::named(&folder, "strange"));
    let pair = papers.pair("site", &["a.test"]);
    papers.pair("one", &["one.test"]);
    papers.pair("two", &["two.test"]);
    strange.pair("three", &["one.test"]);
    let setup = with_tls(setup, &[pair])
        .set("rate_limit.key", json!(["cert", "cert:san"]))
        .set("tls.client_auth", json!({ "ca": "ca.pem", "mode": "optional" }));
    let balancer = setup.start();
    let port = tls_port(&balancer);
    let cert = format!("cert:{}", hex::encode(&Sha256::digest(papers.der("one"))[..16]));
    balancer.limit(&cert, 1, 0);
    balancer.limit("san=two.test", 2, 0);
    let ask = |own: Option<&str>, path: &str| {
        let mut conn = SecureConn::open(port, &papers.client(own), "a.test")?;
        conn.get("a.test", path).map(|answer| answer.status)
    };
    for (own, path, status, id) in [
        (Some("one"), "/1", 200, &*cert),
        (Some("one"), "/2", 429, &cert),
        (Some("two"), "/3", 200, "san=two.test"),
        (Some("two"), "/4", 200, "san=two.test"),
        (Some("two"), "/5", 429, "san=two.test"),
        (None, "/6", 200, "127.0.0.1"),
    ] {
        assert_eq!(ask(own, path).expect("an answer"), status, "{path}");
        assert_eq!(logged(&balancer, path)["client_id"], id, "{path}");
    }
    assert!(ask(Some("three"), "/").is_err(), "its chain leads elsewhere");
    setup.set("tls.client_auth.mode", json!("required")).write();
    let lines = balancer.proc.err_lines();
    balancer.proc.signal(Signal::HUP);
    balancer.proc.wait_err(lines, "the reload", |line| line.contains("SIGHUP: reloaded"));
    assert!(ask(None, "/").is_err(), "it shows no certificate");
    assert_eq!(ask(Some("one"), "/").expect("an answer"), 429);
}

#[test]
fn a_tls_port_alone_will_do_and_is_asked_for_its_health() {
    let backend = Backend::named("a");
    // Not port 0: the health check asks at the port that stands in the file.
    let port = reserved();
    let setup = setup().backend(backend.address());
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let pair = papers.pair("site", &["a.test"]);
    let setup =
        with_tls(setup, &[pair]).set("listen", json!(null)).set("tls.listen", json!(port.to_string()));
    let mut proc = setup.launch();
    proc.wait_out(&format!("listening on https://{port}"));
    assert!(!proc.out().contains("http://"), "{}", proc.out());
    let mut conn = SecureConn::open(port, &papers.client(None), "a.test").expect("a handshake");
    assert_eq!(conn.get("a.test", "/").expect("an answer").body, "a");
    let config = folder.join("config.json");
    let asked = std::process::Command::new(PROGRAM).arg("healthcheck").arg("--config").arg(config).output();
    let asked = asked.expect("it starts");
    assert!(asked.status.success(), "{asked:?}");
    drop(conn);
    proc.signal(Signal::TERM);
    assert!(proc.wait().success());
}

#[test]
fn of_two_inherited_sockets_the_second_is_for_tls() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address());
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    let pair = papers.pair("site", &["a.test"]);
    let setup = with_tls(setup, &[pair]).set("tls.redirect", json!(false));
    let path = setup.write();
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [plain, secure] = [0, 1].map(|at: usize| sockets[at].local_addr().expect("bound"));
    for socket in &sockets {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("an open socket");
    }
    let [one, two] = [0, 1].map(|at: usize| sockets[at].as_raw_fd());
    // By way of numbers that are not in use, since 3 or 4 may be one of the sockets.
    let script = format!(
        r#"exec 18<&{one} 19<&{two}; exec 3<&18 4<&19 18<&- 19<&-; LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" run --config "$1""#
    );
    let proc = Proc::start("bash", &["-c", &script, PROGRAM, path.to_str().expect("UTF-8")], &folder, &[]);
    proc.wait_out(&format!("listening on http://{plain}"));
    proc.wait_out(&format!("listening on https://{secure}"));
    assert_eq!(request(plain, "GET", "/", &[], b"").expect(200).text(), "a");
    let mut conn = SecureConn::open(secure, &papers.client(None), "a.test").expect("a handshake");
    assert_eq!(conn.get("a.test", "/").expect("an answer").body, "a");
}

#[test]
fn what_speaks_no_tls_is_told_so() {
    let backend = Backend::named("a");
    let setup = setup().backend(backend.address());
    let folder = setup.folder().to_owned();
    let pair = Papers::named(&folder, "ca").pair("site", &["a.test"]);
    let balancer = with_tls(setup, &[pair]).start();
    let answer = request(tls_port(&balancer), "GET", "/", &[], b"");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("this port speaks TLS"), "{}", answer.text());
    until("it is counted", || {
        (balancer.metric("balancer_tls_handshakes_total{result=\"plain\"}") == 1.0).then_some(())
    });
    assert!(backend.seen().is_empty());
}
