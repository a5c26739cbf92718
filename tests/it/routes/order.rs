//! The order of steps: denied clients, limits, passwords, answers of the route, forwarding.

use serde_json::json;

use super::{setup, users};
use crate::support::engine::each_engine;
use crate::support::{Backend, Engine, request};

each_engine! {
    the_order_is_deny_limits_password_redirect,
    no_preflight_guesses_passwords,
}

fn the_order_is_deny_limits_password_redirect(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{
        "path": "/x", "redirect": { "to": "/y" }, "deny": "127.0.0.2", "limit": "3/d", "basic_auth": "users",
    }]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "users", &[("alice", "wonderland")]);
    let balancer = setup.start();
    let right = [("Authorization", "Basic YWxpY2U6d29uZGVybGFuZA==")];
    let ask = |fields: &[(&str, &str)]| request(balancer.address, "GET", "/x", fields, b"");
    // A client that is denied is told so before anything else, and no token is taken.
    for _ in 0..5 {
        balancer.get_from("127.0.0.2", "/x").problem(403);
    }
    // A guess costs a token, and a right password as well.
    let wrong = ask(&[]);
    assert!(wrong.field("ratelimit").is_some_and(|rest| rest.starts_with(r#""/x";r=2;"#)), "{wrong:?}");
    wrong.problem(401);
    assert_eq!(ask(&right).expect(308).field("location"), Some("/y"));
    ask(&[]).problem(401);
    ask(&right).problem(429);
    assert!(backend.seen().is_empty());
}

/// A preflight costs no token, and a browser sends no password with one.
fn no_preflight_guesses_passwords(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "path": "/x", "pool": "default", "limit": "3/d", "basic_auth": "users" }]);
    let setup =
        setup(engine, &backend, routes).set("rate_limit.cors", json!({ "origins": ["https://app.example"] }));
    users(setup.folder(), "users", &[("alice", "wonderland")]);
    let balancer = setup.start();
    let ask = |more: &[(&str, &str)]| {
        let preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
        request(balancer.address, "OPTIONS", "/x", &[&preflight[..], more].concat(), b"").status
    };
    let guess = ("Authorization", "Basic YWxpY2U6d3Jvbmc=");
    assert_eq!([(); 4].map(|()| ask(&[])), [401; 4]);
    assert_eq!([(); 4].map(|()| ask(&[guess])), [401, 401, 401, 429]);
    assert_eq!(ask(&[]), 429);
    assert!(backend.seen().is_empty());
}
