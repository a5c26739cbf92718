//! What routes answer themselves, and what they change in answers.

use serde_json::{Value, json};

use super::{routed, setup};
use crate::support::backend::{Then, refusing};
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Fault, Setup, request};

each_engine! {
    clients_are_sent_elsewhere,
    an_answer_can_be_fixed,
    refusals_have_a_page_for_browsers,
    an_answer_that_breaks_off_at_once_has_a_page_for_browsers,
    fields_of_answers_are_set_and_taken_out,
    no_cache_keeps_a_refusal,
    a_route_without_backends_says_so,
}

fn clients_are_sent_elsewhere(engine: Engine) {
    let routes = json!([
        { "host": "old.test", "redirect": { "to": "https://new.test" } },
        { "host": "old.test", "path": "/fixed", "redirect": { "to": "https://new.test/?c=$client_ip", "status": 302 } },
        { "host": "*.old.test", "redirect": { "to": "https://$host:8443", "status": 307 } },
        { "path": "/here", "redirect": { "to": "/there", "status": 303 } },
        { "path": "/host", "redirect": { "to": "https://$host" } },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let rows = [
        ("old.test:8080", "/a?b=%20c", 308, "https://new.test/a?b=%20c"),
        ("old.test", "/fixed/x?y", 302, "https://new.test/?c=127.0.0.1"),
        ("A.old.test:80", "//x", 307, "https://a.old.test:8443//x"),
        ("any", "/here/x", 303, "/there"),
    ];
    for method in ["GET", "POST", "HEAD"] {
        let mut conn = Conn::open(balancer.address);
        for (host, target, status, location) in rows {
            let answer = conn.ask(method, target, &[("Host", host)], b"").expect(status);
            assert_eq!(answer.field("location"), Some(location), "{method} {host} {target}");
            assert!(answer.field("x-request-id").is_some() && answer.field("date").is_some(), "{answer:?}");
        }
    }
    // A body that is not read does not become the next request: that is another one behind it, or there is none.
    let mut conn = Conn::open(balancer.address);
    conn.ask("POST", "/here", &[], &[b'x'; 100_000]).expect(303);
    let _ = conn.try_send("GET /here/next HTTP/1.1\r\nHost: any\r\n\r\n");
    match conn.read("GET") {
        Ok(next) => assert_eq!(next.status, 303, "{next:?}"),
        Err(fault) => assert!(matches!(fault, Fault::Closed | Fault::Reset), "{fault:?}"),
    }
    // HTTP/1.0 without a Host.
    let mut conn = Conn::open(balancer.address);
    conn.send("GET /host HTTP/1.0\r\n\r\n");
    conn.read("GET").expect("an answer").problem(400);
    assert!(backend.seen().is_empty());
}

fn an_answer_can_be_fixed(engine: Engine) {
    let routes = json!([
        { "path": "/robots.txt", "respond": { "body": "User-agent: *\nDisallow: /\n" } },
        { "path": "/gone", "respond": { "status": 410 } },
        { "path": "/none", "respond": { "status": 204 } },
        { "path": "/json", "respond": { "status": 503, "body": "{\"ok\":false}" },
          "set_response_headers": { "Content-Type": "application/json", "Retry-After": "60" } },
    ]);
    let (backend, balancer) = routed(engine, routes);
    let mut conn = Conn::open(balancer.address);
    let robots = conn.get("/robots.txt").expect(200);
    assert_eq!(robots.text(), "User-agent: *\nDisallow: /\n");
    assert_eq!(robots.field("content-type"), Some("text/plain; charset=utf-8"));
    let head = conn.ask("HEAD", "/robots.txt", &[], b"").expect(200);
    assert_eq!((head.body.len(), head.field("content-length")), (0, Some("26")));
    assert_eq!(conn.get("/gone").expect(410).text(), "");
    conn.get("/none").expect(204);
    let json = conn.get("/json").expect(503);
    assert_eq!(json.text(), "{\"ok\":false}");
    assert_eq!(
        (json.field("content-type"), json.field("retry-after")),
        (Some("application/json"), Some("60"))
    );
    assert!(backend.seen().is_empty());
}

fn refusals_have_a_page_for_browsers(engine: Engine) {
    let routes = json!([
        { "path": "/down", "pool": "default", "errors": { "502": "sorry.html", "503": "sorry.html" } },
        { "path": "/closed", "pool": "default", "deny": "127.0.0.1", "errors": { "403": "closed.html" } },
        { "path": "/busy", "pool": "default", "limit": "0/s", "errors": { "429": "closed.html" } },
    ]);
    let setup = Setup::on(engine).backend(refusing()).set("routes", routes);
    std::fs::write(setup.folder().join("sorry.html"), "<h1>Sorry</h1>").expect("written");
    std::fs::write(setup.folder().join("closed.html"), "<h1>Closed</h1>").expect("written");
    let balancer = setup.start();
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let ask =
        |target: &str, accept: &str| request(balancer.address, "GET", target, &[("Accept", accept)], b"");
    for (target, status, page) in [
        ("/down", 502, "<h1>Sorry</h1>"),
        ("/closed", 403, "<h1>Closed</h1>"),
        ("/busy", 429, "<h1>Closed</h1>"),
    ] {
        let answer = ask(target, BROWSER).expect(status);
        assert_eq!(
            (answer.text().as_str(), answer.field("content-type")),
            (page, Some("text/html; charset=utf-8"))
        );
        assert_eq!(answer.field("vary"), Some("Accept"));
        for accept in ["*/*", "application/json", "application/json, text/html;q=0.5"] {
            let answer = ask(target, accept);
            answer.problem(status);
            assert_eq!(answer.field("vary"), Some("Accept"));
        }
    }
    // Where the route has no page for it, and where there is no route.
    ask("/", BROWSER).problem(502);
}

/// Where a backend's answer breaks off before any of it was sent, ours takes its place. The loops send what they have.
fn an_answer_that_breaks_off_at_once_has_a_page_for_browsers(engine: Engine) {
    if engine == Engine::Epoll {
        return;
    }
    let backend = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Then::Close);
    let routes = json!([{ "path": "/a", "pool": "default", "errors": { "502": "sorry.html" },
        "set_response_headers": { "X-Of": "a", "Cache-Control": "public" } }]);
    let setup = setup(engine, &backend, routes);
    std::fs::write(setup.folder().join("sorry.html"), "<h1>Sorry</h1>").expect("written");
    let balancer = setup.start();
    let ask = |accept| request(balancer.address, "GET", "/a", &[("Accept", accept)], b"");
    let page = ask("text/html").expect(502);
    assert_eq!((page.text().as_str(), page.field("vary")), ("<h1>Sorry</h1>", Some("Accept")));
    let problem = ask("application/json");
    problem.problem(502);
    for answer in [page, problem] {
        assert_eq!((answer.all("x-of"), answer.all("cache-control")), (vec!["a"], vec!["no-store"]));
    }
}

fn fields_of_answers_are_set_and_taken_out(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: old\r\nX-Powered-By: old\r\nX-Powered-By: older\r\nCache-Control: private\r\n\r\nok",
    );
    let set = json!({ "Server": null, "X-Powered-By": null, "Cache-Control": "no-store",
        "Strict-Transport-Security": "max-age=63072000", "X-Trace": "$request_id for $client_ip at $host" });
    let routes = json!([
        { "path": "/a", "pool": "default", "set_response_headers": set },
        { "path": "/b", "respond": {}, "set_response_headers": set },
        { "path": "/c", "pool": "default", "set_response_headers": set, "deny": "127.0.0.1" },
    ]);
    let balancer = setup(engine, &backend, routes).start();
    for (target, status) in [("/a", 200), ("/b", 200), ("/c", 403)] {
        let answer = request(balancer.address, "GET", target, &[("Host", "A.test:80")], b"").expect(status);
        let id = answer.field("x-request-id").expect("an id");
        assert_eq!(answer.field("x-trace"), Some(&*format!("{id} for 127.0.0.1 at a.test")), "{target}");
        let none: [Option<&str>; 2] = ["server", "x-powered-by"].map(|name| answer.field(name));
        assert_eq!(none, [None, None], "{target}: {:?}", answer.fields);
        assert_eq!(answer.all("cache-control"), ["no-store"], "{target}");
        assert_eq!(answer.field("strict-transport-security"), Some("max-age=63072000"));
    }
    let other = balancer.get("/").expect(200);
    assert_eq!((other.field("server"), other.all("x-powered-by").len()), (Some("old"), 2));
}

