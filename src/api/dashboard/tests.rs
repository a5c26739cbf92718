use super::*;
use crate::api::Surface;
use crate::api::tests::bench::{Bench, Call};

const FILES: [(&str, &str); 4] = [
    ("/-/dashboard", HTML),
    ("/-/dashboard.js", SCRIPT),
    ("/-/dashboard.css", STYLE),
    ("/-/dashboard.svg", ICON),
];

#[test]
fn every_file_comes_without_a_token_and_under_a_strict_policy() {
    let bench = Bench::with_token("secret");
    for (target, kind) in FILES {
        let reply = bench.call(&Call { method: "GET", target, ..Call::default() });
        assert_eq!(reply.status, 200, "{target}");
        let field =
            |name: &str| reply.fields.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(field("Content-Type").as_deref(), Some(kind), "{target}");
        assert_eq!(field("X-Content-Type-Options").as_deref(), Some("nosniff"), "{target}");
        assert_eq!(field("Cache-Control").as_deref(), Some("no-store"), "{target}");
        let policy = field("Content-Security-Policy").unwrap();
        let mut names = Vec::new();
        for directive in policy.split(';') {
            let mut words = directive.split_whitespace();
            names.push(words.next().unwrap());
            let sources: Vec<_> = words.collect();
            assert!(sources == ["'none'"] || sources == ["'self'"], "{directive}");
        }
        for name in ["default-src", "frame-ancestors", "base-uri", "form-action"] {
            assert!(names.contains(&name), "{policy}");
        }
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
            "{policy}"
        );
    }
}

#[test]
fn who_is_not_let_in_sees_no_page_and_other_methods_are_none_of_it() {
    let bench = Bench::new();
    for (target, _) in FILES {
        let stranger = Call { method: "GET", target, peer: "192.0.2.1:5", ..Call::default() };
        assert_eq!(bench.call(&stranger).status, 403, "{target}");
        assert_eq!(bench.call(&Call { method: "POST", target, ..Call::default() }).status, 405, "{target}");
        // A link on another site leads here. Where a token is needed everybody may see the page; where none is, only
        // callers of the API, since backends' pages have the same origin.
        let fields = &[("Host", "lb.example"), ("Sec-Fetch-Site", "cross-site")];
        let linked = Call { method: "GET", target, fields, ..Call::default() };
        assert_eq!(bench.call(&linked).status, 403, "{target}");
        assert_eq!(Bench::with_token("secret").call(&linked).status, 200, "{target}");
    }
}

#[test]
fn the_page_says_whether_a_token_is_needed() {
    let page = |bench: &Bench| bench.json("GET", "/-/dashboard", "").text;
    assert!(page(&Bench::with_token("secret")).contains("<html data-token=\"needed\""));
    assert!(!page(&Bench::new()).contains("data-token"));
}

#[test]
fn an_admin_listener_has_it_at_the_root() {
    let mut bench = Bench::new();
    bench.surface = Surface::Admin;
    let page = bench.json("GET", "/", "").text;
    for target in ["/dashboard", "/-/dashboard"] {
        assert_eq!(bench.json("GET", target, "").text, page, "{target}");
    }
}

/// What the policy forbids would silently not happen.
#[test]
fn the_page_holds_nothing_inline_and_nothing_from_elsewhere() {
    let html = include_str!("dashboard.html");
    for (text, about) in [
        ("style=", "a style"),
        ("<style", "a style"),
        (" onclick", "a handler"),
        ("javascript:", "a script"),
        ("://", "another host"),
    ] {
        assert!(!html.contains(text), "{about} in the page: {text}");
    }
    assert_eq!(html.matches("<script").count(), html.matches("<script src=\"dashboard.js\"").count());
    let script = SCRIPTS;
    for text in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "://", ".style"] {
        assert!(!script.contains(text), "{text} in the script");
    }
    assert!(!include_str!("dashboard.css").contains("url("));
}

/// Pages of a backend have the same origin on the public port, and with it the same storage.
#[test]
fn the_script_keeps_nothing_where_another_page_finds_it() {
    let script = Bench::new().json("GET", "/-/dashboard.js", "").text;
    for word in
        ["sessionStorage", "localStorage", "indexedDB", "document.cookie", "caches", "BroadcastChannel"]
    {
        assert!(!script.contains(word), "{word}");
    }
}

#[test]
fn the_longest_time_that_the_page_knows_is_that_of_the_api() {
    let bound = format!("const BEYOND_S = {};\n", crate::history::BEYOND_S);
    assert!(SCRIPTS.contains(&bound), "{bound}");
}
