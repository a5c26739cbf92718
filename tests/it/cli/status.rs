//! `balancer status`: one line, and exit code 0 when all is well, 1 when not, 2 for wrong usage.

use serde_json::json;

use super::{Cli, Ground};
use crate::support::backend::refusing;
use crate::support::{Backend, Balancer, Database, Setup, until};

/// What it says, to stdout and stderr, and its code.
fn status(balancer: &Balancer) -> (String, String, Option<i32>) {
    let url = format!("http://{}", balancer.admin);
    let ran = Cli::new(&["status"]).env("BALANCER_URL", &url).run();
    (ran.out, ran.err, ran.code)
}

#[test]
fn a_balancer_that_is_well_says_so_in_one_line() {
    let ground = Ground::new(&Database::sqlite());
    let said = ground.good(&["status"]);
    assert_eq!(
        said,
        "1 of 1 backends up · 0 % errors · 0 req/s · 0 clients limited · store up · 1 instance\n"
    );
    ground.good(&["limits", "set", "127.0.0.1", "2/h"]);
    for status in [200, 200, 429] {
        ground.balancer.get("/").expect(status);
    }
    // A limit that refuses requests is not a fault.
    until("a client is limited", || ground.good(&["status"]).contains("1 client limited").then_some(()));
    until("requests are counted", || (!ground.good(&["status"]).contains(" 0 req/s ")).then_some(()));
    let json = ground.json(&["status"]);
    assert_eq!((&json["well"], &json["line"][3]["value"]), (&json!(true), &json!(1)), "{json}");
}

#[test]
fn one_that_is_not_well_ends_with_1_and_names_what_is_bad() {
    let well = Backend::named("b");
    let balancer = Setup::auto()
        .backend(refusing())
        .backend(well.address())
        .set("health_check", json!({ "interval": "1h", "timeout": "20s" }))
        .start();
    let (out, err, code) = status(&balancer);
    assert!(out.starts_with("1 of 2 backends up · ") && out.lines().count() == 1, "{out}");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("bad: 1 of 2 backends up\n  backend a is down: GET /: connection refused"), "{err}");
    // Nothing answers at all.
    let nobody = Cli::new(&["status", "--url", &refusing().to_string()]).run();
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(1), ""));
    let wrong = Cli::new(&["status", "now"]).run();
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
}

#[test]
fn a_backend_that_answers_nothing_but_errors_is_bad() {
    let broken = Backend::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let balancer = Setup::auto().backend(broken.address()).set("health_check", json!(null)).start();
    for _ in 0..10 {
        balancer.get("/").expect(500);
    }
    until("it is not well", || {
        let (out, err, code) = status(&balancer);
        let told = out.contains(" · 100 % errors · ")
            && err.contains("backend a is up: most of its answers are errors");
        (told && code == Some(1)).then_some(())
    });
}
