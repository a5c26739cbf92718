//! Tests of the tests' own tools: a client that accepts everything, or a database that can't be paused, would prove nothing.

use std::time::Duration;

use crate::support::client::head;
use crate::support::postgres::Postgres;
use crate::support::{Backend, Conn, Fault, Framing, Then, until};

#[test]
fn the_client_is_strict() {
    let good = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Framing::Length(2)),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Framing::Chunked),
        ("HTTP/1.1 200 OK\r\n\r\nok", Framing::UntilClose),
    ];
    for (text, framing) in good {
        let backend = Backend::saying(text, Then::Close);
        let answer = Conn::open(backend.address()).get("/");
        assert_eq!((answer.text().as_str(), answer.framing), ("ok", framing), "{text:?}");
    }
    let bad = [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\nok",
    ];
    for text in bad {
        let backend = Backend::saying(text, Then::Close);
        let mut conn = Conn::open(backend.address());
        conn.send(head("GET", "/", &[], None));
        assert!(conn.read("GET").is_err(), "{text:?} passed");
    }
}

#[test]
fn a_reset_of_a_scripted_backend_is_a_reset() {
    let backend = Backend::saying("", Then::Reset);
    let mut conn = Conn::open(backend.address());
    conn.send(head("GET", "/", &[], None));
    assert_eq!(conn.read("GET").unwrap_err(), Fault::Reset);
}

#[test]
fn a_paused_database_answers_nothing_and_comes_back() {
    let Some(mut server) = Postgres::start() else { return };
    let mut config: postgres::Config = server.url().parse().unwrap();
    config.connect_timeout(Duration::from_millis(300));
    server.pause();
    // The kernel accepts the connection, and nothing is sent on it.
    let (done, waiting) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let connected = config.connect(postgres::NoTls).is_ok();
        let _ = done.send(());
        connected
    });
    assert!(waiting.recv_timeout(Duration::from_millis(500)).is_err(), "it answered while it was paused");
    server.resume();
    assert!(thread.join().unwrap(), "it did not come back");
    server.stop();
    assert!(postgres::Client::connect(&server.url(), postgres::NoTls).is_err());
    server.run();
    until("it is back", || postgres::Client::connect(&server.url(), postgres::NoTls).ok());
}
