//! The order in which calls of the API are refused, also where the engine refuses first.

use serde_json::json;

use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup};

each_engine! {
    a_body_that_nobody_reads_comes_after_who_may_call,
}

/// 403, 401, 405 and 413 in this order also for a body above `frontend.max_body_bytes`, which the engine refuses by
/// itself.
fn a_body_that_nobody_reads_comes_after_who_may_call(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("frontend.max_body_bytes", json!(100_000));
    let with_token = setup.clone().set("admin.token", json!("sesame-open-the-door")).start();
    let closed = setup
        .set("admin.token", json!("sesame-open-the-door"))
        .set("admin.allow", json!(["10.0.0.0/8"]))
        .set("database.url", json!("sqlite:closed.db"))
        .start();
    let token = "Authorization: Bearer sesame-open-the-door\r\n";
    for (balancer, line, fields, status) in [
        (&closed, "POST /limits/create", token, 403),
        (&with_token, "POST /limits/create", "", 401),
        (&with_token, "POST /limits", token, 405),
        (&with_token, "POST /limits/create", token, 413),
        (&with_token, "POST /elsewhere", "", 413),
    ] {
        let mut conn = Conn::open(balancer.address);
        conn.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Content-Length: 100001\r\n\r\n"));
        let answer = conn.read("POST").expect("an answer");
        answer.problem(status);
        assert_eq!(answer.field("allow").is_some(), status == 405, "{answer:?}");
        assert_eq!(answer.field("www-authenticate").is_some(), status == 401, "{answer:?}");
    }
    assert!(backend.seen().is_empty());
}
