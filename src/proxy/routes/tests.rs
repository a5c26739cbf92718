use std::path::Path;

use super::*;
use crate::config;
use crate::error::Reject;
use crate::metrics::Metrics;
use crate::proxy::exchange::{Answer, AnswerBody};
use crate::proxy::tests::{policy, settings};
use balancer_http::fields::Fields;
use balancer_http::message::Reason;
use balancer_pool::backends::Backends;

/// Those routes, with one pool.
fn routes(text: &str, folder: &Path) -> ActiveRoutes {
    let text = format!(r#"{{"backends": [{{"name": "a", "url": "http://127.0.0.1:9"}}], "routes": {text}}}"#);
    let config = config::from_text(&text, folder).expect("a configuration");
    let pool = Pool::new(Backends::new(&settings(policy()), &[]), &Metrics::new(), Arc::new(()));
    ActiveRoutes::new(&config.routes, &Pools::new(pool, []))
}

fn head(host: Option<&str>, target: &str, accept: &str) -> RequestHead {
    let mut head = RequestHead::blank("192.0.2.1:5".parse().unwrap());
    (head.host, head.target) = (host.map(str::to_owned), target.to_owned());
    head.fields.push("Accept", accept.as_bytes());
    head
}

fn request(head: &RequestHead) -> RouteRequest<'_> {
    RouteRequest { head, client: "::ffff:192.0.2.1".parse().unwrap(), request_id: "r1" }
}

/// The first route of a list.
fn first(text: &str) -> Arc<ActiveRoute> {
    Arc::clone(&routes(text, Path::new("/")).all[0])
}

fn body(answer: &Answer) -> String {
    match &answer.body {
        AnswerBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => "none".into(),
    }
}

