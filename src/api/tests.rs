//! Who is refused, in which order, and what our paths answer.

use std::io;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::error::FieldFault;
use crate::proxy::exchange::BodyFault;
use balancer_http::message::BodyLength;

pub(super) mod bench;
pub(super) mod owned;

use bench::{Bench, Call, admin};
use owned::head;

#[test]
fn only_exact_paths_of_ours_are_taken_from_the_backends() {
    // (path, public with the API on it, public beside an admin listener)
    for (target, shared, apart) in [
        ("/limits", true, false),
        ("/limits?limit=1", true, false),
        ("/limits/create", true, false),
        ("/limits/get?client_id=a", true, false),
        ("/limits/update", true, false),
        ("/limits/delete", true, false),
        ("/-/livez", true, true),
        ("/-/readyz?verbose", true, true),
        ("/limits/", false, false),
        ("/limits/create/", false, false),
        ("/limits/other", false, false),
        ("/Limits", false, false),
        ("//limits", false, false),
        ("/limits%2Fget", false, false),
        ("/limits/./get", false, false),
        ("/limitsx", false, false),
        ("/livez", false, false),
        ("/readyz", false, false),
        ("/metrics", false, false),
        ("/v1/limits", false, false),
        ("/-/v1/nothing", true, false),
        ("/-/metrics", true, false),
        ("/-/limits", false, false),
        ("/-/", false, false),
        ("/", false, false),
        ("*", false, false),
    ] {
        for (listen, public) in [(None, shared), (Some("127.0.0.1:9".parse().unwrap()), apart)] {
            let bench = Bench::with(&config::Admin { listen, ..admin() });
            let head = head(&Call { method: "GET", target, ..Call::default() }, BodyLength::Empty);
            assert_eq!(bench.api.claims(&head, Surface::Public), public, "{target} with {listen:?}");
            assert!(bench.api.claims(&head, Surface::Admin), "{target}");
        }
    }
}

#[test]
fn the_admin_listener_has_the_probes_under_both_names_and_404_for_the_rest() {
    let mut bench = Bench::with(&config::Admin { listen: Some("127.0.0.1:9".parse().unwrap()), ..admin() });
    bench.surface = Surface::Admin;
    for (target, status) in [
        ("/livez", 200),
        ("/-/livez", 200),
        ("/readyz", 200),
        ("/-/readyz", 200),
        ("/limits", 200),
        ("/", 200),
        ("/dashboard", 200),
        ("/nothing", 404),
        ("/limits/", 404),
        ("/-/limits", 404),
        ("*", 404),
    ] {
        assert_eq!(bench.json("GET", target, "").status, status, "{target}");
    }
    // A peer that may not call does not learn which paths there are.
    let stranger = Call { method: "GET", target: "/nothing", peer: "10.0.0.1:1", ..Call::default() };
    assert_eq!(bench.call(&stranger).status, 403);
}

/// Each row is wrong in everything that the rows below it are wrong in, and in one thing more.
#[test]
fn refusals_come_in_the_documented_order() {
    let bench = Bench::with_token("t0ken");
    bench.limits.stop();
    let large = vec![b'x'; input::MAX_BODY_BYTES + 1];
    let right = [("Authorization", "Bearer t0ken")];
    let wrong = [("Authorization", "Bearer other")];
    let call = |method, fields, body, peer| Call { method, target: "/limits/create", fields, body, peer };
    let good = br#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#;
    for (status, call) in [
        (403, call("GET", &wrong, &large, "10.0.0.1:1")),
        (401, call("GET", &wrong, &large, "127.0.0.1:1")),
        (405, call("GET", &right, &large, "127.0.0.1:1")),
        (413, call("POST", &right, &large, "127.0.0.1:1")),
        (400, call("POST", &right, b"x", "127.0.0.1:1")),
        (503, call("POST", &right, good, "127.0.0.1:1")),
    ] {
        let reply = bench.call(&call);
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(!reply.text.contains("ending"), "a cause is for the log: {reply:?}");
        let has = |name| reply.fields.has(name);
        assert_eq!(has("WWW-Authenticate"), status == 401);
        assert_eq!(has("Allow"), status == 405);
        assert_eq!(has("Retry-After"), status == 503);
        assert_eq!(reply.close, status == 413);
        assert_eq!(reply.fields.all("Cache-Control").collect::<Vec<_>>(), [b"no-store"]);
    }
    let bench = Bench::with_token("t0ken");
    assert_eq!(bench.call(&call("POST", &right, good, "127.0.0.1:1")).status, 201);
    assert_eq!(bench.call(&call("POST", &right, good, "127.0.0.1:1")).status, 409);
}

