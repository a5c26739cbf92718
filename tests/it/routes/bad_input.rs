//! Faults in routes are reported with file, line and key, all at once, and nothing starts.

use std::process::Command;

use serde_json::json;

use crate::support::balancer::PROGRAM;
use crate::support::{Backend, Engine, Setup, request};

#[test]
fn a_wrong_route_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("users"), "# ours\nalice:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n").expect("written");
    let config = r#"{
  "backends": [{ "name": "a", "url": "http://127.0.0.1:9" }],
  "routes": [
    { "host": "a.test", "pool": "defautl" },
    { "host": "a.test" },
    { "host": "b.*.test", "pool": "default" },
    { "host": "C.test", "path": "/x", "pool": "default" },
    { "host": "c.test.", "path": "/%78", "pool": "default", "basic_auth": "users" },
    { "path": "/y", "pool": "default", "set_request_headers": { "Host": "x", "X-A": "a\r\nb" } },
    { "path": "/", "pool": "default", "strip_prefix": true }
  ]
}"#;
    std::fs::write(path("config.json"), config).expect("written");
    let output =
        Command::new(PROGRAM).args(["check", "--config", "config.json"]).current_dir(folder.path()).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let expected = [
        r#"config.json:4: routes[0].pool: names no pool: there are "default"; found "defautl"; did you mean "default"?"#,
        "config.json:5: routes[1].pool: is missing: a route has one of pool, redirect and respond",
        "config.json:5: routes[1].path: is for the same requests as routes[0] (line 4)",
        "config.json:6: routes[2].host: may hold a * as its whole first label alone",
        "config.json:8: routes[4].basic_auth: ./users line 2: the password of \"alice\" is hashed by SHA-1",
        "config.json:8: routes[4].path: is for the same requests as routes[3] (line 7)",
        "config.json:9: routes[5].set_request_headers.Host: can't be set: Balancer writes it itself",
        "config.json:9: routes[5].set_request_headers.X-A: must hold no line's end (CR, LF)",
        "config.json:10: routes[6].strip_prefix: has nothing to take off",
    ];
    for line in expected {
        assert!(told.contains(line), "{line}\n{told}");
    }
}

/// Each of these is as good as its plainest writing.
#[test]
fn unusual_spellings_are_taken() {
    let backend = Backend::named("a");
    for (mut route, host, target) in [
        (json!({ "host": "EXAMPLE.test.", "pool": "default" }), "example.test", "/"),
        (json!({ "host": "[2001:DB8::0:1]", "pool": "default" }), "[2001:db8::1]", "/"),
        (
            json!({ "host": null, "path": "//a/./b", "pool": "default", "strip_prefix": true }),
            "any",
            "/a/b/c",
        ),
        (
            json!({ "pool": "default", "redirect": null, "respond": null, "limit": null, "buckets": [] }),
            "any",
            "/",
        ),
    ] {
        route["set_response_headers"] = json!({ "X-Route": "met" });
        let balancer =
            Setup::on(Engine::Epoll).backend(backend.address()).set("routes", json!([route])).start();
        let answer = request(balancer.address, "GET", target, &[("Host", host)], b"").expect(200);
        assert_eq!(answer.field("x-route"), Some("met"), "{route}");
    }
}
