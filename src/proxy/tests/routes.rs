//! What a story asks for where there are routes.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config;
use crate::proxy::policy::ProxyPolicy;
use balancer_limiter::limit::Limit;
use balancer_limiter::terms::Terms;

/// With those routes and one backend, or none; the folder has `users`: `alice:wonderland`.
fn routed(backends: u16, routes: &str) -> (Fixture, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash_with_salt("wonderland", 4, [7; 16]).unwrap();
    std::fs::write(folder.path().join("users"), format!("alice:{hash}\n")).unwrap();
    let fixture = Fixture::still(backends, &settings(policy()));
    let list = read(routes, folder.path());
    let policy = ProxyPolicy::clone(&fixture.proxy.accounts.policy.load()).routing(&list);
    fixture.proxy.accounts.policy.store(Arc::new(policy));
    (fixture, folder)
}

fn read(routes: &str, folder: &Path) -> config::routes::RouteList {
    let text =
        format!(r#"{{"backends": [{{"name": "a", "url": "http://127.0.0.1:9"}}], "routes": {routes}}}"#);
    config::from_text(&text, folder).expect("a configuration").routes
}

fn asking(authorization: &str) -> RequestHead {
    request(&format!("GET /in HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n"))
}

const ALICE: &str = "Basic YWxpY2U6d29uZGVybGFuZA==";
const WRONG: &str = "Basic YWxpY2U6YnVpbGRlcg==";

/// Waits until the story is woken, and resumes it.
fn woken(step: Step, head: &RequestHead) -> Step {
    let Step::Wait(story, _) = step else { panic!("it waits for nothing") };
    let (tell, told) = crossbeam_channel::bounded(1);
    if story.listen(Box::new(move || tell.send(()).unwrap_or_default())) {
        told.recv_timeout(PATIENCE).expect("it is told");
    }
    story.resume(head, false)
}

#[test]
fn a_password_is_waited_for_and_then_known() {
    let (fixture, _folder) = routed(1, r#"[{"path": "/in", "pool": "default", "basic_auth": "users"}]"#);
    let mut right = asking(ALICE);
    let step = fixture.begin(&mut right);
    assert!(matches!(step, Step::Wait(..)));
    let (story, _) = called(woken(step, &right));
    story.abandon(&right);
    fixture.record();
    // Known now.
    let (story, _) = fixture.sent(&mut right);
    story.abandon(&right);
    fixture.record();
    let mut wrong = asking(WRONG);
    let step = fixture.begin(&mut wrong);
    let answer = answered(woken(step, &wrong));
    assert_eq!(answer.status, 401);
    let expected = r#"Basic realm="/in", charset="UTF-8""#;
    assert_eq!(answer.fields.get("WWW-Authenticate"), Some(expected.as_bytes()));
    let record = fixture.settle(answer);
    assert_eq!(record.cause.as_deref(), Some("route /in asks for a right name and password"));
}

#[test]
fn a_password_that_is_not_checked_in_time_costs_a_503_and_a_client_that_left_nothing() {
    let (fixture, _folder) = routed(1, r#"[{"path": "/in", "pool": "default", "basic_auth": "users"}]"#);
    let mut head = asking(ALICE);
    let Step::Wait(story, until) = fixture.begin(&mut head) else { panic!("it waits for nothing") };
    assert_eq!(until, fixture.clock.now() + 10_000_000_000);
    let answer = answered(story.resume(&head, true));
    assert_eq!((answer.status, answer.fields.get("Retry-After")), (503, Some(&b"1"[..])));
    fixture.settle(answer);
    let mut other = asking(WRONG);
    let Step::Wait(story, _) = fixture.begin(&mut other) else { panic!("it waits for nothing") };
    story.abandon(&other);
    assert_eq!(fixture.record().status, 499);
}

#[test]
fn what_neither_a_route_nor_the_top_takes_is_not_found() {
    let routes = r#"[{"host": "b", "path": "/in", "pool": "default", "max_in_flight": 1}]"#;
    let (fixture, _folder) = routed(0, routes);
    let answer = answered(fixture.begin(&mut get()));
    assert_eq!(answer.status, 404);
    let record = fixture.settle(answer);
    let cause = "no route takes it, and there are no backends at the top";
    assert_eq!(record.cause.as_deref(), Some(cause));
    // One that has a pool without backends is another matter, and leaves its seat.
    for _ in 0..2 {
        let mut head = request("GET /in HTTP/1.1\r\nHost: b\r\n\r\n");
        let answer = answered(fixture.begin(&mut head));
        assert_eq!(fixture.settle(answer).status, 503);
    }
}

#[test]
fn a_route_has_its_own_target_time_and_bound() {
    let routes = r#"[{"path": "/in", "pool": "default", "strip_prefix": true, "request_timeout": "3s", "max_body_bytes": 5,
        "set_request_headers": {"X-A": "$host"}, "set_response_headers": {"X-B": "$request_id", "Server": null}}]"#;
    let (fixture, _folder) = routed(1, routes);
    let mut head = request("POST /in/x?y HTTP/1.1\r\nHost: A.test:80\r\nContent-Length: 5\r\n\r\n");
    let (story, call) = fixture.sent(&mut head);
    assert_eq!((story.target(&head), call.max_body_bytes), ("/x?y", Some(5)));
    assert_eq!(call.deadline, Some(fixture.clock.now() + 3_000_000_000));
    story.outgoing(&head, &call.endpoint, |fields| {
        let found = ["X-A", "X-Forwarded-Prefix", "Host"].map(|name| fields.get(name));
        assert_eq!(found, [Some(&b"a.test"[..]), Some(b"/in"), Some(b"A.test:80")]);
    });
    let id = story.request_id().to_owned();
    let came = super::head("200 OK\r\nServer: x\r\nContent-Length: 0");
    let answer = answered(story.on(Event::Head(came), &head, false));
    assert_eq!([answer.fields.get("X-B"), answer.fields.get("Server")], [Some(id.as_bytes()), None]);
    let record = fixture.settle(answer);
    // What the client asked for is what is written down.
    assert_eq!(record.path, "/in/x");
    let mut long = request("POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    assert_eq!(fixture.settle(answered(fixture.begin(&mut long))).status, 413);
    let mut chunked = request("POST /in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let answer = answered(fixture.begin_as(&mut chunked, |asked| asked.body_bytes = 6));
    assert_eq!(fixture.settle(answer).status, 413);
}

#[test]
fn a_refusal_in_place_of_a_broken_answer_is_dressed_like_any_other() {
    let set = r#"{"X-Of-Route": "$request_id", "Cache-Control": "public"}"#;
    let routes = format!(r#"[{{"path": "/", "pool": "default", "set_response_headers": {set}}}]"#);
    let (fixture, _folder) = routed(1, &routes);
    let mut policy = ProxyPolicy::clone(&fixture.proxy.accounts.policy.load());
    policy.headers = config::RateLimitHeaders::Both;
    fixture.proxy.accounts.policy.store(Arc::new(policy));
    let limit = Terms::of_numbers(Limit::parse("9/s burst 9").expect("a limit"));
    fixture.proxy.admit.limits.set_default(Some(limit));
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    let (id, refusal) = (story.request_id().to_owned(), story.late_refusal());
    let theirs = "200 OK\r\nContent-Length: 9\r\nContent-Type: a/b\r\nRateLimit: \"theirs\";r=1";
    let broken = answered(story.on(Event::Head(super::head(theirs)), &head, true));
    let answer = refusal.in_place_of(&broken, "cut", &head);
    assert_eq!((answer.status, answer.cause.as_deref()), (502, Some("cut")));
    let all = |name| answer.fields.all(name).map(String::from_utf8_lossy).collect::<Vec<_>>();
    for (name, value) in [
        ("X-Of-Route", &*id),
        ("X-Request-Id", &*id),
        ("Cache-Control", "no-store"),
        ("Content-Type", "application/problem+json"),
        ("RateLimit-Policy", "\"default\";q=9;w=1"),
        ("RateLimit", "\"default\";r=8;t=1"),
        ("X-RateLimit-Limit", "9"),
        ("X-RateLimit-Remaining", "8"),
        ("X-RateLimit-Reset", "1"),
    ] {
        assert_eq!(all(name), [value], "{name}");
    }
    assert_eq!(answer.fields.get("Date"), broken.fields.get("Date"));
    assert_eq!(fixture.settle(broken).status, 200);
}