#[test]
fn each_path_has_its_methods_and_says_them() {
    let bench = Bench::new();
    for (target, allow) in [
        ("/limits/create", "POST"),
        ("/limits/get", "GET, HEAD"),
        ("/limits/update", "PUT"),
        ("/limits/delete", "DELETE"),
        ("/limits", "GET, HEAD"),
        ("/-/livez", "GET, HEAD"),
        ("/-/readyz", "GET, HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"] {
            let reply = bench.json(method, target, "");
            let allowed = allow.split(", ").any(|one| one == method);
            assert_eq!(reply.status != 405, allowed, "{method} {target}: {reply:?}");
            let expected = (!allowed).then_some(allow.as_bytes());
            assert_eq!(reply.fields.get("Allow"), expected, "{method} {target}");
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let bench = Bench::new();
    bench.json("POST", "/limits/create", r#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#);
    for target in ["/limits", "/limits/get?client_id=a", "/limits/get?client_id=b", "/-/livez", "/-/readyz"] {
        let (get, head) = (bench.json("GET", target, ""), bench.json("HEAD", target, ""));
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.text, "");
        assert_eq!(head.declared, Some(get.text.len() as u64), "{target}");
        assert_eq!(head.fields.get("Content-Type"), get.fields.get("Content-Type"));
    }
}

#[test]
fn a_body_that_cannot_be_read_is_answered_by_what_went_wrong() {
    let bench = Bench::new();
    let call = Call { method: "POST", target: "/limits/create", ..Call::default() };
    let piece = |bytes: usize| Ok(vec![b' '; bytes]);
    let fault = |fault: BodyFault| Err(io::Error::other(fault));
    for (status, close, body) in [
        (413, true, vec![piece(60_000), piece(5_537)]),
        (400, false, vec![piece(60_000), piece(5_536)]),
        (413, true, vec![piece(1), fault(BodyFault::TooLarge)]),
        (408, true, vec![piece(1), fault(BodyFault::TimedOut)]),
        (400, false, vec![piece(1), fault(BodyFault::Malformed)]),
        (400, false, vec![fault(BodyFault::ClientGone)]),
        (400, false, vec![Err(io::ErrorKind::ConnectionReset.into())]),
    ] {
        let reply = bench.call_with(&call, BodyLength::Chunked, body);
        assert_eq!((reply.status, reply.close), (status, close), "{reply:?}");
    }
    // A Content-Length that is too large is refused before a byte is read.
    let unread = vec![Err(io::Error::other("must not be read"))];
    assert_eq!(bench.call_with(&call, BodyLength::Known(65_537), unread).status, 413);
}

#[test]
fn probes_answer_anybody_and_tell_strangers_nothing() {
    let change: [fn(&Bench); 3] =
        [|_| {}, Bench::take_down, |bench| bench.health.draining.store(true, Ordering::SeqCst)];
    for (change, (ready, detail)) in
        change.into_iter().zip([(200, ""), (503, "no backend is healthy"), (503, "shutting down")])
    {
        let bench = Bench::without_store();
        change(&bench);
        let call = |target| Call {
            method: "GET",
            target,
            peer: "203.0.113.9:1",
            fields: &[("X-Forwarded-For", "1.1.1.1"), ("Host", "balancer.svc")],
            ..Call::default()
        };
        assert_eq!(bench.call(&call("/-/livez")).status, 200);
        let reply = bench.call(&call("/-/readyz"));
        assert_eq!(reply.status, ready, "{reply:?}");
        assert!(!reply.text.contains("secret-name") && !reply.text.contains("store"), "{reply:?}");
        if ready != 200 {
            assert_eq!(reply.body["detail"], detail);
        }
        for target in ["/-/readyz?verbose", "/-/readyz?verbose=1", "/-/livez?a=b&verbose"] {
            assert_eq!(bench.call(&call(target)).status, 403, "{target}");
        }
        let reply = bench.json("GET", "/-/readyz?verbose", "");
        assert_eq!(reply.status, ready);
        assert_eq!(reply.body["store"], "down", "shown, and not fatal: {reply:?}");
        assert_eq!(reply.body["ready"], ready == 200);
        assert_eq!(reply.body["backends"][0]["name"], "secret-name");
        assert_eq!(bench.json("GET", "/-/livez?verbose", "").body["alive"], true);
    }
}

#[test]
fn a_faulty_call_leaves_the_table_as_it_was() {
    let bench = Bench::new();
    bench.json("POST", "/limits/create", r#"{"client_id":"a","capacity":7,"rate_per_sec":0.5}"#);
    let before = bench.json("GET", "/limits", "").body;
    for (method, target, body) in [
        ("POST", "/limits/create", r#"{"client_id":"b","capacity":-1,"rate_per_sec":1}"#),
        ("PUT", "/limits/update", r#"{"client_id":"a","capacity":1,"rate_per_sec":1e400}"#),
        ("PUT", "/limits/update", r#"{"client_id":"a","capacity":1}"#),
        ("DELETE", "/limits/delete", r#"{"client_id":"a","x":1}"#),
        ("DELETE", "/limits/delete?client_id=a", r#"{"client_id":"b"}"#),
    ] {
        assert_eq!(bench.json(method, target, body).status, 400, "{method} {body}");
    }
    assert_eq!(bench.json("GET", "/limits", "").body, before);
    let row = json!({"client_id": "a", "capacity": 7, "rate_per_sec": 0.5});
    assert_eq!(before, json!({"limits": [row], "next_cursor": null}));
}

#[test]
fn a_reload_says_what_it_did_and_why_it_did_nothing() {
    let bench = Bench::new();
    let reloaded = Reloaded {
        changed: vec!["backends".into()],
        needs_restart: vec!["listen".into(), "cache.ttl".into()],
    };
    *bench.reloaded.lock() = Some(Ok(reloaded));
    let reply = bench.json("POST", "/-/v1/reload", "");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body,
        json!({ "reloaded": true, "changed": ["backends"], "needs_restart": ["listen", "cache.ttl"] })
    );
    assert_eq!(bench.json("POST", "/-/v1/reload", "{\"x\":1}").status, 400);
    assert_eq!(bench.json("POST", "/-/v1/reload?x", "").status, 400);
    assert_eq!(bench.json("GET", "/-/v1/reload", "").status, 405);

    let fault = |pointer: &str| FieldFault { pointer: pointer.into(), detail: "f:1: wrong".into() };
    *bench.reloaded.lock() = Some(Err(ReloadError::Faults(vec![fault("/a"), fault("/b/0")])));
    let reply = bench.json("POST", "/-/v1/reload", "");
    assert_eq!((reply.status, &reply.body["errors"][1]["pointer"]), (400, &"/b/0".into()));
    assert!(reply.body["detail"].as_str().is_some_and(|text| text.contains("2 faults")), "{reply:?}");
    *bench.reloaded.lock() = Some(Err(ReloadError::Busy("the cause".into())));
    let reply = bench.json("POST", "/-/v1/reload", "");
    assert_eq!(reply.status, 503);
    assert!(!reply.text.contains("the cause"), "{reply:?}");
}
