//! What the operator reads: which client it was, which backend broke off its answer, and which request ended early.

use serde_json::{Value, json};

use crate::support::client::head;
use crate::support::{Backend, Conn, Fault, Setup, Then};

fn record(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

/// A range holds many clients: the log says which of them it was.
#[test]
fn a_client_of_a_range_is_logged_as_itself() {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).set("log.access", json!(true)).start();
    balancer.limit("127.0.0.0/8", 10, 1);
    balancer.limit("::ffff:127.0.0.3", 20, 1);
    for (source, path, entry, id) in [
        ("127.0.0.2", "/range", "127.0.0.0/8", "127.0.0.2"),
        ("127.0.0.3", "/client", "::ffff:127.0.0.3", "::ffff:127.0.0.3"),
    ] {
        balancer.get_from(source, path).expect(200);
        let line = balancer.proc.wait_out(&format!("\"path\":\"{path}\""));
        let record = record(&line);
        assert_eq!(record["client_addr"], source, "{line}");
        assert_eq!(record["limit_entry"], entry, "{line}");
        assert_eq!(record["client_id"], id, "{line}");
    }
}

/// Without an access log nothing else tells which backend breaks off its answers.
#[test]
fn a_broken_answer_names_its_backend_whatever_is_logged() {
    let cut = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Then::Close);
    let balancer = Setup::auto().backend_with(json!({ "name": "cutter", "url": cut.url() })).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    assert!(matches!(conn.read("GET"), Err(Fault::Truncated(_))));
    balancer.proc.wait_err(0, "the cause is said", |line| {
        line.contains("broke off") && line.contains("cutter") && line.contains("3 of 10 bytes")
    });
}

/// Nothing is lost silently: a request whose body never came whole is answered, if anybody still reads, and logged.
#[test]
fn a_body_that_ends_early_is_answered_and_logged() {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).set("log.access", json!(true)).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("POST /short HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    conn.finish();
    conn.read("POST").expect("an answer").problem(400);
    let line = balancer.proc.wait_out("\"path\":\"/short\"");
    assert_eq!(record(&line)["status"], 400, "{line}");
    assert!(backend.seen().is_empty());
}
