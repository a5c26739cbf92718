//! TLS to backends, over real sockets: which certificates are accepted, what a request gets when none is, and health checks.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::secure::Papers;
use crate::support::tls_ends::SecureBackend;
use crate::support::{Engine, Setup, until};

fn setup() -> Setup {
    Setup::on(Engine::Epoll).set("log.access", json!(true))
}

fn to(backend: &SecureBackend, host: &str) -> Value {
    json!({ "url": format!("https://{host}:{}", backend.address.port()) })
}

#[test]
fn a_backend_that_is_known_is_called_by_tls_and_its_connection_kept() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let papers = Papers::named(&folder, "ca");
    papers.pair("backend", &["localhost"]);
    let backend = SecureBackend::echoing(&folder, "backend");
    let balancer = setup
        .backend_with(to(&backend, "localhost"))
        .one_loop()
        .set("upstream.tls", json!({ "ca": "ca.pem" }))
        .start();
    for target in ["/1", "/2", "/3"] {
        let seen = balancer.get(target).expect(200).text();
        assert!(seen.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{seen}");
        assert!(seen.contains("\r\nX-Forwarded-Proto: http\r\n"), "{seen}");
    }
    assert_eq!((backend.connections(), backend.echoed()), (1, 3));
    let listed = balancer.api("GET", "/-/v1/backends", &json!(null)).json();
    assert_eq!(listed["backends"][0]["url"], format!("https://localhost:{}", backend.address.port()));
}

#[test]
fn a_backend_that_is_not_known_gets_no_request_and_the_operator_reads_why() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let (papers, _strange) = (Papers::named(&folder, "ca"), Papers::named(&folder, "strange"));
    papers.pair("backend", &["backend.test"]);
    let backend = SecureBackend::echoing(&folder, "backend");
    let setup = setup.backend_with(to(&backend, "localhost"));
    for (at, (tls, cause)) in [
        (json!({ "ca": "ca.pem" }), Some("not valid for name")),
        (json!({ "ca": "strange.pem", "server_name": "backend.test" }), Some("UnknownIssuer")),
        (json!({ "ca": "ca.pem", "server_name": "backend.test" }), None),
        (json!({ "ca": "strange.pem", "insecure_skip_verify": true }), None),
    ]
    .into_iter()
    .enumerate()
    {
        let balancer = setup.clone().set("upstream.tls", tls.clone()).start();
        let (target, before) = (format!("/{at}"), backend.echoed());
        let answer = balancer.get(&target);
        let line: Value =
            serde_json::from_str(&balancer.proc.wait_out(&format!("\"path\":\"{target}\""))).expect("JSON");
        match cause {
            Some(cause) => {
                answer.problem(502);
                assert!(!answer.text().contains(cause), "{}", answer.text());
                assert!(line["cause"].as_str().is_some_and(|told| told.contains(cause)), "{line}");
                assert_eq!(backend.echoed(), before, "{tls}");
            }
            None => {
                answer.expect(200);
                assert!(line["cause"].is_null(), "{line}");
            }
        }
        let warning = "upstream.tls.insecure_skip_verify";
        if tls["insecure_skip_verify"].is_null() {
            assert!(!balancer.proc.err().contains(warning), "{}", balancer.proc.err());
        } else {
            balancer.proc.wait_err(0, "a warning", |line| line.contains(warning));
        }
    }
}

#[test]
fn health_checks_speak_it_and_a_reload_says_what_is_trusted() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let (papers, _strange) = (Papers::named(&folder, "ca"), Papers::named(&folder, "strange"));
    papers.pair("backend", &["localhost"]);
    let backend = SecureBackend::echoing(&folder, "backend");
    let setup = setup
        .backend_with(to(&backend, "localhost"))
        .set("health_check", json!({ "interval": "50ms", "rise": 1, "fall": 1 }))
        .set("upstream.tls", json!({ "ca": "strange.pem" }));
    let balancer = setup.start();
    balancer.get("/").problem(503);
    let listed = || balancer.api("GET", "/-/v1/backends", &json!(null)).json()["backends"][0].clone();
    let one = listed();
    assert_eq!(one["health"], "down", "{one}");
    assert!(
        one["cause"].as_str().is_some_and(|cause| cause.contains("no TLS: invalid peer certificate")),
        "{one}"
    );
    setup.clone().set("upstream.tls", json!({ "ca": "ca.pem" })).write();
    balancer.proc.signal(Signal::HUP);
    until("it is known and up", || (listed()["health"] == "up").then_some(()));
    balancer.get("/").expect(200);
}
