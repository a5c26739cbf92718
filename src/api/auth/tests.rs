mod direct;

use super::super::tests::bench::{Bench, Call, admin};
use super::super::tests::owned::head;
use super::*;
use balancer_http::message::BodyLength;

type FieldRow<'a> = &'a [(&'a str, &'a str)];

#[test]
fn the_tcp_peer_is_judged_by_value() {
    let access = AccessRules::new(&admin(), &[]);
    for (peer, allowed) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("128.0.0.1:1", false),
        ("[::2]:1", false),
        ("[::ffff:10.0.0.1]:1", false),
        ("10.0.0.1:1", false),
    ] {
        let call = Call { method: "GET", target: "/limits", peer, ..Call::default() };
        assert_eq!(
            access
                .check(&head(&call, BodyLength::Empty), Surface::Public, &WrongTokens::default(), 1)
                .is_ok(),
            allowed,
            "{peer}"
        );
    }
}

#[test]
fn without_a_token_a_call_must_be_direct_and_not_from_a_web_page() {
    let bench = Bench::new();
    let rows: [(FieldRow<'_>, bool); 42] = [
        (&[], true),
        (&[("Host", "127.0.0.1:8080")], true),
        (&[("Host", "127.0.0.1")], true),
        (&[("Host", "10.1.2.3:80")], true),
        (&[("Host", "[::1]:8080")], true),
        (&[("Host", "[::1]")], true),
        (&[("Host", "localhost:8080")], true),
        (&[("Host", "LocalHost")], true),
        (&[("Host", "localhost.")], true),
        (&[("Host", "limits.example:8080")], true),
        (&[("Host", "LIMITS.EXAMPLE.")], true),
        (&[("Host", "")], false),
        (&[("Host", "evil.example")], false),
        (&[("Host", "x.limits.example")], false),
        (&[("Host", "localhost.evil.example")], false),
        (&[("Host", "127.0.0.1.evil.example")], false),
        (&[("Host", "127.1")], false),
        (&[("Host", "2130706433")], false),
        (&[("Host", "::1")], false),
        (&[("Host", "[::1")], false),
        (&[("Host", "[evil]")], false),
        (&[("Host", "user@127.0.0.1")], false),
        (&[("Host", "127.0.0.1:80:80")], false),
        (&[("Host", "127.0.0.1:x")], false),
        (&[("Forwarded", "for=1.2.3.4")], false),
        (&[("X-Forwarded-For", "")], false),
        (&[("x-forwarded-for", "127.0.0.1")], false),
        (&[("X-Real-IP", "127.0.0.1")], false),
        (&[("Via", "1.1 x")], false),
        (&[("Sec-Fetch-Site", "cross-site")], false),
        (&[("Sec-Fetch-Site", "Cross-Site")], false),
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (&[("Sec-Fetch-Site", "none")], true),
        (&[("Host", "localhost:80"), ("Origin", "http://localhost")], true),
        (&[("Host", "localhost:8080"), ("Origin", "http://LOCALHOST:8080")], true),
        (&[("Host", "localhost:8080"), ("Origin", "http://localhost:8081")], false),
        (&[("Host", "localhost:8080"), ("Origin", "http://localhost")], false),
        (&[("Host", "localhost"), ("Origin", "https://localhost")], false),
        (&[("Host", "localhost"), ("Origin", "null")], false),
        (&[("Host", "localhost"), ("Origin", "http://evil.example")], false),
        (&[("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://evil.example")], false),
        (&[("Origin", "http://127.0.0.1")], false),
    ];
    for (fields, allowed) in rows {
        let call = Call { method: "GET", target: "/limits", fields, ..Call::default() };
        let expected = if allowed { 200 } else { 403 };
        assert_eq!(bench.call(&call).status, expected, "{fields:?}");
    }
}

#[test]
fn the_target_of_a_browser_that_was_told_to_use_us_as_its_proxy_counts_too() {
    let access = AccessRules::new(&admin(), &[]);
    let call = Call { method: "GET", target: "/limits", fields: &[("Host", "localhost")], ..Call::default() };
    let mut head = head(&call, BodyLength::Empty);
    assert!(access.check(&head, Surface::Public, &WrongTokens::default(), 1).is_ok());
    head.host = Some("evil.example".into());
    assert!(access.check(&head, Surface::Public, &WrongTokens::default(), 1).is_err());
}

#[test]
fn with_a_token_it_decides_together_with_the_address() {
    let bench = Bench::with_token("s3cret token");
    let rows: [(FieldRow<'_>, u16); 14] = [
        (&[("Authorization", "Bearer s3cret token")], 200),
        (&[("authorization", "bEARER s3cret token")], 200),
        (&[("Authorization", "Bearer   s3cret token")], 200),
        // A proxy, a page and a foreign name need no other proof than the token.
        (&[("Authorization", "Bearer s3cret token"), ("Via", "1.1 x"), ("X-Forwarded-For", "9.9.9.9")], 200),
        (
            &[
                ("Authorization", "Bearer s3cret token"),
                ("Host", "a.example"),
                ("Origin", "http://b.example"),
            ],
            200,
        ),
        (&[], 401),
        (&[("Authorization", "Bearer")], 401),
        (&[("Authorization", "Bearer ")], 401),
        (&[("Authorization", "Bearer s3cret toke")], 401),
        (&[("Authorization", "Bearer s3cret tokenx")], 401),
        (&[("Authorization", "Bearer S3CRET TOKEN")], 401),
        (&[("Authorization", "Basic s3cret token")], 401),
        (&[("Authorization", "s3cret token")], 401),
        (&[("Authorization", "Bearer x"), ("Authorization", "Bearer s3cret token")], 401),
    ];
    for (fields, status) in rows {
        let call = Call { method: "GET", target: "/limits", fields, ..Call::default() };
        let reply = bench.call(&call);
        assert_eq!(reply.status, status, "{fields:?}");
        let challenge = (status == 401).then_some(&b"Bearer"[..]);
        assert_eq!(reply.fields.get("WWW-Authenticate"), challenge, "{fields:?}");
        let elsewhere = Call { peer: "10.0.0.1:1", ..call };
        assert_eq!(bench.call(&elsewhere).status, 403, "{fields:?}");
    }
}

#[test]
fn neither_debug_nor_an_answer_shows_the_token() {
    let admin = config::Admin { token: Some(config::Secret::new("s3cret")), ..admin() };
    assert!(!format!("{:?}", AccessRules::new(&admin, &[])).contains("s3cret"));
    let call = Call {
        method: "GET",
        target: "/limits",
        fields: &[("Authorization", "Bearer wr0ng")],
        ..Call::default()
    };
    let reply = Bench::with_token("s3cret").call(&call);
    assert!(!reply.text.contains("s3cret") && !reply.text.contains("wr0ng"), "{}", reply.text);
}

#[test]
fn metrics_may_need_no_token_and_nothing_else_does_then() {
    let mut admin = config::Admin { token: Some(config::Secret::new("s3cret")), ..admin() };
    let right: &[(&str, &str)] = &[("Authorization", "Bearer s3cret")];
    let wrong: &[(&str, &str)] = &[("Authorization", "Bearer wrong")];
    let passed_on: &[(&str, &str)] = &[("X-Forwarded-For", "10.0.0.1")];
    let by_name: &[(&str, &str)] = &[("Host", "rebound.example")];
    let rows = [
        ("GET", "/-/metrics", "", &[][..], 401, 200),
        ("HEAD", "/-/metrics", "", &[], 401, 200),
        ("POST", "/-/metrics", "", &[], 401, 405),
        ("GET", "/-/metrics", "10.0.0.1:1", &[], 403, 403),
        ("GET", "/-/metrics", "", right, 200, 200),
        ("GET", "/-/metrics", "", wrong, 401, 401),
        ("GET", "/-/metrics", "", passed_on, 401, 403),
        ("GET", "/-/metrics", "", by_name, 401, 403),
        ("GET", "/-/v1/status", "", &[], 401, 401),
        ("GET", "/limits", "", &[], 401, 401),
    ];
    for (method, target, peer, fields, closed, open) in rows {
        for (metrics_without_token, status) in [(false, closed), (true, open)] {
            admin.metrics_without_token = metrics_without_token;
            let call = Call { method, target, fields, peer, ..Call::default() };
            let mut bench = Bench::with(&admin);
            // The public port always asks for the token: behind a proxy all callers have one address.
            if fields.is_empty() && peer.is_empty() && method != "POST" {
                assert_eq!(bench.call(&call).status, 401, "{method} {target} on the public port");
            }
            bench.surface = crate::api::Surface::Admin;
            let found = bench.call(&call).status;
            assert_eq!(found, status, "{method} {target} {fields:?} {metrics_without_token}");
        }
    }
}

fn with_roles() -> Bench {
    let token = |name: &str, role, text: &str| ApiToken {
        name: name.into(),
        role,
        hash: SecretHash::of(text.as_bytes()),
    };
    let admin = config::Admin {
        token: Some(config::Secret::new("t-admin")),
        tokens: vec![token("ops", Role::Read, "t-read"), token("ci", Role::Write, "t-write")],
        ..admin()
    };
    Bench::with(&admin)
}

/// On every path and method that there is.
#[test]
fn a_read_token_is_403_on_every_write_and_on_nothing_else() {
    use crate::api::resources;
    use crate::api::route::Permission;
    let bench = with_roles();
    for route in resources().flat_map(|resource| resource.routes) {
        let path = route.path.replace(['{', '}'], "");
        let path = if path.starts_with("/limits") { path } else { format!("/-{path}") };
        for operation in route.operations {
            let ask = |token: &str| {
                let authorization = format!("Bearer {token}");
                let fields = [("Authorization", authorization.as_str())];
                let body = b"nonsense";
                let call = Call { method: operation.method, target: &path, fields: &fields, body, peer: "" };
                bench.call(&call).status
            };
            let may_not = operation.access == Permission::Write;
            assert_eq!(ask("t-read") == 403, may_not, "{} {path}", operation.method);
            for token in ["t-write", "t-admin"] {
                assert!(!matches!(ask(token), 401 | 403), "{} {path} with {token}", operation.method);
            }
        }
        // A method that is not there is 405 before anybody's permission is looked at.
        let fields = [("Authorization", "Bearer t-read")];
        let call = Call { method: "PURGE", target: &path, fields: &fields, ..Call::default() };
        assert_eq!(bench.call(&call).status, 405, "{path}");
    }
}

#[test]
fn the_audit_names_the_token_and_never_shows_it() {
    let bench = with_roles();
    for (token, actor) in [("t-write", "ci"), ("t-admin", "admin")] {
        let authorization = format!("Bearer {token}");
        let fields = [("Authorization", authorization.as_str())];
        let body = br#"{"mode":"exempt"}"#;
        let put = Call { method: "PUT", target: "/-/v1/limits/a", fields: &fields, body, peer: "" };
        assert!(bench.call(&put).status < 300);
        let fields = [("Authorization", "Bearer t-read")];
        let get = Call { method: "GET", target: "/-/v1/audit?limit=1", fields: &fields, ..Call::default() };
        let audit = bench.call(&get);
        assert_eq!(audit.body["entries"][0]["actor"], actor);
        assert!(!audit.text.contains(token));
    }
}

#[test]
fn whoever_guesses_is_slowed_down_and_nobody_else() {
    let bench = with_roles();
    let ask = |peer, fields: &[(&str, &str)]| {
        bench.call(&Call { method: "GET", target: "/limits", peer, fields, ..Call::default() })
    };
    let (wrong, right) = ([("Authorization", "Bearer x")], [("Authorization", "Bearer t-read")]);
    for _ in 0..20 {
        assert_eq!(ask("127.0.0.1:1", &right).status, 200);
        assert_eq!(ask("127.0.0.1:1", &[]).status, 401, "nothing was guessed");
        assert_eq!(ask("127.0.0.1:1", &wrong).status, 401);
    }
    let refused = ask("127.0.0.1:2", &wrong);
    assert_eq!((refused.status, refused.fields.get("Retry-After")), (429, Some(&b"1"[..])));
    assert_eq!(ask("127.0.0.1:2", &right).status, 200, "others' guesses do not slow a right token down");
    assert_eq!(ask("127.0.0.1:2", &wrong).status, 429);
    assert_eq!(ask("127.0.0.1:2", &[]).status, 401);
    assert_eq!(ask("127.0.0.2:1", &right).status, 200);
    assert_eq!(ask("10.0.0.1:1", &wrong).status, 403);
}