#[test]
fn a_redirect_keeps_the_path_behind_a_bare_host() {
    let rows: &[(&str, &str, &str)] = &[
        ("https://b.test", "/x?y=%20&z", "https://b.test/x?y=%20&z"),
        ("https://b.test:8443", "//evil.test/", "https://b.test:8443//evil.test/"),
        ("https://$host", "/", "https://a.test/"),
        ("https://b.test/", "/x?y", "https://b.test/"),
        ("https://b.test/new?from=$client_ip", "/x?y", "https://b.test/new?from=192.0.2.1"),
        ("https://b.test?id=$request_id", "/x", "https://b.test?id=r1"),
        ("/new", "/x?y", "/new"),
    ];
    for (to, target, expected) in rows {
        let route = first(&format!(r#"[{{"redirect": {{"to": "{to}", "status": 307}}}}]"#));
        let head = head(Some("A.test:80"), target, "*/*");
        let answer = route.answer(request(&head)).unwrap();
        assert_eq!((answer.status, answer.fields.get("Location")), (307, Some(expected.as_bytes())), "{to}");
        assert_eq!(body(&answer), "");
    }
    let route = first(r#"[{"redirect": {"to": "https://$host"}}]"#);
    let nameless = head(None, "/", "*/*");
    let answer = route.answer(request(&nameless)).unwrap();
    assert_eq!((answer.status, answer.fields.get("Location")), (400, None));
}

#[test]
fn a_fixed_answer_is_plain_text_unless_the_route_says_otherwise() {
    type Row<'a> = (&'a str, u16, &'a str, Option<&'a str>, bool);
    let rows: &[Row<'_>] = &[
        (r#""respond": {}"#, 200, "", None, false),
        (
            r#""respond": {"body": "User-agent: *"}"#,
            200,
            "User-agent: *",
            Some("text/plain; charset=utf-8"),
            false,
        ),
        (r#""respond": {"status": 204}"#, 204, "none", None, false),
        (
            r#""respond": {"status": 410, "body": "gone"}"#,
            410,
            "gone",
            Some("text/plain; charset=utf-8"),
            true,
        ),
        (
            r#""respond": {"body": "{}"}, "set_response_headers": {"content-type": "application/json"}"#,
            200,
            "{}",
            Some("application/json"),
            false,
        ),
    ];
    for (route, status, expected, kind, is_refusal) in rows {
        let head = head(Some("a.test"), "/", "*/*");
        let answer = first(&format!("[{{{route}}}]")).answer(request(&head)).unwrap();
        let found = answer.fields.get("Content-Type").map(|kind| String::from_utf8_lossy(kind).into_owned());
        assert_eq!(
            (answer.status, &*body(&answer), found.as_deref()),
            (*status, *expected, *kind),
            "{route}"
        );
        assert_eq!(answer.cause.is_some(), *is_refusal, "{route}");
    }
}

#[test]
fn a_page_is_for_who_prefers_html_and_says_so_to_caches() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sorry.html"), "<h1>Sorry</h1>").unwrap();
    let text = r#"[{"pool": "default", "errors": {"503": "sorry.html", "410": "sorry.html"},
        "set_response_headers": {"Retry-After": "9", "X-A": "$host", "content-type": "x/y"}},
        {"path": "/gone", "respond": {"status": 410, "body": "gone"}, "errors": {"410": "sorry.html"}}]"#;
    let all = routes(text, folder.path()).all;
    let reject = |reason| Reject::new(reason, "busy").retry_after(1);
    let rows = [
        ("text/html", Reason::Unavailable, "text/html; charset=utf-8", true),
        ("*/*", Reason::Unavailable, "application/problem+json", true),
        ("text/html", Reason::BadGateway, "application/problem+json", false),
    ];
    for (accept, reason, kind, varies) in rows {
        let head = head(Some("a.test"), "/", accept);
        let answer = all[0].dress(reject(reason).answer("r1"), request(&head));
        let field =
            |name: &str| answer.fields.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(field("Content-Type").as_deref(), Some(kind), "{accept}");
        assert_eq!(
            (body(&answer) == "<h1>Sorry</h1>", field("Vary").is_some()),
            (kind.starts_with("text"), varies)
        );
        // A refusal says what it says; what it does not say is the route's to set.
        assert_eq!((field("Retry-After"), field("X-A")), (Some("1".into()), Some("a.test".into())));
        assert!(answer.cause.is_some());
    }
    for (accept, expected) in [("text/html", "<h1>Sorry</h1>"), ("*/*", "gone")] {
        let head = head(Some("a.test"), "/gone", accept);
        assert_eq!(body(&all[1].answer(request(&head)).unwrap()), expected);
    }
}

#[test]
fn a_target_is_rewritten_and_its_query_stays() {
    let rows: &[(&str, &str, Option<&str>, Option<&str>)] = &[
        (r#""path": "/img""#, "/img/x?y", None, None),
        (r#""path": "/img", "strip_prefix": true"#, "/img/x?y=/img/", Some("/x?y=/img/"), Some("/img")),
        (r#""path": "/img/", "strip_prefix": true"#, "/img/?", Some("/?"), Some("/img")),
        (r#""path": "/img", "strip_prefix": true"#, "/img?x", Some("/?x"), Some("/img")),
        (r#""path": "/img", "strip_prefix": true"#, "/%69mg/a%2Fb", Some("/a%2Fb"), Some("/img")),
        (r#""path": "/img", "strip_prefix": true"#, "/img/../img/x", Some("/x"), Some("/img")),
        (r#""path": "//im%67/", "strip_prefix": true"#, "/img/x", Some("/x"), Some("/img")),
        (r#""add_prefix": "/v2""#, "/x?y", Some("/v2/x?y"), None),
        (r#""add_prefix": "/v2/""#, "/", Some("/v2/"), None),
        (
            r#""path": "/img", "strip_prefix": true, "add_prefix": "/a/b""#,
            "/img/x",
            Some("/a/b/x"),
            Some("/img"),
        ),
    ];
    for (route, target, expected, stripped) in rows {
        let route = first(&format!(r#"[{{"pool": "default", {route}}}]"#));
        let rewritten = route.rewrite(&head(Some("a.test"), target, "*/*")).unwrap();
        assert_eq!(
            (rewritten.target.as_deref(), rewritten.stripped.as_deref()),
            (*expected, *stripped),
            "{target}"
        );
    }
}

#[test]
fn fields_of_a_request_are_set_and_taken_out() {
    let route = first(
        r#"[{"path": "/img", "pool": "default", "strip_prefix": true,
            "set_request_headers": {"X-Who": "$client_ip via $host", "X-Old": null, "X-Real-IP": "$client_ip", "X-None": null}}]"#,
    );
    let mut fields = Fields::new();
    for (name, value) in
        [("x-old", "1"), ("X-Old", "2"), ("x-who", "me"), ("X-Kept", "3"), ("X-Forwarded-Prefix", "/out")]
    {
        fields.push(name, value.as_bytes());
    }
    let head = head(Some("[2001:DB8::1]:80"), "/img/x", "*/*");
    route.set_request_fields(&mut fields, &route.rewrite(&head).unwrap(), request(&head));
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect();
    let expected = [
        "X-Kept: 3",
        "X-Forwarded-Prefix: /out",
        "X-Who: 192.0.2.1 via [2001:db8::1]",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-Prefix: /img",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn who_may_not_come_in_is_told_by_every_route_that_is_met() {
    let all = routes(
        r#"[{"path": "/", "pool": "default", "deny": "10.0.0.1"},
            {"path": "/in", "pool": "default", "allow": ["10.0.0.0/8"], "deny": "10.0.0.2", "limit": "1/s"}]"#,
        Path::new("/"),
    );
    let rows = [
        ("/", "10.0.0.1", true),
        ("/", "10.0.0.2", false),
        ("/in", "10.0.0.1", false),
        ("/in", "10.0.0.2", true),
        ("/in", "192.0.2.1", true),
        ("/IN", "192.0.2.1", true),
        ("/IN", "10.0.0.1", true),
        ("/x/..%2fin", "10.0.0.2", true),
    ];
    for (path, client, is_closed) in rows {
        let met = all.met(Some("a.test"), path).unwrap();
        assert_eq!(all.closed_to(&met, client.parse().unwrap()).is_some(), is_closed, "{path} {client}");
    }
    let mut rules = SmallVec::new();
    all.add_rules(&all.met(None, "/in/%2e%2e/in").unwrap(), &mut rules);
    all.add_rules(&all.met(None, "/x/..%2fin").unwrap(), &mut rules);
    assert_eq!(rules.iter().map(|rule| &*rule.name).collect::<Vec<_>>(), ["/in"]);
}
