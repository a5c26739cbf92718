//! The table of what each engine can do is in docs/engines.md as the tests have it.

use crate::support::{Backend, Conn, Engine, Fault, Setup, client, engine, root};

#[test]
fn the_page_shows_the_table_that_the_tests_ask() {
    let page = std::fs::read_to_string(root().join("docs/engines.md")).expect("the page");
    let table = engine::table();
    assert!(page.contains(&table), "docs/engines.md must hold this table, word for word:\n{table}");
}

/// Otherwise ureq would refuse it, which would count as a failure of the backend.
#[test]
fn what_ureq_cannot_send_is_refused_at_the_door() {
    let backend = Backend::named("a");
    let balancer = Setup::on(Engine::TinyHttp).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(client::head("HEAD", "/", &[], Some(4)));
    conn.send("body");
    assert_eq!(conn.read("HEAD").expect("an answer").status, 400);
    let mut conn = Conn::open(balancer.address);
    conn.send(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xe4\r\n\r\n");
    // tiny_http reads ASCII alone, and closes the connection.
    assert!(matches!(conn.read("GET"), Err(Fault::Closed | Fault::Reset)));
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    assert!(!balancer.proc.err().contains("backend a"), "{}", balancer.proc.err());
}
