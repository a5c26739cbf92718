//! The PROXY protocol, versions 1 and 2: only from trusted peers, and bounded in time and length.

use std::time::{Duration, Instant};

use serde_json::json;

use super::setup;
use crate::support::client::head;
use crate::support::{Backend, Balancer, Conn, Fault, PATIENCE, get, until};

/// The address whose headers count, which is not the tests' usual one.
const TRUSTED: &str = "127.0.0.2";

fn start(backend: &Backend) -> Balancer {
    setup()
        .backend(backend.address())
        .set("frontend.proxy_protocol", json!(true))
        .set("rate_limit.trusted_proxies", json!([TRUSTED]))
        .set("frontend.head_timeout", json!("1s"))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start()
}

fn trusted(balancer: &Balancer) -> Conn {
    Conn::from(TRUSTED.parse().expect("an address"), balancer.address)
}

fn version_2(command: u8, family: u8, length: u16, addresses: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length.to_be_bytes(), addresses].concat()
}

/// A header and the client that it names; `None` is the peer itself.
fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 80];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    v6[15] = 1;
    let with_tlv = [&v4[..], b"\x04\0\x03abc"].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 80\r\n".to_vec(), Some("192.0.2.1")),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n".to_vec(), Some("2001:db8::1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (version_2(0x21, 0x11, 12, &v4), Some("192.0.2.1")),
        (version_2(0x21, 0x11, 18, &with_tlv), Some("192.0.2.1")),
        (version_2(0x21, 0x21, 36, &v6), Some("2001:db8::1")),
        (version_2(0x20, 0x00, 0, &[]), None),
    ]
}

#[test]
fn the_client_that_a_trusted_peer_names_is_forwarded_and_limited() {
    let backend = Backend::named("a");
    let balancer = start(&backend);
    for (row, (header, client)) in headers().into_iter().enumerate() {
        let mut conn = trusted(&balancer);
        // Header and request in one packet.
        conn.send(
            [header.clone(), head("GET", "/one", &[("X-Forwarded-For", "203.0.113.9")], None)].concat(),
        );
        conn.read("GET").unwrap().expect(200);
        let seen = backend.seen().pop().unwrap();
        let expected = match client {
            // The client that the header names is no proxy of ours, so what it says of other clients is dropped.
            Some(client) => client.to_owned(),
            None => format!("203.0.113.9, {TRUSTED}"),
        };
        assert_eq!(seen.field("x-forwarded-for"), Some(expected.clone()), "row {row}");
        // It holds for the whole connection.
        conn.get("/two").expect(200);
        let again = backend.seen().pop().unwrap().field("x-forwarded-for");
        assert_eq!(again.as_deref(), Some(client.unwrap_or(TRUSTED)), "row {row}");
    }
    // Byte by byte.
    let mut slowly = trusted(&balancer);
    for byte in headers()[0].0.iter().chain(head("GET", "/bytes", &[], None).iter()) {
        slowly.send([*byte]);
    }
    slowly.read("GET").unwrap().expect(200);
    assert_eq!(backend.seen().pop().unwrap().field("x-forwarded-for").as_deref(), Some("192.0.2.1"));

    // The limiter goes by it: address and port.
    balancer.limit("192.0.2.1", 1, 0);
    balancer.limit("192.0.2.7:1234", 0, 0);
    let mut statuses = Vec::new();
    for client in [
        "192.0.2.1 1.2.3.4 1 80",
        "192.0.2.1 1.2.3.4 2 80",
        "192.0.2.7 1.2.3.4 1234 80",
        "192.0.2.7 1.2.3.4 1235 80",
    ] {
        let mut conn = trusted(&balancer);
        conn.send(format!("PROXY TCP4 {client}\r\n"));
        statuses.push(conn.get("/limited").status);
    }
    assert_eq!(statuses, [200, 429, 429, 200]);
}

#[test]
fn without_a_proper_header_a_trusted_peer_is_refused() {
    let backend = Backend::named("a");
    let balancer = start(&backend);
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("none at all", head("GET", "/", &[], None)),
        ("lower case", b"proxy TCP4 192.0.2.1 1.2.3.4 1 80\r\n".to_vec()),
        ("an unknown family", b"PROXY TCP5 192.0.2.1 1.2.3.4 1 80\r\n".to_vec()),
        ("no address", b"PROXY TCP4 192.0.2.256 1.2.3.4 1 80\r\n".to_vec()),
        ("a port too high", b"PROXY TCP4 192.0.2.1 1.2.3.4 65536 80\r\n".to_vec()),
        ("a bare LF", b"PROXY TCP4 192.0.2.1 1.2.3.4 1 80\n".to_vec()),
        ("no end within 107 bytes", [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat()),
        ("an unknown version", version_2(0x31, 0x11, 12, &[0; 12])),
        ("too short for its addresses", version_2(0x21, 0x11, 4, &[0; 4])),
        ("a length of 65,535, of which nothing has come", version_2(0x21, 0x11, u16::MAX, &[])),
    ];
    for (what, bytes) in rows {
        let mut conn = trusted(&balancer);
        conn.send(&bytes);
        conn.read("GET").unwrap_or_else(|fault| panic!("{what}: {fault:?}")).problem(400);
        conn.finish();
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed), "{what}");
    }
    assert!(backend.seen().is_empty(), "{:#?}", backend.seen());
}

#[test]
fn a_header_that_does_not_come_is_waited_for_only_so_long() {
    let backend = Backend::named("a");
    let balancer = start(&backend);
    for begun in [&b"PROXY TCP4 192.0.2.1 "[..], &version_2(0x21, 0x11, 12, &[192, 0])] {
        let began = Instant::now();
        let mut conn = trusted(&balancer);
        conn.send(begun);
        conn.read("GET").unwrap().problem(408);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    }
    // A peer that sends nothing is not answered.
    assert_eq!(trusted(&balancer).wait_closed(), (Vec::new(), Fault::Closed));
    // The head behind the header has a deadline, too, which single bytes do not move.
    let mut conn = trusted(&balancer);
    conn.send("PROXY TCP4 192.0.2.1 1.2.3.4 1 80\r\nGET / HTTP/1.1\r\nX: ");
    conn.wait_at_most(Duration::from_millis(100));
    let answer = until("the deadline is over", || match conn.read("GET") {
        Err(Fault::TimedOut) => {
            // Refused when it was ended meanwhile, which the next read tells.
            let _ = conn.try_send("x");
            None
        }
        read => Some(read),
    });
    answer.unwrap().problem(408);
    assert!(backend.seen().is_empty());
}

#[test]
fn an_untrusted_peer_that_sends_one_is_refused_and_else_served() {
    let backend = Backend::named("a");
    let balancer = start(&backend);
    for (header, _) in headers() {
        let mut conn = Conn::open(balancer.address);
        conn.send([header, head("GET", "/", &[], None)].concat());
        conn.read("GET").unwrap().problem(400);
        conn.finish();
        assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed));
    }
    assert!(backend.seen().is_empty());
    balancer.get("/").expect(200);
    assert_eq!(backend.only().field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    // The admin listener knows no such headers.
    get(balancer.admin, "/-/livez").expect(200);
}