/// Otherwise a cache would show one client's 403 to all, for as long as the route lets caches keep its answers.
fn no_cache_keeps_a_refusal(engine: Engine) {
    let backend = Backend::named("a");
    let kept = "public, max-age=31536000, immutable";
    let set = json!({ "Cache-Control": kept, "CDN-Cache-Control": kept, "Surrogate-Control": "max-age=9", "X-A": "b" });
    let routes = json!([
        { "path": "/a", "pool": "default", "set_response_headers": set },
        { "path": "/b", "respond": { "status": 410 }, "set_response_headers": set },
        { "path": "/c", "pool": "default", "set_response_headers": set, "deny": "127.0.0.1" },
        { "path": "/d", "pool": "gone", "set_response_headers": set },
        { "path": "/e", "pool": "default", "set_response_headers": { "Cache-Control": null }, "deny": "127.0.0.1" },
    ]);
    let gone = json!({ "gone": { "backends": [format!("http://{}", refusing())] } });
    let balancer = setup(engine, &backend, routes).set("pools", gone).start();
    let of = |target: &str| {
        let answer = balancer.get(target);
        let fields = ["cache-control", "cdn-cache-control", "surrogate-control", "x-a"];
        (answer.status, fields.map(|name| answer.all(name).join("|")))
    };
    let whole = [kept, kept, "max-age=9", "b"].map(str::to_owned);
    assert_eq!([of("/a"), of("/b")], [(200, whole.clone()), (410, whole)]);
    let refused = ["no-store", "", "", "b"].map(str::to_owned);
    assert_eq!([of("/c"), of("/d")], [(403, refused.clone()), (502, refused)]);
    assert_eq!(of("/e").1[0], "no-store");
}

/// A refusal by the pool has the fields that the route sets, and a cause in the log.
fn a_route_without_backends_says_so(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "path": "/x", "pool": "default", "set_response_headers": { "X-A": "b" } }]);
    let balancer = setup(engine, &backend, routes).set("log.access", json!(true)).start();
    balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "down" })).expect(200);
    let answer = balancer.get("/x");
    answer.problem(503);
    assert_eq!(answer.field("x-a"), Some("b"));
    let line: Value = serde_json::from_str(&balancer.proc.wait_out("\"/x\"")).expect("JSON");
    assert!(line["cause"].is_string(), "{line}");
}
